#pragma once
/*
 * Parameter resolution (kernel page, section 16): layers of defaults, field by field from lowest to
 * highest, then clamped by limits. Pure. The fields are one table, which also makes
 * /kernel/defaults/agent-manifest.yaml and /kernel/limits/agent-manifest.yaml.
 */
#include "common/base/json.h"

#define RESOLVE_LAYERS 40

struct resolve_layer {
    json_object *values; /* {section: {field: value}}, borrowed; limits: {section: {field: rule}} */
    const char *source;  /* "crew-lab", "user-alice", "manifest", "spawn" */
    const char *path;    /* VFS path it came from, "" if none */
};
struct resolve_input {
    const char *default_model; /* models.default */
    struct resolve_layer defaults[RESOLVE_LAYERS], limits[RESOLVE_LAYERS];
    size_t n_defaults, n_limits;
};
struct resolve_output {
    json_object *resolved;    /* owned: {section: {field: value}} */
    json_object *annotations; /* owned: {"section.field": {value, source, path, clampedFrom?, …}} */
    json_object *tool_limit; /* owned: allowed tools by limits, NULL if none limits them */
    char why[256];           /* of a refusal */
};
/* 0; ERR_INVAL with out->why when a limit refuses the value (enum, readonly). */
int resolve_fields(const struct resolve_input *in, struct resolve_output *out);
void resolve_output_done(struct resolve_output *out);

/* Checks a Defaults file's values against limits: 0, or ERR_INVAL with why. */
int resolve_check(json_object *values, const struct resolve_layer *limits, size_t n_limits,
                  char *why, size_t size);
/* The table as files; owned. */
json_object *resolve_system_defaults(const char *default_model);
json_object *resolve_system_limits(void);
