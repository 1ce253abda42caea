/*
 * Signals to agents: one frame on a fresh connection each, in order; the agent's close is the
 * acknowledgement. Three tries of a second; an agent that takes none of them is wedged and gets
 * frozen, so that it holds nothing up and can still be killed or stopped.
 */
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/core/life.h"

#define TRY_MS    1000
#define TRIES     3
#define QUEUE_MAX 256

struct sig_item {
    struct sig_item *next;
    json_object *params;
    bool start;
};

static void send_next(struct proc *p);

struct sig_ticket {
    int64_t pid;
    unsigned life;
};

static void item_pop(struct proc *p)
{
    struct sig_item *s = p->sig_first;
    p->sig_first = s->next;
    if (!p->sig_first)
        p->sig_last = NULL;
    p->n_sigs--;
    p->sig_tries = 0;
    json_put(s->params);
    free(s);
}

static void wedged(struct proc *p)
{
    log_warn("pid %lld: takes no signals; frozen", (long long)p->pid);
    host_kill(p, "STOP");
    p->frozen = true;
    (void)state_set(p, PS_PAUSED, WO_NONE, IV_PAUSED, NULL);
}

static void on_sent(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct sig_ticket *t = arg;
    int64_t pid = t->pid;
    struct proc *p = proc_find(pid);
    bool same = p && p->life == t->life;
    if (!same)
        return;
    p->sig_call = NULL;
    struct sig_item *s = p->sig_first;
    if (!s)
        return;
    if (r->err && ++p->sig_tries < TRIES) {
        send_next(p);
        return;
    }
    bool start = s->start, stop = cause_is(p, "stop") || cause_is(p, "hibernate");
    item_pop(p);
    if (start)
        life_event(p, r->err ? EV_START_LOST : EV_STARTED, &(struct life_info){ 0 });
    else if (r->err && p->phase == PH_LIVE && !stop && !p->frozen)
        wedged(p);
    p = proc_find(pid);
    if (p)
        send_next(p);
}

static void send_next(struct proc *p)
{
    char path[108];
    bool open = p->phase == PH_START || p->phase == PH_LIVE ||
                (p->phase == PH_READY && p->adopted); /* only then does it listen */
    if (!open || !p->sig_first || p->sig_call || p->frozen ||
        path_fmt(path, sizeof path, "%s/agents/%lld.sock", svc.run_dir, (long long)p->pid))
        return;
    struct ipc_req q = { .sock = path,
                         .method = "signal",
                         .params = p->sig_first->params,
                         .timeout_ms = TRY_MS,
                         .note = true,
                         .await_close = true };
    struct sig_ticket *t = xcalloc(1, sizeof *t);
    t->pid = p->pid;
    t->life = p->life;
    p->sig_call = ipc_start(svc.loop, &q, NULL, on_sent, t);
}

void sig_kick(struct proc *p)
{
    send_next(p);
}

/* SIGSTART of step 8 goes before what came meanwhile. */
static void enqueue(struct proc *p, const char *signal, json_object *payload, const char *from,
                    bool start)
{
    char ts[RFC3339_LEN], id[32];
    struct sig_item *s = xcalloc(1, sizeof *s);
    snprintf(id, sizeof id, "%lld-%u-%lld", (long long)p->pid, p->life, (long long)++p->sent_id);
    s->params =
        json_make("signal:s payload:o signalId:s from:s sentAt:s _token:s", signal,
                  payload ? payload : json_new(), id, from, rfc3339(now_ms(), ts), p->sig_key);
    s->start = start;
    if (start && !p->sig_call) {
        s->next = p->sig_first;
        p->sig_first = s;
        if (!p->sig_last)
            p->sig_last = s;
    } else {
        if (p->sig_last)
            p->sig_last->next = s;
        else
            p->sig_first = s;
        p->sig_last = s;
    }
    p->n_sigs++;
    send_next(p);
}

int sig_send(struct proc *p, const char *signal, json_object *payload, const char *from)
{
    if (p->n_sigs >= QUEUE_MAX) {
        json_put(payload);
        return ERR_LIMIT;
    }
    str_copy(p->last_signal, sizeof p->last_signal, signal);
    enqueue(p, signal, payload, from, false);
    return 0;
}

void sig_start(struct proc *p, json_object *payload)
{
    enqueue(p, "SIGSTART", payload, "kernel", true);
}

void sig_drop_all(struct proc *p)
{
    if (p->sig_call)
        ipc_cancel(TAKE(p->sig_call));
    while (p->sig_first)
        item_pop(p);
}
