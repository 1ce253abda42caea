/* Lines of the journal are {"add": claims} and {"del": id}. */
#include "authsvc/captokens.h"

#include "common/base/clock.h"

#define GROW ((size_t)4 * 1024 * 1024)

struct cap_tokens {
    struct map by_id;
    struct journal *journal;
    size_t sweep_at; /* sweep when so many are there */
};

static void token_free(struct cap_token *x)
{
    json_put(x->claims);
    free(x);
}

static struct cap_token *put(struct cap_tokens *t, json_object *claims)
{
    struct cap_token *x = xcalloc(1, sizeof(*x));

    x->claims = claims;
    x->id = json_str(claims, "tokenId", "");
    x->user = json_str(claims, "sub", "");
    x->pid = json_int(claims, "pid", 0);
    if (!rfc3339_parse(json_str(claims, "expiresAt", ""), &x->expires_at))
        x->expires_at = 0;
    struct cap_token *old = map_put(&t->by_id, x->id, x);
    if (old)
        token_free(old);
    return x;
}

static void forget(struct cap_tokens *t, const char *id)
{
    struct cap_token *x = map_del(&t->by_id, id);

    if (x)
        token_free(x);
}

static void replay(json_object *line, void *arg)
{
    json_object *claims = json_obj(line, "add");

    if (claims)
        put(arg, json_object_get(claims));
    else
        forget(arg, json_str(line, "del", ""));
}

static void sweep(struct cap_tokens *t, int64_t now)
{
    void *v;

    for (size_t i = 0; map_each(&t->by_id, &i, NULL, &v);)
        if (((struct cap_token *)v)->expires_at + CAP_RENEW_LATE_MS <= now)
            forget(t, ((struct cap_token *)v)->id);
    t->sweep_at = t->by_id.n * 2 + 1024;
}

static void compact(struct cap_tokens *t, int64_t now)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);
    const struct cap_token *x;

    sweep(t, now);
    for (size_t i = 0; (x = cap_tokens_each(t, &i));)
        buf_printf(&b, "{\"add\":%s}\n", json_text(x->claims));
    journal_replace(t->journal, b.data ? b.data : "", b.len);
    buf_done(&b);
}

struct cap_tokens *cap_tokens_new(const char *path, int64_t now)
{
    struct cap_tokens *t = xcalloc(1, sizeof(*t));

    map_init(&t->by_id);
    t->sweep_at = 1024;
    if (path) {
        t->journal = journal_open(path, replay, t);
        compact(t, now);
    }
    return t;
}

void cap_tokens_free(struct cap_tokens *t)
{
    void *v;

    if (!t)
        return;
    for (size_t i = 0; map_each(&t->by_id, &i, NULL, &v);)
        token_free(v);
    map_done(&t->by_id);
    journal_close(t->journal);
    free(t);
}

struct cap_token *cap_tokens_add(struct cap_tokens *t, json_object *claims, int64_t now)
{
    if (t->by_id.n >= t->sweep_at)
        sweep(t, now);
    if (t->journal) {
        journal_add(t->journal, json_make("add:o", json_object_get(claims)));
        if (journal_grown(t->journal) > GROW)
            compact(t, now);
    }
    return put(t, claims);
}

struct cap_token *cap_tokens_get(const struct cap_tokens *t, const char *id)
{
    return map_get(&t->by_id, id);
}

void cap_tokens_drop(struct cap_tokens *t, const char *id)
{
    if (!map_get(&t->by_id, id))
        return;
    if (t->journal)
        journal_add(t->journal, json_make("del:s", id));
    forget(t, id);
}

struct cap_token *cap_tokens_each(const struct cap_tokens *t, size_t *pos)
{
    void *v;

    return map_each(&t->by_id, pos, NULL, &v) ? v : NULL;
}

size_t cap_tokens_count(const struct cap_tokens *t)
{
    return t->by_id.n;
}
