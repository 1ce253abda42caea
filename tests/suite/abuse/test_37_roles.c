/* Abuse test 37: every operation by every role on every listener, then foreign targets, then the
 * same straight at the router with a gateway's token. The first part reads the gateway's own table,
 * so a row that is added is tested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "common/ipc/peer.h"
#include "common/svc/token.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

enum { GUEST, USER, OPERATOR, ADMIN, ROLES };
static const char *const roles[ROLES] = { "guest", "user", "operator", "admin" };
static const char *const names[ROLES] = { "gil", "uma", "opal", "admin" };

#define A 1
#define L 0
#define R 0
#define P 0
#define U 0
#define F 0
#define W 0
static const struct row {
    const char *domain, *op;
    int min, admin_only;
} rows[] = {
#define OP(domain, op, min, flags, method, gw) { #domain, #op, min, (flags)&1 },
#include "gateway/ops.def"
#undef OP
};

static struct rig *g;
static char keys[ROLES][64], *tokens[ROLES];

/* The hash of an API key as `config init` writes it. */
static char *key_hash(const char *key)
{
    uint8_t salt[16], mac[32];
    char s[B64URL_LEN(16) + 1], m[B64URL_LEN(32) + 1];
    struct hmac *h;

    rnd_bytes(salt, sizeof(salt));
    h = hmac_new(salt, sizeof(salt));
    hmac_sum(h, key, strlen(key), mac);
    hmac_free(h);
    b64url_encode(salt, sizeof(salt), s);
    b64url_encode(mac, sizeof(mac), m);
    return xasprintf("hmac-sha256:$s1$%s$%s", s, m);
}

static void add_users(struct rig *r)
{
    cleanup(freep) char *conf = rig_read(r, "etc/auth.conf");
    struct buf b = BUF_INIT(1 << 20);

    buf_adds(&b, conf);
    for (int i = 0; i < ADMIN; i++) {
        char rest[33];

        rnd_base62(rest, 32);
        snprintf(keys[i], sizeof(keys[i]), "sk-avix-%s", rest);
        cleanup(freep) char *h = key_hash(keys[i]);
        buf_printf(&b,
                   "  - {name: %s, uid: %d, role: %s, credential: {type: api_key, key_hash: "
                   "\"%s\", ip_allowlist: []}}\n",
                   names[i], 1300 + i, roles[i], h);
    }
    rig_write(r, "etc/auth.conf", b.data);
    buf_done(&b);
}

static int setup(void **state)
{
    struct rig_opts o = { .before = add_users };

    (void)state;
    g = rig_new(&o);
    snprintf(keys[ADMIN], sizeof(keys[ADMIN]), "%s", g->api_key);
    for (int i = 0; i < ROLES; i++)
        assert_int_equal(atp_login(g->port, names[i], keys[i], &tokens[i]), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < ROLES; i++)
        free(tokens[i]);
    rig_stop(g);
    return 0;
}

static const char *code_of(json_object *r)
{
    return json_flag(r, "ok", false) ? "OK" : json_str(json_obj(r, "error"), "code", "?");
}

static bool held_at_the_gate(json_object *r)
{
    json_object *d = json_obj(json_obj(r, "error"), "detail");

    return str_eq(code_of(r), "EPERM") && (json_get(d, "required_role") || json_get(d, "required"));
}

/* Operations that would end the test when they succeed. */
static bool spares(const struct row *o)
{
    return str_eq(o->op, "shutdown") || str_eq(o->op, "restart") || str_eq(o->op, "logout") ||
           str_eq(o->op, "reload");
}

static struct ws *open_as(int role, bool admin)
{
    struct ws *w = ws_open(admin ? g->admin_port : g->port, tokens[role], NULL, NULL);

    assert_non_null(w);
    json_put(ws_event(w, "session.ready", 5000));
    return w;
}

static void each_op_by_role_and_listener(void **state)
{
    (void)state;
    for (int role = 0; role < ROLES; role++)
        for (int admin = 0; admin < 2; admin++) {
            struct ws *w = open_as(role, admin);

            for (size_t i = 0; i < N_ELEMS(rows); i++) {
                const struct row *o = &rows[i];
                bool held = role < o->min || (o->admin_only && !admin);
                json_object *body, *r;

                if (!held && spares(o))
                    continue;
                body = json_make("pid:i path:s from:s to:s signal:s id:s subscription_id:s "
                                 "session_id:s",
                                 (int64_t)999999, "/users/nobody/none", "/users/nobody/a",
                                 "/users/nobody/b", "SIGPAUSE", "none", "none", "none");
                if (str_eq(o->op, "wait"))
                    json_add_int(body, "timeout", 1);
                r = ws_cmd(w, o->domain, o->op, body);
                if (!r || held_at_the_gate(r) != held)
                    fail_msg("%s.%s as %s, %s listener: %s", o->domain, o->op, roles[role],
                             admin ? "admin" : "user", r ? json_text(r) : "no reply");
                json_put(r);
            }
            ws_close(w);
        }
}

static int64_t spawn(struct ws *w, char session[64], char invocation[64])
{
    json_object *r =
        ws_cmd(w, "proc", "spawn", json_make("agent:s goal:s", "researcher", "Say hello."));
    json_object *b = json_obj(r, "body");
    int64_t pid = json_int(b, "pid", 0);

    if (!pid)
        fail_msg("spawn: %s", json_text(r));
    str_copy(session, 64, json_str(b, "session_id", ""));
    str_copy(invocation, 64, json_str(b, "invocation_id", ""));
    json_put(r);
    return pid;
}

static void refused(struct ws *w, const char *domain, const char *op, json_object *body)
{
    cleanup(json_putp) json_object *r = ws_cmd(w, domain, op, body);
    const char *why = json_str(json_obj(json_obj(r, "error"), "detail"), "reason", "");

    /* what has no owner yet is refused as well */
    if (!str_eq(code_of(r), "EPERM") && !str_eq(code_of(r), "ENOTFOUND") &&
        !(str_eq(code_of(r), "EUNAVAIL") && str_eq(why, "ENOTFOUND_METHOD")))
        fail_msg("%s.%s: %s", domain, op, json_text(r));
}

static json_object *stat_of(struct ws *w, int64_t pid)
{
    json_object *r = ws_cmd(w, "proc", "stat", json_make("pid:i", pid));

    if (!str_eq(code_of(r), "OK"))
        fail_msg("stat: %s", json_text(r));
    return r;
}

/* An agent of the admin, seen and changed by nobody below. */
static void foreign_targets(void **state)
{
    struct ws *owner = open_as(ADMIN, false);
    char session[64], inv[64];
    int64_t pid = spawn(owner, session, inv);

    (void)state;
    for (int role = USER; role < ADMIN; role++) {
        struct ws *w = open_as(role, false);
        static const char *const by_pid[] = { "stat", "kill", "pause", "resume", "wait" };
        static const char *const by_session[] = { "session-get", "session-pause",
                                                  "session-resume" };

        for (size_t i = 0; i < N_ELEMS(by_pid); i++)
            refused(w, "proc", by_pid[i], json_make("pid:i", pid));
        for (size_t i = 0; i < N_ELEMS(by_session); i++)
            refused(w, "proc", by_session[i], json_make("session_id:s id:s", session, session));
        refused(w, "proc", "session-delete", json_make("session_id:s force:b", session, 1));
        refused(w, "proc", "spawn",
                json_make("agent:s goal:s session_id:s", "researcher", "mine now", session));
        refused(w, "proc", "invocation-get", json_make("id:s", inv));
        refused(w, "proc", "invocation-snapshot", json_make("id:s", inv));
        refused(w, "signal", "send", json_make("pid:i signal:s", pid, "SIGKILL"));
        refused(w, "signal", "subscribe", json_make("pid:i", pid));
        refused(w, "fs", "write",
                json_make("path:s content:s", "/users/admin/workspace/x", "mine"));
        if (role < OPERATOR)
            refused(w, "proc", "list", json_make("username:s", "admin"));
        ws_close(w);
    }
    json_put(stat_of(owner, pid)); /* it is still there */
    ws_close(owner);
}

static void events_of_others_do_not_arrive(void **state)
{
    struct ws *owner = open_as(ADMIN, false), *other = open_as(USER, false);
    char session[64], inv[64];
    json_object *e, *f = json_make("type:s events:o", "subscribe", json_new_arr());

    (void)state;
    json_push_str(json_arr(f, "events"), "*");
    ws_send(other, f);
    (void)spawn(owner, session, inv);
    while ((e = ws_recv(other, 700))) {
        if (str_starts(json_str(e, "event", ""), "agent.") ||
            str_starts(json_str(e, "event", ""), "proc."))
            fail_msg("a foreign event: %s", json_text(e));
        json_put(e);
    }
    ws_close(owner);
    ws_close(other);
}

/* With the gateway's own kind of token, and a forged _user around a real one. */
static void straight_at_the_router(void **state)
{
    struct ws *owner = open_as(ADMIN, false);
    char session[64], inv[64], id[UUID_LEN], now[RFC3339_LEN];
    int64_t pid = spawn(owner, session, inv);
    char *svc_token = rig_sign(
        "svc", json_make("kind:s tokenId:s unit:s version:s hostPid:i hostStart:i ns:o grants:o "
                         "issuedAt:s",
                         "ServiceToken", uuid4(id), "gateway", "1.0.0", (int64_t)getpid(),
                         (int64_t)proc_start_time(getpid()), json_new_arr(), json_new_arr(),
                         rfc3339(now_ms(), now)));
    static const struct {
        const char *method;
        int role;
    } tries[] = {
        { "kernel/proc/kill", USER },      { "kernel/proc/kill", OPERATOR },
        { "kernel/proc/stat", USER },      { "kernel/proc/setcap", USER },
        { "kernel/proc/kill", GUEST },     { "auth/users/list", USER },
        { "kernel/cap/policy", OPERATOR },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(tries); i++) {
        struct ipc_reply r;
        json_object *user =
            json_make("name:s uid:i role:s crews:o session_id:s token:s", "admin", (int64_t)0,
                      "admin", json_new_arr(), "x", tokens[tries[i].role]);
        json_object *p = json_make("pid:i _user:o _caller:o", pid, user,
                                   json_make("kind:s user:s role:s", "user", "admin", "admin"));
        int err = rig_call(g, svc_token, tries[i].method, json_text(p), &r);

        json_put(p);
        if (err != ERR_PERM && err != ERR_METHOD && err != ERR_NOTFOUND)
            fail_msg("%s as %s: %s", tries[i].method, roles[tries[i].role], err_name(err));
        ipc_reply_done(&r);
    }
    /* a forged token inside _user is no user at all */
    struct ipc_reply r;
    json_object *p = json_make("pid:i _user:o", pid,
                               json_make("name:s role:s token:s", "admin", "admin", "a.b"));
    int err = rig_call(g, svc_token, "kernel/proc/kill", json_text(p), &r);

    assert_true(err == ERR_AUTH || err == ERR_EXPIRED);
    ipc_reply_done(&r);
    json_put(p);
    json_put(stat_of(owner, pid));
    free(svc_token);
    ws_close(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_op_by_role_and_listener),
        cmocka_unit_test(foreign_targets),
        cmocka_unit_test(events_of_others_do_not_arrive),
        cmocka_unit_test(straight_at_the_router),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
