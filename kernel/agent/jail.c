/*
 * The filter cannot see where connect() leads, so the process is put where nothing else is: a root
 * of its own, an empty read-only tmpfs that holds the three sockets, and network and IPC namespaces
 * of its own (no abstract sockets, no loopback). A privileged start needs no user namespace; any
 * other makes one, in which it is the only user.
 *
 * The tmpfs is mounted over /proc: the one directory that exists everywhere and never holds the run
 * directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "kernel/agent/seal.h"

#define NEW_ROOT "/proc"
#define TMPFS_ID 0x01021994

static int fail(const char **step, const char *what)
{
    int e = errno;

    *step = what;
    return e ? -e : -EIO;
}

static bool inside_already(void)
{
    struct statfs fs;

    return access("/proc/self", F_OK) && access("/usr", F_OK) && !statfs("/", &fs) &&
           fs.f_type == TMPFS_ID;
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = write_all(fd, text, strlen(text));
    close(fd);
    return r;
}

/* The ids stay what they are: the others on the machine see the same user as before. */
static int map_ids(uid_t uid, gid_t gid)
{
    char line[64];
    int r;

    (void)write_file("/proc/self/setgroups", "deny");
    snprintf(line, sizeof line, "%u %u 1", uid, uid);
    if ((r = write_file("/proc/self/uid_map", line)))
        return r;
    snprintf(line, sizeof line, "%u %u 1", gid, gid);
    return write_file("/proc/self/gid_map", line);
}

static int unshare_all(const char **step)
{
    const int parts = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC;
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (!unshare(parts))
        return 0;
    /* the maps belong to the process's user only while it is dumpable */
    (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    int r = unshare(CLONE_NEWUSER | parts) ? -errno : map_ids(uid, gid);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (r)
        *step = "user namespace";
    return r;
}

static int bind_socket(const char *path)
{
    char to[256], dir[256];
    struct stat st;

    if (stat(path, &st) || !S_ISSOCK(st.st_mode))
        return 0; /* not there (no gateway): nothing to reach */
    if (path_fmt(to, sizeof to, "%s%s", NEW_ROOT, path) || !str_copy(dir, sizeof dir, to))
        return -ENAMETOOLONG;
    *strrchr(dir, '/') = '\0';
    int r = mkdir_p(dir, 0755);
    if (r)
        return r;
    int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return mount(path, to, NULL, MS_BIND, NULL) ? -errno : 0;
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { .effective = 0 } };

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &head, none) ? -errno : 0;
}

static int make_root(const char *const *sockets, size_t n, const char **step)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return fail(step, "private mounts");
    if (mount("avix", NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=64k,nr_inodes=64,mode=0755"))
        return fail(step, "tmpfs");
    for (size_t i = 0; i < n; i++) {
        int r = bind_socket(sockets[i]);
        if (r) {
            *step = "bind of a socket";
            return r;
        }
    }
    if (chdir(NEW_ROOT) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
        chdir("/"))
        return fail(step, "pivot_root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL))
        return fail(step, "read-only root");
    return 0;
}

int jail_enter(const char *const *sockets, size_t n, const char **step)
{
    int death = 0;

    if (inside_already())
        return 0;
    (void)prctl(PR_GET_PDEATHSIG, &death);
    int r = unshare_all(step);
    if (!r)
        r = make_root(sockets, n, step);
    if (drop_capabilities() && !r)
        r = fail(step, "capabilities");
    if (death) /* a change of credentials clears it */
        (void)prctl(PR_SET_PDEATHSIG, death);
    return r;
}
