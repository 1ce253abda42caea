/*
 * Login. Whatever is wrong (name, credential, address, a locked user), the answer is one text after
 * one password hash, so neither words nor time tell what it was; only a good API key is answered
 * without a hash. Counting comes first: a locked pair is refused even with the right credential.
 */
#include "authsvc/login.h"

#include "authsvc/cap.h"
#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

#define AGENT_MAX 256

struct login {
    struct call *c; /* NULL: the caller hung up */
    char identity[NAME_MAX_LEN + 1], addr[ADDR_KEY_LEN], remote[64], client[AGENT_MAX + 1];
    struct addr from;
    bool known_addr, was_wrong; /* was_wrong: decided before the hash */
    char password[160];         /* the hash that was checked */
    json_object *reply;
};

static void login_free(struct login *l)
{
    json_put(l->reply);
    explicit_bzero(l, sizeof(*l));
    free(l);
}

static void gone(void *arg)
{
    struct login *l = arg;

    call_end(l->c);
    l->c = NULL;
}

/* --- tokens -------------------------------------------------------------------------------------
 */

/* {token, expiresAt, sessionId, identity, uid, role, crews}; yours. */
static json_object *token_reply(const struct identity *id, const char *session, int64_t login_at,
                                int64_t now, int64_t *expires)
{
    const struct login_policy *p = &auth.conf->policy;
    char token_id[UUID_LEN], t1[RFC3339_LEN], t2[RFC3339_LEN], t3[RFC3339_LEN];
    json_object *crews = directory_crews_of(auth.dir, id->name, NULL);

    *expires = now + p->session_ttl_ms;
    if (*expires > login_at + p->session_max_ms)
        *expires = login_at + p->session_max_ms;
    rfc3339(*expires, t3);
    cleanup(json_putp) json_object *claims = json_make(
        "kind:s tokenId:s sub:s uid:i role:s crews:o sessionId:s loginAt:s issuedAt:s expiresAt:s",
        "ATPToken", uuid4(token_id), id->name, id->uid, role_name(id->role), json_object_get(crews),
        session, rfc3339(login_at, t1), rfc3339(now, t2), t3);
    const char *text = json_text(claims);
    cleanup(freep) char *token = token_sign(auth.atp_key, text, strlen(text));
    json_object *o = json_make("token:s expiresAt:s sessionId:s identity:s uid:i role:s crews:o",
                               token, t3, session, id->name, id->uid, role_name(id->role), crews);
    explicit_bzero(token, strlen(token));
    json_add_int(o, "refresh_window_ms", p->refresh_window_ms);
    json_add_bool(o, "require_tls", p->require_tls);
    return o;
}

static void answer_saved(int err, void *arg)
{
    struct login *l = arg;

    if (l->c && err)
        call_fail(l->c, ERR_INTERNAL, "the session could not be stored: %s", strerror(-err));
    else if (l->c)
        call_reply(l->c, TAKE(l->reply));
    login_free(l);
}

/* Who is counted. A name that nobody has may be a password in the wrong field: the counters, and
 * their file, know it by a MAC. */
static const char *counted_as(const char *identity, char out[NAME_MAX_LEN + 1])
{
    uint8_t sum[32];

    if (!*identity || auth_conf_find(auth.conf, identity))
        return identity;
    hmac_sum(auth.atp_key, identity, strlen(identity), sum);
    out[0] = '?';
    hex_encode(sum, 16, out + 1);
    return out;
}

static void succeed(struct login *l, const struct identity *id)
{
    int64_t now = now_ms(), expires;
    char session[UUID_LEN];

    lockout_succeeded(auth.lockout, l->identity, l->addr, now);
    l->reply = token_reply(id, uuid4(session), now, now, &expires);
    struct session *s =
        sessions_add(auth.sessions, session, id->name, l->remote, l->client, now, expires);
    s->role = id->role;
    json_add_int(l->reply, "sessions", sessions_of(auth.sessions, id->name, now));
    auth.n.logins++;
    log_info("login: %s from %s", id->name, l->remote);
    sessions_save(auth.sessions, now, answer_saved, l);
}

/* --- refusing -----------------------------------------------------------------------------------
 */

static void alert(const struct login *l)
{
    cleanup(freep) char *text =
        auth_conf_find(auth.conf, l->identity)
            ? xasprintf("logins of '%s' from %s are locked after repeated failures", l->identity,
                        l->addr)
            : xasprintf("logins from %s are locked after repeated failures", l->addr);

    auth.n.alerts++;
    log_warn("%s", text);
    svc_publish("sys.alert", json_make("level:s message:s source:s", "warn", text, "authsvc"), NULL,
                NULL, ROLE_OPERATOR);
}

static void count_failure(const struct login *l)
{
    char name[NAME_MAX_LEN + 1];

    auth.n.refused++;
    if (lockout_failed(auth.lockout, counted_as(l->identity, name), l->addr, now_ms()))
        alert(l);
}

static void refuse(struct login *l)
{
    const struct identity *id = auth_conf_find(auth.conf, l->identity);

    log_warn("login refused: %s from %s", id ? id->name : "unknown identity", l->remote);
    if (l->c)
        call_fail_data(l->c, ERR_DENIED, json_make("reason:s", "invalid credential"),
                       "invalid credential");
    login_free(l);
}

static void limited(struct call *c, int64_t wait)
{
    auth.n.limited++;
    call_fail_data(c, ERR_LIMIT, json_make("limit:s retry_after_ms:i", "login", wait),
                   "too many failed logins; try again in %lld s", (long long)(wait + 999) / 1000);
}

static bool usable(const struct login *l, const struct identity *id)
{
    const struct account *u = directory_user(auth.dir, id->name);

    return !id->locked && identity_admits(id, l->known_addr ? &l->from : NULL) &&
           !(u && u->nologin);
}

/* The hash is done: a real one decides, a dummy never says yes. */
static void hashed(bool ok, void *arg)
{
    struct login *l = arg;
    /* the configuration may have changed meanwhile */
    const struct identity *id = auth_conf_find(auth.conf, l->identity);

    if (!l->was_wrong) {
        ok = ok && id && id->type == CRED_PASSWORD && str_eq(id->password, l->password) &&
             usable(l, id);
        if (ok) {
            succeed(l, id);
            return;
        }
        count_failure(l);
    }
    refuse(l);
}

static void check_slowly(struct login *l, const char *hash, const char *credential)
{
    if (password_check(auth.passwords, hash, credential, l->addr, hashed, l) == 0) {
        call_on_gone(l->c, gone, l);
        return;
    }
    auth.n.limited++;
    call_fail_data(l->c, ERR_BUSY, json_make("retry_after_ms:i", (int64_t)1000),
                   "too many logins at once");
    login_free(l);
}

/* --- API keys -----------------------------------------------------------------------------------
 */

static const struct identity *key_owner(const char *key)
{
    const struct identity *found = NULL;
    const uint8_t *cred = svc_key(KEY_CRED);

    for (size_t i = 0; i < auth.conf->n_ids; i++) {
        const struct identity *id = &auth.conf->ids[i];

        if (id->type == CRED_API_KEY && key_hash_match(&id->key, key, cred))
            found = id;
    }
    return found;
}

static void rewritten(int err, void *arg)
{
    (void)arg;
    if (!err)
        auth_reread();
}

/* Older and unbound hashes become what the policy wants; the key is at hand only now. */
static void rehash(const struct identity *id, const char *key)
{
    const uint8_t *cred = svc_key(KEY_CRED);
    enum key_form want = auth.conf->policy.bind_api_keys && cred ? KEY_K1 : KEY_S1;
    struct yaml_err e;
    struct auth_conf *check = NULL;
    cleanup(freep) char *path = xasprintf("%s/etc/auth.conf", svc.root), *text = NULL;
    size_t len;

    if (id->key.form == want || id->key.form == KEY_K1 || file_read(path, YAML_MAX, &text, &len))
        return;
    cleanup(freep) char *hash = key_hash_new(want, key, cred);
    char *out = auth_conf_replace(text, id->key_text, hash);
    if (!out || auth_conf_parse(out, strlen(out), &check, &e)) {
        log_warn("%s: the key hash of '%s' could not be rewritten", path, id->name);
        free(out);
        return;
    }
    auth_conf_free(check);
    log_info("%s: the key hash of '%s' is rewritten", path, id->name);
    store_save(auth.conf_file, out, rewritten, NULL);
}

static void login_with(struct login *l, const char *credential)
{
    const struct identity *id = NULL;
    bool named = l->identity[0] != '\0';

    if (!named) {
        id = key_owner(credential);
    } else {
        id = auth_conf_find(auth.conf, l->identity);
        if (id && id->type == CRED_PASSWORD) {
            str_copy(l->password, sizeof(l->password), id->password);
            check_slowly(l, id->password, credential);
            return;
        }
        if (id && !key_hash_match(&id->key, credential, svc_key(KEY_CRED)))
            id = NULL;
    }
    if (id && usable(l, id)) {
        rehash(id, credential);
        succeed(l, id);
        return;
    }
    l->was_wrong = true;
    count_failure(l);
    check_slowly(l, NULL, credential);
}

static bool from_gateway(struct call *c, const struct caller *who)
{
    if (caller_is_unit(who, UNIT_GATEWAY))
        return true;
    call_fail(c, ERR_PERM, "%s: for the gateway only", c->method);
    return false;
}

void auth_login(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);

    if (!from_gateway(c, who))
        return;
    const char *identity = args_str_or(&a, "identity", NAME_MAX_LEN, "");
    const char *credential = args_str(&a, "credential", PASSWORD_MAX);
    const char *remote = args_str(&a, "remote", 63),
               *client = args_str_or(&a, "user_agent", 4096, "");
    bool admin = args_bool_or(&a, "admin", false); /* it came over the admin listener */
    bool secure = args_bool_or(&a, "secure", true);
    (void)args_str_or(&a, "otp", 64, NULL);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (auth.conf->policy.require_tls && !secure) {
        call_fail_data(c, ERR_PERM, json_make("reason:s", "tls"), "TLS is required");
        return;
    }
    struct login *l = xcalloc(1, sizeof(*l));
    l->c = c;
    str_copy(l->identity, sizeof(l->identity), identity);
    str_copy(l->remote, sizeof(l->remote), remote);
    str_copy(l->client, sizeof(l->client), client);
    l->client[utf8_floor(l->client, strlen(l->client))] = '\0';
    l->known_addr = addr_parse(remote, &l->from);
    if (l->known_addr)
        addr_key(&l->from, l->addr);
    else
        str_copy(l->addr, sizeof(l->addr), remote);
    const struct identity *id = auth_conf_find(auth.conf, identity);
    admin = admin && l->known_addr && addr_loopback(&l->from);
    char name[NAME_MAX_LEN + 1];
    int64_t wait = lockout_wait(auth.lockout, counted_as(identity, name), l->addr,
                                id && id->type == CRED_PASSWORD, admin, now_ms());
    if (wait) {
        login_free(l);
        limited(c, wait);
        return;
    }
    login_with(l, credential);
}

/* --- sessions -----------------------------------------------------------------------------------
 */

static void denied(struct call *c, const char *reason)
{
    call_fail_data(c, ERR_DENIED, json_make("reason:s", reason), "%s", reason);
}

/* Valid claims of the token in the params; else the call is answered. */
static json_object *own_claims(struct call *c, struct args *a)
{
    const char *reason, *token = args_str(a, "token", TOKEN_MAX);

    if (args_bad(a)) {
        call_bad_args(c, a);
        return NULL;
    }
    json_object *claims = atp_claims(token, &reason);
    if (!claims)
        denied(c, reason);
    return claims;
}

void auth_refresh(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    cleanup(json_putp) json_object *claims = own_claims(c, &a);
    int64_t login_at = 0, now = now_ms(), expires;

    (void)who;
    if (!claims)
        return;
    const struct identity *id = auth_conf_find(auth.conf, json_str(claims, "sub", ""));
    if (!rfc3339_parse(json_str(claims, "loginAt", ""), &login_at) ||
        login_at + auth.conf->policy.session_max_ms <= now) {
        denied(c, "session_max");
        return;
    }
    if (!str_eq(json_str(claims, "role", ""), role_name(id->role))) {
        denied(c, "revoked"); /* the role changed while we were down */
        return;
    }
    const char *sid = json_str(claims, "sessionId", "");
    struct login *l = xcalloc(1, sizeof(*l));
    l->c = c;
    l->reply = token_reply(id, sid, login_at, now, &expires);
    struct session *s = sessions_get(auth.sessions, sid);
    if (!s) {
        s = sessions_add(auth.sessions, sid, id->name, "", "", now, expires);
        s->login_at = login_at;
        s->role = id->role;
    }
    s->active_at = now;
    if (expires > s->expires_at)
        s->expires_at = expires;
    auth.n.refreshed++;
    call_on_gone(c, gone, l);
    sessions_save(auth.sessions, now, answer_saved, l);
}

static void logged_out(int err, void *arg)
{
    struct call *c = arg;

    if (err)
        call_fail(c, ERR_INTERNAL, "ended, but not on disk: %s", strerror(-err));
    else
        call_reply(c, json_make("ok:b", 1));
}

void auth_logout(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    bool all = args_bool_or(&a, "all", false);
    cleanup(json_putp) json_object *claims = own_claims(c, &a);

    (void)who;
    if (!claims)
        return;
    const char *user = json_str(claims, "sub", "");
    int64_t until = 0;
    (void)rfc3339_parse(json_str(claims, "expiresAt", ""), &until);
    session_revoke(json_str(claims, "sessionId", ""), until);
    if (all)
        session_revoke_user(user);
    log_info("logout: %s%s", user, all ? ", every session" : "");
    revoke_commit(logged_out, c);
}

/* An admin, or a unit by itself, may look at everyone. */
static bool sees_all(const struct caller *who)
{
    return who->kind == CALLER_SERVICE || who->role >= ROLE_ADMIN;
}

static json_object *session_row(const struct session *s)
{
    const struct identity *id = auth_conf_find(auth.conf, s->identity);
    char t1[RFC3339_LEN], t2[RFC3339_LEN];
    json_object *o =
        json_make("sessionId:s identity:s role:s connectedAt:s lastActivityAt:s "
                  "remote:s connections:i state:s",
                  s->id, s->identity, id ? role_name(id->role) : "guest", rfc3339(s->login_at, t1),
                  rfc3339(s->active_at, t2), s->remote, (int64_t)0, "idle");

    if (*s->client)
        json_add_str(o, "client", s->client);
    return o;
}

void auth_sessions(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *user = args_str_or(&a, "username", NAME_MAX_LEN, "");
    bool own = who->kind != CALLER_SERVICE;
    const struct session *s;

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (own && !*user)
        user = who->user;
    if (own && !str_eq(user, who->user) && !sees_all(who)) {
        call_fail(c, ERR_PERM, "sessions of others need the role admin");
        return;
    }
    int64_t now = now_ms();
    json_object *rows = json_new_arr();
    for (size_t i = 0; (s = sessions_each(auth.sessions, &i));)
        if ((!*user || str_eq(s->identity, user)) && s->expires_at > now)
            json_push(rows, session_row(s));
    call_reply(c, rows);
}

static void kicked(int err, void *arg)
{
    struct call *c = arg;

    if (err)
        call_fail(c, ERR_INTERNAL, "ended, but not on disk: %s", strerror(-err));
    else
        call_reply(c, json_make("kicked:i", (int64_t)1));
}

void auth_kick(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *alt = args_str_or(&a, "sessionId", 64, NULL);
    const char *sid = alt ? args_str_or(&a, "session_id", 64, alt) : args_str(&a, "session_id", 64);

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    const struct session *s = sessions_get(auth.sessions, sid);
    if (!s || (!sees_all(who) && !str_eq(s->identity, who->user))) {
        call_fail(c, ERR_NOTFOUND, "no session '%s'", sid);
        return;
    }
    log_info("session of %s ended by %s", s->identity, *who->user ? who->user : who->service);
    session_revoke(sid, s->expires_at);
    revoke_commit(kicked, c);
}
