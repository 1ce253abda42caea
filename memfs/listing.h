#pragma once
/* fs/list and fs/glob over local folders: from a walk to the result object. */
#include "memfs/walk.h"

struct list_req {
    bool details, recursive;
    const char
        *glob; /* NULL: all; with a slash or recursive on the relative path, else on the name */
    int64_t limit;
    const char *cursor; /* last name of the page before; NULL: from the start */
};
/* Appends the result object of fs/list. */
int list_run(const struct caller *who, const struct loc *l, const struct list_req *q,
             const atomic_bool *stop, struct buf *out, struct fault *f);
/* Appends the result object of fs/glob. l: where the relative pattern starts. */
int glob_run(const struct caller *who, const struct loc *l, const char *pattern, int64_t limit,
             const atomic_bool *stop, struct buf *out, struct fault *f);
