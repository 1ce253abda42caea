#pragma once
/* What a user, or an agent of a user, may be granted (agents page, section 4). */
#include "authsvc/users.h"

/*
 * The answer of auth/policy: {uid, role, crews, all, allowed, denied, quota, weight,
 * install_quota_per_hour}. allowed and denied are patterns to be read by policy_permits. agent:
 * NULL for the user himself. Yours; NULL if nobody has this name.
 */
json_object *policy_of(const struct auth_conf *conf, const struct directory *dir, const char *user,
                       const char *agent);
