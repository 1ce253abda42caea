#pragma once
/*
 * What an agent may call (agents page, sections 3 and 4). Pure: given what was asked for, what the
 * user's policy allows, what is registered and what the parent holds, the grant list is always the
 * same. A set is a JSON array of strings; results are sorted.
 */
#include "common/base/json.h"

struct policy {
    bool all;
    json_object *allowed, *denied; /* arrays of patterns, may be NULL: allows, denies nothing */
};

/* Everything there is: registered tools the user can see, and the tools behind an agent's own. */
struct tool_set {
    json_object *names; /* owned, sorted array, no duplicates */
};
/* registered: array of {name, state…} as sys/tools gives it, or of strings; borrowed. */
void tool_set_make(struct tool_set *t, json_object *registered);
void tool_set_done(struct tool_set *t);
bool tool_set_has(const struct tool_set *t, const char *name);

/* Appends the tools that a request names to out (no duplicates). False if it matches nothing. */
bool request_expand(const struct tool_set *t, const char *request, json_object *out);
bool policy_allows(const struct policy *p, const char *tool);

struct grant_input {
    const struct tool_set *tools;
    const struct policy *policy;
    json_object *requested, *required, *optional; /* manifest */
    json_object *additional;                      /* spawn tools.additional, NULL */
    json_object *narrow;                          /* spawn capabilities, NULL: not narrowed */
    json_object *removed;                         /* spawn tools.denied, NULL */
    json_object *limit;                           /* limits tools.allowed, NULL: none */
    json_object *parent;                          /* the parent's grants, NULL: no parent */
};
struct grant_result {
    json_object *granted, *denied; /* owned arrays */
    json_object *missing;          /* owned array: what is required but not granted */
};
void grants_compute(const struct grant_input *in, struct grant_result *out);
void grant_result_done(struct grant_result *r);

/* Tools the executor itself needs: the runtime claim of every token. Borrowed array. */
json_object *grants_runtime(void);
/* True for tools that every agent has without a grant. */
bool tool_always_present(const char *tool);
