#pragma once
/*
 * The namespace (services page, sections 1 and 3): which part of the tree a normal path lies in,
 * what its ownership root is on disk, and what is left below it.
 */
#include "common/base/vpath.h"

enum area {
    AREA_ROOT,     /* "/" and "/etc": fixed lists */
    AREA_SECRETS,  /* /secrets: nothing, ever */
    AREA_ETC,      /* /etc/avix */
    AREA_BIN,      /* /bin */
    AREA_USERS,    /* the folder /users itself */
    AREA_USER,     /* /users/<name>/... */
    AREA_CREWS,    /* the folder /crews itself */
    AREA_CREW,     /* /crews/<name>/... */
    AREA_SERVICES, /* the folder /services itself */
    AREA_SERVICE,  /* /services/<name>/... */
    AREA_SCRATCH,  /* /proc/<pid>/scratch/... */
    AREA_PROC,     /* synthetic */
    AREA_KERNEL,   /* synthetic */
    AREA_TOOLS,    /* synthetic */
    AREA_NONE,     /* no such part */
};

struct loc {
    char path[VPATH_MAX + 1]; /* normal */
    enum area area;
    char name[256];   /* user, crew, service; pid text of a scratch */
    int64_t pid;      /* AREA_SCRATCH; AREA_PROC below a pid; else 0 */
    const char *rest; /* below the ownership root, "" for the root itself; points into path */
};

/* 0, ERR_INVAL, ERR_NAMETOOLONG. */
int ns_locate(const char *path, size_t len, struct loc *ret);
/* Locates a path that is known to be normal (from a walk). */
int ns_locate_normal(const char *path, struct loc *l);
bool ns_is_local(enum area a);
bool ns_is_synthetic(enum area a);
/* True if both lie below the same ownership root. */
bool ns_same_root(const struct loc *a, const struct loc *b);

/* Opens the mounts below AVIX_ROOT (held until the end). 0 or -errno. */
int ns_init(const char *root);
void ns_done(void);
/* The ownership root as a directory descriptor (the caller's to close), or -errno. make: a scratch
 * folder is made if absent. *rel: what to resolve below it (a service's workspace is elsewhere than
 * its package). */
int ns_open_root(const struct loc *l, bool make, const char **rel);
/* For the read cache: the mount's own descriptor (borrowed, -1 if not cacheable) and the path below
 * it. */
int ns_mount_fd(const struct loc *l, const char **rel);
/* User that a scratch folder belongs to, "" if not known; and noting it. */
void ns_scratch_owner(const struct loc *l, char *user, size_t size);
void ns_scratch_own(const struct loc *l, const char *user);
/* Closes every descriptor from 3 up but the mounts and keep: in a child that must hold no
 * connection of ours. */
void ns_close_others(int keep);
/* The mounts, for kernel/mem/list: path in the VFS of the i-th and its descriptor (borrowed); NULL
 * past the end. */
const char *ns_mount(size_t i, int *fd);
