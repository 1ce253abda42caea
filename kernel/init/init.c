/*
 * The life of init: preflight, keys, sockets, loop. One thread; host signals come through a
 * signalfd; children are reaped until none is left at every SIGCHLD. No timer runs while nothing is
 * due, so an idle suite never wakes this process.
 */
#include "kernel/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/ipc/peer.h"
#include "common/svc/sandbox.h"
#include "kernel/init/cgroup.h"

#ifdef AVIX_SAN
#include <sanitizer/common_interface_defs.h>
#endif

struct init init = { .lock_fd = -1, .run_lock_fd = -1, .stdout_fd = 1, .stderr_fd = 2 };

static struct watch signal_watch;
static struct logfile *own_log;

/* Looks first, so that stragglers of the process group die before its number is free again. */
static void reap_all(void)
{
    siginfo_t si = { .si_pid = 0 };
    struct rusage ru;
    int status;

    while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid > 0) {
        pid_t pid = si.si_pid;
        struct iunit *u = unit_of_pid(pid);

        if (u)
            (void)kill(-pid, SIGKILL);
        if (wait4(pid, &status, WNOHANG, &ru) == pid) {
            if (u)
                unit_exited(u, status);
            else
                (void)agent_exited(pid, status, &ru);
        }
        si.si_pid = 0;
    }
}

static void dump_units(void)
{
    for (int i = 0; i < UNIT_COUNT; i++)
        log_info("unit %s: %s, host pid %d, %d restarts", units[i].row->name,
                 unit_state_name(&units[i]), (int)units[i].pid, units[i].restarts);
    log_info("%zu agents", agents_signal(0));
}

static void on_signal(int fd, unsigned events, void *arg)
{
    struct signalfd_siginfo si;

    (void)events;
    (void)arg;
    while (read(fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        switch (si.ssi_signo) {
        case SIGTERM:
        case SIGINT:
            if (init.stopping)
                shutdown_hurry();
            else
                shutdown_begin(si.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT", -1, false);
            break;
        case SIGHUP:
            for (int i = 0; i < UNIT_COUNT; i++)
                unit_reload(&units[i]);
            break;
        case SIGUSR1:
            dump_units();
            break;
        default:
            break;
        }
    }
    reap_all();
}

static void signals_block(sigset_t *set)
{
    static const int numbers[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1 };

    sigemptyset(set);
    for (size_t i = 0; i < N_ELEMS(numbers); i++)
        sigaddset(set, numbers[i]);
    sigprocmask(SIG_SETMASK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void signals_watch(const sigset_t *set)
{
    int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);

    if (fd < 0)
        boot_fail(1, "signalfd: %s", strerror(errno));
    watch_init(&signal_watch, init.loop, fd, on_signal, NULL);
    watch_set(&signal_watch, LOOP_READ);
}

/* Our own log is a child's pipe whose writer is ourselves; it never blocks. */
static void own_log_open(void)
{
    own_log = logfile_open("init.log", "init", true);
    int fd = logfile_pipe(own_log);

    if (fd < 0)
        return;
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)dup2(fd, 2);
    close(fd);
#ifdef AVIX_SAN /* a report of the sanitizer must not die in the pipe */
    __sanitizer_set_report_fd((void *)(intptr_t)init.stderr_fd);
#endif
}

static void standard_fds(void)
{
    int fd;

    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2)
        ;
    if (fd > 2)
        close(fd);
    /* a child never gets these two: it has a pipe for both */
    init.stdout_fd = fcntl(1, F_DUPFD_CLOEXEC, 10);
    init.stderr_fd = fcntl(2, F_DUPFD_CLOEXEC, 10);
}

static void identity(void)
{
    char exe[256];
    cleanup(freep) char *boot = NULL;
    char id[UUID_LEN];
    size_t len;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    if (n <= 0)
        boot_fail(1, "/proc/self/exe: %s; is /proc mounted?", strerror(errno));
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    str_copy(init.libexec, sizeof(init.libexec), exe);
    init.start = proc_start_time(getpid());
    if (file_read("/proc/sys/kernel/random/boot_id", 64, &boot, &len) == 0)
        boot[strcspn(boot, "\n")] = '\0';
    snprintf(init.boot_id, sizeof(init.boot_id), "%.36s-%d-%.8s", boot ? boot : "unknown",
             (int)getpid(), uuid4(id));
    const char *notify = getenv("NOTIFY_SOCKET");

    if (notify)
        str_copy(init.systemd_notify, sizeof(init.systemd_notify), notify);
    unsetenv("NOTIFY_SOCKET");
}

static void boot(const sigset_t *set)
{
    enum log_level level = LOG_INFO;

    preflight();
    (void)log_level_parse(init.opts.log_level, &level);
    log_init("init", true, level);
    isolation_check();
    keys_load();
    init.loop = loop_new();
    own_log_open();
    if (init.config->legacy[0])
        log_warn("%s/etc/kernel.yaml: no effect any more: %s", init.root, init.config->legacy);
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1))
        log_warn("not a subreaper: %s", strerror(errno));
    cgroup_open();
    sockets_bind();
    notify_open();
    ctl_open();
    if (init.opts.one_shot)
        oneshot_open();
    signals_watch(set);
    units_init();
    units_json_write();
    units_kick();
}

/* The suite is started again in place: same pid, same arguments, sub-keys on a memfd. */
static void start_again(void)
{
    char number[16];
    sigset_t none;
    int fd = keys_handover();

    snprintf(number, sizeof(number), "%d", fd);
    if (fd < 0 || fcntl(fd, F_SETFD, 0) || setenv("AVIX_INIT_KEYS_FD", number, 1))
        return;
    if (init.systemd_notify[0])
        (void)setenv("NOTIFY_SOCKET", init.systemd_notify, 1);
    (void)dup2(init.stdout_fd, 1);
    (void)dup2(init.stderr_fd, 2);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv("/proc/self/exe", init.argv);
}

int init_main(int argc, char **argv)
{
    sigset_t set;
    bool done;

    process_harden();
    standard_fds();
    init.argv = argv;
    init.boot_start_ms = mono_ms();
    int r = opts_parse(argc, argv, &init.opts, &done);

    if (r || done)
        return r;
    signals_block(&set);
    identity();
    boot(&set);
    loop_run(init.loop);
    ctl_close();
    shutdown_reap();
    sockets_remove();
    logs_end();
    if (shutdown_again())
        start_again();
    keys_wipe();
    return init.unit_report ? EXIT_SANITIZER : 0;
}
