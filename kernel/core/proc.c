/* The table in memory, rows from the database, and what clients see of a process. */
#include "common/base/b64.h"
#include "common/base/clock.h"
#include "kernel/core/life.h"

#define NAME(id, name) name,
const char *const pstate_names[PS_COUNT] = { PSTATES(NAME) };
const char *const wait_names[WO_COUNT] = { WAITS(NAME) };
const char *const inv_names[IV_COUNT] = { INV_STATES(NAME) };
const char *const sess_names[SS_COUNT] = { SESS_STATES(NAME) };
const char *const phase_names[PH_COUNT] = { PHASES(NAME) };
#undef NAME

struct kernel K;

int name_index(const char *const *names, int n, const char *s)
{
    for (int i = 0; i < n; i++)
        if (str_eq(names[i], s))
            return i;
    return -1;
}

static const char *pid_key(int64_t pid, char buf[24])
{
    snprintf(buf, 24, "%lld", (long long)pid);
    return buf;
}

struct proc *proc_find(int64_t pid)
{
    char k[24];
    return map_get(&K.procs, pid_key(pid, k));
}

struct proc *proc_by_key(const char *key)
{
    return map_get(&K.keys, key);
}

void proc_add(struct proc *p)
{
    char k[24];
    map_put(&K.procs, pid_key(p->pid, k), p);
    proc_make_key(p);
    life_init(p);
}

void proc_drop(struct proc *p)
{
    char k[24];
    map_del(&K.procs, pid_key(p->pid, k));
    if (*p->sig_key)
        map_del(&K.keys, p->sig_key);
    life_done(p);
    proc_free(p);
}

bool proc_each(size_t *pos, struct proc **p)
{
    const char *key;
    void *v;
    if (!map_each(&K.procs, pos, &key, &v))
        return false;
    *p = v;
    return true;
}

bool proc_final(const struct proc *p)
{
    return p->state == PS_STOPPED || p->state == PS_CRASHED;
}

bool proc_idle(const struct proc *p)
{
    return p->state == PS_WAITING && p->inv == IV_IDLE;
}

bool proc_hosted(const struct proc *p)
{
    return p->phase != PH_REST && p->phase != PH_GONE;
}

unsigned proc_count(const char *user, const struct proc *but)
{
    size_t pos = 0;
    unsigned n = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        if (p != but && proc_hosted(p) && (!*user || str_eq(p->user, user)))
            n++;
    return n;
}

static int64_t parent_of(int64_t pid)
{
    struct proc *p = proc_find(pid);
    return p ? p->parent_pid
             : db_int_of("SELECT coalesce(parent_pid,0) FROM invocations WHERE pid=?", 0, "i", pid);
}

bool proc_descends(const struct proc *p, int64_t ancestor)
{
    int64_t at = p->parent_pid;
    for (int i = 0; at && i < 64; i++) {
        if (at == ancestor)
            return true;
        at = parent_of(at);
    }
    return false;
}

int proc_depth(const struct proc *p)
{
    int n = 0;
    for (int64_t at = p->parent_pid; at && n < 64; n++)
        at = parent_of(at);
    return n;
}

void proc_make_key(struct proc *p)
{
    char text[64];
    uint8_t sum[32], msg[64];
    if (*p->sig_key)
        map_del(&K.keys, p->sig_key);
    int n = snprintf(text, sizeof text, "sig|%lld", (long long)p->pid);
    memcpy(msg, text, (size_t)n);
    memcpy(msg + n, p->nonce, sizeof p->nonce);
    hmac_sum(K.kern, msg, (size_t)n + sizeof p->nonce, sum);
    b64url_encode(sum, sizeof sum, p->sig_key);
    map_put(&K.keys, p->sig_key, p);
}

static char *dup_or_null(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static json_object *arr_or_new(json_object *o)
{
    return o ? o : json_new_arr();
}

static void load_text(struct proc *p, sqlite3_stmt *q)
{
    p->name = xstrdup(db_text(q, 1));
    p->version = xstrdup(db_text(q, 2));
    p->user = xstrdup(db_text(q, 3));
    p->session_id = xstrdup(db_text(q, 4));
    p->invocation_id = xstrdup(db_text(q, 5));
    p->goal = xstrdup(db_text(q, 6));
    p->model = xstrdup(db_text(q, 7));
    p->lineage = xstrdup(db_text(q, 8));
    p->atp_session = dup_or_null(db_text(q, 9));
    p->goal_id = dup_or_null(db_text(q, 10));
    p->token_id = dup_or_null(db_text(q, 11));
    p->cause = dup_or_null(db_text(q, 12));
    p->exit_reason = dup_or_null(db_text(q, 13));
    p->requested = db_json(q, 14);
    p->grants = arr_or_new(db_json(q, 15));
    p->denied = arr_or_new(db_json(q, 16));
    p->resolved = db_json(q, 17);
}

/* A clock that was put back makes none of them later than now. */
static void load_restarts(struct proc *p, sqlite3_stmt *q)
{
    cleanup(json_putp) json_object *log = db_json(q, 41);
    int64_t now = now_ms();
    size_t n = log ? json_object_array_length(log) : 0;
    for (size_t i = 0; i < n && i < N_ELEMS(p->restart_at); i++) {
        int64_t at = json_object_get_int64(json_object_array_get_idx(log, i));
        p->restart_at[p->n_restart_at++] = at < now ? at : now;
    }
}

static void load_numbers(struct proc *p, sqlite3_stmt *q)
{
    p->parent_pid = db_int(q, 18);
    p->one_shot = db_int(q, 19);
    p->keep_alive = db_int(q, 20);
    p->frozen = db_int(q, 21);
    p->hibernated = db_int(q, 22);
    p->cleanup = db_int(q, 23);
    p->state = (enum pstate)name_index(pstate_names, PS_COUNT, db_text(q, 24));
    int w = name_index(wait_names, WO_COUNT, db_text(q, 25));
    p->waiting_on = w < 0 ? WO_NONE : (enum wait_on)w;
    p->inv = (enum inv_state)name_index(inv_names, IV_COUNT, db_text(q, 26));
    p->host_pid = (pid_t)db_int(q, 27);
    p->host_start = (uint64_t)db_int(q, 28);
    p->token_exp = db_int(q, 29);
    p->context_limit = db_int(q, 30);
    p->spawned_at = db_int(q, 31);
    p->ended_at = db_int(q, 32);
    p->restarts = db_int(q, 33);
    p->tool_calls = db_int(q, 34);
    p->tokens_in = db_int(q, 35);
    p->tokens_out = db_int(q, 36);
    p->cost = db_int(q, 37);
    p->exit_code = (int)db_int(q, 38);
    p->exit_signal = (int)db_int(q, 39);
    if (sqlite3_column_bytes(q, 40) == (int)sizeof p->nonce)
        memcpy(p->nonce, sqlite3_column_blob(q, 40), sizeof p->nonce);
    load_restarts(p, q);
    p->before_pause = PS_RUNNING;
    p->last_activity = p->spawned_at;
}

struct proc *proc_load(int64_t pid)
{
    sqlite3_stmt *q = db_query(
        DB_NORMAL,
        "SELECT p.pid, i.agent_name, i.agent_version, i.username, i.session_id, i.id, i.goal,"
        " i.model, p.lineage, p.atp_session, p.goal_id, p.token_id, p.kill_cause, i.exit_reason,"
        " p.requested, p.grants, p.denied, p.resolved, coalesce(i.parent_pid,0), i.one_shot,"
        " p.keep_alive, p.frozen, p.hibernated, p.cleanup, p.state, p.waiting_on, i.status,"
        " p.host_pid, p.host_start, p.token_exp, p.context_limit, i.spawned_at, i.ended_at,"
        " i.restarts, i.tool_calls_total, i.tokens_in, i.tokens_out, i.cost_usd_micro,"
        " p.exit_code, p.exit_signal, p.sig_nonce, p.restart_log"
        " FROM processes p JOIN invocations i ON i.id=p.invocation_id WHERE p.pid=?",
        "i", pid);
    struct proc *p = NULL;
    if (db_row(q)) {
        p = xcalloc(1, sizeof *p);
        p->pid = pid;
        load_text(p, q);
        load_numbers(p, q);
        p->phase = proc_final(p) ? PH_GONE : PH_REST;
    }
    db_end(q);
    return p;
}

void proc_free(struct proc *p)
{
    if (!p)
        return;
    if (p->token)
        explicit_bzero(p->token, strlen(p->token));
    explicit_bzero(p->sig_key, sizeof p->sig_key);
    char *texts[] = { p->name,     p->version, p->user,    p->session_id,  p->invocation_id,
                      p->goal,     p->model,   p->lineage, p->atp_session, p->goal_id,
                      p->token_id, p->cause,   p->token,   p->exit_reason };
    for (size_t i = 0; i < N_ELEMS(texts); i++)
        free(texts[i]);
    input_drop_all(p);
    json_put(p->requested);
    json_put(p->grants);
    json_put(p->denied);
    json_put(p->resolved);
    json_put(p->degraded);
    free(p);
}

struct proc *proc_get(int64_t pid, bool *loaded)
{
    struct proc *p = proc_find(pid);
    *loaded = !p;
    return p ? p : proc_load(pid);
}

void proc_release(struct proc *p, bool loaded)
{
    if (loaded)
        proc_free(p);
}

static void add_time(json_object *o, const char *key, int64_t ms)
{
    char ts[RFC3339_LEN];
    json_add_str(o, key, ms ? rfc3339(ms, ts) : NULL);
}

json_object *proc_row(const struct proc *p)
{
    json_object *o = json_make(
        "pid:i name:s status:s goal:s kind:s user:s sessionId:s session_id:s invocationId:s",
        p->pid, p->name, pstate_names[p->state], p->goal, "agent", p->user, p->session_id,
        p->session_id, p->invocation_id);
    add_time(o, "spawnedAt", p->spawned_at);
    json_add_int(o, "tokensConsumed", p->tokens_in + p->tokens_out);
    json_add(o, "parent", p->parent_pid ? json_object_new_int64(p->parent_pid) : NULL);
    return o;
}

static void add_tree(json_object *o, const struct proc *p)
{
    json_object *children = json_new_arr(), *hosts = json_new_arr();
    size_t pos = 0;
    struct proc *q;
    while (proc_each(&pos, &q))
        if (q->parent_pid == p->pid)
            json_push(children, proc_row(q));
    if (proc_hosted(p) && p->host_pid)
        json_push(hosts,
                  json_make("hostPid:i name:s rssKiB:i cpuMs:i", (int64_t)p->host_pid, "avix-agent",
                            host_rss_kib(p->host_pid), (int64_t)host_cpu_ms(p->host_pid)));
    json_add(o, "children", children);
    json_add(o, "hostProcesses", hosts);
}

json_object *proc_detail(const struct proc *p, bool tree)
{
    bool host = proc_hosted(p) && p->host_pid;
    json_object *o = proc_row(p);
    json_add_str(o, "model", p->model);
    json_add_str(o, "waitingOn", wait_names[p->waiting_on]);
    json_add_bool(o, "idle", proc_idle(p));
    json_add_int(o, "contextUsed", p->context_used);
    json_add_int(o, "contextLimit", p->context_limit);
    json_add_int(o, "toolCallsTotal", p->tool_calls);
    json_add(o, "granted", json_dup(p->grants));
    json_add(o, "denied", json_dup(p->denied));
    json_add_int(o, "rssKiB", host ? host_rss_kib(p->host_pid) : 0);
    json_add_int(o, "cpuMs", host ? (int64_t)host_cpu_ms(p->host_pid) : 0);
    json_add_int(o, "pendingHil", 0);
    json_add_bool(o, "hibernated", p->hibernated);
    json_add_int(o, "restarts", p->restarts);
    json_add(o, "hostPid", host ? json_object_new_int64(p->host_pid) : NULL);
    json_add_bool(o, "frozen", p->frozen);
    json_add_str(o, "exitReason", p->exit_reason);
    if (tree)
        add_tree(o, p);
    return o;
}

int64_t args_pid(struct args *a)
{
    static const char *const keys[] = { "pid", "id", "target" };
    for (size_t i = 0; i < N_ELEMS(keys); i++) {
        json_object *v = args_any_or(a, keys[i]);
        int64_t pid = 0;
        if (!v)
            continue;
        if (json_object_is_type(v, json_type_int) && json_object_get_int64(v) > 0)
            return json_object_get_int64(v);
        if (json_object_is_type(v, json_type_string) &&
            parse_i64(json_object_get_string(v), 1, (int64_t)1 << 53, &pid))
            return pid;
        args_fail(a, keys[i], "must be a process id");
        return 0;
    }
    args_fail(a, "pid", "missing");
    return 0;
}
