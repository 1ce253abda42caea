/*
 * From a call to a running agent: step 1 (prep.c), then T1, the one commit that makes a spawn a
 * fact, then the machine of life.c. The caller's reply waits for the first report; a caller that
 * goes away loses its reply, not its agent. An idempotency key's row is written by T1 with the
 * reply that will be given, so a repeat finds the same spawn even over a restart of the kernel.
 */
#include "kernel/core/spawn.h"

#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "kernel/core/calls.h"

#define SPAWN_WAIT_MS (110 * 1000)
#define IDEM_MS       (24 * 3600 * 1000)
#define CHILD_DEPTH   8
#define CHILD_LIVE    16
#define GOAL_MAX      65536

/* A repeat of a request that is still being prepared. */
struct follower {
    struct follower *next;
    struct call *call;
    struct pending *of;
};

struct pending {
    struct call *call;
    struct follower *followers;
    spawned_fn then;
    void *arg;
    char *user, *key; /* idempotency key being worked on, NULL */
    struct pending *next;
};
static struct pending *pendings;

/* --- recent refusals -------------------------------------------------------------------------- */

#define ERRORS_MAX 128
#define ERROR_MS   (3600 * 1000)
static struct {
    char id[80], user[64], agent[128], why[400];
    int64_t at;
} errors[ERRORS_MAX];
static unsigned errors_at;

void spawn_error_note(const char *request_id, const char *user, const char *agent, const char *why)
{
    unsigned i = errors_at++ % ERRORS_MAX;
    str_copy(errors[i].id, sizeof errors[i].id, request_id ? request_id : "");
    str_copy(errors[i].user, sizeof errors[i].user, user);
    str_copy(errors[i].agent, sizeof errors[i].agent, agent);
    str_copy(errors[i].why, sizeof errors[i].why, why);
    errors[i].at = now_ms();
}

static bool error_live(unsigned i)
{
    return *errors[i].id && now_ms() - errors[i].at < ERROR_MS;
}

json_object *spawn_errors_list(const char *user, bool all)
{
    json_object *out = json_new_arr();
    for (unsigned i = 0; i < ERRORS_MAX; i++)
        if (error_live(i) && (all || str_eq(errors[i].user, user)))
            json_push_str(out, errors[i].id);
    return out;
}

json_object *spawn_error_get(const char *id)
{
    char ts[RFC3339_LEN];
    for (unsigned i = 0; i < ERRORS_MAX; i++)
        if (error_live(i) && str_eq(errors[i].id, id))
            return json_make("requestId:s at:s user:s agent:s error:s", id,
                             rfc3339(errors[i].at, ts), errors[i].user, errors[i].agent,
                             errors[i].why);
    return NULL;
}

/* --- quotas ----------------------------------------------------------------------------------- */

int64_t quota_of(json_object *policy, const char *name)
{
    json_object *v = json_get(json_obj(policy, "quota"), name);
    if (!v || json_object_is_type(v, json_type_string))
        return -1;
    return json_object_get_int64(v);
}

/* The idle agent that has rested longest, of a user or ("") of all. */
static struct proc *longest_idle(const char *user, const struct proc *but)
{
    size_t pos = 0;
    struct proc *p, *best = NULL;
    while (proc_each(&pos, &p))
        if (p != but && proc_hosted(p) && proc_idle(p) && !p->inputs && p->phase == PH_LIVE &&
            (!*user || str_eq(p->user, user)) && (!best || p->last_activity < best->last_activity))
            best = p;
    return best;
}

/* Host processes that count: those on their way to sleep or to their end do not. */
static unsigned counted(const char *user, const struct proc *but)
{
    size_t pos = 0;
    unsigned n = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        if (p != but && proc_hosted(p) && p->phase != PH_ENDING &&
            (p->inputs || !cause_is(p, "hibernate")) && (!*user || str_eq(p->user, user)))
            n++;
    return n;
}

int quota_agents(const char *user, int64_t quota, const struct proc *but, const char **limit)
{
    if (quota >= 0 && counted(user, but) >= quota) {
        struct proc *idle = longest_idle(user, but);
        *limit = "agents";
        if (!idle)
            return ERR_LIMIT;
        life_stop(idle, "hibernate", "hibernate");
    }
    if (counted("", but) >= (unsigned)svc.config->max_concurrent_agents) {
        struct proc *idle = longest_idle(user, but);
        *limit = "maxConcurrentAgents";
        if (!idle)
            return ERR_LIMIT;
        life_stop(idle, "hibernate", "hibernate");
    }
    return 0;
}

/* Sessions of a user that have a process which is not asleep. */
static int64_t sessions_open(const char *user)
{
    return db_int_of("SELECT count(DISTINCT i.session_id) FROM processes p JOIN invocations i ON "
                     "i.id=p.invocation_id WHERE i.username=? AND i.ended_at IS NULL AND "
                     "p.hibernated=0",
                     0, "s", user);
}

static int check_quotas(struct prep *p, bool new_session)
{
    const char *limit = "agents";
    int64_t q = quota_of(p->policy, "agents"), s = quota_of(p->policy, "sessions");
    const char *user = p->req->user;
    int r = 0;
    if (new_session && s >= 0 && sessions_open(user) >= s) {
        limit = "sessions";
        q = s;
        r = ERR_LIMIT;
    }
    if (!r)
        r = quota_agents(user, q, NULL, &limit);
    if (r) {
        p->err_data = json_make("limit:s", limit);
        snprintf(p->why, sizeof p->why, "limit reached: %s of %s (%lld)", limit, user,
                 (long long)(str_eq(limit, "maxConcurrentAgents")
                                 ? svc.config->max_concurrent_agents
                                 : q));
    }
    return r;
}

static int check_parent(struct prep *p)
{
    struct proc *parent = proc_find(p->req->parent_pid);
    size_t pos = 0;
    unsigned live = 0;
    struct proc *q;
    if (!parent || proc_final(parent)) {
        snprintf(p->why, sizeof p->why, "the parent has ended");
        return ERR_CONFLICT;
    }
    while (proc_each(&pos, &q))
        live += q->parent_pid == parent->pid && !proc_final(q);
    if (live >= CHILD_LIVE || proc_depth(parent) + 1 >= CHILD_DEPTH) {
        bool many = live >= CHILD_LIVE;
        p->err_data = json_make("limit:s", many ? "children" : "depth");
        snprintf(p->why, sizeof p->why, "limit reached: %s",
                 many ? "16 live children" : "8 generations of agents");
        return ERR_LIMIT;
    }
    return 0;
}

/* The session a spawn joins: "" for a new one. */
static int check_session(struct prep *p)
{
    const char *id = p->req->session_id;
    if (str_empty(id))
        return 0;
    sqlite3_stmt *q =
        db_query(DB_NORMAL, "SELECT username, status FROM sessions WHERE id=?", "s", id);
    int r = 0;
    if (!db_row(q) || !str_eq(db_text(q, 0), p->req->user)) {
        r = ERR_NOTFOUND;
        snprintf(p->why, sizeof p->why, "no session %.40s", id);
    } else if (str_eq(db_text(q, 1), "archived")) {
        r = ERR_CONFLICT;
        p->err_data = json_make("reason:s", "archived");
        snprintf(p->why, sizeof p->why, "session %.40s is archived", id);
    }
    db_end(q);
    return r;
}

/* --- T1 --------------------------------------------------------------------------------------- */

static char *first_chars(const char *s, size_t n)
{
    size_t i = 0;
    while (s[i] && n > 0) {
        i++;
        while (((unsigned char)s[i] & 0xc0) == 0x80)
            i++;
        n--;
    }
    return xstrndup(s, i);
}

static json_object *requested_of(const struct prep *p)
{
    const struct spawn_req *q = p->req;
    const struct manifest *m = p->manifest;
    json_object *crews = json_arr(p->policy, "crews");
    json_object *o = json_make("dir:s uid:i role:s", p->pkg.dir, json_int(p->policy, "uid", q->uid),
                               json_str(p->policy, "role", "user"));
    json_add(o, "crews", crews ? json_dup(crews) : json_new_arr());
    json_add_str(o, "systemPrompt", p->prompt ? p->prompt : "");
    json_add(o, "requested", json_dup(m->requested));
    json_add(o, "required", json_dup(m->required));
    json_add(o, "optional", json_dup(m->optional));
    if (q->additional)
        json_add(o, "additional", json_dup(q->additional));
    if (q->removed)
        json_add(o, "removed", json_dup(q->removed));
    if (q->caps)
        json_add(o, "capabilities", json_dup(q->caps));
    if (p->res.tool_limit)
        json_add(o, "toolLimit", json_dup(p->res.tool_limit));
    json_add(o, "secrets", json_dup(m->secrets));
    json_add_bool(o, "contextFixed", m->context_fixed);
    json_add_int(o, "modelWindow", p->window);
    json_add_int(o, "agentsQuota", quota_of(p->policy, "agents"));
    json_add_bool(o, "restoreOnCrash", m->restore_on_crash);
    json_add(o, "annotations", json_dup(p->res.annotations));
    return o;
}

static struct proc *make_proc(const struct prep *p)
{
    const struct spawn_req *q = p->req;
    char id[UUID_LEN];
    struct proc *n = xcalloc(1, sizeof *n);
    n->parent_pid = q->parent_pid;
    n->name = xstrdup(p->manifest->name);
    n->version = xstrdup(p->manifest->version);
    n->user = xstrdup(q->user);
    n->session_id = xstrdup(str_empty(q->session_id) ? uuid4(id) : q->session_id);
    n->invocation_id = xstrdup(uuid4(id));
    n->goal_id = xstrdup(uuid4(id));
    n->goal = xstrdup(p->goal);
    n->model = xstrdup(p->model);
    n->lineage = xstrdup(uuid4(id));
    n->atp_session = str_empty(q->atp_session) ? NULL : xstrdup(q->atp_session);
    n->one_shot = q->one_shot;
    n->keep_alive = q->keep_alive;
    n->state = PS_PENDING;
    n->inv = IV_RUNNING;
    n->before_pause = PS_RUNNING;
    n->requested = requested_of(p);
    n->grants = json_dup(p->grants.granted);
    n->denied = json_dup(p->grants.denied);
    n->resolved = json_dup(p->res.resolved);
    n->context_limit = p->window < svc.config->default_context_limit
                           ? p->window
                           : svc.config->default_context_limit;
    n->spawned_at = n->last_activity = now_ms();
    rnd_bytes(n->nonce, sizeof n->nonce);
    return n;
}

static void t1_session(const struct prep *p, const struct proc *n)
{
    const struct spawn_req *q = p->req;
    if (str_empty(q->session_id)) {
        cleanup(freep) char *title = first_chars(str_empty(q->title) ? n->goal : q->title, 60);
        cleanup(json_putp) json_object *who = json_new_arr();
        json_push_str(who, n->name);
        (void)db_run(DB_FULL,
                     "INSERT INTO sessions(id, title, goal, username, spawned_at, last_updated, "
                     "status, origin_agent, primary_agent, participants, owner_pid) "
                     "VALUES(?,?,?,?,?,?,'running',?,?,?,?)",
                     "ssssiissji", n->session_id, title, n->goal, n->user, n->spawned_at,
                     n->spawned_at, n->name, n->name, who, n->pid);
        return;
    }
    sqlite3_stmt *s =
        db_query(DB_FULL, "SELECT participants FROM sessions WHERE id=?", "s", n->session_id);
    cleanup(json_putp) json_object *who = db_row(s) ? db_json(s, 0) : NULL;
    db_end(s);
    if (!who)
        who = json_new_arr();
    if (!json_arr_has(who, n->name))
        json_push_str(who, n->name);
    (void)db_run(DB_FULL,
                 "UPDATE sessions SET participants=?, primary_agent=?, last_updated=? WHERE id=?",
                 "jsis", who, n->name, n->spawned_at, n->session_id);
    if (q->owner)
        (void)db_run(DB_FULL, "UPDATE sessions SET owner_pid=?, status='running' WHERE id=?", "is",
                     n->pid, n->session_id);
}

static int64_t budget_tokens(json_object *b)
{
    return b ? json_int(b, "tokens", 0) : 0;
}

static int64_t budget_usd(json_object *b)
{
    return b ? (int64_t)(json_num(b, "usd", 0) * 1e6) : 0;
}

static void t1_budget(const struct prep *p, const struct proc *n)
{
    static const char add[] = "INSERT INTO budgets(node, parent, tokens_limit, usd_limit) "
                              "VALUES(?,?,?,?) ON CONFLICT(node) DO UPDATE SET "
                              "parent=excluded.parent";
    static const char limit[] = "UPDATE budgets SET tokens_limit=?, usd_limit=? WHERE node=?";
    char user[80], session[64], pid[32], parent[64];
    snprintf(user, sizeof user, "user:%.64s", n->user);
    snprintf(session, sizeof session, "session:%.40s", n->session_id);
    snprintf(pid, sizeof pid, "pid:%lld", (long long)n->pid);
    int64_t tokens = quota_of(p->policy, "tokens");
    json_object *usd = json_get(json_obj(p->policy, "quota"), "usd");
    bool priced = usd && !json_object_is_type(usd, json_type_string);
    json_object *own = p->req->parent_pid ? p->req->budget : NULL;
    json_object *first = p->req->parent_pid ? NULL : p->req->budget;
    if (!own)
        own = p->manifest->budget;
    (void)db_run(DB_FULL, add, "ssII", user, NULL, (int64_t)0, (int64_t)0);
    (void)db_run(DB_FULL, limit, "IIs", tokens < 0 ? (int64_t)0 : tokens,
                 priced ? (int64_t)(json_object_get_double(usd) * 1e6) : (int64_t)0, user);
    (void)db_run(DB_FULL, add, "ssII", session, user, budget_tokens(first), budget_usd(first));
    if (p->req->parent_pid)
        snprintf(parent, sizeof parent, "pid:%lld", (long long)p->req->parent_pid);
    else
        str_copy(parent, sizeof parent, session);
    (void)db_run(DB_FULL, add, "ssII", pid, parent, budget_tokens(own), budget_usd(own));
}

static void t1_rows(const struct prep *p, struct proc *n)
{
    const struct spawn_req *q = p->req;
    n->pid = 0;
    sqlite3_stmt *s = db_query(DB_FULL, "SELECT v FROM meta WHERE k='next_pid'", "");
    int64_t next = 0;
    if (db_row(s) && parse_i64(db_text(s, 0), 100, (int64_t)1 << 53, &next))
        n->pid = next;
    db_end(s);
    (void)db_run(DB_FULL, "UPDATE meta SET v=CAST(? AS TEXT) WHERE k='next_pid'", "i", next + 1);
    t1_session(p, n);
    (void)db_run(DB_FULL,
                 "INSERT INTO invocations(id, session_id, pid, parent_pid, agent_name, "
                 "agent_version, username, goal, model, one_shot, spawned_at, status) "
                 "VALUES(?,?,?,?,?,?,?,?,?,?,?,'running')",
                 "ssiIsssssii", n->invocation_id, n->session_id, n->pid, n->parent_pid, n->name,
                 n->version, n->user, n->goal, n->model, (int64_t)n->one_shot, n->spawned_at);
    (void)db_run(DB_FULL,
                 "INSERT INTO processes(pid, invocation_id, boot_id, state, sig_nonce, lineage, "
                 "requested, grants, denied, resolved, goal_id, keep_alive, context_limit, "
                 "atp_session) VALUES(?,?,?,'pending',?,?,?,?,?,?,?,?,?,?)",
                 "issbsjjjjsiis", n->pid, n->invocation_id, K.boot_id, n->nonce, sizeof n->nonce,
                 n->lineage, n->requested, n->grants, n->denied, n->resolved, n->goal_id,
                 (int64_t)n->keep_alive, n->context_limit, n->atp_session);
    t1_budget(p, n);
    if (!str_empty(q->idem_key)) {
        cleanup(json_putp) json_object *reply = spawn_reply(n);
        (void)db_run(DB_FULL,
                     "INSERT OR REPLACE INTO requests(username, idem_key, at, reply) "
                     "VALUES(?,?,?,?)",
                     "ssij", n->user, q->idem_key, n->spawned_at, reply);
    }
}

static int t1(struct prep *p, struct proc **ret)
{
    struct proc *n = make_proc(p);
    db_begin(DB_FULL);
    t1_rows(p, n);
    int r = db_commit(DB_FULL);
    if (r) {
        proc_free(n);
        snprintf(p->why, sizeof p->why, "the spawn could not be recorded: %s",
                 r > 0 ? err_text(r) : strerror(-r));
        return r > 0 ? r : ERR_INTERNAL;
    }
    *ret = n;
    return 0;
}

static void announce(const struct proc *n, bool new_session)
{
    json_object *b = json_make("pid:i name:s goal:s sessionId:s invocationId:s", n->pid, n->name,
                               n->goal, n->session_id, n->invocation_id);
    if (n->parent_pid)
        json_add_int(b, "parentPid", n->parent_pid);
    pub("agent.spawned", b, n->user, n->atp_session, ROLE_NONE);
    pub("proc.start", json_make("pid:i name:s kind:s", n->pid, n->name, "agent"), n->user,
        n->atp_session, ROLE_NONE);
    pub("session.agent.attached",
        json_make("sessionId:s pid:i name:s", n->session_id, n->pid, n->name), n->user,
        n->atp_session, ROLE_NONE);
    if (new_session)
        pub_session(n->session_id, n->user, "running");
}

/* --- the whole -------------------------------------------------------------------------------- */

static void pending_free(struct pending *q)
{
    for (struct pending **at = &pendings; *at; at = &(*at)->next)
        if (*at == q) {
            *at = q->next;
            break;
        }
    free(q->user);
    free(q->key);
    free(q);
}

static void on_gone(void *arg)
{
    struct pending *q = arg;
    struct call *c = TAKE(q->call);
    call_end(c);
}

static void follower_gone(void *arg)
{
    struct follower *f = arg;
    struct call *c = f->call;
    for (struct follower **at = &f->of->followers; *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            break;
        }
    free(f);
    call_end(c);
}

static void follow(struct pending *q, struct call *c)
{
    struct follower *f = xcalloc(1, sizeof *f);
    f->call = c;
    f->of = q;
    f->next = q->followers;
    q->followers = f;
    call_on_gone(c, follower_gone, f);
}

/* They get what the first one gets. n: NULL if it failed. */
static void followers_end(struct follower *f, struct proc *n, int err, const char *why)
{
    while (f) {
        struct follower *next = f->next;
        call_on_gone(f->call, NULL, NULL);
        if (n)
            waiter_park(n, f->call, WAITER_SPAWN, SPAWN_WAIT_MS);
        else
            call_fail(f->call, err, "%s", why ? why : err_text(err));
        free(f);
        f = next;
    }
}

static int commit_spawn(struct prep *p, struct proc **ret)
{
    bool fresh = str_empty(p->req->session_id);
    if (K.stopping) {
        snprintf(p->why, sizeof p->why, "the daemon is stopping");
        return ERR_UNAVAIL;
    }
    int r = check_session(p);
    if (!r && p->req->parent_pid)
        r = check_parent(p);
    if (!r)
        r = check_quotas(p, fresh);
    if (!r)
        r = t1(p, ret);
    return r;
}

static void on_prepared(struct prep *p, void *arg)
{
    struct pending *q = arg;
    struct proc *n = NULL;
    bool fresh = str_empty(p->req->session_id);
    int r = p->err ? p->err : commit_spawn(p, &n);
    struct call *c = TAKE(q->call);
    spawned_fn then = q->then;
    void *targ = q->arg;
    struct follower *more = TAKE(q->followers);
    pending_free(q);
    if (c)
        call_on_gone(c, NULL, NULL);
    if (r) {
        spawn_error_note(p->req->request_id, p->req->user, p->req->agent, p->why);
        log_warn("spawn of %s for %s: %s", p->req->agent, p->req->user, p->why);
        if (then)
            then(NULL, r, p->why, c, targ);
        else if (c)
            call_fail_data(c, r, json_object_get(p->err_data), "%s", p->why);
        followers_end(more, NULL, r, p->why);
    } else {
        proc_add(n);
        announce(n, fresh);
        if (then)
            then(n, 0, NULL, c, targ);
        else if (c)
            waiter_park(n, c, WAITER_SPAWN, SPAWN_WAIT_MS);
        followers_end(more, n, 0, NULL);
        life_event(n, EV_GO, &(struct life_info){ 0 });
    }
    prep_free(p);
}

void spawn_run(struct spawn_req *req, struct call *c, spawned_fn then, void *arg)
{
    struct pending *q = xcalloc(1, sizeof *q);
    q->call = c;
    q->then = then;
    q->arg = arg;
    q->next = pendings;
    pendings = q;
    if (!str_empty(req->idem_key)) {
        q->user = xstrdup(req->user);
        q->key = xstrdup(req->idem_key);
    }
    if (c)
        call_on_gone(c, on_gone, q);
    prep_start(req, on_prepared, q);
}

/* A repeat of a request: the first one's reply, at once or when it is there. True if c was taken.
 */
static bool idem_answer(const char *user, const char *key, struct call *c)
{
    for (struct pending *q = pendings; q; q = q->next)
        if (q->key && str_eq(q->key, key) && str_eq(q->user, user)) {
            follow(q, c);
            return true;
        }
    (void)db_run(DB_NORMAL, "DELETE FROM requests WHERE at<?", "i", now_ms() - IDEM_MS);
    sqlite3_stmt *s = db_query(
        DB_NORMAL, "SELECT reply FROM requests WHERE username=? AND idem_key=?", "ss", user, key);
    cleanup(json_putp) json_object *reply = db_row(s) ? db_json(s, 0) : NULL;
    db_end(s);
    if (!reply)
        return false;
    struct proc *p = proc_find(json_int(reply, "pid", 0));
    if (p && p->state == PS_PENDING) {
        waiter_park(p, c, WAITER_SPAWN, SPAWN_WAIT_MS);
        return true;
    }
    bool loaded;
    p = proc_get(json_int(reply, "pid", 0), &loaded);
    if (p && p->state == PS_CRASHED && p->exit_reason && str_starts(p->exit_reason, "spawn_failed"))
        call_fail(c, ERR_FAILED, "%s", p->exit_reason);
    else
        call_reply(c, TAKE(reply));
    proc_release(p, p && loaded);
    return true;
}

void spawn_start(struct spawn_req *req, struct call *c, spawned_fn then, void *arg)
{
    if (!str_empty(req->idem_key) && idem_answer(req->user, req->idem_key, c))
        spawn_req_free(req);
    else
        spawn_run(req, c, then, arg);
}

static char *dup_opt(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static json_object *dup_json(json_object *o)
{
    return o ? json_dup(o) : NULL;
}

static void read_body(struct args *a, struct spawn_req *q)
{
    const char *agent = args_str_or(a, "agent", 128, NULL);
    const char *name = args_str_or(a, "name", 128, NULL);
    const char *goal = args_str_or(a, "goal", GOAL_MAX, NULL);
    const char *task = args_str_or(a, "task", GOAL_MAX, NULL);
    q->agent = dup_opt(agent ? agent : name);
    q->goal = dup_opt(goal ? goal : task);
    q->session_id = dup_opt(args_str_or(a, "session_id", 64, NULL));
    q->model = dup_opt(args_str_or(a, "model", 128, NULL));
    q->crew = dup_opt(args_str_or(a, "crew", 64, NULL));
    q->title = dup_opt(args_str_or(a, "title", 4096, NULL));
    q->idem_key = dup_opt(args_str_or(a, "idempotency_key", 64, NULL));
    q->caps = dup_json(args_strs_or(a, "capabilities", 128));
    q->vars = dup_json(args_obj_or(a, "vars"));
    q->budget = dup_json(args_obj_or(a, "budget"));
    q->one_shot = args_bool_or(a, "oneShot", false);
    q->keep_alive = args_bool_or(a, "keepAlive", false);
    struct args t = args_open(args_obj_or(a, "tools"));
    q->additional = dup_json(args_strs_or(&t, "additional", 128));
    q->removed = dup_json(args_strs_or(&t, "denied", 128));
    if (args_bad(&t))
        args_fail(a, "tools", t.why);
    char base[64], version[64];
    if (!args_bad(a) &&
        (!q->agent || !package_split(q->agent, base, sizeof base, version, sizeof version)))
        args_fail(a, "agent", q->agent ? "is not the name of an agent" : "missing");
}

static void read_caller(const struct caller *w, struct spawn_req *q)
{
    q->user = xstrdup(w->user);
    q->role = w->role;
    q->uid = w->uid;
    q->crews = w->crews ? json_dup(w->crews) : json_new_arr();
    q->request_id = xstrdup(w->call_id);
    q->atp_session = xstrdup(*w->atp_session          ? w->atp_session
                             : w->kind == CALLER_USER ? w->session_id
                                                      : "");
}

void sys_proc_spawn(struct call *c, const struct caller *w)
{
    struct spawn_req *q = xcalloc(1, sizeof *q);
    struct args a = args_open(c->params);
    read_body(&a, q);
    read_caller(w, q);
    if (w->kind == CALLER_AGENT) { /* whatever it asks for, it is a child */
        struct proc *p = proc_find(w->pid);
        q->parent_pid = w->pid;
        free(q->session_id);
        q->session_id = p ? xstrdup(p->session_id) : NULL;
    }
    if (args_bad(&a)) {
        call_bad_args(c, &a);
    } else if (!*q->user) {
        call_fail(c, ERR_PERM, "an agent needs a user");
    } else if (w->kind == CALLER_USER && w->role < ROLE_USER) {
        call_fail(c, ERR_PERM, "role %s may not start agents", role_name(w->role));
    } else if (K.stopping) {
        call_fail(c, ERR_UNAVAIL, "the daemon is stopping");
    } else {
        spawn_start(q, c, NULL, NULL);
        return;
    }
    spawn_req_free(q);
}
