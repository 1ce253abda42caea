#pragma once
/*
 * Which interpreters there are. Each candidate is run once (in the background, on the loop) and
 * asked for its version and its real prefix, so a shim resolves to a tree that can be mounted.
 */
#include "common/ipc/loop.h"
#include "execsvc/conf.h"

struct runtime {
    char name[32];
    const char *aliases[3]; /* NULL-ended */
    char path[512];         /* what to execute, inside the sandbox too */
    char prefix[512];       /* tree to mount read-only at the same place; "" if it is in /usr */
    char version[64];
    const char *file; /* name of the code in /box */
    const char *arg;  /* an argument before the code, or NULL */
    bool available;
};

/* Starts looking; done(arg) when every runtime is decided. Runs again by a second call. */
void runtimes_find(struct loop *l, const struct exec_conf *c, loop_fn done, void *arg);
bool runtimes_ready(void);
/* By name or alias; NULL if there is no such runtime at all. */
const struct runtime *runtime_get(const char *name);
/* [{name, aliases, version, path, available}]; yours. */
json_object *runtimes_json(void);
void runtimes_done(void);
/* A prefix may be mounted: it is no root of the tree, of a home, or of what is ours. */
bool prefix_usable(const char *prefix);
