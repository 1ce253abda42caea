#pragma once
/* How many ATP sessions one user may have (atp page, section 13). */
#include "gateway/ident.h"

#define SESSIONS_PER_USER 64

/* A login of i has come about and authsvc now counts this many sessions of the user: what is too
 * much ends, least recently used first, but none that has a connection. */
void surplus_check(const struct ident *i, int64_t sessions);
