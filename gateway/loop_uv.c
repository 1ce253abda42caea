/*
 * Watch, timer, defer and signal on libuv.
 *
 * The objects of loop.h are embedded in their owners and may vanish inside their own callback,
 * while a libuv handle must outlive its asynchronous close. So each object points at a heap block
 * that holds the handle and a pointer back; *_done cuts the pointer back and starts the close,
 * whose callback frees the block.
 *
 * libuv reports a broken descriptor once, with an error status and the handle stopped. loop.h
 * promises level-triggered events, so that report is passed on as "ready for all you asked for" and
 * the handle is started again if the owner still wants events.
 */
#include "gateway/loop_uv.h"

#include <uv.h>

struct uvl {
    struct loop base;
    uv_loop_t uv;
    uv_idle_t idle; /* runs deferred functions; active only while there are any */
    bool stopping;
};

struct uv_watch {
    uv_poll_t h;
    struct watch *w;
    unsigned events;
};

struct uv_tmr {
    uv_timer_t h;
    struct timer *t;
};

struct uv_sig {
    uv_signal_t h;
    loop_fn fn;
    void *arg;
};

static struct uvl *self(struct loop *l)
{
    return container_of(l, struct uvl, base);
}

struct uv_loop_s *loop_uv_raw(struct loop *l)
{
    return &self(l)->uv;
}

static void free_handle(uv_handle_t *h)
{
    free(h);
}

static int to_uv(unsigned events)
{
    return (events & LOOP_READ ? UV_READABLE : 0) | (events & LOOP_WRITE ? UV_WRITABLE : 0);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct uv_watch *u = container_of(h, struct uv_watch, h);
    struct watch *w = u->w;
    unsigned ev = (events & UV_READABLE ? LOOP_READ : 0) | (events & UV_WRITABLE ? LOOP_WRITE : 0);

    if (!w)
        return;
    if (status < 0) {
        ev = u->events;
        uv_poll_start(h, to_uv(u->events), on_poll);
    }
    if (ev)
        w->fn(w->fd, ev, w->arg);
}

static void watch_set_uv(struct watch *w, unsigned events)
{
    struct uv_watch *u = w->impl;

    if (!u) {
        if (!events)
            return;
        u = xcalloc(1, sizeof(*u));
        if (uv_poll_init(&self(w->loop)->uv, &u->h, w->fd)) {
            free(u);
            return; /* a descriptor that cannot be polled: its owner's timeout ends it */
        }
        u->w = w;
        w->impl = u;
    }
    if (u->events == events)
        return;
    u->events = events;
    if (events)
        uv_poll_start(&u->h, to_uv(events), on_poll);
    else
        uv_poll_stop(&u->h);
}

static void watch_done_uv(struct watch *w)
{
    struct uv_watch *u = w->impl;

    if (!u)
        return;
    w->impl = NULL;
    u->w = NULL;
    uv_poll_stop(&u->h);
    uv_close((uv_handle_t *)&u->h, free_handle);
}

static void on_timer(uv_timer_t *h)
{
    struct timer *t = container_of(h, struct uv_tmr, h)->t;

    if (!t)
        return;
    t->armed = false;
    t->fn(t->arg);
}

static void timer_set_uv(struct timer *t, int64_t ms)
{
    struct uv_tmr *u = t->impl;
    uv_loop_t *uv = &self(t->loop)->uv;

    if (!u) {
        u = xcalloc(1, sizeof(*u));
        uv_timer_init(uv, &u->h);
        u->t = t;
        t->impl = u;
    }
    uv_update_time(uv); /* libuv counts from its cached time, which a long callback leaves behind */
    uv_timer_start(&u->h, on_timer, ms > 0 ? (uint64_t)ms : 0, 0);
    t->armed = true;
}

static void timer_stop_uv(struct timer *t)
{
    struct uv_tmr *u = t->impl;

    if (u)
        uv_timer_stop(&u->h);
    t->armed = false;
}

static void timer_done_uv(struct timer *t)
{
    struct uv_tmr *u = t->impl;

    t->armed = false;
    if (!u)
        return;
    t->impl = NULL;
    u->t = NULL;
    uv_timer_stop(&u->h);
    uv_close((uv_handle_t *)&u->h, free_handle);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct uv_sig *s = container_of(h, struct uv_sig, h);

    (void)signo;
    s->fn(s->arg);
}

static void signal_uv(struct loop *l, int signo, loop_fn fn, void *arg)
{
    struct uv_sig *s = xcalloc(1, sizeof(*s));

    s->fn = fn;
    s->arg = arg;
    uv_signal_init(&self(l)->uv, &s->h);
    uv_signal_start(&s->h, on_signal, signo);
    uv_unref((uv_handle_t *)&s->h);
}

static void on_idle(uv_idle_t *h)
{
    struct uvl *u = container_of(h, struct uvl, idle);

    uv_idle_stop(h); /* first: a deferred function may defer again */
    loop_run_deferred(&u->base);
}

static void wake_uv(struct loop *l)
{
    uv_idle_start(&self(l)->idle, on_idle);
}

static void run_uv(struct loop *l)
{
    struct uvl *u = self(l);

    u->stopping = false;
    while (!u->stopping)
        uv_run(&u->uv, UV_RUN_ONCE);
}

static void step_uv(struct loop *l, bool block)
{
    uv_run(&self(l)->uv, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

static void stop_uv(struct loop *l)
{
    self(l)->stopping = true;
    uv_stop(&self(l)->uv);
}

/* What is left at the end is ours alone: lws took its own handles with it. */
static void close_left(uv_handle_t *h, void *arg)
{
    struct uvl *u = arg;

    if (!uv_is_closing(h))
        uv_close(h, h == (uv_handle_t *)&u->idle ? NULL : free_handle);
}

static void free_uv(struct loop *l)
{
    struct uvl *u = self(l);

    uv_walk(&u->uv, close_left, u);
    uv_run(&u->uv, UV_RUN_DEFAULT);
    uv_loop_close(&u->uv);
    loop_base_done(l);
    free(u);
}

static const struct loop_ops ops = {
    .run = run_uv,
    .step = step_uv,
    .stop = stop_uv,
    .free = free_uv,
    .watch_set = watch_set_uv,
    .watch_done = watch_done_uv,
    .timer_set = timer_set_uv,
    .timer_stop = timer_stop_uv,
    .timer_done = timer_done_uv,
    .signal = signal_uv,
    .wake_deferred = wake_uv,
};

struct loop *loop_uv_new(void)
{
    struct uvl *u = xcalloc(1, sizeof(*u));

    loop_base_init(&u->base, &ops);
    if (uv_loop_init(&u->uv) || uv_idle_init(&u->uv, &u->idle)) {
        loop_base_done(&u->base);
        free(u);
        return NULL;
    }
    return &u->base;
}
