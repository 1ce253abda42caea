#pragma once
/*
 * Reports to the kernel: the state as it is now, one call at a time. A change of state is sent at
 * once and again until it is acknowledged; counters ride along.
 */
#include "kernel/agent/agent.h"

struct report {
    const char *state;      /* static text */
    const char *waiting_on; /* static text or NULL */
    int64_t turn, calls_turn, calls_total;
};
extern struct report report; /* counters are set by the loop */

void report_init(void);
/* A change of state: running, paused, waiting. */
void report_state(const char *state, const char *waiting_on);
/* The result that goes with the next change of state. */
void report_result(const char *text);
/* Counters changed: told within 250 ms at the earliest. */
void report_counters(void);
/* A goal or message is in the conversation: told with the next report. */
void report_taken(const char *id);
/* All over again: after a restart of the kernel. */
void report_full(void);
/* Waits until what was said is acknowledged. True if so; false: timeout (ms; -1: none) or break. */
bool report_flush(int64_t timeout_ms, unsigned brk);
/* The last one. */
void report_exit(const char *status, const char *reason, const char *result, int64_t timeout_ms);
bool report_low(void); /* the kernel said that little budget is left */
