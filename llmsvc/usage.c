/* Counters by user, provider and model; nothing is ever taken out, the number of rows is bounded.
 */
#include "llmsvc/usage.h"

#define ROWS_MAX 20000

struct row {
    char user[80], provider[64], model[192], modality[16];
    int64_t in, out, requests, errors, cost_micro;
    bool unpriced;
};
static struct row *rows;
static size_t n_rows, cap;

static struct row *row_for(const struct usage_row *r)
{
    for (size_t i = 0; i < n_rows; i++) {
        struct row *w = &rows[i];

        if (str_eq(w->user, r->username) && str_eq(w->provider, r->provider) &&
            str_eq(w->model, r->model) && str_eq(w->modality, r->modality))
            return w;
    }
    if (n_rows == ROWS_MAX)
        return NULL;
    if (n_rows == cap) {
        cap = cap ? cap * 2 : 32;
        rows = xrealloc(rows, cap * sizeof *rows);
    }
    struct row *w = &rows[n_rows++];
    memset(w, 0, sizeof *w);
    str_copy(w->user, sizeof w->user, r->username);
    str_copy(w->provider, sizeof w->provider, r->provider);
    str_copy(w->model, sizeof w->model, r->model);
    str_copy(w->modality, sizeof w->modality, r->modality);
    return w;
}

void usage_count(const struct usage_row *r, bool error)
{
    struct row *w = row_for(r);

    if (!w)
        return;
    w->requests++;
    w->errors += error;
    w->in += r->in;
    w->out += r->out;
    if (r->cost_micro >= 0)
        w->cost_micro += r->cost_micro;
    else
        w->unpriced = true;
}

void usage_fini(void)
{
    free(rows);
    rows = NULL;
    n_rows = cap = 0;
}

static json_object *sub(json_object *o, const char *key)
{
    json_object *s = json_obj(o, key);

    if (!s) {
        s = json_new();
        json_add(o, key, s);
    }
    return s;
}

static void add(json_object *o, const char *key, int64_t v)
{
    json_add_int(o, key, json_int(o, key, 0) + v);
}

static void add_counts(json_object *o, const struct row *w)
{
    add(o, "input_tokens", w->in);
    add(o, "output_tokens", w->out);
    add(o, "requests", w->requests);
    add(o, "errors", w->errors);
}

json_object *usage_report(const char *user)
{
    json_object *prov = json_new(), *model = json_new();
    int64_t micro = 0;

    for (size_t i = 0; i < n_rows; i++) {
        const struct row *w = &rows[i];

        if (user && !str_eq(w->user, user))
            continue;
        add_counts(sub(sub(prov, w->provider), w->modality), w);
        add_counts(sub(model, w->model), w);
        micro += w->cost_micro;
    }
    return json_make("by_provider:o by_model:o cost_usd:d", prov, model, (double)micro / 1e6);
}
