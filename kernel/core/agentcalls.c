/*
 * What agents ask of the kernel: their category-2 tools, reports, and resources. An agent acts on
 * its own descendants, or on its session; which process it is comes from _caller.
 */
#include "common/base/clock.h"
#include "kernel/core/calls.h"
#include "kernel/core/spawn.h"

#define RESULT_MAX (256 * 1024)

/* The calling agent's process; answers the call otherwise. */
static struct proc *self(struct call *c, const struct caller *w)
{
    struct proc *p = w->kind == CALLER_AGENT ? proc_find(w->pid) : NULL;
    if (!p || proc_final(p)) {
        call_fail(c, ERR_PERM, "only a running agent may do this");
        return NULL;
    }
    return p;
}

/* --- category 2 ------------------------------------------------------------------------------- */

void agent_spawn(struct call *c, const struct caller *w)
{
    struct proc *p = self(c, w);
    if (!p)
        return;
    if (K.stopping) {
        call_fail(c, ERR_UNAVAIL, "the daemon is stopping");
        return;
    }
    struct args a = args_open(c->params);
    const char *agent = args_str(&a, "agent", 128), *goal = args_str(&a, "goal", 65536);
    json_object *caps = args_strs_or(&a, "capabilities", 128);
    json_object *budget = args_obj_or(&a, "budget");
    bool keep = args_bool_or(&a, "keepAlive", false);
    const char *key = args_str_or(&a, "idempotency_key", 64, NULL);
    char base[64], version[64];
    if (!args_bad(&a) && !package_split(agent, base, sizeof base, version, sizeof version))
        args_fail(&a, "agent", "is not the name of an agent");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    struct spawn_req *q = xcalloc(1, sizeof *q);
    q->agent = xstrdup(agent);
    q->goal = xstrdup(goal);
    q->caps = caps && json_object_array_length(caps) ? json_dup(caps) : NULL;
    q->budget = budget ? json_dup(budget) : NULL;
    q->keep_alive = keep;
    q->one_shot = !keep;
    q->user = xstrdup(p->user);
    q->role = w->role;
    q->uid = w->uid;
    q->parent_pid = p->pid;
    q->session_id = xstrdup(p->session_id);
    q->atp_session = p->atp_session ? xstrdup(p->atp_session) : NULL;
    q->request_id = xstrdup(w->call_id);
    q->idem_key = key ? xasprintf("%lld:%s", (long long)p->pid, key) : NULL;
    spawn_start(q, c, NULL, NULL);
}

/* A descendant, ended ones too. */
static struct proc *descendant(struct call *c, const struct proc *me, struct args *a, bool *loaded)
{
    int64_t pid = args_pid(a);
    if (args_bad(a)) {
        call_bad_args(c, a);
        return NULL;
    }
    struct proc *p = proc_get(pid, loaded);
    if (p && proc_descends(p, me->pid))
        return p;
    call_fail(c, p ? ERR_PERM : ERR_NOTFOUND,
              p ? "process %lld is not a child of yours" : "no process %lld", (long long)pid);
    proc_release(p, p && *loaded);
    return NULL;
}

void agent_kill(struct call *c, const struct caller *w)
{
    bool loaded;
    struct args a = args_open(c->params);
    const char *reason = args_str_or(&a, "reason", 100, "killed");
    struct proc *me = self(c, w), *p = me ? descendant(c, me, &a, &loaded) : NULL;
    if (!p)
        return;
    kill_and_wait(c, p, *reason ? reason : "killed");
    proc_release(p, loaded);
}

void agent_list(struct call *c, const struct caller *w)
{
    static const char *const states[] = { "running", "paused", "waiting", "all", NULL };
    struct args a = args_open(c->params);
    int want = args_enum_or(&a, "status", states, 0);
    struct proc *me = self(c, w), *p;
    if (!me)
        return;
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    json_object *out = json_new_arr();
    for (size_t pos = 0; proc_each(&pos, &p);) {
        if (!str_eq(p->session_id, me->session_id) ||
            (want < 3 && !str_eq(pstate_names[p->state], states[want])))
            continue;
        json_object *by =
            p->parent_pid ? json_object_new_int64(p->parent_pid) : json_object_new_string(p->user);
        json_push(out, json_make("pid:i name:s status:s goal:s spawnedBy:o", p->pid, p->name,
                                 pstate_names[p->state], p->goal, by));
    }
    call_reply(c, json_make("agents:o", out));
}

void agent_wait(struct call *c, const struct caller *w)
{
    bool loaded;
    struct args a = args_open(c->params);
    int64_t timeout = args_int_or(&a, "timeoutSec", 0, 24 * 3600, 300);
    struct proc *me = self(c, w), *p = me ? descendant(c, me, &a, &loaded) : NULL;
    if (!p)
        return;
    if (loaded) {
        call_reply(c, agent_wait_reply(p, false));
        proc_free(p);
    } else {
        waiter_park(p, c, WAITER_AGENT_WAIT, timeout * 1000);
    }
}

void agent_send_message(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *text = args_str(&a, "message", 256 * 1024);
    int64_t pid = args_pid(&a);
    struct proc *me = self(c, w);
    char from[40];
    if (!me)
        return;
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    bool loaded = false;
    struct proc *p = proc_get(pid, &loaded);
    int err = !p                                       ? ERR_NOTFOUND
              : !str_eq(p->session_id, me->session_id) ? ERR_PERM
              : loaded                                 ? ERR_CONFLICT
                                                       : 0;
    if (err) {
        call_fail(c, err,
                  !p                ? "no process %lld"
                  : err == ERR_PERM ? "process %lld is not of this session"
                                    : "process %lld has ended",
                  (long long)pid);
        proc_release(p, loaded);
        return;
    }
    snprintf(from, sizeof from, "agent:%lld", (long long)me->pid);
    int r = proc_message(p, text, NULL, from, me);
    if (r)
        call_fail(c, r > 0 ? r : ERR_INTERNAL, "process %lld: %s", (long long)pid, err_text(r));
    else
        call_reply(c, json_make("delivered:b", 1));
}

void agent_caps(struct call *c, const struct caller *w)
{
    char ts[RFC3339_LEN];
    struct proc *p = self(c, w);
    if (!p)
        return;
    json_object *limits = json_make("maxTokensPerTurn:i maxToolChainLength:i toolCallBudgets:o",
                                    (int64_t)8000, (int64_t)svc.config->max_tool_chain, json_new());
    call_reply(c, json_make("grantedTools:o constraints:o tokenExpiresAt:s", json_dup(p->grants),
                            limits, rfc3339(p->token_exp, ts)));
}

/* No job can exist yet whose id would be found. */
void job_watch(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *id = args_str_or(&a, "jobId", 128, NULL);
    (void)w;
    if (!id)
        id = args_str(&a, "job_id", 128);
    if (args_bad(&a))
        call_bad_args(c, &a);
    else
        call_fail(c, ERR_NOTFOUND, "no job %s", id);
}

/* --- reports ---------------------------------------------------------------------------------- */

static void idle_timeout(void *arg)
{
    struct proc *p = arg;
    if (proc_idle(p) && !p->inputs && p->phase == PH_LIVE)
        life_stop(p, "hibernate", "hibernate");
}

void idle_arm(struct proc *p)
{
    int sec = svc.config->hibernate_after_sec;
    timer_done(&p->idle);
    timer_init(&p->idle, svc.loop, idle_timeout, p);
    if (sec > 0 && proc_idle(p))
        timer_set(&p->idle, (int64_t)sec * 1000);
}

static char *cut_result(json_object *report)
{
    const char *s = json_str(report, "result", NULL);
    if (!s)
        return NULL;
    size_t n = strlen(s);
    return xstrndup(s, n > RESULT_MAX ? utf8_floor(s, RESULT_MAX) : n);
}

static void note_counters(struct proc *p, json_object *r)
{
    p->turn = json_int(r, "turn", p->turn);
    p->calls_this_turn = json_int(r, "toolCallsThisTurn", p->calls_this_turn);
    int64_t total = json_int(r, "toolCallsTotal", p->tool_calls);
    p->tool_calls = total > p->tool_calls ? total : p->tool_calls;
    p->context_used = json_int(r, "contextUsed", p->context_used);
    p->pending_signals = json_int(r, "pendingSignals", p->pending_signals);
    const char *sig = json_str(r, "lastSignal", NULL);
    if (sig)
        str_copy(p->last_signal, sizeof p->last_signal, sig);
    json_object *deg = json_get(r, "degraded");
    if (deg) {
        json_put(p->degraded);
        p->degraded = json_dup(deg);
    }
    p->last_activity = now_ms();
}

/* The agent's last word before it exits: kept until init tells the exit. */
static int note_exit(struct proc *p, json_object *exit_doc)
{
    const char *status = json_str(exit_doc, "status", "completed");
    cleanup(freep) char *result = cut_result(exit_doc);
    cause_set(p, str_eq(status, "failed") ? "failed" : "done", json_str(exit_doc, "reason", ""));
    return result ? state_result(p, result) : 0;
}

static int apply_state(struct proc *p, json_object *r)
{
    int s = name_index(pstate_names, PS_COUNT, json_str(r, "state", "running"));
    int wo = name_index(wait_names, WO_COUNT, json_str(r, "waitingOn", NULL));
    cleanup(freep) char *result = cut_result(r);
    if (s < PS_RUNNING || s > PS_WAITING)
        return ERR_INVAL;
    enum wait_on wait = wo < 0 ? WO_NONE : (enum wait_on)wo;
    bool goal = s == PS_WAITING && (json_get(r, "result") || json_flag(r, "idle", false));
    bool was_idle = p->inv == IV_IDLE || (p->inv == IV_PAUSED && p->before_pause == PS_WAITING);
    if (s == PS_WAITING && wait == WO_NONE)
        wait = WO_SIGNAL;
    enum inv_state iv = s == PS_PAUSED                          ? IV_PAUSED
                        : goal || (s == PS_WAITING && was_idle) ? IV_IDLE
                                                                : IV_RUNNING;
    if (s == PS_PAUSED && p->state != PS_PAUSED) {
        p->before_pause = p->state;
        p->before_wait = p->waiting_on;
    }
    if ((int)p->state == s && p->waiting_on == wait && p->inv == iv && !result)
        return 0;
    int err = state_set(p, (enum pstate)s, wait, iv, result);
    if (!err)
        idle_arm(p);
    return err;
}

void agent_report(struct call *c, const struct caller *w)
{
    struct proc *p = self(c, w);
    if (!p)
        return;
    int64_t seq = json_int(c->params, "seq", 0);
    json_object *exit_doc = json_obj(c->params, "exit");
    struct life_info i = { .reply = c->params };
    if (!exit_doc) /* an agent that gives up while it starts has never run */
        life_event(p, EV_REPORT, &i);
    int err = i.err;
    note_counters(p, c->params);
    if (!err && !exit_doc && p->phase == PH_LIVE && (seq == 0 || seq >= p->report_seq)) {
        p->report_seq = seq;
        err = apply_state(p, c->params);
    }
    if (p->adopted && p->phase == PH_LIVE) { /* the first word since this kernel started */
        p->adopted = false;
        pub_status(p);
    }
    if (!err && exit_doc)
        err = note_exit(p, exit_doc);
    if (!err)
        err = input_taken(p, json_arr(c->params, "taken"));
    input_send(p);
    if (err) {
        call_fail(c, err > 0 ? err : ERR_INTERNAL, "the report could not be recorded");
        return;
    }
    json_object *quota = json_make("tokensLeft:o low:b", usage_left(p), (int)usage_low(p));
    call_reply(c, json_make("ack:i quota:o contextLimit:i", seq, quota, p->context_limit));
}

/* --- signals of agents and resources -----------------------------------------------------------
 */

void agent_signal(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *sig = args_str_or(&a, "signal", 16, "SIGESCALATE");
    struct proc *p = self(c, w);
    if (!p)
        return;
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (str_eq(sig, "SIGUSR1") || str_eq(sig, "SIGUSR2")) {
        pub("proc.signal", json_make("pid:i signal:s from:s", p->pid, sig, p->name), p->user,
            p->atp_session, ROLE_NONE);
        call_reply(c, json_make("ok:b", 1));
    } else if (str_eq(sig, "SIGESCALATE")) {
        call_fail_data(c, ERR_DENIED, json_make("reason:s outcome:s", "policy", "denied"),
                       "nobody can be asked: this system takes no escalations");
    } else {
        args_fail(&a, "signal", "agents send SIGESCALATE, SIGUSR1 and SIGUSR2");
        call_bad_args(c, &a);
    }
}

struct resources {
    struct call *call;
    char id[80];
    json_object *requests; /* borrowed from the call */
    json_object *grants;
    size_t at;
    int64_t pid;
};

static void resources_next(struct resources *r);

static void on_renewal(struct proc *p, int err, json_object *result, void *arg)
{
    struct resources *r = arg;
    if (!p || err)
        json_push(r->grants, json_make("resource:s granted:b reason:s", "token_renewal", 0,
                                       err ? err_name(err) : "EUNAVAIL"));
    else
        json_push(r->grants,
                  json_make("resource:s granted:b expiresAt:s new_token:s", "token_renewal", 1,
                            json_str(result, "expiresAt", ""), json_str(result, "token", "")));
    resources_next(r);
}

static void grant_context(struct resources *r, struct proc *p, json_object *q)
{
    int64_t want = json_int(q, "amount", 0), window = json_int(p->requested, "modelWindow", 0);
    int64_t room = window - p->context_limit;
    if (json_flag(p->requested, "contextFixed", false) || room <= 0 || want <= 0) {
        json_push(r->grants,
                  json_make("resource:s granted:b amount:i newTotal:i reason:s", "context_tokens",
                            0, (int64_t)0, p->context_limit, "the model's window is used up"));
        return;
    }
    if (want > room)
        want = room;
    p->context_limit += want;
    (void)db_run(DB_NORMAL, "UPDATE processes SET context_limit=? WHERE pid=?", "ii",
                 p->context_limit, p->pid);
    json_push(r->grants, json_make("resource:s granted:b amount:i newTotal:i expiresAt:o",
                                   "context_tokens", 1, want, p->context_limit, NULL));
}

static const char no_human[] = "nobody can be asked: this system takes no requests for tools";

static void grant_one(struct resources *r, struct proc *p, json_object *q)
{
    const char *what = json_str(q, "resource", "");
    if (str_eq(what, "context_tokens")) {
        grant_context(r, p, q);
    } else if (str_eq(what, "tool")) {
        const char *tool = json_str(q, "name", json_str(q, "tool", ""));
        bool has = json_arr_has(p->grants, tool);
        json_object *g = json_make("resource:s granted:b tool:s", what, (int)has, tool);
        if (has) {
            json_add_str(g, "scope", "session");
            json_add_str(g, "new_token", p->token ? p->token : "");
        } else {
            json_add_str(g, "reason", no_human);
            json_add_str(g, "errno", "EDENIED");
        }
        json_push(r->grants, g);
    } else {
        json_push(r->grants, json_make("resource:s granted:b reason:s errno:s", what, 0,
                                       "this resource cannot be granted here", "EDENIED"));
    }
}

static void resources_next(struct resources *r)
{
    struct proc *p = proc_find(r->pid);
    size_t n = json_object_array_length(r->requests);
    char ts[RFC3339_LEN];
    while (p && r->at < n) {
        json_object *q = json_object_array_get_idx(r->requests, r->at++);
        if (str_eq(json_str(q, "resource", ""), "token_renewal")) {
            token_renew(p, true, on_renewal, r);
            return;
        }
        grant_one(r, p, q);
    }
    if (p)
        call_reply(r->call, json_make("requestId:s respondedAt:s grants:o", r->id,
                                      rfc3339(now_ms(), ts), TAKE(r->grants)));
    else
        call_fail(r->call, ERR_CONFLICT, "the process has ended");
    json_put(r->grants);
    free(r);
}

void resource_request(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    struct proc *p = self(c, w);
    if (!p)
        return;
    if (str_eq(w->tool, "cap/request-tool")) { /* sent under the tool's own name */
        const char *tool = args_str(&a, "tool", 128);
        (void)args_str(&a, "reason", 4096);
        if (args_bad(&a)) {
            call_bad_args(c, &a);
            return;
        }
        bool has = json_arr_has(p->grants, tool);
        call_reply(c, json_make("granted:b tool:s reason:s", (int)has, tool,
                                has ? "already granted" : no_human));
        return;
    }
    const char *id = args_str(&a, "requestId", 79);
    json_object *requests = args_arr(&a, "requests");
    if (!args_bad(&a) && json_object_array_length(requests) > 16)
        args_fail(&a, "requests", "has more than 16 members");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    struct resources *r = xcalloc(1, sizeof *r);
    r->call = c;
    r->requests = requests;
    r->grants = json_new_arr();
    r->pid = p->pid;
    str_copy(r->id, sizeof r->id, id);
    resources_next(r);
}
