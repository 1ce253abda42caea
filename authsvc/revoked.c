/* One table of all entries under "<kind> <id>"; the file is that table. */
#include "authsvc/revoked.h"

#include <errno.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/map.h"

#define FILE_MAX ((size_t)64 * 1024 * 1024)

const char *const revoked_names[REV_KINDS] = { "tokens", "sessions", "users", "lineages" };

struct entry {
    enum revoked_kind kind;
    char *key, *id; /* id points into key */
    int64_t expires, version;
};

struct revoked {
    struct map entries;
    int64_t version;
    struct store *store;
};

static char *key_of(enum revoked_kind k, const char *id)
{
    return xasprintf("%c %s", "tsul"[k], id);
}

static void entry_free(struct entry *e)
{
    free(e->key);
    free(e);
}

static void put(struct revoked *r, enum revoked_kind k, const char *id, int64_t expires,
                int64_t version)
{
    struct entry *e = xcalloc(1, sizeof(*e));

    *e = (struct entry){ .kind = k, .key = key_of(k, id), .expires = expires, .version = version };
    e->id = e->key + 2;
    struct entry *old = map_put(&r->entries, e->key, e);
    if (old)
        entry_free(old);
}

static void sweep(struct revoked *r, int64_t now)
{
    void *v;

    for (size_t i = 0; map_each(&r->entries, &i, NULL, &v);) {
        struct entry *e = v;

        if (e->expires <= now) {
            map_del(&r->entries, e->key);
            entry_free(e);
        }
    }
}

/* {"version":N,"tokens":[{"id","expires","version"}],…} */
static int load(struct revoked *r, const char *path)
{
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *o = NULL;
    size_t len;
    int e = file_read(path, FILE_MAX, &text, &len);

    if (e == -ENOENT)
        return 0;
    if (e || json_parse(text, len, &o) || !json_object_is_type(o, json_type_object))
        return e ? e : ERR_PARSE;
    r->version = json_int(o, "version", 0);
    for (int k = 0; k < REV_KINDS; k++) {
        json_object *list = json_arr(o, revoked_names[k]);

        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
            json_object *row = json_object_array_get_idx(list, i);
            const char *id = json_str(row, "id", NULL);

            if (id)
                put(r, (enum revoked_kind)k, id, json_int(row, "expires", 0),
                    json_int(row, "version", 0));
        }
    }
    return 0;
}

struct revoked *revoked_new(const char *path, struct work_pool *disk, int64_t now, int *err)
{
    struct revoked *r = xcalloc(1, sizeof(*r));

    map_init(&r->entries);
    *err = load(r, path);
    if (*err) {
        revoked_free(r);
        return NULL;
    }
    sweep(r, now);
    r->store = store_new(disk, path, 0600);
    return r;
}

void revoked_free(struct revoked *r)
{
    void *v;

    if (!r)
        return;
    for (size_t i = 0; map_each(&r->entries, &i, NULL, &v);)
        entry_free(v);
    map_done(&r->entries);
    store_free(r->store);
    free(r);
}

bool revoked_add(struct revoked *r, enum revoked_kind k, const char *id, int64_t expires,
                 int64_t now)
{
    if (expires <= now || revoked_has(r, k, id))
        return false;
    put(r, k, id, expires, ++r->version);
    return true;
}

bool revoked_has(const struct revoked *r, enum revoked_kind k, const char *id)
{
    cleanup(freep) char *key = key_of(k, id);

    return map_get(&r->entries, key) != NULL;
}

void revoked_save(struct revoked *r, int64_t now, store_fn fn, void *arg)
{
    json_object *lists[REV_KINDS];
    cleanup(json_putp) json_object *o = json_new();
    void *v;

    sweep(r, now);
    json_add_int(o, "version", r->version);
    for (int k = 0; k < REV_KINDS; k++)
        json_add(o, revoked_names[k], lists[k] = json_new_arr());
    for (size_t i = 0; map_each(&r->entries, &i, NULL, &v);) {
        const struct entry *e = v;

        json_push(lists[e->kind],
                  json_make("id:s expires:i version:i", e->id, e->expires, e->version));
    }
    store_save(r->store, xstrdup(json_text(o)), fn, arg);
}

json_object *revoked_since(const struct revoked *r, int64_t since, int64_t now)
{
    json_object *o = json_new(), *lists[REV_KINDS];
    void *v;

    for (int k = 0; k < REV_KINDS; k++)
        json_add(o, revoked_names[k], lists[k] = json_new_arr());
    for (size_t i = 0; map_each(&r->entries, &i, NULL, &v);) {
        const struct entry *e = v;

        if (e->expires > now && (e->version > since || since > r->version))
            json_push_str(lists[e->kind], e->id);
    }
    json_add_int(o, "version", r->version);
    return o;
}

size_t revoked_count(const struct revoked *r)
{
    return r->entries.n;
}
