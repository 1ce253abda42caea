/*
 * Sessions (kernel page, section 7). A session follows its owner, one process; the others join and
 * leave without changing its status.
 */
#include "common/base/clock.h"
#include "kernel/core/life.h"

enum sess_state session_next(enum sess_state s, enum sess_ev ev)
{
    if (s == SS_ARCHIVED)
        return s;
    switch (ev) {
    case SE_WORK:
    case SE_RESUME:
        return SS_RUNNING;
    case SE_GOAL:
    case SE_INTERRUPTED:
        return SS_IDLE;
    case SE_PAUSE:
        return SS_PAUSED;
    case SE_END_CLEAN:
        return SS_COMPLETED;
    case SE_END_BAD:
        return SS_FAILED;
    }
    return s;
}

static int64_t owner_of(const char *session_id)
{
    return db_int_of("SELECT owner_pid FROM sessions WHERE id=?", -1, "s", session_id);
}

bool session_owner(const struct proc *p)
{
    return owner_of(p->session_id) == p->pid;
}

static bool is_end(enum sess_ev ev)
{
    return ev == SE_END_CLEAN || ev == SE_END_BAD || ev == SE_INTERRUPTED;
}

bool session_event(enum db_conn c, const struct proc *p, enum sess_ev ev, enum sess_state *now)
{
    sqlite3_stmt *q =
        db_query(c, "SELECT status, owner_pid FROM sessions WHERE id=?", "s", p->session_id);
    bool found = db_row(q);
    int s = found ? name_index(sess_names, SS_COUNT, db_text(q, 0)) : -1;
    bool owner = found && db_int(q, 1) == p->pid;
    db_end(q);
    if (s < 0)
        return false;
    *now = owner ? session_next((enum sess_state)s, ev) : (enum sess_state)s;
    (void)db_run(c, "UPDATE sessions SET status=?, last_updated=? WHERE id=?", "sis",
                 sess_names[*now], now_ms(), p->session_id);
    if (is_end(ev) && p->parent_pid)
        (void)db_run(c, "UPDATE sessions SET primary_agent=origin_agent WHERE id=?", "s",
                     p->session_id);
    return (int)*now != s;
}
