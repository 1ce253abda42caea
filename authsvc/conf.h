#pragma once
/*
 * etc/auth.conf (services page, section 10): who may log in, with what, and the login rules. A
 * value of this type has passed every rule of the page; it never changes (a reload makes a new
 * one).
 */
#include "authsvc/apikey.h"
#include "authsvc/netaddr.h"
#include "common/base/map.h"
#include "common/base/yaml.h"
#include "common/svc/svc.h"

#define NAME_MAX_LEN 63
/* Letters, digits and _.- , beginning with a letter or digit, 63 bytes at most. */
bool account_name_valid(const char *s);

enum cred_type { CRED_API_KEY, CRED_PASSWORD };
struct identity {
    char name[NAME_MAX_LEN + 1];
    int64_t uid;
    enum role role;
    bool locked;
    enum cred_type type;
    struct key_hash key;  /* CRED_API_KEY */
    const char *key_text; /* as in the file, borrowed from the tree */
    char password[160];   /* CRED_PASSWORD: "$argon2id$…" */
    struct cidr *allow;   /* n_allow; none: from anywhere */
    const char **allow_text;
    size_t n_allow;
    int line;
};

struct login_policy {
    int64_t session_ttl_ms, session_max_ms, lockout_ttl_ms, refresh_window_ms;
    int lockout_count, password_min, api_key_min, install_quota;
    bool require_tls, bind_api_keys;
};

struct auth_conf {
    struct login_policy policy;
    struct identity *ids;
    size_t n_ids;
    struct map by_name; /* struct identity * */
    json_object *root;
};

/* 0, or ERR_CONFIG with *e. */
int auth_conf_parse(const char *text, size_t len, struct auth_conf **ret, struct yaml_err *e);
/* The same from a file; -errno if it cannot be read. */
int auth_conf_load(const char *path, struct auth_conf **ret, struct yaml_err *e);
void auth_conf_free(struct auth_conf *c);
const struct identity *auth_conf_find(const struct auth_conf *c, const char *name);
/* True if the address may use this identity. */
bool identity_admits(const struct identity *id, const struct addr *from);
/* Text of the file with the one occurrence of a hash replaced; NULL if it is not there exactly
 * once. Yours to free(). */
char *auth_conf_replace(const char *text, const char *old_hash, const char *new_hash);
