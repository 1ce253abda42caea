#pragma once
/*
 * The tool calls of one answer: checked, sent in their order, recorded (agents page, sections 7, 9
 * and 13).
 */
#include "kernel/agent/agent.h"

/* One call of a turn on its way. */
struct toolcall {
    const char *id, *name, *turn; /* borrowed from the assistant line */
    json_object *args;            /* borrowed, an object */
    const char *input_error;      /* arguments that were not JSON, or NULL */
    unsigned pos;
    struct tool *tool;   /* NULL: not in the list */
    int err;             /* 0, or enum err: then message says why */
    char *message;       /* owned */
    json_object *result; /* owned */
    int64_t began, ms;
    bool ready; /* has its result or error */
    bool sent;
};

/* What the calls need to know of the goal, and tell it. */
struct dispatch {
    int turn;             /* number of the turn */
    json_object *refused; /* tools that were denied: not asked for again; borrowed, added to */
    bool resumed;         /* the process that sent these calls is gone */
    void (*record)(json_object *line, void *arg); /* appends a tool line (borrowed) */
    void *arg;
    /* Stops here while paused. False: SIGSTOP. */
    bool (*boundary)(void);
};

/* All calls of the assistant line at index entry of the context that have no result yet. */
void dispatch_calls(const struct dispatch *d, size_t entry);

/* A failure of the call: it gets this as its result. */
void toolcall_fail(struct toolcall *t, int err, const char *fmt, ...) printf_like(3, 4);
/* The error of a reply as the call's result. */
void toolcall_fail_reply(struct toolcall *t, const struct ipc_reply *r);
/* Calls a tool by the rules of section 13 and puts the outcome into t. first: the reply of a try
 * that was made already (result in *first_err), or NULL. */
void toolcall_route(struct toolcall *t, const char *method, json_object *params, int64_t timeout_ms,
                    struct ipc_reply *first, int first_err);

/* own.c: the tools that the executor serves itself or with care of its own. False: not one of them.
 */
bool own_tool(const struct dispatch *d, struct toolcall *t);
