/*
 * A count is forgotten a lockout time after its last failure. Tables are bounded: when one is full,
 * what is over goes first, then what failed longest ago. Counts are kept as the journal of the
 * events themselves: replaying it gives the same state, also when the rules have changed.
 */
#include "authsvc/lockout.h"

#define TABLE_MAX    16384
#define JOURNAL_GROW ((size_t)1024 * 1024)
#define RATE_MAX     1000 /* as failed_auth_lockout_count */

struct count {
    char *key; /* identity, a newline, address; or identity */
    int fails;
    int64_t last, until; /* until: locked */
};
struct rate {
    char *key;
    int n, cap;
    int64_t *at; /* the failures of the last minute, oldest first */
};

struct lockout {
    struct login_policy policy;
    struct map pairs, ids, rates;
    struct journal *journal;
    int64_t now; /* while replaying */
};

static char *pair_key(const char *identity, const char *addr)
{
    return xasprintf("%s\n%s", identity, addr);
}

static void count_free(void *v)
{
    struct count *c = v;

    free(c->key);
    free(c);
}

static void rate_free(void *v)
{
    struct rate *r = v;

    free(r->key);
    free(r->at);
    free(r);
}

static void table_free(struct map *m, void (*fn)(void *))
{
    void *v;

    for (size_t i = 0; map_each(m, &i, NULL, &v);)
        fn(v);
    map_done(m);
}

static int64_t rate_last(const struct rate *r)
{
    return r->n ? r->at[r->n - 1] : 0;
}

/* Makes room in a full table of counts. */
static void counts_trim(struct lockout *l, struct map *m, int64_t now)
{
    struct count *oldest = NULL;
    const char *key;
    void *v;

    if (m->n < TABLE_MAX)
        return;
    for (size_t i = 0; map_each(m, &i, &key, &v);) {
        struct count *c = v;

        if (c->until <= now && c->last + l->policy.lockout_ttl_ms <= now) {
            map_del(m, c->key);
            count_free(c);
        } else if (!oldest || c->last < oldest->last) {
            oldest = c;
        }
    }
    if (m->n >= TABLE_MAX && oldest) {
        map_del(m, oldest->key);
        count_free(oldest);
    }
}

static void rates_trim(struct map *m, int64_t now)
{
    struct rate *oldest = NULL;
    void *v;

    if (m->n < TABLE_MAX)
        return;
    for (size_t i = 0; map_each(m, &i, NULL, &v);) {
        struct rate *r = v;

        if (rate_last(r) + LOCKOUT_RATE_MS <= now) {
            map_del(m, r->key);
            rate_free(r);
        } else if (!oldest || rate_last(r) < rate_last(oldest)) {
            oldest = r;
        }
    }
    if (m->n >= TABLE_MAX && oldest) {
        map_del(m, oldest->key);
        rate_free(oldest);
    }
}

/* Counts one failure under key; true if it locks now. */
static bool count_up(struct lockout *l, struct map *m, const char *key, int limit, int64_t now)
{
    struct count *c = map_get(m, key);

    if (!c) {
        counts_trim(l, m, now);
        c = xcalloc(1, sizeof(*c));
        c->key = xstrdup(key);
        map_put(m, key, c);
    }
    if (c->last + l->policy.lockout_ttl_ms <= now || (c->until && c->until <= now))
        c->fails = 0;
    c->until = c->until > now ? c->until : 0;
    c->last = now;
    if (++c->fails < limit || c->until)
        return false;
    c->until = now + l->policy.lockout_ttl_ms;
    return true;
}

static void rate_up(struct lockout *l, const char *addr, int64_t now)
{
    struct rate *r = map_get(&l->rates, addr);

    if (!r) {
        rates_trim(&l->rates, now);
        r = xcalloc(1, sizeof(*r));
        r->key = xstrdup(addr);
        map_put(&l->rates, addr, r);
    }
    int gone = 0;
    while (gone < r->n && (r->at[gone] + LOCKOUT_RATE_MS <= now || r->n - gone >= RATE_MAX))
        gone++;
    if (gone) {
        memmove(r->at, r->at + gone, (size_t)(r->n - gone) * sizeof(*r->at));
        r->n -= gone;
    }
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 8;
        r->at = xrealloc(r->at, (size_t)r->cap * sizeof(*r->at));
    }
    r->at[r->n++] = now;
}

static bool note(struct lockout *l, bool ok, const char *identity, const char *addr, int64_t now)
{
    cleanup(freep) char *pair = pair_key(identity, addr);

    if (ok) {
        struct count *c = map_del(&l->pairs, pair), *d = map_del(&l->ids, identity);

        if (c)
            count_free(c);
        if (d)
            count_free(d);
        return false;
    }
    rate_up(l, addr, now);
    int n = l->policy.lockout_count;
    bool locks = count_up(l, &l->pairs, pair, n, now);
    return count_up(l, &l->ids, identity, n * LOCKOUT_ID_FACTOR, now) || locks;
}

static json_object *line_of(bool ok, const char *identity, const char *addr, int64_t at)
{
    return json_make("t:i ok:b id:s addr:s", at, ok, identity, addr);
}

static int64_t keep_ms(const struct lockout *l)
{
    return 2 * l->policy.lockout_ttl_ms + LOCKOUT_RATE_MS;
}

static void replay(json_object *line, void *arg)
{
    struct lockout *l = arg;
    int64_t t = json_int(line, "t", 0);

    if (t <= l->now && t + keep_ms(l) > l->now)
        note(l, json_flag(line, "ok", false), json_str(line, "id", ""), json_str(line, "addr", ""),
             t);
}

/* The journal holds what would rebuild the present counts. */
static void compact(struct lockout *l, int64_t now)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);
    void *v;

    for (size_t i = 0; map_each(&l->pairs, &i, NULL, &v);) {
        struct count *c = v;
        char *addr = strchr(c->key, '\n');

        if (c->last + keep_ms(l) <= now)
            continue;
        cleanup(freep) char *id = xstrndup(c->key, (size_t)(addr - c->key));
        cleanup(json_putp) json_object *o = line_of(false, id, addr + 1, c->last);
        for (int n = 0; n < c->fails; n++) {
            buf_adds(&b, json_text(o));
            buf_addc(&b, '\n');
        }
    }
    journal_replace(l->journal, b.data ? b.data : "", b.len);
    buf_done(&b);
}

struct lockout *lockout_new(const char *path, const struct login_policy *p, int64_t now)
{
    struct lockout *l = xcalloc(1, sizeof(*l));

    l->policy = *p;
    map_init(&l->pairs);
    map_init(&l->ids);
    map_init(&l->rates);
    l->now = now;
    if (path) {
        l->journal = journal_open(path, replay, l);
        compact(l, now);
    }
    return l;
}

void lockout_policy(struct lockout *l, const struct login_policy *p)
{
    l->policy = *p;
}

void lockout_free(struct lockout *l)
{
    if (!l)
        return;
    table_free(&l->pairs, count_free);
    table_free(&l->ids, count_free);
    table_free(&l->rates, rate_free);
    journal_close(l->journal);
    free(l);
}

int64_t lockout_wait(struct lockout *l, const char *identity, const char *addr, bool has_password,
                     bool admin, int64_t now)
{
    cleanup(freep) char *pair = pair_key(identity, addr);
    const struct count *c = map_get(&l->pairs, pair), *id = map_get(&l->ids, identity);
    const struct rate *r = map_get(&l->rates, addr);
    int64_t until = c ? c->until : 0;

    if (id && has_password && !admin && id->until > until)
        until = id->until;
    /* the n-th last failure of this address leaves the minute */
    int n = l->policy.lockout_count;
    if (r && r->n >= n && r->at[r->n - n] + LOCKOUT_RATE_MS > until)
        until = r->at[r->n - n] + LOCKOUT_RATE_MS;
    return until > now ? until - now : 0;
}

static void record(struct lockout *l, bool ok, const char *identity, const char *addr, int64_t now)
{
    if (!l->journal)
        return;
    journal_add(l->journal, line_of(ok, identity, addr, now));
    if (journal_grown(l->journal) > JOURNAL_GROW)
        compact(l, now);
}

bool lockout_failed(struct lockout *l, const char *identity, const char *addr, int64_t now)
{
    bool locks = note(l, false, identity, addr, now);

    record(l, false, identity, addr, now);
    return locks;
}

void lockout_succeeded(struct lockout *l, const char *identity, const char *addr, int64_t now)
{
    cleanup(freep) char *pair = pair_key(identity, addr);

    if (!map_get(&l->pairs, pair) && !map_get(&l->ids, identity))
        return;
    note(l, true, identity, addr, now);
    record(l, true, identity, addr, now);
}

static size_t locked_in(const struct map *m, int64_t now)
{
    size_t n = 0;
    void *v;

    for (size_t i = 0; map_each(m, &i, NULL, &v);)
        n += ((struct count *)v)->until > now;
    return n;
}

size_t lockout_locked(const struct lockout *l, int64_t now)
{
    return locked_in(&l->pairs, now) + locked_in(&l->ids, now);
}
