#pragma once
/*
 * Calls out of the turn loop. The loop reads like a program that blocks, but every wait turns the
 * event loop, so signals are taken in at any time; some of them break a wait off.
 */
#include "kernel/agent/agent.h"

/* Why a wait ended early; also results of the functions below, below zero. */
enum {
    BRK_STOP = 1 << 0,      /* SIGSTOP or host SIGTERM */
    BRK_PAUSE = 1 << 1,     /* SIGPAUSE */
    BRK_RESTARTED = 1 << 2, /* the kernel was started again */
    BRK_LATE = 1 << 3,      /* half of the time between SIGSTOP and the end is over */
};
#define RT_BROKEN(brk) (-(int)(brk))

/* Reasons that hold now, of those in brk. */
unsigned rt_breaks(unsigned brk);
/* Turns the loop until *done or a reason of brk holds (then it is returned). */
unsigned rt_until(const bool *done, unsigned brk);
/* Waits ms; 0 or the reason it ended early. */
unsigned rt_sleep(int64_t ms, unsigned brk);

struct rt_call {
    const char *sock; /* NULL: the router */
    const char *method;
    json_object *params; /* borrowed */
    const char *token;   /* NULL: the capability token */
    int64_t timeout_ms;  /* 0: 30 s; -1: none */
    bool repeatable;
    unsigned brk;
    ipc_note_fn note;
    void *arg;
};
/* The error of the reply (0: answered), or RT_BROKEN(reason): hung up. ipc_reply_done(r) always. */
int rt_call(const struct rt_call *c, struct ipc_reply *r);
/* Starts n calls at once and waits for all. results[i] as rt_call. */
void rt_calls(const struct rt_call *c, struct ipc_reply *r, int *results, size_t n, unsigned brk);

/* The owner cannot have seen the call: it may be made again. */
bool rt_unsent(const struct ipc_reply *r);
