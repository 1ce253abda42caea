/*
 * Parked calls: those that wait for a spawn to run, for an agent to end, or for a kill to be
 * confirmed. They hold no slot of the router; at most WAITERS_MAX of them, the next gets EBUSY.
 */
#include "common/base/clock.h"
#include "kernel/core/life.h"

struct waiter {
    struct waiter *next;
    int64_t pid;
    struct call *call;
    enum waiter_kind kind;
    struct timer timer;
};

static unsigned n_waiters;

static void unlink_waiter(struct waiter *w)
{
    struct proc *p = proc_find(w->pid);
    for (struct waiter **at = p ? &p->waiters : NULL; at && *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    timer_done(&w->timer);
    n_waiters--;
    free(w);
}

static void on_gone(void *arg)
{
    struct waiter *w = arg;
    struct call *c = w->call;
    struct proc *p = proc_find(w->pid);
    unlink_waiter(w);
    call_end(c);
    if (p)
        exit_settled(p);
}

char *result_of(const struct proc *p)
{
    sqlite3_stmt *q =
        db_query(DB_NORMAL, "SELECT result FROM invocations WHERE id=?", "s", p->invocation_id);
    char *s = db_row(q) && !db_null(q, 0) ? xstrdup(db_text(q, 0)) : NULL;
    db_end(q);
    return s;
}

const char *final_status(const struct proc *p)
{
    if (p->inv == IV_FAILED)
        return "crashed";
    if (p->inv == IV_KILLED || (proc_final(p) && p->exit_reason))
        return "stopped";
    return "completed";
}

json_object *spawn_reply(const struct proc *p)
{
    return json_make("pid:i status:s session_id:s invocation_id:s", p->pid, "running",
                     p->session_id, p->invocation_id);
}

static int64_t duration(const struct proc *p)
{
    return (p->ended_at ? p->ended_at : now_ms()) - p->spawned_at;
}

json_object *wait_reply(const struct proc *p, bool timeout)
{
    cleanup(freep) char *result = timeout ? NULL : result_of(p);
    int code = p->exit_signal ? 128 + p->exit_signal : p->exit_code;
    return json_make("pid:i final_status:s exit_code:i duration_ms:i result:s", p->pid,
                     timeout ? "timeout" : final_status(p), (int64_t)code, duration(p), result);
}

json_object *agent_wait_reply(const struct proc *p, bool timeout)
{
    cleanup(freep) char *result = timeout ? NULL : result_of(p);
    return json_make("pid:i finalStatus:s result:s durationSec:i", p->pid,
                     timeout ? "timeout" : final_status(p), result, duration(p) / 1000);
}

static bool has_descendants(const struct proc *p)
{
    size_t pos = 0;
    struct proc *q;
    while (proc_each(&pos, &q))
        if (!proc_final(q) && proc_descends(q, p->pid))
            return true;
    return false;
}

/* True if what this waiter waits for has come. */
static bool due(const struct proc *p, enum waiter_kind kind)
{
    switch (kind) {
    case WAITER_SPAWN:
        return p->state != PS_PENDING;
    case WAITER_KILL:
        return proc_final(p) && !has_descendants(p);
    case WAITER_WAIT:
    case WAITER_AGENT_WAIT:
        return proc_final(p) || (proc_idle(p) && !p->inputs); /* else it has more to do */
    }
    return false;
}

static void answer(const struct proc *p, struct call *c, enum waiter_kind kind, bool timeout)
{
    if (kind == WAITER_SPAWN)
        call_reply(c, spawn_reply(p));
    else if (kind == WAITER_KILL)
        call_reply(c, json_make("ok:b killed:b pid:i tokens_revoked:i", 1, 1, p->pid,
                                (int64_t)(intptr_t)c->user));
    else if (kind == WAITER_WAIT)
        call_reply(c, wait_reply(p, timeout));
    else
        call_reply(c, agent_wait_reply(p, timeout));
}

static void on_timeout(void *arg)
{
    struct waiter *w = arg;
    struct proc *p = proc_find(w->pid);
    struct call *c = w->call;
    enum waiter_kind kind = w->kind;
    unlink_waiter(w);
    if (!p)
        call_fail(c, ERR_NOTFOUND, "no such process");
    else if (kind == WAITER_SPAWN || kind == WAITER_KILL)
        call_fail(c, ERR_TIMEOUT, "pid %lld: still under way", (long long)p->pid);
    else
        answer(p, c, kind, true);
    if (p)
        exit_settled(p);
}

void waiter_park(struct proc *p, struct call *c, enum waiter_kind kind, int64_t timeout_ms)
{
    if (due(p, kind)) {
        answer(p, c, kind, false);
        return;
    }
    if (n_waiters >= WAITERS_MAX) {
        call_fail(c, ERR_BUSY, "%d calls are waiting already", WAITERS_MAX);
        return;
    }
    struct waiter *w = xcalloc(1, sizeof *w);
    w->pid = p->pid;
    w->call = c;
    w->kind = kind;
    w->next = p->waiters;
    p->waiters = w;
    n_waiters++;
    timer_init(&w->timer, svc.loop, on_timeout, w);
    if (timeout_ms > 0)
        timer_set(&w->timer, timeout_ms);
    call_on_gone(c, on_gone, w);
}

void waiters_check(struct proc *p)
{
    for (struct waiter *w = p->waiters, *next; w; w = next) {
        next = w->next;
        if (!due(p, w->kind))
            continue;
        struct call *c = w->call;
        enum waiter_kind kind = w->kind;
        unlink_waiter(w);
        answer(p, c, kind, false);
    }
}

void waiters_spawn_failed(struct proc *p, int err, const char *reason)
{
    for (struct waiter *w = p->waiters, *next; w; w = next) {
        next = w->next;
        if (w->kind != WAITER_SPAWN)
            continue;
        struct call *c = w->call;
        unlink_waiter(w);
        call_fail_data(c, err, json_make("pid:i reason:s", p->pid, reason), "%s", reason);
    }
}

void waiters_end(void)
{
    size_t pos = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        while (p->waiters) {
            struct call *c = p->waiters->call;
            unlink_waiter(p->waiters);
            call_fail(c, ERR_UNAVAIL, "the kernel is stopping");
        }
}
