/*
 * The part of the event loop that no back end has to repeat: thin calls through struct loop_ops,
 * and the list of deferred functions. A deferred function may defer again; what it adds runs in the
 * next round, so a loop that feeds itself still lets the sockets have their turn.
 */
#include "common/ipc/loop.h"

struct deferred_fn {
    loop_fn fn;
    void *arg;
};
struct loop_deferred {
    struct deferred_fn *now, *next; /* next collects while now runs */
    size_t n_next, cap_now, cap_next;
};

void loop_base_init(struct loop *l, const struct loop_ops *ops)
{
    l->ops = ops;
    l->deferred = xcalloc(1, sizeof(*l->deferred));
}

void loop_base_done(struct loop *l)
{
    if (!l->deferred)
        return;
    free(l->deferred->now);
    free(l->deferred->next);
    free(l->deferred);
    l->deferred = NULL;
}

void loop_defer(struct loop *l, loop_fn fn, void *arg)
{
    struct loop_deferred *d = l->deferred;

    if (d->n_next == d->cap_next) {
        d->cap_next = d->cap_next ? d->cap_next * 2 : 16;
        d->next = xrealloc(d->next, d->cap_next * sizeof(*d->next));
    }
    d->next[d->n_next++] = (struct deferred_fn){ .fn = fn, .arg = arg };
    if (d->n_next == 1)
        l->ops->wake_deferred(l);
}

void loop_run_deferred(struct loop *l)
{
    struct loop_deferred *d = l->deferred;
    size_t n = d->n_next;
    struct deferred_fn *run = d->next;
    size_t cap = d->cap_next;

    if (!n)
        return;
    d->next = d->now;
    d->cap_next = d->cap_now;
    d->n_next = 0;
    d->now = run;
    d->cap_now = cap;
    for (size_t i = 0; i < n; i++)
        run[i].fn(run[i].arg);
}

bool loop_has_deferred(const struct loop *l)
{
    return l->deferred->n_next > 0;
}

bool loop_keeps_urgent(const struct loop *l)
{
    return l->ops->keeps_urgent;
}

void loop_free(struct loop *l)
{
    if (l)
        l->ops->free(l);
}

void loop_run(struct loop *l)
{
    l->ops->run(l);
}

void loop_step(struct loop *l, bool block)
{
    l->ops->step(l, block);
}

void loop_stop(struct loop *l)
{
    l->ops->stop(l);
}

void loop_signal(struct loop *l, int signo, loop_fn fn, void *arg)
{
    l->ops->signal(l, signo, fn, arg);
}

void watch_init(struct watch *w, struct loop *l, int fd, watch_fn fn, void *arg)
{
    w->loop = l;
    w->fd = fd;
    w->events = 0;
    w->urgent = false;
    w->fn = fn;
    w->arg = arg;
    w->impl = NULL;
}

void watch_set(struct watch *w, unsigned events)
{
    if (w->events == events)
        return;
    w->loop->ops->watch_set(w, events);
    w->events = events;
}

void watch_done(struct watch *w)
{
    if (!w->loop)
        return;
    w->loop->ops->watch_done(w);
    w->loop = NULL;
    w->events = 0;
    w->fd = -1;
}

void timer_init(struct timer *t, struct loop *l, loop_fn fn, void *arg)
{
    t->loop = l;
    t->armed = false;
    t->fn = fn;
    t->arg = arg;
    t->impl = NULL;
}

void timer_set(struct timer *t, int64_t ms)
{
    t->loop->ops->timer_set(t, ms < 0 ? 0 : ms);
    t->armed = true;
}

void timer_stop(struct timer *t)
{
    if (!t->loop || !t->armed)
        return;
    t->loop->ops->timer_stop(t);
    t->armed = false;
}

void timer_done(struct timer *t)
{
    if (!t->loop)
        return;
    t->loop->ops->timer_done(t);
    t->loop = NULL;
    t->armed = false;
}
