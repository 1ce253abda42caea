/*
 * Reading and writing one file. A new content is written beside the file under a hidden name,
 * synced, and renamed over it, so whoever opens the path sees the old or the new bytes; a crash in
 * between leaves the old ones and a hidden file that the next listing of the folder removes.
 * Comparing an etag and renaming happen under one lock per path.
 */
#include "memfs/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "memfs/beneath.h"
#include "memfs/local_int.h"

#define LINE_CHUNK (256 << 10)
/* JSON text of a slice over this goes out as base64, or the frame would pass its limit. */
#define JSON_TEXT_MAX (12LL << 20)

char *etag_of(const struct stat *st, char out[ETAG_LEN])
{
    snprintf(out, ETAG_LEN, "%llx-%llx-%llx",
             (unsigned long long)st->st_mtim.tv_sec * 1000000000ULL +
                 (unsigned long long)st->st_mtim.tv_nsec,
             (unsigned long long)st->st_size, (unsigned long long)st->st_ino);
    return out;
}

int open_root(const struct loc *l, bool make, const char **rel, struct fault *f)
{
    int fd = ns_open_root(l, make, rel);

    return fd >= 0 ? fd : (fault_io(f, fd, l->path), -1);
}

int open_checked(int root, const char *rel, int flags, const char *path, struct stat *st,
                 struct fault *f)
{
    int fd = beneath_open(root, rel, flags, 0);

    if (fd == -ENXIO || fd == -ENODEV) /* a socket, a device without a driver */
        fd = -EPERM;
    if (fd < 0)
        return fault_io(f, fd, path), -1;
    if (fstat(fd, st))
        fault_io(f, -errno, path);
    else if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
        fault_io(f, ERR_PERM, path);
    if (!f->err)
        return fd;
    close(fd);
    return -1;
}

static ssize_t pread_all(int fd, char *data, size_t n, int64_t at)
{
    size_t got = 0;

    while (got < n) {
        ssize_t r = pread(fd, data + got, n - got, at + (int64_t)got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (!r)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static bool text_too_long(const char *data, size_t n)
{
    int64_t len = 0;

    if (n * 6 <= JSON_TEXT_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        len += (unsigned char)data[i] < 0x20 ? 6 : data[i] == '"' || data[i] == '\\' ? 2 : 1;
    return len > JSON_TEXT_MAX;
}

int read_result(struct buf *out, const char *path, const char *data, size_t n,
                const struct read_req *q, int64_t size, int64_t offset, const char *etag,
                int64_t mtime_ms, struct fault *f)
{
    enum encoding want = q->encoding, enc;
    char when[RFC3339_LEN];

    if (want == ENC_AUTO && text_too_long(data, n))
        want = ENC_BASE64;
    if (encode_choose(data, &n, offset + (int64_t)n >= size, want, &enc)) {
        f->data = json_make("param:s", "encoding");
        return fault_set(f, ERR_INVAL, "encoding: %.200s is not UTF-8 there", path);
    }
    buf_adds(out, "{\"path\":");
    buf_add_json_str(out, path, strlen(path));
    buf_adds(out, ",\"content\":");
    encode_add(out, data, n, enc);
    buf_printf(out,
               ",\"encoding\":\"%s\",\"size\":%lld,\"offset\":%lld,\"length\":%zu,\"eof\":%s,"
               "\"etag\":\"%s\",\"modifiedAt\":\"%s\"}",
               encoding_names[enc], (long long)size, (long long)offset, n,
               offset + (int64_t)n >= size ? "true" : "false", etag, rfc3339(mtime_ms, when));
    return out->toobig ? fault_big(f, path, (int64_t)out->max, size) : 0;
}

/* Byte range [*from, *from + *n) of whole lines, from line q->line on. */
static int find_lines(int fd, const struct read_req *q, int64_t cap, int64_t *from, int64_t *n,
                      const char *path, struct fault *f)
{
    cleanup(freep) char *chunk = xmalloc(LINE_CHUNK);
    int64_t at = 0, line = 1, end = -1, left = q->lines;
    ssize_t r;

    *from = q->line == 1 ? 0 : -1;
    while ((r = pread_all(fd, chunk, LINE_CHUNK, at)) > 0) {
        for (const char *p = chunk, *stop = chunk + r; p < stop;) {
            const char *nl = memchr(p, '\n', (size_t)(stop - p));
            int64_t next;

            if (!nl)
                break;
            p = nl + 1;
            next = at + (p - chunk);
            line++;
            if (*from < 0) {
                if (line == q->line)
                    *from = next;
                continue;
            }
            if (next - *from > cap)
                goto full;
            end = next;
            if (left > 0 && !--left)
                goto full;
        }
        at += r;
        if (*from >= 0 && at - *from > cap)
            goto full;
    }
    if (r < 0)
        return fault_io(f, (int)r, path);
    if (*from < 0)
        *from = at; /* past the last line: nothing */
    end = at;
full:
    if (end < 0 && *from >= 0) /* the first line alone is over the cap */
        return fault_big(f, path, cap, cap + 1);
    *n = end - *from;
    return 0;
}

int local_read(const struct loc *l, const struct read_req *q, struct buf *out, struct stat *st,
               struct fault *f)
{
    const char *rel;
    char etag[ETAG_LEN];
    int64_t offset = q->offset, n = q->length < 0 ? READ_DFLT : q->length;
    cleanup(closep) int root = open_root(l, false, &rel, f);
    cleanup(closep) int fd = root < 0 ? -1 : open_checked(root, rel, O_RDONLY, l->path, st, f);

    if (fd < 0)
        return f->err;
    if (S_ISDIR(st->st_mode))
        return fault_io(f, ERR_ISDIR, l->path);
    if (q->line && q->lines)
        find_lines(fd, q, n, &offset, &n, l->path, f);
    else if (q->line)
        n = 0;
    if (f->err)
        return f->err;
    if (offset >= st->st_size)
        n = 0;
    else if (n > st->st_size - offset)
        n = st->st_size - offset;
    cleanup(freep) char *data = xmalloc((size_t)n + 1);
    ssize_t got = pread_all(fd, data, (size_t)n, offset);

    if (got < 0)
        return fault_io(f, (int)got, l->path);
    return read_result(out, l->path, data, (size_t)got, q, st->st_size, offset, etag_of(st, etag),
                       stat_mtime_ms(st), f);
}

int local_stat(const struct loc *l, struct stat *st, struct fault *f)
{
    const char *rel;
    cleanup(closep) int root = open_root(l, false, &rel, f);

    if (root < 0)
        return f->err;
    cleanup(closep) int fd = open_checked(root, rel, O_PATH, l->path, st, f);

    return fd < 0 ? f->err : 0;
}

size_t local_head(const struct loc *l, char *head, size_t size)
{
    const char *rel;
    struct stat st;
    struct fault f = { .err = 0 };
    cleanup(closep) int root = open_root(l, false, &rel, &f);
    cleanup(closep) int fd = root < 0 ? -1 : open_checked(root, rel, O_RDONLY, l->path, &st, &f);
    ssize_t n = fd < 0 ? 0 : pread_all(fd, head, size, 0);

    fault_done(&f);
    return n > 0 ? (size_t)n : 0;
}

/* The file that is there now, not through a link. 1 there, 0 not, -1 fault. */
static int look(int dir, const char *base, const char *path, struct stat *st, struct fault *f)
{
    if (fstatat(dir, base, st, AT_SYMLINK_NOFOLLOW)) {
        if (errno == ENOENT)
            return 0;
        return fault_io(f, -errno, path), -1;
    }
    if (S_ISDIR(st->st_mode))
        return fault_io(f, ERR_ISDIR, path), -1;
    if (S_ISLNK(st->st_mode)) /* nothing is written through a link */
        return fault_io(f, ERR_LOOP, path), -1;
    if (!S_ISREG(st->st_mode))
        return fault_io(f, ERR_PERM, path), -1;
    return 1;
}

int match_etag(const char *if_match, bool there, const struct stat *st, const char *path,
               struct fault *f)
{
    char now[ETAG_LEN] = "";

    if (!if_match)
        return 0;
    if (there)
        etag_of(st, now);
    return str_eq(if_match, now) && there ? 0 : fault_etag(f, path, now);
}

int put_name(int dir, const char *tmp, const char *base, bool replace)
{
    if (!renameat2(dir, tmp, dir, base, replace ? 0 : RENAME_NOREPLACE))
        return 0;
    if (replace || errno != EINVAL)
        return -errno;
    if (linkat(dir, tmp, dir, base, 0)) /* a file system without NOREPLACE */
        return -errno;
    return unlinkat(dir, tmp, 0) ? -errno : 0;
}

static int write_tmp(int fd, const struct write_req *q, mode_t mode)
{
    int r = write_all(fd, q->data, q->len);

    if (!r && fchmod(fd, mode))
        r = -errno;
    if (!r && !q->no_sync && fdatasync(fd))
        r = -errno;
    return r;
}

static int replace_file(int dir, const char *base, const struct write_req *q, mode_t mode,
                        struct stat *st)
{
    char tmp[TMP_NAME];
    cleanup(closep) int fd =
        openat(dir, tmp_name(tmp), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r;

    if (fd < 0)
        return -errno;
    r = write_tmp(fd, q, mode);
    if (!r)
        r = put_name(dir, tmp, base, q->mode != W_CREATE);
    if (r) {
        unlinkat(dir, tmp, 0);
        return r;
    }
    if (!q->no_sync && fsync(dir))
        return -errno;
    return fstat(fd, st) ? -errno : 0;
}

/* One write at the end; what a full disk cut short is taken back if nobody wrote behind it. */
static int append_file(int dir, const char *base, const struct write_req *q, bool there,
                       struct stat *st)
{
    int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (there ? 0 : O_CREAT);
    cleanup(closep) int fd = openat(dir, base, flags, 0600);
    struct stat before;
    ssize_t n;

    if (fd < 0 || fstat(fd, &before))
        return -errno;
    if (!S_ISREG(before.st_mode))
        return ERR_PERM;
    if (before.st_size + (int64_t)q->len > FILE_MAX)
        return ERR_TOOBIG;
    do
        n = write(fd, q->data, q->len);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)q->len) {
        int e = n < 0 ? errno : ENOSPC;

        if (n > 0 && !fstat(fd, st) && st->st_size == before.st_size + n &&
            ftruncate(fd, before.st_size))
            e = errno;
        return -e;
    }
    if (fdatasync(fd) || (!there && fsync(dir)))
        return -errno;
    return fstat(fd, st) ? -errno : 0;
}

int local_write(const struct loc *l, const struct write_req *q, struct write_res *res,
                struct fault *f)
{
    const char *rel, *base;
    struct stat old;
    cleanup(closep) int root = open_root(l, l->area == AREA_SCRATCH, &rel, f);

    if (root < 0)
        return f->err;
    if (!*rel)
        return fault_io(f, ERR_ISDIR, l->path);
    if (q->len > (size_t)FILE_MAX)
        return fault_big(f, l->path, FILE_MAX, (int64_t)q->len);
    cleanup(closep) int dir = beneath_parent(root, rel, q->parents, &base);

    if (dir < 0)
        return fault_io(f, dir, l->path);
    HOLD_PATHS(l->path, l->path);
    int there = look(dir, base, l->path, &old, f);

    if (there < 0 || match_etag(q->if_match, there, &old, l->path, f))
        return f->err;
    if (there && q->mode == W_CREATE)
        return fault_io(f, ERR_EXIST, l->path);
    int r = q->mode == W_APPEND
                ? append_file(dir, base, q, there, &res->st)
                : replace_file(dir, base, q, there ? old.st_mode & 0777 : 0600, &res->st);

    if (r == ERR_TOOBIG)
        return fault_big(f, l->path, FILE_MAX, old.st_size + (int64_t)q->len);
    res->created = !there;
    return r ? fault_io(f, r, l->path) : 0;
}

/* The text with old replaced by new, at most FILE_MAX; NULL with a fault. */
static char *edited(const char *text, size_t len, const struct edit_req *q, int64_t *replaced,
                    size_t *ret_len, const char *path, struct fault *f)
{
    struct buf b = BUF_INIT(FILE_MAX);
    const char *at = text, *end = text + len, *hit;
    int64_t n = 0;

    while ((hit = memmem(at, (size_t)(end - at), q->old, q->old_len))) {
        n++;
        buf_add(&b, at, (size_t)(hit - at));
        buf_add(&b, q->new, q->new_len);
        at = hit + q->old_len;
    }
    buf_add(&b, at, (size_t)(end - at));
    if (!n || (n > 1 && !q->all)) {
        f->data = json_make("reason:s count:i", n ? "ambiguous" : "no_match", n);
        fault_set(f, ERR_CONFLICT, "%.200s: the old text occurs %lld times, expected %s", path,
                  (long long)n, q->all ? "at least one" : "exactly one");
    } else if (b.toobig) {
        fault_big(f, path, FILE_MAX, FILE_MAX + 1);
    }
    *replaced = n;
    *ret_len = b.len;
    if (!f->err)
        return buf_take(&b);
    buf_done(&b);
    return NULL;
}

static char *read_whole(int dir, const char *base, size_t *len, const char *path, struct stat *st,
                        struct fault *f)
{
    cleanup(closep) int fd = openat(dir, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char *text;
    ssize_t n;

    if (fd < 0 || fstat(fd, st)) {
        fault_io(f, -errno, path);
        return NULL;
    }
    if (st->st_size > EDIT_MAX) {
        fault_big(f, path, EDIT_MAX, st->st_size);
        return NULL;
    }
    text = xmalloc((size_t)st->st_size + 1);
    n = pread_all(fd, text, (size_t)st->st_size, 0);
    *len = n < 0 ? 0 : (size_t)n;
    if (n >= 0)
        return text;
    fault_io(f, (int)n, path);
    free(text);
    return NULL;
}

int local_edit(const struct loc *l, const struct edit_req *q, int64_t *replaced, struct stat *st,
               struct fault *f)
{
    const char *rel, *base = "";
    size_t len = 0, new_len = 0;
    cleanup(closep) int root = open_root(l, false, &rel, f);

    if (root < 0)
        return f->err;
    if (!*rel)
        return fault_io(f, ERR_ISDIR, l->path);
    cleanup(closep) int dir = beneath_parent(root, rel, false, &base);

    if (dir < 0)
        return fault_io(f, dir, l->path);
    HOLD_PATHS(l->path, l->path);
    int there = look(dir, base, l->path, st, f);

    if (!there)
        return fault_io(f, -ENOENT, l->path);
    if (there < 0 || match_etag(q->if_match, true, st, l->path, f))
        return f->err;
    cleanup(freep) char *text = read_whole(dir, base, &len, l->path, st, f);
    cleanup(freep) char *text2 = text ? edited(text, len, q, replaced, &new_len, l->path, f) : NULL;

    if (!text2)
        return f->err;
    struct write_req w = { .data = text2, .len = new_len, .mode = W_OVERWRITE };
    int r = replace_file(dir, base, &w, st->st_mode & 0777, st);

    return r ? fault_io(f, r, l->path) : 0;
}
