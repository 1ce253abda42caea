/*
 * Login, refresh, logout over HTTP. The gateway passes the credential on to authsvc and forgets it;
 * every refusal reads the same.
 */
#include "common/base/clock.h"
#include "gateway/hosts.h"
#include "gateway/http.h"
#include "gateway/metrics.h"
#include "gateway/surplus.h"

#define AUTH_MS 28000

static void wipe(json_object *o, const char *key)
{
    const char *s = json_str(o, key, NULL);

    if (s) /* json-c keeps the text in place; the object is ours and goes next */
        explicit_bzero((void *)(uintptr_t)s, strlen(s));
}

static void logins(const char *result)
{
    char l[48];

    snprintf(l, sizeof(l), "result=\"%s\"", result);
    metric_add("logins_total", l, 1);
}

static void set_cookie(struct req *r, const char *token, char *out, size_t size)
{
    char value[4096 + 128];

    cookie_make(token, r->f.secure ? -1 : cookie_peer_uid(r->s), value, sizeof(value));
    snprintf(out, size, "Set-Cookie: %s=%s; HttpOnly; SameSite=Strict; Path=/%s\r\n",
             cookie_name(r->f.secure), value, r->f.secure ? "; Secure" : "");
    explicit_bzero(value, sizeof(value));
}

static void clear_cookie(const struct req *r, char *out, size_t size)
{
    snprintf(out, size, "Set-Cookie: %s=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0%s\r\n",
             cookie_name(r->f.secure), r->f.secure ? "; Secure" : "");
}

static void auth_failed(struct req *r, const struct rpc_error *e, bool login)
{
    json_object *body;
    char extra[64];
    int64_t ms;

    switch (e->err) {
    case ERR_LIMIT:
    case ERR_BUSY:
        ms = json_int(e->data, "retry_after_ms", 1000);
        ms = ms < 1 ? 1 : (ms + 999) / 1000;
        snprintf(extra, sizeof(extra), "Retry-After: %lld\r\n", (long long)ms);
        body = json_make("error:s message:s retryAfter:i", "ELIMIT", "too many attempts", ms);
        logins("limited");
        http_json(r, 429, extra, body);
        return;
    case ERR_UNAVAIL:
    case ERR_TIMEOUT:
    case ERR_METHOD:
        http_fail(r, 503, ATP_EUNAVAIL, "Retry-After: 1\r\n", "login is not available now");
        logins("unavailable");
        return;
    case ERR_INVAL:
        http_fail(r, 400, ATP_EPARSE, NULL, "%s", e->message);
        logins("malformed");
        return;
    case ERR_PERM:
        if (strstr(rpc_error_reason(e), "tls")) {
            http_fail(r, 426, ATP_EPERM, NULL, "TLS is required");
            logins("tls");
            return;
        }
        break;
    default:
        break;
    }
    if (login)
        http_fail(r, 401, ATP_EAUTH, NULL, "invalid credential");
    else if (e->err == ERR_EXPIRED || strstr(rpc_error_reason(e), "expired"))
        http_fail(r, 401, ATP_EEXPIRED, NULL, "the token has expired");
    else
        http_fail(r, 401, ATP_EAUTH, NULL, "the token is not valid");
    logins("refused");
}

/* The answer of a login or a refresh. */
static void token_reply(struct req *r, json_object *result, const struct ident *like)
{
    const char *token = json_str(result, "token", "");
    struct ident *i = token[0] ? ident_learn(token, result, like) : NULL;
    char cookie[6144] = "", ts[RFC3339_LEN];

    if (!i) {
        log_error("authsvc answered a login with something else");
        http_fail(r, 500, ATP_EINTERNAL, NULL, "internal error");
        return;
    }
    if (!i->sess->remote[0])
        str_copy(i->sess->remote, sizeof(i->sess->remote), r->f.remote);
    if (!i->sess->client[0])
        str_copy(i->sess->client, sizeof(i->sess->client), r->agent);
    if (r->want_cookie)
        set_cookie(r, token, cookie, sizeof(cookie));
    sock_known(r->s);
    surplus_check(i, json_int(result, "sessions", 0));
    http_json(r, 200, cookie,
              json_make("token:s expiresAt:s sessionId:s identity:s role:s",
                        r->want_cookie ? "" : token, rfc3339(i->exp_ms, ts), i->session,
                        i->identity, role_name(i->role)));
    wipe(result, "token");
    explicit_bzero(cookie, sizeof(cookie));
}

static void on_login(struct ipc_reply *a, void *arg)
{
    struct req *r = arg;

    r->call = NULL;
    if (a->err) {
        auth_failed(r, &a->error, true);
        return;
    }
    logins("ok");
    token_reply(r, a->result, NULL);
}

static bool optional(json_object *o, const char *key, enum json_type t)
{
    json_object *v = json_get(o, key);

    return !v || json_object_is_type(v, t);
}

static bool login_fields(json_object *o)
{
    const char *cred = json_str(o, "credential", "");

    if (!o || !json_object_is_type(o, json_type_object))
        return false;
    if (!optional(o, "identity", json_type_string) || !optional(o, "otp", json_type_string) ||
        !optional(o, "cookie", json_type_boolean) || !json_get(o, "credential") ||
        !optional(o, "credential", json_type_string) || !cred[0])
        return false;
    return json_str(o, "identity", "")[0] || str_starts(cred, "sk-avix-");
}

void http_login(struct req *r)
{
    json_object *o = NULL, *p;
    bool parsed;

    if (!r->json) {
        http_fail(r, 415, ATP_EPARSE, NULL, "a login is application/json");
        return;
    }
    parsed = r->body.len && !json_parse(r->body.data, r->body.len, &o) && login_fields(o);
    if (r->body.data)
        explicit_bzero(r->body.data, r->body.cap);
    if (!parsed) {
        http_fail(r, 400, ATP_EPARSE, NULL,
                  "identity and credential are needed (an API key alone is enough)");
        logins("malformed");
        json_put(o);
        return;
    }
    r->want_cookie = json_flag(o, "cookie", false);
    p = json_make("identity:s credential:s remote:s secure:b admin:b", json_str(o, "identity", ""),
                  json_str(o, "credential", ""), r->f.remote, (int)r->f.secure,
                  (int)r->s->l->admin);
    if (json_get(o, "otp"))
        json_add_str(p, "otp", json_str(o, "otp", ""));
    if (r->agent[0])
        json_add_str(p, "user_agent", r->agent);
    json_object_get(p);
    r->call = svc_call("auth/login", p, NULL, AUTH_MS, on_login, r);
    wipe(p, "credential"); /* it is in the call's text, which the client wipes */
    wipe(o, "credential");
    json_put(p);
    json_put(o);
}

static void on_refresh(struct ipc_reply *a, void *arg)
{
    struct req *r = arg;
    struct ident *like = ident_peek(r->token);

    r->call = NULL;
    if (a->err)
        auth_failed(r, &a->error, false);
    else
        token_reply(r, a->result, like);
}

static bool need_token(struct req *r)
{
    if (r->token)
        return true;
    http_fail(r, 401, ATP_EAUTH, "WWW-Authenticate: Bearer\r\n", "no token");
    return false;
}

void http_refresh(struct req *r)
{
    if (!need_token(r))
        return;
    r->want_cookie = r->by_cookie;
    r->call =
        svc_call("auth/refresh", json_make("token:s", r->token), NULL, AUTH_MS, on_refresh, r);
}

static void on_logout(struct ipc_reply *a, void *arg)
{
    struct req *r = arg;
    char cookie[160];

    r->call = NULL;
    if (a->err) {
        auth_failed(r, &a->error, false);
        return;
    }
    clear_cookie(r, cookie, sizeof(cookie));
    http_answer_static(r, 204, "", r->by_cookie ? cookie : NULL, NULL, 0);
}

void http_logout(struct req *r)
{
    if (!need_token(r))
        return;
    r->call = svc_call("auth/logout", json_make("token:s", r->token), NULL, AUTH_MS, on_logout, r);
}
