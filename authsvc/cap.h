#pragma once
/* Capability tokens: mint, renew, revoke, validate; and what else takes tokens back. */
#include "authsvc/state.h"

/* Take back all tokens of a user's agents; all his ATP sessions. revoke_commit makes it count. */
void cap_revoke_user(const char *user);
int session_revoke_user(const char *user);
/* One ATP session, whose tokens live until then at least as far as the caller knows (0: not known);
 * false if it was revoked already. */
bool session_revoke(const char *id, int64_t until);
/* Pushes what was added since the last commit, saves; fn when it is durable (may be NULL). */
void revoke_commit(store_fn fn, void *arg);

/* Claims of a token that is valid now, else NULL with *reason ("malformed" "expired" "revoked"). */
json_object *atp_claims(const char *token, const char **reason);

void auth_mint(struct call *c, const struct caller *who);
void auth_renew(struct call *c, const struct caller *who);
void auth_revoke(struct call *c, const struct caller *who);
void auth_validate(struct call *c, const struct caller *who);
void auth_revoked(struct call *c, const struct caller *who);
