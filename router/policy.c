/*
 * Questions to authsvc: what a user may call, and what is revoked. Both go straight to its socket,
 * stamped as the router's own calls.
 */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/svc/toolgroup.h"
#include "router/router.h"

#define POLICY_MS  60000 /* asked again after this, whatever happens */
#define POLICY_MAX 4096
#define ASK_MS     5000
#define RETRY_MS   50
#define RETRY_MAX  1000

struct policy {
    char user[65];
    json_object *allowed, *denied;
    bool all;
    int64_t asked_ms;
};

struct waiter {
    LIST_ENTRY(waiter) link;
    loop_fn fn;
    void *arg;
    char user[65];
};

static struct map policies;
static LIST_HEAD(, waiter) waiters = LIST_HEAD_INITIALIZER(waiters);
static struct {
    struct timer retry;
    struct ipc_call *call;
    int delay;
    bool ready, again;
} revoked;

static struct ipc_call *ask(const char *method, json_object *params, ipc_done_fn done, void *arg)
{
    struct ipc_req q = { .sock = svc_sock(UNIT_AUTHSVC),
                         .method = method,
                         .params = params,
                         .timeout_ms = ASK_MS,
                         .repeatable = true,
                         .listener = svc.init_pid };
    struct ipc_call *c;

    json_add(params, "_caller",
             json_make("kind:s pid:i service:s tool:s call_id:s token:s", "service",
                       (int64_t)unit_rows[UNIT_ROUTER].pid, "router", method, "", ""));
    c = ipc_start(svc.loop, &q, NULL, done, arg);
    json_put(params);
    return c;
}

static void policy_free(struct policy *p)
{
    json_put(p->allowed);
    json_put(p->denied);
    free(p);
}

void policy_drop(const char *user)
{
    struct policy *p;

    if (user) {
        p = policies.n ? map_del(&policies, user) : NULL;
        if (p)
            policy_free(p);
        return;
    }
    const char *key;
    void *v;
    size_t i = 0;

    while (map_each(&policies, &i, &key, &v))
        policy_free(v);
    map_done(&policies);
    map_init(&policies);
}

const struct policy *policy_get(const char *user)
{
    struct policy *p = policies.n ? map_get(&policies, user) : NULL;

    if (p && mono_ms() - p->asked_ms > POLICY_MS) {
        policy_drop(user);
        return NULL;
    }
    return p;
}

bool policy_allows(const struct policy *p, const char *tool)
{
    return policy_lists_permit(p->all, p->allowed, p->denied, tool);
}

struct asking {
    char user[65];
};

static struct waiter *waiter_of(const char *user)
{
    struct waiter *w;

    LIST_FOREACH(w, &waiters, link)
    if (str_eq(w->user, user))
        return w;
    return NULL;
}

static void policy_done(struct ipc_reply *r, void *arg)
{
    struct asking *q = arg;
    struct waiter *w;

    if (!r->err && r->result) {
        struct policy *p = xcalloc(1, sizeof(*p));

        str_copy(p->user, sizeof(p->user), q->user);
        p->all = json_flag(r->result, "all", false);
        p->allowed = json_arr(r->result, "allowed");
        p->denied = json_arr(r->result, "denied");
        if (p->allowed)
            json_object_get(p->allowed);
        if (p->denied)
            json_object_get(p->denied);
        p->asked_ms = mono_ms();
        policy_drop(q->user);
        if (policies.n >= POLICY_MAX)
            policy_drop(NULL);
        map_put(&policies, p->user, p);
    }
    while ((w = waiter_of(q->user))) {
        struct waiter now = *w;

        LIST_REMOVE(w, link);
        free(w);
        now.fn(now.arg); /* may end other calls, and with them their waiters */
    }
    free(q);
}

void policy_fetch(const char *user, loop_fn fn, void *arg)
{
    bool asked = waiter_of(user);
    struct waiter *w = xcalloc(1, sizeof(*w));

    w->fn = fn;
    w->arg = arg;
    str_copy(w->user, sizeof(w->user), user);
    LIST_INSERT_HEAD(&waiters, w, link);
    if (!asked) {
        struct asking *q = xcalloc(1, sizeof(*q));

        str_copy(q->user, sizeof(q->user), user);
        ask("auth/policy", json_make("user:s", user), policy_done, q);
    }
}

void policy_forget_waiter(void *arg)
{
    struct waiter *w, *next;

    for (w = LIST_FIRST(&waiters); w; w = next) {
        next = LIST_NEXT(w, link);
        if (w->arg == arg) {
            LIST_REMOVE(w, link);
            free(w);
        }
    }
}

/* --- the revocation set -------------------------------------------------------------------------
 */

static void revoked_ask(void *arg);

static void revoked_done(struct ipc_reply *r, void *arg)
{
    (void)arg;
    revoked.call = NULL;
    if (r->err) {
        revoked.delay = revoked.delay ? revoked.delay * 2 : RETRY_MS;
        if (revoked.delay > RETRY_MAX)
            revoked.delay = RETRY_MAX;
        timer_set(&revoked.retry, revoked.delay);
        return;
    }
    revoked.delay = 0;
    if (revoked.again) { /* authsvc registered while it was asked */
        revoked.again = false;
        revoked_ask(NULL);
        return;
    }
    auth_revoked(r->result, true);
    policy_drop(NULL);
    auth_gate_set(true);
    rcall_resume_gate();
}

static void revoked_ask(void *arg)
{
    (void)arg;
    if (!svc.stopping)
        revoked.call = ask("auth/revoked", json_new(), revoked_done, NULL);
}

void revoked_pushed(json_object *set)
{
    auth_revoked(set, false);
    revoked.again = revoked.call; /* the answer under way may be older than this */
}

void revoked_fetch(void)
{
    if (!revoked.ready) {
        revoked.ready = true;
        timer_init(&revoked.retry, svc.loop, revoked_ask, NULL);
    }
    if (revoked.call) {
        revoked.again = true;
        return;
    }
    timer_stop(&revoked.retry);
    revoked_ask(NULL);
}
