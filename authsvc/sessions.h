#pragma once
/*
 * ATP sessions: one per login, ended by logout, kick, expiry, or a change of its user. Durable in
 * data/sessions.json, so that a listing and "log out everywhere" work after a restart; a token's
 * validity does not depend on this file but on its signature and the revocations.
 */
#include "authsvc/store.h"
#include "common/base/rnd.h"
#include "common/svc/svc.h"

struct session {
    char id[UUID_LEN];
    char *identity, *remote, *client;        /* client: user agent, "" if unknown */
    enum role role;                          /* that its tokens say */
    int64_t login_at, active_at, expires_at; /* expires_at: of its newest token */
};

struct sessions;
struct sessions *sessions_new(const char *path, struct work_pool *disk, int64_t now);
void sessions_free(struct sessions *s);
/* A new record (borrowed). The oldest is forgotten when there are too many. */
struct session *sessions_add(struct sessions *s, const char *id, const char *identity,
                             const char *remote, const char *client, int64_t now, int64_t expires);
struct session *sessions_get(const struct sessions *s, const char *id);
void sessions_drop(struct sessions *s, const char *id);
void sessions_save(struct sessions *s, int64_t now, store_fn fn, void *arg);
/* Iterates as map_each does. */
struct session *sessions_each(const struct sessions *s, size_t *pos);
/* Those of one identity that have not expired. */
int64_t sessions_of(const struct sessions *s, const char *identity, int64_t now);
size_t sessions_count(const struct sessions *s);
