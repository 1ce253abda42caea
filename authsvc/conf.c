/*
 * auth.conf is read strictly: a key nobody knows, a credential type that is not api_key or
 * password, a doubtful hash, two identities of one name or uid, no admin: each makes the whole file
 * invalid, named by line. A login rule that is silently not what the operator wrote is worse than
 * no start.
 */
#include "authsvc/conf.h"

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

#define UID_FIRST      1000
#define IDENTITIES_MAX 10000
#define DAY_MS         86400000LL

bool account_name_valid(const char *s)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t n = s ? strlen(s) : 0;

    return n && n <= NAME_MAX_LEN && strspn(s, set) == n && !strchr("_.-", s[0]);
}

/* Takes the error of a over, with the place before the field's name. */
static int bad(struct yaml_err *e, const struct args *a, const char *where)
{
    e->line = a->line;
    snprintf(e->msg, sizeof(e->msg), "%s%s%s: %s", where, *where ? "." : "", a->field, a->why);
    return ERR_CONFIG;
}

static int policy_read(json_object *o, struct login_policy *p, struct yaml_err *e)
{
    struct args a = args_open(o);

    p->session_ttl_ms = args_ms_or(&a, "session_ttl", 1000, 365 * DAY_MS, 8 * 3600000LL);
    p->session_max_ms = args_ms_or(&a, "session_max", 1000, 3650 * DAY_MS, 7 * DAY_MS);
    p->require_tls = args_bool_or(&a, "require_tls", false);
    p->lockout_count = (int)args_int_or(&a, "failed_auth_lockout_count", 1, 1000, 5);
    p->lockout_ttl_ms = args_ms_or(&a, "failed_auth_lockout_ttl", 1000, 30 * DAY_MS, 900000);
    p->refresh_window_ms = args_ms_or(&a, "token_refresh_window", 0, DAY_MS, 300000);
    p->password_min = (int)args_int_or(&a, "password_min_length", 1, 1024, 12);
    p->api_key_min = (int)args_int_or(&a, "api_key_min_length", 16, 1024, 32);
    p->bind_api_keys = args_bool_or(&a, "bind_api_keys", false);
    p->install_quota = (int)args_int_or(&a, "install_quota_per_hour", 0, 1000000, 10);
    return args_strict(&a) ? bad(e, &a, "policy") : 0;
}

/* "$argon2id$v=19$m=65536,t=3,p=4$<22>$<43>": other parameters would make the work of a login
 * depend on the name. */
static bool password_hash_take(const char *text, char *out, size_t size)
{
    static const char head[] = "$argon2id$v=19$m=65536,t=3,p=4$";
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    if (str_starts(text, "argon2id:"))
        text += strlen("argon2id:");
    if (!str_starts(text, head))
        return false;
    const char *salt = text + strlen(head);
    return strspn(salt, set) == 22 && salt[22] == '$' && strspn(salt + 23, set) == 43 &&
           !salt[66] && str_copy(out, size, text);
}

static void allow_read(struct args *a, struct identity *id)
{
    json_object *list = args_strs_or(a, "ip_allowlist", 64);
    size_t n = list ? json_object_array_length(list) : 0;

    id->allow = xcalloc(n, sizeof(*id->allow));
    id->allow_text = xcalloc(n, sizeof(*id->allow_text));
    for (size_t i = 0; i < n; i++) {
        id->allow_text[i] = json_object_get_string(json_object_array_get_idx(list, i));
        if (!cidr_parse(id->allow_text[i], &id->allow[i]))
            args_fail(a, "ip_allowlist", "each entry must be an address or address/bits");
    }
    id->n_allow = n;
}

static int credential_read(json_object *o, struct identity *id, const char *where,
                           struct yaml_err *e)
{
    static const char *const types[] = { "api_key", "password", NULL };
    struct args a = args_open(o);
    char at[128];

    snprintf(at, sizeof(at), "%s.credential", where);
    int type = args_enum_or(&a, "type", types, -1);
    if (type < 0)
        args_fail(&a, "type", "must be api_key or password");
    id->type = type == 1 ? CRED_PASSWORD : CRED_API_KEY;
    (void)args_any_or(&a, "header"); /* older files name an HTTP header here */
    if (type == 0) {
        id->key_text = args_str(&a, "key_hash", 256);
        if (!args_bad(&a) && !key_hash_parse(id->key_text, &id->key))
            args_fail(&a, "key_hash", "must be hmac-sha256:$s1$…, $k1$… or 64 hex digits");
    } else if (type == 1) {
        const char *old = args_str_or(&a, "hash", 256, NULL);
        const char *text = args_str_or(&a, "password_hash", 256, old);

        if (!text || !password_hash_take(text, id->password, sizeof(id->password)))
            args_fail(&a, "password_hash",
                      "must be argon2id:$argon2id$v=19$m=65536,t=3,p=4$<salt>$<tag>");
    }
    allow_read(&a, id);
    return args_strict(&a) ? bad(e, &a, at) : 0;
}

static int identity_read(json_object *o, size_t i, struct identity *id, struct yaml_err *e)
{
    static const char *const roles[] = { "guest", "user", "operator", "admin", NULL };
    struct args a = args_open(o);
    char where[96];

    snprintf(where, sizeof(where), "identities[%zu]", i);
    id->line = yaml_line(o);
    const char *name = args_str(&a, "name", NAME_MAX_LEN);
    if (!args_bad(&a) && !account_name_valid(name))
        args_fail(&a, "name", "letters, digits and _.- only, beginning with a letter or digit");
    str_copy(id->name, sizeof(id->name), name);
    id->uid = args_int(&a, "uid", UID_FIRST, INT32_MAX);
    (void)args_str(&a, "role", 16);
    int role = args_enum_or(&a, "role", roles, -1);
    id->role = (enum role)(role + 1);
    id->locked = args_bool_or(&a, "locked", false);
    json_object *cred = args_obj(&a, "credential");
    if (args_strict(&a))
        return bad(e, &a, where);
    return credential_read(cred, id, where, e);
}

static int wrong(struct yaml_err *e, int line, const char *text, const char *name)
{
    e->line = line;
    snprintf(e->msg, sizeof(e->msg), "%s%s%s", text, *name ? ": " : "", name);
    return ERR_CONFIG;
}

static int identities_read(struct auth_conf *c, json_object *list, struct yaml_err *e)
{
    size_t n = json_object_array_length(list);
    bool admin = false;

    if (n > IDENTITIES_MAX)
        return wrong(e, yaml_line(list), "too many identities", "");
    c->ids = xcalloc(n, sizeof(*c->ids));
    c->n_ids = n;
    cleanup(map_done) struct map uids;
    map_init(&uids);
    for (size_t i = 0; i < n; i++) {
        struct identity *id = &c->ids[i];
        char uid[24];
        int r = identity_read(json_object_array_get_idx(list, i), i, id, e);

        if (r)
            return r;
        snprintf(uid, sizeof(uid), "%lld", (long long)id->uid);
        if (map_put(&c->by_name, id->name, id))
            return wrong(e, id->line, "two identities of one name", id->name);
        if (map_put(&uids, uid, id))
            return wrong(e, id->line, "two identities of one uid", uid);
        admin = admin || id->role == ROLE_ADMIN;
    }
    return admin ? 0 : wrong(e, yaml_line(list), "no identity has the role admin", "");
}

static int conf_read(struct auth_conf *c, struct yaml_err *e)
{
    struct args a = args_open(c->root);

    if (!str_eq(args_str_or(&a, "apiVersion", 64, ""), "avix/v1"))
        args_fail(&a, "apiVersion", "must be avix/v1");
    if (!str_eq(args_str_or(&a, "kind", 64, ""), "AuthConfig"))
        args_fail(&a, "kind", "must be AuthConfig");
    (void)args_obj_or(&a, "metadata");
    json_object *policy = args_obj_or(&a, "policy"), *ids = args_arr(&a, "identities");
    if (args_strict(&a))
        return bad(e, &a, "");
    int r = policy_read(policy, &c->policy, e);
    return r ? r : identities_read(c, ids, e);
}

int auth_conf_parse(const char *text, size_t len, struct auth_conf **ret, struct yaml_err *e)
{
    json_object *root = NULL;
    int r = yaml_parse(text, len, &root, e);

    if (r)
        return r;
    struct auth_conf *c = xcalloc(1, sizeof(*c));
    c->root = root;
    map_init(&c->by_name);
    r = conf_read(c, e);
    if (r)
        auth_conf_free(c);
    else
        *ret = c;
    return r;
}

int auth_conf_load(const char *path, struct auth_conf **ret, struct yaml_err *e)
{
    cleanup(freep) char *text = NULL;
    size_t len;
    int r = file_read(path, YAML_MAX, &text, &len);

    *e = (struct yaml_err){ 0 };
    if (r) {
        snprintf(e->msg, sizeof(e->msg), "%s", r < 0 ? strerror(-r) : "too big");
        return r < 0 ? r : ERR_CONFIG;
    }
    return auth_conf_parse(text, len, ret, e);
}

void auth_conf_free(struct auth_conf *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_ids; i++) {
        free(c->ids[i].allow);
        free(c->ids[i].allow_text);
        explicit_bzero(&c->ids[i], sizeof(c->ids[i]));
    }
    free(c->ids);
    map_done(&c->by_name);
    json_put(c->root);
    free(c);
}

const struct identity *auth_conf_find(const struct auth_conf *c, const char *name)
{
    return map_get(&c->by_name, name);
}

bool identity_admits(const struct identity *id, const struct addr *from)
{
    for (size_t i = 0; i < id->n_allow; i++)
        if (from && cidr_has(&id->allow[i], from))
            return true;
    return id->n_allow == 0;
}

char *auth_conf_replace(const char *text, const char *old_hash, const char *new_hash)
{
    const char *at = strstr(text, old_hash);

    if (!at || strstr(at + 1, old_hash))
        return NULL;
    return xasprintf("%.*s%s%s", (int)(at - text), text, new_hash, at + strlen(old_hash));
}
