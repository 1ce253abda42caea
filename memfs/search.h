#pragma once
/*
 * fs/search: one process per search, so that a pattern that takes for ever or eats memory hurts
 * nobody. The child walks and writes the result object to a pipe; it is killed after 10 s and may
 * use 256 MiB.
 */
#include "common/ipc/loop.h"
#include "memfs/walk.h"

struct search_req {
    const char *query, *glob; /* glob NULL: all files */
    bool regex, ignore_case;
    int64_t context, limit;
};
/* In the child: appends the result object. */
int search_run(const struct caller *who, const struct loc *l, const struct search_req *q,
               struct buf *out, struct fault *f);

/* err: 0 and the result object's text, or an error with its text. */
typedef void (*search_fn)(int err, const char *text, size_t len, void *arg);
struct search;
/* Starts one; NULL with errno. done once, unless cancelled. What q points to may go after the
 * return. */
struct search *search_start(struct loop *l, const struct caller *who, const struct loc *at,
                            const struct search_req *q, search_fn done, void *arg);
void search_cancel(struct search *s);
