#pragma once
/* The way in and out: token, own tools, first signal; last report, tools gone, wiped. */
#include "kernel/agent/agent.h"

#define REACH_MS 10000 /* how long kernel and router may be unreachable at start */

/* agent.ready: gets the token. 0, an error, or a broken wait (rt.h). */
int life_ready(unsigned brk);
/* From here to the first SIGSTART: 0, or an exit code. */
int life_begin(void);
/* Says the last word and cleans up. Returns the exit code. */
int life_end(int code, const char *status, const char *reason, const char *result);
