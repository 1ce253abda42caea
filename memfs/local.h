#pragma once
/*
 * The local driver: files below an ownership root. Every function resolves once, works on the
 * descriptors it got, and reports through a fault. May block: run them in a worker, but for reads
 * of small files. Permissions are checked before, by the caller.
 */
#include <sys/stat.h>

#include "common/base/buf.h"
#include "memfs/encode.h"
#include "memfs/fault.h"
#include "memfs/ns.h"

#define FILE_MAX    (256LL << 20)
#define CONTENT_MAX (8LL << 20) /* per call */
#define READ_DFLT   (1LL << 20)
#define EDIT_MAX    (16LL << 20)
#define ETAG_LEN    56
#define TMP_PREFIX  ".avix-tmp-"

/* mtime_ns-size-ino in hex. Returns out. */
char *etag_of(const struct stat *st, char out[ETAG_LEN]);
static inline int64_t stat_mtime_ms(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
}

struct read_req {
    int64_t offset, length; /* length -1: the default */
    int64_t line, lines;    /* line 0: by bytes; lines -1: to the end */
    enum encoding encoding;
};
/* Appends the whole result object of fs/read to out. st: of the file. */
int local_read(const struct loc *l, const struct read_req *q, struct buf *out, struct stat *st,
               struct fault *f);
/* The result object of fs/read for bytes that are here already. */
int read_result(struct buf *out, const char *path, const char *data, size_t n,
                const struct read_req *q, int64_t size, int64_t offset, const char *etag,
                int64_t mtime_ms, struct fault *f);
int local_stat(const struct loc *l, struct stat *st, struct fault *f);
/* First bytes of a file, for its media type; 0 if it cannot be read. */
size_t local_head(const struct loc *l, char *head, size_t size);

enum write_mode { W_OVERWRITE, W_CREATE, W_APPEND };
struct write_req {
    const char *data;
    size_t len;
    enum write_mode mode;
    const char *if_match; /* NULL: any */
    bool parents;
    bool no_sync; /* part of a larger copy that syncs at its end */
};
struct write_res {
    struct stat st;
    bool created;
};
int local_write(const struct loc *l, const struct write_req *q, struct write_res *res,
                struct fault *f);

struct edit_req {
    const char *old, *new;
    size_t old_len, new_len;
    bool all;
    const char *if_match;
};
int local_edit(const struct loc *l, const struct edit_req *q, int64_t *replaced, struct stat *st,
               struct fault *f);
int local_delete(const struct loc *l, bool recursive, const char *if_match, int64_t *count,
                 struct fault *f);
int local_mkdir(const struct loc *l, bool parents, bool *created, struct fault *f);
int local_move(const struct loc *from, const struct loc *to, bool overwrite, struct stat *st,
               struct fault *f);
struct copy_res {
    int64_t files, bytes;
};
/* may: asked for each entry below from whether it is copied; NULL: all. */
int local_copy(const struct loc *from, const struct loc *to, bool overwrite, bool recursive,
               bool (*may)(const char *path, void *arg), void *arg, struct copy_res *res,
               struct fault *f);
/* Removes what lies below dirfd/name, links not followed; counts. -errno. */
int remove_tree(int dirfd, const char *name, int64_t *count);
