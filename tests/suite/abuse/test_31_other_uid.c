/*
 * Security page, test 31: another user of this machine on every socket and in the run dir; a run
 * dir that is another's, or a link, or holds one. Needs root, which can be somebody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/svc/unit.h"
#include "tests/rig/rig.h"

#define OTHER 65534

static bool is_root(void)
{
    if (geteuid() == 0)
        return true;
    print_message("SKIPPED: only root can be another user\n");
    return false;
}

/* Becomes another user whose working directory is the run dir: nothing above it stands in the way
 * then. What fn returns, 0..99. */
static int as_other(struct rig *g, int (*fn)(const char *arg), const char *arg)
{
    int st = -1;
    pid_t pid = fork();

    if (pid == 0) {
        if (chdir(g->run_dir) || setgroups(0, NULL) || setresgid(OTHER, OTHER, OTHER) ||
            setresuid(OTHER, OTHER, OTHER))
            _exit(100);
        _exit(fn(arg));
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    assert_true(WIFEXITED(st));
    return WEXITSTATUS(st);
}

static int does_connect(const char *name)
{
    cleanup(closep) int fd = ipc_connect(name, false);

    return fd >= 0;
}

/* 0: no answer of any kind. */
static int is_answered(const char *name)
{
    static const char *const methods[] = { "init/list",          "fs/read",
                                           "ipc.register",       "agent.ready",
                                           "auth/secret/export", "event.publish",
                                           "init/shutdown",      "signal" };
    struct ipc_reply r;
    int n = 0;

    for (size_t i = 0; i < N_ELEMS(methods); i++) {
        struct ipc_req q = { .sock = name, .method = methods[i], .timeout_ms = 5000 };

        n += ipc_call(&q, &r) != ERR_UNAVAIL;
        ipc_reply_done(&r);
    }
    return n;
}

static int does_open(const char *name)
{
    cleanup(closep) int fd = open(name, O_RDONLY | O_CLOEXEC);

    return fd >= 0;
}

static int does_make(const char *name)
{
    cleanup(closep) int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    return fd >= 0 || unlink("router.sock") == 0 || rename("router.sock", "x") == 0;
}

static const char *const extra[] = { "init.sock", "notify.sock" };

static void nothing_in_the_run_dir(void **state)
{
    if (!is_root())
        skip();
    struct rig *g = rig_new(NULL);

    (void)state;
    for (int i = 0; i < UNIT_COUNT; i++) {
        assert_int_equal(as_other(g, does_connect, unit_rows[i].socket), 0);
        assert_int_equal(as_other(g, does_open, unit_rows[i].name), 0);
    }
    for (size_t i = 0; i < N_ELEMS(extra); i++)
        assert_int_equal(as_other(g, does_connect, extra[i]), 0);
    assert_int_equal(as_other(g, does_open, "."), 0);
    assert_int_equal(as_other(g, does_open, "units.json"), 0);
    assert_int_equal(as_other(g, does_open, "agents"), 0);
    assert_int_equal(as_other(g, does_make, "planted"), 0);
    rig_stop(g);
}

/* The check of the peer's user stands behind the modes. */
static void no_answer_even_if_the_modes_were_open(void **state)
{
    if (!is_root())
        skip();
    struct rig *g = rig_new(NULL);

    (void)state;
    assert_int_equal(chmod(g->run_dir, 0711), 0);
    for (int i = 0; i < UNIT_COUNT; i++) {
        const char *name = unit_rows[i].socket;

        assert_int_equal(chmod(rig_sock(g, name), 0666), 0);
        assert_int_equal(as_other(g, does_connect, name), 1);
        if (as_other(g, is_answered, name))
            fail_msg("%s answers another user", name);
        assert_int_equal(chmod(rig_sock(g, name), 0600), 0);
    }
    assert_int_equal(chmod(rig_sock(g, "init.sock"), 0666), 0);
    assert_int_equal(as_other(g, is_answered, "init.sock"), 0);
    assert_int_equal(chmod(rig_sock(g, "init.sock"), 0600), 0);
    assert_int_equal(as_other(g, does_open, "units.json"), 0);
    assert_int_equal(as_other(g, does_make, "planted"), 0);
    assert_int_equal(chmod(g->run_dir, 0700), 0);
    rig_stop(g);
}

/* --- a run dir that is not ours ------------------------------------------------------------------
 */

static struct rig *unstarted(void)
{
    struct rig_opts o = { .no_start = true };
    struct rig *g = rig_new(&o);

    assert_int_equal(rmdir(g->run_dir) == 0 || errno == ENOENT, 1);
    return g;
}

/* The start is refused, and the message names the directory and why. */
static void refused(struct rig *g, const char *name, const char *why)
{
    char err[1024] = "";

    assert_int_equal(rig_boot(g, NULL, err, sizeof err), 78);
    if (!strstr(err, name) || !strstr(err, why))
        fail_msg("'%s' does not say %s: %s", err, name, why);
}

static void a_run_dir_of_another_is_refused(void **state)
{
    if (!is_root())
        skip();
    struct rig *g = unstarted();

    (void)state;
    assert_int_equal(mkdir(g->run_dir, 0700), 0);
    assert_int_equal(chown(g->run_dir, OTHER, OTHER), 0);
    refused(g, g->run_dir, "belongs to another user");
    assert_int_equal(chown(g->run_dir, geteuid(), getegid()), 0);
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    rig_stop(g);
}

static void a_link_is_refused(void **state)
{
    struct rig *g = unstarted();
    char real[400], shown[sizeof g->run_dir];
    struct stat st;

    (void)state;
    snprintf(real, sizeof real, "%s/elsewhere", g->dir);
    str_copy(shown, sizeof shown, g->run_dir);
    assert_int_equal(mkdir(real, 0700), 0);
    assert_int_equal(symlink(real, g->run_dir), 0);
    refused(g, g->run_dir, "is a symbolic link");
    /* nor is it taken for a directory because of how it is written */
    str_copy(g->run_dir + strlen(shown), sizeof g->run_dir - strlen(shown), "/");
    refused(g, shown, "is a symbolic link");
    str_copy(g->run_dir + strlen(shown), sizeof g->run_dir - strlen(shown), "//");
    refused(g, shown, "is a symbolic link");
    str_copy(g->run_dir, sizeof g->run_dir, shown);
    snprintf(real, sizeof real, "%s/elsewhere/router.sock", g->dir);
    assert_int_not_equal(lstat(real, &st), 0);
    assert_int_equal(unlink(g->run_dir), 0);
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    rig_stop(g);
}

static void a_link_inside_is_refused(void **state)
{
    struct rig *g = unstarted();
    char inner[200];

    (void)state;
    assert_int_equal(mkdir(g->run_dir, 0700), 0);
    snprintf(inner, sizeof inner, "%s/agents", g->run_dir);
    assert_int_equal(symlink("/tmp", inner), 0);
    refused(g, inner, "is a symbolic link");
    assert_int_equal(unlink(inner), 0);
    snprintf(inner, sizeof inner, "%s/init.lock", g->run_dir);
    unlink(inner);
    assert_int_equal(symlink(g->err_path, inner), 0);
    refused(g, inner, "");
    assert_int_equal(unlink(inner), 0);
    /* what lies where a socket belongs is replaced, never followed */
    assert_int_equal(symlink(g->err_path, rig_sock(g, "router.sock")), 0);
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    rig_stop(g);
}

static void open_modes_are_closed(void **state)
{
    struct rig *g = unstarted();
    struct stat st;

    (void)state;
    assert_int_equal(mkdir(g->run_dir, 0700), 0);
    assert_int_equal(chmod(g->run_dir, 0777), 0);
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    assert_int_equal(stat(g->run_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    rig_stop(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_in_the_run_dir),
        cmocka_unit_test(no_answer_even_if_the_modes_were_open),
        cmocka_unit_test(a_run_dir_of_another_is_refused),
        cmocka_unit_test(a_link_is_refused),
        cmocka_unit_test(a_link_inside_is_refused),
        cmocka_unit_test(open_modes_are_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
