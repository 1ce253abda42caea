#pragma once
/*
 * Capability groups (agents page, section 3) and policies made of tool patterns. Groups stand in
 * manifests and policies only; a token holds plain tool names.
 */
#include "common/base/json.h"

/* The tools of a group with a fixed list, blank-separated ("fs:read"); NULL if it is not one. */
const char *tool_group(const char *name);
/*
 * The patterns a request or a policy entry stands for, by the first row that fits: a tool, "a/b/" +
 * star, a group, "ns:x", "ns". Appended to out (array of strings), without duplicates. Prefix
 * patterns end in slash star, or in a bare star ("github/list" + star).
 */
void tool_patterns(const char *request, json_object *out);
/* As tool_pattern_match, and a bare star at the end matches any rest; two stars are one. */
bool tool_glob(const char *pattern, const char *tool);
/*
 * Whether an auth/policy answer {all, allowed, denied} allows a tool: the longest pattern that
 * matches decides, at equal length the denial. So "kernel/" + star can be denied to a role and one
 * tool beneath it given to a user. A missing answer allows nothing.
 */
bool policy_permits(json_object *policy, const char *tool);
/* The same with its members; arrays may be NULL. */
bool policy_lists_permit(bool all, json_object *allowed, json_object *denied, const char *tool);
