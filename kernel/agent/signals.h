#pragma once
/*
 * Signals of the kernel on the agent's own socket, and what they ask of the loop. The frame is
 * taken in and the connection closed: that close is the acknowledgement. A signal is acted on at
 * the next boundary; stop and pause break waits off.
 */
#include "kernel/agent/agent.h"

#define MESSAGES_MAX 256

struct signals {
    bool stop, pause;
    bool live;      /* the first SIGSTART came */
    bool restarted; /* the kernel was started again before that */
    bool late;      /* half of agents.stopGraceSec has passed since stop */
    char stop_reason[64];
    json_object *starts;   /* array of {goalId, goal} not yet begun */
    json_object *messages; /* array of {text, from, agent?} not yet in the context */
    json_object *guidance; /* array of lines of block 4 that came with signals */
    char last[16];         /* name of the last one */
    bool tools_stale;      /* a token came: ask for the tool list again */
    uint64_t seen[32];     /* hashes of the last signal ids */
    unsigned n_seen;
};
extern struct signals sig;

void signals_init(void);
/* For server_new. */
void signals_frame(struct call *c, void *arg);
/* Takes one signal in: the frame's params, already known to be from the kernel. */
void signals_take(json_object *params);
/* Host SIGTERM. */
void signals_term(void *arg);
unsigned signals_pending(void);
/* The first of a list, removed from it; yours, or NULL. */
json_object *signals_shift(json_object *list);
