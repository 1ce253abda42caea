#pragma once
/*
 * A cgroup v2 leaf per child, where a subtree with the memory and pids controllers was delegated to
 * us; else nothing here does anything, and init/status says so. Failures cost the limit, never the
 * child.
 */
#include <sys/types.h>

#include "common/base/util.h"

/* Finds the delegated subtree and moves ourselves into its leaf "init". */
void cgroup_open(void);
bool cgroup_available(void);
/* Puts a child that waits for its go into the leaf `name`; 0: no limit. */
void cgroup_enter(const char *name, pid_t pid, int64_t memory_mib, int64_t pids);
/* True if the host killed a process of this leaf for memory. */
bool cgroup_oom(const char *name);
/* Kills what is left in the leaf and removes it. */
void cgroup_leave(const char *name);

/* Parts that tests call: the v2 line of /proc/self/cgroup, and where cgroup2 is mounted by
 * /proc/self/mountinfo. False if there is none. */
bool cgroup_own_path(const char *text, char *out, size_t size);
bool cgroup_mount_point(const char *text, char *out, size_t size);
/* Uses this folder as the subtree. */
void cgroup_use(const char *folder);
