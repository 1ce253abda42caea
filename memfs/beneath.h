#pragma once
/*
 * Opening below a directory descriptor that nothing can leave: openat2 with RESOLVE_BENEATH and no
 * magic links; where the host has no openat2, a walk that follows no link at all. Results are
 * descriptors or -errno: -EXDEV for a link that leaves, -ELOOP for a loop (or, in the walk, any
 * link).
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "common/base/util.h"

/* rel: "" or "." is the root itself. O_CLOEXEC|O_NOCTTY|O_NONBLOCK are added. */
int beneath_open(int root, const char *rel, int flags, mode_t mode);
/* A descriptor on the directory rel (O_RDONLY|O_DIRECTORY). make: missing components are made,
 * 0700. */
int beneath_dir(int root, const char *rel, bool make);
/* Directory of rel, and its last component in *base (points into rel). -EINVAL if rel is "". */
int beneath_parent(int root, const char *rel, bool make, const char **base);
/* Tests: behave as on a host without openat2. */
void beneath_force_walk(bool on);
