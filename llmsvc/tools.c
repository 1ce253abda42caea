/* The tools of llmsvc, and the small ones among them. */
#include "common/base/clock.h"
#include "llmsvc/builtin.h"
#include "llmsvc/core.h"
#include "llmsvc/service.h"

#define CALL_S 600
#define IDLE_S 310

static void complete(struct call *c, const struct caller *w)
{
    call_begin(c, w, false);
}

static void stream_complete(struct call *c, const struct caller *w)
{
    call_begin(c, w, true);
}

static json_object *strings(json_object *borrowed, const char *first)
{
    json_object *o = borrowed ? json_object_get(borrowed) : json_new_arr();

    if (!borrowed)
        json_push_str(o, first);
    return o;
}

static json_object *model_row(const struct prov_conf *p, const struct model_conf *m)
{
    json_object *o =
        json_make("id:s provider:s modality:s tier:s priced:b description:s", m->id, p->name,
                  modality_names[m->modality], m->tier, (int)m->priced, m->description);

    json_add(o, "context_window",
             m->context_window ? json_object_new_int64(m->context_window) : NULL);
    json_add(o, "max_output", m->max_output ? json_object_new_int64(m->max_output) : NULL);
    json_add(o, "input", strings(m->input, "text"));
    json_add(o, "capabilities",
             m->capabilities ? json_object_get(m->capabilities) : json_new_arr());
    if (!m->capabilities &&
        (p->kind == KIND_BUILTIN ? m->modality == MOD_TEXT : m->modality == MOD_TEXT))
        json_push_str(json_get(o, "capabilities"), "tool_use");
    return o;
}

json_object *models_rows(const char *modality, const char *provider)
{
    const struct llm_conf *c = core.gen->conf;
    json_object *out = json_new_arr();
    int want = *modality ? modality_parse(modality) : -1;

    for (size_t i = 0; i < c->n_provs; i++) {
        const struct prov_conf *p = &c->provs[i];

        if (*provider && !str_eq(provider, p->name))
            continue;
        for (size_t k = 0; k < p->n_models; k++)
            if (want < 0 || p->models[k].modality == (enum modality)want)
                json_push(out, model_row(p, &p->models[k]));
    }
    return out;
}

/* The entry that a call with this model would get. */
static void one_model(struct call *c, const char *modality, const char *provider, const char *model)
{
    struct route r;
    char msg[256] = "";
    int m = *modality ? modality_parse(modality) : MOD_TEXT;
    struct route_ask q = { .provider = provider,
                           .model = model,
                           .modality = m < 0 ? MOD_TEXT : (enum modality)m };
    int e = route_pick(core.gen->conf, &q, NULL, NULL, &r, msg);

    if (e) {
        call_fail_data(c, e, json_make("provider:s attempts:i", provider, (int64_t)0), "%s", msg);
        return;
    }
    const struct prov_conf *p = &core.gen->conf->provs[r.c[0].prov];
    const struct model_conf *known = conf_model(p, r.c[0].model);
    struct model_conf unknown = { .modality = q.modality, .tier = "standard" };
    json_object *list = json_new_arr();
    str_copy(unknown.id, sizeof unknown.id, r.c[0].model);
    json_push(list, model_row(p, known ? known : &unknown));
    call_reply(c, json_make("models:o", list));
}

static void models(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *modality = args_str_or(&a, "modality", 32, ""),
               *provider = args_str_or(&a, "provider", 63, ""),
               *model = args_str_or(&a, "model", 191, NULL);

    (void)w;
    if (!args_bad(&a) && *modality && modality_parse(modality) < 0)
        args_fail(&a, "modality", "unknown modality");
    if (args_bad(&a))
        call_bad_args(c, &a);
    else if (model)
        one_model(c, modality, provider, model);
    else
        call_reply(c, json_make("models:o", models_rows(modality, provider)));
}

static const char *breaker_word(const struct prov *p, int64_t now)
{
    if (!p->breaker.open_until)
        return "closed";
    return now < p->breaker.open_until ? "open" : "half-open";
}

static json_object *status_row(size_t i, bool detail)
{
    const struct prov_conf *p = &core.gen->conf->provs[i];
    const struct prov *s = core.gen->provs[i];
    json_object *mods = json_new_arr(), *ids = json_new_arr();
    int64_t now = mono_ms(), requests = 0, tokens = 0;

    for (int m = 0; m < MOD_COUNT; m++)
        if (p->modalities & 1U << m)
            json_push_str(mods, modality_names[m]);
    for (size_t k = 0; k < p->n_models; k++)
        json_push_str(ids, p->models[k].id);
    json_object *o = json_make("name:s kind:s status:s modalities:o models:o auth_type:s breaker:s",
                               p->name, kind_names[p->kind], prov_status(s, p, now), mods, ids,
                               auth_names[p->auth.type], breaker_word(s, now));
    json_add_str(o, "last_error",
                 *s->last_error     ? s->last_error
                 : s->no_credential ? "no credential"
                                    : NULL);
    if (!detail)
        return o;
    prov_window(s, now, &requests, &tokens);
    json_add(o, "latency_ms", s->latency_ms < 0 ? NULL : json_object_new_int64(s->latency_ms));
    json_add(o, "window", json_make("requests:i tokens:i", requests, tokens));
    json_add_int(o, "queue", (int64_t)queue_waiting(s->queue));
    json_add_int(o, "in_flight", queue_in_flight(s->queue));
    json_add(o, "token_expires_at", NULL);
    return o;
}

json_object *status_rows(const char *name, bool detail)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < core.gen->conf->n_provs; i++)
        if (!name || str_eq(name, core.gen->conf->provs[i].name))
            json_push(out, status_row(i, detail));
    return out;
}

static json_object *defaults(void)
{
    const struct llm_conf *c = core.gen->conf;
    json_object *o = json_new();

    for (int m = 0; m < MOD_COUNT; m++)
        if (c->default_prov[m] >= 0)
            json_add_str(o, modality_names[m], c->provs[c->default_prov[m]].name);
    return o;
}

static void providers(struct call *c, const struct caller *w)
{
    (void)w;
    call_reply(c,
               json_make("providers:o default_providers:o", status_rows(NULL, false), defaults()));
}

static void status(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *name = args_str_or(&a, "provider", 63, NULL);

    (void)w;
    if (args_bad(&a))
        call_bad_args(c, &a);
    else if (name && !conf_prov(core.gen->conf, name))
        call_fail(c, ERR_PROVNOTFOUND, "no provider \"%s\" in llm.yaml", name);
    else
        call_reply(
            c, json_make("providers:o default_providers:o", status_rows(name, true), defaults()));
}

static void usage(struct call *c, const struct caller *w)
{
    static const char *const scopes[] = { "session", "user", "total", NULL };
    struct args a = args_open(c->params);
    int scope = args_enum_or(&a, "scope", scopes, 1);
    char user[80], at[RFC3339_LEN];

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    bool all = scope == 2;
    if (all && w->role < ROLE_OPERATOR && w->kind != CALLER_SERVICE) {
        call_fail(c, ERR_PERM, "llm/usage: the total is for an operator");
        return;
    }
    if (*w->user)
        str_copy(user, sizeof user, w->user);
    else
        snprintf(user, sizeof user, "service:%s", w->service);
    json_object *o = usage_report(all ? NULL : user);
    json_add_str(o, "since", rfc3339(core.since, at));
    call_reply(c, o);
}

static void metrics(struct call *c, const struct caller *w)
{
    cleanup(buf_done) struct buf b = BUF_INIT(1024 * 1024);

    (void)w;
    buf_adds(&b, "# TYPE avix_llm_requests_total counter\n# TYPE avix_llm_errors_total counter\n"
                 "# TYPE avix_llm_tokens_total counter\n# TYPE avix_llm_in_flight gauge\n");
    for (size_t i = 0; i < core.gen->conf->n_provs; i++) {
        const struct prov *p = core.gen->provs[i];

        buf_printf(&b, "avix_llm_requests_total{provider=\"%s\"} %lld\n", p->name,
                   (long long)p->total.requests);
        buf_printf(&b, "avix_llm_errors_total{provider=\"%s\"} %lld\n", p->name,
                   (long long)p->total.errors);
        buf_printf(&b, "avix_llm_tokens_total{provider=\"%s\",direction=\"in\"} %lld\n", p->name,
                   (long long)p->total.in);
        buf_printf(&b, "avix_llm_tokens_total{provider=\"%s\",direction=\"out\"} %lld\n", p->name,
                   (long long)p->total.out);
        buf_printf(&b, "avix_llm_in_flight{provider=\"%s\"} %lld\n", p->name,
                   (long long)queue_in_flight(p->queue));
    }
    call_reply(c, json_make("text:s", b.data));
}

/* Embeddings by the builtin hash; other providers' come with their modality. */
static void embed(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    json_object *in = args_any_or(&a, "input");
    const char *provider = args_str_or(&a, "provider", 63, ""),
               *model = args_str_or(&a, "model", 191, "");
    struct route r;
    char msg[256] = "";
    int64_t t0 = mono_ms(), bytes = 0;

    (void)w;
    if (!args_bad(&a) && !json_object_is_type(in, json_type_string) &&
        !json_object_is_type(in, json_type_array))
        args_fail(&a, "input", "must be a string or a list of strings");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    struct route_ask q = { .provider = provider, .model = model, .modality = MOD_EMBEDDING };
    int e = route_pick(core.gen->conf, &q, NULL, NULL, &r, msg);
    const struct prov_conf *p = e ? NULL : &core.gen->conf->provs[r.c[0].prov];
    if (!e && p->kind != KIND_BUILTIN) {
        e = ERR_MODALITY;
        snprintf(msg, sizeof msg, "provider %s: embeddings are served by builtin/hash-256",
                 p->name);
    }
    if (e) {
        call_fail_data(c, e, json_make("provider:s attempts:i", provider, (int64_t)0), "%s", msg);
        return;
    }
    json_object *out = json_new_arr();
    size_t n = json_object_is_type(in, json_type_array) ? json_object_array_length(in) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *s = json_object_get_string(
            json_object_is_type(in, json_type_array) ? json_object_array_get_idx(in, i) : in);

        bytes += (int64_t)(s ? strlen(s) : 0);
        json_push(out, builtin_embed(s ? s : ""));
    }
    call_reply(c, json_make("provider:s model:s embeddings:o dimensions:i usage:o latency_ms:i",
                            p->name, r.c[0].model, out, (int64_t)EMBED_DIM,
                            json_make("input_tokens:i", (bytes + 3) / 4), mono_ms() - t0));
}

#define COMPLETE_IN                                                                                                \
    "{\"messages\":{\"type\":\"array\",\"required\":true,\"desc\":\"conversation: [{role, content}]\"},"           \
    "\"model\":{\"type\":\"string\",\"desc\":\"model id, or provider/model\"},\"provider\":{\"type\":\"string\"}," \
    "\"system\":{\"type\":\"string\"},\"tools\":{\"type\":\"array\"},\"max_tokens\":{\"type\":\"int\"},"           \
    "\"temperature\":{\"type\":\"float\"},\"top_p\":{\"type\":\"float\"},\"turn_id\":{\"type\":\"string\"},"       \
    "\"timeout_ms\":{\"type\":\"int\"},\"allow_fallback\":{\"type\":\"bool\"}}"

const struct method llm_methods[LLM_METHODS] = {
    { .name = "llm/complete",
      .timeout_s = CALL_S,
      .desc = "One answer of a language model.",
      .input = COMPLETE_IN,
      .fn = complete },
    { .name = "llm/stream_complete",
      .flags = M_STREAM,
      .timeout_s = CALL_S,
      .stream_idle_s = IDLE_S,
      .desc = "One answer of a language model, streamed.",
      .input = COMPLETE_IN,
      .fn = stream_complete },
    { .name = "llm/embed",
      .flags = M_READONLY | M_IDEMPOTENT,
      .timeout_s = CALL_S,
      .desc = "Vectors of texts.",
      .input =
          "{\"input\":{\"required\":true,\"desc\":\"a text, or a list of texts\"},\"model\":{\"type\":\"string\"},"
          "\"provider\":{\"type\":\"string\"}}",
      .fn = embed },
    { .name = "llm/providers",
      .flags = M_READONLY | M_BLOCKING,

      .desc = "Configured model providers.",
      .fn = providers },
    { .name = "llm/status",
      .flags = M_READONLY | M_BLOCKING,

      .desc = "State of the model providers.",
      .input = "{\"provider\":{\"type\":\"string\"}}",
      .fn = status },
    { .name = "llm/models",
      .flags = M_READONLY | M_BLOCKING,

      .desc = "Models that can be called.",
      .input =
          "{\"modality\":{\"type\":\"string\"},\"provider\":{\"type\":\"string\"},\"model\":{\"type\":\"string\"}}",
      .fn = models },
    { .name = "llm/usage",
      .flags = M_READONLY | M_BLOCKING,

      .desc = "Tokens and cost since the service started.",
      .input = "{\"scope\":{\"type\":\"string\",\"enum\":[\"session\",\"user\",\"total\"]}}",
      .fn = usage },
    { .name = "llm/view",
      .flags = M_READONLY | M_BLOCKING | M_INTERNAL,
      .desc = "Content of /proc/services/llm.",
      .fn = llm_view },
    { .name = "llm/metrics",
      .flags = M_READONLY | M_BLOCKING | M_INTERNAL,
      .desc = "Counters as text.",
      .fn = metrics },
};
