#pragma once
/* VFS paths (services page, section 3): absolute, UTF-8, at most 4096 bytes, components at most
 * 255. */
#include "common/base/util.h"

#define VPATH_MAX 4096

/*
 * Normal form into out (VPATH_MAX + 1 bytes): "." and empty components and a trailing slash
 * dropped. 0; ERR_INVAL for a relative path, "..", control characters, bad UTF-8 or a hidden
 * ".avix-tmp-" name; ERR_NAMETOOLONG.
 */
int vpath_normalise(const char *path, size_t len, char *out);
/* True if path is dir or beneath it (both normal). */
bool vpath_beneath(const char *path, const char *dir);
