/*
 * The agent program by itself: what it does when it is started wrongly, or when nobody answers. The
 * exit codes are those of the agents page, section 6.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "tests/rig/rig.h"

static char dir[64];

static const char good[] =
    "{\"pid\":157,\"invocationId\":\"14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0\",\"sessionId\":\"s\","
    "\"signalKey\":\"k\",\"agent\":{\"name\":\"r\"},\"limits\":{\"jail\":\"%s\"}%s}";

static int listener(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s/157.sock", dir);
    unlink(a.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

struct how {
    const char *doc; /* NULL: descriptor 5 is closed */
    const char *pid; /* after --pid */
    const char *run; /* AVIX_RUN_DIR, NULL: not set */
    int conv_flags;  /* of descriptor 4; 0: closed */
};

static _Noreturn void child(const struct how *h)
{
    char conv[96];
    int fds[3] = { listener(), -1, -1 };

    snprintf(conv, sizeof conv, "%s/conv", dir);
    if (h->conv_flags)
        fds[1] = open(conv, h->conv_flags | O_CREAT | O_CLOEXEC, 0600);
    if (h->doc)
        fds[2] = memfd_sealed("start", h->doc, strlen(h->doc));
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 50);
    for (int i = 3; i < 50; i++)
        close(i);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            (void)dup2(fds[i], 3 + i);
    const char *bin = rig_bin("avix-agent");
    clearenv();
    if (h->run)
        (void)setenv("AVIX_RUN_DIR", h->run, 1);
    (void)setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    execl(bin, "avix-agent", "--pid", h->pid, (char *)NULL);
    _exit(127);
}

static int run(const struct how *h)
{
    int st = 0;
    pid_t pid = fork();

    if (!pid)
        child(h);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

static void wrong_starts(void **state)
{
    cleanup(freep) char *doc = xasprintf(good, "auto", "");
    const struct how rows[] = {
        { NULL, "157", dir, O_WRONLY | O_APPEND },
        { "", "157", dir, O_WRONLY | O_APPEND },
        { "[]", "157", dir, O_WRONLY | O_APPEND },
        { "{\"pid\":157}", "157", dir, O_WRONLY | O_APPEND },
        { doc, "158", dir, O_WRONLY | O_APPEND },
        { doc, "x", dir, O_WRONLY | O_APPEND },
        { doc, "157", NULL, O_WRONLY | O_APPEND },
        { doc, "157", dir, 0 },
        { doc, "157", dir, O_WRONLY },
        { doc, "157", dir, O_RDONLY | O_APPEND },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (run(&rows[i]) != 64)
            fail_msg("row %zu", i);
}

static void missing_history(void **state)
{
    cleanup(freep) char *doc = xasprintf(good, "auto", ",\"fds\":[\"history\"]");
    const struct how h = { doc, "157", dir, O_WRONLY | O_APPEND };

    (void)state;
    assert_int_equal(run(&h), 64);
}

static void nobody_there(void **state)
{
    cleanup(freep) char *doc = xasprintf(good, "auto", "");
    const struct how h = { doc, "157", dir, O_WRONLY | O_APPEND };

    (void)state;
    assert_int_equal(run(&h), 69); /* after 10 s */
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(dir, sizeof dir, "%s/agent-XXXXXX", !tmp || strlen(tmp) > 40 ? "/tmp" : tmp);
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_starts),
        cmocka_unit_test(missing_history),
        cmocka_unit_test(nobody_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
