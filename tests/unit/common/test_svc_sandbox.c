/* What a unit cannot do any more after sandbox_enter. Each case in a child of its own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "common/svc/sandbox.h"

#ifdef AVIX_SAN
#define NO_FILTERS 1
#else
#define NO_FILTERS 0
#endif

static char dir[] = "/tmp/svc-sandbox-XXXXXX";

struct inside {
    unsigned flags;
    const struct sandbox_path *paths;
    int (*what)(void);
    int result;
};

static void enter(struct inside *in)
{
    const char *missing = NULL;
    int r = 250;

    if (!sandbox_enter(in->flags, in->paths, &missing)) {
        errno = 0;
        r = in->what() < 0 ? errno : 0;
    }
    __atomic_store_n(&in->result, r, __ATOMIC_SEQ_CST);
}

#ifdef AVIX_COVERAGE
/* Filters are a thread's: the one that enters them never ends, and the first thread, which has
 * none, writes the counters. */
static void *enter_main(void *arg)
{
    enter(arg);
    for (;;)
        (void)poll(NULL, 0, 1000);
}

static void run_inside(struct inside *in)
{
    pthread_t t;

    if (pthread_create(&t, NULL, enter_main, in))
        _exit(251);
    while (__atomic_load_n(&in->result, __ATOMIC_SEQ_CST) < 0)
        (void)poll(NULL, 0, 1);
}
#else
#define run_inside enter
#endif

/* errno of a call in a process that entered this sandbox; 0: it worked. */
static int after(unsigned flags, const struct sandbox_path *paths, int (*what)(void))
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct inside in = { flags, paths, what, -1 };

        run_inside(&in);
        _exit(in.result);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 240;
}

static int inet(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}
static int inet6(void)
{
    return socket(AF_INET6, SOCK_DGRAM, 0);
}
static int netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW, 0);
}
static int packet(void)
{
    return socket(AF_PACKET, SOCK_RAW, 0);
}
static int unx(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}
static int exec(void)
{
    return execl("/bin/true", "true", NULL);
}
static int io_uring(void)
{
    char params[256] = { 0 };

    return (int)syscall(SYS_io_uring_setup, 1, params);
}
static int trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static int kill_parent(void)
{
    return kill(getppid(), 0);
}
static int kill_self(void)
{
    return kill(getpid(), 0);
}
static int kill_group(void)
{
    return kill(0, 0);
}
static int limit_parent(void)
{
    struct rlimit rl;

    return prlimit(getppid(), RLIMIT_NOFILE, NULL, &rl);
}
static int limit_self(void)
{
    struct rlimit rl;

    return getrlimit(RLIMIT_NOFILE, &rl);
}
static int do_unshare(void)
{
    return (int)syscall(SYS_unshare, 0x10000000 /* user namespace */);
}
static int do_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return pid < 0 ? -1 : waitpid(pid, NULL, 0);
}

static void no_net_units(void **state)
{
    unsigned f = SBX_NO_NET | SBX_NO_EXEC;

    (void)state;
    assert_int_equal(after(f, NULL, unx), 0);
    assert_int_equal(after(f, NULL, do_fork), 0);
    if (NO_FILTERS)
        skip();
    assert_int_equal(after(f, NULL, inet), EAFNOSUPPORT);
    assert_int_equal(after(f, NULL, inet6), EAFNOSUPPORT);
    assert_int_equal(after(f, NULL, netlink), EAFNOSUPPORT);
    assert_int_equal(after(f, NULL, packet), EAFNOSUPPORT);
    assert_int_equal(after(f, NULL, exec), EPERM);
    assert_int_equal(after(f, NULL, do_unshare), EPERM);
    assert_int_equal(after(f, NULL, io_uring), EPERM);
    assert_int_equal(after(f, NULL, trace), EPERM);
}

/* execsvc: its children need everything but what no unit needs. */
static void a_unit_that_starts_programs(void **state)
{
    (void)state;
    assert_int_equal(after(SBX_NEVER, NULL, exec), 0);
    assert_int_equal(after(SBX_NEVER, NULL, netlink), 0);
    assert_int_equal(after(SBX_NEVER, NULL, kill_parent), 0);
    if (NO_FILTERS)
        skip();
    assert_int_equal(after(SBX_NEVER, NULL, io_uring), EPERM);
    assert_int_equal(after(SBX_NEVER, NULL, trace), EPERM);
}

/* gateway, llmsvc: the network, but no other process. */
static void exposed_units(void **state)
{
    (void)state;
    assert_int_equal(after(SBX_NO_EXEC, NULL, inet), 0);
    assert_int_equal(after(SBX_NO_EXEC, NULL, kill_self), 0);
    assert_int_equal(after(SBX_NO_EXEC, NULL, limit_self), 0);
    if (NO_FILTERS)
        skip();
    assert_int_equal(after(SBX_NO_EXEC, NULL, exec), EPERM);
    assert_int_equal(after(SBX_NO_EXEC, NULL, kill_parent), EPERM);
    assert_int_equal(after(SBX_NO_EXEC, NULL, kill_group), EPERM);
    assert_int_equal(after(SBX_NO_EXEC, NULL, limit_parent), EPERM);
    assert_int_equal(after(SBX_NO_EXEC, NULL, trace), EPERM);
}

static char kept[128], other[128];

static int read_kept(void)
{
    return open(kept, O_RDONLY);
}
static int write_kept(void)
{
    return open(kept, O_WRONLY);
}
static int read_other(void)
{
    return open(other, O_RDONLY);
}
static int read_passwd(void)
{
    return open("/etc/passwd", O_RDONLY);
}

static void landlock_keeps_only_the_named_paths(void **state)
{
    const struct sandbox_path ro[] = { { kept, false }, { "/nonexistent", true }, { NULL, false } };
    const struct sandbox_path rw[] = { { kept, true }, { NULL, false } };

    (void)state;
    if (NO_FILTERS || landlock_abi() < 1)
        skip();
    assert_int_equal(after(SBX_NO_EXEC, ro, read_kept), 0);
    assert_int_equal(after(SBX_NO_EXEC, ro, write_kept), EACCES);
    assert_int_equal(after(SBX_NO_EXEC, rw, write_kept), 0);
    assert_int_equal(after(SBX_NO_EXEC, rw, read_other), EACCES);
    assert_int_equal(after(SBX_NO_EXEC, rw, read_passwd), EACCES);
    assert_int_equal(after(SBX_NO_EXEC, NULL, read_passwd), 0); /* no list: no rules */
}

static int hardened(void)
{
    struct rlimit rl;

    process_harden();
    if (prctl(PR_GET_DUMPABLE) != 0 || getrlimit(RLIMIT_CORE, &rl) || rl.rlim_max != 0)
        return -1;
    return umask(0) == 077 ? 0 : -1;
}

static void nothing_is_dumped(void **state)
{
    (void)state;
    assert_int_equal(after(0, NULL, hardened), 0);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(kept, sizeof(kept), "%s/kept", dir);
    snprintf(other, sizeof(other), "%s/other", dir);
    return file_write_rename(kept, "x", 1, 0600) || file_write_rename(other, "x", 1, 0600);
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_net_units),      cmocka_unit_test(a_unit_that_starts_programs),
        cmocka_unit_test(exposed_units),     cmocka_unit_test(landlock_keeps_only_the_named_paths),
        cmocka_unit_test(nothing_is_dumped),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
