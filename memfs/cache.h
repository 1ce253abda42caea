#pragma once
/*
 * Answers of fs/read for small files, by path, each checked against the file before it is used: one
 * statx of the path must show the same file, size, content time and change time. Loop only.
 */
#include <sys/stat.h>

#include "memfs/local.h"

#define CACHE_FILE_MAX 16384

/* What a path names now, without following a link at its end. False: not there, or not cacheable.
 */
bool cache_stat(const struct loc *l, struct stat *st);
/* The answer, borrowed until the next call; NULL if none holds. st: from cache_stat. */
const struct buf *cache_get(const struct loc *l, const struct stat *st);
/* Keeps an answer (text copied) made from a file that was st before and is st now. */
void cache_put(const struct loc *l, const struct stat *st, const struct buf *text);
void cache_clear(void);
