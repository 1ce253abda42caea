#pragma once
/*
 * Admission (llm page, section 11): per provider two token buckets and maxConcurrent; who waits is
 * served fairly over users, then over agents of a user, guests last.
 */
#include "common/ipc/loop.h"

struct queue;
struct ticket;
typedef void (*admit_fn)(void *arg);

struct queue_limits {
    int64_t rpm, tpm, max_concurrent; /* 0: none */
};
struct queue_ask {
    const char *user;
    int64_t agent;
    bool guest;
    int64_t tokens; /* estimate */
};
struct queue *queue_new(struct loop *l);
void queue_free(struct queue *q); /* nobody may wait */
/* A place for the call; fn runs when it may go (later, or at once: then *now is true and fn does
 * not run). NULL and ERR_BUSY in *err when the user has too many waiting. */
struct ticket *queue_enter(struct queue *q, const struct queue_limits *lim,
                           const struct queue_ask *a, admit_fn fn, void *arg, bool *now, int *err);
/* The call is over (or gave up waiting): frees its place; used: true tokens, -1 unknown. */
void queue_leave(struct ticket *t, int64_t used);
/* The user's weight, from the last reserve reply. */
void queue_weight(struct ticket *t, int weight);
/* A 429: no request for so long. */
void queue_block(struct queue *q, int64_t ms);
size_t queue_waiting(const struct queue *q); /* NULL: 0 */
int64_t queue_in_flight(const struct queue *q);
/* Milliseconds until the buckets would let a request go, 0 now. */
int64_t queue_wait_ms(struct queue *q, const struct queue_limits *lim, int64_t tokens);
