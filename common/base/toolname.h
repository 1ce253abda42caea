#pragma once
/* Tool names (ipc page, section 12): segments joined by '/', "__" on a provider's wire. */
#include <sys/types.h>

#include "common/base/util.h"

#define TOOL_MAX 128

bool tool_name_valid(const char *name, size_t len);
/* "mcp/github/list-prs" to "mcp__github__list-prs"; out holds 2 * TOOL_MAX. Length, or -1 if not a
 * tool name. */
ssize_t tool_mangle(const char *name, size_t len, char *out, size_t size);
/* The way back, checked against the grammar. Length, or -1. */
ssize_t tool_unmangle(const char *wire, size_t len, char *out, size_t size);
