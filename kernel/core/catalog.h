#pragma once
/* Packages of agents in /bin and /users/<u>/bin, as memfs shows them (agents page, section 2). */
#include "kernel/core/core.h"

struct package {
    char dir[160];    /* VFS directory, "" none */
    char version[64]; /* of the directory name, "" for a plain one */
    bool shared;
};
#define CATALOG_DIRS 2

struct catalog {
    json_object *names[CATALOG_DIRS]; /* directory entries: /bin, /users/<u>/bin */
    char paths[CATALOG_DIRS][128];
};
/* The candidates for a name, best first, at most max. Returns their number. name may carry
 * "@version"; a trailing ".agent" is ignored and "hello-agent" means executor when nothing has the
 * full name. */
size_t catalog_find(const struct catalog *c, const char *name, struct package *ret, size_t max);
/* kernel/proc/list-installed. */
void sys_list_installed(struct call *c, const struct caller *w);
