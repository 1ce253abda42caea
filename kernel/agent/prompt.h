#pragma once
/* The system prompt (agents page, section 8): the same input gives the same bytes. */
#include "kernel/agent/tools.h"

struct prompt {
    const char *name, *session, *user, *goal, *role, *memory;
    int64_t pid, context_limit;
    int calls_per_turn, turns_left;
    const struct tools *tools;
    json_object *budgets; /* {tool: uses left}, or NULL */
    json_object *pending; /* lines of block 4, an array, or NULL */
    json_object *refused; /* tools denied until the next user message, an array, or NULL */
    const char *summary;  /* "" if none */
};
/* Yours to free(). */
char *prompt_text(const struct prompt *p);
