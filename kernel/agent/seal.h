#pragma once
/*
 * What makes an agent a process that can reach nothing but its three sockets: the jail (an empty
 * read-only root in own namespaces) and the system call filter (agents page, section 6). Both are
 * put on once, after the descriptors are read and before anything is said to the kernel.
 */
#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

enum seal_mode { SEAL_ENFORCE, SEAL_LOG };

/* NO_NEW_PRIVS and the filter. 0 or -errno. */
int seal_filter(enum seal_mode mode);
/* The program itself, for tests: number of instructions written to out (at most max), 0 if it does
 * not fit. */
size_t seal_program(enum seal_mode mode, struct sock_filter *out, size_t max);

/* Makes the jail with these sockets at their paths (those that exist), n of them. run_dir is where
 * they lie. Nothing to do when the process is in one already. 0, or -errno with *step naming what
 * failed (static text). */
int jail_enter(const char *const *sockets, size_t n, const char **step);
