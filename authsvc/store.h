#pragma once
/*
 * Whole files written off the loop, by temporary file, fsync and rename. Writes of one file that
 * wait are joined: the last text counts, everyone who waited is told.
 */
#include "authsvc/work.h"

struct store; /* one file */
/* Exactly once: 0 when the text is on disk (or one that was given later), or -errno. */
typedef void (*store_fn)(int err, void *arg);

struct store *store_new(struct work_pool *disk, const char *path, mode_t mode);
/* text: taken. fn may be NULL. */
void store_save(struct store *s, char *text, store_fn fn, void *arg);
void store_free(struct store *s); /* after work_pool_free */
