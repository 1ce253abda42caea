#pragma once
/*
 * Failed logins (services page, section 10). Three counts: of one (identity, address), of one
 * address over all identities, of one identity over all addresses. Pure but for its journal; time
 * is the caller's.
 */
#include "authsvc/conf.h"
#include "authsvc/journal.h"

#define LOCKOUT_RATE_MS   60000
#define LOCKOUT_ID_FACTOR 10

struct lockout;
/* path: journal, NULL for none. The policy is read on every use, so it may change. */
struct lockout *lockout_new(const char *path, const struct login_policy *p, int64_t now);
void lockout_policy(struct lockout *l, const struct login_policy *p);
void lockout_free(struct lockout *l);

/* Milliseconds until this login may be tried, 0 now. has_password: the identity exists and has one;
 * admin: it comes over the loopback admin listener. addr: addr_key text. */
int64_t lockout_wait(struct lockout *l, const char *identity, const char *addr, bool has_password,
                     bool admin, int64_t now);
/* Counts a failure. True if this was the one that locks (identity, address), or the identity. */
bool lockout_failed(struct lockout *l, const char *identity, const char *addr, int64_t now);
void lockout_succeeded(struct lockout *l, const char *identity, const char *addr, int64_t now);
/* Pairs and identities that are locked now. */
size_t lockout_locked(const struct lockout *l, int64_t now);
