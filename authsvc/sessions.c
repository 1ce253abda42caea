/* A table that is written whole: logins are rare, and the disk thread joins writes. */
#include "authsvc/sessions.h"

#include "common/base/fsx.h"
#include "common/base/log.h"
#include "common/base/map.h"

#define SESSIONS_MAX 4096
#define FILE_MAX     ((size_t)16 * 1024 * 1024)

struct sessions {
    struct map by_id;
    struct store *store;
};

static void session_free(struct session *x)
{
    free(x->identity);
    free(x->remote);
    free(x->client);
    free(x);
}

struct session *sessions_get(const struct sessions *s, const char *id)
{
    return map_get(&s->by_id, id);
}

void sessions_drop(struct sessions *s, const char *id)
{
    struct session *x = map_del(&s->by_id, id);

    if (x)
        session_free(x);
}

static void sweep(struct sessions *s, int64_t now)
{
    void *v;

    for (size_t i = 0; map_each(&s->by_id, &i, NULL, &v);)
        if (((struct session *)v)->expires_at <= now)
            sessions_drop(s, ((struct session *)v)->id);
}

static void make_room(struct sessions *s, int64_t now)
{
    struct session *oldest = NULL;
    void *v;

    if (s->by_id.n < SESSIONS_MAX)
        return;
    sweep(s, now);
    for (size_t i = 0; map_each(&s->by_id, &i, NULL, &v);)
        if (!oldest || ((struct session *)v)->active_at < oldest->active_at)
            oldest = v;
    if (s->by_id.n >= SESSIONS_MAX && oldest)
        sessions_drop(s, oldest->id);
}

struct session *sessions_add(struct sessions *s, const char *id, const char *identity,
                             const char *remote, const char *client, int64_t now, int64_t expires)
{
    struct session *x = xcalloc(1, sizeof(*x));

    make_room(s, now);
    sessions_drop(s, id);
    str_copy(x->id, sizeof(x->id), id);
    x->identity = xstrdup(identity);
    x->remote = xstrdup(remote);
    x->client = xstrdup(client);
    x->login_at = x->active_at = now;
    x->expires_at = expires;
    map_put(&s->by_id, x->id, x);
    return x;
}

static void load(struct sessions *s, const char *path, int64_t now)
{
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *o = NULL;
    size_t len;

    if (file_read(path, FILE_MAX, &text, &len))
        return;
    if (json_parse(text, len, &o) || !json_arr(o, "sessions")) {
        log_warn("%s: not readable, sessions start empty", path);
        return;
    }
    json_object *list = json_arr(o, "sessions");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *row = json_object_array_get_idx(list, i);
        const char *id = json_str(row, "id", ""), *who = json_str(row, "identity", "");

        if (!uuid_valid(id) || !*who)
            continue;
        struct session *x =
            sessions_add(s, id, who, json_str(row, "remote", ""), json_str(row, "client", ""),
                         json_int(row, "login", 0), json_int(row, "expires", 0));
        x->active_at = json_int(row, "active", x->login_at);
        x->role = role_parse(json_str(row, "role", NULL));
    }
    sweep(s, now);
}

struct sessions *sessions_new(const char *path, struct work_pool *disk, int64_t now)
{
    struct sessions *s = xcalloc(1, sizeof(*s));

    map_init(&s->by_id);
    load(s, path, now);
    s->store = store_new(disk, path, 0600);
    return s;
}

void sessions_free(struct sessions *s)
{
    void *v;

    if (!s)
        return;
    for (size_t i = 0; map_each(&s->by_id, &i, NULL, &v);)
        session_free(v);
    map_done(&s->by_id);
    store_free(s->store);
    free(s);
}

void sessions_save(struct sessions *s, int64_t now, store_fn fn, void *arg)
{
    json_object *list = json_new_arr();
    cleanup(json_putp) json_object *o = json_make("sessions:o", list);
    const struct session *x;

    sweep(s, now);
    for (size_t i = 0; (x = sessions_each(s, &i));)
        json_push(list,
                  json_make("id:s identity:s role:s remote:s client:s login:i active:i expires:i",
                            x->id, x->identity, role_name(x->role), x->remote, x->client,
                            x->login_at, x->active_at, x->expires_at));
    store_save(s->store, xstrdup(json_text(o)), fn, arg);
}

struct session *sessions_each(const struct sessions *s, size_t *pos)
{
    void *v;

    return map_each(&s->by_id, pos, NULL, &v) ? v : NULL;
}

size_t sessions_count(const struct sessions *s)
{
    return s->by_id.n;
}

int64_t sessions_of(const struct sessions *s, const char *identity, int64_t now)
{
    const struct session *x;
    int64_t n = 0;

    for (size_t i = 0; (x = sessions_each(s, &i));)
        n += x->expires_at > now && str_eq(x->identity, identity);
    return n;
}
