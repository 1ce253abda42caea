/* Server and clients against each other, on one loop, over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include <errno.h>

#include "common/ipc/client.h"
#include "common/ipc/frame.h"
#include "common/ipc/server.h"

static struct {
    struct loop *l;
    struct server *s;
    int listen_fd;
    char path[64];
    struct call *kept;
    int n_notes, n_gone, n_drained, n_calls;
    char last_note[64];
    bool keep_gone;
} t;

static void on_gone(void *arg)
{
    t.n_gone++;
    if (!t.keep_gone)
        call_end(arg);
    t.kept = NULL;
}

static void on_drain(void *arg)
{
    (void)arg;
    t.n_drained++;
}

static void serve(struct call *c, void *arg)
{
    (void)arg;
    t.n_calls++;
    if (c->note) {
        t.n_notes++;
        snprintf(t.last_note, sizeof(t.last_note), "%s", json_str(c->params, "text", ""));
        call_end(c);
    } else if (str_eq(c->method, "echo")) {
        call_reply(c, json_object_get(c->params));
    } else if (str_eq(c->method, "fail")) {
        call_fail_data(c, ERR_NOENT, json_make("path:s", "/x"), "no %s", "file");
    } else if (str_eq(c->method, "keep")) {
        t.kept = c;
        call_on_gone(c, on_gone, c);
        call_on_drain(c, on_drain, NULL);
    } else if (str_eq(c->method, "stream")) {
        for (int i = 0; i < 3; i++)
            call_note(c, "tick", json_make("n:i", (int64_t)i));
        call_reply(c, NULL);
    } else {
        call_fail(c, ERR_METHOD, NULL);
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    str_copy(a.sun_path, sizeof(a.sun_path), path);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 512), 0);
    return fd;
}

static int up_with(const struct server_opts *o)
{
    memset(&t, 0, sizeof(t));
    snprintf(t.path, sizeof(t.path), "/tmp/ipc-test-%d.sock", (int)getpid());
    t.l = loop_new();
    t.listen_fd = listen_at(t.path);
    t.s = server_new(t.l, t.listen_fd, o, serve, NULL);
    return 0;
}

static int up(void **state)
{
    (void)state;
    return up_with(NULL);
}

static int down(void **state)
{
    (void)state;
    server_free(t.s);
    loop_free(t.l);
    close(t.listen_fd);
    unlink(t.path);
    return 0;
}

/* Steps until *flag, at most 5 s. */
static void until(const int *flag, int want)
{
    int64_t end = mono_ms() + 5000;

    while (*flag < want && mono_ms() < end)
        loop_step(t.l, false);
    assert_true(*flag >= want);
}

static void until_null(struct call **c)
{
    int64_t end = mono_ms() + 5000;

    while (*c && mono_ms() < end)
        loop_step(t.l, false);
    assert_null(*c);
}

struct got {
    int done, notes, err;
    char reason[32], name[32];
    json_object *result;
    struct ipc_call *cancel_on_note;
};

static void got_done(struct ipc_reply *r, void *arg)
{
    struct got *g = arg;

    g->done++;
    g->err = r->err;
    g->result = TAKE(r->result);
    str_copy(g->reason, sizeof(g->reason), rpc_error_reason(&r->error));
    str_copy(g->name, sizeof(g->name), json_str(r->error.data, "errno", ""));
}

static void got_note(const char *method, json_object *params, void *arg)
{
    struct got *g = arg;

    assert_string_equal(method, "tick");
    assert_int_equal(json_int(params, "n", -1), g->notes);
    g->notes++;
    if (g->cancel_on_note)
        ipc_cancel(g->cancel_on_note);
}

static struct ipc_call *go(struct got *g, const char *method, json_object *params)
{
    struct ipc_req q = { .sock = t.path, .method = method, .params = params };
    struct ipc_call *c;

    memset(g, 0, sizeof(*g));
    c = ipc_start(t.l, &q, got_note, got_done, g);
    json_put(params);
    return c;
}

static void answers(void **state)
{
    struct got g;

    (void)state;
    go(&g, "echo", json_make("a:i b:s", (int64_t)7, "x"));
    until(&g.done, 1);
    assert_int_equal(g.err, 0);
    assert_string_equal(json_text(g.result), "{\"a\":7,\"b\":\"x\"}");
    json_put(g.result);
    go(&g, "fail", NULL);
    until(&g.done, 1);
    assert_int_equal(g.err, ERR_NOENT);
    go(&g, "nonsense", NULL);
    until(&g.done, 1);
    assert_int_equal(g.err, ERR_METHOD);
    assert_int_equal(server_n_calls(t.s), 0);
}

static void adds_token_and_timeout(void **state)
{
    struct got g;
    struct ipc_req q = {
        .sock = t.path, .method = "echo", .token = "T\"k", .timeout_ms = 1234, .send_timeout = true
    };

    (void)state;
    for (int i = 0; i < 2; i++) {
        cleanup(json_putp) json_object *p = i ? json_make("z:i", (int64_t)1) : json_new();

        memset(&g, 0, sizeof(g));
        q.params = p;
        ipc_start(t.l, &q, NULL, got_done, &g);
        until(&g.done, 1);
        assert_string_equal(json_str(g.result, "_token", ""), "T\"k");
        assert_int_equal(json_int(g.result, "_timeout_ms", 0), 1234);
        assert_int_equal(json_int(g.result, "z", 0), i);
        json_put(g.result);
        assert_null(json_get(p, "_token"));
    }
}

static void streams(void **state)
{
    struct got g;

    (void)state;
    go(&g, "stream", NULL);
    until(&g.done, 1);
    assert_int_equal(g.notes, 3);
    assert_int_equal(g.err, 0);
}

static void cancels_inside_a_note(void **state)
{
    struct got g;

    (void)state;
    g.cancel_on_note = NULL;
    struct ipc_call *c = go(&g, "stream", NULL);

    g.cancel_on_note = c;
    until(&g.notes, 1);
    for (int i = 0; i < 20; i++)
        loop_step(t.l, false);
    assert_int_equal(g.notes, 1);
    assert_int_equal(g.done, 0);
}

static void hang_up_is_seen(void **state)
{
    struct got g;
    struct ipc_call *c = go(&g, "keep", NULL);

    (void)state;
    until(&t.n_calls, 1);
    assert_int_equal(server_n_calls(t.s), 1);
    ipc_cancel(c);
    until_null(&t.kept);
    assert_int_equal(t.n_gone, 1);
    assert_int_equal(server_n_calls(t.s), 0);
    assert_int_equal(g.done, 0);
}

static int raw_connect(void)
{
    int fd = ipc_connect(t.path, false);

    assert_true(fd >= 0);
    return fd;
}

static void raw_send(int fd, const char *text)
{
    assert_int_equal(frame_write_fds(fd, text, strlen(text), NULL, 0), 0);
}

/* Reads to the end of file, stepping the loop; the body of the one frame, "" for none. */
static const char *raw_reply(int fd)
{
    static char text[70000];
    size_t n = 0;
    int64_t end = mono_ms() + 5000;

    while (mono_ms() < end) {
        ssize_t r = recv(fd, text + n, sizeof(text) - n - 1, MSG_DONTWAIT);

        if (r == 0 || (r < 0 && errno != EAGAIN))
            break;
        if (r > 0)
            n += (size_t)r;
        else
            loop_step(t.l, false);
    }
    close(fd);
    text[n] = '\0';
    return n > 4 ? text + 4 : "";
}

static void half_close_is_not_a_hang_up(void **state)
{
    int fd = raw_connect();

    (void)state;
    raw_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"keep\"}");
    shutdown(fd, SHUT_WR);
    until(&t.n_calls, 1);
    for (int64_t end = mono_ms() + 60; mono_ms() < end;)
        loop_step(t.l, false);
    assert_int_equal(t.n_gone, 0);
    call_reply_text(t.kept, "[1]", 3);
    assert_string_equal(raw_reply(fd), "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":[1]}");
}

static void half_close_then_hang_up(void **state)
{
    int fd = raw_connect();

    (void)state;
    raw_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"keep\"}");
    shutdown(fd, SHUT_WR);
    until(&t.n_calls, 1);
    for (int64_t end = mono_ms() + 60; mono_ms() < end;)
        loop_step(t.l, false);
    close(fd);
    until_null(&t.kept);
    assert_int_equal(t.n_gone, 1);
}

static void malformed_frames(void **state)
{
    static const struct {
        const char *sent, *reply;
    } rows[] = {
        { "{\"jsonrpc\":\"2.0\",\"id\":1,", "-32700" },
        { "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}]", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"echo\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"\",\"method\":\"echo\"}", "-32600" },
        { "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":[]}", "-32602" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[]}", "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1}", "-32600" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"echo\"}", "-32700" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int fd = raw_connect();

        raw_send(fd, rows[i].sent);
        const char *got = raw_reply(fd);

        if (*rows[i].reply ? !strstr(got, rows[i].reply) : *got != '\0')
            fail_msg("%s gave %s", rows[i].sent, got);
    }
    assert_int_equal(t.n_calls, 0);
}

static void length_out_of_range(void **state)
{
    char hdr[4];
    int fd;

    (void)state;
    frame_put_len(hdr, FRAME_MAX + 1);
    fd = raw_connect();
    assert_int_equal(write(fd, hdr, 4), 4);
    assert_non_null(strstr(raw_reply(fd), "-32031"));
    frame_put_len(hdr, 1);
    fd = raw_connect();
    assert_int_equal(write(fd, hdr, 4), 4);
    assert_non_null(strstr(raw_reply(fd), "-32600"));
}

static void slow_writer_is_served(void **state)
{
    static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":\"s\",\"method\":\"echo\"}";
    char hdr[4];
    int fd = raw_connect();

    (void)state;
    frame_put_len(hdr, sizeof(text) - 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(write(fd, hdr + i, 1), 1);
        loop_step(t.l, false);
    }
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        assert_int_equal(write(fd, text + i, 1), 1);
        loop_step(t.l, false);
    }
    assert_non_null(strstr(raw_reply(fd), "\"result\":{}"));
}

static void cut_frame_gets_no_reply(void **state)
{
    int fd = raw_connect();

    (void)state;
    assert_int_equal(write(fd, "\x20\0\0\0{\"js", 8), 8);
    shutdown(fd, SHUT_WR);
    assert_string_equal(raw_reply(fd), "");
}

static void second_request_is_refused(void **state)
{
    int fd = raw_connect();
    static const char req[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"keep\"}";

    (void)state;
    raw_send(fd, req);
    until(&t.n_calls, 1);
    raw_send(fd, req);
    t.keep_gone = true;
    struct call *kept = t.kept;

    until(&t.n_gone, 1);
    call_end(kept);
    assert_non_null(strstr(raw_reply(fd), "-32600"));
    fd = raw_connect(); /* both at once */
    char both[512];
    size_t n = strlen(req);

    for (size_t at = 0; at < 2; at++) {
        frame_put_len(both + at * (n + 4), (uint32_t)n);
        memcpy(both + at * (n + 4) + 4, req, n);
    }
    assert_int_equal(write(fd, both, 2 * (n + 4)), (ssize_t)(2 * (n + 4)));
    assert_non_null(strstr(raw_reply(fd), "-32600"));
    assert_int_equal(t.n_calls, 1);
}

static void descriptors_are_refused(void **state)
{
    static const char req[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}";
    int fd = raw_connect(), one = 1;

    (void)state;
    assert_int_equal(frame_write_fds(fd, req, strlen(req), &one, 1), 0);
    assert_non_null(strstr(raw_reply(fd), "-32600"));
    assert_int_equal(t.n_calls, 0);
}

static void notes_in_a_row(void **state)
{
    (void)state;
    down(state);
    up_with(&(struct server_opts){ .many_notes = true });
    struct ipc_feed *f = ipc_feed_open(t.l, t.path, 1 << 20);
    int closed = 0;

    for (int i = 0; i < 100; i++) {
        char text[16];
        cleanup(json_putp) json_object *p = NULL;

        snprintf(text, sizeof(text), "%d", i);
        p = json_make("text:s", text);
        assert_int_equal(ipc_feed_send(f, "n", p), 0);
    }
    ipc_feed_close(f, 2000, (loop_fn)on_drain, &closed);
    until(&t.n_drained, 1);
    assert_int_equal(t.n_notes, 100);
    assert_string_equal(t.last_note, "99");
}

static void back_pressure(void **state)
{
    int fd = raw_connect(), full = 0, n = 0;

    (void)state;
    raw_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"keep\"}");
    until(&t.n_calls, 1);
    cleanup(freep) char *big = xmalloc(20001);

    memset(big, 'x', 20000);
    big[20000] = '\0';
    while (!full && n < 1000) {
        full = call_note(t.kept, "tick", json_make("s:s", big));
        n++;
    }
    assert_true(full);
    call_reply_text(TAKE(t.kept), "1", 1);
    size_t total = 0;
    static char sink[65536];
    int64_t end = mono_ms() + 5000;

    for (ssize_t r = 1; r && mono_ms() < end;) {
        r = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
        if (r > 0)
            total += (size_t)r;
        else if (r < 0)
            loop_step(t.l, false);
    }
    close(fd);
    assert_true(total > (size_t)n * 20000);
}

static void nobody_there(void **state)
{
    struct got g;
    struct ipc_req q = { .sock = "/tmp/ipc-test-none.sock", .method = "echo" };
    struct ipc_reply r;

    (void)state;
    memset(&g, 0, sizeof(g));
    ipc_start(t.l, &q, NULL, got_done, &g);
    assert_int_equal(g.done, 0);
    until(&g.done, 1);
    assert_int_equal(g.err, ERR_UNAVAIL);
    assert_string_equal(g.reason, "connect");
    assert_int_equal(ipc_call(&q, &r), ERR_UNAVAIL);
    assert_false(json_flag(r.error.data, "forwarded", true));
    ipc_reply_done(&r);
}

static void deadlines(void **state)
{
    struct got g;
    struct ipc_req q = { .sock = t.path, .method = "keep", .timeout_ms = 50 };
    struct ipc_reply r;

    (void)state;
    memset(&g, 0, sizeof(g));
    ipc_start(t.l, &q, NULL, got_done, &g);
    until(&g.done, 1);
    assert_int_equal(g.err, ERR_TIMEOUT);
    until_null(&t.kept);
    assert_int_equal(ipc_call(&q, &r), ERR_TIMEOUT); /* nobody steps the server */
    assert_string_equal(json_str(r.error.data, "phase", ""), "call");
    ipc_reply_done(&r);
}

static void repeats_once_when_safe(void **state)
{
    struct got g;
    int lfd = listen_at("/tmp/ipc-test-flaky.sock"), fd = -1, n = 0;
    struct ipc_req q = { .sock = "/tmp/ipc-test-flaky.sock", .method = "echo" };

    (void)state;
    for (int repeatable = 0; repeatable < 2; repeatable++) {
        memset(&g, 0, sizeof(g));
        q.repeatable = repeatable;
        ipc_start(t.l, &q, NULL, got_done, &g);
        for (int64_t end = mono_ms() + 5000; !g.done && mono_ms() < end;) {
            loop_step(t.l, false);
            fd = accept(lfd, NULL, NULL);
            if (fd >= 0) {
                char sink[512];

                assert_true(read(fd, sink, sizeof(sink)) > 0);
                close(fd);
                n++;
            }
        }
        assert_int_equal(g.err, ERR_UNAVAIL);
        assert_int_equal(n, repeatable ? 3 : 1);
    }
    close(lfd);
    unlink(q.sock);
}

static void refuses_a_foreign_listener(void **state)
{
    struct got g;
    struct ipc_req q = { .sock = t.path, .method = "echo", .listener = 1 };

    (void)state;
    memset(&g, 0, sizeof(g));
    ipc_start(t.l, &q, NULL, got_done, &g);
    until(&g.done, 1);
    assert_int_equal(g.err, ERR_UNAVAIL);
    assert_string_equal(g.reason, "listener");
    assert_int_equal(t.n_calls, 0);
    q.listener = getpid();
    memset(&g, 0, sizeof(g));
    ipc_start(t.l, &q, NULL, got_done, &g);
    until(&g.done, 1);
    assert_int_equal(g.err, 0);
    json_put(g.result);
}

static void connection_limit(void **state)
{
    int fds[4];

    (void)state;
    down(state);
    up_with(&(struct server_opts){ .max_conns = 3 });
    for (int i = 0; i < 4; i++) {
        fds[i] = raw_connect();
        raw_send(fds[i], "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"keep\"}");
    }
    assert_non_null(strstr(raw_reply(fds[3]), "-32008"));
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    until(&t.n_gone, 3);
    fds[0] = raw_connect();
    raw_send(fds[0], "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
    assert_non_null(strstr(raw_reply(fds[0]), "result"));
}

static bool admit_nobody(const struct peer *p, void *arg)
{
    (void)p;
    (void)arg;
    return false;
}

static void unwanted_peer(void **state)
{
    (void)state;
    down(state);
    up_with(&(struct server_opts){ .admit = admit_nobody });
    int fd = raw_connect();

    raw_send(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}");
    assert_string_equal(raw_reply(fd), "");
    assert_int_equal(t.n_calls, 0);
}

static void big_messages(void **state)
{
    struct got g;
    size_t n = 3 << 20;
    cleanup(freep) char *big = xmalloc(n + 1);

    (void)state;
    memset(big, 'y', n);
    big[n] = '\0';
    go(&g, "echo", json_make("s:s", big));
    until(&g.done, 1);
    assert_int_equal(g.err, 0);
    assert_int_equal(strlen(json_str(g.result, "s", "")), n);
    json_put(g.result);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(answers),
        T(adds_token_and_timeout),
        T(streams),
        T(cancels_inside_a_note),
        T(hang_up_is_seen),
        T(half_close_is_not_a_hang_up),
        T(half_close_then_hang_up),
        T(malformed_frames),
        T(length_out_of_range),
        T(slow_writer_is_served),
        T(cut_frame_gets_no_reply),
        T(second_request_is_refused),
        T(descriptors_are_refused),
        T(notes_in_a_row),
        T(back_pressure),
        T(nobody_there),
        T(deadlines),
        T(repeats_once_when_safe),
        T(refuses_a_foreign_listener),
        T(connection_limit),
        T(unwanted_peer),
        T(big_messages),
    };

    return cmocka_run_group_tests_name("ipc call", tests, NULL, NULL);
}
