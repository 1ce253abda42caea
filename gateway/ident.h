#pragma once
/*
 * Who a token stands for. authsvc decides; its answer is kept by the token's hash until the token
 * expires or is revoked, so a command costs a look-up. The token itself is kept by connections
 * only.
 */
#include "common/svc/svc.h"

struct sess;

/* One token's claims. Counted references: connections hold one while the cache may forget it. */
struct ident {
    unsigned refs;
    char key[65]; /* SHA-256 of the token, hex */
    bool valid;   /* false: refused, kept for a short time */
    bool revoked;
    bool expired; /* refused because it was too late */
    char identity[128], session[64], token_id[80];
    enum role role;
    int64_t uid;
    json_object *crews;
    int64_t exp_ms;
    struct sess *sess; /* NULL unless valid */
};

/* One login. Lives while a token or a connection of it is known. */
struct sess {
    unsigned refs;
    char id[64], identity[128];
    unsigned n_conns;
    int64_t first_ms, active_ms;
    char remote[64], client[128];
    double rate_level; /* of its command bucket */
    int64_t rate_at, limited_since, limited_last;
};

void ident_init(void);
void ident_fini(void);
struct ident *ident_ref(struct ident *i);
void ident_unref(struct ident *i);

/* What is known of a token: borrowed, or NULL. An answer may be "no" (valid false). */
struct ident *ident_peek(const char *token);
/* Keeps the answer of a login or refresh (result of auth/login, auth/refresh). Borrowed; NULL if it
 * is malformed. like: a token of the same session that fills in what the answer lacks, may be
 * NULL. */
struct ident *ident_learn(const char *token, json_object *answer, const struct ident *like);

/* Asks authsvc unless known. fn runs once, perhaps at once; i is borrowed, NULL when authsvc could
 * not be asked. */
typedef void (*ident_fn)(struct ident *i, void *arg);
struct ident_query;
/* Returns NULL if fn ran already. */
struct ident_query *ident_ask(const char *token, ident_fn fn, void *arg);
void ident_cancel(struct ident_query *q); /* fn will not run */

/* policy.token_refresh_window as authsvc last said it. */
extern int64_t ident_refresh_window_ms;
/* policy.require_tls likewise: an insecure connection may not be upgraded. */
extern bool ident_require_tls;
/* A usable token at this moment. */
bool ident_live(const struct ident *i, int64_t now_ms);
/* The _user object for a call; yours. */
json_object *ident_user(const struct ident *i, const char *token);

/* The params of auth.revoked. gone(sess, arg) for each session that ends at once. */
void ident_revoke(json_object *params, void (*gone)(struct sess *s, void *arg), void *arg);
struct sess *sess_find(const char *id);
