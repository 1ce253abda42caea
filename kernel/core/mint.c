/*
 * Tokens: step 5, and renewal. Grants are computed again before each but the very first mint: the
 * user's policy, the registry and the parent may have changed since (agents page, section 4).
 */
#include "common/base/clock.h"
#include "kernel/core/life.h"

#define CALL_MS 5000
#define TTL_SEC 3600

struct refresh {
    int64_t pid;
    unsigned life;
    refresh_fn done;
    void *arg;
    json_object *policy;
};

static struct proc *same_life(int64_t pid, unsigned life)
{
    struct proc *p = proc_find(pid);
    return p && p->life == life ? p : NULL;
}

static void refresh_end(struct refresh *f, int err)
{
    struct proc *p = same_life(f->pid, f->life);
    refresh_fn done = f->done;
    void *arg = f->arg;
    json_put(f->policy);
    free(f);
    done(p, err, arg);
}

static void compute(struct proc *p, json_object *policy, json_object *tools)
{
    json_object *r = p->requested;
    struct policy pol = { .all = json_flag(policy, "all", false),
                          .allowed = json_arr(policy, "allowed"),
                          .denied = json_arr(policy, "denied") };
    struct proc *parent = p->parent_pid ? proc_find(p->parent_pid) : NULL;
    struct tool_set set;
    struct grant_result g;
    tool_set_make(&set, tools);
    struct grant_input in = { .tools = &set,
                              .policy = &pol,
                              .requested = json_arr(r, "requested"),
                              .required = json_arr(r, "required"),
                              .optional = json_arr(r, "optional"),
                              .additional = json_arr(r, "additional"),
                              .narrow = json_arr(r, "capabilities"),
                              .removed = json_arr(r, "removed"),
                              .limit = json_arr(r, "toolLimit"),
                              .parent =
                                  p->parent_pid ? (parent ? parent->grants : p->grants) : NULL };
    grants_compute(&in, &g);
    json_put(p->grants);
    json_put(p->denied);
    p->grants = TAKE(g.granted);
    p->denied = TAKE(g.denied);
    grant_result_done(&g);
    tool_set_done(&set);
}

static void on_tools(struct ipc_reply *r, void *arg)
{
    struct refresh *f = arg;
    struct proc *p = same_life(f->pid, f->life);
    if (p && !r->err)
        compute(p, f->policy, json_arr(r->result, "tools"));
    refresh_end(f, r->err);
}

static void on_policy(struct ipc_reply *r, void *arg)
{
    struct refresh *f = arg;
    struct proc *p = same_life(f->pid, f->life);
    if (!p || r->err) {
        refresh_end(f, r->err);
        return;
    }
    f->policy = TAKE(r->result);
    json_object *crews = json_arr(f->policy, "crews");
    cleanup(json_putp) json_object *user = json_make(
        "name:s uid:i role:s crews:o session_id:s", p->user, json_int(f->policy, "uid", 0),
        json_str(f->policy, "role", "user"), crews ? json_dup(crews) : json_new_arr(), "");
    (void)svc_call("sys/tools", json_new(), user, CALL_MS, on_tools, f);
}

void grants_refresh(struct proc *p, refresh_fn done, void *arg)
{
    struct refresh *f = xcalloc(1, sizeof *f);
    f->pid = p->pid;
    f->life = p->life;
    f->done = done;
    f->arg = arg;
    (void)svc_call("auth/policy", json_make("user:s agent:s", p->user, p->name), NULL, CALL_MS,
                   on_policy, f);
}

struct mint {
    int64_t pid;
    unsigned life;
};

static void on_minted(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct mint *m = arg;
    struct proc *p = same_life(m->pid, m->life);
    if (!p)
        return;
    p->op = NULL;
    struct life_info i = { .reply = r->result, .reason = r->error.message };
    life_event(p, r->err ? EV_MINT_FAIL : EV_MINTED, &i);
}

static json_object *constraints(void)
{
    return json_make("maxTokensPerTurn:i maxToolChainLength:i allowPipeTargets:o", (int64_t)8000,
                     (int64_t)svc.config->max_tool_chain, json_new_arr());
}

static void mint_now(struct proc *p)
{
    json_object *q =
        json_make("pid:i hostPid:i hostStart:i agent:s user:s sessionId:s", p->pid,
                  (int64_t)p->host_pid, (int64_t)p->host_start, p->name, p->user, p->session_id);
    if (p->atp_session)
        json_add_str(q, "atpSession", p->atp_session);
    json_add(q, "granted", json_dup(p->grants));
    json_add(q, "runtime", json_dup(grants_runtime()));
    json_add(q, "constraints", constraints());
    json_add(q, "budgets", json_new());
    json_add_str(q, "lineage", p->lineage);
    json_add_int(q, "ttl", TTL_SEC);
    struct mint *m = xcalloc(1, sizeof *m);
    m->pid = p->pid;
    m->life = p->life;
    p->op = svc_call("auth/mint", q, NULL, CALL_MS, on_minted, m);
}

static void on_refreshed(struct proc *p, int err, void *arg)
{
    (void)arg;
    if (!p || p->phase != PH_MINT)
        return;
    if (err)
        life_event(p, EV_MINT_FAIL, &(struct life_info){ .reason = err_text(err) });
    else
        mint_now(p);
}

void mint_start(struct proc *p)
{
    if (p->op)
        return;
    if (p->life == 1 && p->restarts == 0 && !p->token_id && p->parent_pid == 0)
        mint_now(p); /* computed a moment ago by the spawn itself */
    else
        grants_refresh(p, on_refreshed, NULL);
}

struct renew {
    int64_t pid;
    unsigned life;
    bool extend;
    renew_fn done;
    void *arg;
};

static void on_renewed(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct renew *n = arg;
    struct proc *p = same_life(n->pid, n->life);
    int err = r->err;
    if (p && !err) {
        int64_t exp = p->token_exp;
        (void)rfc3339_parse(json_str(r->result, "expiresAt", ""), &exp);
        free(p->token_id);
        free(p->token);
        p->token_id = xstrdup(json_str(r->result, "tokenId", ""));
        p->token = xstrdup(json_str(r->result, "token", ""));
        p->token_exp = exp;
        err = db_run(DB_NORMAL,
                     "UPDATE processes SET token_id=?, token_exp=?, grants=?, denied=? WHERE pid=?",
                     "sijji", p->token_id, exp, p->grants, p->denied, p->pid);
    }
    n->done(p, err, r->result, n->arg);
}

static void renew_now(struct proc *p, int err, void *arg)
{
    struct renew *n = arg;
    if (!p || err || !p->token_id) {
        n->done(p, err ? err : ERR_CONFLICT, NULL, n->arg);
        free(n);
        return;
    }
    json_object *q = json_make("tokenId:s granted:o extend:b constraints:o", p->token_id,
                               json_dup(p->grants), (int)n->extend, constraints());
    (void)svc_call("auth/renew", q, NULL, CALL_MS, on_renewed, n);
}

void token_renew(struct proc *p, bool extend, renew_fn done, void *arg)
{
    struct renew *n = xcalloc(1, sizeof *n);
    n->pid = p->pid;
    n->life = p->life;
    n->extend = extend;
    n->done = done;
    n->arg = arg;
    if (extend)
        grants_refresh(p, renew_now, n);
    else
        renew_now(p, 0, n); /* the caller has just set the grants */
}
