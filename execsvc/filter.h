#pragma once
/* The seccomp filter of a sandbox (services page, section 7), as a BPF program in a memfd for
 * bwrap. */

/* A descriptor (close-on-exec, at its start), or -errno. */
int filter_export(void);
