/*
 * fork and exec. Descriptors are first lifted above every number that the child wants, so putting
 * them in place cannot overwrite one that is still needed; close_range then takes away the rest.
 */
#include "execsvc/child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX 32
#define LIFTED  200

_Noreturn static void run_child(const struct child_spec *s, const int *lifted, int null_fd,
                                pid_t parent)
{
    sigset_t none;
    int top = 2;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    setsid();
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 0; i < 3; i++)
        dup2(null_fd, i);
    for (size_t i = 0; i < s->n_fds; i++) {
        if (dup2(lifted[i], s->fds[i].at) < 0)
            _exit(127);
        if (s->fds[i].at > top)
            top = s->fds[i].at;
    }
    close_range((unsigned)top + 1, ~0U, 0);
    for (size_t i = 0; i < s->n_limits; i++) {
        struct rlimit r = { .rlim_cur = s->limits[i].soft, .rlim_max = s->limits[i].hard };

        if (setrlimit(s->limits[i].what, &r))
            _exit(126);
    }
    if (s->nice)
        setpriority(PRIO_PROCESS, 0, s->nice);
    execve(s->argv[0], (char *const *)(uintptr_t)s->argv, (char *const *)(uintptr_t)s->envp);
    _exit(127);
}

pid_t child_start(const struct child_spec *s, int *pidfd)
{
    int lifted[FDS_MAX], r = 0;
    cleanup(closep) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    size_t n = 0;
    pid_t pid = -1, parent = getpid();

    if (null_fd < 0 || s->n_fds > FDS_MAX)
        return null_fd < 0 ? -errno : -E2BIG;
    for (; !r && n < s->n_fds; n++) {
        lifted[n] = fcntl(s->fds[n].fd, F_DUPFD_CLOEXEC, LIFTED);
        if (lifted[n] < 0)
            r = -errno;
    }
    if (!r) {
        pid = fork();
        if (!pid)
            run_child(s, lifted, null_fd, parent);
        r = pid < 0 ? -errno : 0;
    }
    for (size_t i = 0; i < n; i++)
        if (lifted[i] >= 0)
            close(lifted[i]);
    if (r)
        return r;
    *pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (*pidfd < 0) {
        r = -errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return r;
    }
    return pid;
}
