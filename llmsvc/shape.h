#pragma once
/*
 * A request in the one internal shape (llm page, section 3): parameters checked, message history
 * made valid, tool names given their wire form. Adapters read it, nobody changes it.
 */
#include "common/base/args.h"
#include "common/base/map.h"

#define WIRE_NAME_MAX 64

/* The two-way table of tool names of one request. */
struct names {
    struct map to_wire, to_avix; /* values: owned strings */
};
void names_init(struct names *n);
void names_done(struct names *n);
/* Wire name of an Avix name (remembered); borrowed. */
const char *names_wire(struct names *n, const char *avix);
/* The way back; out holds 2 * TOOL_MAX. A name that is not in the table is unmangled by the
 * grammar, or taken as it is. Returns out. */
const char *names_avix(const struct names *n, const char *wire, char out[256]);

enum choice { CHOICE_AUTO, CHOICE_NONE, CHOICE_REQUIRED, CHOICE_NAMED };
enum effort { EFFORT_NONE, EFFORT_LOW, EFFORT_MEDIUM, EFFORT_HIGH, EFFORT_MAX };
extern const char *const effort_names[5]; /* "" low medium high max */

struct lreq {
    char provider[64], model[192]; /* "": not given */
    json_object *sys;              /* array of text blocks, may be empty */
    json_object *messages;         /* array, valid: roles alternate from user to user */
    json_object *tools;            /* array of {name, description, input_schema, cache?}, by name */
    enum choice choice;
    char choice_name[256];
    int64_t max_tokens; /* 0: not given */
    bool has_temperature, has_top_p, has_seed;
    double temperature, top_p;
    int64_t seed;
    json_object *stop_sequences; /* array of strings or NULL */
    bool thinking;
    enum effort effort;
    int64_t budget_tokens;        /* 0: not given */
    json_object *response_format; /* object or NULL */
    char turn_id[64];
    int64_t timeout_ms; /* 0: not given */
    bool allow_fallback, want_thinking;
    struct names names;
    size_t bytes; /* of the prompt, for estimates */
};

/* Takes the parameters of llm/complete or llm/stream_complete (borrowed, not changed). 0, or
 * ERR_INVAL with the field and the reason in *bad. */
int lreq_parse(json_object *params, struct lreq *ret, struct args *bad);
void lreq_done(struct lreq *r);
/* Estimated input tokens: bytes / 4. */
int64_t lreq_estimate(const struct lreq *r);
/* The text of a message's text blocks, joined by newlines, appended to out. */
struct buf;
void message_text(json_object *message, struct buf *out);
/* True if some block (in results too) has this type. */
bool lreq_has_block(const struct lreq *r, const char *type);

/* The history alone (history.c): messages in any accepted form to a valid array. system gets the
 * text blocks of system messages. 0, or ERR_INVAL with *why (static). */
int history_repair(json_object *messages, json_object *sys, json_object **ret, const char **why);
/* An input_schema from the short form of the tool descriptors; a JSON Schema passes as it is.
 * Owned. */
json_object *schema_of(json_object *input);
