/*
 * The walk follows no link and is bounded; files go out one after the other in pieces of 4 MiB,
 * each an fs/write, so memory stays small. A file that cannot be stored keeps its row, with the
 * reason.
 */
#include "execsvc/artifacts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/globpat.h"
#include "common/base/mime.h"
#include "common/base/vpath.h"

#define PIECE       (4 << 20)
#define DEPTH_MAX   16
#define ENTRIES_MAX 20000

struct artifacts {
    char *rel[ARTIFACT_FILES];
    size_t n, next;
    int64_t bytes, offset, size;
    int entries, box, fd;
    char *to, *as;
    const char *skip;
    struct globpat *pats;
    size_t n_pats;
    json_object *rows;
    struct ipc_call *call;
    artifacts_fn done;
    void *arg;
};

static bool wanted(const struct artifacts *a, const char *rel)
{
    if (str_eq(rel, a->skip))
        return false;
    for (size_t i = 0; i < a->n_pats; i++)
        if (globpat_match(&a->pats[i], rel))
            return true;
    return false;
}

static void find_in(struct artifacts *a, int dir, const char *rel, int depth);

static void consider(struct artifacts *a, int dir, const char *name, const char *rel, int depth)
{
    char sub[VPATH_MAX + 1], norm[VPATH_MAX + 1];
    struct stat st;

    if (path_fmt(sub, sizeof(sub), "/%s%s%s", rel, *rel ? "/" : "", name) ||
        vpath_normalise(sub, strlen(sub), norm) || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    if (S_ISREG(st.st_mode) && a->n < ARTIFACT_FILES && a->bytes + st.st_size <= ARTIFACT_BYTES &&
        wanted(a, norm + 1)) {
        a->rel[a->n++] = xstrdup(norm + 1);
        a->bytes += st.st_size;
    }
    if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
        return;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        find_in(a, fd, norm + 1, depth + 1);
}

/* Takes dir. */
static void find_in(struct artifacts *a, int dir, const char *rel, int depth)
{
    cleanup(dirp_close) DIR *d = fdopendir(dir);

    if (!d) {
        close(dir);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) && a->entries < ENTRIES_MAX;)
        if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, "..")) {
            a->entries++;
            consider(a, dir, e->d_name, rel, depth);
        }
}

static void artifacts_free(struct artifacts *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->rel[i]);
    for (size_t i = 0; i < a->n_pats; i++)
        globpat_done(&a->pats[i]);
    closep(&a->fd);
    free(a->pats);
    free(a->to);
    free(a->as);
    json_put(a->rows);
    free(a);
}

static void send_piece(struct artifacts *a);

/* Opens the next file; false at the end. */
static bool next_file(struct artifacts *a)
{
    while (a->next < a->n) {
        struct stat st;

        a->offset = 0;
        a->fd = openat(a->box, a->rel[a->next], O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (a->fd >= 0 && !fstat(a->fd, &st) && S_ISREG(st.st_mode)) {
            a->size = st.st_size;
            return true;
        }
        closep(&a->fd);
        a->fd = -1;
        a->next++;
    }
    return false;
}

static void end_file(struct artifacts *a, const char *error)
{
    cleanup(freep) char *path = xasprintf("%s/%s", a->to, a->rel[a->next]);
    char head[512];
    ssize_t n = pread(a->fd, head, sizeof(head), 0);
    json_object *row = json_make("path:s size:i mime:s", path, a->size,
                                 mime_of(a->rel[a->next], head, n > 0 ? (size_t)n : 0));

    if (error)
        json_add_str(row, "error", error);
    json_push(a->rows, row);
    closep(&a->fd);
    a->fd = -1;
    a->next++;
}

static void on_written(struct ipc_reply *r, void *arg)
{
    struct artifacts *a = arg;

    a->call = NULL;
    if (r->err)
        end_file(a, r->error.message);
    else if (a->offset >= a->size)
        end_file(a, NULL);
    send_piece(a);
}

static void send_piece(struct artifacts *a)
{
    cleanup(freep) char *data = NULL, *text = NULL, *path = NULL;
    json_object *p;
    ssize_t n;

    if (a->fd < 0 && !next_file(a)) {
        json_object *rows = TAKE(a->rows);

        a->done(rows, a->arg);
        artifacts_free(a);
        return;
    }
    data = xmalloc(PIECE);
    n = pread(a->fd, data, PIECE, a->offset);
    if (n < 0)
        n = 0;
    if (!n)
        a->size = a->offset;
    text = b64_encode_new(data, (size_t)n);
    path = xasprintf("%s/%s", a->to, a->rel[a->next]);
    p = json_make("path:s content:s encoding:s mode:s", path, text, "base64",
                  a->offset ? "append" : "overwrite");
    if (a->as)
        json_add_str(p, "_as", a->as);
    a->offset += n;
    a->call = svc_call("fs/write", p, NULL, 0, on_written, a);
}

struct artifacts *artifacts_save(int box, json_object *patterns, const char *skip, const char *to,
                                 const char *as, artifacts_fn done, void *arg)
{
    struct artifacts *a = xcalloc(1, sizeof(*a));
    size_t n = json_object_array_length(patterns);
    int dir = fcntl(box, F_DUPFD_CLOEXEC, 3);

    *a = (struct artifacts){ .box = box,
                             .fd = -1,
                             .to = xstrdup(to),
                             .as = as ? xstrdup(as) : NULL,
                             .skip = skip,
                             .pats = xcalloc(n + 1, sizeof(*a->pats)),
                             .rows = json_new_arr(),
                             .done = done,
                             .arg = arg };
    for (size_t i = 0; i < n; i++)
        if (!globpat_init(&a->pats[a->n_pats],
                          json_object_get_string(json_object_array_get_idx(patterns, i))))
            a->n_pats++;
    if (dir >= 0)
        find_in(a, dir, "", 0);
    send_piece(a);
    return a;
}

void artifacts_cancel(struct artifacts *a)
{
    if (a->call)
        ipc_cancel(a->call);
    artifacts_free(a);
}
