#pragma once
/*
 * Capability tokens that were minted (agents page, section 5): claims by token id, so that a
 * renewal keeps binding and lineage, and a PID's tokens can be taken back together. Kept in a
 * journal of the run dir: they are worth nothing after the machine restarts.
 */
#include "authsvc/journal.h"
#include "common/base/map.h"

/* A token may be renewed this long after it expired (an agent in a long tool call). */
#define CAP_RENEW_LATE_MS (24 * 3600000LL)

struct cap_token {
    const char *id, *user; /* borrowed from claims */
    int64_t pid, expires_at;
    json_object *claims; /* as signed */
};

struct cap_tokens;
struct cap_tokens *cap_tokens_new(const char *path, int64_t now); /* path NULL: memory only */
void cap_tokens_free(struct cap_tokens *t);
/* claims taken; they have tokenId, pid, sub, expiresAt. Borrowed record. */
struct cap_token *cap_tokens_add(struct cap_tokens *t, json_object *claims, int64_t now);
struct cap_token *cap_tokens_get(const struct cap_tokens *t, const char *id);
void cap_tokens_drop(struct cap_tokens *t, const char *id);
struct cap_token *cap_tokens_each(const struct cap_tokens *t, size_t *pos);
size_t cap_tokens_count(const struct cap_tokens *t);
