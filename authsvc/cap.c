/*
 * Capability tokens are minted for the kernel alone, and for nothing that the policy of the user
 * (as auth/policy answers it) does not permit: a kernel with a bug cannot make a user's agent
 * stronger than the user. What is taken back is pushed at once, and answered when it is on disk.
 */
#include "authsvc/cap.h"

#include "authsvc/policy.h"
#include "authsvc/push.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/toolname.h"
#include "common/svc/toolgroup.h"

#define TTL_S     3600
#define TTL_MAX_S 86400

/* What the executor itself needs, the same for every agent. */
static const char *const runtime_tools[] = {
    "llm/complete",        "llm/stream_complete",     "llm/models",         "kernel/agent/report",
    "kernel/agent/signal", "kernel/resource/request", "kernel/snap/create",
};
static int64_t pushed_version = -1;

/* --- taking back --------------------------------------------------------------------------------
 */

static void token_revoke(const struct cap_token *t, int64_t now)
{
    cleanup(freep) char *id = xstrdup(t->id);

    revoked_add(auth.revoked, REV_TOKEN, id, t->expires_at, now);
    cap_tokens_drop(auth.caps, id);
}

/* user or pid (> 0) choose; the number of tokens that could still be used. */
static int64_t tokens_revoke(const char *user, int64_t pid)
{
    int64_t now = now_ms(), n = 0;
    const struct cap_token *t;

    for (size_t i = 0; (t = cap_tokens_each(auth.caps, &i));)
        if ((user && str_eq(t->user, user)) || (pid > 0 && t->pid == pid)) {
            n += t->expires_at > now;
            token_revoke(t, now);
        }
    return n;
}

void cap_revoke_user(const char *user)
{
    tokens_revoke(user, 0);
}

bool session_revoke(const char *id, int64_t until)
{
    int64_t now = now_ms(), ttl = now + auth.conf->policy.session_ttl_ms;
    const struct session *s = sessions_get(auth.sessions, id);

    if (s && s->expires_at > until)
        until = s->expires_at;
    if (ttl > until)
        until = ttl;
    bool fresh = revoked_add(auth.revoked, REV_SESSION, id, until, now);
    sessions_drop(auth.sessions, id);
    return fresh;
}

int session_revoke_user(const char *user)
{
    const struct session *s;
    int n = 0;

    for (size_t i = 0; (s = sessions_each(auth.sessions, &i));)
        if (str_eq(s->identity, user)) {
            char id[UUID_LEN];

            memcpy(id, s->id, sizeof(id));
            n += session_revoke(id, s->expires_at);
        }
    return n;
}

void revoke_commit(store_fn fn, void *arg)
{
    int64_t now = now_ms();
    json_object *delta = revoked_since(auth.revoked, pushed_version < 0 ? 0 : pushed_version, now);

    pushed_version = json_int(delta, "version", 0);
    push_revoked(delta);
    sessions_save(auth.sessions, now, NULL, NULL);
    revoked_save(auth.revoked, now, fn, arg);
}

/* --- minting ------------------------------------------------------------------------------------
 */

static bool from_kernel(struct call *c, const struct caller *who)
{
    if (caller_is_unit(who, UNIT_KERNEL))
        return true;
    call_fail(c, ERR_PERM, "%s: for the kernel only", c->method);
    return false;
}

static bool is_runtime(const char *tool)
{
    for (size_t i = 0; i < N_ELEMS(runtime_tools); i++)
        if (str_eq(runtime_tools[i], tool))
            return true;
    return false;
}

/* Every tool is one that this user may have; else the name of the first that is not. */
static const char *not_permitted(const char *user, const char *agent, json_object *granted,
                                 json_object *runtime)
{
    cleanup(json_putp) json_object *policy = policy_of(auth.conf, auth.dir, user, agent);

    for (size_t i = 0; granted && i < json_object_array_length(granted); i++) {
        const char *tool = json_object_get_string(json_object_array_get_idx(granted, i));

        if (!tool_name_valid(tool, strlen(tool)) || !policy_permits(policy, tool))
            return tool;
    }
    for (size_t i = 0; runtime && i < json_object_array_length(runtime); i++) {
        const char *tool = json_object_get_string(json_object_array_get_idx(runtime, i));

        if (!is_runtime(tool))
            return tool;
    }
    return NULL;
}

/* The user may have tokens at all; else the call is answered. */
static bool user_ok(struct call *c, const char *user)
{
    const struct identity *id = auth_conf_find(auth.conf, user);

    if (!id && !directory_user(auth.dir, user)) {
        call_fail(c, ERR_NOTFOUND, "no user '%s'", user);
        return false;
    }
    if (id && id->locked) {
        call_fail_data(c, ERR_PERM, json_make("reason:s", "locked"), "user '%s' is locked", user);
        return false;
    }
    return true;
}

static bool budgets_ok(json_object *budgets)
{
    if (!budgets)
        return true;
    json_object_object_foreach (budgets, tool, n) {
        if (!tool_name_valid(tool, strlen(tool)) || !json_object_is_type(n, json_type_int) ||
            json_object_get_int64(n) < 0)
            return false;
    }
    return true;
}

static void add_or(json_object *o, const char *key, json_object *v, json_object *dflt)
{
    if (v)
        json_put(dflt);
    json_add(o, key, v ? json_object_get(v) : dflt);
}

/* Signs claims (taken), keeps them, answers. */
static void issue(struct call *c, json_object *claims)
{
    const char *text = json_text(claims);
    cleanup(freep) char *token = token_sign(auth.cap_key, text, strlen(text));

    if (strlen(token) > TOKEN_MAX) {
        json_put(claims);
        call_fail(c, ERR_TOOBIG, "the grant list does not fit into a token");
        return;
    }
    json_object *reply =
        json_make("token:s tokenId:s expiresAt:s", token, json_str(claims, "tokenId", ""),
                  json_str(claims, "expiresAt", ""));
    cap_tokens_add(auth.caps, claims, now_ms());
    call_reply(c, reply);
    explicit_bzero(token, strlen(token));
}

static void new_id(json_object *claims)
{
    char id[4 + UUID_LEN] = "cap-";

    uuid4(id + 4);
    json_add_str(claims, "tokenId", id);
}

static void stamp(json_object *claims, int64_t now, int64_t expires)
{
    char ts[RFC3339_LEN];

    json_add_str(claims, "issuedAt", rfc3339(now, ts));
    json_add_str(claims, "expiresAt", rfc3339(expires, ts));
}

static json_object *claims_of(struct args *a, const char *user)
{
    json_object *claims = json_make("kind:s", "CapabilityToken");
    json_object *policy = policy_of(auth.conf, auth.dir, user, NULL);
    char lineage[UUID_LEN];
    const char *given = args_str_or(a, "lineage", 64, NULL);
    const char *atp = args_str_or(a, "atpSession", 64, NULL);

    new_id(claims);
    json_add_str(claims, "lineage", given ? given : uuid4(lineage));
    json_add_int(claims, "pid", args_int(a, "pid", 1, INT32_MAX));
    json_add_int(claims, "hostPid", args_int(a, "hostPid", 1, INT32_MAX));
    json_add_int(claims, "hostStart", args_int(a, "hostStart", 1, INT64_MAX));
    json_add_str(claims, "agent", args_str(a, "agent", 256));
    json_add_str(claims, "sub", user);
    json_add_int(claims, "uid", json_int(policy, "uid", -1));
    json_add_str(claims, "role", json_str(policy, "role", "guest"));
    json_add(claims, "crews", json_object_get(json_arr(policy, "crews")));
    json_add_str(claims, "sessionId", args_str(a, "sessionId", 64));
    json_add_str(claims, "atpSession", atp ? atp : "");
    json_put(policy);
    return claims;
}

void auth_mint(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);

    if (!from_kernel(c, who))
        return;
    const char *user = args_str(&a, "user", NAME_MAX_LEN), *agent = args_str(&a, "agent", 256);
    json_object *granted = args_strs_or(&a, "granted", TOOL_MAX);
    json_object *runtime = args_strs_or(&a, "runtime", TOOL_MAX);
    json_object *limits = args_obj_or(&a, "constraints"), *budgets = args_obj_or(&a, "budgets");
    int64_t ttl = args_int_or(&a, "ttl", 1, TTL_MAX_S, TTL_S), now = now_ms();
    if (!args_bad(&a) && !budgets_ok(budgets))
        args_fail(&a, "budgets", "must map tool names to counts");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!user_ok(c, user))
        return;
    const char *bad = not_permitted(user, agent, granted, runtime);
    if (bad) {
        call_fail_data(c, ERR_PERM, json_make("tool:s", bad), "the policy of '%s' has no '%s'",
                       user, bad);
        return;
    }
    json_object *claims = claims_of(&a, user);
    if (args_bad(&a)) {
        json_put(claims);
        call_bad_args(c, &a);
        return;
    }
    add_or(claims, "granted", granted, json_new_arr());
    add_or(claims, "runtime", runtime, json_new_arr());
    add_or(claims, "constraints", limits, json_new());
    add_or(claims, "budgets", budgets, json_new());
    stamp(claims, now, now + ttl * 1000);
    /* a new process of this PID: the tokens of the one before are worthless anyway, and go */
    if (tokens_revoke(NULL, json_int(claims, "pid", 0)))
        revoke_commit(NULL, NULL);
    auth.n.minted++;
    issue(c, claims);
}

void auth_renew(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);

    if (!from_kernel(c, who))
        return;
    const char *id = args_str(&a, "tokenId", 64);
    json_object *granted = args_arr(&a, "granted");
    (void)args_strs_or(&a, "granted", TOOL_MAX);
    json_object *limits = args_obj_or(&a, "constraints"), *budgets = args_obj_or(&a, "budgets");
    bool extend = args_bool_or(&a, "extend", true);
    if (!args_bad(&a) && !budgets_ok(budgets))
        args_fail(&a, "budgets", "must map tool names to counts");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    const struct cap_token *old = cap_tokens_get(auth.caps, id);
    if (!old) {
        call_fail(c, ERR_NOTFOUND, "no token '%s'%s", id,
                  revoked_has(auth.revoked, REV_TOKEN, id) ? ": it was revoked" : "");
        return;
    }
    if (!user_ok(c, old->user))
        return;
    const char *bad = not_permitted(old->user, json_str(old->claims, "agent", ""), granted, NULL);
    if (bad) {
        call_fail_data(c, ERR_PERM, json_make("tool:s", bad), "the policy of '%s' has no '%s'",
                       old->user, bad);
        return;
    }
    int64_t now = now_ms(), expires = extend ? now + TTL_S * 1000LL : old->expires_at;
    json_object *claims = json_dup(old->claims);
    json_object *policy = policy_of(auth.conf, auth.dir, old->user, NULL);
    new_id(claims);
    json_add_str(claims, "role", json_str(policy, "role", "guest"));
    json_add(claims, "crews", json_object_get(json_arr(policy, "crews")));
    json_put(policy);
    json_add(claims, "granted", json_object_get(granted));
    if (limits)
        json_add(claims, "constraints", json_object_get(limits));
    if (budgets)
        json_add(claims, "budgets", json_object_get(budgets));
    stamp(claims, now, expires);
    auth.n.renewed++;
    issue(c, claims);
}

struct waiting {
    struct call *c;
    json_object *reply;
};

static void revoke_saved(int err, void *arg)
{
    struct waiting *w = arg;

    if (err) {
        call_fail(w->c, ERR_INTERNAL, "revoked, but not on disk: %s", strerror(-err));
        json_put(w->reply);
    } else {
        call_reply(w->c, w->reply);
    }
    free(w);
}

void auth_revoke(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);

    if (!from_kernel(c, who))
        return;
    const char *id = args_str_or(&a, "tokenId", 64, NULL);
    int64_t pid = args_int_or(&a, "pid", 1, INT32_MAX, 0), n = 0, now = now_ms();
    const char *lineage = args_str_or(&a, "lineage", 64, NULL);
    if (!args_bad(&a) && !id && !pid && !lineage)
        args_fail(&a, "tokenId", "missing, and no pid either");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (id) {
        const struct cap_token *t = cap_tokens_get(auth.caps, id);

        if (!t && !revoked_has(auth.revoked, REV_TOKEN, id)) {
            call_fail(c, ERR_NOTFOUND, "no token '%s'", id);
            return;
        }
        if (t) {
            n += t->expires_at > now;
            token_revoke(t, now);
        }
    }
    if (pid)
        n += tokens_revoke(NULL, pid);
    if (lineage) /* its invocation has ended; no token of it can be renewed into this time */
        revoked_add(auth.revoked, REV_LINEAGE, lineage, now + TTL_MAX_S * 1000LL, now);
    struct waiting *w = xcalloc(1, sizeof(*w));
    *w = (struct waiting){ c, json_make("revoked:i", n) };
    revoke_commit(revoke_saved, w);
}

/* --- looking ------------------------------------------------------------------------------------
 */

static bool expired(json_object *claims, int64_t now)
{
    int64_t at;

    return !rfc3339_parse(json_str(claims, "expiresAt", ""), &at) || at <= now;
}

json_object *atp_claims(const char *token, const char **reason)
{
    json_object *claims = NULL;
    const struct identity *id = NULL;

    *reason = "malformed";
    if (token_verify(auth.atp_key, token, strlen(token), &claims) ||
        !str_eq(json_str(claims, "kind", ""), "ATPToken")) {
        json_put(claims);
        return NULL;
    }
    id = auth_conf_find(auth.conf, json_str(claims, "sub", ""));
    if (expired(claims, now_ms()))
        *reason = "expired";
    else if (revoked_has(auth.revoked, REV_SESSION, json_str(claims, "sessionId", "")) ||
             revoked_has(auth.revoked, REV_TOKEN, json_str(claims, "tokenId", "")) || !id ||
             id->locked)
        *reason = "revoked";
    else
        return claims;
    json_put(claims);
    return NULL;
}

static json_object *invalid(const char *reason)
{
    return json_make("valid:b reason:s", 0, reason);
}

static json_object *cap_state(json_object *claims)
{
    bool old = expired(claims, now_ms());
    bool gone = revoked_has(auth.revoked, REV_TOKEN, json_str(claims, "tokenId", ""));
    json_object *o = json_make("valid:b", !old && !gone);

    if (old || gone)
        json_add_str(o, "reason", gone ? "revoked" : "expired");
    json_add_int(o, "pid", json_int(claims, "pid", 0));
    json_add_str(o, "expires_at", json_str(claims, "expiresAt", ""));
    return o;
}

static json_object *atp_state(const char *token)
{
    const char *reason;
    json_object *claims = atp_claims(token, &reason);

    if (!claims)
        return invalid(reason);
    json_object *o =
        json_make("valid:b pid:i expires_at:s refresh_window_ms:i require_tls:b", 1, (int64_t)0,
                  json_str(claims, "expiresAt", ""), auth.conf->policy.refresh_window_ms,
                  (int)auth.conf->policy.require_tls);
    json_object_object_foreach (claims, key, v) {
        json_add(o, key, json_object_get(v));
    }
    json_add(o, "claims", claims);
    return o;
}

void auth_validate(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *token = args_str_or(&a, "token", TOKEN_MAX, NULL);
    const char *id = args_str_or(&a, "tokenId", 64, NULL);
    cleanup(json_putp) json_object *claims = NULL;
    char kind[32];

    if (!caller_is_unit(who, UNIT_GATEWAY) && !caller_is_unit(who, UNIT_KERNEL)) {
        call_fail(c, ERR_PERM, "%s: for the gateway and the kernel only", c->method);
        return;
    }
    if (!args_bad(&a) && !token && !id)
        args_fail(&a, "token", "missing, and no tokenId either");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!token) {
        const struct cap_token *t = cap_tokens_get(auth.caps, id);

        call_reply(c,
                   t ? cap_state(t->claims)
                     : invalid(revoked_has(auth.revoked, REV_TOKEN, id) ? "revoked" : "unknown"));
        return;
    }
    token_kind(token, strlen(token), kind, sizeof(kind));
    if (str_eq(kind, "ATPToken"))
        call_reply(c, atp_state(token));
    else if (str_eq(kind, "CapabilityToken") &&
             token_verify(auth.cap_key, token, strlen(token), &claims) == 0)
        call_reply(c, cap_state(claims));
    else
        call_reply(c, invalid("malformed"));
}

void auth_revoked(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    int64_t since = args_int_or(&a, "since", 0, INT64_MAX, 0);

    (void)who;
    if (args_bad(&a))
        call_bad_args(c, &a);
    else
        call_reply(c, revoked_since(auth.revoked, since, now_ms()));
}
