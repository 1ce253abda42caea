/*
 * The kernel does the confinement (openat2, RESOLVE_BENEATH), so a link that is swapped in between
 * two calls changes nothing: each open is checked as a whole by the host. The fallback for hosts
 * without openat2 (or seccomp profiles that do not know it) walks component by component with
 * O_NOFOLLOW; it refuses every link, which is stricter, never weaker.
 */
#include "memfs/beneath.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/vpath.h"

#define AGAIN_TRIES 64

static atomic_bool no_openat2;

static bool walking(void)
{
    return atomic_load_explicit(&no_openat2, memory_order_relaxed);
}

void beneath_force_walk(bool on)
{
    atomic_store(&no_openat2, on);
}

/* A link met by O_NOFOLLOW|O_DIRECTORY shows as ENOTDIR; tell the two apart. */
static int walk_errno(int dir, const char *name, int err)
{
    struct stat st;

    if (err == ENOTDIR && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
        return -ELOOP;
    return -err;
}

static int walk_open(int root, const char *rel, int flags, mode_t mode)
{
    char path[VPATH_MAX + 1];
    int dir = fcntl(root, F_DUPFD_CLOEXEC, 3);
    char *at = path;

    if (dir < 0)
        return -errno;
    if (!str_copy(path, sizeof(path), rel)) {
        close(dir);
        return -ENAMETOOLONG;
    }
    for (;;) {
        char *slash = strchr(at, '/');
        int r;

        if (slash)
            *slash = '\0';
        if (str_eq(at, ".."))
            r = -EXDEV;
        else if (slash)
            r = openat(dir, at, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        else
            r = openat(dir, at, flags | O_NOFOLLOW, mode);
        if (r == -1)
            r = walk_errno(dir, at, errno);
        close(dir);
        if (r < 0 || !slash)
            return r;
        dir = r;
        at = slash + 1;
    }
}

int beneath_open(int root, const char *rel, int flags, mode_t mode)
{
    flags |= O_CLOEXEC;
    if (!(flags &
          O_PATH)) /* a fifo without a writer must not hold us; openat2 is strict on O_PATH */
        flags |= O_NONBLOCK | O_NOCTTY;
    if (!*rel)
        rel = ".";
    struct open_how how = { .flags = (uint64_t)(unsigned)flags,
                            .mode = (flags & O_CREAT) ? mode : 0,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };

    for (int i = 0; i < AGAIN_TRIES && !walking(); i++) {
        long r = syscall(SYS_openat2, root, rel, &how, sizeof(how));

        if (r >= 0)
            return (int)r;
        if (errno == ENOSYS)
            atomic_store(&no_openat2, true);
        else if (errno != EAGAIN && errno != EINTR) /* EAGAIN: a rename raced with ".." */
            return -errno;
    }
    return walking() ? walk_open(root, rel, flags, mode) : -EAGAIN;
}

int beneath_dir(int root, const char *rel, bool make)
{
    char path[VPATH_MAX + 1];
    int fd = beneath_open(root, rel, O_RDONLY | O_DIRECTORY, 0);

    if (fd != -ENOENT || !make || !*rel)
        return fd;
    if (!str_copy(path, sizeof(path), rel))
        return -ENAMETOOLONG;
    cleanup(closep) int up = beneath_open(root, "", O_PATH | O_DIRECTORY, 0);

    if (up < 0)
        return up;
    for (char *at = path;;) { /* each prefix from the root, so links stay judged as a whole */
        char *slash = strchr(at, '/');

        if (slash)
            *slash = '\0';
        fd = beneath_open(root, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd == -ENOENT) {
            if (mkdirat(up, at, 0700) && errno != EEXIST)
                return -errno;
            fd = beneath_open(root, path, O_RDONLY | O_DIRECTORY, 0);
        }
        if (fd < 0 || !slash)
            return fd;
        close(up);
        up = fd;
        *slash = '/';
        at = slash + 1;
    }
}

int beneath_parent(int root, const char *rel, bool make, const char **base)
{
    char dir[VPATH_MAX + 1];
    const char *slash = strrchr(rel, '/');

    if (!*rel)
        return -EINVAL;
    *base = slash ? slash + 1 : rel;
    if (!slash)
        return beneath_dir(root, "", false);
    memcpy(dir, rel, (size_t)(slash - rel));
    dir[slash - rel] = '\0';
    return beneath_dir(root, dir, make);
}
