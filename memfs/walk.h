#pragma once
/*
 * A walk over a folder below one place, in order (a folder before what is in it, names by bytes),
 * showing only what the caller may read. No link is followed, hidden names are left out.
 */
#include <stdatomic.h>

#include "memfs/local.h"
#include "memfs/perm.h"

#define WALK_MS      10000
#define WALK_ENTRIES 1000000

struct entry {
    const char *path; /* in the VFS */
    const char *rel;  /* below the start */
    const char *name;
    int dir;     /* the folder it lies in, open */
    bool folder; /* a directory itself */
    int depth;   /* 0: directly in the start */
};
enum walk_next { WALK_ON, WALK_PASS, WALK_END }; /* PASS: do not look into this folder */

struct walk {
    const struct caller *who;
    bool recursive;
    enum walk_next (*fn)(const struct entry *e, void *arg);
    void *arg;
    const atomic_bool *stop; /* set from outside to end it; NULL: never */
    /* Filled in. */
    int64_t deadline, n;
    bool cut; /* a limit ended it */
    bool end;
};

/* Walks what l names (a folder; a file is handed to fn alone, with rel = its name). Fault if it
 * cannot be opened. */
int walk_run(struct walk *w, const struct loc *l, struct fault *f);
