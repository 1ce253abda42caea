/*
 * The isolation level is found by doing what a jail does, in a child: new namespaces (as an
 * ordinary user inside a user namespace, with its ids mapped) and a mount in them. A kernel that
 * hands out a user namespace in which nothing may be mounted has none for our purpose.
 *
 * It is called before the master key is read: the child is dumpable for a moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "common/base/fsx.h"
#include "common/svc/sandbox.h"
#include "kernel/init/init.h"

static bool put(const char *path, const char *text)
{
    cleanup(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write_all(fd, text, strlen(text)) == 0;
}

static bool enter(void)
{
    const int parts = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC;
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char line[64];

    if (unshare(parts) == 0)
        return true;
    /* the maps belong to the process's user only while it is dumpable; it holds nothing secret */
    (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (unshare(CLONE_NEWUSER | parts))
        return false;
    (void)put("/proc/self/setgroups", "deny");
    snprintf(line, sizeof(line), "%u %u 1", uid, uid);
    if (!put("/proc/self/uid_map", line))
        return false;
    snprintf(line, sizeof(line), "%u %u 1", gid, gid);
    return put("/proc/self/gid_map", line);
}

static bool namespaces_work(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        for (char **e = environ; *e; e++) /* the master key may be in it */
            explicit_bzero(*e, strlen(*e));
        if (!enter() || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mount("avix", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k"))
            _exit(1);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void isolation_check(void)
{
    init.level = 'D';
    if (namespaces_work())
        init.level = 'B';
    else if (landlock_abi() >= 1)
        init.level = 'C';
    /* users of their own for units and guests (level A) are not to be had: never less in silence */
    if (str_eq(init.config->uids, "require"))
        boot_fail(EXIT_CONFIG,
                  "%s/etc/kernel.yaml: spec.isolation.uids: 'require' asks for level A, this is "
                  "level %c",
                  init.root, init.level);
}
