/* The system calls of domains proc and signal that act on one process. */
#include "kernel/core/calls.h"

#include "common/base/clock.h"
#include "common/base/rnd.h"

#define KILL_WAIT_MS 20000
#define SUBS_MAX     256

/* The process a call names, if the caller may act on it; answers the call otherwise. */
static struct proc *target(struct call *c, const struct caller *w, struct args *a, bool change)
{
    int64_t pid = args_pid(a);
    if (args_bad(a)) {
        call_bad_args(c, a);
        return NULL;
    }
    struct proc *p = proc_find(pid);
    bool loaded = false;
    struct proc *row = p ? p : proc_get(pid, &loaded);
    bool seen = row && (change ? may_change(w, row->user) : may_see(w, row->user));
    bool own_tree = w->kind != CALLER_AGENT || !change ||
                    (row && (row->pid == w->pid || proc_descends(row, w->pid)));
    int err = !row ? ERR_NOTFOUND : !seen || !own_tree ? ERR_PERM : p ? 0 : ERR_CONFLICT;
    proc_release(row, row && loaded);
    if (err == ERR_NOTFOUND)
        call_fail(c, err, "no process %lld", (long long)pid);
    else if (err == ERR_PERM)
        call_fail(c, err, "process %lld is not yours", (long long)pid);
    else if (err)
        call_fail_data(c, err, json_make("reason:s", "state"), "process %lld has ended",
                       (long long)pid);
    return err ? NULL : p;
}

void kill_and_wait(struct call *c, struct proc *p, const char *reason)
{
    int n = 0;
    int64_t pid = p->pid;
    if (proc_final(p)) {
        call_reply(c, json_make("ok:b killed:b pid:i tokens_revoked:i", 1, 0, pid, (int64_t)0));
        return;
    }
    int r = life_kill(p, reason, &n);
    if (r) {
        call_fail(c, r > 0 ? r : ERR_INTERNAL, "the kill could not be recorded");
        return;
    }
    p = proc_find(pid);
    if (!p) {
        call_reply(c, json_make("ok:b killed:b pid:i tokens_revoked:i", 1, 1, pid, (int64_t)n));
        return;
    }
    c->user = (void *)(intptr_t)n;
    waiter_park(p, c, WAITER_KILL, KILL_WAIT_MS);
}

void sys_proc_kill(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *reason = args_str_or(&a, "reason", 100, "killed");
    struct proc *p = target(c, w, &a, true);
    if (p)
        kill_and_wait(c, p, *reason ? reason : "killed");
}

static bool can_pause(const struct proc *p)
{
    return p->phase == PH_LIVE && (p->state == PS_RUNNING || p->state == PS_WAITING);
}

int proc_pause(struct proc *p, bool hard, const char *reason)
{
    if (!can_pause(p))
        return ERR_CONFLICT;
    if (hard) {
        host_kill(p, "STOP");
        p->frozen = true;
        p->before_pause = p->state;
        p->before_wait = p->waiting_on;
        return state_set(p, PS_PAUSED, WO_NONE, IV_PAUSED, NULL);
    }
    return sig_send(p, "SIGPAUSE", json_make("reason:s", reason ? reason : ""), "kernel");
}

int proc_resume(struct proc *p)
{
    if (p->state != PS_PAUSED || p->waiting_on == WO_HUMAN || p->phase != PH_LIVE)
        return ERR_CONFLICT;
    if (p->frozen) {
        bool idle = p->before_pause == PS_WAITING;
        host_kill(p, "CONT");
        p->frozen = false;
        int r = state_set(p, p->before_pause, p->before_wait, idle ? IV_IDLE : IV_RUNNING, NULL);
        if (r)
            return r;
        sig_kick(p);
        input_again(p); /* a frame may have been given up before it was frozen */
    }
    return sig_send(p, "SIGRESUME", NULL, "kernel");
}

void sys_proc_pause(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    bool hard = args_bool_or(&a, "hard", false);
    const char *reason = args_str_or(&a, "reason", 1024, "");
    struct proc *p = target(c, w, &a, true);
    if (!p)
        return;
    if (hard && w->kind == CALLER_USER && w->role < ROLE_OPERATOR) {
        call_fail(c, ERR_PERM, "a hard pause needs role operator");
        return;
    }
    int r = proc_pause(p, hard, reason);
    if (r)
        call_fail_data(c, r, json_make("reason:s", "state"), "process %lld is %s",
                       (long long)p->pid, pstate_names[p->state]);
    else
        call_reply(c, json_make("ok:b paused:b paused_at_tool:s", 1, 1, NULL));
}

void sys_proc_resume(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    struct proc *p = target(c, w, &a, true);
    if (!p)
        return;
    int r = session_owner(p) && p->state == PS_PAUSED ? session_resume_all(p->session_id)
                                                      : proc_resume(p);
    if (r)
        call_fail_data(c, r, json_make("reason:s", "state"), "process %lld is %s",
                       (long long)p->pid, pstate_names[p->state]);
    else
        call_reply(c, json_make("ok:b resumed:b status:s", 1, 1, "running"));
}

static void list_final(json_object *out, const char *user, const char *session, const char *status)
{
    int64_t pids[500];
    size_t n = 0;
    sqlite3_stmt *q = db_query(DB_NORMAL,
                               "SELECT p.pid FROM processes p JOIN invocations i ON "
                               "i.id=p.invocation_id WHERE p.state IN ('stopped','crashed') AND "
                               "(?1 IS NULL OR i.username=?1) AND (?2 IS NULL OR i.session_id=?2) "
                               "AND (?3='all' OR p.state=?3) ORDER BY p.pid DESC LIMIT 500",
                               "sss", user, session, status);
    while (n < N_ELEMS(pids) && db_row(q))
        pids[n++] = db_int(q, 0);
    db_end(q);
    for (size_t i = 0; i < n; i++) {
        if (proc_find(pids[i]))
            continue;
        struct proc *p = proc_load(pids[i]);
        if (p)
            json_push(out, proc_row(p));
        proc_free(p);
    }
}

static int row_order(const void *a, const void *b)
{
    json_object *const *x = a, *const *y = b;
    int64_t p = json_int(*x, "pid", 0), q = json_int(*y, "pid", 0);
    return (p > q) - (p < q);
}

/* Without a filter: what has not ended. */
void sys_proc_list(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *status = args_str_or(&a, "filter_status", 32, NULL);
    const char *named = args_str_or(&a, "username", 64, NULL);
    const char *session = args_str_or(&a, "session_id", 64, NULL);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    bool wide = w->kind == CALLER_SERVICE || w->role >= ROLE_OPERATOR;
    const char *user = !str_empty(named) ? named : wide ? NULL : w->user;
    if (user && !may_see(w, user)) {
        call_fail(c, ERR_PERM, "agents of %s are not yours", user);
        return;
    }
    if (str_empty(session))
        session = NULL;
    json_object *out = json_new_arr();
    size_t pos = 0;
    struct proc *p;
    while (proc_each(&pos, &p)) {
        bool all = str_eq(status, "all");
        bool fits = !status ? !proc_final(p) : all || str_eq(status, pstate_names[p->state]);
        if (fits && (!user || str_eq(p->user, user)) && may_see(w, p->user) &&
            (!session || str_eq(p->session_id, session)))
            json_push(out, proc_row(p));
    }
    if (str_eq(status, "all") || str_eq(status, "stopped") || str_eq(status, "crashed"))
        list_final(out, user, session, status);
    json_object_array_sort(out, row_order);
    call_reply(c, out);
}

/* Ended ones too. Answers the call and gives NULL if there is none or it may not be seen. */
static struct proc *any_target(struct call *c, const struct caller *w, struct args *a, bool *loaded)
{
    int64_t pid = args_pid(a);
    if (args_bad(a)) {
        call_bad_args(c, a);
        return NULL;
    }
    struct proc *p = proc_get(pid, loaded);
    if (p && may_see(w, p->user))
        return p;
    if (p)
        call_fail(c, ERR_PERM, "process %lld is not yours", (long long)pid);
    else
        call_fail(c, ERR_NOTFOUND, "no process %lld", (long long)pid);
    proc_release(p, p && *loaded);
    return NULL;
}

void sys_proc_stat(struct call *c, const struct caller *w)
{
    bool loaded;
    struct args a = args_open(c->params);
    bool tree = args_bool_or(&a, "tree", false);
    struct proc *p = any_target(c, w, &a, &loaded);
    if (!p)
        return;
    call_reply(c, proc_detail(p, tree));
    proc_release(p, loaded);
}

void sys_proc_wait(struct call *c, const struct caller *w)
{
    bool loaded;
    struct args a = args_open(c->params);
    int64_t timeout = args_int_or(&a, "timeout", 0, 24 * 3600, 25);
    struct proc *p = any_target(c, w, &a, &loaded);
    if (!p)
        return;
    if (loaded) {
        call_reply(c, wait_reply(p, false));
        proc_free(p);
    } else {
        waiter_park(p, c, WAITER_WAIT, timeout * 1000);
    }
}

/* --- setcap ----------------------------------------------------------------------------------- */

static void ignore_renew(struct proc *p, int err, json_object *result, void *arg)
{
    (void)arg;
    if (!p || err)
        return;
    (void)sig_send(p, "SIGUSR1",
                   json_make("event:s token:s expiresAt:s", "token", json_str(result, "token", ""),
                             json_str(result, "expiresAt", "")),
                   "kernel");
}

static void on_setcap(struct proc *p, int err, json_object *result, void *arg)
{
    struct call *c = arg;
    if (!p || err) {
        call_fail(c, err ? err : ERR_NOTFOUND, "the token could not be replaced");
        return;
    }
    ignore_renew(p, 0, result, NULL);
    call_reply(c, json_make("capabilities:o", json_dup(p->grants)));
}

static json_object *without(json_object *from, json_object *these)
{
    json_object *out = json_new_arr();
    for (size_t i = 0; i < json_object_array_length(from); i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(from, i));
        if (!these || !json_arr_has(these, s))
            json_push_str(out, s);
    }
    return out;
}

static void remember(struct proc *p, const char *key, json_object *names)
{
    json_object *list = json_arr(p->requested, key);
    if (!list) {
        list = json_new_arr();
        json_add(p->requested, key, list);
    }
    for (size_t i = 0; names && i < json_object_array_length(names); i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(names, i));
        if (!json_arr_has(list, s))
            json_push_str(list, s);
    }
}

/* What a parent loses its descendants lose. */
static void revoke_below(struct proc *p, json_object *names)
{
    size_t pos = 0;
    struct proc *q;
    while (names && proc_each(&pos, &q))
        if (proc_descends(q, p->pid) && q->phase == PH_LIVE) {
            json_object *left = without(q->grants, names);
            json_put(q->grants);
            q->grants = left;
            token_renew(q, false, ignore_renew, NULL);
        }
}

static int save_requested(struct proc *p)
{
    return db_run(DB_FULL, "UPDATE processes SET requested=?, grants=? WHERE pid=?", "jji",
                  p->requested, p->grants, p->pid);
}

void sys_proc_setcap(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    json_object *grant = args_strs_or(&a, "grant", 128), *revoke = args_strs_or(&a, "revoke", 128);
    struct proc *p = target(c, w, &a, true);
    if (!p)
        return;
    struct proc *parent = p->parent_pid ? proc_find(p->parent_pid) : NULL;
    for (size_t i = 0; grant && i < json_object_array_length(grant); i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(grant, i));
        if (p->parent_pid && (!parent || !json_arr_has(parent->grants, s))) {
            call_fail(c, ERR_PERM, "%s: the parent does not hold it", s);
            return;
        }
        if (!json_arr_has(p->grants, s))
            json_push_str(p->grants, s);
    }
    json_object *left = without(p->grants, revoke);
    json_put(p->grants);
    p->grants = left;
    remember(p, "additional", grant);
    remember(p, "removed", revoke);
    int r = save_requested(p);
    if (r) {
        call_fail(c, r > 0 ? r : ERR_INTERNAL, "the grants could not be recorded");
        return;
    }
    revoke_below(p, revoke);
    if (p->phase == PH_LIVE)
        token_renew(p, false, on_setcap, c);
    else
        call_reply(c, json_make("capabilities:o", json_dup(p->grants)));
}

/* --- signals ---------------------------------------------------------------------------------- */

enum user_signal { US_START, US_PAUSE, US_RESUME, US_KILL, US_STOP, US_PIPE, US_COUNT };
static const char *const user_signals[] = { "SIGSTART", "SIGPAUSE", "SIGRESUME", "SIGKILL",
                                            "SIGSTOP",  "SIGPIPE",  NULL };

static const char *sender(const struct caller *w, char *buf, size_t size)
{
    if (w->kind == CALLER_AGENT)
        snprintf(buf, size, "agent:%lld", (long long)w->pid);
    else
        snprintf(buf, size, "%s", w->kind == CALLER_SERVICE ? w->service : w->user);
    return buf;
}

/* Text that reached an agent as a message; wakes it when it is idle. */
int proc_message(struct proc *p, const char *text, json_object *attachments, const char *from,
                 const struct proc *agent)
{
    cleanup(freep) char *full = agent ? xasprintf("Message from agent %s (PID %lld): %s",
                                                  agent->name, (long long)agent->pid, text)
                                      : xstrdup(text);
    if (K.stopping)
        return ERR_UNAVAIL;
    if (life_closing(p))
        return ERR_CONFLICT;
    if (proc_idle(p) && (!p->inputs || p->phase == PH_REST))
        return life_goal(p, full, attachments);
    json_object *payload = json_make("text:s", text);
    json_add(payload, "from",
             agent ? json_make("pid:i name:s", agent->pid, agent->name)
                   : json_object_new_string(from));
    if (agent)
        json_add(payload, "fromAgent", json_make("pid:i name:s", agent->pid, agent->name));
    if (attachments)
        json_add(payload, "attachments", json_dup(attachments));
    int r = input_add(p, false, from, payload);
    if (!r)
        input_send(p);
    return r;
}

static void one_signal(struct call *c, const struct caller *w, struct proc *p, int sig,
                       json_object *payload)
{
    char from[80];
    int r = 0;
    const char *text = json_str(payload, "text", "");
    json_object *attach = json_arr(payload, "attachments");
    sender(w, from, sizeof from);
    switch ((enum user_signal)sig) {
    case US_START:
        r = !proc_idle(p) ? ERR_CONFLICT : life_goal(p, json_str(payload, "goal", p->goal), NULL);
        break;
    case US_PAUSE:
        r = proc_pause(p, false, json_str(payload, "reason", ""));
        break;
    case US_RESUME:
        r = proc_resume(p);
        break;
    case US_KILL:
        kill_and_wait(c, p, json_str(payload, "reason", "killed"));
        return;
    case US_STOP:
        life_stop(p, "stop", "stopped");
        break;
    case US_PIPE:
        r = *text || attach ? proc_message(p, text, attach, from, NULL) : ERR_INVAL;
        break;
    case US_COUNT:
        break;
    }
    if (r == ERR_CONFLICT)
        call_fail_data(c, r, json_make("reason:s", "state"), "process %lld is %s",
                       (long long)p->pid, pstate_names[p->state]);
    else if (r)
        call_fail(c, r > 0 ? r : ERR_INTERNAL, "%s: %s", user_signals[sig],
                  r == ERR_INVAL ? "text is missing" : err_text(r));
    else
        call_reply(c, json_make("ok:b", 1));
    if (!r)
        pub("proc.signal", json_make("pid:i signal:s from:s", p->pid, user_signals[sig], from),
            p->user, p->atp_session, ROLE_NONE);
}

/* Only pause and resume make sense for everyone at once. */
static void broadcast(struct call *c, const struct caller *w, int sig)
{
    size_t pos = 0;
    struct proc *p;
    if (w->kind == CALLER_AGENT || (w->kind == CALLER_USER && w->role < ROLE_OPERATOR)) {
        call_fail(c, ERR_PERM, "broadcast needs role operator");
        return;
    }
    if (sig != US_PAUSE && sig != US_RESUME && sig != US_STOP) {
        call_fail(c, ERR_INVAL, "broadcast takes SIGPAUSE, SIGRESUME or SIGSTOP");
        return;
    }
    while (proc_each(&pos, &p)) {
        if (!may_change(w, p->user) || proc_final(p))
            continue;
        if (sig == US_PAUSE)
            (void)proc_pause(p, false, "");
        else if (sig == US_RESUME)
            (void)proc_resume(p);
        else
            life_stop(p, "stop", "stopped");
    }
    call_reply(c, json_make("ok:b", 1));
}

void sys_signal_send(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *name = args_str(&a, "signal", 16);
    json_object *payload = args_obj_or(&a, "payload");
    int sig = name ? name_index(user_signals, US_COUNT, name) : -1;
    if (!args_bad(&a) && str_eq(name, "SIGESCALATE")) {
        call_fail(c, ERR_PERM, "SIGESCALATE is for agents");
        return;
    }
    if (!args_bad(&a) && sig < 0)
        args_fail(&a, "signal", "is none of SIGSTART SIGPAUSE SIGRESUME SIGKILL SIGSTOP SIGPIPE");
    if (!args_bad(&a) && str_eq(json_str(c->params, "target", ""), "broadcast")) {
        broadcast(c, w, sig);
        return;
    }
    struct proc *p = target(c, w, &a, true);
    if (p)
        one_signal(c, w, p, sig, payload);
}

/* Subscriptions say which proc.signal events a user asked for; the gateway delivers them. */
static struct {
    char id[48], user[64];
    int64_t pid;
    json_object *signals;
} subs[SUBS_MAX];

void sys_signal_subscribe(struct call *c, const struct caller *w)
{
    char id[UUID_LEN];
    struct args a = args_open(c->params);
    json_object *signals = args_strs_or(&a, "signals", 16);
    struct proc *p = target(c, w, &a, false);
    if (!p)
        return;
    for (size_t i = 0; i < SUBS_MAX; i++) {
        if (*subs[i].id && proc_find(subs[i].pid))
            continue;
        json_put(subs[i].signals);
        snprintf(subs[i].id, sizeof subs[i].id, "sub-%s", uuid4(id));
        str_copy(subs[i].user, sizeof subs[i].user, w->user);
        subs[i].pid = p->pid;
        subs[i].signals = signals ? json_dup(signals) : json_new_arr();
        call_reply(c, json_make("subscription_id:s", subs[i].id));
        return;
    }
    call_fail_data(c, ERR_LIMIT, json_make("limit:s", "subscriptions"),
                   "limit reached: %d subscriptions", SUBS_MAX);
}

void sys_signal_unsubscribe(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *id = args_str(&a, "subscription_id", 64);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    for (size_t i = 0; i < SUBS_MAX; i++)
        if (*id && str_eq(subs[i].id, id) && str_eq(subs[i].user, w->user)) {
            subs[i].id[0] = '\0';
            json_putp(&subs[i].signals);
            call_reply(c, json_make("ok:b", 1));
            return;
        }
    call_fail(c, ERR_NOTFOUND, "no subscription %s", id);
}

void sys_signal_list(struct call *c, const struct caller *w)
{
    json_object *out = json_new_arr();
    for (size_t i = 0; i < SUBS_MAX; i++)
        if (*subs[i].id && str_eq(subs[i].user, w->user))
            json_push(out, json_make("subscription_id:s pid:i signals:o", subs[i].id, subs[i].pid,
                                     json_dup(subs[i].signals)));
    call_reply(c, json_make("subscriptions:o", out));
}
