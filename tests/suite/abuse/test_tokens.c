/*
 * Security page, section 7, items 1, 2, 3: tokens outside their process, changed, expired; a
 * connection that outlives who made it; claims of identity in a request, at both front doors.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "tests/rig/guest.h"

static struct rig *g;

static int up(void **state)
{
    (void)state;
    g = rig_new(NULL);
    return 0;
}

static int down(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

static const char *errno_of(const char *sock, const char *token, const char *method,
                            const char *params)
{
    static char name[32];
    json_object *p = NULL;
    struct ipc_req q = { .sock = rig_sock(g, sock), .method = method, .token = token };
    struct ipc_reply r;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    q.params = p;
    ipc_call(&q, &r);
    str_copy(name, sizeof(name), r.err ? json_str(r.error.data, "errno", "?") : "ok");
    ipc_reply_done(&r);
    json_put(p);
    return name;
}

/* The same question from a child process; its exit status is 0 if the answer was EAUTH. */
static int from_child(const char *token)
{
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(strcmp(errno_of("router.sock", token, "no/such", "{}"), "EAUTH") != 0);
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static void a_copied_token_is_worth_nothing(void **state)
{
    struct guest *s = guest_start(g, NULL); /* a child: its token tried by the parent */
    cleanup(freep) char *mine = rig_token(g, "sys/tools", NULL);
    cleanup(freep) char *of_guest = rig_token(
        g, "sys/tools",
        json_make("hostPid:i hostStart:i", (int64_t)s->pid, (int64_t)proc_start_time(s->pid)));
    cleanup(freep) char *of_parent =
        rig_token(g, "sys/tools",
                  json_make("hostPid:i hostStart:i", (int64_t)getppid(),
                            (int64_t)proc_start_time(getppid())));
    /* the pid is right, the process is another: it was given out again */
    cleanup(freep) char *reused = rig_token(
        g, "sys/tools", json_make("hostStart:i", (int64_t)proc_start_time(getpid()) - 100));

    (void)state;
    assert_string_equal(errno_of("router.sock", mine, "sys/tools", "{}"), "ok");
    assert_int_equal(from_child(mine), 0);
    assert_string_equal(errno_of("router.sock", mine, "sys/tools", "{}"), "ok"); /* still ours */
    assert_string_equal(errno_of("router.sock", of_guest, "no/such", "{}"), "EAUTH");
    assert_string_equal(errno_of("router.sock", of_parent, "no/such", "{}"), "EAUTH");
    assert_string_equal(errno_of("router.sock", reused, "no/such", "{}"), "EAUTH");
    assert_string_equal(errno_of("router.sock", s->token, "no/such", "{}"), "EAUTH");
    guest_stop(s);
}

/* The claims with one text replaced, under the old signature. */
static char *changed(const char *token, const char *from, const char *to)
{
    const char *dot = strchr(token, '.');
    char claims[4096], *at;
    struct buf b = BUF_INIT(8192);
    ssize_t n = b64url_decode(token, (size_t)(dot - token), claims, sizeof(claims) - 1);

    assert_true(n > 0);
    claims[n] = '\0';
    at = strstr(claims, from);
    assert_non_null(at);
    buf_add(&b, claims, (size_t)(at - claims));
    buf_adds(&b, to);
    buf_adds(&b, at + strlen(from));
    char *body = xmalloc(B64URL_LEN(b.len) + 1 + strlen(dot) + 1);

    b64url_encode(b.data, b.len, body);
    memcpy(body + strlen(body), dot, strlen(dot) + 1);
    buf_done(&b);
    return body;
}

static void a_changed_token_is_refused_before_any_name(void **state)
{
    cleanup(freep) char *good = rig_token(g, "fs/read", NULL);
    char past[RFC3339_LEN];
    json_object *claims = json_make(
        "kind:s tokenId:s pid:i hostPid:i hostStart:i sub:s lineage:s granted:o expiresAt:s",
        "CapabilityToken", "x", (int64_t)5000, (int64_t)getpid(),
        (int64_t)proc_start_time(getpid()), "admin", "l", json_new_arr(),
        "2099-01-01T00:00:00.000Z");
    cleanup(freep) char *wider = changed(good, "fs/read", "*");
    cleanup(freep) char *role = changed(good, "\"admin\"", "\"root\"");
    cleanup(freep) char *svc_key = rig_sign("svc", json_object_get(claims));
    cleanup(freep) char *atp_key = rig_sign("atp", json_object_get(claims));
    cleanup(freep) char *cred_key = rig_sign("cred", claims);
    cleanup(freep) char *expired =
        rig_token(g, "fs/read", json_make("expiresAt:s", rfc3339(now_ms() - 1000, past)));
    cleanup(freep) char *cut = xstrndup(good, strlen(good) - 3);
    cleanup(freep) char *two = xasprintf("%s.%s", good, good);
    const struct {
        const char *token, *want;
    } rows[] = {
        { wider, "EAUTH" },    { role, "EAUTH" },       { svc_key, "EAUTH" }, { atp_key, "EAUTH" },
        { cred_key, "EAUTH" }, { cut, "EAUTH" },        { two, "EAUTH" },     { ".", "EAUTH" },
        { "a.b", "EAUTH" },    { expired, "EEXPIRED" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        const char *known, *unknown;
        char first[32];

        known = errno_of("router.sock", rows[i].token, "fs/read", "{\"path\":\"/\"}");
        str_copy(first, sizeof(first), known);
        unknown = errno_of("router.sock", rows[i].token, "no/such", "{}");
        if (!str_eq(first, rows[i].want) || !str_eq(unknown, rows[i].want))
            fail_msg("row %zu: %s, %s", i, first, unknown);
    }
}

/* --- a connection that changes hands
 * -------------------------------------------------------------- */

static int received_fd(int sock)
{
    struct frame_in in;
    const char *body;
    size_t len, n = 0;
    int fd = -1;

    frame_in_init(&in, 1000);
    assert_int_equal(frame_in_recv(&in, sock, &body, &len, &fd, 1, &n), FRAME_READY);
    frame_in_done(&in);
    return fd;
}

/* What the router answers to our own valid request on a connection that another process made. */
static ssize_t use_connection(int fd, const char *token)
{
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sys/tools\",\"params\":{\"_token\":\"%s\"}}",
        token);
    char c;

    frame_write_fds(fd, body, strlen(body), NULL, 0);
    return read(fd, &c, 1);
}

static pid_t child_that_connects(int sv[2])
{
    pid_t pid = fork();

    if (!pid) {
        int fd = ipc_connect(rig_sock(g, "router.sock"), false);

        if (fd < 0 || frame_write_fds(sv[1], "{}", 2, &fd, 1))
            _exit(1);
        _exit(0);
    }
    return pid;
}

static void a_connection_is_of_who_made_it(void **state)
{
    cleanup(freep) char *mine = rig_token(g, "sys/tools", NULL);
    int sv[2], fd;
    pid_t maker;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    maker = child_that_connects(sv);
    fd = received_fd(sv[0]);
    waitpid(maker, NULL, 0); /* gone, its connection is in our hands */
    assert_true(use_connection(fd, mine) <= 0);
    close(fd);
    close(sv[0]);
    close(sv[1]);
}

/* The maker's pid is given out again, to a process that the router trusts. */
static void a_pid_that_is_given_out_again(void **state)
{
    int sv[2], fd, last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC), tell[2];
    pid_t maker, heir = 0;
    char num[16], answer[512];

    (void)state;
    if (last < 0)
        skip();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    assert_int_equal(pipe(tell), 0);
    rig_signal_unit(g, "router", SIGSTOP); /* the connection waits in the backlog */
    maker = child_that_connects(sv);
    fd = received_fd(sv[0]);
    waitpid(maker, NULL, 0);
    for (int i = 0; i < 200 && heir != maker; i++) {
        if (heir) {
            kill(heir, SIGKILL);
            waitpid(heir, NULL, 0);
        }
        int n = snprintf(num, sizeof(num), "%d", (int)maker - 1);

        if (pwrite(last, num, (size_t)n, 0) != n)
            break;
        heir = fork();
        if (!heir) {
            cleanup(freep) char *own = rig_token(g, "sys/tools", NULL);

            for (char go; read(tell[0], &go, 1) == 1;)
                _exit(strcmp(errno_of("router.sock", own, "sys/tools", "{}"), "ok") != 0);
        }
    }
    close(last);
    if (heir != maker) {
        rig_signal_unit(g, "router", SIGCONT);
        if (heir > 0) {
            kill(heir, SIGKILL);
            waitpid(heir, NULL, 0);
        }
        skip();
    }
    cleanup(freep) char *heirs = rig_token(
        g, "sys/tools",
        json_make("hostPid:i hostStart:i", (int64_t)heir, (int64_t)proc_start_time(heir)));
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sys/tools\",\"params\":{\"_token\":\"%s\"}}",
        heirs);

    frame_write_fds(fd, body, strlen(body), NULL, 0);
    rig_signal_unit(g, "router", SIGCONT);
    /* closed as the dead maker's, or refused as ours who wrote: never served as the heir's */
    ssize_t n = read(fd, answer, sizeof(answer) - 1);

    answer[n > 0 ? n : 0] = '\0';
    assert_true(n <= 0 || strstr(answer + 4, "EAUTH"));
    assert_int_equal(write(tell[1], "g", 1), 1);
    int status;

    waitpid(heir, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 0); /* the heir itself is served */
    close(fd);
    close(sv[0]);
    close(sv[1]);
    close(tell[0]);
    close(tell[1]);
}

/* --- identity in the request
 * ---------------------------------------------------------------------- */

static void claimed_identities(void **state)
{
    cleanup(freep) char *t = rig_token(g, "sys/tools", NULL);
    static const struct {
        const char *params, *router;
    } rows[] = {
        { "{\"_caller\":{\"kind\":\"user\",\"user\":\"root\",\"role\":\"admin\"}}", "ok" },
        { "{\"_caller_pid\":1,\"_caller_user\":\"root\"}", "ok" },
        { "{\"_caller_token\":\"forged\"}", "ok" }, /* `_token` is there and counts */
        { "{\"_user\":{\"name\":\"root\",\"uid\":0,\"role\":\"admin\"}}", "EAUTH" },
        { "{\"_as\":\"ct_0123456789abcdef0123456789abcdef\"}", "EAUTH" },
        { "{\"_peer\":{\"pid\":1,\"start\":1}}", "ok" }, /* believed from the kernel only */
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        const char *got = errno_of("router.sock", t, "sys/tools", rows[i].params);

        if (!str_eq(got, rows[i].router))
            fail_msg("router.sock %s: %s", rows[i].params, got);
        got = errno_of("kernel.sock", t, "kernel/sys/info", rows[i].params);
        if (str_eq(got, "ok"))
            fail_msg("kernel.sock %s was served", rows[i].params);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copied_token_is_worth_nothing),
        cmocka_unit_test(a_changed_token_is_refused_before_any_name),
        cmocka_unit_test(a_connection_is_of_who_made_it),
        cmocka_unit_test(a_pid_that_is_given_out_again),
        cmocka_unit_test(claimed_identities),
    };

    return cmocka_run_group_tests_name("abuse: tokens and identity", tests, up, down);
}
