#pragma once
/* What a process gives up after start: seccomp by flags of the unit table, Landlock where it
 * exists. */
#include "common/svc/unit.h"

/* PR_SET_DUMPABLE 0, RLIMIT_CORE 0, umask 077: first thing in every main(). */
void process_harden(void);
/* Paths an exposed unit keeps (Landlock); rw or read-only. NULL-ended. */
struct sandbox_path {
    const char *path;
    bool write;
};
/* Landlock ABI of the running kernel, below 1 if there is none. */
int landlock_abi(void);
/* A unit with the network but without exec is exposed: it may not signal or limit other processes.
 * NO_NEW_PRIVS, then Landlock (paths may be NULL: no file rules), then seccomp. 0, or -errno with
 * *missing naming the protection that could not be had (static text); the unit then says
 * svc_degraded(*missing). */
int sandbox_enter(unsigned flags, const struct sandbox_path *paths, const char **missing);
