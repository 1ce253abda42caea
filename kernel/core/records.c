/* Sessions and invocations as clients read and change them (kernel page, sections 7 and 8; bodies
 * in the ATP page, sections 8 and 9). */
#include "common/base/clock.h"
#include "kernel/core/calls.h"
#include "kernel/core/conv.h"
#include "kernel/core/spawn.h"

#define LIST_MAX 1000

static void add_ts(json_object *o, const char *key, int64_t ms)
{
    char ts[RFC3339_LEN];
    json_add_str(o, key, ms ? rfc3339(ms, ts) : NULL);
}

/* --- sessions --------------------------------------------------------------------------------- */

#define SESS_COLS                                                                          \
    "SELECT id, parent_id, project_id, title, goal, username, spawned_at, last_updated, "  \
    "status, summary, tokens_total, origin_agent, primary_agent, participants, owner_pid " \
    "FROM sessions "

static void add_members(json_object *o, const char *id)
{
    json_object *pids = json_new_arr(), *invs = json_new_arr();
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT pid, id, agent_name, agent_version, spawned_at, ended_at "
                               "FROM invocations WHERE session_id=? ORDER BY spawned_at",
                               "s", id);
    while (db_row(q)) {
        json_object *i = json_make("pid:i invocationId:s agentName:s agentVersion:s", db_int(q, 0),
                                   db_text(q, 1), db_text(q, 2), db_text(q, 3));
        add_ts(i, "spawnedAt", db_int(q, 4));
        json_push(invs, i);
        if (db_null(q, 5))
            json_push(pids, json_object_new_int64(db_int(q, 0)));
    }
    db_end(q);
    json_add(o, "pids", pids);
    json_add(o, "invocationPids", invs);
}

static json_object *session_of_row(sqlite3_stmt *q)
{
    json_object *o =
        json_make("id:s parentId:s projectId:s title:s goal:s username:s", db_text(q, 0),
                  db_text(q, 1), db_text(q, 2), db_text(q, 3), db_text(q, 4), db_text(q, 5));
    add_ts(o, "spawnedAt", db_int(q, 6));
    add_ts(o, "lastUpdated", db_int(q, 7));
    json_add_str(o, "status", db_text(q, 8));
    json_add_str(o, "summary", db_text(q, 9));
    json_add_int(o, "tokensTotal", db_int(q, 10));
    json_add_str(o, "originAgent", db_text(q, 11));
    json_add_str(o, "origin_agent", db_text(q, 11));
    json_add_str(o, "primaryAgent", db_text(q, 12));
    json_add_str(o, "primary_agent", db_text(q, 12));
    json_object *who = db_json(q, 13);
    json_add(o, "participants", who ? who : json_new_arr());
    json_add_int(o, "ownerPid", db_int(q, 14));
    return o;
}

static json_object *session_load(const char *id)
{
    sqlite3_stmt *q = db_query(DB_NORMAL, SESS_COLS "WHERE id=?", "s", id);
    json_object *o = db_row(q) ? session_of_row(q) : NULL;
    db_end(q);
    if (o)
        add_members(o, id);
    return o;
}

void sess_list(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *named = args_str_or(&a, "username", 64, NULL);
    const char *status = args_str_or(&a, "status", 16, NULL);
    int64_t limit = args_int_or(&a, "limit", 1, LIST_MAX, 200);
    const char *user = call_user(w, named);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!user) {
        call_fail(c, ERR_PERM, "sessions of %s are not yours", named);
        return;
    }
    json_object *out = json_new_arr();
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               SESS_COLS "WHERE username=?1 AND (?2 IS NULL OR status=?2) "
                                         "ORDER BY last_updated DESC, rowid DESC LIMIT ?3",
                               "ssi", user, str_empty(status) ? NULL : status, limit);
    while (db_row(q))
        json_push(out, session_of_row(q));
    db_end(q);
    for (size_t i = 0; i < json_object_array_length(out); i++) {
        json_object *o = json_object_array_get_idx(out, i);
        add_members(o, json_str(o, "id", ""));
    }
    call_reply(c, out);
}

/* The session a call names, if the caller may; answers otherwise. Owned. */
static json_object *session_target(struct call *c, const struct caller *w, bool change)
{
    struct args a = args_open(c->params);
    const char *id = args_str_or(&a, "session_id", 64, NULL);
    const char *other = args_str_or(&a, "id", 64, NULL);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return NULL;
    }
    id = str_empty(id) ? other : id;
    json_object *s = str_empty(id) ? NULL : session_load(id);
    if (!s) {
        call_fail(c, ERR_NOTFOUND, "no session %s", id ? id : "");
        return NULL;
    }
    const char *owner = json_str(s, "username", "");
    if (change ? may_change(w, owner) : may_see(w, owner))
        return s;
    call_fail(c, ERR_PERM, "session %s is not yours", id);
    json_put(s);
    return NULL;
}

void sess_get(struct call *c, const struct caller *w)
{
    json_object *s = session_target(c, w, false);
    if (s)
        call_reply(c, s);
}

/* Calls fn on each live process of a session, the owner first; how many it took. */
static unsigned each_of(const char *session_id, int64_t owner, int (*fn)(struct proc *))
{
    unsigned n = 0;
    struct proc *o = proc_find(owner), *p;
    if (o && str_eq(o->session_id, session_id))
        n += fn(o) == 0;
    size_t pos = 0;
    while (proc_each(&pos, &p))
        if (p != o && str_eq(p->session_id, session_id) && !proc_final(p))
            n += fn(p) == 0;
    return n;
}

static int pause_one(struct proc *p)
{
    return proc_pause(p, false, "session");
}

void sess_pause(struct call *c, const struct caller *w)
{
    cleanup(json_putp) json_object *s = session_target(c, w, true);
    if (!s)
        return;
    if (each_of(json_str(s, "id", ""), json_int(s, "ownerPid", 0), pause_one) == 0)
        call_fail_data(c, ERR_CONFLICT, json_make("reason:s", "state"),
                       "nothing runs in this session");
    else
        call_reply(c, json_make("ok:b", 1));
}

int session_resume_all(const char *session_id)
{
    int64_t owner = db_int_of("SELECT owner_pid FROM sessions WHERE id=?", 0, "s", session_id);
    return each_of(session_id, owner, proc_resume) > 0 ? 0 : ERR_CONFLICT;
}

static void resumed(struct proc *p, int err, const char *why, struct call *c, void *arg)
{
    (void)arg;
    if (!c)
        return;
    if (err)
        call_fail(c, err, "%s", why);
    else
        call_reply(c, json_make("ok:b pid:i", 1, p->pid));
}

/* No process left: the primary agent again, as the session's new owner. */
static void resume_anew(struct call *c, const struct caller *w, json_object *s, const char *goal)
{
    struct spawn_req *q = xcalloc(1, sizeof *q);
    const char *key = json_str(c->params, "idempotency_key", NULL);
    q->agent = xstrdup(json_str(s, "primaryAgent", ""));
    q->goal = xstrdup(goal);
    q->session_id = xstrdup(json_str(s, "id", ""));
    q->user = xstrdup(json_str(s, "username", ""));
    q->idem_key = key ? xstrdup(key) : NULL;
    q->atp_session = xstrdup(*w->atp_session ? w->atp_session : w->session_id);
    q->request_id = xstrdup(w->call_id);
    q->role = w->role;
    q->uid = w->uid;
    q->owner = true;
    spawn_start(q, c, resumed, NULL);
}

void sess_resume(struct call *c, const struct caller *w)
{
    cleanup(json_putp) json_object *s = session_target(c, w, true);
    if (!s)
        return;
    struct args a = args_open(c->params);
    const char *input = args_str_or(&a, "input", 65536, NULL);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    const char *id = json_str(s, "id", "");
    const char *goal = !str_empty(input) ? input : json_str(s, "goal", "");
    struct proc *p = proc_find(json_int(s, "ownerPid", 0));
    int r = 0;
    if (str_eq(json_str(s, "status", ""), "archived")) {
        call_fail_data(c, ERR_CONFLICT, json_make("reason:s", "archived"), "session %s is archived",
                       id);
        return;
    }
    if (!p || proc_final(p)) {
        resume_anew(c, w, s, goal);
        return;
    }
    if (p->state == PS_PAUSED)
        r = session_resume_all(id);
    if (!r && proc_idle(p) && (!p->inputs || p->phase == PH_REST))
        r = life_goal(p, goal, NULL);
    else if (!r && !str_empty(input))
        r = proc_message(p, input, NULL, w->user, NULL);
    if (r)
        call_fail(c, r > 0 ? r : ERR_INTERNAL, "session %s: %s", id, err_text(r));
    else
        call_reply(c, json_make("ok:b pid:i", 1, p->pid));
}

/* --- session/delete: kill what runs, then rows, then files -------------------------------------
 */

struct deletion {
    struct call *call;
    char id[64], user[64];
    struct timer timer;
    int tries;
};

static void delete_rows(const char *id, const char *user)
{
    cleanup(json_putp) json_object *files = json_new_arr();
    sqlite3_stmt *q =
        db_query(DB_NORMAL, "SELECT id, agent_name FROM invocations WHERE session_id=?", "s", id);
    while (db_row(q))
        json_push(files, json_make("id:s agent:s", db_text(q, 0), db_text(q, 1)));
    db_end(q);
    db_begin(DB_FULL);
    (void)db_run(DB_FULL,
                 "DELETE FROM budgets WHERE node IN (SELECT 'pid:'||pid FROM invocations WHERE "
                 "session_id=?1) OR node='session:'||?1",
                 "s", id);
    (void)db_run(DB_FULL, "DELETE FROM sessions WHERE id=?", "s", id);
    if (db_commit(DB_FULL))
        return;
    for (size_t i = 0; i < json_object_array_length(files); i++) {
        json_object *f = json_object_array_get_idx(files, i);
        conv_remove(svc.root, user, json_str(f, "agent", ""), json_str(f, "id", ""));
    }
}

static unsigned live_in(const char *id, bool final_too)
{
    size_t pos = 0;
    unsigned n = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        n += str_eq(p->session_id, id) && (final_too || !proc_final(p));
    return n;
}

static void deletion_step(void *arg)
{
    struct deletion *d = arg;
    if (live_in(d->id, true) > 0 && d->tries++ < 1000) {
        timer_set(&d->timer, 10);
        return;
    }
    if (live_in(d->id, true) > 0) {
        call_fail(d->call, ERR_TIMEOUT, "its processes are still ending");
    } else {
        delete_rows(d->id, d->user);
        call_reply(d->call, json_make("deleted:s", d->id));
    }
    timer_done(&d->timer);
    free(d);
}

void sess_delete(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *id = args_str_or(&a, "session_id", 64, NULL);
    const char *other = args_str_or(&a, "id", 64, NULL);
    bool force = args_bool_or(&a, "force", false);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    id = str_empty(id) ? other : id;
    cleanup(json_putp) json_object *s = str_empty(id) ? NULL : session_load(id);
    const char *user = json_str(s, "username", "");
    if (!s) {
        call_reply(c, json_make("deleted:s", id ? id : ""));
        return;
    }
    if (!may_change(w, user)) {
        call_fail(c, ERR_PERM, "session %s is not yours", id);
        return;
    }
    if (live_in(id, false) > 0 && !force) {
        call_fail_data(c, ERR_CONFLICT, json_make("reason:s", "state"),
                       "%u of its processes still live", live_in(id, false));
        return;
    }
    struct proc *p;
    int n;
    for (size_t pos = 0; proc_each(&pos, &p);)
        if (str_eq(p->session_id, id) && !proc_final(p))
            (void)life_kill(p, "session_deleted", &n);
    struct deletion *d = xcalloc(1, sizeof *d);
    d->call = c;
    str_copy(d->id, sizeof d->id, id);
    str_copy(d->user, sizeof d->user, user);
    timer_init(&d->timer, svc.loop, deletion_step, d);
    deletion_step(d);
}

/* --- invocations -------------------------------------------------------------------------------
 */

#define INV_COLS                                                                                 \
    "SELECT id, agent_name, agent_version, username, pid, goal, session_id, spawned_at, "        \
    "ended_at, status, tokens_in+tokens_out, tool_calls_total, exit_reason, parent_pid, model, " \
    "cost_usd_micro, result FROM invocations "

static json_object *inv_of_row(sqlite3_stmt *q)
{
    json_object *o = json_make("id:s agentName:s agentVersion:s username:s pid:i goal:s "
                               "sessionId:s",
                               db_text(q, 0), db_text(q, 1), db_text(q, 2), db_text(q, 3),
                               db_int(q, 4), db_text(q, 5), db_text(q, 6));
    add_ts(o, "spawnedAt", db_int(q, 7));
    add_ts(o, "endedAt", db_int(q, 8));
    json_add_str(o, "status", db_text(q, 9));
    json_add_int(o, "tokensConsumed", db_int(q, 10));
    json_add_int(o, "toolCallsTotal", db_int(q, 11));
    if (!db_null(q, 12))
        json_add_str(o, "exitReason", db_text(q, 12));
    if (!db_null(q, 13))
        json_add_int(o, "parentPid", db_int(q, 13));
    json_add_str(o, "model", db_text(q, 14));
    json_add_num(o, "costUsd", (double)db_int(q, 15) / 1e6);
    if (!db_null(q, 16))
        json_add_str(o, "result", db_text(q, 16));
    return o;
}

void inv_list(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *named = args_str_or(&a, "username", 64, NULL);
    const char *agent = args_str_or(&a, "agent_name", 128, NULL);
    const char *session = args_str_or(&a, "session_id", 64, NULL);
    const char *before = args_str_or(&a, "before", 40, NULL);
    bool live = args_bool_or(&a, "live", true);
    int64_t limit = args_int_or(&a, "limit", 1, LIST_MAX, 200), until = INT64_MAX;
    const char *user = call_user(w, named);
    if (!args_bad(&a) && !str_empty(before) && !rfc3339_parse(before, &until))
        args_fail(&a, "before", "must be an RFC 3339 time");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!user) {
        call_fail(c, ERR_PERM, "invocations of %s are not yours", named);
        return;
    }
    json_object *out = json_new_arr();
    sqlite3_stmt *q =
        db_query(DB_NORMAL,
                 INV_COLS "WHERE username=?1 AND (?2 IS NULL OR agent_name=?2) AND (?3 IS "
                          "NULL OR session_id=?3) AND spawned_at<?4 AND (?5 OR ended_at IS "
                          "NOT NULL) ORDER BY spawned_at DESC, pid DESC LIMIT ?6",
                 "sssiii", user, str_empty(agent) ? NULL : agent,
                 str_empty(session) ? NULL : session, until, (int64_t)live, limit);
    while (db_row(q))
        json_push(out, inv_of_row(q));
    db_end(q);
    call_reply(c, out);
}

static json_object *inv_load(const char *id)
{
    sqlite3_stmt *q = db_query(DB_NORMAL, INV_COLS "WHERE id=?", "s", id);
    json_object *o = db_row(q) ? inv_of_row(q) : NULL;
    db_end(q);
    return o;
}

static json_object *conversation(json_object *inv, size_t offset, size_t limit, size_t *total)
{
    return conv_read(svc.root, json_str(inv, "username", ""), json_str(inv, "agentName", ""),
                     json_str(inv, "id", ""), offset, limit, total);
}

void inv_get(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *id = args_str(&a, "id", 64);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    json_object *o = inv_load(id);
    if (!o || !may_see(w, json_str(o, "username", ""))) {
        call_fail(c, o ? ERR_PERM : ERR_NOTFOUND,
                  o ? "invocation '%s' is not yours" : "Invocation '%s' not found", id);
        json_put(o);
        return;
    }
    size_t total = 0;
    json_put(conversation(o, 0, 0, &total));
    json_add(o, "conversation", conversation(o, total > 200 ? total - 200 : 0, 200, &total));
    json_add_int(o, "conversationTotal", (int64_t)total);
    call_reply(c, o);
}

void inv_conversation(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *id = args_str(&a, "id", 64);
    int64_t offset = args_int_or(&a, "offset", 0, INT64_MAX, 0);
    int64_t limit = args_int_or(&a, "limit", 1, LIST_MAX, 1000);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    cleanup(json_putp) json_object *o = inv_load(id);
    if (!o)
        call_reply(c, json_new_arr());
    else if (!may_see(w, json_str(o, "username", "")))
        call_fail(c, ERR_PERM, "invocation '%s' is not yours", id);
    else
        call_reply(c, conversation(o, (size_t)offset, (size_t)limit, NULL));
}
