#pragma once
/* Who is at the other end of a Unix socket, as the host kernel says: SO_PEERCRED, SO_PEERPIDFD,
 * start time. */
#include <sys/types.h>

#include "common/base/util.h"

struct peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    uint64_t start; /* field 22 of /proc/<pid>/stat; 0: not known */
    int pidfd;      /* -1: not available */
};
#define PEER_NONE                                                             \
    {                                                                         \
        .pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1, .start = 0, .pidfd = -1 \
    }

/* Credentials of the peer, and its start time while it is known to be alive. 0, ERR_AUTH if the
 * process is gone or hidden, -errno. peer_done closes the pidfd. */
int peer_get(int fd, struct peer *ret);
/* The same without start time and pidfd: one system call. */
int peer_cred(int fd, struct peer *ret);
void peer_done(struct peer *p);
/* Field 22 of /proc/<pid>/stat, 0 if there is no such process. */
uint64_t proc_start_time(pid_t pid);
/* True while the process of this pidfd has not exited. */
bool pidfd_alive(int pidfd);
/* True if the kernel names the peer itself (SO_PEERPIDFD): then its frames may be believed by their
 * peer alone. */
bool peer_exact(void);
/* Parent pid by /proc/<pid>/stat, -1 if there is no such process. */
pid_t proc_parent(pid_t pid);
bool peer_same(const struct peer *p, pid_t pid, uint64_t start);
/* After connect: true if the listener of this socket is the process (pid), i.e. called listen(). */
bool peer_listener_is(int fd, pid_t pid);
