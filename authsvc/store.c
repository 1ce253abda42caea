/* One write at a time per file; while it runs, the next text and its waiters gather. */
#include "authsvc/store.h"

#include <errno.h>

#include "common/base/fsx.h"
#include "common/base/log.h"

struct waiter {
    store_fn fn;
    void *arg;
    struct waiter *next;
};

struct store {
    struct work work; /* first: the job is the store itself */
    struct work_pool *disk;
    char *path;
    mode_t mode;
    bool busy;
    char *writing, *next; /* texts */
    struct waiter *writing_for, *next_for;
    int err;
};

static void run(struct work *w)
{
    struct store *s = (struct store *)w;

    s->err = file_write_atomic(s->path, s->writing, strlen(s->writing), s->mode);
}

static void start(struct store *s);

static void done(struct work *w)
{
    struct store *s = (struct store *)w;
    struct waiter *list = TAKE(s->writing_for);

    if (s->err)
        log_error("%s: %s", s->path, strerror(-s->err));
    free(TAKE(s->writing));
    s->busy = false;
    int err = s->err;
    if (s->next)
        start(s);
    while (list) {
        struct waiter *x = list;

        list = x->next;
        if (x->fn)
            x->fn(err, x->arg);
        free(x);
    }
}

static void start(struct store *s)
{
    s->writing = TAKE(s->next);
    s->writing_for = TAKE(s->next_for);
    s->busy = true;
    s->work = (struct work){ .run = run, .done = done };
    if (work_submit(s->disk, &s->work)) {
        s->err = -EBUSY;
        done(&s->work);
    }
}

struct store *store_new(struct work_pool *disk, const char *path, mode_t mode)
{
    struct store *s = xcalloc(1, sizeof(*s));

    s->disk = disk;
    s->path = xstrdup(path);
    s->mode = mode;
    return s;
}

void store_save(struct store *s, char *text, store_fn fn, void *arg)
{
    struct waiter *w = xcalloc(1, sizeof(*w)), **end = &s->next_for;

    *w = (struct waiter){ fn, arg, NULL };
    while (*end)
        end = &(*end)->next;
    *end = w;
    free(s->next);
    s->next = text;
    if (!s->busy)
        start(s);
}

void store_free(struct store *s)
{
    if (!s)
        return;
    free(s->path);
    free(s->writing);
    free(s->next);
    free(s);
}
