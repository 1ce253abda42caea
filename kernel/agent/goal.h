#pragma once
/*
 * The turn loop (agents page, section 7): one goal after the other until the process is to end.
 */
#include "kernel/agent/agent.h"

/* Lines that were on disk before this process; own: of this invocation. */
void goal_replay(const char *text, size_t len, bool own);
/* Serves goals from the first SIGSTART (already queued) on. Returns the exit code; the last report
 * is made. */
int goal_loop(void);
