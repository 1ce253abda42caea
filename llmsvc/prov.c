/* Provider state. Times are monotonic milliseconds, given by the caller so that tests can move
 * them. */
#include "llmsvc/prov.h"

#include "common/base/log.h"
#include "llmsvc/queue.h"

#define SLOT_MS        10000
#define BREAK_IN_ROW   5
#define BREAK_MIN      20
#define BREAK_FIRST_MS 15000
#define BREAK_MAX_MS   300000

static void prov_unref(struct prov *p)
{
    if (!p || --p->refs > 0)
        return;
    free(p->source);
    secret_unref(p->header);
    json_put(p->discovered);
    queue_free(p->queue);
    free(p);
}

static void set_header(struct prov *p, const struct prov_conf *c, const struct creds *creds)
{
    const char *key = NULL;

    secret_unref(p->header);
    p->header = NULL;
    p->no_credential = false;
    if (c->auth.type == AUTH_NONE || c->kind >= KIND_BUILTIN)
        return;
    key = creds_get(creds, c->auth.secret);
    if (!key) {
        p->no_credential = true;
        return;
    }
    size_t size = strlen(key) + sizeof c->auth.header + sizeof c->auth.prefix + 8;
    p->header = secret_new(size, NULL);
    snprintf(p->header->text, size, "%s: %s%s", c->auth.header, c->auth.prefix, key);
}

static struct prov *prov_for(const struct prov_conf *c, const struct gen *old)
{
    for (size_t i = 0; old && i < old->conf->n_provs; i++) {
        struct prov *p = old->provs[i];

        if (str_eq(p->name, c->name) && str_eq(p->source, c->source)) {
            p->refs++;
            return p;
        }
    }
    struct prov *p = xcalloc(1, sizeof *p);
    p->refs = 1;
    p->latency_ms = -1;
    str_copy(p->name, sizeof p->name, c->name);
    p->source = xstrdup(c->source);
    return p;
}

struct gen *gen_new(struct llm_conf *conf, struct creds *creds, const struct gen *old)
{
    struct gen *g = xcalloc(1, sizeof *g);

    g->refs = 1;
    g->conf = conf;
    g->creds = creds;
    for (size_t i = 0; i < conf->n_provs; i++) {
        g->provs[i] = prov_for(&conf->provs[i], old);
        set_header(g->provs[i], &conf->provs[i], creds);
    }
    return g;
}

struct gen *gen_ref(struct gen *g)
{
    g->refs++;
    return g;
}

void gen_unref(struct gen *g)
{
    if (!g || --g->refs > 0)
        return;
    for (size_t i = 0; i < g->conf->n_provs; i++)
        prov_unref(g->provs[i]);
    creds_free(g->creds);
    llm_conf_unref(g->conf);
    free(g);
}

void gen_set_creds(struct gen *g, struct creds *creds)
{
    for (size_t i = 0; i < g->conf->n_provs; i++)
        set_header(g->provs[i], &g->conf->provs[i], creds);
    creds_free(g->creds);
    g->creds = creds;
}

bool breaker_open(const struct prov *p, int64_t now)
{
    return p->breaker.open_until && (now < p->breaker.open_until || p->breaker.probing);
}

bool breaker_try(struct prov *p, int64_t now)
{
    if (breaker_open(p, now))
        return false;
    p->breaker.probing = p->breaker.open_until != 0;
    return true;
}

static void window_add(struct breaker *b, int64_t now, bool fail)
{
    int64_t slot = now / SLOT_MS;
    size_t i = (size_t)(slot % WINDOW_SLOTS);

    if (b->win[i].slot != slot) {
        b->win[i].slot = slot;
        b->win[i].calls = b->win[i].fails = 0;
    }
    b->win[i].calls++;
    b->win[i].fails += fail;
}

static bool window_bad(const struct breaker *b, int64_t now)
{
    int calls = 0, fails = 0;

    for (size_t i = 0; i < WINDOW_SLOTS; i++)
        if (b->win[i].slot > now / SLOT_MS - WINDOW_SLOTS) {
            calls += b->win[i].calls;
            fails += b->win[i].fails;
        }
    return calls >= BREAK_MIN && fails * 2 >= calls;
}

static void breaker_result(struct breaker *b, int64_t now, bool fail)
{
    bool probe = b->probing;

    b->probing = false;
    window_add(b, now, fail);
    if (!fail) {
        b->in_row = 0;
        b->open_until = b->open_ms = 0;
        return;
    }
    b->in_row++;
    if (!probe && b->in_row < BREAK_IN_ROW && !window_bad(b, now))
        return;
    b->open_ms = b->open_ms ? b->open_ms * 2 : BREAK_FIRST_MS;
    if (b->open_ms > BREAK_MAX_MS)
        b->open_ms = BREAK_MAX_MS;
    b->open_until = now + b->open_ms;
}

void prov_result(struct prov *p, const struct fault *f, int64_t now, int64_t latency_ms)
{
    bool fail = f && (f->err == ERR_PROVTIMEOUT || f->err == ERR_PROVDOWN);

    breaker_result(&p->breaker, now, fail);
    if (!f) {
        p->failing = false;
        p->last_error[0] = '\0';
        p->last_err = 0;
        p->latency_ms = latency_ms;
        return;
    }
    p->failing =
        fail || f->err == ERR_PROVAUTH || f->err == ERR_PROVPROTO || f->err == ERR_PROVRATE;
    p->last_err = f->err;
    str_copy(p->last_error, sizeof p->last_error, f->message);
}

void prov_count(struct prov *p, int64_t now, int64_t tokens_in, int64_t tokens_out, bool error)
{
    int64_t slot = now / SLOT_MS;
    size_t i = (size_t)(slot % WINDOW_SLOTS);

    if (p->minute[i].slot != slot) {
        p->minute[i].slot = slot;
        p->minute[i].requests = p->minute[i].tokens = 0;
    }
    p->minute[i].requests++;
    p->minute[i].tokens += tokens_in + tokens_out;
    p->total.requests++;
    p->total.errors += error;
    p->total.in += tokens_in;
    p->total.out += tokens_out;
}

void prov_window(const struct prov *p, int64_t now, int64_t *requests, int64_t *tokens)
{
    *requests = *tokens = 0;
    for (size_t i = 0; i < WINDOW_SLOTS; i++)
        if (p->minute[i].slot > now / SLOT_MS - WINDOW_SLOTS) {
            *requests += p->minute[i].requests;
            *tokens += p->minute[i].tokens;
        }
}

unsigned prov_dropped(const struct prov *p, const char *model)
{
    for (size_t i = 0; i < p->n_neg; i++)
        if (str_eq(p->neg[i].model, model))
            return p->neg[i].drop;
    return 0;
}

void prov_drop(struct prov *p, const char *model, unsigned bit)
{
    for (size_t i = 0; i < p->n_neg; i++)
        if (str_eq(p->neg[i].model, model)) {
            p->neg[i].drop |= bit;
            return;
        }
    if (p->n_neg == NEG_MAX)
        return;
    str_copy(p->neg[p->n_neg].model, sizeof p->neg[0].model, model);
    p->neg[p->n_neg++].drop = bit;
}

const char *prov_status(const struct prov *p, const struct prov_conf *c, int64_t now)
{
    if (!c->enabled || p->no_credential || breaker_open(p, now) || p->last_err == ERR_PROVAUTH)
        return "unavailable";
    return p->failing || p->breaker.open_until ? "degraded" : "available";
}
