#pragma once
/*
 * The running agent: one per process. Its parts are used by everybody here; each has one module
 * that changes it.
 */
#include "common/ipc/client.h"
#include "common/ipc/server.h"
#include "kernel/agent/chunk.h"
#include "kernel/agent/context.h"
#include "kernel/agent/journal.h"
#include "kernel/agent/mask.h"
#include "kernel/agent/start.h"
#include "kernel/agent/tools.h"

struct agent {
    struct start st;
    struct loop *loop;
    struct server *server;
    pid_t init_pid; /* listens on every socket we call */
    char router[108], kernel[108], gateway[108];
    struct journal journal;
    struct context ctx;
    struct tools tools;
    struct mask mask;
    json_object *degraded; /* array of texts */

    /* token.c */
    char *token;
    int64_t expires_ms;
    json_object *claims;  /* what it says of itself; never believed for a decision */
    json_object *budgets; /* {tool: uses left}, our copy */
};
extern struct agent self;
