/*
 * A circle of hashes and an open-addressed set over it, both grown as they fill, so a connection
 * that gives ten commands does not pay for 65,536.
 */
#include "gateway/replay.h"

#include "common/base/rnd.h"

struct replay {
    uint64_t *ring, *set; /* 0 is free */
    size_t cap, n, head;  /* ring: n newest, next write at head; set has 2 * cap slots */
};

static uint64_t hash_id(const char *id)
{
    static uint64_t secret[2];
    uint64_t h;

    if (!secret[0])
        rnd_bytes(secret, sizeof(secret));
    h = hash_str(id) ^ secret[0];
    h ^= h >> 31;
    h *= secret[1] | 1;
    h ^= h >> 29;
    return h ? h : 1;
}

static size_t find(const struct replay *r, uint64_t h)
{
    size_t mask = 2 * r->cap - 1, i = (size_t)h & mask;

    while (r->set[i] && r->set[i] != h)
        i = (i + 1) & mask;
    return i;
}

/* Removal that leaves no holes in a chain. */
static void drop(struct replay *r, uint64_t h)
{
    size_t mask = 2 * r->cap - 1, i = find(r, h), j = i;

    if (!r->set[i])
        return;
    for (;;) {
        r->set[i] = 0;
        for (;;) {
            size_t want;

            j = (j + 1) & mask;
            if (!r->set[j])
                return;
            want = (size_t)r->set[j] & mask;
            if (((j - want) & mask) >= ((j - i) & mask))
                break;
        }
        r->set[i] = r->set[j];
        i = j;
    }
}

static void grow(struct replay *r)
{
    size_t old = r->cap;
    uint64_t *ring = r->ring;

    r->cap = old ? old * 4 : 64;
    r->ring = xcalloc(r->cap, sizeof(*r->ring));
    free(r->set);
    r->set = xcalloc(2 * r->cap, sizeof(*r->set));
    for (size_t i = 0; i < old; i++) { /* full and never wrapped when it grows */
        r->ring[i] = ring[i];
        r->set[find(r, ring[i])] = ring[i];
    }
    r->head = old;
    free(ring);
}

bool replay_add(struct replay **rp, const char *id)
{
    struct replay *r = *rp;
    uint64_t h = hash_id(id);

    if (!r) {
        r = *rp = xcalloc(1, sizeof(*r));
        grow(r);
    }
    if (r->set[find(r, h)])
        return false;
    if (r->n == r->cap && r->cap < REPLAY_IDS)
        grow(r);
    if (r->n == r->cap)
        drop(r, r->ring[r->head]);
    else
        r->n++;
    r->ring[r->head] = h;
    r->head = (r->head + 1) % r->cap;
    r->set[find(r, h)] = h;
    return true;
}

void replay_free(struct replay *r)
{
    if (!r)
        return;
    free(r->ring);
    free(r->set);
    free(r);
}
