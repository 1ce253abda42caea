/*
 * The filter and the jail, from inside: every system call number is tried in a child of its own,
 * and what an agent needs still works.
 */
#include "tests/unit/kernel/agent/common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ipc/client.h"
#include "kernel/agent/seal.h"

#ifdef AVIX_SAN
#define SKIP() skip() /* its runtime needs more calls than an agent has */
#else
#define SKIP() ((void)0)
#endif

enum { KILLED = 1000 };

/* Runs fn in this process, or in coverage builds in a thread that never ends: the filter and the
 * jail are the thread's then, and the first thread can still write the counters. */
struct inside {
    int (*fn)(void *);
    void *arg;
    int result;
};

static void *inside_main(void *arg)
{
    struct inside *in = arg;

    __atomic_store_n(&in->result, in->fn(in->arg), __ATOMIC_SEQ_CST);
#ifdef AVIX_COVERAGE
    for (;;)
        (void)poll(NULL, 0, 1000);
#endif
    return NULL;
}

static _Noreturn void run_inside(int (*fn)(void *), void *arg)
{
    struct inside in = { fn, arg, -1 };
#ifdef AVIX_COVERAGE
    pthread_t t;

    if (pthread_create(&t, NULL, inside_main, &in))
        _exit(254);
    while (__atomic_load_n(&in.result, __ATOMIC_SEQ_CST) < 0)
        (void)poll(NULL, 0, 1);
#else
    (void)inside_main(&in);
#endif
    _exit(in.result);
}

struct sealed_call {
    int (*fn)(void *);
    void *arg;
};

static int seal_and_call(void *arg)
{
    const struct sealed_call *c = arg;

    return seal_filter(SEAL_ENFORCE) ? 255 : c->fn(c->arg);
}

/* Runs fn in a sealed child: its value, or KILLED + signal. */
static int sealed(int (*fn)(void *), void *arg)
{
    int st = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        for (int i = 1; i < 32; i++) /* cmocka's handlers would run on in the child */
            (void)signal(i, SIG_DFL);
        run_inside(seal_and_call, &(struct sealed_call){ fn, arg });
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    return WIFEXITED(st) ? WEXITSTATUS(st) : KILLED + WTERMSIG(st);
}

static int raw(void *arg)
{
    long nr = *(long *)arg;

    errno = 0;
    long r = syscall(nr, -1, 0, 0, 0, 0, 0);
    return r == -1 && errno == EPERM ? 1 : 0;
}

static bool among(long nr, const long *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == nr)
            return true;
    return false;
}

static void every_system_call(void **state)
{
    static const long passes[] = {
        __NR_read,
        __NR_write,
        __NR_readv,
        __NR_writev,
        __NR_pread64,
        __NR_close,
        __NR_lseek,
        __NR_fstat,
        __NR_fdatasync,
        __NR_mmap,
        __NR_munmap,
        __NR_mremap,
        __NR_mprotect,
        __NR_madvise,
        __NR_brk,
        __NR_connect,
        __NR_accept4,
        __NR_recvmsg,
        __NR_recvfrom,
        __NR_sendmsg,
        __NR_sendto,
        __NR_shutdown,
        __NR_getsockopt,
        __NR_setsockopt,
        __NR_getsockname,
        __NR_getpeername,
        __NR_epoll_create1,
        __NR_epoll_ctl,
        __NR_epoll_pwait,
        __NR_epoll_pwait2,
        __NR_eventfd2,
        __NR_timerfd_create,
        __NR_timerfd_settime,
        __NR_timerfd_gettime,
        __NR_clock_gettime,
        __NR_clock_nanosleep,
        __NR_nanosleep,
        __NR_getrandom,
        __NR_futex,
        __NR_rt_sigaction,
        __NR_rt_sigprocmask,
        __NR_sigaltstack,
        __NR_restart_syscall,
        __NR_getpid,
        __NR_gettid,
        __NR_gettimeofday,
#ifdef __NR_epoll_wait
        __NR_epoll_wait,
        __NR_epoll_create,
        __NR_poll,
#endif
    };
    static const long refused[] = { __NR_openat, __NR_statx,      __NR_ioctl,
                                    __NR_socket, __NR_newfstatat,
#ifdef __NR_open
                                    __NR_open,
#endif
                                    __NR_fcntl };
    /* these end or change the child by themselves; 335 and 336 are the kernel's own probes, which
     * no filter sees and which do nothing outside of one */
    static const long own[] = { __NR_exit, __NR_exit_group, __NR_rt_sigreturn, 335, 336 };

    (void)state;
    SKIP();
    for (long nr = 0; nr < 470; nr++) {
        if (among(nr, own, N_ELEMS(own)))
            continue;
        int got = sealed(raw, &nr);
        int want = among(nr, passes, N_ELEMS(passes))     ? 0
                   : among(nr, refused, N_ELEMS(refused)) ? 1
                                                          : KILLED + SIGSYS;
        if (got != want)
            fail_msg("system call %ld: %d, not %d", nr, got, want);
    }
}

static int conversation(void *arg)
{
    int fd = *(int *)arg;

    if (fcntl(fd, F_SETFL, 0) != -1 || errno != EPERM)
        return 1;
    if (fcntl(fd, F_SETOWN, getpid()) != -1 || errno != EPERM)
        return 2;
    if (lseek(fd, 0, SEEK_SET) != 0 || write(fd, "new\n", 4) != 4 || fdatasync(fd))
        return 3;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    return copy == -1 || !(fcntl(copy, F_GETFL) & O_APPEND) ? 4 : 0;
}

static int cut(void *arg)
{
    return ftruncate(*(int *)arg, 0);
}

static int write_at(void *arg)
{
    return (int)pwrite(*(int *)arg, "X", 1, 0);
}

static void earlier_lines_stay(void **state)
{
    char path[] = "conv-XXXXXX", text[64] = "";
    int fd = mkstemp(path);

    (void)state;
    SKIP();
    close(fd);
    fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, "old\n", 4), 4);
    assert_int_equal(sealed(conversation, &fd), 0);
    assert_int_equal(sealed(cut, &fd), KILLED + SIGSYS);
    assert_int_equal(sealed(write_at, &fd), KILLED + SIGSYS);
    assert_int_equal(pread(fd, text, sizeof text, 0), 8);
    assert_string_equal(text, "old\nnew\n");
    close(fd);
    unlink(path);
}

static int families(void *arg)
{
    static const struct {
        int domain, type;
        bool ok;
    } rows[] = {
        { AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, true },
        { AF_UNIX, SOCK_STREAM, true },
        { AF_UNIX, SOCK_DGRAM, false },
        { AF_UNIX, SOCK_SEQPACKET, false },
        { AF_INET, SOCK_STREAM, false },
        { AF_INET6, SOCK_DGRAM, false },
        { AF_NETLINK, SOCK_RAW, false },
        { AF_VSOCK, SOCK_STREAM, false },
        { AF_ALG, SOCK_SEQPACKET, false },
    };

    (void)arg;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int fd = socket(rows[i].domain, rows[i].type, 0);
        if ((fd >= 0) != rows[i].ok || (fd < 0 && errno != EPERM))
            return (int)i + 1;
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static int code_page(void *arg)
{
    (void)arg;
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 1;
    return mprotect(p, 4096, PROT_READ | PROT_EXEC) ? 2 : 3;
}

static int code_map(void *arg)
{
    (void)arg;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}

static int signal_parent(void *arg)
{
    (void)arg;
    return (int)syscall(SYS_tgkill, 1, 1, 0);
}

static int signal_self(void *arg)
{
    (void)arg;
    abort();
}

static int stat_path(void *arg)
{
    struct stat st;

    (void)arg;
    if (fstat(1, &st))
        return 1;
    return stat("/etc/passwd", &st) && errno == EPERM ? 0 : 2;
}

static void arguments_count(void **state)
{
    (void)state;
    SKIP();
    assert_int_equal(sealed(families, NULL), 0);
    assert_int_equal(sealed(code_page, NULL), KILLED + SIGSYS);
    assert_int_equal(sealed(code_map, NULL), KILLED + SIGSYS);
    assert_int_equal(sealed(signal_parent, NULL), KILLED + SIGSYS);
    assert_int_equal(sealed(stat_path, NULL), 0);
}

static void abort_is_an_abort(void **state)
{
    (void)state;
    SKIP();
    assert_int_equal(sealed(signal_self, NULL), KILLED + SIGABRT);
}

static void program_fits(void **state)
{
    struct sock_filter code[512];
    size_t n = seal_program(SEAL_ENFORCE, code, N_ELEMS(code));

    (void)state;
    assert_true(n > 100 && n < 300);
    assert_int_equal(seal_program(SEAL_ENFORCE, code, n), n);
    assert_int_equal(seal_program(SEAL_ENFORCE, code, n - 1), 0);
}

/* --- the jail -----------------------------------------------------------------------------------
 */

static int listen_at(const char *path, bool abstract)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);

    memcpy(a.sun_path + (abstract ? 1 : 0), path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int connect_abstract(const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);

    memcpy(a.sun_path + 1, name, strlen(name));
    int r = connect(fd, (struct sockaddr *)&a, len) ? -errno : 0;
    close(fd);
    return r;
}

struct place {
    char router[108], kernel[108], gateway[108], bus[108], name[64];
};

static int look_around(void *arg)
{
    const struct place *p = arg;
    const char *const sockets[] = { p->router, p->kernel, p->gateway };
    const char *step = "";
    int fd;

    if (jail_enter(sockets, 3, &step))
        return 99;
    if (access("/etc/passwd", F_OK) == 0 || access("/proc/self", F_OK) == 0 ||
        access("/usr", F_OK) == 0)
        return 1;
    if (open("/x", O_CREAT | O_WRONLY | O_CLOEXEC, 0600) >= 0 || errno != EROFS)
        return 2;
    if ((fd = ipc_connect(p->router, true)) < 0)
        return 3;
    close(fd);
    if ((fd = ipc_connect(p->kernel, true)) < 0)
        return 4;
    if (ipc_connect(p->gateway, true) != -ENOENT || ipc_connect(p->bus, true) != -ENOENT)
        return 5; /* the first does not exist, the second is not for agents */
    if (connect_abstract(p->name) != -ECONNREFUSED)
        return 6;
    if (prctl(PR_GET_DUMPABLE))
        return 7;
    if (unshare(CLONE_NEWUSER) == 0 && mount("x", "/", "tmpfs", 0, NULL) == 0)
        return 8;
    if (jail_enter(sockets, 3, &step))
        return 9; /* a second time: nothing to do */
    return 0;
}

static void only_our_sockets(void **state)
{
    char dir[] = "/tmp/agent-jail-XXXXXX";
    struct place p;
    int st = 0;

    (void)state;
    SKIP();
    assert_non_null(mkdtemp(dir));
    snprintf(p.router, sizeof p.router, "%s/router.sock", dir);
    snprintf(p.kernel, sizeof p.kernel, "%s/kernel.sock", dir);
    snprintf(p.gateway, sizeof p.gateway, "%s/gateway.sock", dir);
    snprintf(p.bus, sizeof p.bus, "%s/bus", dir);
    snprintf(p.name, sizeof p.name, "avix-test-%d", (int)getpid());
    int a = listen_at(p.router, false), b = listen_at(p.kernel, false);
    int c = listen_at(p.bus, false), d = listen_at(p.name, true);
    assert_int_equal(connect_abstract(p.name), 0);
    pid_t pid = fork();
    if (!pid) {
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        run_inside(look_around, &p);
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    close(a);
    close(b);
    close(c);
    close(d);
    unlink(p.router);
    unlink(p.kernel);
    unlink(p.bus);
    rmdir(dir);
    assert_true(WIFEXITED(st));
    if (WEXITSTATUS(st) == 99)
        skip(); /* no namespaces here: the agent reports it as degraded */
    assert_int_equal(WEXITSTATUS(st), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program_fits),       cmocka_unit_test(every_system_call),
        cmocka_unit_test(earlier_lines_stay), cmocka_unit_test(arguments_count),
        cmocka_unit_test(abort_is_an_abort),  cmocka_unit_test(only_our_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
