/*
 * Who calls. A token is verified once; what follows from it is cached under its signature and used
 * again only for the very same bytes. Expiry, revocation and the process that holds it are looked
 * at on every call.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "router/router.h"

#define CACHE_MAX   4096
#define SIG_LEN     43
#define CHAIN_MAX   16
#define REVOKED_MAX 100000

TAILQ_HEAD(ident_list, ident);

static char runtime_mark; /* value of the names that only the claim runtime has */

static struct {
    struct hmac *cap, *atp, *svc;
    struct map by_sig;
    struct ident_list lru; /* most recently used first */
    size_t n;
    struct map loads;
    struct map tokens, sessions, users, lineages; /* revoked */
    bool gate;
} a;

/* --- loads --------------------------------------------------------------------------------------
 */

struct caller_load *load_get(const char *key, enum caller_kind kind)
{
    struct caller_load *l = map_get(&a.loads, key);
    const struct kernel_config *k = svc.config;

    if (!l) {
        l = xcalloc(1, sizeof(*l));
        str_copy(l->key, sizeof(l->key), key);
        l->limit = (unsigned)(kind == CALLER_AGENT     ? k->per_caller_agent
                              : kind == CALLER_SERVICE ? k->per_caller_service
                                                       : k->per_caller_user);
        map_put(&a.loads, l->key, l);
    }
    l->refs++;
    return l;
}

void load_unref(struct caller_load *l)
{
    if (!l || --l->refs)
        return;
    map_del(&a.loads, l->key);
    free(l);
}

/* --- identities ---------------------------------------------------------------------------------
 */

void ident_ref(struct ident *id)
{
    id->refs++;
}

void ident_unref(struct ident *id)
{
    if (!id || --id->refs)
        return;
    if (id->token) {
        explicit_bzero(id->token, id->token_len);
        free(id->token);
    }
    map_done(&id->granted);
    json_put(id->patterns);
    json_put(id->crews);
    json_put(id->budgets);
    json_put(id->claims);
    free(id->caller_head);
    load_unref(id->load);
    free(id);
}

static void cache_drop(struct ident *id)
{
    if (id->token_len < SIG_LEN || map_get(&a.by_sig, id->token + id->token_len - SIG_LEN) != id)
        return;
    map_del(&a.by_sig, id->token + id->token_len - SIG_LEN);
    TAILQ_REMOVE(&a.lru, id, lru);
    a.n--;
    id->dead = true;
    ident_unref(id);
}

static void cache_add(struct ident *id, const char *token, size_t len)
{
    if (a.n >= CACHE_MAX)
        cache_drop(TAILQ_LAST(&a.lru, ident_list));
    id->token = xstrndup(token, len);
    id->token_len = len;
    map_put(&a.by_sig, id->token + len - SIG_LEN, id);
    TAILQ_INSERT_HEAD(&a.lru, id, lru);
    a.n++;
    id->refs++;
}

bool ident_runtime_only(const struct ident *id, const char *tool)
{
    return map_get(&id->granted, tool) == &runtime_mark;
}

bool ident_granted(const struct ident *id, const char *tool)
{
    const char *pos = id->unit_patterns;
    char word[TOOL_MAX + 1];

    if (map_get(&id->granted, tool))
        return true;
    while (pos && word_next(&pos, word, sizeof(word)))
        if (tool_pattern_match(word, tool))
            return true;
    for (size_t i = 0; id->patterns && i < json_object_array_length(id->patterns); i++) {
        json_object *p = json_object_array_get_idx(id->patterns, i);

        if (json_object_is_type(p, json_type_string) &&
            tool_pattern_match(json_object_get_string(p), tool))
            return true;
    }
    return false;
}

static bool is_revoked(const struct ident *id)
{
    return id->dead || map_get(&a.tokens, id->token_id) ||
           (id->lineage[0] && map_get(&a.lineages, id->lineage)) ||
           (id->kind == CALLER_USER && map_get(&a.sessions, id->atp_session)) ||
           (id->user[0] && map_get(&a.users, id->user));
}

static void put_str(struct buf *b, const char *key, const char *value)
{
    buf_printf(b, ",\"%s\":", key);
    buf_add_json_str(b, value, strlen(value));
}

static void head_write(struct ident *id)
{
    static const char *const kinds[] = { "none", "agent", "service", "user" };
    struct buf b = BUF_INIT(65536);

    buf_printf(&b, "{\"kind\":\"%s\",\"pid\":%lld", kinds[id->kind], (long long)id->pid);
    if (id->kind == CALLER_SERVICE) {
        put_str(&b, "service", id->unit);
    } else {
        put_str(&b, "user", id->user);
        put_str(&b, "role", role_name(id->role));
        buf_printf(&b, ",\"uid\":%lld,\"crews\":", (long long)id->uid);
        buf_adds(&b, id->crews ? json_text(id->crews) : "[]");
        if (id->kind == CALLER_AGENT)
            put_str(&b, "agent", id->agent);
        put_str(&b, "session_id", id->session_id);
        put_str(&b, "atpSession", id->atp_session);
    }
    id->caller_head_len = b.len;
    id->caller_head = buf_take(&b);
}

static bool copy_claim(json_object *claims, const char *key, char *out, size_t size)
{
    return str_copy(out, size, json_str(claims, key, ""));
}

static void grant_names(struct ident *id, json_object *names, void *mark)
{
    for (size_t i = 0; names && i < json_object_array_length(names); i++) {
        json_object *n = json_object_array_get_idx(names, i);

        if (json_object_is_type(n, json_type_string))
            map_put(&id->granted, json_object_get_string(n), mark);
    }
}

static bool expiry(struct ident *id, json_object *claims)
{
    return rfc3339_parse(json_str(claims, "expiresAt", ""), &id->expires_ms);
}

static bool person(struct ident *id, json_object *claims, const char *session_key)
{
    id->uid = json_int(claims, "uid", -1);
    id->role = role_parse(json_str(claims, "role", NULL));
    id->crews = json_arr(claims, "crews");
    if (id->crews)
        json_object_get(id->crews);
    return copy_claim(claims, session_key, id->atp_session, sizeof(id->atp_session));
}

static bool from_cap(struct ident *id, json_object *claims)
{
    char key[32];

    id->kind = CALLER_AGENT;
    id->pid = json_int(claims, "pid", 0);
    id->host_pid = (pid_t)json_int(claims, "hostPid", 0);
    id->host_start = (uint64_t)json_int(claims, "hostStart", 0);
    id->budgets = json_obj(claims, "budgets");
    if (id->budgets)
        json_object_get(id->budgets);
    grant_names(id, json_arr(claims, "runtime"), &runtime_mark);
    grant_names(id, json_arr(claims, "granted"), id);
    snprintf(key, sizeof(key), "a:%lld", (long long)id->pid);
    id->load = load_get(key, id->kind);
    return id->pid > 0 && id->host_pid > 0 && id->host_start && expiry(id, claims) &&
           person(id, claims, "atpSession") &&
           copy_claim(claims, "sub", id->user, sizeof(id->user)) && id->user[0] &&
           copy_claim(claims, "lineage", id->lineage, sizeof(id->lineage)) &&
           copy_claim(claims, "agent", id->agent, sizeof(id->agent)) &&
           copy_claim(claims, "sessionId", id->session_id, sizeof(id->session_id));
}

static bool from_svc(struct ident *id, json_object *claims)
{
    char key[80];

    id->kind = CALLER_SERVICE;
    id->uid = -1;
    id->host_pid = (pid_t)json_int(claims, "hostPid", 0);
    id->host_start = (uint64_t)json_int(claims, "hostStart", 0);
    id->one_shot = json_flag(claims, "oneShot", false);
    if (!copy_claim(claims, "unit", id->unit, sizeof(id->unit)) || !id->unit[0])
        return false;
    id->unit_id = unit_by_name(id->unit);
    if (id->unit_id >= 0) {
        const struct unit_row *row = &unit_rows[id->unit_id];

        str_copy(id->unit, sizeof(id->unit), row->name);
        id->pid = row->pid;
        id->unit_patterns = row->grants;
    } else {
        id->patterns = json_arr(claims, "grants");
        if (id->patterns)
            json_object_get(id->patterns);
    }
    snprintf(key, sizeof(key), "s:%s", id->unit);
    id->load = load_get(key, id->kind);
    return id->host_pid > 0 && id->host_start;
}

static bool from_atp(struct ident *id, json_object *claims)
{
    char key[80];

    id->kind = CALLER_USER;
    if (!copy_claim(claims, "sub", id->user, sizeof(id->user)) || !id->user[0])
        return false;
    snprintf(key, sizeof(key), "u:%s", id->user);
    id->load = load_get(key, id->kind);
    return expiry(id, claims) && person(id, claims, "sessionId");
}

static const struct {
    const char *kind;
    struct hmac **key;
    bool (*fill)(struct ident *, json_object *);
} kinds[] = {
    { "CapabilityToken", &a.cap, from_cap },
    { "ServiceToken", &a.svc, from_svc },
    { "ATPToken", &a.atp, from_atp },
};

static struct ident *ident_new(void)
{
    struct ident *id = xcalloc(1, sizeof(*id));

    id->refs = 1;
    id->unit_id = UNIT_NONE;
    map_init(&id->granted);
    return id;
}

/* A token seen for the first time. NULL if its signature, kind or claims are wrong. */
static struct ident *ident_verify(const char *token, size_t len, bool user)
{
    for (size_t i = user ? 2 : 0; i < (user ? 3 : 2); i++) {
        cleanup(json_putp) json_object *claims = NULL;
        struct ident *id;

        if (token_verify(*kinds[i].key, token, len, &claims))
            continue;
        id = ident_new();
        if (!str_eq(json_str(claims, "kind", ""), kinds[i].kind) ||
            !copy_claim(claims, "tokenId", id->token_id, sizeof(id->token_id)) ||
            !kinds[i].fill(id, claims)) {
            ident_unref(id);
            return NULL;
        }
        id->claims = TAKE(claims);
        head_write(id);
        cache_add(id, token, len);
        return id;
    }
    return NULL;
}

static struct ident *ident_find(const char *token, size_t len)
{
    struct ident *id;

    if (len <= SIG_LEN)
        return NULL;
    id = map_getn(&a.by_sig, token + len - SIG_LEN, SIG_LEN);
    if (!id || id->token_len != len || !ct_equal(id->token, token, len))
        return NULL;
    if (id != TAILQ_FIRST(&a.lru)) {
        TAILQ_REMOVE(&a.lru, id, lru);
        TAILQ_INSERT_HEAD(&a.lru, id, lru);
    }
    id->refs++;
    return id;
}

/* A built-in's own process; of an installed service also what it started. */
static bool held_by(const struct ident *id, const struct peer *p)
{
    pid_t pid = p->pid;

    if (peer_same(p, id->host_pid, id->host_start))
        return true;
    if (id->kind != CALLER_SERVICE || id->unit_id != UNIT_NONE)
        return false;
    for (int i = 0; i < CHAIN_MAX && pid > 1; i++) {
        pid = proc_parent(pid);
        if (pid == id->host_pid)
            return proc_start_time(pid) == id->host_start;
    }
    return false;
}

static int usable(const struct ident *id, const char **reason)
{
    if (is_revoked(id)) {
        *reason = "revoked";
        return ERR_AUTH;
    }
    if (id->expires_ms && now_ms() >= id->expires_ms) {
        *reason = "expired";
        return ERR_EXPIRED;
    }
    return 0;
}

int auth_token(const char *token, size_t len, const struct peer *peer, struct ident **ret,
               const char **reason)
{
    struct ident *id = ident_find(token, len);
    int r;

    if (!id)
        id = ident_verify(token, len, false);
    if (!id || id->kind == CALLER_USER) {
        ident_unref(id);
        *reason = "forged";
        return ERR_AUTH;
    }
    r = usable(id, reason);
    if (!r && !held_by(id, peer)) {
        *reason = "process";
        r = ERR_AUTH;
    }
    if (r)
        ident_unref(id);
    else
        *ret = id;
    return r;
}

/* `_user` without a token: from the kernel, or in a one-shot run. */
static struct ident *ident_believed(json_object *u)
{
    struct ident *id = ident_new();
    char key[80];

    id->kind = CALLER_USER;
    if (!copy_claim(u, "name", id->user, sizeof(id->user)) || !id->user[0] ||
        !person(id, u, "session_id") || id->role == ROLE_NONE) {
        ident_unref(id);
        return NULL;
    }
    snprintf(key, sizeof(key), "u:%s", id->user);
    id->load = load_get(key, id->kind);
    id->claims = json_object_get(u);
    head_write(id);
    return id;
}

int auth_user(const struct ident *via, struct json_slice user, struct ident **ret,
              const char **reason)
{
    static const char *const names[] = { "token" };
    struct json_slice token;
    struct ident *id = NULL;
    int r;

    *reason = "user";
    if (via->kind != CALLER_SERVICE || json_scan(user.at, user.len, names, &token, 1))
        return ERR_AUTH;
    if (via->unit_id == UNIT_KERNEL || (via->unit_id == UNIT_GATEWAY && via->one_shot)) {
        cleanup(json_putp) json_object *u = NULL;

        if (json_parse(user.at, user.len, &u) || !(id = ident_believed(u)))
            return ERR_AUTH;
    } else if (via->unit_id == UNIT_GATEWAY && token.len > 2 && token.at[0] == '"') {
        id = ident_find(token.at + 1, token.len - 2);
        if (!id)
            id = ident_verify(token.at + 1, token.len - 2, true);
        if (id && id->kind != CALLER_USER) {
            ident_unref(id);
            id = NULL;
        }
    }
    if (!id)
        return ERR_AUTH;
    r = usable(id, reason);
    if (r)
        ident_unref(id);
    else
        *ret = id;
    return r;
}

struct ident *auth_agent(int64_t pid)
{
    struct ident *id, *best = NULL;

    TAILQ_FOREACH (id, &a.lru, lru)
        if (id->kind == CALLER_AGENT && id->pid == pid &&
            (!best || id->expires_ms > best->expires_ms))
            best = id;
    return best;
}

struct ident *ident_of_reader(json_object *r)
{
    const char *kind = json_str(r, "kind", "");
    struct ident *id = ident_new();

    id->kind = str_eq(kind, "agent")     ? CALLER_AGENT
               : str_eq(kind, "service") ? CALLER_SERVICE
                                         : CALLER_USER;
    id->pid = json_int(r, "pid", 0);
    copy_claim(r, "user", id->user, sizeof(id->user));
    copy_claim(r, "service", id->unit, sizeof(id->unit));
    id->unit_id = unit_by_name(id->unit);
    if (id->unit_id >= 0)
        id->unit_patterns = unit_rows[id->unit_id].grants;
    person(id, r, "atpSession");
    return id;
}

/* --- revocation ---------------------------------------------------------------------------------
 */

static void merge(struct map *m, json_object *list, bool whole)
{
    if (whole) {
        map_done(m);
        map_init(m);
    }
    for (size_t i = 0; list && i < json_object_array_length(list) && m->n < REVOKED_MAX; i++) {
        json_object *v = json_object_array_get_idx(list, i);

        if (json_object_is_type(v, json_type_string))
            map_put(m, json_object_get_string(v), m);
    }
}

void auth_revoked(json_object *set, bool whole)
{
    json_object *users = json_arr(set, "users"), *lineages = json_arr(set, "lineages");

    merge(&a.tokens, json_arr(set, "tokens"), whole);
    merge(&a.sessions, json_arr(set, "sessions"), whole);
    merge(&a.users, users, whole);
    merge(&a.lineages, lineages, whole);
    for (size_t i = 0; users && i < json_object_array_length(users); i++)
        policy_drop(json_object_get_string(json_object_array_get_idx(users, i)));
    for (size_t i = 0; lineages && i < json_object_array_length(lineages); i++)
        budget_drop(json_object_get_string(json_object_array_get_idx(lineages, i)));
}

bool auth_gate_open(void)
{
    return a.gate;
}

void auth_gate_set(bool open)
{
    a.gate = open;
}

static struct hmac *key_of(enum key_id k)
{
    const uint8_t *key = svc_key(k);

    if (!key)
        die(78, "the key %s was not handed down", key_names[k]);
    return hmac_new(key, KEY_LEN);
}

void auth_init(void)
{
    a.cap = key_of(KEY_CAP);
    a.atp = key_of(KEY_ATP);
    a.svc = key_of(KEY_SVC);
    TAILQ_INIT(&a.lru);
    map_init(&a.by_sig);
    map_init(&a.loads);
    map_init(&a.tokens);
    map_init(&a.sessions);
    map_init(&a.users);
    map_init(&a.lineages);
}

void auth_fini(void)
{
    while (!TAILQ_EMPTY(&a.lru))
        cache_drop(TAILQ_FIRST(&a.lru));
    map_done(&a.by_sig);
    map_done(&a.tokens);
    map_done(&a.sessions);
    map_done(&a.users);
    map_done(&a.lineages);
    map_done(&a.loads);
    hmac_free(a.cap);
    hmac_free(a.atp);
    hmac_free(a.svc);
}
