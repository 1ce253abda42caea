#pragma once
/*
 * What was taken back before its time: token ids, ATP sessions, users, lineages. An entry is kept
 * until every token it could concern has expired. Durable in data/revoked.json. Pure but for the
 * file; pushing is push.c's.
 */
#include "authsvc/store.h"
#include "common/base/json.h"

enum revoked_kind { REV_TOKEN, REV_SESSION, REV_USER, REV_LINEAGE, REV_KINDS };
extern const char *const revoked_names[REV_KINDS]; /* "tokens" "sessions" "users" "lineages" */

struct revoked;
/* Reads path. NULL with *err (-errno, or ERR_PARSE) if it is there but not readable: going on
 * without it would bring dead tokens back to life. */
struct revoked *revoked_new(const char *path, struct work_pool *disk, int64_t now, int *err);
void revoked_free(struct revoked *r);
/* False if it is there already. */
bool revoked_add(struct revoked *r, enum revoked_kind k, const char *id, int64_t expires,
                 int64_t now);
bool revoked_has(const struct revoked *r, enum revoked_kind k, const char *id);
/* Saves; fn when it is durable. */
void revoked_save(struct revoked *r, int64_t now, store_fn fn, void *arg);
/* {tokens, sessions, users, lineages, version}: entries newer than since. Yours. */
json_object *revoked_since(const struct revoked *r, int64_t since, int64_t now);
size_t revoked_count(const struct revoked *r);
