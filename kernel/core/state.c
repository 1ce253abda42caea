/* A process that goes on: its state, its invocation's and its session's change together. */
#include "common/base/clock.h"
#include "kernel/core/life.h"

static enum sess_ev event_of(enum pstate s, enum inv_state iv)
{
    if (iv == IV_IDLE)
        return SE_GOAL;
    return s == PS_PAUSED ? SE_PAUSE : SE_WORK;
}

static void write_result(const struct proc *p, const char *result)
{
    char head[256];
    size_t n = strlen(result) < 200 ? strlen(result) : utf8_floor(result, 200);
    memcpy(head, result, n);
    head[n] = '\0';
    (void)db_run(DB_NORMAL, "UPDATE invocations SET result=? WHERE id=?", "ss", result,
                 p->invocation_id);
    (void)db_run(DB_NORMAL, "UPDATE sessions SET summary=? WHERE id=?", "ss", head, p->session_id);
}

int state_result(const struct proc *p, const char *result)
{
    db_begin(DB_NORMAL);
    write_result(p, result);
    return db_commit(DB_NORMAL);
}

int state_set(struct proc *p, enum pstate s, enum wait_on w, enum inv_state iv, const char *result)
{
    enum sess_state ss = SS_RUNNING;
    bool session = false;
    db_begin(DB_NORMAL);
    (void)db_run(DB_NORMAL,
                 "UPDATE processes SET state=?, waiting_on=?, frozen=?, hibernated=? WHERE pid=?",
                 "ssiii", pstate_names[s], wait_names[w], (int64_t)p->frozen,
                 (int64_t)p->hibernated, p->pid);
    (void)db_run(DB_NORMAL, "UPDATE invocations SET status=?, tool_calls_total=? WHERE id=?", "sis",
                 inv_names[iv], p->tool_calls, p->invocation_id);
    if (result)
        write_result(p, result);
    if (iv != p->inv || s != p->state)
        session = session_event(DB_NORMAL, p, event_of(s, iv), &ss);
    int r = db_commit(DB_NORMAL);
    if (r)
        return r;
    p->state = s;
    p->waiting_on = w;
    p->inv = iv;
    p->last_activity = now_ms();
    pub_status(p);
    if (session)
        pub_session(p->session_id, p->user, sess_names[ss]);
    waiters_check(p);
    return 0;
}
