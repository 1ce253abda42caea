/*
 * The token cache.
 *
 * The gateway holds no key: only authsvc can say what a token is worth. Its answer stays true until
 * the token expires or authsvc pushes a revocation, so it is kept, under the token's SHA-256. An
 * answer that was on its way while a revocation came in is asked for again. "No" is kept for a
 * minute, so that a client with a dead token costs no call per attempt.
 */
#include "gateway/ident.h"

#include <sys/queue.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/map.h"
#include "common/svc/token.h"

#define CACHE_MAX  8192U
#define NO_KEPT_MS 60000
#define ASK_MS     5000
#define ASK_AGAIN  3

struct entry {
    struct ident i;
    TAILQ_ENTRY(entry) link; /* oldest first */
    bool cached;
};
TAILQ_HEAD(entries, entry);

struct ident_query {
    char *token;
    ident_fn fn;
    void *arg;
    struct ipc_call *call;
    unsigned gen, tries;
};

int64_t ident_refresh_window_ms = 300000;
bool ident_require_tls;
static struct entries cache = TAILQ_HEAD_INITIALIZER(cache);
static struct map by_key, sessions;
static unsigned n_cached, revocations;

/* --- sessions --------------------------------------------------------------------------------- */

struct sess *sess_find(const char *id)
{
    return map_get(&sessions, id);
}

static struct sess *sess_ref(const char *id, const char *identity)
{
    struct sess *s = sess_find(id);

    if (!s) {
        s = xcalloc(1, sizeof(*s));
        str_copy(s->id, sizeof(s->id), id);
        str_copy(s->identity, sizeof(s->identity), identity);
        s->first_ms = s->active_ms = now_ms();
        map_put(&sessions, id, s);
    }
    s->refs++;
    return s;
}

static void sess_unref(struct sess *s)
{
    if (!s || --s->refs)
        return;
    map_del(&sessions, s->id);
    free(s);
}

/* --- idents ----------------------------------------------------------------------------------- */

struct ident *ident_ref(struct ident *i)
{
    i->refs++;
    return i;
}

void ident_unref(struct ident *i)
{
    if (!i || --i->refs)
        return;
    sess_unref(i->sess);
    json_put(i->crews);
    free(container_of(i, struct entry, i));
}

static void forget(struct entry *e)
{
    if (!e->cached)
        return;
    e->cached = false;
    TAILQ_REMOVE(&cache, e, link);
    map_del(&by_key, e->i.key);
    n_cached--;
    ident_unref(&e->i);
}

/* Those that connections use stay: a revocation must find them. */
static void make_room(void)
{
    struct entry *e, *next;

    for (e = TAILQ_FIRST(&cache); e && n_cached >= CACHE_MAX; e = next) {
        next = TAILQ_NEXT(e, link);
        if (e->i.refs == 1)
            forget(e);
    }
}

static void token_key(const char *token, char key[65])
{
    uint8_t sum[32];

    sha256(token, strlen(token), sum);
    hex_encode(sum, sizeof(sum), key);
}

static struct entry *remember(const char *key)
{
    struct entry *e = map_get(&by_key, key);

    if (e)
        forget(e);
    make_room();
    e = xcalloc(1, sizeof(*e));
    e->i.refs = 1;
    str_copy(e->i.key, sizeof(e->i.key), key);
    e->cached = true;
    TAILQ_INSERT_TAIL(&cache, e, link);
    map_put(&by_key, key, e);
    n_cached++;
    return e;
}

struct ident *ident_peek(const char *token)
{
    char key[65];
    struct entry *e;

    token_key(token, key);
    e = map_get(&by_key, key);
    if (e && !e->i.valid && now_ms() > e->i.exp_ms) {
        forget(e);
        e = NULL;
    }
    return e ? &e->i : NULL;
}

bool ident_live(const struct ident *i, int64_t now)
{
    return i->valid && !i->revoked && i->exp_ms > now;
}

/* An instant as text, milliseconds or seconds. */
static int64_t instant(json_object *o, const char *key)
{
    json_object *v = json_get(o, key);
    int64_t t = 0;

    if (!v)
        return 0;
    if (json_object_is_type(v, json_type_string))
        return rfc3339_parse(json_object_get_string(v), &t) ? t : 0;
    t = json_object_get_int64(v);
    return t > 100000000000LL ? t : t * 1000;
}

static const char *text_of(json_object *o, const char *a, const char *b, const char *dflt)
{
    const char *s = json_str(o, a, "");

    return s[0] ? s : json_str(o, b, dflt);
}

struct ident *ident_learn(const char *token, json_object *answer, const struct ident *like)
{
    json_object *claims = json_obj(answer, "claims") ? json_obj(answer, "claims") : answer;
    const char *who = text_of(claims, "identity", "sub", like ? like->identity : "");
    const char *sid = text_of(claims, "sessionId", "session_id", like ? like->session : "");
    enum role role = role_parse(json_str(claims, "role", like ? role_name(like->role) : ""));
    int64_t exp = instant(claims, "expiresAt");
    json_object *crews = json_arr(claims, "crews");
    char key[65];

    ident_refresh_window_ms = json_int(answer, "refresh_window_ms", ident_refresh_window_ms);
    ident_require_tls = json_flag(answer, "require_tls", ident_require_tls);
    if (!exp)
        exp = instant(answer, "expires_at");
    if (!who[0] || !sid[0] || role == ROLE_NONE || !exp || strlen(who) >= sizeof(like->identity) ||
        strlen(sid) >= sizeof(like->session))
        return NULL;
    token_key(token, key);
    struct ident *i = &remember(key)->i;

    i->valid = true;
    i->role = role;
    i->exp_ms = exp;
    i->uid = json_int(claims, "uid", like ? like->uid : 0);
    str_copy(i->identity, sizeof(i->identity), who);
    str_copy(i->session, sizeof(i->session), sid);
    str_copy(i->token_id, sizeof(i->token_id), json_str(claims, "tokenId", ""));
    if (crews || like)
        i->crews = json_dup(crews ? crews : like->crews);
    i->sess = sess_ref(sid, who);
    return i;
}

static struct ident *learn_no(const char *token, const char *reason)
{
    char key[65];

    token_key(token, key);
    struct ident *i = &remember(key)->i;

    i->exp_ms = now_ms() + NO_KEPT_MS;
    i->expired = strstr(reason, "expired") != NULL;
    return i;
}

json_object *ident_user(const struct ident *i, const char *token)
{
    return json_make("name:s uid:i role:s crews:o session_id:s token:s", i->identity, i->uid,
                     role_name(i->role), i->crews ? json_object_get(i->crews) : json_new_arr(),
                     i->session, token);
}

/* --- asking ----------------------------------------------------------------------------------- */

static void query_free(struct ident_query *q)
{
    explicit_bzero(q->token, strlen(q->token));
    free(q->token);
    free(q);
}

static void on_answer(struct ipc_reply *r, void *arg);

static void ask(struct ident_query *q)
{
    q->gen = revocations;
    q->tries++;
    q->call = svc_call("auth/validate", json_make("token:s", q->token), NULL, ASK_MS, on_answer, q);
}

static void on_answer(struct ipc_reply *r, void *arg)
{
    struct ident_query *q = arg;
    struct ident *i = NULL;

    q->call = NULL;
    if (q->gen != revocations && q->tries < ASK_AGAIN) {
        ask(q);
        return;
    }
    if (!r->err && json_flag(r->result, "valid", false))
        i = ident_learn(q->token, r->result, NULL);
    else if (!r->err)
        i = learn_no(q->token, json_str(r->result, "reason", ""));
    else if (r->err == ERR_EXPIRED || r->err == ERR_DENIED)
        i = learn_no(q->token, r->err == ERR_EXPIRED ? "expired" : rpc_error_reason(&r->error));
    else
        log_warn("auth/validate: %s", r->error.message);
    q->fn(i, q->arg);
    query_free(q);
}

struct ident_query *ident_ask(const char *token, ident_fn fn, void *arg)
{
    struct ident *i = ident_peek(token);
    struct ident_query *q;

    if (i) {
        fn(i, arg);
        return NULL;
    }
    q = xcalloc(1, sizeof(*q));
    q->token = xstrdup(token);
    q->fn = fn;
    q->arg = arg;
    ask(q);
    return q;
}

void ident_cancel(struct ident_query *q)
{
    if (!q)
        return;
    if (q->call)
        ipc_cancel(q->call);
    query_free(q);
}

/* --- revocation ------------------------------------------------------------------------------- */

/* A list's members are names, or objects that have one. */
static bool lists(json_object *arr, const char *name)
{
    static const char *const keys[] = { "id", "tokenId", "sessionId", "user", "name" };

    for (size_t i = 0; arr && name[0] && i < json_object_array_length(arr); i++) {
        json_object *v = json_object_array_get_idx(arr, i);

        if (json_object_is_type(v, json_type_string)) {
            if (str_eq(json_object_get_string(v), name))
                return true;
            continue;
        }
        for (size_t k = 0; k < N_ELEMS(keys); k++)
            if (str_eq(json_str(v, keys[k], ""), name))
                return true;
    }
    return false;
}

void ident_revoke(json_object *params, void (*gone)(struct sess *s, void *arg), void *arg)
{
    json_object *toks = json_arr(params, "tokens"), *sess = json_arr(params, "sessions"),
                *users = json_arr(params, "users");
    struct entry *e, *next;

    revocations++;
    for (e = TAILQ_FIRST(&cache); e; e = next) {
        struct ident *i = &e->i;

        next = TAILQ_NEXT(e, link);
        if (!i->valid || i->revoked ||
            !(lists(sess, i->session) || lists(users, i->identity) || lists(toks, i->token_id)))
            continue;
        i->revoked = true;
        ident_ref(i);
        gone(i->sess, arg);
        next = TAILQ_NEXT(e, link);
        ident_unref(i);
    }
}

void ident_init(void)
{
    map_init(&by_key);
    map_init(&sessions);
}

void ident_fini(void)
{
    while (!TAILQ_EMPTY(&cache))
        forget(TAILQ_FIRST(&cache));
    map_done(&by_key);
    map_done(&sessions);
}
