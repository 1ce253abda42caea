/* Calls through the real router: what passes, what is refused and in which order, what happens when
 * either end is slow, dead or hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "tests/rig/guest.h"

#define ALL "echo/echo echo/slow echo/keep echo/stream echo/raw echo/old echo/close echo/exit"

static struct rig *g;
static struct guest *s;

static int up(void **state)
{
    (void)state;
    g = rig_new(NULL);
    s = guest_start(g, NULL);
    return 0;
}

static int down(void **state)
{
    (void)state;
    guest_stop(s);
    rig_stop(g);
    return 0;
}

/* The outcome of one call. */
struct got {
    int err;
    char name[32], reason[64], phase[32];
    int forwarded; /* -1: not said */
    json_object *result;
};

static struct got call(const char *token, const char *method, const char *params)
{
    struct ipc_reply r;
    struct got o = { .forwarded = -1 };
    json_object *f;

    o.err = rig_call(g, token, method, params, &r);
    o.result = TAKE(r.result);
    f = json_get(r.error.data, "forwarded");
    if (f)
        o.forwarded = json_object_get_boolean(f);
    str_copy(o.name, sizeof(o.name), json_str(r.error.data, "errno", ""));
    str_copy(o.reason, sizeof(o.reason), json_str(r.error.data, "reason", ""));
    str_copy(o.phase, sizeof(o.phase), json_str(r.error.data, "phase", ""));
    ipc_reply_done(&r);
    return o;
}

static void passes_and_is_stamped(void **state)
{
    cleanup(freep) char *t =
        rig_token(g, ALL, json_make("pid:i sub:s crews:o", (int64_t)812, "alice", json_new_arr()));
    struct got o =
        call(t, "echo/echo",
             "{\"a\":[1,{\"_token\":2}],\"_caller\":{\"user\":\"root\"},\"_caller_pid\":1,"
             "\"_caller_user\":\"root\",\"_trace\":1,\"_later\":1,\"z\":null}");
    json_object *who = json_obj(o.result, "_caller");

    (void)state;
    assert_int_equal(o.err, 0);
    assert_string_equal(json_text(json_get(o.result, "a")), "[1,{\"_token\":2}]");
    assert_int_equal(json_object_object_length(o.result), 3); /* a, z, _caller */
    assert_string_equal(json_str(who, "kind", ""), "agent");
    assert_string_equal(json_str(who, "user", ""), "alice");
    assert_string_equal(json_str(who, "tool", ""), "echo/echo");
    assert_int_equal(json_int(who, "pid", 0), 812);
    assert_true(str_starts(json_str(who, "token", ""), "ct_"));
    assert_true(strlen(json_str(who, "call_id", "")) > 4);
    assert_string_not_equal(json_str(who, "token", ""), t);
    json_put(o.result);
}

/* --- raw connections ----------------------------------------------------------------------------
 */

static int raw_open(void)
{
    int fd = ipc_connect(rig_sock(g, "router.sock"), false);

    assert_true(fd >= 0);
    return fd;
}

static const char *raw_read(int fd)
{
    static char text[1 << 20];
    size_t n = 0;
    ssize_t r;

    while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)r;
    close(fd);
    text[n] = '\0';
    return n > 4 ? text + 4 : "";
}

static const char *raw_call(const char *body)
{
    int fd = raw_open();

    assert_int_equal(frame_write_fds(fd, body, strlen(body), NULL, 0), 0);
    return raw_read(fd);
}

static void ids_come_back_as_they_went(void **state)
{
    static const char *const ids[] = { "7", "-9007199254740992", "\"x\\\"y\"", "\"\xc3\xa4\"" };
    static const char *const back[] = { "7", "-9007199254740992", "\"x\\\"y\"", "\"\xc3\xa4\"" };
    cleanup(freep) char *t = rig_token(g, ALL, NULL);

    (void)state;
    for (size_t i = 0; i < N_ELEMS(ids); i++) {
        cleanup(freep) char *body =
            xasprintf("{\"extra\":1,\"id\":%s,\"jsonrpc\":\"2.0\",\"method\":\"echo/echo\","
                      "\"params\":{\"_token\":\"%s\"}}",
                      ids[i], t);
        cleanup(freep) char *want = xasprintf("\"id\":%s,", back[i]);
        const char *got = raw_call(body);

        if (!strstr(got, want) || !strstr(got, "\"result\""))
            fail_msg("id %s: %s", ids[i], got);
    }
}

static void malformed_frames_are_named(void **state)
{
    static const struct {
        const char *sent, *code;
    } rows[] = {
        { "{\"jsonrpc\":\"2.0\",\"id\":1,", "-32700" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a/b\",\"params\":{\"a\":1,\"a\":2}}",
          "-32700" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a/b\",\"params\":{\"a\":\"\xff\"}}",
          "-32700" },
        { "\xef\xbb\xbf{}", "-32700" },
        { "[]", "-32600" },
        { "{}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"a/b\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":9007199254740993,\"method\":\"a/b\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"a/b\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\\u0000b\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a/b\",\"params\":[]}", "-32602" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"a/b\",\"params\":[]}", "" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"a/b\",\"params\":{}}", "" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int fd = raw_open();

        assert_int_equal(frame_write_fds(fd, rows[i].sent, strlen(rows[i].sent), NULL, 0), 0);
        shutdown(fd, SHUT_WR);
        const char *got = raw_read(fd);

        if (*rows[i].code ? !strstr(got, rows[i].code) : *got != '\0')
            fail_msg("%s gave %s", rows[i].sent, got);
    }
}

static void nesting_has_a_limit(void **state)
{
    char body[512], *p = body;

    (void)state;
    p += snprintf(p, sizeof(body),
                  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a/b\",\"params\":{\"a\":");
    for (int i = 0; i < 70; i++)
        *p++ = '[';
    for (int i = 0; i < 70; i++)
        *p++ = ']';
    *p++ = '}';
    *p++ = '}';
    *p = '\0';
    assert_non_null(strstr(raw_call(body), "-32700"));
}

static void lengths_out_of_range(void **state)
{
    char hdr[4];
    int fd = raw_open();

    (void)state;
    frame_put_len(hdr, FRAME_MAX + 1);
    assert_int_equal(write(fd, hdr, 4), 4);
    assert_non_null(strstr(raw_read(fd), "-32031"));
    frame_put_len(hdr, 0);
    fd = raw_open();
    assert_int_equal(write(fd, hdr, 4), 4);
    assert_non_null(strstr(raw_read(fd), "-32600"));
    frame_put_len(hdr, 1000); /* half a frame, then the end */
    fd = raw_open();
    assert_int_equal(write(fd, hdr, 4), 4);
    assert_int_equal(write(fd, "{\"json", 6), 6);
    shutdown(fd, SHUT_WR);
    assert_string_equal(raw_read(fd), "");
}

static void slow_writers_are_served_and_bounded(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    cleanup(freep) char *body = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo/echo\","
                                          "\"params\":{\"_token\":\"%s\"}}",
                                          t);
    size_t n = strlen(body);
    char hdr[4];
    int fd = raw_open(), late = raw_open();
    int64_t t0 = mono_ms();

    (void)state;
    assert_int_equal(write(late, "\x40\0", 2), 2);
    frame_put_len(hdr, (uint32_t)n);
    assert_int_equal(write(fd, hdr, 4), 4);
    for (size_t i = 0; i < n; i += 7)
        assert_true(write(fd, body + i, n - i < 7 ? n - i : 7) > 0);
    assert_non_null(strstr(raw_read(fd), "\"result\""));
    assert_string_equal(raw_read(late), ""); /* ten seconds for a whole frame */
    assert_in_range(mono_ms() - t0, 9000, 13000);
}

static void one_request_per_connection(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    cleanup(freep) char *body = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo/keep\","
                                          "\"params\":{\"_token\":\"%s\"}}",
                                          t);
    int fd = raw_open(), one = 1;

    (void)state;
    while (*guest_event(s, 50))
        ;
    assert_int_equal(frame_write_fds(fd, body, strlen(body), NULL, 0), 0);
    assert_string_equal(guest_event(s, 5000), "call echo/keep");
    assert_int_equal(frame_write_fds(fd, body, strlen(body), NULL, 0), 0);
    assert_non_null(strstr(raw_read(fd), "-32600"));
    assert_string_equal(guest_event(s, 5000), "gone echo/keep");
    fd = raw_open(); /* a descriptor has no business here */
    assert_int_equal(frame_write_fds(fd, body, strlen(body), &one, 1), 0);
    assert_non_null(strstr(raw_read(fd), "-32600"));
}

/* --- who may call what --------------------------------------------------------------------------
 */

static char *with(const char *granted, const char *key, const char *value)
{
    return rig_token(g, granted, json_make(key, value));
}

static void refusals_in_order(void **state)
{
    cleanup(freep) char *good = rig_token(g, "echo/echo", NULL);
    cleanup(freep) char *none = rig_token(g, "", NULL);
    cleanup(freep) char *old = with(ALL, "expiresAt:s", "2020-01-01T00:00:00Z");
    cleanup(freep) char *other = rig_token(g, ALL, json_make("hostPid:i", (int64_t)getppid()));
    cleanup(freep) char *reborn = rig_token(g, ALL, json_make("hostStart:i", (int64_t)1));
    cleanup(freep) char *atp = rig_sign(
        "atp", json_make("kind:s tokenId:s sub:s uid:i role:s sessionId:s expiresAt:s", "ATPToken",
                         "x", "admin", (int64_t)1001, "admin", "y", "2099-01-01T00:00:00Z"));
    cleanup(freep) char *wrong_kind = rig_sign(
        "atp", json_make("kind:s tokenId:s pid:i hostPid:i hostStart:i sub:s expiresAt:s",
                         "CapabilityToken", "x", (int64_t)5, (int64_t)getpid(),
                         (int64_t)proc_start_time(getpid()), "admin", "2099-01-01T00:00:00Z"));
    cleanup(freep) char *cut = xstrndup(good, strlen(good) - 1);
    cleanup(freep) char *flipped = xstrdup(good);
    const struct {
        const char *token, *method, *name, *reason;
    } rows[] = {
        { NULL, "echo/echo", "EAUTH", "missing" },
        { NULL, "no/such", "EAUTH", "missing" }, /* an anonymous caller learns no names */
        { "x", "no/such", "EAUTH", NULL },
        { cut, "echo/echo", "EAUTH", NULL },
        { flipped, "echo/echo", "EAUTH", NULL },
        { old, "no/such", "EEXPIRED", "expired" },
        { other, "echo/echo", "EAUTH", "process" },
        { reborn, "echo/echo", "EAUTH", "process" },
        { atp, "echo/echo", "EAUTH", NULL },
        { wrong_kind, "echo/echo", "EAUTH", NULL },
        { good, "no/such", "ENOTFOUND_METHOD", NULL },
        { good, "echo/slow", "EPERM", NULL },
        { none, "echo/echo", "EPERM", NULL }, /* an empty list grants nothing */
        { none, "no/such", "ENOTFOUND_METHOD", NULL },
        { good, "kernel/ipc/view", "ENOTFOUND_METHOD", NULL }, /* internal */
        { good, "kernel/proc/kill", "EPERM", NULL },
    };

    (void)state;
    flipped[10] ^= 1;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct got o = call(rows[i].token, rows[i].method, "{}");

        if (!str_eq(o.name, rows[i].name) || (rows[i].reason && !str_eq(o.reason, rows[i].reason)))
            fail_msg("row %zu: %s %s", i, o.name, o.reason);
        assert_int_equal(o.result == NULL, 1);
    }
    struct got tools = call(none, "sys/tools", "{\"granted_only\":true}");

    assert_int_equal(tools.err, 0); /* always there */
    json_put(tools.result);
}

/* Granted and always present ones; what only the executor needs can be called, but is not listed.
 */
static void the_list_of_grants(void **state)
{
    json_object *runtime = json_new_arr();
    json_push_str(runtime, "echo/echo");
    json_push_str(runtime, "echo/slow");
    cleanup(freep) char *t = rig_token(g, "echo/slow", json_make("runtime:o", runtime));
    struct got list = call(t, "sys/tools", "{\"granted_only\":true}");
    json_object *rows = json_arr(list.result, "tools");
    bool slow = false, always = false;

    (void)state;
    assert_int_equal(list.err, 0);
    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        const char *name = json_str(json_object_array_get_idx(rows, i), "name", "");
        slow = slow || str_eq(name, "echo/slow");
        always = always || str_eq(name, "sys/tools");
        assert_string_not_equal(name, "echo/echo");
    }
    assert_true(slow && always);
    json_put(list.result);
    struct got o = call(t, "echo/echo", "{}");
    assert_int_equal(o.err, 0);
    json_put(o.result);
}

static void destructive_calls_need_an_approval(void **state)
{
    cleanup(freep) char *t = rig_token(g, "kernel/proc/kill", NULL);
    struct got o = call(t, "kernel/proc/kill", "{\"pid\":99999}");

    (void)state;
    assert_string_equal(o.name, "EDENIED");
    assert_string_equal(o.reason, "approval");
}

static void reserved_names_are_not_believed(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    struct got o;

    (void)state;
    o = call(t, "echo/echo", "{\"_user\":{\"name\":\"root\",\"uid\":0,\"role\":\"admin\"}}");
    assert_string_equal(o.name, "EAUTH");
    o = call(t, "echo/echo", "{\"_as\":\"ct_00000000000000000000000000000000\"}");
    assert_string_equal(o.name, "EAUTH");
    o = call(t, "echo/echo", "{\"_peer\":{\"pid\":1,\"start\":1}}"); /* only the kernel's counts */
    assert_int_equal(o.err, 0);
    assert_null(json_get(o.result, "_peer"));
    json_put(o.result);
    o = call(NULL, "echo/echo", "{\"_caller_token\":\"x\"}");
    assert_string_equal(o.name, "EAUTH");
}

static void budgets_are_counted(void **state)
{
    json_object *b = json_make("echo/echo:i", (int64_t)2);
    cleanup(freep) char *t =
        rig_token(g, ALL, json_make("budgets:o lineage:s", b, "budget-test-1"));
    struct got o;

    (void)state;
    for (int i = 0; i < 2; i++) {
        o = call(t, "echo/echo", "{}");
        assert_int_equal(o.err, 0);
        json_put(o.result);
    }
    o = call(t, "echo/echo", "{}");
    assert_string_equal(o.name, "EBUDGET");
    rig_kill_unit(g, "router"); /* what is used stays used */
    o = call(t, "echo/echo", "{}");
    assert_string_equal(o.name, "EBUDGET");
    o = call(t, "echo/old", "{}");
    assert_int_equal(o.err, 0);
    json_put(o.result);
}

/* --- owners that misbehave -----------------------------------------------------------------------
 */

static void nonsense_from_an_owner(void **state)
{
    static const char *const frames[] = {
        "nonsense",
        "[]",
        "{\"jsonrpc\":\"2.0\",\"id\":\"other\",\"result\":1}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\",\"result\":1,\"error\":{\"code\":1,\"message\":\"\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\",\"error\":{\"code\":\"x\",\"message\":\"\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\",\"error\":7}",
        "{\"jsonrpc\":\"1.0\",\"id\":\"$ID\",\"result\":1}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\",\"result\":1",
    };
    cleanup(freep) char *t = rig_token(g, ALL, NULL);

    (void)state;
    for (size_t i = 0; i < N_ELEMS(frames); i++) {
        cleanup(json_putp) json_object *p = json_make("frame:s", frames[i]);
        struct got o = call(t, "echo/raw", json_text(p));

        if (!str_eq(o.name, "EINTERNAL") || !str_eq(o.reason, "bad_reply") || o.forwarded != 1)
            fail_msg("%s: %s %s", frames[i], o.name, o.reason);
    }
    cleanup(json_putp) json_object *third =
        json_make("frame:s", "{\"jsonrpc\":\"2.0\",\"id\":\"$ID\",\"error\":{\"code\":-32003,"
                             "\"message\":\"no\",\"data\":{\"k\":1}}}");
    struct got o = call(t, "echo/raw", json_text(third));

    assert_string_equal(o.name, "ENOTFOUND"); /* put in by the router */
    o = call(t, "echo/close", "{}");
    assert_string_equal(o.name, "EUNAVAIL");
    assert_int_equal(o.forwarded, 1);
}

static void owner_knows_itself_by_its_name_only(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct got o = call(t, "echo/old", "{\"q\":1}");

        assert_int_equal(o.err, 0);
        json_put(o.result);
    }
    while (*guest_event(s, 50))
        ;
}

static void deadlines(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    int64_t t0 = mono_ms();
    struct got o = call(t, "echo/keep", "{\"_timeout_ms\":150}");

    (void)state;
    assert_string_equal(o.name, "ETIMEOUT");
    assert_string_equal(o.phase, "call");
    assert_in_range(mono_ms() - t0, 100, 2000);
    while (*guest_event(s, 50))
        ;
}

/* --- hanging up ----------------------------------------------------------------------------------
 */

static int start_call(const char *token, const char *method, const char *params)
{
    cleanup(freep) char *body = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":\"k\",\"method\":\"%s\","
                                          "\"params\":{\"_token\":\"%s\"%s}}",
                                          method, token, params);
    int fd = raw_open();

    assert_int_equal(frame_write_fds(fd, body, strlen(body), NULL, 0), 0);
    return fd;
}

static void hang_up_cancels(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    int fd = start_call(t, "echo/keep", "");
    int64_t t0;

    (void)state;
    assert_string_equal(guest_event(s, 5000), "call echo/keep");
    t0 = mono_ms();
    close(fd);
    assert_string_equal(guest_event(s, 5000), "gone echo/keep");
    assert_true(mono_ms() - t0 < 2000);
    fd = start_call(t, "echo/slow", ",\"ms\":300"); /* half-closed is not gone */
    shutdown(fd, SHUT_WR);
    assert_non_null(strstr(raw_read(fd), "\"result\""));
    while (*guest_event(s, 50))
        ;
}

static void streams_pass_in_order(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    int fd = start_call(t, "echo/stream", ",\"n\":500,\"size\":50");
    struct frame_in in;
    const char *body = NULL;
    size_t len = 0;
    int64_t want = 500;

    (void)state;
    frame_in_init(&in, FRAME_MAX);
    for (;;) {
        enum frame_result r = frame_in_read(&in, fd, &body, &len);
        cleanup(json_putp) json_object *o = NULL;

        if (r == FRAME_MORE)
            continue;
        assert_int_equal(r, FRAME_READY);
        assert_int_equal(json_parse(body, len, &o), 0);
        if (json_get(o, "id"))
            break;
        assert_int_equal(json_int(json_obj(o, "params"), "left", -1), want);
        want--;
    }
    assert_int_equal(want, 0);
    frame_in_done(&in);
    close(fd);
    while (*guest_event(s, 50))
        ;
}

/* A caller that does not read: the owner is held back, the router's memory stays small. */
static void slow_readers_hold_the_owner_back(void **state)
{
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    int fd = start_call(t, "echo/stream", ",\"n\":4000,\"size\":10000");
    size_t total = 0;
    static char sink[1 << 16];
    ssize_t n;
    int64_t least = 4000;
    const char *line;

    (void)state;
    while (*(line = guest_event(s, 300)))
        if (str_starts(line, "left "))
            least = strtoll(line + 5, NULL, 10);
    assert_true(least > 3000); /* 40 MB were asked for; under 10 MB can be on the way */
    while ((n = read(fd, sink, sizeof(sink))) > 0)
        total += (size_t)n;
    assert_true(total > 4000UL * 10000);
    close(fd);
    while (*guest_event(s, 50))
        ;
}

static void owner_dies(void **state)
{
    cleanup(freep) char *t = rig_token(g, "end/keep end/exit end/echo", NULL);
    struct guest *e = guest_start(g, &(struct guest_opts){ .name = "end" });
    int fd = start_call(t, "end/keep", "");
    struct got o;

    (void)state;
    assert_string_equal(guest_event(e, 5000), "call end/keep");
    o = call(t, "end/exit", "{}");
    assert_string_equal(o.name, "EUNAVAIL");
    assert_int_equal(o.forwarded, 1);
    assert_non_null(strstr(raw_read(fd), "EUNAVAIL"));
    do /* its tools go with it, as soon as its end is known */
        o = call(t, "end/echo", "{}");
    while (str_eq(o.name, "EUNAVAIL"));
    assert_string_equal(o.name, "ENOTFOUND_METHOD");
    guest_stop(e);
}

static void stranger_of_another_uid(void **state)
{
    pid_t pid;
    int status;

    (void)state;
    if (geteuid() != 0)
        skip();
    pid = fork();
    if (!pid) {
        static const char body[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sys/tools\"}";
        int fd = ipc_connect(rig_sock(g, "router.sock"), false);
        char c;

        if (fd < 0 || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
            _exit(2);
        if (ipc_connect(rig_sock(g, "router.sock"), false) >= 0)
            _exit(3); /* mode 0600 */
        frame_write_fds(fd, body, sizeof(body) - 1, NULL, 0);
        _exit(read(fd, &c, 1) > 0 ? 4 : 0); /* closed without a reply */
    }
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* 4096 connections that say nothing: the next is told, and when one goes there is room again. */
static void so_many_connections(void **state)
{
    static int fds[4096];
    struct rlimit l = { 8192, 8192 };
    cleanup(freep) char *t = rig_token(g, ALL, NULL);
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo/echo\",\"params\":{\"_token\":\"%s\"}}",
        t);
    int fd, n = 0;
    const char *got = "";

    (void)state;
    if (setrlimit(RLIMIT_NOFILE, &l))
        skip();
    while (n < 4096 && (fds[n] = ipc_connect(rig_sock(g, "router.sock"), false)) >= 0)
        n++;
    assert_int_equal(n, 4096);
    fd = raw_open();
    got = raw_read(fd);
    assert_non_null(strstr(got, "-32008"));
    for (int i = 0; i < n; i++)
        close(fds[i]);
    do
        got = raw_call(body);
    while (strstr(got, "-32008"));
    assert_non_null(strstr(got, "\"result\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_and_is_stamped),
        cmocka_unit_test(ids_come_back_as_they_went),
        cmocka_unit_test(malformed_frames_are_named),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(lengths_out_of_range),
        cmocka_unit_test(slow_writers_are_served_and_bounded),
        cmocka_unit_test(one_request_per_connection),
        cmocka_unit_test(refusals_in_order),
        cmocka_unit_test(the_list_of_grants),
        cmocka_unit_test(destructive_calls_need_an_approval),
        cmocka_unit_test(reserved_names_are_not_believed),
        cmocka_unit_test(nonsense_from_an_owner),
        cmocka_unit_test(owner_knows_itself_by_its_name_only),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(hang_up_cancels),
        cmocka_unit_test(streams_pass_in_order),
        cmocka_unit_test(slow_readers_hold_the_owner_back),
        cmocka_unit_test(owner_dies),
        cmocka_unit_test(stranger_of_another_uid),
        cmocka_unit_test(so_many_connections),
        cmocka_unit_test(budgets_are_counted),
    };

    return cmocka_run_group_tests_name("router", tests, up, down);
}
