/*
 * Folders are read whole, sorted, then visited; one descriptor per level is open. Bounds: depth,
 * entries, time. A hidden leftover of a crashed write is removed when it is met and is old.
 */
#include "memfs/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "memfs/local_int.h"

#define DEPTH_MAX    64
#define STALE_MS     (10 * 60 * 1000)
#define FOLDER_NAMES 1000000

struct names {
    struct name {
        char *s;
        unsigned char type;
    } * v;
    size_t n, cap;
};

static void names_done(struct names *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].s);
    free(a->v);
}

static int name_cmp(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return strcmp(x->s, y->s);
}

static void drop_stale(int dir, const char *name)
{
    struct stat st;

    if (!str_eq(name, TMP_PREFIX "owner") && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) &&
        S_ISREG(st.st_mode) && now_ms() - stat_mtime_ms(&st) > STALE_MS)
        unlinkat(dir, name, 0);
}

static int names_read(int dir, struct names *a)
{
    int fd = fcntl(dir, F_DUPFD_CLOEXEC, 3);
    cleanup(dirp_close) DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (!d)
        return -errno;
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d)) && a->n < FOLDER_NAMES;) {
        if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
            continue;
        if (str_starts(e->d_name, TMP_PREFIX)) {
            drop_stale(dir, e->d_name);
            continue;
        }
        if (a->n == a->cap)
            a->v = xrealloc(a->v, (a->cap = a->cap ? 2 * a->cap : 64) * sizeof(*a->v));
        a->v[a->n++] = (struct name){ .s = xstrdup(e->d_name), .type = e->d_type };
    }
    if (a->n)
        qsort(a->v, a->n, sizeof(*a->v), name_cmp);
    return 0;
}

static bool is_folder(int dir, const struct name *n)
{
    struct stat st;

    if (n->type != DT_UNKNOWN)
        return n->type == DT_DIR;
    return !fstatat(dir, n->s, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode);
}

static void walk_dir(struct walk *w, int dir, const char *path, const char *rel, int depth);

static void visit(struct walk *w, int dir, const struct name *n, const char *path, const char *rel,
                  int depth)
{
    char sub[VPATH_MAX + 1], sub_rel[VPATH_MAX + 1];
    struct entry e = { .path = sub, .rel = sub_rel, .name = n->s, .dir = dir, .depth = depth };

    if (path_fmt(sub, sizeof(sub), "%s/%s", str_eq(path, "/") ? "" : path, n->s) ||
        path_fmt(sub_rel, sizeof(sub_rel), "%s%s%s", rel, *rel ? "/" : "", n->s) ||
        !utf8_valid(n->s, strlen(n->s)) || !(perm_of(w->who, sub) & MAY_R))
        return;
    if (++w->n > WALK_ENTRIES || mono_ms() > w->deadline || (w->stop && atomic_load(w->stop))) {
        w->cut = w->end = true;
        return;
    }
    e.folder = is_folder(dir, n);
    enum walk_next next = w->fn(&e, w->arg);

    if (next == WALK_END)
        w->end = true;
    if (next != WALK_ON || !e.folder || !w->recursive || depth >= DEPTH_MAX)
        return;
    cleanup(closep) int fd = openat(dir, n->s, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        walk_dir(w, fd, sub, sub_rel, depth + 1);
}

static void walk_dir(struct walk *w, int dir, const char *path, const char *rel, int depth)
{
    cleanup(names_done) struct names names = { .n = 0 };

    if (names_read(dir, &names))
        return;
    for (size_t i = 0; i < names.n && !w->end; i++)
        visit(w, dir, &names.v[i], path, rel, depth);
}

int walk_run(struct walk *w, const struct loc *l, struct fault *f)
{
    const char *rel;
    struct stat st;
    cleanup(closep) int root = open_root(l, false, &rel, f);
    cleanup(closep) int fd = root < 0 ? -1 : open_checked(root, rel, O_RDONLY, l->path, &st, f);

    if (fd < 0)
        return f->err;
    w->deadline = mono_ms() + WALK_MS;
    if (S_ISDIR(st.st_mode)) {
        walk_dir(w, fd, l->path, "", 0);
        return 0;
    }
    struct entry e = { .path = l->path, .rel = strrchr(l->path, '/') + 1, .dir = fd };

    e.name = ""; /* the open file itself */
    w->fn(&e, w->arg);
    return 0;
}
