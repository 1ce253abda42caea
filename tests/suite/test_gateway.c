/*
 * The gateway as clients meet it: login, upgrade, commands, events, closing. Whole suite, real
 * processes, offline model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

static struct rig *g;

static int setup(void **state)
{
    (void)state;
    g = rig_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

static json_object *parse(const char *text)
{
    json_object *o = NULL;

    if (json_parse(text, strlen(text), &o))
        fail_msg("not JSON: %s", text);
    return o;
}

static char *token(void)
{
    char *t = NULL;

    assert_int_equal(atp_login(g->port, "admin", g->api_key, &t), 0);
    assert_non_null(t);
    return t;
}

/* Status of a request; *body (yours) is what follows the head. */
static int http(const char *method, const char *path, const char *headers, const char *body,
                char **reply)
{
    return http_request(g->port, method, path, headers, body, reply);
}

static void expect_http(int status, const char *contains, const char *method, const char *path,
                        const char *headers, const char *body)
{
    char *reply = NULL;
    int got = http(method, path, headers, body, &reply);

    if (got != status || (contains && !strstr(reply, contains)))
        fail_msg("%s %s: %d instead of %d\n%s", method, path, got, status, reply ? reply : "");
    free(reply);
}

static const char *code_of(json_object *reply)
{
    return json_flag(reply, "ok", false) ? "OK" : json_str(json_obj(reply, "error"), "code", "?");
}

static void expect_code(struct ws *w, const char *code, const char *domain, const char *op,
                        const char *body)
{
    json_object *r = ws_cmd(w, domain, op, parse(body));

    if (!r || !str_eq(code_of(r), code))
        fail_msg("%s.%s: %s instead of %s", domain, op, r ? json_text(r) : "no reply", code);
    if (!str_eq(code, "OK")) {
        assert_string_equal(json_str(r, "code", ""), code);
        assert_string_equal(json_str(r, "message", ""),
                            json_str(json_obj(r, "error"), "message", "x"));
    }
    json_put(r);
}

/* --- HTTP ------------------------------------------------------------------------------------- */

#define JSON "Content-Type: application/json\r\n"

static void health_and_files(void **state)
{
    (void)state;
    expect_http(200, "\r\n\r\nok", "GET", "/atp/health", NULL, NULL);
    expect_http(200, "{\"status\":\"ok\",\"version\":", "GET", "/healthz", NULL, NULL);
    expect_http(200,
                "{\"ready\":true,\"checks\":{\"router\":\"ok\",\"authsvc\":\"ok\",\"kernel\":"
                "\"ok\",\"ring\":\"ok\"}}",
                "GET", "/readyz", NULL, NULL);
    expect_http(200, "<!doctype html>", "GET", "/", NULL, NULL);
    expect_http(200, "no-cache", "GET", "/some/page", NULL, NULL);
    expect_http(200, "text/css", "GET", "/style.css", NULL, NULL);
    expect_http(200, "frame-ancestors 'none'", "GET", "/", NULL, NULL);
    expect_http(200, "X-Content-Type-Options: nosniff", "GET", "/healthz", NULL, NULL);
    expect_http(404, "ENOTFOUND", "GET", "/nothing.js", NULL, NULL);
    expect_http(404, "ENOTFOUND", "GET", "/../../etc/passwd.txt", NULL, NULL);
    expect_http(404, "ENOTFOUND", "GET", "/v1/models", NULL, NULL);
    expect_http(405, "Allow: GET, HEAD", "POST", "/", "Content-Length: 0\r\n", NULL);
    expect_http(405, "Allow: POST", "GET", "/atp/auth/login", NULL, NULL);
    expect_http(426, NULL, "GET", "/atp", NULL, NULL);
    expect_http(200, "no-store", "GET", "/atp/health", NULL, NULL);
}

static void metrics_of_all(void **state)
{
    static const char *const names[] = { "avix_gateway_http_requests_total{",
                                         "avix_gateway_logins_total{result=\"ok\"}",
                                         "avix_gateway_ring_events ", "avix_gateway_seq ",
                                         "avix_build_info{version=" };
    char *t = token(), *reply = NULL;

    (void)state;
    assert_int_equal(http("GET", "/metrics", NULL, NULL, &reply), 200);
    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (!strstr(reply, names[i]))
            fail_msg("%s is missing in\n%s", names[i], reply);
    assert_null(strstr(reply, t));
    assert_null(strstr(reply, g->api_key));
    free(reply);
    /* a forwarding header makes it a remote request: that needs a token */
    expect_http(401, "EAUTH", "GET", "/metrics", "X-Forwarded-For: 127.0.0.1\r\n", NULL);
    free(t);
}

static void login_answers(void **state)
{
    char *body = xasprintf("{\"identity\":\"admin\",\"credential\":\"%s\"}", g->api_key);
    char *anon = xasprintf("{\"credential\":\"%s\"}", g->api_key);

    (void)state;
    expect_http(200, "\"identity\":\"admin\",\"role\":\"admin\"", "POST", "/atp/auth/login", JSON,
                body);
    expect_http(200, "\"identity\":\"admin\"", "POST", "/atp/auth/login", JSON, anon);
    expect_http(415, "EPARSE", "POST", "/atp/auth/login", "Content-Type: text/plain\r\n", body);
    expect_http(415, "EPARSE", "POST", "/atp/auth/login",
                "Content-Type: application/x-www-form-urlencoded\r\n", "identity=a&credential=b");
    expect_http(400, "EPARSE", "POST", "/atp/auth/login", JSON, "{\"identity\":\"admin\"}");
    expect_http(400, "EPARSE", "POST", "/atp/auth/login", JSON, "{\"credential\":\"hunter2\"}");
    expect_http(400, "EPARSE", "POST", "/atp/auth/login", JSON,
                "{\"identity\":5,\"credential\":\"x\"}");
    expect_http(400, "EPARSE", "POST", "/atp/auth/login", JSON, "not json");
    expect_http(400, "EPARSE", "POST", "/atp/auth/login", JSON, "[]");
    char *big = xmalloc(9000);
    memset(big, ' ', 8999);
    big[8999] = '\0';
    expect_http(413, "ELIMIT", "POST", "/atp/auth/login", JSON, big);
    free(big);
    free(body);
    free(anon);
}

/* "Name: value" of a reply's head; yours. */
static char *header(const char *reply, const char *name)
{
    const char *p = strcasestr(reply, name);

    if (!p)
        return NULL;
    p += strlen(name);
    p += strspn(p, ": ");
    return xstrndup(p, strcspn(p, "\r\n"));
}

static void refresh_and_logout(void **state)
{
    char *t = token(), *h = xasprintf("Authorization: Bearer %s\r\nContent-Length: 0\r\n", t);
    char *bare = xasprintf("authorization: bearer %s\r\n", t), *reply = NULL;
    int status = 0;

    (void)state;
    assert_int_equal(http("POST", "/atp/auth/refresh", h, NULL, &reply), 200);
    assert_non_null(strstr(reply, "\"token\":\""));
    free(reply);
    expect_http(204, NULL, "POST", "/atp/auth/logout", bare, NULL);
    expect_http(401, "EAUTH", "POST", "/atp/auth/refresh", h, NULL);
    assert_null(ws_open(g->port, t, NULL, &status));
    assert_int_equal(status, 401);
    expect_http(401, "EAUTH", "POST", "/atp/auth/logout", "Content-Length: 0\r\n", NULL);
    free(t);
    free(h);
    free(bare);
}

/* The cookie form: token empty, cookie good only with an Origin of our own. */
static void the_cookie_of_a_browser(void **state)
{
    char *body =
        xasprintf("{\"identity\":\"admin\",\"credential\":\"%s\",\"cookie\":true}", g->api_key);
    char *origin = xasprintf("Origin: http://localhost:%d\r\n", g->port);
    char *reply = NULL, *set, *cookie, *with, *alone, *tampered;
    struct ws *w;
    int status = 0;

    (void)state;
    assert_int_equal(http("POST", "/atp/auth/login", JSON, body, &reply), 200);
    assert_non_null(strstr(reply, "\"token\":\"\""));
    set = header(reply, "Set-Cookie");
    assert_non_null(set);
    assert_true(str_starts(set, "avix_atp="));
    assert_non_null(strstr(set, "; HttpOnly; SameSite=Strict; Path=/"));
    set[strcspn(set, ";")] = '\0';
    cookie = xasprintf("Cookie: %s\r\n", set);
    with = xasprintf("%s%s", cookie, origin);
    w = ws_open(g->port, NULL, with, &status);
    if (!w)
        fail_msg("cookie with Origin: %d", status);
    ws_close(w);
    assert_null(ws_open(g->port, NULL, cookie, &status));
    assert_int_equal(status, 403);
    alone = xasprintf("%sContent-Length: 0\r\n", cookie);
    expect_http(403, "EPERM", "POST", "/atp/auth/logout", alone, NULL);
    set[strlen(set) - 1] ^= 1;
    tampered = xasprintf("Cookie: %s\r\n%s", set, origin);
    assert_null(ws_open(g->port, NULL, tampered, &status));
    assert_int_equal(status, 401);
    free(alone);
    alone = xasprintf("%sContent-Length: 0\r\n", with);
    free(reply);
    assert_int_equal(http("POST", "/atp/auth/refresh", alone, NULL, &reply), 200);
    assert_non_null(strstr(reply, "Set-Cookie: avix_atp="));
    free(reply);
    assert_int_equal(http("POST", "/atp/auth/logout", alone, NULL, &reply), 204);
    assert_non_null(strstr(reply, "Max-Age=0"));
    free(reply);
    free(body);
    free(origin);
    free(set);
    free(cookie);
    free(with);
    free(alone);
    free(tampered);
}

static void upgrade_refusals(void **state)
{
    char *t = token();
    int status = 0;

    (void)state;
    assert_null(ws_open(g->port, NULL, NULL, &status));
    assert_int_equal(status, 401);
    assert_null(ws_open(g->port, "forged.token", NULL, &status));
    assert_int_equal(status, 401);
    assert_null(ws_open(g->port, t, "Origin: http://evil.example\r\n", &status));
    assert_int_equal(status, 403);
    assert_null(ws_open(g->port, t, "Origin: null\r\n", &status));
    assert_int_equal(status, 403);
    assert_null(ws_open(g->port, t, "Sec-WebSocket-Protocol: atp\r\n", &status));
    assert_int_equal(status, 400);
    struct ws *w = ws_open(g->port, t, NULL, &status);
    assert_non_null(w);
    ws_close(w);
    free(t);
}

/* --- commands --------------------------------------------------------------------------------- */

static void ready_says_who_and_where(void **state)
{
    char *t = token();
    int status = 0;
    struct ws *w = ws_open(g->port, t, NULL, &status);
    cleanup(json_putp) json_object *f = ws_recv(w, 5000);
    json_object *b = json_obj(f, "body");

    (void)state;
    assert_string_equal(json_str(f, "event", ""), "session.ready");
    assert_int_equal(json_int(f, "seq", -1), 0);
    assert_string_equal(json_str(b, "session_id", "x"), json_str(b, "sessionId", "y"));
    assert_string_equal(json_str(b, "role", ""), "admin");
    assert_string_equal(json_str(b, "identity", ""), "admin");
    assert_true(json_arr_has(json_arr(b, "features"), "subscribe-reply"));
    assert_false(json_arr_has(json_arr(b, "features"), "hil-list"));
    assert_true(json_int(b, "headSeq", 0) > 0);
    assert_int_equal(json_int(json_obj(b, "limits"), "maxFrame", 0), 4194304);
    assert_string_equal(json_str(b, "adminUrl", ""), g->admin_url);
    ws_close(w);
    free(t);
}

static void commands_and_their_errors(void **state)
{
    struct ws *w = ws_admin(g);

    (void)state;
    expect_code(w, "OK", "auth", "whoami", "{}");
    expect_code(w, "OK", "session", "ready", "{}");
    expect_code(w, "OK", "proc", "list", "{}");
    expect_code(w, "OK", "proc", "list-installed", "{}");
    expect_code(w, "OK", "proc", "session-list", "{}");
    expect_code(w, "OK", "proc", "invocation-list", "{}");
    expect_code(w, "OK", "auth", "sessions", "{}");
    expect_code(w, "OK", "signal", "list", "{}");
    expect_code(w, "OK", "sys", "status", "{}");
    expect_code(w, "OK", "fs", "list", "{\"path\":\"/users/admin\"}");
    expect_code(w, "EPARSE", "proc", "nope", "{}");
    expect_code(w, "EPARSE", "nope", "nope", "{}");
    expect_code(w, "EPARSE", "proc", "message-list", "{}");
    expect_code(w, "EPERM", "sys", "shutdown", "{}");
    expect_code(w, "EPERM", "fs", "read", "{\"path\":\"/secrets/x\"}");
    expect_code(w, "EPERM", "fs", "write", "{\"path\":\"/proc/x\",\"content\":\"\"}");
    expect_code(w, "EPARSE", "fs", "read", "{\"path\":\"/users/../x\"}");
    expect_code(w, "ENOTFOUND", "proc", "stat", "{\"pid\":999999}");
    expect_code(w, "ENOTFOUND", "proc", "spawn", "{\"agent\":\"no-such-agent\",\"goal\":\"x\"}");
    expect_code(w, "ENOTFOUND", "fs", "read", "{\"path\":\"/users/admin/nothing\"}");
    expect_code(w, "EUNAVAIL", "cron", "list", "{}");
    ws_close(w);
}

static void files_through_the_gateway(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r;

    (void)state;
    expect_code(w, "OK", "fs", "write",
                "{\"path\":\"/users/admin/workspace/a.txt\",\"content\":\"hello\"}");
    r = ws_cmd(w, "fs", "read", parse("{\"path\":\"/users/admin/workspace/a.txt\"}"));
    assert_string_equal(json_str(json_obj(r, "body"), "content", ""), "hello");
    json_put(r);
    expect_code(w, "OK", "fs", "stat", "{\"path\":\"/users/admin/workspace/a.txt\"}");
    expect_code(w, "OK", "fs", "mkdir", "{\"path\":\"/users/admin/workspace/d\"}");
    expect_code(
        w, "OK", "fs", "move",
        "{\"from\":\"/users/admin/workspace/a.txt\",\"to\":\"/users/admin/workspace/d/b\"}");
    expect_code(w, "OK", "fs", "delete",
                "{\"path\":\"/users/admin/workspace/d\",\"recursive\":true}");
    ws_close(w);
}

static void the_id_of_a_command_is_used_once(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r;

    (void)state;
    for (int i = 0; i < 2; i++) {
        ws_send(w,
                parse("{\"type\":\"cmd\",\"id\":\"twice\",\"domain\":\"auth\",\"op\":\"whoami\"}"));
        r = ws_recv(w, 5000);
        assert_string_equal(code_of(r), i ? "EPARSE" : "OK");
        json_put(r);
    }
    /* a command that was refused does not use its id up */
    for (int i = 0; i < 2; i++) {
        ws_send(w,
                parse("{\"type\":\"cmd\",\"id\":\"free\",\"domain\":\"sys\",\"op\":\"shutdown\"}"));
        r = ws_recv(w, 5000);
        assert_string_equal(code_of(r), "EPERM");
        json_put(r);
    }
    ws_close(w);
}

static void the_token_of_a_command(void **state)
{
    struct ws *w = ws_admin(g);
    char *other = token();
    json_object *c, *r;

    (void)state;
    c = json_make("type:s id:s domain:s op:s token:s", "cmd", "t1", "auth", "whoami", other);
    ws_send(w, c);
    r = ws_recv(w, 5000);
    assert_string_equal(code_of(r), "ESESSION");
    json_put(r);
    c = json_make("type:s id:s domain:s op:s token:s", "cmd", "t2", "auth", "whoami", "junk.junk");
    ws_send(w, c);
    r = ws_recv(w, 5000);
    assert_string_equal(code_of(r), "EAUTH");
    json_put(r);
    ws_close(w);
    free(other);
}

static void a_refreshed_token_is_the_connections(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r = ws_cmd(w, "auth", "refresh", json_new()), *c;
    const char *t = json_str(json_obj(r, "body"), "token", "");

    (void)state;
    assert_true(strlen(t) > 20);
    c = json_make("type:s id:s domain:s op:s token:s", "cmd", "r1", "auth", "whoami", t);
    json_put(r);
    ws_send(w, c);
    r = ws_recv(w, 5000);
    assert_string_equal(code_of(r), "OK");
    json_put(r);
    ws_close(w);
}

static void operations_of_the_admin_listener(void **state)
{
    char *t = token();
    int status = 0;
    struct ws *w = ws_open(g->admin_port, t, NULL, &status);

    (void)state;
    assert_non_null(w);
    /* it passes the listener's gate; its owner may not be there yet */
    json_object *r = ws_cmd(w, "cap", "policy/get", json_new());
    assert_string_not_equal(code_of(r), "EPERM");
    json_put(r);
    ws_close(w);
    free(t);
}

/* --- malformed input and close codes ---------------------------------------------------------- */

static void malformed_frames(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r;

    (void)state;
    ws_send(w, parse("{\"type\":\"what\",\"id\":\"m1\"}"));
    r = ws_recv(w, 5000);
    assert_string_equal(json_str(r, "id", ""), "m1");
    assert_string_equal(code_of(r), "EPARSE");
    json_put(r);
    ws_send(
        w,
        parse("{\"type\":\"cmd\",\"id\":\"m2\",\"domain\":\"proc\",\"op\":\"list\",\"body\":7}"));
    r = ws_recv(w, 5000);
    assert_string_equal(code_of(r), "EPARSE");
    json_put(r);
    for (int i = 0; i < 19; i++) /* without an id: ignored and counted */
        ws_send_raw(w, 1, "nonsense", 8, true);
    expect_code(w, "OK", "auth", "whoami", "{}");
    ws_send_raw(w, 1, "nonsense", 8, true);
    r = ws_event(w, "session.closing", 5000);
    assert_non_null(r);
    json_put(r);
    assert_null(ws_recv(w, 5000));
    assert_int_equal(ws_close_code(w), 1008);
    ws_close(w);
}

static int closes_with(int opcode, const void *data, size_t len)
{
    struct ws *w = ws_admin(g);
    json_object *r;
    int code;

    ws_send_raw(w, opcode, data, len, true);
    while ((r = ws_recv(w, 5000)))
        json_put(r);
    code = ws_close_code(w);
    ws_close(w);
    return code;
}

static void close_codes(void **state)
{
    size_t big = (4U << 20) + 1;
    char *data = xmalloc(big);

    (void)state;
    memset(data, ' ', big);
    assert_int_equal(closes_with(2, "{}", 2), 1003);
    assert_int_equal(closes_with(1, "\xff\xfe", 2), 1007);
    assert_int_equal(closes_with(1, data, big), 1009);
    free(data);
}

static void logout_closes_with_1000_and_the_others_with_4003(void **state)
{
    char *t = token();
    int status = 0;
    struct ws *a = ws_open(g->port, t, NULL, &status), *b = ws_open(g->port, t, NULL, &status);
    json_object *r;

    (void)state;
    r = ws_cmd(a, "auth", "logout", json_new());
    assert_string_equal(code_of(r), "OK");
    json_put(r);
    r = ws_event(a, "session.closing", 5000);
    assert_string_equal(json_str(json_obj(r, "body"), "reason", ""), "logout");
    json_put(r);
    while ((r = ws_recv(a, 5000)))
        json_put(r);
    assert_int_equal(ws_close_code(a), 1000);
    r = ws_event(b, "session.closing", 5000);
    assert_string_equal(json_str(json_obj(r, "body"), "reason", ""), "token_revoked");
    assert_int_equal(json_int(json_obj(r, "body"), "code", 0), 4003);
    json_put(r);
    while ((r = ws_recv(b, 5000)))
        json_put(r);
    assert_int_equal(ws_close_code(b), 4003);
    ws_close(a);
    ws_close(b);
    free(t);
}

static void a_kick_closes_every_connection_of_the_session(void **state)
{
    struct ws *w = ws_admin(g);
    char *t = token();
    int status = 0;
    struct ws *victim = ws_open(g->port, t, NULL, &status);
    cleanup(json_putp) json_object *ready = ws_recv(victim, 5000);
    const char *sid = json_str(json_obj(ready, "body"), "sessionId", "");
    char *body = xasprintf("{\"session_id\":\"%s\"}", sid);
    json_object *r;

    (void)state;
    expect_code(w, "OK", "auth", "kick", body);
    while ((r = ws_recv(victim, 5000)))
        json_put(r);
    assert_int_equal(ws_close_code(victim), 4003);
    assert_null(ws_open(g->port, t, NULL, &status));
    assert_int_equal(status, 401);
    expect_code(w, "ENOTFOUND", "auth", "kick", "{\"session_id\":\"none\"}");
    expect_code(w, "EPARSE", "auth", "kick", "{}");
    ws_close(victim);
    ws_close(w);
    free(body);
    free(t);
}

static void too_fast_is_limited(void **state)
{
    struct ws *w = ws_admin(g);
    unsigned limited = 0, ok = 0;

    (void)state;
    for (int i = 0; i < 700; i++) {
        char id[24];

        snprintf(id, sizeof(id), "fast-%d", i);
        ws_send(w, json_make("type:s id:s domain:s op:s", "cmd", id, "session", "ready"));
    }
    for (int i = 0; i < 700; i++) {
        cleanup(json_putp) json_object *r = ws_recv(w, 5000);

        assert_non_null(r);
        if (str_eq(code_of(r), "OK"))
            ok++;
        else if (str_eq(code_of(r), "ELIMIT"))
            limited++;
    }
    assert_int_equal(ok + limited, 700);
    assert_in_range(ok, 400, 690);
    ws_close(w);
}

/* --- events ----------------------------------------------------------------------------------- */

static void subscribe_all(struct ws *w, int64_t since)
{
    json_object *f = parse("{\"type\":\"subscribe\",\"events\":[\"*\"]}");

    if (since >= 0)
        json_add_int(f, "since_seq", since);
    ws_send(w, f);
}

static json_object *spawn(struct ws *w, const char *goal)
{
    json_object *r = ws_cmd(w, "proc", "spawn", json_make("agent:s goal:s", "researcher", goal));

    if (!str_eq(code_of(r), "OK"))
        fail_msg("spawn: %s", json_text(r));
    return r;
}

static void an_agent_streams_to_its_user(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r, *e;
    int64_t pid;
    char text[16384] = "", pid_text[24];
    uint64_t last = 0;
    bool spawned = false, output = false, final = false;

    (void)state;
    subscribe_all(w, -1);
    r = spawn(w, "Say hello and stop.");
    pid = json_int(json_obj(r, "body"), "pid", 0);
    assert_string_equal(json_str(json_obj(r, "body"), "status", ""), "running");
    snprintf(pid_text, sizeof(pid_text), "%lld", (long long)pid);
    json_put(r);
    for (int64_t end = mono_ms() + 20000; mono_ms() < end;) {
        const char *kind;
        json_object *b;
        bool idle;

        e = ws_recv(w, 20000);
        assert_non_null(e);
        kind = json_str(e, "event", "");
        b = json_obj(e, "body");
        if (json_int(e, "seq", 0)) {
            assert_true((uint64_t)json_int(e, "seq", 0) > last);
            last = (uint64_t)json_int(e, "seq", 0);
        }
        if (str_starts(kind, "agent."))
            assert_string_equal(json_str(b, "pid", ""), pid_text);
        spawned |= str_eq(kind, "agent.spawned");
        output |= str_eq(kind, "agent.output");
        if (str_eq(kind, "agent.output.chunk")) {
            assert_true(spawned);
            size_t n = strlen(text);
            snprintf(text + n, sizeof(text) - n, "%s", json_str(b, "text_delta", ""));
            final |= json_flag(b, "is_final", false);
        }
        idle = str_eq(kind, "agent.status") && json_flag(b, "idle", false);
        idle |= str_eq(kind, "agent.exit");
        json_put(e);
        if (idle)
            break;
    }
    assert_true(spawned);
    assert_true(final);
    assert_true(text[0] != '\0');
    assert_false(output); /* the stream was complete and "*" was all that was asked for */
    ws_close(w);
}

static void since_seq_brings_the_same_bytes(void **state)
{
    struct ws *w = ws_admin(g), *again = ws_admin(g);
    json_object *r, *e;
    char *first[256];
    unsigned n = 0, same = 0;
    int64_t from;

    (void)state;
    r = ws_cmd(w, "sys", "status", json_new());
    from = json_int(json_obj(r, "body"), "headSeq", 0);
    json_put(r);
    subscribe_all(w, -1);
    json_put(spawn(w, "Say hello and stop."));
    while (n < 256 && (e = ws_recv(w, 10000))) {
        bool idle = str_eq(json_str(e, "event", ""), "agent.status") &&
                    json_flag(json_obj(e, "body"), "idle", false);

        if (json_int(e, "seq", 0) && !str_eq(json_str(e, "event", ""), "agent.output.chunk"))
            first[n++] = xstrdup(json_text(e));
        json_put(e);
        if (idle)
            break;
    }
    assert_true(n >= 3);
    subscribe_all(again, from);
    while (same < n && (e = ws_recv(again, 5000))) {
        if (!str_eq(json_str(e, "event", ""), "agent.output")) {
            assert_string_equal(json_text(e), first[same]);
            same++;
        }
        json_put(e);
    }
    assert_int_equal(same, n);
    for (unsigned i = 0; i < n; i++)
        free(first[i]);
    ws_close(w);
    ws_close(again);
}

static void a_subscribe_with_an_id_is_answered(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *r;

    (void)state;
    ws_send(w,
            parse("{\"type\":\"subscribe\",\"id\":\"s1\",\"events\":[\"agent.exit\",\"no.kind\"],"
                  "\"since_seq\":0}"));
    r = ws_recv(w, 5000);
    assert_string_equal(json_str(r, "id", ""), "s1");
    json_object *b = json_obj(r, "body");
    assert_true(json_arr_has(json_arr(b, "subscribed"), "agent.exit"));
    assert_true(json_arr_has(json_arr(b, "ignored"), "no.kind"));
    assert_true(json_flag(b, "gap", false)); /* a cursor from before this boot */
    assert_true(json_int(b, "headSeq", 0) > 0);
    json_put(r);
    ws_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_and_files),
        cmocka_unit_test(metrics_of_all),
        cmocka_unit_test(login_answers),
        cmocka_unit_test(refresh_and_logout),
        cmocka_unit_test(the_cookie_of_a_browser),
        cmocka_unit_test(upgrade_refusals),
        cmocka_unit_test(ready_says_who_and_where),
        cmocka_unit_test(commands_and_their_errors),
        cmocka_unit_test(files_through_the_gateway),
        cmocka_unit_test(the_id_of_a_command_is_used_once),
        cmocka_unit_test(the_token_of_a_command),
        cmocka_unit_test(a_refreshed_token_is_the_connections),
        cmocka_unit_test(operations_of_the_admin_listener),
        cmocka_unit_test(malformed_frames),
        cmocka_unit_test(close_codes),
        cmocka_unit_test(logout_closes_with_1000_and_the_others_with_4003),
        cmocka_unit_test(a_kick_closes_every_connection_of_the_session),
        cmocka_unit_test(too_fast_is_limited),
        cmocka_unit_test(an_agent_streams_to_its_user),
        cmocka_unit_test(since_seq_brings_the_same_bytes),
        cmocka_unit_test(a_subscribe_with_an_id_is_answered),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
