#pragma once
/*
 * The event loop as the rest of Avix sees it: watch, timer, defer, signal. Back ends: libevent
 * (loop_ev.c) for all but the gateway, libuv in the gateway. Objects are embedded by their owners;
 * *_done may be called at any time, inside the object's own callback too. Nothing blocks in a
 * callback.
 */
#include "common/base/util.h"

struct loop;
#define LOOP_READ  1U
#define LOOP_WRITE 2U

typedef void (*watch_fn)(int fd, unsigned events, void *arg);
typedef void (*loop_fn)(void *arg);

struct watch {
    struct loop *loop;
    int fd;
    unsigned events;
    bool urgent; /* runs before other watches that became ready in the same wait; set before
                    watch_set */
    watch_fn fn;
    void *arg;
    void *impl; /* of the back end */
    _Alignas(16) unsigned char store[160];
};
struct timer {
    struct loop *loop;
    bool armed;
    loop_fn fn;
    void *arg;
    void *impl;
    _Alignas(16) unsigned char store[160];
};

struct loop *loop_new(void); /* libevent, epoll */
void loop_free(struct loop *l);
void loop_run(struct loop *l); /* until loop_stop */
/* Waits for at least one event (block) or takes what is there (not block) and runs its callbacks.
 */
void loop_step(struct loop *l, bool block);
void loop_stop(struct loop *l);

/* Level-triggered. The watch does not own fd; done before close. */
void watch_init(struct watch *w, struct loop *l, int fd, watch_fn fn, void *arg);
void watch_set(struct watch *w, unsigned events); /* 0: none */
void watch_done(struct watch *w);                 /* twice is fine; a zeroed watch too */

void timer_init(struct timer *t, struct loop *l, loop_fn fn, void *arg);
void timer_set(struct timer *t, int64_t ms); /* once, ms from now (0: next turn); re-arms */
void timer_stop(struct timer *t);
void timer_done(struct timer *t);

/* Runs fn once after the current callbacks, before the loop waits again. */
void loop_defer(struct loop *l, loop_fn fn, void *arg);
/* fn(arg) on a host signal, from the loop. */
void loop_signal(struct loop *l, int signo, loop_fn fn, void *arg);

/* A back end. Only loop implementations use this. */
struct loop_ops {
    void (*run)(struct loop *);
    void (*step)(struct loop *, bool block);
    void (*stop)(struct loop *);
    void (*free)(struct loop *);
    void (*watch_set)(struct watch *, unsigned events);
    void (*watch_done)(struct watch *);
    void (*timer_set)(struct timer *, int64_t ms);
    void (*timer_stop)(struct timer *);
    void (*timer_done)(struct timer *);
    void (*signal)(struct loop *, int signo, loop_fn fn, void *arg);
    /* Arranges that loop_run_deferred(l) is called soon. */
    void (*wake_deferred)(struct loop *);
    bool keeps_urgent; /* honours watch.urgent */
};
struct loop_deferred;
struct loop {
    const struct loop_ops *ops;
    struct loop_deferred *deferred; /* private to loop.c */
};
/* True if the back end honours watch.urgent. */
bool loop_keeps_urgent(const struct loop *l);
void loop_base_init(struct loop *l, const struct loop_ops *ops);
void loop_base_done(struct loop *l);
void loop_run_deferred(struct loop *l);
bool loop_has_deferred(const struct loop *l);
