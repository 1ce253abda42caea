#pragma once
/*
 * Who may do what (services page, section 4): one data table, the first matching row counts, then
 * what operators and admins have on top, then what the kernel reads as itself.
 */
#include "common/svc/svc.h"

enum {
    MAY_R = 1U << 0,
    MAY_W = 1U << 1,
    MAY_RW = MAY_R | MAY_W,
};

/* Rights of this caller on a normal path. A scratch of another agent, and /proc itself, are
 * readable here as far as the table says "of self"; who self is, is decided where that is known
 * (perm_needs_owner, the kernel's view). */
unsigned perm_of(const struct caller *who, const char *path);
/* True if reading this path hangs on whose agent it belongs to: the caller is neither that agent,
 * nor operator. */
bool perm_needs_owner(const struct caller *who, const char *path);
/* Where crews.yaml lies; it is read again when it has changed. */
void perm_init(const char *root);
/* True if path (normal, beneath /crews/<crew>/shared) is in what the crew shares. */
bool perm_shared(const char *crew, const char *path);
