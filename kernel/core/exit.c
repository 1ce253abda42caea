/*
 * The end of a host process. exit_classify is the table of kernel page, section 5, without I/O;
 * exit_record writes what it says in one transaction (E1) and then runs the effects, each of which
 * may be repeated: a row keeps cleanup=0 until all are done, and a kernel that starts again begins
 * with those rows.
 */
#include <errno.h>

#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "kernel/core/conv.h"
#include "kernel/core/life.h"

#define RESTART_WINDOW_MS (10 * 60 * 1000)
#define REVOKE_TRY_MS     1000
#define RESULT_MAX        (256 * 1024)

void cause_set(struct proc *p, const char *kind, const char *reason)
{
    bool word = str_eq(kind, "done") || str_eq(kind, "failed");
    if (p->cause &&
        (word || !(cause_is(p, "done") || cause_is(p, "failed") || cause_is(p, "hibernate"))))
        return;
    free(p->cause);
    p->cause = xasprintf("%s %s", kind, reason ? reason : "");
    (void)db_run(DB_NORMAL, "UPDATE processes SET kill_cause=? WHERE pid=?", "si", p->cause,
                 p->pid);
}

static bool is_kind(const char *cause, const char *kind)
{
    size_t n = strlen(kind);
    return cause && strncmp(cause, kind, n) == 0 && cause[n] == ' ';
}

bool cause_is(const struct proc *p, const char *kind)
{
    return is_kind(p->cause, kind);
}

static void verdict(struct verdict *v, enum pstate s, enum inv_state iv, enum sess_state ss,
                    const char *reason)
{
    v->out = OUT_FINAL;
    v->state = s;
    v->inv = iv;
    v->session = ss;
    str_copy(v->reason, sizeof v->reason, reason);
}

/* What nobody asked for, by the way it ended. */
static void crash_reason(const struct exit_facts *f, char *out, size_t size)
{
    if (f->lost)
        str_copy(out, size, "lost");
    else if (f->oom)
        str_copy(out, size, "oom_killed");
    else if (f->signal)
        snprintf(out, size, "crashed: signal %d", f->signal);
    else if (f->code == 64)
        str_copy(out, size, "bad_start");
    else if (f->code == 69)
        str_copy(out, size, "kernel_unreachable");
    else
        str_copy(out, size, "internal");
}

static void classify_crash(const struct exit_facts *f, struct verdict *v)
{
    char reason[64];
    crash_reason(f, reason, sizeof reason);
    verdict(v, PS_CRASHED, IV_FAILED, SS_FAILED, reason);
    if (f->code == 64 && !f->signal && !f->lost)
        return;
    if (f->idle)
        v->out = OUT_SLEEP;
    else if (f->may_restart)
        v->out = OUT_RESTART;
}

void exit_classify(const struct exit_facts *f, struct verdict *v)
{
    const char *word = f->cause ? strchr(f->cause, ' ') : NULL;
    memset(v, 0, sizeof *v);
    word = word && word[1] ? word + 1 : "";
    if (is_kind(f->cause, "kill")) {
        verdict(v, PS_STOPPED, IV_KILLED, SS_FAILED, *word ? word : "killed");
    } else if (is_kind(f->cause, "stop")) {
        verdict(v, PS_STOPPED, IV_COMPLETED, SS_COMPLETED, *word ? word : "stopped");
        v->clean = f->code == 0 && !f->signal;
    } else if (is_kind(f->cause, "abort")) {
        verdict(v, PS_CRASHED, IV_FAILED, SS_FAILED, word);
    } else if (is_kind(f->cause, "interrupted") || (is_kind(f->cause, "shutdown") && !f->idle)) {
        verdict(v, PS_STOPPED, IV_KILLED, SS_IDLE, "interrupted_at_shutdown");
    } else if (is_kind(f->cause, "hibernate") || is_kind(f->cause, "shutdown")) {
        verdict(v, PS_WAITING, IV_IDLE, SS_IDLE, "");
        v->out = OUT_SLEEP;
        v->clean = true;
    } else if (is_kind(f->cause, "failed") && f->code == 1) {
        verdict(v, PS_STOPPED, IV_FAILED, SS_FAILED, *word ? word : "failed");
    } else if (f->code == 0 && !f->signal && !f->lost && f->started) {
        verdict(v, PS_STOPPED, IV_COMPLETED, SS_COMPLETED, "");
        v->clean = true;
    } else {
        classify_crash(f, v);
    }
}

/* True if one more restart is allowed; counts it. */
static bool may_restart(struct proc *p)
{
    int64_t now = now_ms();
    unsigned recent = 0, max = (unsigned)svc.config->max_restarts;
    if (max > N_ELEMS(p->restart_at))
        max = N_ELEMS(p->restart_at);
    for (unsigned i = 0; i < p->n_restart_at; i++)
        if (now - p->restart_at[i] < RESTART_WINDOW_MS)
            p->restart_at[recent++] = p->restart_at[i];
    p->n_restart_at = recent;
    return recent < max && !K.stopping;
}

static int record_restart(struct proc *p)
{
    uint8_t nonce[sizeof p->nonce];
    int64_t now = now_ms();
    rnd_bytes(nonce, sizeof nonce);
    cleanup(json_putp) json_object *log = json_new_arr();
    for (unsigned i = 0; i < p->n_restart_at; i++)
        json_push(log, json_object_new_int64(p->restart_at[i]));
    json_push(log, json_object_new_int64(now));
    db_begin(DB_FULL);
    (void)db_run(DB_FULL,
                 "UPDATE processes SET state='pending', waiting_on=NULL, frozen=0, kill_cause=NULL,"
                 " sig_nonce=?, restart_log=? WHERE pid=?",
                 "bji", nonce, sizeof nonce, log, p->pid);
    (void)db_run(DB_FULL, "UPDATE invocations SET restarts=restarts+1, status='running' WHERE id=?",
                 "s", p->invocation_id);
    int r = db_commit(DB_FULL);
    if (r)
        return r;
    memcpy(p->nonce, nonce, sizeof nonce);
    proc_make_key(p);
    p->restart_at[p->n_restart_at++] = now;
    p->restarts++;
    p->state = PS_PENDING;
    p->waiting_on = WO_NONE;
    p->frozen = false;
    p->resume = p->inv != IV_IDLE;
    p->inv = IV_RUNNING;
    free(TAKE(p->cause));
    p->phase = PH_GONE;
    return 0;
}

static int record_sleep(struct proc *p)
{
    enum sess_state ss;
    bool was_idle = p->inv == IV_IDLE;
    db_begin(DB_FULL);
    (void)db_run(DB_FULL,
                 "UPDATE processes SET state='waiting', waiting_on='signal', hibernated=1, "
                 "frozen=0, kill_cause=NULL WHERE pid=?",
                 "i", p->pid);
    (void)db_run(DB_FULL, "UPDATE invocations SET status='idle' WHERE id=?", "s", p->invocation_id);
    bool changed = session_event(DB_FULL, p, SE_GOAL, &ss);
    int r = db_commit(DB_FULL);
    if (r)
        return r;
    p->state = PS_WAITING;
    p->waiting_on = WO_SIGNAL;
    p->inv = IV_IDLE;
    p->hibernated = true;
    p->frozen = false;
    free(TAKE(p->cause));
    p->phase = PH_REST;
    if (!was_idle)
        pub_status(p);
    if (changed)
        pub_session(p->session_id, p->user, sess_names[ss]);
    return 0;
}

static enum sess_ev session_ev(const struct verdict *v)
{
    if (v->session == SS_COMPLETED)
        return SE_END_CLEAN;
    return v->session == SS_IDLE ? SE_INTERRUPTED : SE_END_BAD;
}

/* E1: everything that makes the end final, in one transaction. */
static int record_final(struct proc *p, const struct verdict *v, int code, int signal)
{
    enum sess_state ss = SS_RUNNING;
    int64_t now = now_ms();
    db_begin(DB_FULL);
    (void)db_run(DB_FULL,
                 "UPDATE processes SET state=?, waiting_on=NULL, frozen=0, hibernated=0, "
                 "exit_code=?, exit_signal=?, cleanup=0 WHERE pid=?",
                 "siIi", pstate_names[v->state], (int64_t)code, (int64_t)signal, p->pid);
    (void)db_run(DB_FULL, "UPDATE invocations SET status=?, ended_at=?, exit_reason=? WHERE id=?",
                 "siss", inv_names[v->inv], now, *v->reason ? v->reason : NULL, p->invocation_id);
    bool changed = session_event(DB_FULL, p, session_ev(v), &ss);
    char node[32];
    snprintf(node, sizeof node, "pid:%lld", (long long)p->pid);
    (void)db_run(DB_FULL, "UPDATE budgets SET tokens_reserved=0, usd_reserved=0 WHERE node=?", "s",
                 node);
    (void)db_run(DB_FULL, "DELETE FROM inputs WHERE pid=?", "i", p->pid);
    int r = db_commit(DB_FULL);
    if (r)
        return r;
    input_drop_all(p);
    p->state = v->state;
    p->waiting_on = WO_NONE;
    p->inv = v->inv;
    p->ended_at = now;
    p->exit_code = code;
    p->exit_signal = signal;
    p->frozen = p->hibernated = false;
    free(p->exit_reason);
    p->exit_reason = *v->reason ? xstrdup(v->reason) : NULL;
    p->phase = PH_GONE;
    log_info("pid %lld: %s is %s%s%s", (long long)p->pid, p->name, inv_names[v->inv],
             *v->reason ? ", " : "", v->reason);
    if (changed)
        pub_session(p->session_id, p->user, sess_names[ss]);
    return 0;
}

/* Children of an agent that ended in any way but a kill are stopped. */
static void stop_children(struct proc *p)
{
    size_t pos = 0;
    struct proc *q;
    while (proc_each(&pos, &q))
        if (q->parent_pid == p->pid && !proc_final(q))
            life_stop(q, "stop", "parent_exited");
}

struct effect {
    int64_t pid;
};

static void token_drop_all(struct proc *p);

/* A row stays in the table while someone waits for its descendants to end. */
void exit_settled(struct proc *p)
{
    if (p->cleanup && !p->waiters)
        proc_drop(p);
}

/* A kill is answered when the whole subtree has ended. */
static void tell_ancestors(const struct proc *p)
{
    int64_t at = p->parent_pid;
    struct proc *q;
    while (at && (q = proc_find(at))) {
        at = q->parent_pid;
        waiters_check(q);
        exit_settled(q);
    }
}

static void cleaned(struct proc *p)
{
    (void)db_run(DB_NORMAL, "UPDATE processes SET cleanup=1 WHERE pid=?", "i", p->pid);
    p->cleanup = true;
    exit_settled(p);
    if (K.stop_call)
        status_check_stopped();
}

static void on_revoke_retry(void *arg)
{
    token_drop_all(arg);
}

static void on_revoked(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct effect *e = arg;
    struct proc *p = proc_find(e->pid);
    if (!p || p->phase != PH_GONE)
        return;
    p->op = NULL;
    if (r->err && r->err != ERR_NOTFOUND && !K.stopping && p->tries++ < 600) {
        timer_done(&p->end);
        timer_init(&p->end, svc.loop, on_revoke_retry, p);
        timer_set(&p->end, REVOKE_TRY_MS);
        return;
    }
    cleaned(p);
}

static void token_drop_all(struct proc *p)
{
    struct effect *e = xcalloc(1, sizeof *e);
    e->pid = p->pid;
    p->op = svc_call("auth/revoke", json_make("pid:i lineage:s", p->pid, p->lineage), NULL, 5000,
                     on_revoked, e);
}

void exit_effects(struct proc *p)
{
    int code = p->exit_signal ? 128 + p->exit_signal : p->exit_code;
    const char *reason = p->exit_reason ? p->exit_reason : "completed";
    timer_stop(&p->step);
    timer_stop(&p->end);
    timer_stop(&p->idle);
    host_socket_gone(p);
    sig_drop_all(p);
    if (p->inv != IV_COMPLETED) {
        int r = conv_stopped(svc.root, p->user, p->name, p->invocation_id, reason);
        if (r)
            log_warn("conversation %s: %s", p->invocation_id, strerror(-r));
    }
    stop_children(p);
    pub("agent.exit",
        json_make("pid:i exitCode:i reason:s session_id:s", p->pid, (int64_t)code, reason,
                  p->session_id),
        p->user, p->atp_session, ROLE_NONE);
    pub("proc.exit", json_make("pid:i exitCode:i kind:s", p->pid, (int64_t)code, "agent"), p->user,
        p->atp_session, ROLE_NONE);
    pub("session.agent.detached",
        json_make("sessionId:s pid:i name:s", p->session_id, p->pid, p->name), p->user,
        p->atp_session, ROLE_NONE);
    waiters_spawn_failed(p, ERR_FAILED, reason);
    waiters_check(p);
    tell_ancestors(p);
    p->tries = 0;
    if (p->op)
        ipc_cancel(TAKE(p->op));
    token_drop_all(p);
}

static void ignore_reply(struct ipc_reply *r, void *arg)
{
    (void)r;
    (void)arg;
}

/* The process it was bound to is gone, so it opens nothing any more; said all the same. */
static void drop_token(struct proc *p)
{
    if (p->token_id && !proc_final(p))
        (void)svc_call("auth/revoke", json_make("tokenId:s", p->token_id), NULL, 5000, ignore_reply,
                       NULL);
    if (p->token)
        explicit_bzero(p->token, strlen(p->token));
    free(TAKE(p->token));
}

int exit_record(struct proc *p, const struct life_info *i)
{
    /* with work that waits it is not at rest: its death is a crash like any other */
    bool asked = cause_is(p, "hibernate") || cause_is(p, "shutdown");
    bool idle = p->inv == IV_IDLE && (asked || !p->inputs);
    bool started = p->phase == PH_LIVE || p->state != PS_PENDING || cause_is(p, "done") ||
                   cause_is(p, "failed");
    struct exit_facts f = { .cause = p->cause,
                            .code = i->code,
                            .signal = i->signal,
                            .oom = i->oom,
                            .lost = i->lost,
                            .idle = idle,
                            .started = started,
                            .may_restart = may_restart(p) };
    struct verdict v;
    exit_classify(&f, &v);
    int r = v.out == OUT_RESTART ? record_restart(p)
            : v.out == OUT_SLEEP ? record_sleep(p)
                                 : record_final(p, &v, i->code, i->signal);
    if (r) {
        log_error("pid %lld: its end could not be recorded", (long long)p->pid);
        return r;
    }
    timer_stop(&p->step);
    timer_stop(&p->end);
    p->end_step = 0;
    drop_token(p);
    if (p->op)
        ipc_cancel(TAKE(p->op));
    sig_drop_all(p);
    if (v.out == OUT_RESTART) {
        log_warn("pid %lld: %s; started again (%lld)", (long long)p->pid, v.reason,
                 (long long)p->restarts);
        life_event(p, EV_GO, &(struct life_info){ 0 });
    } else if (v.out == OUT_SLEEP) {
        host_socket_gone(p);
        waiters_check(p);
        if (K.stop_call)
            status_check_stopped();
        if (p->inputs && K.recovered && !K.stopping &&
            life_wake(p)) /* came while it went to sleep */
            log_error("pid %lld: could not be woken", (long long)p->pid);
    } else {
        exit_effects(p);
    }
    return 0;
}

int exit_fail(struct proc *p, const char *reason)
{
    struct verdict v;
    memset(&v, 0, sizeof v);
    verdict(&v, PS_CRASHED, IV_FAILED, SS_FAILED, reason);
    int r = record_final(p, &v, 0, 0);
    if (!r)
        exit_effects(p);
    return r;
}
