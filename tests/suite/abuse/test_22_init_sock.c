/*
 * Security page, test 22: init.sock from a process of the suite, from one below init that runs
 * foreign code, from another pid namespace, and where the chain of parents is broken: list and
 * status are answered, nothing else, and nothing changes. Agents do not even see the socket
 * (test_agent_process.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "common/svc/unit.h"
#include "tests/rig/rig.h"
#include "tests/suite/abuse/inject.h"

static struct rig *g;
static pid_t before[UNIT_COUNT];

/* Requests that would change something, were they believed. */
static const struct {
    const char *method, *params;
} changes[] = {
    { "init/start", "{\"name\":\"execsvc\"}" },
    { "init/stop", "{\"name\":\"execsvc\"}" },
    { "init/restart", "{\"name\":\"execsvc\",\"force\":true}" },
    { "init/reload", "{}" },
    { "init/logs", "{\"name\":\"authsvc\"}" },
    { "init/spawn", "{\"avixPid\":777,\"argv\":[\"avix-agent\",\"--pid\",\"777\"]}" },
    { "init/kill", "{\"avixPid\":100,\"hostPid\":1,\"startTime\":1,\"signal\":\"KILL\"}" },
    { "init/shutdown", "{\"reason\":\"abuse\"}" },
};

static int setup(void **state)
{
    (void)state;
    g = rig_new(NULL);
    for (int i = 0; i < UNIT_COUNT; i++)
        before[i] = rig_unit_pid(g, unit_rows[i].name);
    return 0;
}

static void nothing_changed(void)
{
    for (int i = 0; i < UNIT_COUNT; i++)
        assert_int_equal(rig_unit_pid(g, unit_rows[i].name), before[i]);
    json_object *o = rig_init_call(g, "init/list", NULL, NULL);
    assert_non_null(o);
    assert_int_equal(json_object_array_length(json_arr(o, "agents")), 0);
    assert_false(json_flag(o, "stopping", false));
    json_put(o);
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

/* --- a process that is asked to make the calls from where it is ----------------------------------
 */

/* Makes every call; 0 if each was answered as it must be, else the number of the one that was not.
 */
static int try_all(void)
{
    struct ipc_reply r;
    struct ipc_req q = { .sock = rig_sock(g, "init.sock"), .timeout_ms = 10000 };

    for (size_t i = 0; i < N_ELEMS(changes); i++) {
        json_object *p = NULL;

        q.method = changes[i].method;
        (void)json_parse(changes[i].params, strlen(changes[i].params), &p);
        q.params = p;
        int err = ipc_call(&q, &r);
        ipc_reply_done(&r);
        json_put(p);
        if (err != ERR_PERM)
            return (int)i + 1;
    }
    q.params = NULL;
    q.method = "init/list";
    int err = ipc_call(&q, &r);
    ipc_reply_done(&r);
    return err ? 100 : 0;
}

static int status_of(pid_t pid)
{
    int st = -1;

    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 200;
}

#define NO_NAMESPACE 99

/* In a pid namespace below ours its number is known to init, and its parents are; yet whoever is
 * put into one is meant to be shut in. */
static void from_another_pid_namespace(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWPID : CLONE_NEWPID))
            _exit(NO_NAMESPACE);
        pid_t in = fork();
        if (in == 0)
            _exit(try_all());
        _exit(status_of(in));
    }
    int rc = status_of(pid);
    if (rc == NO_NAMESPACE) {
        print_message("SKIPPED: no pid namespace can be made here\n");
        skip();
    }
    assert_int_equal(rc, 0);
    nothing_changed();
}

/* --- a connection whose maker is gone ------------------------------------------------------------
 */

/* Somebody connects, leaves the connection to us and ends: there is no chain to walk any more. */
static int orphaned_connection(void)
{
    int pair[2], fd = -1;
    char byte = 'x';
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } ctl = { { 0 } };
    struct iovec iov = { &byte, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof ctl.buf
    };

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int c = ipc_connect(rig_sock(g, "init.sock"), false);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);

        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof c);
        memcpy(CMSG_DATA(h), &c, sizeof c);
        _exit(c < 0 || sendmsg(pair[1], &m, 0) != 1);
    }
    assert_int_equal(status_of(pid), 0);
    assert_int_equal(recvmsg(pair[0], &m, MSG_CMSG_CLOEXEC), 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    close(pair[0]);
    close(pair[1]);
    return fd;
}

/* The error of one request on a connection, 0 for a result, -1 if it was closed. */
static int ask_on(int fd, const char *method, const char *params)
{
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"%s\",\"params\":%s}", method, params);
    cleanup(json_putp) json_object *o = NULL;
    struct frame_in in;
    struct timeval tv = { .tv_sec = 10 };
    const char *text;
    size_t len;
    enum frame_result r = FRAME_MORE;
    int err = -1;

    frame_in_init(&in, FRAME_MAX);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (frame_write_fds(fd, body, strlen(body), NULL, 0) == 0)
        while ((r = frame_in_read(&in, fd, &text, &len)) == FRAME_MORE)
            ;
    if (r == FRAME_READY && json_parse(text, len, &o) == 0)
        err = json_obj(o, "error") ? (int)json_int(json_obj(o, "error"), "code", 1) : 0;
    frame_in_done(&in);
    return err;
}

static void where_the_chain_is_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ELEMS(changes); i++) {
        int fd = orphaned_connection();
        int got = ask_on(fd, changes[i].method, changes[i].params);

        close(fd);
        if (got != -1 && got != -32002)
            fail_msg("%s: %d", changes[i].method, got);
    }
    nothing_changed();
}

/* A child whose parent ended is still the operator's: what would be refused here is the command
 * line. */
static void an_orphan_of_the_operator_is_the_operator(void **state)
{
    int pipe_fd[2], err = -1;

    (void)state;
    assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t parent = getpid();

        if (fork() == 0) {
            struct ipc_req q = { .sock = rig_sock(g, "init.sock"), .method = "init/reload" };
            struct ipc_reply r;

            while (getppid() == parent)
                sched_yield();
            err = ipc_call(&q, &r);
            (void)!write(pipe_fd[1], &err, sizeof err);
            _exit(0);
        }
        _exit(0);
    }
    assert_int_equal(status_of(pid), 0);
    close(pipe_fd[1]);
    assert_int_equal(read(pipe_fd[0], &err, sizeof err), sizeof err);
    close(pipe_fd[0]);
    assert_int_equal(err, 0);
}

/* --- from below init -----------------------------------------------------------------------------
 */

#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)
/* The error's code of one call made by a process of the suite, 0 for a result, 1 if closed. */
static int from_inside(struct inj *j, const char *method, const char *params)
{
    static char reply[1 << 20];
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"%s\",\"params\":%s}", method, params);
    cleanup(json_putp) json_object *o = NULL;
    long n = inj_frame(j, rig_sock(g, "init.sock"), body, reply, sizeof reply);

    if (n < 0)
        return (int)n; /* it may not even connect */
    if (!n || json_parse(reply, (size_t)n, &o))
        return 1;
    return json_obj(o, "error") ? (int)json_int(json_obj(o, "error"), "code", 1) : 0;
}

static void from_a_unit(const char *unit)
{
    struct inj j = { 0 };
    int got = 0, list;
    size_t i;

    if (!INJECT_POSSIBLE || !inj_attach(&j, rig_unit_pid(g, unit))) {
        print_message("SKIPPED: %s cannot be traced here\n", unit);
        return;
    }
    list = from_inside(&j, "init/list", "{}");
    for (i = 0; i < N_ELEMS(changes); i++) {
        got = from_inside(&j, changes[i].method, changes[i].params);
        if (got != -32002 && got != -EACCES)
            break;
    }
    inj_detach(&j);
    if (i < N_ELEMS(changes))
        fail_msg("%s from %s: %d", changes[i].method, unit, got);
    assert_true(list == 0 || list == -EACCES);
}

static void from_every_unit_but_the_kernel(void **state)
{
    (void)state;
    for (int i = 0; i < UNIT_COUNT; i++)
        if (i != UNIT_KERNEL)
            from_a_unit(unit_rows[i].name);
    nothing_changed();
}
#else
static void from_every_unit_but_the_kernel(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_another_pid_namespace),
        cmocka_unit_test(where_the_chain_is_broken),
        cmocka_unit_test(an_orphan_of_the_operator_is_the_operator),
        cmocka_unit_test(from_every_unit_but_the_kernel),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
