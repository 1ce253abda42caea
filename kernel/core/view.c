/*
 * The kernel's part of /proc and /kernel, made on each read (kernel/proc/view, called by memfs,
 * which has checked the path's form). What a reader may see follows the ownership rule.
 */
#include "common/base/clock.h"
#include "kernel/core/calls.h"
#include "kernel/core/resolve.h"
#include "kernel/core/spawn.h"

#define PARTS 6

/* The reader, as memfs passes on its own _caller. */
static void reader_of(json_object *o, struct caller *w)
{
    cleanup(json_putp) json_object *wrap = json_new();
    if (o)
        json_add(wrap, "_caller", json_object_get(o));
    if (!o || !caller_parse(wrap, w))
        *w = (struct caller){ .kind = CALLER_USER, .user = "", .role = ROLE_GUEST };
}

static bool sees(const struct caller *w, const char *owner)
{
    return caller_is_unit(w, UNIT_KERNEL) || (w->kind != CALLER_SERVICE && may_see(w, owner));
}

static json_object *ts(int64_t ms)
{
    char t[RFC3339_LEN];
    return ms ? json_object_new_string(rfc3339(ms, t)) : NULL;
}

static json_object *status_yaml(const struct proc *p)
{
    bool host = proc_hosted(p) && p->host_pid;
    json_object *by =
        p->parent_pid ? json_object_new_int64(p->parent_pid) : json_object_new_string(p->user);
    json_object *meta = json_make(
        "name:s version:s pid:i spawnedAt:o spawnedBy:o parentPid:o sessionId:s invocationId:s",
        p->name, p->version, p->pid, ts(p->spawned_at), by,
        p->parent_pid ? json_object_new_int64(p->parent_pid) : NULL, p->session_id,
        p->invocation_id);
    json_object *s = json_make("state:s goal:s contextUsed:i contextLimit:i toolCallsThisTurn:i",
                               pstate_names[p->state], p->goal, p->context_used, p->context_limit,
                               p->calls_this_turn);
    json_add(s, "lastActivityAt", ts(p->last_activity));
    json_add_str(s, "waitingOn", wait_names[p->waiting_on]);
    json_add(s, "tools", json_make("granted:o denied:o", json_dup(p->grants), json_dup(p->denied)));
    json_add(s, "pipes", json_new_arr());
    json_add(s, "signals",
             json_make("lastReceived:s pendingCount:i", *p->last_signal ? p->last_signal : NULL,
                       p->pending_signals + (int64_t)p->n_sigs));
    int64_t end = p->ended_at ? p->ended_at : now_ms();
    json_add(s, "metrics",
             json_make("tokensConsumed:i toolCallsTotal:i wallTimeSec:i tokensIn:i tokensOut:i "
                       "costUsd:d llmCalls:i rssKiB:i cpuMs:i restarts:i",
                       p->tokens_in + p->tokens_out, p->tool_calls, (end - p->spawned_at) / 1000,
                       p->tokens_in, p->tokens_out, (double)p->cost / 1e6,
                       db_int_of("SELECT count(*) FROM usage WHERE pid=?", 0, "i", p->pid),
                       host ? host_rss_kib(p->host_pid) : 0,
                       host ? (int64_t)host_cpu_ms(p->host_pid) : 0, p->restarts));
    json_add_int(s, "turn", p->turn);
    json_add_str(s, "model", p->model);
    json_add(s, "hostPid", host ? json_object_new_int64(p->host_pid) : NULL);
    json_add_bool(s, "frozen", p->frozen);
    json_add_bool(s, "hibernated", p->hibernated);
    json_add(s, "degraded", p->degraded ? json_dup(p->degraded) : json_new_arr());
    json_add_str(s, "exitReason", p->exit_reason);
    return json_make("apiVersion:s kind:s metadata:o status:o", "avix/v1", "AgentStatus", meta, s);
}

static json_object *resolved_yaml(const struct proc *p)
{
    json_object *crews = json_arr(p->requested, "crews");
    json_object *meta = json_make("target:s resolvedAt:o resolvedFor:o crews:o", "agent-manifest",
                                  ts(p->spawned_at), json_make("username:s pid:i", p->user, p->pid),
                                  crews ? json_dup(crews) : json_new_arr());
    json_object *r = json_dup(p->resolved);
    json_add_int(r, "contextWindowTokens", p->context_limit);
    json_add_int(r, "tokenTtlSecs", 3600);
    return json_make("apiVersion:s kind:s metadata:o resolved:o grantedTools:o", "avix/v1",
                     "Resolved", meta, r, json_dup(p->grants));
}

/* --- one node of the tree: a directory (entries) or a file (doc) -------------------------------
 */

struct node {
    json_object *entries; /* array of {name, kind} */
    json_object *doc;
    int err;
};

static void entry(struct node *n, const char *name, bool dir)
{
    if (!n->entries)
        n->entries = json_new_arr();
    json_push(n->entries, json_make("name:s kind:s", name, dir ? "dir" : "file"));
}

static void dir(struct node *n)
{
    if (!n->entries)
        n->entries = json_new_arr();
}

static void view_pid(struct node *n, const struct caller *w, char **part, size_t k)
{
    int64_t pid = 0;
    bool loaded;
    if (!parse_i64(part[1], 1, (int64_t)1 << 53, &pid)) {
        n->err = ERR_NOENT;
        return;
    }
    struct proc *p = proc_get(pid, &loaded);
    if (!p || !sees(w, p->user)) {
        n->err = p ? ERR_PERM : ERR_NOENT;
    } else if (k == 2) {
        entry(n, "status.yaml", false);
        entry(n, "resolved.yaml", false);
        entry(n, "pipes", true);
        entry(n, "hil-queue", true);
    } else if (k == 3 && (str_eq(part[2], "pipes") || str_eq(part[2], "hil-queue"))) {
        dir(n);
    } else if (k == 3 && str_eq(part[2], "status.yaml")) {
        n->doc = status_yaml(p);
    } else if (k == 3 && str_eq(part[2], "resolved.yaml")) {
        n->doc = resolved_yaml(p);
    } else {
        n->err = ERR_NOENT;
    }
    proc_release(p, p && loaded);
}

static json_object *user_status(const char *user)
{
    json_object *pids = json_new_arr();
    size_t pos = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        if (str_eq(p->user, user) && !proc_final(p))
            json_push(pids, json_object_new_int64(p->pid));
    json_object *s =
        json_make("agents:i hostProcesses:i sessions:i pids:o tokens24h:i",
                  (int64_t)json_object_array_length(pids), (int64_t)proc_count(user, NULL),
                  db_int_of("SELECT count(*) FROM sessions WHERE username=?", 0, "s", user), pids,
                  db_int_of("SELECT coalesce(sum(tokens_in+tokens_out),0) FROM usage WHERE "
                            "username=? AND at>?",
                            0, "si", user, now_ms() - 24LL * 3600 * 1000));
    return json_make("apiVersion:s kind:s metadata:o status:o", "avix/v1", "UserStatus",
                     json_make("name:s", user), s);
}

static json_object *session_yaml(const char *id, const char *user)
{
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT title, status, spawned_at, last_updated, tokens_total, "
                               "owner_pid, primary_agent FROM sessions WHERE id=? AND username=?",
                               "ss", id, user);
    json_object *o = NULL;
    if (db_row(q))
        o = json_make("apiVersion:s kind:s metadata:o status:o", "avix/v1", "Session",
                      json_make("id:s title:s username:s spawnedAt:o", id, db_text(q, 0), user,
                                ts(db_int(q, 2))),
                      json_make("state:s lastUpdated:o tokensTotal:i ownerPid:i primaryAgent:s",
                                db_text(q, 1), ts(db_int(q, 3)), db_int(q, 4), db_int(q, 5),
                                db_text(q, 6)));
    db_end(q);
    return o;
}

static void sessions_dir(struct node *n, const char *user)
{
    char name[80];
    dir(n);
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT id FROM sessions WHERE username=? ORDER BY last_updated "
                               "DESC LIMIT 1000",
                               "s", user);
    while (db_row(q)) {
        snprintf(name, sizeof name, "%.64s.yaml", db_text(q, 0));
        entry(n, name, false);
    }
    db_end(q);
}

static json_object *preview(const char *user)
{
    struct resolve_input in = { .default_model = svc.config->model_default };
    struct resolve_output out;
    if (resolve_fields(&in, &out)) {
        resolve_output_done(&out);
        return NULL;
    }
    json_object *meta = json_make("target:s resolvedAt:o resolvedFor:o", "agent-manifest",
                                  ts(now_ms()), json_make("username:s", user));
    json_object *o = json_make("apiVersion:s kind:s metadata:o resolved:o annotations:o", "avix/v1",
                               "Resolved", meta, TAKE(out.resolved), TAKE(out.annotations));
    resolve_output_done(&out);
    return o;
}

static void view_user(struct node *n, const struct caller *w, char **part, size_t k)
{
    if (k == 2) {
        dir(n);
        if (!str_empty(w->user))
            entry(n, w->user, true);
        return;
    }
    const char *user = part[2];
    char id[64];
    if (!sees(w, user)) {
        n->err = ERR_PERM;
    } else if (k == 3) {
        entry(n, "status.yaml", false);
        entry(n, "sessions", true);
        entry(n, "resolved", true);
    } else if (k == 4 && str_eq(part[3], "status.yaml")) {
        n->doc = user_status(user);
    } else if (k == 4 && str_eq(part[3], "sessions")) {
        sessions_dir(n, user);
    } else if (k == 4 && str_eq(part[3], "resolved")) {
        entry(n, "agent-manifest.yaml", false);
    } else if (k == 5 && str_eq(part[3], "sessions") && str_ends(part[4], ".yaml") &&
               strlen(part[4]) - 5 < sizeof id) {
        memcpy(id, part[4], strlen(part[4]) - 5);
        id[strlen(part[4]) - 5] = '\0';
        n->doc = session_yaml(id, user);
    } else if (k == 5 && str_eq(part[3], "resolved") && str_eq(part[4], "agent-manifest.yaml")) {
        n->doc = preview(user);
    } else {
        n->err = ERR_NOENT;
    }
}

static void view_service(struct node *n, char **part, size_t k)
{
    if (k == 2) {
        for (int u = 0; u < UNIT_COUNT; u++)
            entry(n, unit_rows[u].name, true);
        entry(n, "llm", true);
        return;
    }
    enum unit_id u = unit_by_name(part[2]);
    if (u == UNIT_NONE)
        n->err = ERR_NOENT;
    else if (k == 3)
        entry(n, "status.yaml", false);
    else if (k == 4 && str_eq(part[3], "status.yaml"))
        n->err = ERR_UNAVAIL; /* asked of init, see view_unit */
    else
        n->err = ERR_NOENT;
}

static void view_errors(struct node *n, const struct caller *w, char **part, size_t k)
{
    char name[96];
    if (k == 2) {
        cleanup(json_putp) json_object *ids = spawn_errors_list(w->user, w->role >= ROLE_OPERATOR);
        dir(n);
        for (size_t i = 0; i < json_object_array_length(ids); i++) {
            snprintf(name, sizeof name, "%.80s.yaml",
                     json_object_get_string(json_object_array_get_idx(ids, i)));
            entry(n, name, false);
        }
        return;
    }
    size_t len = k == 3 ? strlen(part[2]) : 0;
    if (len > 5 && len < sizeof name && str_ends(part[2], ".yaml")) {
        memcpy(name, part[2], len - 5);
        name[len - 5] = '\0';
        n->doc = spawn_error_get(name);
    }
    if (n->doc && !sees(w, json_str(n->doc, "user", ""))) {
        json_putp(&n->doc);
        n->err = ERR_PERM;
    }
}

static void view_root(struct node *n, const struct caller *w)
{
    char name[24];
    size_t pos = 0;
    struct proc *p;
    while (proc_each(&pos, &p)) {
        snprintf(name, sizeof name, "%lld", (long long)p->pid);
        if (sees(w, p->user))
            entry(n, name, true);
    }
    entry(n, "users", true);
    entry(n, "services", true);
    entry(n, "spawn-errors", true);
}

static json_object *defaults_doc(const char *kind, const char *target, const char *key,
                                 json_object *values)
{
    json_object *meta = json_make("target:s layer:s owner:s", target, "system", "root");
    json_object *o = json_make("apiVersion:s kind:s metadata:o", "avix/v1", kind, meta);
    json_add(o, key, values);
    return o;
}

static void view_kernel(struct node *n, char **part, size_t k)
{
    bool dflt = k >= 2 && str_eq(part[1], "defaults");
    bool lim = k >= 2 && str_eq(part[1], "limits");
    if (k == 1) {
        entry(n, "defaults", true);
        entry(n, "limits", true);
    } else if (k == 2 && (dflt || lim)) {
        entry(n, "agent-manifest.yaml", false);
        entry(n, "agent.yaml", false);
    } else if (k == 3 && dflt && str_eq(part[2], "agent-manifest.yaml")) {
        n->doc = defaults_doc("Defaults", "agent-manifest", "defaults",
                              resolve_system_defaults(svc.config->model_default));
    } else if (k == 3 && lim && str_eq(part[2], "agent-manifest.yaml")) {
        n->doc = defaults_doc("Limits", "agent-manifest", "limits", resolve_system_limits());
    } else if (k == 3 && (dflt || lim) && str_eq(part[2], "agent.yaml")) {
        n->doc = defaults_doc(dflt ? "Defaults" : "Limits", "agent", dflt ? "defaults" : "limits",
                              host_limits());
    } else {
        n->err = ERR_NOENT;
    }
}

static size_t split(char *path, char **part)
{
    size_t n = 0;
    for (char *p = path; *p && n < PARTS;) {
        while (*p == '/')
            *p++ = '\0';
        if (!*p)
            break;
        part[n++] = p;
        while (*p && *p != '/')
            p++;
    }
    return n;
}

static void find(struct node *n, const struct caller *w, char **part, size_t k)
{
    if (k == 0)
        n->err = ERR_NOENT;
    else if (str_eq(part[0], "kernel"))
        view_kernel(n, part, k);
    else if (!str_eq(part[0], "proc"))
        n->err = ERR_NOENT;
    else if (k == 1)
        view_root(n, w);
    else if (str_eq(part[1], "users"))
        view_user(n, w, part, k);
    else if (str_eq(part[1], "services"))
        view_service(n, part, k);
    else if (str_eq(part[1], "spawn-errors"))
        view_errors(n, w, part, k);
    else
        view_pid(n, w, part, k);
    if (!n->err && !n->doc && !n->entries)
        n->err = ERR_NOENT;
}

static void reply_doc(struct call *c, json_object *doc)
{
    cleanup(freep) char *text = yaml_dump(doc);
    call_reply(c, json_make("content:s", text));
}

static void on_unit(struct ipc_reply *r, void *arg)
{
    struct call *c = arg;
    if (r->err)
        call_fail_rpc(c, &r->error);
    else
        reply_doc(c, r->result);
}

/* /proc/services/<n>/status.yaml is init's word. */
static void view_unit(struct call *c, const char *name)
{
    char sock[108];
    cleanup(json_putp) json_object *q = json_make("name:s", name);
    snprintf(sock, sizeof sock, "%s/init.sock", svc.run_dir);
    struct ipc_req req = { .sock = sock,
                           .method = "init/status",
                           .params = q,
                           .timeout_ms = 3000,
                           .listener = svc.init_pid,
                           .repeatable = true };
    (void)ipc_start(svc.loop, &req, NULL, on_unit, c);
}

/* A defaults file before it is written: it must parse and lie within the system's limits. */
static void check_file(struct call *c, const char *path, const char *text)
{
    struct yaml_err e = { 0 };
    char why[256] = "";
    cleanup(json_putp) json_object *doc = NULL;
    if (yaml_parse(text, strlen(text), &doc, &e)) {
        call_fail(c, ERR_INVAL, "%s:%d: %s", path, e.line, e.msg);
        return;
    }
    if (!str_eq(json_str(doc, "kind", ""), "Defaults")) {
        call_fail(c, ERR_INVAL, "%s: kind must be Defaults", path);
        return;
    }
    if (resolve_check(json_obj(doc, "defaults"), NULL, 0, why, sizeof why))
        call_fail(c, ERR_INVAL, "%s: %s", path, why);
    else
        call_reply(c, json_make("ok:b", 1));
}

void proc_view(struct call *c, const struct caller *caller)
{
    struct args a = args_open(c->params);
    const char *path = args_str(&a, "path", 4096);
    static const char *const ops[] = { "list", "read", "check", NULL };
    int op = args_enum_or(&a, "op", ops, -1);
    json_object *reader = args_obj_or(&a, "reader");
    struct caller w;
    char *part[PARTS];
    (void)caller;
    if (!args_bad(&a) && op < 0)
        args_fail(&a, "op", "missing");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (op == 2) {
        check_file(c, path, json_str(c->params, "content", ""));
        return;
    }
    reader_of(reader, &w);
    cleanup(freep) char *copy = xstrdup(path);
    size_t k = split(copy, part);
    if (op == 1 && k == 4 && str_eq(part[0], "proc") && str_eq(part[1], "services") &&
        str_eq(part[3], "status.yaml")) {
        view_unit(c, part[2]);
        return;
    }
    struct node n = { 0 };
    find(&n, &w, part, k);
    if (!n.err && op == 0 && !n.entries)
        n.err = ERR_NOTDIR;
    if (!n.err && op == 1 && !n.doc)
        n.err = ERR_ISDIR;
    if (n.err)
        call_fail_data(c, n.err, json_make("path:s", path), "%s: %s", path, err_text(n.err));
    else if (op == 0)
        call_reply(c, json_make("entries:o", TAKE(n.entries)));
    else
        reply_doc(c, n.doc);
    json_put(n.entries);
    json_put(n.doc);
}
