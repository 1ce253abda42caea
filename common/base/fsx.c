/* Files: whole reads with a ceiling, and writes that are there in full or not at all. */
#include "common/base/fsx.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/rnd.h"

int file_readat(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
    cleanup(closep) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    /* the size is a first guess only: /proc files say 0, and a file may grow while it is read */
    size_t cap = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 1 : 4096, len = 0;
    if (cap > max + 1 && max + 1 > max)
        cap = max + 1;
    cleanup(freep) char *data = xmalloc(cap + 1);
    for (;;) {
        ssize_t n = read(fd, data + len, cap - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > max)
            return ERR_TOOBIG;
        if (len == cap) {
            cap = cap > max / 2 ? max + 1 : cap * 2;
            data = xrealloc(data, cap + 1);
        }
    }
    data[len] = '\0';
    *ret = TAKE(data);
    if (ret_len)
        *ret_len = len;
    return 0;
}

int file_read(const char *path, size_t max, char **ret, size_t *ret_len)
{
    return file_readat(AT_FDCWD, path, max, ret, ret_len);
}

int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int sync_parent(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int r = path_fmt(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");

    if (r)
        return r;
    cleanup(closep) int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) ? -errno : 0;
}

static int write_renamed(const char *path, const void *data, size_t len, mode_t mode, bool sync)
{
    char tmp[PATH_MAX], tag[13];
    const char *slash = strrchr(path, '/');
    int dir = slash ? (int)(slash - path) + 1 : 0;

    rnd_base62(tag, sizeof(tag) - 1);
    int r = path_fmt(tmp, sizeof(tmp), "%.*s.avix-tmp-%s", dir, path, tag);
    if (r)
        return r;
    cleanup(closep) int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    r = fchmod(fd, mode) ? -errno : 0;
    if (!r)
        r = write_all(fd, data, len);
    if (!r && sync && fsync(fd))
        r = -errno;
    if (!r && rename(tmp, path))
        r = -errno;
    if (r)
        unlink(tmp);
    return !r && sync ? sync_parent(path) : r;
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode)
{
    return write_renamed(path, data, len, mode, true);
}

int file_write_rename(const char *path, const void *data, size_t len, mode_t mode)
{
    return write_renamed(path, data, len, mode, false);
}

int mkdir_p(const char *path, mode_t mode)
{
    char p[PATH_MAX];
    struct stat st;
    int r = path_fmt(p, sizeof(p), "%s", path);

    if (r)
        return r;
    for (char *s = p + 1; *p; s++) {
        if (*s != '/' && *s)
            continue;
        char keep = *s;

        *s = '\0';
        if (mkdir(p, mode) && errno != EEXIST)
            return -errno;
        if (!keep)
            break;
        *s = keep;
    }
    if (stat(p, &st))
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int memfd_sealed(const char *name, const void *data, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r = fd < 0 ? -errno : write_all(fd, data, len);

    if (!r && (lseek(fd, 0, SEEK_SET) < 0 ||
               fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)))
        r = -errno;
    if (r)
        closep(&fd);
    return r ? r : fd;
}

int path_fmt(char *out, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(out, size, fmt, ap);
    va_end(ap);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int rm_at(int at, const char *name, int depth)
{
    if (unlinkat(at, name, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (depth > 256)
        return -ELOOP;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    cleanup(dirp_close) DIR *d = fdopendir(fd);
    if (!d) {
        int r = -errno;

        close(fd);
        return r;
    }
    for (struct dirent *e; (errno = 0, e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int r = rm_at(fd, e->d_name, depth + 1);
        if (r)
            return r;
    }
    if (errno || unlinkat(at, name, AT_REMOVEDIR))
        return -errno;
    return 0;
}

int rm_rf(const char *dir)
{
    int r = rm_at(AT_FDCWD, dir, 0);

    return r == -ENOENT ? 0 : r;
}
