/*
 * Events go to the gateway one after the other, each with an id, and are kept until the gateway
 * says that they are in its ring; so an event is late when the gateway is away, never lost or out
 * of order. The queue is bounded: when the gateway stays away the oldest are dropped and counted.
 */
#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "kernel/core/life.h"

#define QUEUE_MAX 4096
#define RETRY_MIN 50
#define RETRY_MAX 2000

struct event {
    struct event *next;
    json_object *params;
};

static struct {
    struct event *first, *last;
    size_t n;
    uint64_t dropped;
    struct ipc_call *call;
    struct timer retry;
    bool init;
    int64_t delay;
} out;

static void send_first(void *arg);

static void pop(void)
{
    struct event *e = out.first;
    out.first = e->next;
    if (!out.first)
        out.last = NULL;
    out.n--;
    json_put(e->params);
    free(e);
}

static void on_sent(struct ipc_reply *r, void *arg)
{
    (void)arg;
    out.call = NULL;
    bool refused = r->err == ERR_INVAL || r->err == ERR_PERM || r->err == ERR_REQUEST;
    if (!r->err || refused) {
        if (refused)
            log_warn("event refused: %s", r->error.message);
        out.delay = 0;
        if (out.first)
            pop();
        send_first(NULL);
        return;
    }
    out.delay = out.delay ? out.delay * 2 : RETRY_MIN;
    if (out.delay > RETRY_MAX)
        out.delay = RETRY_MAX;
    timer_set(&out.retry, out.delay);
}

static void send_first(void *arg)
{
    (void)arg;
    if (!out.first || out.call)
        return;
    out.call = svc_frame(UNIT_GATEWAY, "event.publish", json_object_get(out.first->params), false,
                         on_sent, NULL);
}

void pub(const char *event, json_object *body, const char *user, const char *atp_session,
         enum role min_role)
{
    char id[UUID_LEN];
    if (!out.init) {
        out.init = true;
        timer_init(&out.retry, svc.loop, send_first, NULL);
    }
    if (out.n >= QUEUE_MAX) {
        if (out.dropped++ % 1000 == 0)
            log_warn("the gateway takes no events; %llu dropped", (unsigned long long)out.dropped);
        if (out.call)
            ipc_cancel(TAKE(out.call));
        pop();
    }
    json_object *scope = json_new();
    if (user)
        json_add_str(scope, "user", user);
    if (atp_session)
        json_add_str(scope, "session", atp_session);
    if (min_role != ROLE_NONE)
        json_add_str(scope, "min_role", role_name(min_role));
    struct event *e = xcalloc(1, sizeof *e);
    e->params = json_make("event:s body:o scope:o id:s", event, body, scope, uuid4(id));
    if (out.last)
        out.last->next = e;
    else
        out.first = e;
    out.last = e;
    out.n++;
    if (!out.retry.armed)
        send_first(NULL);
}

void pub_status(const struct proc *p)
{
    json_object *b = json_make("pid:i status:s session_id:s waitingOn:s", p->pid,
                               pstate_names[p->state], p->session_id, wait_names[p->waiting_on]);
    if (proc_idle(p))
        json_add_bool(b, "idle", true);
    pub("agent.status", b, p->user, p->atp_session, ROLE_NONE);
}

void pub_session(const char *session_id, const char *user, const char *status)
{
    pub("session.status", json_make("sessionId:s status:s", session_id, status), user, NULL,
        ROLE_NONE);
}

size_t pub_waiting(void)
{
    return out.n;
}
