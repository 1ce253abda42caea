/*
 * Credentials come from the kernel with the connection. A pid alone may have been reused, so it is
 * pinned by a pidfd: the start time read from /proc belongs to the peer if the pidfd is still alive
 * after the reading.
 */
#include "common/ipc/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/err.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Field 4 (parent) and 22 (start time) of /proc/<pid>/stat; false if there is no such process. */
static bool read_stat(pid_t pid, pid_t *ret_parent, uint64_t *ret_start)
{
    char path[32], text[1024];
    cleanup(closep) int fd = -1;
    ssize_t n;
    char *p;
    int field = 3;

    if (pid <= 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    p = strrchr(text, ')'); /* the name may hold blanks and brackets */
    if (!p || p[1] != ' ')
        return false;
    for (p += 2; *p && field < 22; field++) {
        if (field == 4)
            *ret_parent = (pid_t)strtol(p, NULL, 10);
        p = strchr(p, ' ');
        if (!p)
            return false;
        p++;
    }
    *ret_start = strtoull(p, NULL, 10);
    return *ret_start > 0;
}

uint64_t proc_start_time(pid_t pid)
{
    pid_t parent = -1;
    uint64_t start = 0;

    return read_stat(pid, &parent, &start) ? start : 0;
}

pid_t proc_parent(pid_t pid)
{
    pid_t parent = -1;
    uint64_t start = 0;

    return read_stat(pid, &parent, &start) ? parent : -1;
}

bool pidfd_alive(int pidfd)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };

    return poll(&p, 1, 0) == 0;
}

int peer_cred(int fd, struct peer *ret)
{
    struct ucred c;
    socklen_t len = sizeof(c);

    *ret = (struct peer)PEER_NONE;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len))
        return -errno;
    if (c.pid <= 0)
        return ERR_AUTH; /* outside our pid namespace */
    ret->pid = c.pid;
    ret->uid = c.uid;
    ret->gid = c.gid;
    return 0;
}

int peer_get(int fd, struct peer *ret)
{
    int r = peer_cred(fd, ret);
    int pidfd = -1;
    socklen_t len = sizeof(pidfd);

    if (r)
        return r;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
        ret->pidfd = pidfd;
    } else if (errno == ENOPROTOOPT || errno == EINVAL) {
        /* Before Linux 6.5: pins whoever has the pid now, so it proves less; see peer_exact. */
        ret->pidfd = (int)syscall(SYS_pidfd_open, ret->pid, 0U);
        if (ret->pidfd < 0)
            r = ERR_AUTH;
    } else {
        r = ERR_AUTH; /* reaped already */
    }
    if (!r) {
        ret->start = proc_start_time(ret->pid);
        if (!ret->start || !pidfd_alive(ret->pidfd))
            r = ERR_AUTH;
    }
    if (r)
        peer_done(ret);
    return r;
}

bool peer_exact(void)
{
    static int known; /* 0: not asked yet */
    int sv[2], pidfd = -1;
    socklen_t len = sizeof(pidfd);

    if (known)
        return known > 0;
    known = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
        return false;
    if (getsockopt(sv[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
        close(pidfd);
        known = 1;
    }
    close(sv[0]);
    close(sv[1]);
    return known > 0;
}

void peer_done(struct peer *p)
{
    closep(&p->pidfd);
    p->pidfd = -1;
}

bool peer_same(const struct peer *p, pid_t pid, uint64_t start)
{
    return p->pid > 0 && p->pid == pid && p->start && p->start == start;
}

bool peer_listener_is(int fd, pid_t pid)
{
    struct peer p;

    return peer_cred(fd, &p) == 0 && p.pid == pid;
}
