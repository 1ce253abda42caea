#pragma once
/*
 * The tools this agent may offer to its model: the router's answer to sys/tools, by name, and which
 * of them go out with the next call (agents page, sections 8 and 9).
 */
#include "common/base/json.h"

struct tool {
    char *name, *desc;
    json_object *schema; /* an object, or NULL */
    int64_t timeout_ms;  /* of the descriptor; 0: the default */
    bool read_only, idempotent, untrusted, degraded;
    bool loaded; /* asked for by sys/tools while the index is in use */
    uint64_t used;
};
struct tools {
    struct tool *t; /* sorted by name */
    size_t n;
    int64_t version;
    bool index;    /* too many for the prompt: namespaces are listed instead */
    uint64_t tick; /* orders uses */
};

void tools_done(struct tools *t);
/* Takes a sys/tools reply in. offered (may be NULL): which of them a model may see. context_limit
 * decides about the index. gone (may be NULL) gets the names that are no longer there. True if the
 * list changed. */
bool tools_apply(struct tools *t, json_object *reply, bool (*offered)(const char *name),
                 int64_t context_limit, json_object *gone);
struct tool *tools_find(const struct tools *t, const char *name);
/* The tools array of a call; required: names always sent. Yours. */
json_object *tools_wire(const struct tools *t, json_object *required);
/* Appends block 2 of the system prompt. */
void tools_describe(const struct tools *t, struct buf *out);
/* A sys/tools result that the model asked for: its hits go out with the next calls (32 of them; the
 * least recently used go beyond 96). */
void tools_load(struct tools *t, json_object *result);
void tools_touch(struct tools *t, struct tool *tool);

/* cap/list, cap/request-tool, cap/escalate, job/watch, sys/tools */
bool tool_always(const char *name);
/* Category 2 without the always present: agent and pipe tools */
bool tool_category2(const char *name);
/* Safe to repeat after a break by an agreement of its own: waits, spawn */
bool tool_resumable(const char *name);
