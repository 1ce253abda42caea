/*
 * Frames of init, router, authsvc and the agent arrive in any order: agent.ready may overtake the
 * reply to init/spawn, so may init/exited; a kill may fall anywhere. Each is an event here; the
 * table says what follows. An action never waits: what it asks for comes back as another event, and
 * an answer that belongs to an earlier host process (p->life) is dropped where it arrives.
 */
#include "kernel/core/life.h"

#include "common/base/clock.h"
#include "common/base/rnd.h"

#define MINT_TRY_MS     5000
#define KILL_TRY_MS     1000
#define TERM_TO_KILL_MS 2000
#define FORK_MS         10000
#define START_MS        10000

#define AS_NAME(id, name) [EV_##id] = name,
const char *const life_ev_names[EV_COUNT] = { LIFE_EVENTS(AS_NAME) };
#undef AS_NAME

typedef void (*act_fn)(struct proc *p, struct life_info *i);

void life_deadline(struct proc *p, int64_t ms)
{
    timer_set(&p->step, ms);
}

static int64_t ready_ms(void)
{
    return (int64_t)svc.config->ready_timeout_sec * 1000;
}

/* An answer to agent.ready that was held back. */
static void ready_drop(struct proc *p, int err, const char *why)
{
    struct call *c = TAKE(p->ready_call);
    if (c)
        call_fail(c, err, "%s", why);
}

static void act_fork(struct proc *p, struct life_info *i)
{
    (void)i;
    p->life++;
    p->tries = 0;
    p->host_pid = 0;
    p->host_start = 0;
    ready_drop(p, ERR_AUTH, "another process of this agent");
    free(TAKE(p->token));
    life_deadline(p, FORK_MS);
    host_fork(p);
}

static void act_look(struct proc *p, struct life_info *i)
{
    (void)i;
    life_deadline(p, FORK_MS);
    host_look(p);
}

static void act_mint(struct proc *p, struct life_info *i)
{
    if (i->host_pid) {
        p->host_pid = i->host_pid;
        p->host_start = i->host_start;
    }
    if (p->cause && (cause_is(p, "kill") || cause_is(p, "stop"))) {
        life_event(p, EV_END, &(struct life_info){ .reason = NULL });
        return;
    }
    p->mint_until = mono_ms() + MINT_TRY_MS;
    timer_stop(&p->step);
    mint_start(p);
}

static void on_mint_retry(void *arg)
{
    struct proc *p = arg;
    if (p->phase == PH_MINT)
        mint_start(p);
}

static void act_mint_again(struct proc *p, struct life_info *i)
{
    if (mono_ms() >= p->mint_until) {
        log_warn("pid %lld: no token: %s", (long long)p->pid, i->reason ? i->reason : "");
        life_event(p, EV_TIMEOUT, &(struct life_info){ .reason = i->reason });
        return;
    }
    timer_done(&p->end);
    timer_init(&p->end, svc.loop, on_mint_retry, p);
    timer_set(&p->end, 200);
}

/* Holds the request until the token is there; a later one of the same process replaces it. */
static void act_hold(struct proc *p, struct life_info *i)
{
    ready_drop(p, ERR_CONFLICT, "asked again");
    p->ready_call = TAKE(i->call);
    p->ready_pid = p->ready_call->peer.pid;
    p->ready_start = p->ready_call->peer.start;
}

static bool ready_is_ours(const struct proc *p, const struct call *c)
{
    return c->peer.pid == p->host_pid && c->peer.start == p->host_start;
}

static void act_token(struct proc *p, struct life_info *i)
{
    struct call *c = TAKE(i->call);
    if (!ready_is_ours(p, c)) {
        call_fail(c, ERR_AUTH, "not the process of pid %lld", (long long)p->pid);
        return;
    }
    if (!p->token) { /* a kernel before us minted the last one */
        struct life_info hold = { .call = c };
        act_hold(p, &hold);
        p->phase = PH_MINT;
        p->mint_until = mono_ms() + MINT_TRY_MS;
        timer_stop(&p->step);
        mint_start(p);
        return;
    }
    char ts[RFC3339_LEN];
    call_reply(c, json_make("token:s expiresAt:s", p->token, rfc3339(p->token_exp, ts)));
    if (p->phase == PH_TOOLS)
        life_deadline(p, START_MS);
}

static int write_t2(struct proc *p)
{
    return db_run(DB_NORMAL,
                  "UPDATE processes SET host_pid=?, host_start=?, token_id=?, token_exp=?, "
                  "grants=?, denied=?, boot_id=? WHERE pid=?",
                  "iisijjsi", (int64_t)p->host_pid, (int64_t)p->host_start, p->token_id,
                  p->token_exp, p->grants, p->denied, K.boot_id, p->pid);
}

static void act_t2(struct proc *p, struct life_info *i)
{
    int64_t exp = 0;
    free(p->token);
    free(p->token_id);
    p->token = xstrdup(json_str(i->reply, "token", ""));
    p->token_id = xstrdup(json_str(i->reply, "tokenId", ""));
    (void)rfc3339_parse(json_str(i->reply, "expiresAt", ""), &exp);
    p->token_exp = exp;
    if (write_t2(p)) {
        life_event(p, EV_TIMEOUT, &(struct life_info){ .reason = "database" });
        return;
    }
    life_deadline(p, ready_ms());
    if (p->ready_call) {
        struct call *c = TAKE(p->ready_call);
        life_event(p, EV_READY, &(struct life_info){ .call = c });
    }
}

static void act_start(struct proc *p, struct life_info *i)
{
    (void)i;
    life_deadline(p, START_MS);
    sig_start(p, input_start(p, true));
}

/* The first report of this host process (T3). */
static void act_live(struct proc *p, struct life_info *i)
{
    timer_stop(&p->step);
    ready_drop(p, ERR_CONFLICT, "already running");
    if (p->op) {
        ipc_cancel(TAKE(p->op));
    }
    p->hibernated = false;
    i->err = state_set(p, PS_RUNNING, WO_NONE, IV_RUNNING, NULL);
    if (i->err) {
        p->phase = PH_START;
        life_deadline(p, START_MS);
        return;
    }
    waiters_check(p);
    sig_kick(p);
    log_info("pid %lld: %s runs as host process %d", (long long)p->pid, p->name, (int)p->host_pid);
}

/* A start that came to nothing: the process is killed; its end is a failed spawn. */
static void act_abort(struct proc *p, struct life_info *i)
{
    char reason[160];
    snprintf(reason, sizeof reason, "spawn_failed: %s",
             i->reason && *i->reason ? i->reason : "not ready in time");
    cause_set(p, "abort", reason);
    ready_drop(p, ERR_UNAVAIL, "stopping");
    host_kill(p, "KILL");
    life_deadline(p, KILL_TRY_MS);
}

static void act_end(struct proc *p, struct life_info *i)
{
    if (i->host_pid) {
        p->host_pid = i->host_pid;
        p->host_start = i->host_start;
    }
    ready_drop(p, ERR_UNAVAIL, "stopping");
    if (p->host_pid)
        host_kill(p, "KILL");
    life_deadline(p, KILL_TRY_MS);
}

/* The kill has not led to an exit: init says whether there is still a process. */
static void act_end_again(struct proc *p, struct life_info *i)
{
    (void)i;
    if (p->host_pid)
        host_kill(p, "KILL");
    life_deadline(p, KILL_TRY_MS);
    host_look(p);
}

static void end_next(void *arg)
{
    struct proc *p = arg;
    if (p->phase != PH_LIVE || p->end_step == 0)
        return;
    if (p->end_step == 1) {
        log_warn("pid %lld: did not stop in time", (long long)p->pid);
        host_kill(p, "TERM");
        p->end_step = 2;
        timer_set(&p->end, TERM_TO_KILL_MS);
        return;
    }
    life_event(p, EV_END, &(struct life_info){ 0 });
}

static void act_stop(struct proc *p, struct life_info *i)
{
    if (p->end_step)
        return;
    if (p->frozen) {
        host_kill(p, "CONT");
        p->frozen = false;
    }
    p->end_step = 1;
    timer_done(&p->end);
    timer_init(&p->end, svc.loop, end_next, p);
    timer_set(&p->end, (int64_t)svc.config->stop_grace_sec * 1000);
    (void)sig_send(p, "SIGSTOP", json_make("reason:s", i->reason ? i->reason : "stopped"),
                   "kernel");
}

static void act_report(struct proc *p, struct life_info *i)
{
    (void)p;
    (void)i; /* the state it tells is applied by report.c */
}

static void act_refuse(struct proc *p, struct life_info *i)
{
    struct call *c = TAKE(i->call);
    call_fail(c, ERR_AUTH, "pid %lld has no process that is starting", (long long)p->pid);
}

static void act_exited(struct proc *p, struct life_info *i)
{
    if (p->host_pid && i->host_pid &&
        (i->host_pid != p->host_pid || i->host_start != p->host_start))
        return; /* of an earlier host process: recorded long ago */
    enum phase before = p->phase;
    i->err = exit_record(p, i);
    if (i->err)
        p->phase = before;
}

/* Dies without ever having had a host process (hibernated), or none that we know. */
static void act_finish(struct proc *p, struct life_info *i)
{
    struct life_info x = { .lost = true };
    i->err = exit_record(p, &x);
    if (i->err) {
        p->phase = p->hibernated ? PH_REST : PH_ENDING;
        life_deadline(p, KILL_TRY_MS);
    }
}

static void act_failed(struct proc *p, struct life_info *i)
{
    char reason[160];
    snprintf(reason, sizeof reason, "spawn_failed: %s", i->reason ? i->reason : "init");
    if (exit_fail(p, reason)) {
        p->phase = PH_FORK; /* the row says pending: tried again when the phase ends */
        life_deadline(p, 1000);
    }
}

struct cell {
    enum phase next;
    act_fn act;
    const char *name;
};
#define C(ph, fn)              \
    {                          \
        PH_##ph, act_##fn, #fn \
    }
#define SKIP(ph)          \
    {                     \
        PH_##ph, NULL, "" \
    }

/* An empty cell: the event means nothing here; a call that came with it is refused. */
static const struct cell table[PH_COUNT][EV_COUNT] = {
    [PH_REST] = { [EV_GO] = C(FORK, fork),
                  [EV_END] = C(GONE, finish),
                  [EV_STOP] = C(GONE, finish),
                  [EV_READY] = C(REST, refuse) },
    [PH_FORK] = { [EV_FORKED] = C(MINT, mint),
                  [EV_FORK_FAIL] = C(GONE, failed),
                  [EV_FORK_LOST] = C(FORK, look),
                  [EV_TIMEOUT] = C(FORK, look),
                  [EV_GO] = C(FORK, fork),
                  [EV_READY] = C(FORK, hold),
                  [EV_STOP] = C(ENDING, end),
                  [EV_END] = C(ENDING, end),
                  [EV_EXITED] = C(FORK, exited) },
    [PH_MINT] = { [EV_MINTED] = C(READY, t2),
                  [EV_MINT_FAIL] = C(MINT, mint_again),
                  [EV_READY] = C(MINT, hold),
                  [EV_REPORT] = C(LIVE, live),
                  [EV_TIMEOUT] = C(ENDING, abort),
                  [EV_STOP] = C(ENDING, end),
                  [EV_END] = C(ENDING, end),
                  [EV_EXITED] = C(MINT, exited) },
    [PH_READY] = { [EV_READY] = C(TOOLS, token),
                   [EV_REPORT] = C(LIVE, live),
                   [EV_TIMEOUT] = C(ENDING, abort),
                   [EV_STOP] = C(ENDING, end),
                   [EV_END] = C(ENDING, end),
                   [EV_EXITED] = C(READY, exited) },
    [PH_TOOLS] = { [EV_READY] = C(TOOLS, token),
                   [EV_TOOLS] = C(START, start),
                   [EV_REPORT] = C(LIVE, live),
                   [EV_TIMEOUT] = C(ENDING, abort),
                   [EV_STOP] = C(ENDING, end),
                   [EV_END] = C(ENDING, end),
                   [EV_EXITED] = C(TOOLS, exited) },
    [PH_START] = { [EV_READY] = C(START, token),
                   [EV_STARTED] = SKIP(START),
                   [EV_TOOLS] = C(START, start),
                   [EV_START_LOST] = C(ENDING, abort),
                   [EV_REPORT] = C(LIVE, live),
                   [EV_TIMEOUT] = C(ENDING, abort),
                   [EV_STOP] = C(ENDING, end),
                   [EV_END] = C(ENDING, end),
                   [EV_EXITED] = C(START, exited) },
    [PH_LIVE] = { [EV_READY] = C(LIVE, token),
                  [EV_REPORT] = C(LIVE, report),
                  [EV_STOP] = C(LIVE, stop),
                  [EV_END] = C(ENDING, end),
                  [EV_EXITED] = C(LIVE, exited) },
    [PH_ENDING] = { [EV_FORKED] = C(ENDING, end),
                    [EV_FORK_FAIL] = C(ENDING, finish),
                    [EV_FORK_LOST] = C(ENDING, end_again),
                    [EV_READY] = C(ENDING, refuse),
                    [EV_REPORT] = C(ENDING, report),
                    [EV_TIMEOUT] = C(ENDING, end_again),
                    [EV_GO] = C(ENDING, finish),
                    [EV_EXITED] = C(ENDING, exited) },
    [PH_GONE] = { [EV_GO] = C(FORK, fork), [EV_READY] = C(GONE, refuse) },
};

enum phase life_next(enum phase ph, enum life_ev ev)
{
    return table[ph][ev].name ? table[ph][ev].next : ph;
}

const char *life_action(enum phase ph, enum life_ev ev)
{
    return table[ph][ev].name ? table[ph][ev].name : "";
}

void life_event(struct proc *p, enum life_ev ev, struct life_info *info)
{
    const struct cell *c = &table[p->phase][ev];
    log_debug("pid %lld: %s on %s", (long long)p->pid, life_ev_names[ev], phase_names[p->phase]);
    if (c->name) {
        p->phase = c->next;
        if (c->act)
            c->act(p, info);
    }
    if (info->call)
        call_fail(TAKE(info->call), ERR_CONFLICT, "not expected now");
}

static void on_step(void *arg)
{
    struct proc *p = arg;
    life_event(p, EV_TIMEOUT, &(struct life_info){ 0 });
}

void life_init(struct proc *p)
{
    timer_init(&p->step, svc.loop, on_step, p);
    timer_init(&p->end, svc.loop, end_next, p);
}

void life_done(struct proc *p)
{
    timer_done(&p->step);
    timer_done(&p->end);
    timer_done(&p->idle);
    ready_drop(p, ERR_UNAVAIL, "gone");
    if (p->op)
        ipc_cancel(TAKE(p->op));
    sig_drop_all(p);
}

/* Parents before children, so that none of those that die can spawn on. */
static int by_pid(const void *a, const void *b)
{
    const struct proc *const *x = a, *const *y = b;
    return ((*x)->pid > (*y)->pid) - ((*x)->pid < (*y)->pid);
}

static size_t subtree(struct proc *p, struct proc **ret, size_t max)
{
    size_t n = 0, pos = 0;
    struct proc *q;
    while (proc_each(&pos, &q))
        if (n < max && !proc_final(q) && (q == p || proc_descends(q, p->pid)))
            ret[n++] = q;
    qsort(ret, n, sizeof(void *), by_pid);
    return n;
}

int life_kill(struct proc *p, const char *reason, int *ret_n)
{
    size_t max = K.procs.n + 1;
    cleanup(freep) struct proc **all = xcalloc(max, sizeof(void *));
    size_t n = subtree(p, all, max);
    cleanup(freep) char *own = xasprintf("kill %s", reason);
    db_begin(DB_FULL);
    for (size_t i = 0; i < n; i++)
        (void)db_run(DB_FULL, "UPDATE processes SET kill_cause=? WHERE pid=?", "si",
                     all[i] == p ? own : "kill parent_killed", all[i]->pid);
    int r = db_commit(DB_FULL);
    if (r)
        return r;
    *ret_n = (int)n;
    cleanup(freep) int64_t *pids = xcalloc(n + 1, sizeof(*pids));
    for (size_t i = 0; i < n; i++) {
        pids[i] = all[i]->pid;
        free(all[i]->cause);
        all[i]->cause = xstrdup(all[i] == p ? own : "kill parent_killed");
    }
    for (size_t i = 0; i < n; i++) { /* by pid: an end may take another row with it */
        struct proc *q = proc_find(pids[i]);
        if (q && !proc_final(q))
            life_event(q, EV_END, &(struct life_info){ .reason = reason });
    }
    return 0;
}

void life_stop(struct proc *p, const char *kind, const char *reason)
{
    if (proc_final(p))
        return;
    cause_set(p, kind, reason);
    life_event(p, EV_STOP, &(struct life_info){ .reason = reason });
}

bool life_closing(const struct proc *p)
{
    return proc_final(p) || (p->cause && !cause_is(p, "hibernate"));
}

int life_wake(struct proc *p)
{
    int r = db_run(DB_FULL,
                   "UPDATE processes SET state='pending', waiting_on=NULL, kill_cause=NULL "
                   "WHERE pid=?",
                   "i", p->pid);
    if (r)
        return r;
    free(TAKE(p->cause));
    p->resume = false;
    p->state = PS_PENDING;
    p->waiting_on = WO_NONE;
    life_event(p, EV_GO, &(struct life_info){ 0 });
    return 0;
}

int life_goal(struct proc *p, const char *goal, json_object *attachments)
{
    const char *limit = NULL;
    int64_t quota = json_int(p->requested, "agentsQuota", -1);
    if (K.stopping)
        return ERR_UNAVAIL;
    if (life_closing(p))
        return ERR_CONFLICT;
    if ((p->phase == PH_REST || cause_is(p, "hibernate")) &&
        quota_agents(p->user, quota, p, &limit))
        return ERR_LIMIT;
    json_object *payload = json_make("goal:s", goal);
    if (attachments)
        json_add(payload, "attachments", json_dup(attachments));
    int r = input_add(p, true, "kernel", payload);
    if (r)
        return r;
    timer_stop(&p->idle);
    if (p->phase == PH_REST)
        return life_wake(p);
    input_send(p);
    return 0;
}
