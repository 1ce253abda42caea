/*
 * The libevent back end, and the only file that sees libevent. Events live in the `store` of their
 * watch or timer, so arming one allocates nothing. Two priorities: urgent watches (the death of a
 * peer) run before the sockets that became ready in the same wait.
 */
#include "common/ipc/loop.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include "common/base/log.h"

struct ev_signal {
    struct ev_signal *next;
    struct event ev;
    loop_fn fn;
    void *arg;
};
struct ev_loop {
    struct loop base;
    struct event_base *eb;
    struct ev_signal *signals;
    bool stopping;
};
enum { PRIO_URGENT, PRIO_NORMAL, PRIO_COUNT };

_Static_assert(sizeof(struct event) <= sizeof(((struct watch *)NULL)->store), "event fits a watch");
_Static_assert(sizeof(struct event) <= sizeof(((struct timer *)NULL)->store), "event fits a timer");

static struct ev_loop *self(struct loop *l)
{
    return container_of(l, struct ev_loop, base);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    struct watch *w = arg;

    w->fn(fd, (what & EV_READ ? LOOP_READ : 0) | (what & EV_WRITE ? LOOP_WRITE : 0), w->arg);
}

static void ev_watch_set(struct watch *w, unsigned events)
{
    struct event *ev = (struct event *)w->store;
    short what = EV_PERSIST;

    if (w->impl)
        event_del(ev);
    w->impl = NULL;
    if (!events)
        return;
    if (events & LOOP_READ)
        what |= EV_READ;
    if (events & LOOP_WRITE)
        what |= EV_WRITE;
    event_assign(ev, self(w->loop)->eb, w->fd, what, on_watch, w);
    event_priority_set(ev, w->urgent ? PRIO_URGENT : PRIO_NORMAL);
    if (event_add(ev, NULL))
        die(1, "event loop: cannot watch descriptor %d", w->fd);
    w->impl = ev;
}

static void ev_watch_done(struct watch *w)
{
    if (w->impl)
        event_del(w->impl);
    w->impl = NULL;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;

    (void)fd;
    (void)what;
    t->armed = false;
    t->fn(t->arg);
}

static void ev_timer_set(struct timer *t, int64_t ms)
{
    struct event *ev = (struct event *)t->store;
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

    if (!t->impl) {
        evtimer_assign(ev, self(t->loop)->eb, on_timer, t);
        t->impl = ev;
    }
    event_add(ev, &tv);
}

static void ev_timer_stop(struct timer *t)
{
    if (t->impl)
        event_del(t->impl);
}

static void ev_timer_done(struct timer *t)
{
    ev_timer_stop(t);
    t->impl = NULL;
}

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    struct ev_signal *s = arg;

    (void)signo;
    (void)what;
    s->fn(s->arg);
}

static void ev_signal_add(struct loop *l, int signo, loop_fn fn, void *arg)
{
    struct ev_loop *e = self(l);
    struct ev_signal *s = xcalloc(1, sizeof(*s));

    s->fn = fn;
    s->arg = arg;
    event_assign(&s->ev, e->eb, signo, EV_SIGNAL | EV_PERSIST, on_signal, s);
    if (event_add(&s->ev, NULL))
        die(1, "event loop: cannot watch signal %d", signo);
    s->next = e->signals;
    e->signals = s;
}

static void ev_step(struct loop *l, bool block)
{
    int flags = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY;

    if (!block || loop_has_deferred(l))
        flags |= EVLOOP_NONBLOCK;
    if (event_base_loop(self(l)->eb, flags) < 0)
        die(1, "event loop failed");
    loop_run_deferred(l);
}

static void ev_run(struct loop *l)
{
    struct ev_loop *e = self(l);

    e->stopping = false;
    loop_run_deferred(l);
    while (!e->stopping)
        ev_step(l, true);
}

static void ev_stop(struct loop *l)
{
    self(l)->stopping = true;
    event_base_loopbreak(self(l)->eb);
}

static void ev_free(struct loop *l)
{
    struct ev_loop *e = self(l);

    while (e->signals) {
        struct ev_signal *s = e->signals;

        e->signals = s->next;
        event_del(&s->ev);
        free(s);
    }
    event_base_free(e->eb);
    loop_base_done(l);
    free(e);
}

/* Deferred functions run after each event_base_loop, which returns after one batch. */
static void ev_wake_deferred(struct loop *l)
{
    (void)l;
}

static const struct loop_ops ev_ops = {
    .run = ev_run,
    .step = ev_step,
    .stop = ev_stop,
    .free = ev_free,
    .watch_set = ev_watch_set,
    .watch_done = ev_watch_done,
    .timer_set = ev_timer_set,
    .timer_stop = ev_timer_stop,
    .timer_done = ev_timer_done,
    .signal = ev_signal_add,
    .wake_deferred = ev_wake_deferred,
    .keeps_urgent = true,
};

struct loop *loop_new(void)
{
    struct ev_loop *e = xcalloc(1, sizeof(*e));
    struct event_config *cfg = event_config_new();

    if (!cfg)
        die(1, "event loop: out of memory");
    event_config_avoid_method(cfg, "select");
    event_config_avoid_method(cfg, "poll");
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    e->eb = event_base_new_with_config(cfg);
    event_config_free(cfg);
    if (!e->eb || event_base_priority_init(e->eb, PRIO_COUNT))
        die(1, "event loop: cannot be made");
    loop_base_init(&e->base, &ev_ops);
    return &e->base;
}
