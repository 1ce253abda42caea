#pragma once
/* Starting a program: descriptors put in place, everything else closed, limits set. */
#include <sys/resource.h>
#include <sys/types.h>

#include "common/base/util.h"

struct child_fd {
    int fd; /* ours, stays open */
    int at; /* its number in the child */
};
struct child_limit {
    int what;
    rlim_t soft, hard;
};
struct child_spec {
    const char *const *argv; /* argv[0] is a path */
    const char *const *envp;
    const struct child_fd *fds; /* at most 32; what is not named of 0, 1, 2 is /dev/null */
    size_t n_fds;
    const struct child_limit *limits;
    size_t n_limits;
    int nice;
};
/* Pid with *pidfd (yours), or -errno. The child is killed when this process dies. */
pid_t child_start(const struct child_spec *s, int *pidfd);
