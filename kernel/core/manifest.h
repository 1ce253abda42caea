#pragma once
/*
 * An agent package's manifest (agents page, section 1): parsed into one struct, old forms folded
 * into the new one, every finding named with its line. Pure: no files, no clock.
 */
#include "common/base/yaml.h"

#define MANIFEST_MAX (256 * 1024)
#define PROMPT_MAX   (64 * 1024)

struct manifest {
    char name[64], version[64];
    const char *description, *author;             /* borrowed from doc */
    char signature[72];                           /* "sha256:<hex>", "" if unsigned */
    const char *prompt_path;                      /* NULL: none */
    const char *prompt_text;                      /* older inline form, NULL: none */
    json_object *requested, *required, *optional; /* owned arrays of strings, old names replaced */
    const char *model;                            /* preference of its own, NULL: none */
    int64_t min_context;                          /* least model window */
    json_object *model_caps;                      /* required capabilities of the model, owned */
    const char *recommended;                      /* named in a refusal */
    bool context_fixed;
    const char *goal_template; /* NULL: none */
    json_object *values;       /* owned: the fields that parameter resolution reads, by section */
    json_object *secrets;      /* owned array of names */
    json_object *budget;       /* borrowed or NULL: {tokens, usd} */
    bool restore_on_crash;
    json_object *doc;      /* the whole document, owns the borrowed text */
    json_object *warnings; /* owned array of strings: unknown keys in spec, dropped names */
};

/* 0 and *ret; ERR_INVAL with *e saying where and why. dir: the package directory's name, which must
 * fit ("name@version", or "name"); NULL: not checked. */
int manifest_parse(const char *text, size_t len, const char *dir, struct manifest **ret,
                   struct yaml_err *e);
void manifest_free(struct manifest *m);

/* Agent name by the grammar of metadata.name. */
bool agent_name_valid(const char *s);
/* Orders two semantic versions: negative, 0, positive; text that is none counts below all. */
int semver_cmp(const char *a, const char *b);
bool semver_valid(const char *s);
/* Splits "name@version"; version "" without one. False if either part is malformed. */
bool package_split(const char *dir, char *name, size_t name_size, char *version, size_t ver_size);

/* A tool name or group of older packages in today's form into out; false: drop it. */
bool request_name(const char *s, char *out, size_t size);
/* The goal made from a template: {{key}} of vars; {{goal}} {{task}} {{query}} {{topic}} are the
 * goal; a template without any of these gives way to a goal that was given. Yours to free(). */
char *goal_expand(const char *tmpl, const char *goal, json_object *vars);
