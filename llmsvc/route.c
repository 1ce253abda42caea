/*
 * Routing: alias, then "provider/model", then the one provider that lists the model, then the
 * default of the modality; fallbacks follow the default only.
 */
#include "llmsvc/route.h"

#include "common/base/err.h"

static bool lists(const struct prov_conf *p, const char *id, enum modality m)
{
    const struct model_conf *e = conf_model(p, id);
    return e && e->modality == m;
}

/* Splits "<provider>/<id>" unless some provider lists the whole text. */
static void split(const struct llm_conf *c, char provider[64], char model[192])
{
    const char *slash = strchr(model, '/');
    char name[64];

    if (*provider || !slash || (size_t)(slash - model) >= sizeof name)
        return;
    for (size_t i = 0; i < c->n_provs; i++)
        if (conf_model(&c->provs[i], model))
            return;
    snprintf(name, sizeof name, "%.*s", (int)(slash - model), model);
    if (!conf_prov(c, name))
        return;
    str_copy(provider, 64, name);
    memmove(model, slash + 1, strlen(slash + 1) + 1);
}

static int push(struct route *r, const struct llm_conf *c, const struct prov_conf *p,
                const char *model, enum modality m)
{
    struct cand *k = &r->c[r->n];
    const char *id = *model ? model : conf_default_model(p, m);

    if (!id)
        return ERR_MODEL;
    k->prov = (size_t)(p - c->provs);
    str_copy(k->model, sizeof k->model, id);
    r->n++;
    return 0;
}

static int named(const struct llm_conf *c, const struct route_ask *q, const char *provider,
                 const char *model, struct route *r, char msg[256])
{
    const struct prov_conf *p = conf_prov(c, provider);

    if (!p) {
        snprintf(msg, 256, "no provider \"%.60s\" in llm.yaml", provider);
        return ERR_PROVNOTFOUND;
    }
    if (!(p->modalities & 1U << q->modality)) {
        snprintf(msg, 256, "provider %.60s has no %s models", p->name, modality_names[q->modality]);
        return ERR_MODALITY;
    }
    if (c->scoped && !q->may_choose && c->default_prov[q->modality] != (int)(p - c->provs)) {
        snprintf(msg, 256, "provider %.60s needs the grant llm/provider/%.60s", p->name, p->name);
        return ERR_PROVPERM;
    }
    if (*model && p->n_models && !lists(p, model, q->modality) && !p->discover) {
        snprintf(msg, 256, "provider %.60s does not list the model \"%.100s\"", p->name, model);
        return ERR_MODEL;
    }
    if (push(r, c, p, model, q->modality)) {
        snprintf(msg, 256, "provider %.60s lists no %s model and the request names none", p->name,
                 modality_names[q->modality]);
        return ERR_MODEL;
    }
    return 0;
}

/* The only enabled provider that lists the model, NULL for none or several. */
static const struct prov_conf *only_lister(const struct llm_conf *c, const char *model,
                                           enum modality m, bool *any)
{
    const struct prov_conf *found = NULL;

    *any = false;
    for (size_t i = 0; i < c->n_provs; i++) {
        const struct prov_conf *p = &c->provs[i];

        if (!lists(p, model, m))
            continue;
        if (*any)
            return NULL;
        *any = true;
        found = p;
    }
    return found;
}

static void add_fallbacks(const struct llm_conf *c, enum modality m, struct route *r)
{
    for (size_t i = 0; i < c->n_fallback[m]; i++) {
        const struct fallback_conf *f = &c->fallback[m][i];
        const struct prov_conf *p = conf_prov(c, f->provider);

        if (p && !(p - c->provs == (ptrdiff_t)r->c[0].prov && !*f->model))
            (void)push(r, c, p, f->model, m);
    }
}

/* Leaves out who is down, but keeps the first if all are. */
static void only_up(struct route *r, route_up_fn up, void *arg)
{
    struct route out = { .named = r->named, .first = r->first };

    for (size_t i = 0; i < r->n; i++)
        if (up(r->c[i].prov, arg))
            out.c[out.n++] = r->c[i];
    if (out.n)
        *r = out;
    else if (r->n)
        r->n = 1;
}

int route_pick(const struct llm_conf *c, const struct route_ask *q, route_up_fn up, void *arg,
               struct route *r, char msg[256])
{
    char provider[64], model[192];
    const struct prov_conf *p = NULL;
    bool any = false;
    int e = 0;

    memset(r, 0, sizeof *r);
    str_copy(provider, sizeof provider, q->provider);
    str_copy(model, sizeof model, json_str(c->aliases, q->model, q->model));
    split(c, provider, model);
    if (c->force_default && q->modality == MOD_TEXT)
        str_copy(provider, sizeof provider, c->provs[c->default_prov[MOD_TEXT]].name);
    r->named = *provider != '\0';
    if (r->named) {
        if ((e = named(c, q, provider, model, r, msg)))
            return e;
        if (q->allow_fallback)
            add_fallbacks(c, q->modality, r);
    } else if (*model && (p = only_lister(c, model, q->modality, &any))) {
        (void)push(r, c, p, model, q->modality);
        add_fallbacks(c, q->modality, r);
    } else {
        int d = c->default_prov[q->modality];

        if (d < 0) {
            snprintf(msg, 256, "no provider for %s is configured", modality_names[q->modality]);
            return ERR_NOPROVIDER;
        }
        p = &c->provs[d];
        if (*model && p->n_models && !lists(p, model, q->modality) && !p->discover) {
            snprintf(msg, 256, "no provider lists the model \"%.100s\"", model);
            return ERR_MODEL;
        }
        if (push(r, c, p, model, q->modality)) {
            snprintf(msg, 256, "provider %.60s lists no %s model and the request names none",
                     p->name, modality_names[q->modality]);
            return ERR_MODEL;
        }
        add_fallbacks(c, q->modality, r);
    }
    r->first = r->c[0].prov;
    if (up)
        only_up(r, up, arg);
    return 0;
}
