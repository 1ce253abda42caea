#pragma once
/* Shared by the files of the local driver: locks, names, opening with a fault. */
#include "memfs/local.h"

#define TMP_NAME (sizeof(TMP_PREFIX) + 24)

/* One lock per path (striped, so bounded). */
struct path_lock {
    unsigned a, b; /* stripes; equal: one */
};
struct path_lock path_lock2(const char *a, const char *b);
void path_unlock(struct path_lock *l);

/* Holds the lock of a path (or of two) to the end of the block. */
#define HOLD_PATHS(a, b) \
    cleanup(path_unlock) __attribute__((unused)) struct path_lock held = path_lock2(a, b)

/* A fresh hidden name. Returns out. */
char *tmp_name(char out[TMP_NAME]);
/* Ownership root, or -1 with a fault. */
int open_root(const struct loc *l, bool make, const char **rel, struct fault *f);
/* A regular file or a directory below root and its stat, or -1 with a fault. */
int open_checked(int root, const char *rel, int flags, const char *path, struct stat *st,
                 struct fault *f);
/* 0, or the etag conflict. */
int match_etag(const char *if_match, bool there, const struct stat *st, const char *path,
               struct fault *f);
/* Gives a finished temporary file its name in the same folder. */
int put_name(int dir, const char *tmp, const char *base, bool replace);
