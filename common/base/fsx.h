#pragma once
/* Files: whole reads with a ceiling, and writes that are there in full or not at all. */
#include <sys/types.h>

#include "common/base/util.h"

/* Reads at most max bytes (ERR_TOOBIG beyond) into a NUL-terminated buffer, yours to free(). -errno
 * on failure. */
int file_read(const char *path, size_t max, char **ret, size_t *ret_len);
int file_readat(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);
/* Temporary file in the same directory, fsync, rename, fsync of the directory. -errno on failure:
 * nothing changed. */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode);
/* The same without the two fsync: for state in the run dir that need not outlive the machine. */
int file_write_rename(const char *path, const void *data, size_t len, mode_t mode);
/* Writes all of it, through short writes and EINTR. -errno on failure. */
int write_all(int fd, const void *data, size_t len);
/* mkdir -p with this mode for what it makes. */
int mkdir_p(const char *path, mode_t mode);
/* A sealed memfd with this content, close-on-exec; the descriptor or -errno. */
int memfd_sealed(const char *name, const void *data, size_t len);
/* snprintf of a path; -ENAMETOOLONG if it does not fit. */
int path_fmt(char *out, size_t size, const char *fmt, ...) printf_like(3, 4);
/* Removes a tree beneath dir without following links. -errno on failure. */
int rm_rf(const char *dir);
