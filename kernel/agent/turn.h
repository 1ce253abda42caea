#pragma once
/* One turn's question to the model: prompt, tools, messages, and what to do when the answer does
 * not fit or the context does not (agents page, sections 8 and 11). */
#include "common/base/rnd.h"
#include "kernel/agent/agent.h"

struct turn {
    int number;
    unsigned n;           /* calls of the model since the last line */
    char id[UUID_LEN];    /* of the first of them: the turn's id in events and on disk */
    char *text;           /* the answer; owned, secrets replaced */
    json_object *calls;   /* array of {id, name, args, inputError?}; owned */
    int64_t in, out;      /* tokens */
    char failure[32];     /* exit reason */
    json_object *pending; /* lines of block 4; owned */
    json_object *refused; /* tools denied until the next user message; owned */
};

void turn_init(struct turn *t);
/* The goal has ended. */
void turn_forget(struct turn *t);
/* A user line came. */
void turn_new_input(struct turn *t);
/* Asks the router for the tools. False: it could not be asked and there are none yet, or SIGSTOP.
 */
bool turn_tools(struct turn *t);
/* 0 with the answer in t; 1 with t->failure; below 0: broken off by a pause or stop. */
int turn_ask(struct turn *t, const char *goal);
