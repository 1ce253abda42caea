/*
 * Open addressing, linear probing, power-of-two table at most 3/4 full, marks for removed keys. The
 * hash is seeded per process, because keys come from clients. The full hash is kept beside the key:
 * a miss compares no text, and growing hashes nothing again.
 */
#include "common/base/map.h"

#include "common/base/rnd.h"

struct map_slot {
    uint64_t hash; /* 0: never used; 1: removed; else the key's, never 0 or 1 */
    char *key;
    size_t len;
    void *value;
};
enum { FREE = 0, GONE = 1 };

static uint64_t seed;

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t load(const char *p, size_t n)
{
    uint64_t v = 0;

    memcpy(&v, p, n);
    return v;
}

static uint64_t key_hash(const char *p, size_t len)
{
    uint64_t h = seed ^ (len * 0x9E3779B97F4A7C15ULL);

    for (; len >= 16; len -= 16, p += 16)
        h = mix(load(p, 8) ^ 0xA0761D6478BD642FULL, load(p + 8, 8) ^ h);
    if (len >= 8) {
        h = mix(load(p, 8) ^ 0xE7037ED1A0B428DBULL, h ^ 0x8EBC6AF09C88C6E3ULL);
        p += 8;
        len -= 8;
    }
    h = mix(load(p, len) ^ 0x589965CC75374CC3ULL, h ^ 0x1D8E4E27C47D124FULL);
    return h > GONE ? h : h + 2;
}

void map_init(struct map *m)
{
    *m = (struct map){ 0 };
    if (!seed) {
        rnd_bytes(&seed, sizeof(seed));
        seed |= 1;
    }
}

void map_done(struct map *m)
{
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].hash > GONE)
            free(m->slots[i].key);
    free(m->slots);
    *m = (struct map){ 0 };
}

static struct map_slot *find(const struct map *m, const char *key, size_t len, uint64_t hash)
{
    if (!m->cap)
        return NULL;
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->slots[i];

        if (s->hash == FREE)
            return NULL;
        if (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0)
            return s;
    }
}

void *map_getn(const struct map *m, const char *key, size_t len)
{
    struct map_slot *s = m->n ? find(m, key, len, key_hash(key, len)) : NULL;

    return s ? s->value : NULL;
}

void *map_get(const struct map *m, const char *key)
{
    return map_getn(m, key, strlen(key));
}

static struct map_slot *room_for(struct map *m, uint64_t hash)
{
    size_t i = hash & (m->cap - 1);

    while (m->slots[i].hash > GONE)
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

/* Grows, or only sweeps out removed keys. */
static void rebuild(struct map *m)
{
    struct map old = *m;
    size_t cap = 16;

    while (cap < (m->n + 1) * 2)
        cap *= 2;
    m->slots = xcalloc(cap, sizeof(*m->slots));
    m->cap = cap;
    m->used = m->n;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].hash > GONE)
            *room_for(m, old.slots[i].hash) = old.slots[i];
    free(old.slots);
}

void *map_put(struct map *m, const char *key, void *value)
{
    if (!seed)
        map_init(&(struct map){ 0 });
    size_t len = strlen(key);
    uint64_t hash = key_hash(key, len);
    struct map_slot *s = find(m, key, len, hash);

    if (s) {
        void *old = s->value;

        s->value = value;
        return old;
    }
    if ((m->used + 1) * 4 > m->cap * 3)
        rebuild(m);
    s = room_for(m, hash);
    m->used += s->hash == FREE;
    m->n++;
    *s = (struct map_slot){ hash, xstrdup(key), len, value };
    return NULL;
}

void *map_del(struct map *m, const char *key)
{
    size_t len = strlen(key);
    struct map_slot *s = m->n ? find(m, key, len, key_hash(key, len)) : NULL;

    if (!s)
        return NULL;
    void *old = s->value;
    free(s->key);
    *s = (struct map_slot){ .hash = GONE };
    m->n--;
    return old;
}

bool map_each(const struct map *m, size_t *pos, const char **key, void **value)
{
    for (; *pos < m->cap; (*pos)++) {
        const struct map_slot *s = &m->slots[*pos];

        if (s->hash <= GONE)
            continue;
        if (key)
            *key = s->key;
        if (value)
            *value = s->value;
        (*pos)++;
        return true;
    }
    return false;
}
