/*
 * Operations on names and trees: delete, mkdir, move, copy, and the path locks. Trees are walked by
 * descriptors, one folder below the other, and no link is ever followed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "memfs/beneath.h"
#include "memfs/local_int.h"

#define N_STRIPES      64
#define DEPTH_MAX      64
#define COPY_CHUNK     (1 << 20)
#define COPY_FILES_MAX 100000

static pthread_mutex_t stripes[N_STRIPES];
static pthread_once_t stripes_once = PTHREAD_ONCE_INIT;

static void stripes_init(void)
{
    for (size_t i = 0; i < N_STRIPES; i++)
        pthread_mutex_init(&stripes[i], NULL);
}

struct path_lock path_lock2(const char *a, const char *b)
{
    unsigned x = (unsigned)(hash_str(a) % N_STRIPES), y = (unsigned)(hash_str(b) % N_STRIPES);
    struct path_lock l = { .a = x < y ? x : y, .b = x < y ? y : x };

    pthread_once(&stripes_once, stripes_init);
    pthread_mutex_lock(&stripes[l.a]);
    if (l.b != l.a)
        pthread_mutex_lock(&stripes[l.b]);
    return l;
}

void path_unlock(struct path_lock *l)
{
    if (l->b != l->a)
        pthread_mutex_unlock(&stripes[l->b]);
    pthread_mutex_unlock(&stripes[l->a]);
}

char *tmp_name(char out[TMP_NAME])
{
    unsigned char r[12];

    rnd_bytes(r, sizeof(r));
    memcpy(out, TMP_PREFIX, sizeof(TMP_PREFIX) - 1);
    hex_encode(r, sizeof(r), out + sizeof(TMP_PREFIX) - 1);
    return out;
}

static bool dot_name(const char *n)
{
    return str_eq(n, ".") || str_eq(n, "..");
}

static int remove_below(int dirfd, const char *name, int depth, int64_t *count)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup(dirp_close) DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int r = 0;

    if (!d) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    if (depth > DEPTH_MAX)
        return -ELOOP;
    for (struct dirent *e; !r && (e = readdir(d));) {
        if (dot_name(e->d_name))
            continue;
        if (!unlinkat(fd, e->d_name, 0))
            ++*count;
        else if (errno == EISDIR || errno == EPERM)
            r = remove_below(fd, e->d_name, depth + 1, count);
        else if (errno != ENOENT)
            r = -errno;
    }
    if (!r && unlinkat(dirfd, name, AT_REMOVEDIR))
        r = -errno;
    if (!r)
        ++*count;
    return r;
}

int remove_tree(int dirfd, const char *name, int64_t *count)
{
    return remove_below(dirfd, name, 0, count);
}

/* Leftovers of a crash must not keep a folder from being empty. */
static bool only_hidden(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup(dirp_close) DIR *d = fd < 0 ? NULL : fdopendir(fd);
    bool hidden = d != NULL;

    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; hidden && (e = readdir(d));)
        hidden = dot_name(e->d_name) || str_starts(e->d_name, TMP_PREFIX);
    return hidden;
}

static int remove_dir(int dir, const char *base, bool recursive, int64_t *count)
{
    if (!unlinkat(dir, base, AT_REMOVEDIR)) {
        *count = 1;
        return 0;
    }
    if (errno != ENOTEMPTY && errno != EEXIST)
        return -errno;
    if (!recursive && !only_hidden(dir, base))
        return ERR_NOTEMPTY;
    int r = remove_tree(dir, base, count);

    if (!recursive)
        *count = 1;
    return r;
}

int local_delete(const struct loc *l, bool recursive, const char *if_match, int64_t *count,
                 struct fault *f)
{
    const char *rel, *base = "";
    struct stat st;
    int r;
    cleanup(closep) int root = open_root(l, false, &rel, f);

    *count = 0;
    if (root < 0)
        return f->err;
    if (!*rel)
        return fault_set(f, ERR_PERM, "%.200s: an ownership root cannot be deleted", l->path);
    cleanup(closep) int dir = beneath_parent(root, rel, false, &base);

    if (dir < 0)
        return fault_io(f, dir, l->path);
    HOLD_PATHS(l->path, l->path);

    if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW))
        return fault_io(f, -errno, l->path);
    if (match_etag(if_match, true, &st, l->path, f))
        return f->err;
    if (S_ISDIR(st.st_mode)) {
        r = remove_dir(dir, base, recursive, count);
    } else {
        r = unlinkat(dir, base, 0) ? -errno : 0;
        *count = 1;
    }
    if (!r && fsync(dir))
        r = -errno;
    return r ? fault_io(f, r, l->path) : 0;
}

int local_mkdir(const struct loc *l, bool parents, bool *created, struct fault *f)
{
    const char *rel, *base = "";
    struct stat st;
    cleanup(closep) int root = open_root(l, l->area == AREA_SCRATCH, &rel, f);

    *created = false;
    if (root < 0)
        return f->err;
    if (!*rel)
        return 0;
    cleanup(closep) int dir = beneath_parent(root, rel, parents, &base);

    if (dir < 0)
        return fault_io(f, dir, l->path);
    if (!mkdirat(dir, base, 0700)) {
        *created = true;
        return fsync(dir) ? fault_io(f, -errno, l->path) : 0;
    }
    if (errno != EEXIST)
        return fault_io(f, -errno, l->path);
    if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW))
        return fault_io(f, -errno, l->path);
    return S_ISDIR(st.st_mode) ? 0 : fault_io(f, ERR_EXIST, l->path);
}

/* --- copy ----------------------------------------------------------------------------------- */

struct copying {
    bool overwrite;
    bool (*may)(const char *path, void *arg);
    void *arg;
    struct copy_res *res;
    struct fault *f;
};

static int copy_bytes(int in, int out, int64_t *bytes)
{
    cleanup(freep) char *chunk = NULL;

    for (;;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, COPY_CHUNK, 0);

        if (n < 0 &&
            (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
            chunk = chunk ? chunk : xmalloc(COPY_CHUNK);
            n = read(in, chunk, COPY_CHUNK);
            int r = n > 0 ? write_all(out, chunk, (size_t)n) : 0;

            if (r)
                return r;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : 0;
        *bytes += n;
        if (*bytes > 4 * FILE_MAX)
            return -EFBIG;
    }
}

/* in: the open source. */
static int copy_file(int in, const struct stat *st, int dir, const char *base, struct copying *c,
                     bool sync)
{
    char tmp[TMP_NAME];
    struct stat old;
    cleanup(closep) int out = -1;
    int r;

    if (!fstatat(dir, base, &old, AT_SYMLINK_NOFOLLOW)) {
        if (!c->overwrite)
            return ERR_EXIST;
        if (!S_ISREG(old.st_mode))
            return S_ISDIR(old.st_mode) ? ERR_ISDIR : ERR_LOOP;
    }
    out = openat(dir, tmp_name(tmp), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0)
        return -errno;
    r = copy_bytes(in, out, &c->res->bytes);
    if (!r && (fchmod(out, st->st_mode & 0777) || (sync && fdatasync(out))))
        r = -errno;
    if (!r)
        r = put_name(dir, tmp, base, c->overwrite);
    if (r)
        unlinkat(dir, tmp, 0);
    else
        c->res->files++;
    return r;
}

static int copy_dir(int from, const char *path, int dir, const char *base, struct copying *c,
                    int depth);

static int copy_entry(int from, const char *name, const char *path, int to, struct copying *c,
                      int depth)
{
    struct stat st;
    cleanup(closep) int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (in < 0) /* a link, or gone meanwhile */
        return errno == ELOOP || errno == ENOENT || errno == ENXIO ? 0 : -errno;
    if (fstat(in, &st))
        return -errno;
    if (S_ISDIR(st.st_mode))
        return copy_dir(in, path, to, name, c, depth + 1);
    if (!S_ISREG(st.st_mode))
        return 0;
    if (c->res->files >= COPY_FILES_MAX)
        return ERR_LIMIT;
    return copy_file(in, &st, to, name, c, false);
}

/* from: the open source folder. */
static int copy_dir(int from, const char *path, int dir, const char *base, struct copying *c,
                    int depth)
{
    char sub[VPATH_MAX + 1];
    int dup = fcntl(from, F_DUPFD_CLOEXEC, 3), r = 0;
    cleanup(dirp_close) DIR *d = dup < 0 ? NULL : fdopendir(dup);

    if (!d || depth > DEPTH_MAX)
        return d ? -ELOOP : -errno;
    if (mkdirat(dir, base, 0700) && !(errno == EEXIST && c->overwrite))
        return -errno;
    cleanup(closep) int to = openat(dir, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (to < 0)
        return -errno;
    rewinddir(d);
    for (struct dirent *e; !r && (e = readdir(d));) {
        if (dot_name(e->d_name) || str_starts(e->d_name, TMP_PREFIX))
            continue;
        if (path_fmt(sub, sizeof(sub), "%s/%s", path, e->d_name))
            continue;
        if (!c->may || c->may(sub, c->arg))
            r = copy_entry(from, e->d_name, sub, to, c, depth);
    }
    return r;
}

static int copy_checked(const struct loc *from, const struct loc *to, bool recursive,
                        struct copying *c, struct stat *st)
{
    const char *rel, *rel2, *base = "";
    struct fault *f = c->f;
    int r;
    cleanup(closep) int root = open_root(from, false, &rel, f);
    cleanup(closep) int in = root < 0 ? -1 : open_checked(root, rel, O_RDONLY, from->path, st, f);

    if (in < 0)
        return f->err;
    if (S_ISDIR(st->st_mode) && !recursive)
        return fault_io(f, ERR_ISDIR, from->path);
    if (vpath_beneath(to->path, from->path)) {
        f->data = json_make("param:s", "to");
        return fault_set(f, ERR_INVAL, "%.100s: lies in what is to be copied", to->path);
    }
    cleanup(closep) int root2 = open_root(to, to->area == AREA_SCRATCH, &rel2, f);

    if (root2 < 0)
        return f->err;
    if (!*rel2)
        return fault_io(f, ERR_EXIST, to->path);
    cleanup(closep) int dir = beneath_parent(root2, rel2, true, &base);

    if (dir < 0)
        return fault_io(f, dir, to->path);
    if (S_ISDIR(st->st_mode)) {
        r = copy_dir(in, from->path, dir, base, c, 0);
        if (!r && syncfs(dir))
            r = -errno;
    } else {
        r = copy_file(in, st, dir, base, c, true);
        if (!r && fsync(dir))
            r = -errno;
    }
    return r ? fault_io(f, r, to->path) : 0;
}

int local_copy(const struct loc *from, const struct loc *to, bool overwrite, bool recursive,
               bool (*may)(const char *path, void *arg), void *arg, struct copy_res *res,
               struct fault *f)
{
    struct stat st;
    struct copying c = { .overwrite = overwrite, .may = may, .arg = arg, .res = res, .f = f };
    HOLD_PATHS(from->path, to->path);

    *res = (struct copy_res){ .files = 0 };
    return copy_checked(from, to, recursive, &c, &st);
}

/* --- move ----------------------------------------------------------------------------------- */

static int move_within(const struct loc *from, const struct loc *to, bool overwrite,
                       struct stat *st, struct fault *f)
{
    const char *rel, *rel2, *base = "", *base2 = "";
    int r = 0;
    cleanup(closep) int root = open_root(from, false, &rel, f);
    cleanup(closep) int root2 = root < 0 ? -1 : open_root(to, false, &rel2, f);

    if (root2 < 0)
        return f->err;
    if (!*rel || !*rel2)
        return fault_set(f, ERR_PERM, "%.200s: an ownership root cannot be moved", from->path);
    cleanup(closep) int dir = beneath_parent(root, rel, false, &base);

    if (dir < 0)
        return fault_io(f, dir, from->path);
    if (fstatat(dir, base, st, AT_SYMLINK_NOFOLLOW))
        return fault_io(f, -errno, from->path);
    cleanup(closep) int dir2 = beneath_parent(root2, rel2, true, &base2);

    if (dir2 < 0)
        return fault_io(f, dir2, to->path);
    if (renameat2(dir, base, dir2, base2, overwrite ? 0 : RENAME_NOREPLACE))
        r = -errno;
    if (!r && (fsync(dir2) || fsync(dir) || fstatat(dir2, base2, st, AT_SYMLINK_NOFOLLOW)))
        r = -errno;
    if (r == -EINVAL) {
        f->data = json_make("param:s", "to");
        return fault_set(f, ERR_INVAL, "%.100s: lies in what is to be moved", to->path);
    }
    return r == -EXDEV ? r : r ? fault_io(f, r, to->path) : 0;
}

/* Copy, compare, delete. The source is deleted only if it did not change meanwhile. */
static int move_across(const struct loc *from, const struct loc *to, bool overwrite,
                       struct stat *st, struct fault *f)
{
    struct copy_res res = { .files = 0 };
    struct copying c = { .overwrite = overwrite, .res = &res, .f = f };
    char before[ETAG_LEN], after[ETAG_LEN];
    const char *rel, *base = "";
    int64_t count = 0;
    int r;

    if (!*from->rest)
        return fault_set(f, ERR_PERM, "%.200s: an ownership root cannot be moved", from->path);
    if (copy_checked(from, to, true, &c, st))
        return f->err;
    etag_of(st, before);
    if (local_stat(from, st, f))
        return f->err;
    if (!str_eq(before, etag_of(st, after)))
        return fault_etag(f, from->path, after);
    cleanup(closep) int root = open_root(from, false, &rel, f);
    cleanup(closep) int dir = root < 0 ? -1 : beneath_parent(root, rel, false, &base);

    if (dir < 0)
        return f->err ? f->err : fault_io(f, dir, from->path);
    if (S_ISDIR(st->st_mode))
        r = remove_tree(dir, base, &count);
    else
        r = unlinkat(dir, base, 0) ? -errno : 0;
    if (!r && fsync(dir))
        r = -errno;
    return r ? fault_io(f, r, from->path) : local_stat(to, st, f);
}

int local_move(const struct loc *from, const struct loc *to, bool overwrite, struct stat *st,
               struct fault *f)
{
    HOLD_PATHS(from->path, to->path);

    if (ns_same_root(from, to)) {
        int r = move_within(from, to, overwrite, st, f);

        if (r != -EXDEV) /* a host mount in between */
            return r;
    }
    return move_across(from, to, overwrite, st, f);
}
