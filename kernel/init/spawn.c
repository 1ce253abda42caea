/*
 * A child from fork to exec. The parent has everything ready before the fork; the child only makes
 * system calls. It waits on a socket pair until the parent has minted its token for (pid, start)
 * and published it in units.json, then execs; the pair, close-on-exec, tells the parent whether the
 * exec worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/ipc/peer.h"
#include "kernel/init/init.h"

#define FD_HIGH   200 /* above everything that is placed */
#define TOKEN_ENV "AVIX_SVC_TOKEN="
#define TOKEN_BUF 4096

static void limit(int what, int64_t value)
{
    struct rlimit rl = { (rlim_t)value, (rlim_t)value }, now;

    if (getrlimit(what, &now) == 0 && now.rlim_max < rl.rlim_max)
        rl.rlim_max = rl.rlim_cur = now.rlim_max;
    (void)setrlimit(what, &rl);
}

/* Sanitizer runtimes reserve terabytes of address space and start a thread at exit. */
static void child_limits(const struct spawn *s)
{
    limit(RLIMIT_CORE, 0);
    if (s->open_files)
        limit(RLIMIT_NOFILE, s->open_files);
    if (s->cpu_sec)
        limit(RLIMIT_CPU, s->cpu_sec);
#ifndef AVIX_SAN
    if (s->memory_mib) {
        limit(RLIMIT_AS, s->memory_mib << 20);
        limit(RLIMIT_DATA, s->memory_mib << 20);
    }
    if (s->guest)
        limit(RLIMIT_NPROC, 0);
#endif
}

/* A guest started by root keeps the one capability with which it makes its jail and which it drops
 * then; no_new_privs keeps exec from giving it the others back. */
static void child_drop(const struct spawn *s)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[2] = { { 0 } };

    if (!s->guest)
        return;
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (geteuid() == 0)
        caps[0].permitted = caps[0].effective = 1U << CAP_SYS_ADMIN;
    if (syscall(SYS_capset, &head, caps)) { /* not ours to keep: none, then */
        memset(caps, 0, sizeof(caps));
        (void)syscall(SYS_capset, &head, caps);
    }
}

static void child_fds(const struct spawn *s, int *sync_fd)
{
    int high[SPAWN_FDS], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int sync = fcntl(*sync_fd, F_DUPFD_CLOEXEC, FD_HIGH);

    for (size_t i = 0; i < s->n_fds; i++)
        high[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, FD_HIGH);
    (void)dup2(null, 0);
    (void)dup2(s->log_fd, 1);
    (void)dup2(s->log_fd, 2);
    for (size_t i = 0; i < s->n_fds; i++)
        (void)dup2(high[i], 3 + (int)i);
    int keep = 3 + (int)s->n_fds;

    if (sync != keep)
        (void)dup3(sync, keep, O_CLOEXEC);
    (void)close_range((unsigned)keep + 1, ~0U, 0);
    *sync_fd = keep;
}

static void child_signals(void)
{
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child(const struct spawn *s, int sync_fd, pid_t parent)
{
    static char token[TOKEN_BUF], pid_text[32];
    int err;

    (void)prctl(PR_SET_PDEATHSIG, s->death_signal);
    if (getppid() != parent)
        _exit(111);
    (void)setpgid(0, 0);
    child_signals();
    child_fds(s, &sync_fd);
    umask(077);
    (void)!chdir("/");
    child_limits(s);
    child_drop(s);
    /* the parent's go; end of file means that it changed its mind */
    ssize_t n = recv(sync_fd, token + sizeof(TOKEN_ENV) - 1, sizeof(token) - sizeof(TOKEN_ENV), 0);

    if (n <= 0)
        _exit(111);
    if (s->token_slot >= 0) {
        memcpy(token, TOKEN_ENV, sizeof(TOKEN_ENV) - 1);
        s->envp[s->token_slot] = token;
    }
    if (s->pid_slot >= 0) {
        snprintf(pid_text, sizeof(pid_text), "LISTEN_PID=%d", (int)getpid());
        s->envp[s->pid_slot] = pid_text;
    }
    execve(s->path, s->argv, s->envp);
    err = errno;
    (void)!send(sync_fd, &err, sizeof(err), MSG_NOSIGNAL);
    dprintf(2, "%s: %s\n", s->path, strerror(err));
    _exit(127);
}

int spawn_prepare(const struct spawn *s, struct spawned *ret)
{
    int pair[2];
    pid_t self = getpid();

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    pid_t pid = fork();

    if (pid == 0)
        child(s, pair[1], self);
    int err = errno;

    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return -err;
    }
    (void)setpgid(pid, pid);
    (void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
    *ret = (struct spawned){ .pid = pid, .start = proc_start_time(pid), .sync_fd = pair[0] };
    return 0;
}

void spawn_go(const struct spawned *p, const char *token)
{
    const char *text = token ? token : "-";

    (void)!send(p->sync_fd, text, strlen(text) + 1, MSG_NOSIGNAL);
}
