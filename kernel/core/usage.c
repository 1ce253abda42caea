/*
 * Accounting (kernel page, section 15). A budget is a tree: pid → parent pid … → session → user.
 * reserve checks the whole path in one transaction before a provider call, record books what it
 * used; a call_id counts once. The user's node is a rolling day, summed from the usage rows.
 */
#include "common/base/clock.h"
#include "kernel/core/calls.h"

#define DAY_MS         (24LL * 3600 * 1000)
#define PATH_MAX_NODES 24

struct node {
    char name[80];
    int64_t tokens_limit, usd_limit; /* -1: none */
    int64_t tokens, usd, tokens_reserved, usd_reserved;
};

static bool node_load(const char *name, struct node *n, char *parent, size_t size)
{
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT parent, tokens_limit, usd_limit, tokens, usd, "
                               "tokens_reserved, usd_reserved FROM budgets WHERE node=?",
                               "s", name);
    bool found = db_row(q);
    if (found) {
        str_copy(n->name, sizeof n->name, name);
        str_copy(parent, size, db_null(q, 0) ? "" : db_text(q, 0));
        n->tokens_limit = db_null(q, 1) ? -1 : db_int(q, 1);
        n->usd_limit = db_null(q, 2) ? -1 : db_int(q, 2);
        n->tokens = db_int(q, 3);
        n->usd = db_int(q, 4);
        n->tokens_reserved = db_int(q, 5);
        n->usd_reserved = db_int(q, 6);
    }
    db_end(q);
    return found;
}

static void day_of(struct node *n, const char *user)
{
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT coalesce(sum(tokens_in+tokens_out),0), "
                               "coalesce(sum(usd_micro),0) FROM usage WHERE username=? AND at>?",
                               "si", user, now_ms() - DAY_MS);
    if (db_row(q)) {
        n->tokens = db_int(q, 0);
        n->usd = db_int(q, 1);
    }
    db_end(q);
}

/* From a leaf up to its user. */
static size_t path_of(const char *leaf, struct node *path)
{
    char name[80], parent[80];
    size_t n = 0;
    str_copy(name, sizeof name, leaf);
    while (*name && n < PATH_MAX_NODES && node_load(name, &path[n], parent, sizeof parent)) {
        if (str_starts(name, "user:"))
            day_of(&path[n], name + strlen("user:"));
        n++;
        str_copy(name, sizeof name, parent);
    }
    return n;
}

static void leaf_of(const char *user, int64_t pid, char *out, size_t size)
{
    if (pid > 0)
        snprintf(out, size, "pid:%lld", (long long)pid);
    else
        snprintf(out, size, "user:%.64s", user);
}

static void change_path(enum db_conn c, const char *leaf, const char *sql, int64_t a, int64_t b)
{
    struct node path[PATH_MAX_NODES];
    size_t n = path_of(leaf, path);
    for (size_t i = 0; i < n; i++)
        (void)db_run(c, sql, "iis", a, b, path[i].name);
}

static const char add_reserved[] = "UPDATE budgets SET tokens_reserved=max(0, tokens_reserved+?), "
                                   "usd_reserved=max(0, usd_reserved+?) WHERE node=?";
static const char add_spent[] = "UPDATE budgets SET tokens=tokens+?, usd=usd+? WHERE node=?";

/* Gives a reservation back, inside the open transaction. */
static void release(const char *call_id)
{
    char node[80] = "";
    int64_t tokens = 0, usd = 0;
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT node, tokens, coalesce(usd_micro,0) FROM reservations "
                               "WHERE call_id=?",
                               "s", call_id);
    if (db_row(q)) {
        str_copy(node, sizeof node, db_text(q, 0));
        tokens = db_int(q, 1);
        usd = db_int(q, 2);
    }
    db_end(q);
    if (!*node)
        return;
    change_path(DB_NORMAL, node, add_reserved, -tokens, -usd);
    (void)db_run(DB_NORMAL, "DELETE FROM reservations WHERE call_id=?", "s", call_id);
}

static void release_expired(void)
{
    char ids[32][140];
    size_t n = 0;
    sqlite3_stmt *q = db_query(
        DB_NORMAL, "SELECT call_id FROM reservations WHERE expires_at<? LIMIT 32", "i", now_ms());
    while (n < N_ELEMS(ids) && db_row(q))
        str_copy(ids[n++], sizeof ids[0], db_text(q, 0));
    db_end(q);
    for (size_t i = 0; i < n; i++)
        release(ids[i]);
}

/* The node that does not allow this much more; NULL: all do. *wait: only reservations are in the
 * way. */
static const struct node *over(const struct node *path, size_t n, int64_t tokens, int64_t usd,
                               bool priced, const char **limit, bool *wait)
{
    for (size_t i = 0; i < n; i++) {
        const struct node *k = &path[i];
        if (k->tokens_limit >= 0 && k->tokens + k->tokens_reserved + tokens > k->tokens_limit) {
            *limit = "tokens";
            *wait = k->tokens + tokens <= k->tokens_limit;
            return k;
        }
        if (k->usd_limit >= 0 && !priced) {
            *limit = "unpriced";
            *wait = false;
            return k;
        }
        if (k->usd_limit >= 0 && k->usd + k->usd_reserved + usd > k->usd_limit) {
            *limit = "usd";
            *wait = k->usd + usd <= k->usd_limit;
            return k;
        }
    }
    return NULL;
}

static void ensure_user(const char *user)
{
    char name[80];
    snprintf(name, sizeof name, "user:%.64s", user);
    (void)db_run(DB_NORMAL, "INSERT OR IGNORE INTO budgets(node) VALUES(?)", "s", name);
}

struct use {
    const char *call_id, *user;
    int64_t pid;
    char leaf[80];
};

static void read_use(struct args *a, struct use *u)
{
    u->call_id = args_str(a, "call_id", 128);
    u->user = args_str_or(a, "username", 64, "");
    u->pid = args_int_or(a, "pid", 0, (int64_t)1 << 53, 0);
    if (!args_bad(a))
        leaf_of(u->user, u->pid, u->leaf, sizeof u->leaf);
}

void usage_reserve(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    struct use u = { 0 };
    struct node path[PATH_MAX_NODES];
    const char *limit = "";
    bool wait = false;
    (void)w;
    read_use(&a, &u);
    int64_t tokens = args_int_or(&a, "tokens", 0, INT64_MAX / 4, 0);
    bool priced = json_get(c->params, "cost_usd_micro");
    int64_t usd = args_int_or(&a, "cost_usd_micro", 0, INT64_MAX / 4, 0);
    int64_t timeout = args_int_or(&a, "timeout_sec", 0, 24 * 3600, 600);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    db_begin(DB_NORMAL);
    release_expired();
    release(u.call_id);
    ensure_user(u.user);
    size_t n = path_of(u.leaf, path);
    const struct node *bad = over(path, n, tokens, usd, priced, &limit, &wait);
    if (bad) {
        db_rollback(DB_NORMAL);
        json_object *d = json_make("limit:s node:s scope:s", limit, bad->name, "user");
        if (wait)
            json_add_int(d, "retry_after_ms", 1000);
        call_fail_data(c, ERR_LIMIT, d, "%s of %s used up", limit, bad->name);
        return;
    }
    change_path(DB_NORMAL, u.leaf, add_reserved, tokens, usd);
    (void)db_run(DB_NORMAL,
                 "INSERT INTO reservations(call_id, node, tokens, usd_micro, expires_at) "
                 "VALUES(?,?,?,?,?)",
                 "ssiii", u.call_id, u.leaf, tokens, usd, now_ms() + (timeout + 60) * 1000);
    if (db_commit(DB_NORMAL))
        call_fail(c, ERR_INTERNAL, "the reservation could not be recorded");
    else
        call_reply(c, json_make("ok:b weight:i", 1, (int64_t)1));
}

static json_object *detail_of(json_object *params)
{
    static const char *const keys[] = { "cache_read", "cache_write", "reasoning", "units" };
    json_object *d = json_new();
    for (size_t i = 0; i < N_ELEMS(keys); i++) {
        json_object *v = json_get(params, keys[i]);
        if (v)
            json_add(d, keys[i], json_dup(v));
    }
    return d;
}

/* Counters of the process and its session, in the table and in the rows. */
static void count(const struct use *u, const char *session, int64_t in, int64_t out, int64_t usd)
{
    struct proc *p = proc_find(u->pid);
    if (p) {
        p->tokens_in += in;
        p->tokens_out += out;
        p->cost += usd;
    }
    if (u->pid <= 0)
        return;
    (void)db_run(DB_NORMAL,
                 "UPDATE invocations SET tokens_in=tokens_in+?, tokens_out=tokens_out+?, "
                 "cost_usd_micro=cost_usd_micro+? WHERE pid=?",
                 "iiii", in, out, usd, u->pid);
    (void)db_run(DB_NORMAL, "UPDATE sessions SET tokens_total=tokens_total+? WHERE id=?", "is",
                 in + out, session);
}

void usage_record(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    struct use u = { 0 };
    char session[64] = "";
    (void)w;
    read_use(&a, &u);
    const char *provider = args_str_or(&a, "provider", 128, "");
    const char *model = args_str_or(&a, "model", 256, "");
    const char *modality = args_str_or(&a, "modality", 32, "text");
    int64_t in = args_int_or(&a, "tokens_in", 0, INT64_MAX / 4, 0);
    int64_t out = args_int_or(&a, "tokens_out", 0, INT64_MAX / 4, 0);
    int64_t usd = args_int_or(&a, "cost_usd_micro", 0, INT64_MAX / 4, 0);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    sqlite3_stmt *q =
        db_query(DB_NORMAL, "SELECT session_id, username FROM invocations WHERE pid=?", "i", u.pid);
    char user[80];
    str_copy(user, sizeof user, u.user);
    if (db_row(q)) {
        str_copy(session, sizeof session, db_text(q, 0));
        str_copy(user, sizeof user, db_text(q, 1));
    }
    db_end(q);
    cleanup(json_putp) json_object *detail = detail_of(c->params);
    db_begin(DB_NORMAL);
    release(u.call_id);
    (void)db_run(DB_NORMAL,
                 "INSERT OR IGNORE INTO usage(at, username, session_id, pid, provider, model, "
                 "modality, tokens_in, tokens_out, detail, usd_micro, call_id) "
                 "VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
                 "ississsiijis", now_ms(), user, *session ? session : NULL, u.pid, provider, model,
                 modality, in, out, detail, usd, u.call_id);
    if (db_changed(DB_NORMAL) > 0) {
        change_path(DB_NORMAL, u.leaf, add_spent, in + out, usd);
        count(&u, session, in, out, usd);
    }
    if (db_commit(DB_NORMAL))
        call_fail(c, ERR_INTERNAL, "the usage could not be recorded");
    else
        call_reply(c, json_make("ok:b", 1));
}

static int64_t left(const struct proc *p, int64_t *limit)
{
    struct node path[PATH_MAX_NODES];
    char leaf[80];
    int64_t best = -1;
    leaf_of(p->user, p->pid, leaf, sizeof leaf);
    size_t n = path_of(leaf, path);
    for (size_t i = 0; i < n; i++) {
        if (path[i].tokens_limit < 0)
            continue;
        int64_t l = path[i].tokens_limit - path[i].tokens;
        if (l < 0)
            l = 0;
        if (best < 0 || l < best) {
            best = l;
            *limit = path[i].tokens_limit;
        }
    }
    return best;
}

json_object *usage_left(const struct proc *p)
{
    int64_t limit = 0, l = left(p, &limit);
    return l < 0 ? NULL : json_object_new_int64(l);
}

bool usage_low(const struct proc *p)
{
    int64_t limit = 0, l = left(p, &limit);
    return l >= 0 && l * 20 < limit;
}
