/*
 * May this call happen, and may it happen now: steps 3 to 11 of the ipc page, section 5, in that
 * order. A call that must wait (for the revocation set, a user's policy, a slot) is looked at again
 * from the start or from where it stopped; nothing is decided on old knowledge.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/rnd.h"
#include "router/router.h"

#define GATE_MS 5000

static TAILQ_HEAD(, rcall) gate = TAILQ_HEAD_INITIALIZER(gate);

/* Tools that every agent may call without a grant. */
static const char *const always[] = { "cap/request-tool", "cap/escalate", "cap/list", "job/watch",
                                      "sys/tools" };
/* Older names. */
static const struct {
    const char *from, *to;
} aliases[] = {
    { "jobs/watch", "job/watch" },
    { "kernel/sched/cron-add", "kernel/cron/add" },
    { "kernel/sched/cron-remove", "kernel/cron/remove" },
    { "kernel/sched/cron-list", "kernel/cron/list" },
};

static void refuse_auth(struct rcall *c, int err, const char *reason)
{
    rcall_fail(c, err, json_make("reason:s", reason), NULL);
}

/* --- step 3: who ---------------------------------------------------------------------------------
 */

/* The kernel hands on what came to its socket, with the real sender. */
static bool effective_peer(const struct rcall *c, struct peer *p)
{
    static const char *const names[] = { "pid", "start" };
    struct json_slice s[2];
    char num[24];
    int64_t pid, start;

    *p = c->peer;
    if (!c->env.res[RES_PEER].len || svc_peer_unit(&c->peer) != UNIT_KERNEL)
        return true;
    if (c->env.res[RES_PEER].at[0] != '{' ||
        json_scan(c->env.res[RES_PEER].at, c->env.res[RES_PEER].len, names, s, 2))
        return false;
    snprintf(num, sizeof(num), "%.*s", (int)s[0].len, s[0].at ? s[0].at : "");
    if (!parse_i64(num, 1, INT32_MAX, &pid))
        return false;
    snprintf(num, sizeof(num), "%.*s", (int)s[1].len, s[1].at ? s[1].at : "");
    if (!parse_i64(num, 1, INT64_MAX, &start))
        return false;
    p->pid = (pid_t)pid;
    p->start = (uint64_t)start;
    return true;
}

int rcall_authenticate(struct rcall *c, struct peer *p, struct ident **ret, const char **reason)
{
    struct json_slice t = c->env.res[RES_TOKEN];

    *reason = "missing";
    if (!t.len)
        t = c->env.res[RES_CALLER_TOKEN];
    if (!t.len)
        return ERR_AUTH;
    *reason = "malformed";
    if (t.len < 3 || t.at[0] != '"' || memchr(t.at, '\\', t.len) || !effective_peer(c, p))
        return ERR_AUTH;
    return auth_token(t.at + 1, t.len - 2, p, ret, reason);
}

static int as_caller(struct rcall *c, const char **reason)
{
    char handle[64];
    struct rcall *open;

    *reason = "as";
    if (c->id->kind != CALLER_SERVICE || !env_str(&c->env, RES_AS, handle, sizeof(handle)))
        return ERR_AUTH;
    open = call_by_handle(handle);
    if (!open || !open->e || open->phase != R_CALL || !str_eq(open->e->owner->name, c->id->unit))
        return ERR_AUTH;
    c->via = c->id;
    c->id = open->id;
    ident_ref(c->id);
    return 0;
}

static int who(struct rcall *c, const char **reason)
{
    struct peer p;
    struct ident *user = NULL;
    int r;

    r = rcall_authenticate(c, &p, &c->id, reason);
    if (r)
        return r;
    if (c->env.res[RES_USER].len) {
        r = auth_user(c->id, c->env.res[RES_USER], &user, reason);
        if (r)
            return r;
        c->via = c->id;
        c->id = user;
        return 0;
    }
    return c->env.res[RES_AS].len ? as_caller(c, reason) : 0;
}

static void forget_who(struct rcall *c)
{
    ident_unref(c->id);
    ident_unref(c->via);
    c->id = c->via = NULL;
}

/* --- steps 4 to 8: what --------------------------------------------------------------------------
 */

/* An internal tool with a least role is also a command that the gateway makes for a user. */
static bool reachable(const struct entry *e, const struct ident *id)
{
    return entry_visible(e, id) ||
           (e->internal && id->kind == CALLER_USER && e->min_role != ROLE_NONE);
}

static struct entry *find(const struct rcall *c)
{
    struct entry *e = registry_find(c->id, c->env.method, c->env.method_len);

    for (size_t i = 0; !e && i < N_ELEMS(aliases); i++)
        if (str_eq(aliases[i].from, c->env.method))
            e = registry_find(c->id, aliases[i].to, strlen(aliases[i].to));
    return e && reachable(e, c->id) ? e : NULL;
}

enum granted { NO, YES, ASK };

static enum granted user_granted(const struct ident *id, const struct entry *e)
{
    const struct policy *p;

    if (e->min_role != ROLE_NONE)
        return id->role >= e->min_role ? YES : NO;
    p = policy_get(id->user);
    if (!p)
        return ASK;
    return policy_allows(p, e->name) ? YES : NO;
}

bool tool_always(const char *tool)
{
    for (size_t i = 0; i < N_ELEMS(always); i++)
        if (str_eq(always[i], tool))
            return true;
    return false;
}

static enum granted granted(const struct rcall *c, const struct entry *e)
{
    if (c->via && c->env.res[RES_AS].len && !ident_granted(c->via, e->name))
        return NO;
    if (c->id->kind == CALLER_USER)
        return user_granted(c->id, e);
    if (ident_granted(c->id, e->name))
        return YES;
    return c->id->kind == CALLER_AGENT && tool_always(e->name) ? YES : NO;
}

static json_object *tool_data(const struct entry *e)
{
    return json_make("tool:s", e->name);
}

static void refuse_state(struct rcall *c, const struct entry *e)
{
    json_object *d = json_make("reason:s forwarded:b", e->reason[0] ? e->reason : "unavailable", 0);

    if (e->retry_after)
        json_add_int(d, "retry_after", e->retry_after);
    rcall_fail(c, ERR_UNAVAIL, d, "%s is unavailable", e->name);
}

/* --- steps 9 to 11 -------------------------------------------------------------------------------
 */

static bool needs_approval(const struct entry *e)
{
    return (e->destructive && str_starts(e->name, "kernel/")) ||
           (svc.config->hil_required_tools &&
            json_arr_has(svc.config->hil_required_tools, e->name));
}

static bool approved(struct rcall *c)
{
    cleanup(json_putp) json_object *params = rcall_params(c);
    cleanup(freep) char *text = json_canonical(params);
    uint8_t hash[32];

    sha256(text, strlen(text), hash);
    return approval_take(c->id->pid, c->e->name, hash);
}

static bool within_budget(struct rcall *c)
{
    json_object *n = json_get(c->id->budgets, c->e->name);

    if (!n)
        return true;
    if (budget_take(c->id->lineage, c->e->name, json_object_get_int64(n)))
        return false;
    c->budgeted = true;
    return true;
}

static struct queue_of *queue_of(struct owner *o, struct caller_load *l)
{
    struct queue_of *q;

    TAILQ_FOREACH (q, &o->turns, link)
        if (q->load == l)
            return q;
    q = xcalloc(1, sizeof(*q));
    q->load = l;
    TAILQ_INIT(&q->calls);
    TAILQ_INSERT_TAIL(&o->turns, q, link);
    return q;
}

void rcall_unqueue(struct rcall *c)
{
    struct queue_of *q = c->queue;
    struct owner *o;

    if (!q)
        return;
    o = c->e->owner;
    c->queue = NULL;
    TAILQ_REMOVE(&q->calls, c, wait);
    o->queued--;
    if (TAILQ_EMPTY(&q->calls)) {
        TAILQ_REMOVE(&o->turns, q, link);
        free(q);
    }
}

static void take_slot(struct rcall *c)
{
    c->slot = true;
    c->e->owner->in_flight++;
    rcall_forward(c);
}

void owner_serve(struct owner *o)
{
    struct queue_of *q;

    if (o->serving)
        return;
    o->serving = true;
    while (o->in_flight < o->max_concurrent && (q = TAILQ_FIRST(&o->turns))) {
        struct rcall *c = TAILQ_FIRST(&q->calls);

        TAILQ_REMOVE(&o->turns, q, link); /* the next turn is another's */
        TAILQ_INSERT_TAIL(&o->turns, q, link);
        rcall_unqueue(c);
        take_slot(c);
    }
    o->serving = false;
}

static void wait_for_slot(struct rcall *c)
{
    struct owner *o = c->e->owner;
    int64_t wait = o->queue_timeout_ms;

    if (o->queued >= o->queue_max) {
        rcall_fail(c, ERR_BUSY,
                   json_make("retry_after_ms:i reason:s", (int64_t)o->queue_timeout_ms, "queue"),
                   "%s: too many calls are waiting", o->name);
        return;
    }
    c->queue = queue_of(o, c->id->load);
    TAILQ_INSERT_TAIL(&c->queue->calls, c, wait);
    o->queued++;
    c->phase = R_QUEUE;
    if (c->timeout_ms && c->timeout_ms < wait)
        wait = c->timeout_ms;
    rcall_timer(c, wait);
}

static int call_timeout(const struct rcall *c)
{
    struct json_slice s = c->env.res[RES_TIMEOUT];
    int64_t ms = c->e->timeout_ms, asked;
    char num[24];

    if (!s.len || s.len >= sizeof(num))
        return (int)ms;
    memcpy(num, s.at, s.len);
    num[s.len] = '\0';
    if (parse_i64(num, 1, INT32_MAX, &asked) && (!ms || asked < ms))
        ms = asked;
    return (int)ms;
}

/* Steps 9 to 11. */
static void admit_now(struct rcall *c)
{
    struct entry *e = c->e;
    struct caller_load *l = c->id->load;

    if (c->id->kind == CALLER_AGENT) {
        if (needs_approval(e) && !approved(c)) {
            rcall_fail(c, ERR_DENIED, json_make("reason:s tool:s", "approval", e->name),
                       "%s needs an approval", e->name);
            return;
        }
        if (c->id->budgets && !within_budget(c)) {
            rcall_fail(c, ERR_BUDGET, tool_data(e), NULL);
            return;
        }
    }
    if (l->in_flight >= l->limit) {
        rcall_fail(c, ERR_BUSY, json_make("retry_after_ms:i reason:s", (int64_t)100, "caller"),
                   "too many calls of this caller are in flight");
        return;
    }
    l->in_flight++;
    l->refs++;
    c->load = l;
    c->timeout_ms = call_timeout(c);
    if (c->timeout_ms)
        c->deadline = c->t0_us / 1000 + c->timeout_ms;
    if (e->fn) {
        rcall_own(c);
    } else if (e->blocking) {
        rcall_forward(c);
    } else if (e->owner->in_flight < e->owner->max_concurrent) {
        take_slot(c);
    } else {
        wait_for_slot(c);
    }
}

/* Steps 4 to 8. */
static void admit_tool(struct rcall *c)
{
    struct entry *e = find(c);
    enum granted g;

    if (!e) {
        rcall_fail(c, ERR_METHOD, json_make("tool:s", c->env.method), "%s: no such tool",
                   c->env.method);
        return;
    }
    if (e->state == TOOL_UNAVAILABLE) {
        refuse_state(c, e);
        return;
    }
    g = granted(c, e);
    if (g == ASK) {
        c->phase = R_POLICY;
        rcall_timer(c, GATE_MS);
        policy_fetch(c->id->user, rcall_policy_known, c);
        return;
    }
    if (g == NO || !entry_permits(e, c->id)) {
        rcall_fail(c, ERR_PERM, tool_data(e), "%s is not granted", e->name);
        return;
    }
    c->e = e;
    e->refs++;
    e->in_flight++;
    admit_now(c);
}

void rcall_admit(struct rcall *c)
{
    const char *reason = "";
    int r = who(c, &reason);

    if (r) {
        forget_who(c);
        refuse_auth(c, r, reason);
        return;
    }
    if (!auth_gate_open() && c->id->kind != CALLER_SERVICE) {
        forget_who(c);
        c->phase = R_GATE;
        TAILQ_INSERT_TAIL(&gate, c, wait);
        rcall_timer(c, GATE_MS);
        return;
    }
    admit_tool(c);
}

void rcall_ungate(struct rcall *c)
{
    if (c->phase == R_GATE)
        TAILQ_REMOVE(&gate, c, wait);
}

void rcall_resume_gate(void)
{
    struct rcall *c;

    while ((c = TAILQ_FIRST(&gate))) {
        rcall_ungate(c);
        timer_stop(&c->timer);
        c->phase = R_READ; /* not in a queue of any kind */
        rcall_admit(c);
    }
}

void rcall_policy_known(void *arg)
{
    struct rcall *c = arg;

    timer_stop(&c->timer);
    if (policy_get(c->id->user)) {
        admit_tool(c);
        return;
    }
    rcall_fail(c, ERR_UNAVAIL, json_make("reason:s forwarded:b", "policy", 0),
               "the user's permissions could not be read");
}
