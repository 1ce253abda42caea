/*
 * Reading etc/llm.yaml. Each section is read with struct args and closed strictly, so an unknown
 * key, a wrong type and a value out of range all end the same way: one line that names the file,
 * the line and the key. Cross checks (defaults, fallbacks, origins) come after all sections.
 */
#include "llmsvc/conf.h"

#include <ctype.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/svc/config.h"

const char *const kind_names[KIND_COUNT] = { "anthropic",  "openai",  "ollama", "stability-ai",
                                             "elevenlabs", "builtin", "replay" };
const char *const modality_names[MOD_COUNT] = { "text", "image", "speech", "transcription",
                                                "embedding" };
const char *const auth_names[3] = { "api_key", "oauth2", "none" };
const char *const param_names[PARAM_COUNT] = { "temperature",      "top_p",      "seed",    "stop",
                                               "reasoning_effort", "max_tokens", "thinking" };

#define M(x) (1U << MOD_##x)
static const struct {
    const char *url, *header;
    unsigned modalities;
    enum auth_type auth;
} kinds[KIND_COUNT] = {
    [KIND_ANTHROPIC] = { "https://api.anthropic.com", "x-api-key", M(TEXT), AUTH_API_KEY },
    [KIND_OPENAI] = { "https://api.openai.com", "Authorization",
                      M(TEXT) | M(IMAGE) | M(SPEECH) | M(TRANSCRIPTION) | M(EMBEDDING),
                      AUTH_API_KEY },
    [KIND_OLLAMA] = { "http://127.0.0.1:11434", "Authorization", M(TEXT) | M(EMBEDDING),
                      AUTH_NONE },
    [KIND_STABILITY] = { "https://api.stability.ai", "Authorization", M(IMAGE), AUTH_API_KEY },
    [KIND_ELEVENLABS] = { "https://api.elevenlabs.io", "xi-api-key", M(SPEECH), AUTH_API_KEY },
    [KIND_BUILTIN] = { "", "", M(TEXT) | M(EMBEDDING), AUTH_NONE },
    [KIND_REPLAY] = { "", "", 0, AUTH_NONE },
};
static const int retry_default[] = { 408, 409, 429, 500, 502, 503, 504, 529 };

struct reader {
    struct llm_conf *c;
    struct yaml_err *e;
};

static int fail(struct reader *r, int line, const char *where, const char *key, const char *why)
{
    r->e->line = line;
    snprintf(r->e->msg, sizeof r->e->msg, "%.70s%s%.40s: %.76s", where, *where && *key ? "." : "",
             key, why);
    return ERR_CONFIG;
}

/* Closes a section: the sticky error of its reader, or a key nobody read. */
static int done(struct reader *r, struct args *a, const char *where)
{
    if (!args_strict(a))
        return 0;
    return fail(r, a->line, where, a->field, a->why);
}

int modality_parse(const char *s)
{
    if (str_eq(s, "vision") || str_eq(s, "document"))
        return MOD_TEXT;
    for (int i = 0; i < MOD_COUNT; i++)
        if (str_eq(s, modality_names[i]))
            return i;
    return -1;
}

static void host_of(const char *url, char out[256])
{
    const char *p = strstr(url, "://");
    size_t n = 0;

    p = p ? p + 3 : url;
    n = strcspn(p, "/?#");
    for (size_t i = 0; i < n; i++)
        if (p[i] == '@') {
            p += i + 1;
            n -= i + 1;
            i = (size_t)-1;
        }
    if (*p == '[') {
        p++;
        n = strcspn(p, "]");
    } else {
        size_t port = strcspn(p, ":");
        n = port < n ? port : n;
    }
    if (n > 255)
        n = 255;
    memcpy(out, p, n);
    out[n] = '\0';
    for (char *q = out; *q; q++)
        *q = (char)tolower((unsigned char)*q);
}

bool url_is_loopback(const char *url)
{
    char h[256];
    host_of(url, h);
    return str_eq(h, "localhost") || str_ends(h, ".localhost") || str_starts(h, "127.") ||
           str_eq(h, "::1");
}

bool url_is_private(const char *url)
{
    char h[256];
    unsigned long a = 0, b = 0;

    if (url_is_loopback(url))
        return true;
    host_of(url, h);
    if (strchr(h, ':'))
        return str_starts(h, "fc") || str_starts(h, "fd") || str_starts(h, "fe8");
    if (h[strspn(h, "0123456789.")] || !strchr(h, '.')) /* a name */
        return !strchr(h, '.') || str_ends(h, ".local") || str_ends(h, ".internal");
    a = strtoul(h, NULL, 10);
    b = strtoul(strchr(h, '.') + 1, NULL, 10);
    return a == 10 || (a == 172 && b >= 16 && b < 32) || (a == 192 && b == 168) ||
           (a == 169 && b == 254) || (a == 100 && b >= 64 && b < 128);
}

static unsigned read_unsupported(struct args *a)
{
    json_object *list = args_strs_or(a, "unsupported", 32);
    unsigned out = 0;

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(list, i));
        unsigned bit = 0;

        for (unsigned k = 0; k < PARAM_COUNT; k++)
            if (str_eq(s, param_names[k]))
                bit = 1U << k;
        if (!bit)
            args_fail(a, "unsupported", "names an unknown parameter");
        out |= bit;
    }
    return out;
}

static int read_pricing(struct reader *r, struct args *a, struct model_conf *m, const char *where)
{
    json_object *o = args_obj_or(a, "pricing");
    struct args p = args_open(o);

    if (!o)
        return 0;
    m->priced = true;
    m->price_in = args_num_or(&p, "inputPerMTok", 0, 1e6, 0);
    m->price_out = args_num_or(&p, "outputPerMTok", 0, 1e6, 0);
    m->price_cache_read = args_num_or(&p, "cacheReadPerMTok", 0, 1e6, m->price_in);
    m->price_cache_write = args_num_or(&p, "cacheWritePerMTok", 0, 1e6, m->price_in);
    (void)args_num_or(&p, "perImage", 0, 1e6, 0);
    (void)args_num_or(&p, "perMChar", 0, 1e6, 0);
    (void)args_num_or(&p, "perMinute", 0, 1e6, 0);
    return done(r, &p, where);
}

static int read_model(struct reader *r, struct prov_conf *p, json_object *o, const char *where)
{
    static const char *const modes[] = { "none", "adaptive", "budget", NULL };
    struct model_conf *m = &p->models[p->n_models];
    struct args a = args_open(json_object_is_type(o, json_type_object) ? o : NULL);

    if (json_object_is_type(o, json_type_string)) { /* an id alone */
        str_copy(m->id, sizeof m->id, json_object_get_string(o));
        m->modality = p->modalities & M(TEXT)
                          ? MOD_TEXT
                          : (enum modality)__builtin_ctz(p->modalities | 1U << MOD_EMBEDDING);
        str_copy(m->tier, sizeof m->tier, "standard");
        p->n_models++;
        return 0;
    }
    str_copy(m->id, sizeof m->id,
             args_str(&a, "id", sizeof m->id - 1) ? json_str(o, "id", "") : "");
    const char *modality = args_str_or(&a, "modality", 32, "text");
    int mod = modality ? modality_parse(modality) : -1;
    if (mod < 0)
        args_fail(&a, "modality", "unknown modality");
    m->modality = mod < 0 ? MOD_TEXT : (enum modality)mod;
    m->context_window = args_int_or(&a, "contextWindow", 1, INT32_MAX, 0);
    m->max_output = args_int_or(&a, "maxOutput", 1, INT32_MAX, 0);
    str_copy(m->tier, sizeof m->tier,
             args_bad(&a) ? "" : args_str_or(&a, "tier", sizeof m->tier - 1, "standard"));
    const char *desc = args_str_or(&a, "description", sizeof m->description - 1, "");
    str_copy(m->description, sizeof m->description, desc ? desc : "");
    m->input = args_strs_or(&a, "input", 32);
    m->capabilities = args_strs_or(&a, "capabilities", 64);
    m->unsupported = read_unsupported(&a);
    m->thinking = (enum thinking_mode)args_enum_or(&a, "thinking", modes, THINK_NONE);
    if (!args_bad(&a) && conf_model(p, m->id))
        args_fail(&a, "id", "listed twice");
    int e = read_pricing(r, &a, m, where);
    p->n_models++;
    return e ? e : done(r, &a, where);
}

static int read_models(struct reader *r, struct args *a, struct prov_conf *p, const char *where)
{
    json_object *list = args_arr_or(a, "models");
    size_t n = list ? json_object_array_length(list) : 0;
    char at[96];
    int e = 0;

    if (n > MODELS_MAX)
        return fail(r, yaml_line(list), where, "models", "too many");
    p->models = xcalloc(n ? n : 1, sizeof *p->models);
    for (size_t i = 0; i < n && !e; i++) {
        snprintf(at, sizeof at, "%.60s.models[%zu]", where, i);
        e = read_model(r, p, json_object_array_get_idx(list, i), at);
    }
    return e;
}

static void copy_arg(char *dst, size_t size, const char *s)
{
    str_copy(dst, size, s ? s : "");
}

static int read_auth(struct reader *r, struct args *a, struct prov_conf *p, const char *where)
{
    static const char *const types[] = { "api_key", "oauth2", "none", NULL };
    json_object *o = args_obj_or(a, "auth"), *cred = args_obj_or(a, "credential");
    struct args s = args_open(o ? o : cred);
    struct auth_conf *c = &p->auth;
    char def[64];

    snprintf(def, sizeof def, "%.50s_API_KEY", p->name);
    for (char *q = def; *q; q++)
        *q = isalnum((unsigned char)*q) ? (char)toupper((unsigned char)*q) : '_';
    c->type = (enum auth_type)args_enum_or(&s, "type", types,
                                           o || cred ? AUTH_API_KEY : (int)kinds[p->kind].auth);
    copy_arg(c->secret, sizeof c->secret,
             args_str_or(&s, cred && !o ? "key_env" : "secretName", sizeof c->secret - 1, def));
    copy_arg(c->header, sizeof c->header,
             args_str_or(&s, "header", sizeof c->header - 1, kinds[p->kind].header));
    const char *prefix = args_str_or(&s, "prefix", sizeof c->prefix - 2, NULL);
    if (!prefix)
        prefix = strcasecmp(c->header, "Authorization") ? "" : "Bearer ";
    copy_arg(c->prefix, sizeof c->prefix, prefix);
    if (str_eq(c->prefix, "Bearer"))
        copy_arg(c->prefix, sizeof c->prefix, "Bearer ");
    copy_arg(c->token_url, sizeof c->token_url,
             args_str_or(&s, "tokenUrl", sizeof c->token_url - 1, ""));
    copy_arg(c->client_id, sizeof c->client_id,
             args_str_or(&s, "clientId", sizeof c->client_id - 1, ""));
    copy_arg(c->client_secret, sizeof c->client_secret,
             args_str_or(&s, "clientSecretName", sizeof c->client_secret - 1, ""));
    json_object *scopes = args_any_or(&s, "scopes");
    if (json_object_is_type(scopes, json_type_string))
        copy_arg(c->scopes, sizeof c->scopes, json_object_get_string(scopes));
    c->refresh_before_min = args_int_or(&s, "refreshBeforeExpiryMin", 0, 1440, 5);
    if (strpbrk(c->header, ": \r\n") || strpbrk(c->prefix, "\r\n"))
        args_fail(&s, "header", "not a header name");
    return done(r, &s, where);
}

static int read_timing(struct reader *r, struct args *a, struct prov_conf *p, const char *where)
{
    struct args t = args_open(args_obj_or(a, "timeout"));
    struct args l = args_open(args_obj_or(a, "limits"));
    struct args y = args_open(args_obj_or(a, "retryPolicy"));
    struct args h = args_open(args_obj_or(a, "healthCheck"));
    const int64_t day = 86400000;

    p->connect_ms = args_int_or(&t, "connectMs", 1, day, 3000);
    p->first_byte_ms =
        args_int_or(&t, "firstByteMs", 1, day, p->kind == KIND_OLLAMA ? 300000 : 60000);
    p->read_ms = args_int_or(&t, "readMs", 1, day, 120000);
    p->total_ms = args_int_or(&t, "totalMs", 1, day, 600000);
    p->rpm = args_int_or(&l, "requestsPerMinute", 0, INT32_MAX, 0);
    p->tpm = args_int_or(&l, "tokensPerMinute", 0, INT32_MAX, 0);
    p->max_concurrent = args_int_or(&l, "maxConcurrent", 0, 100000, 0);
    p->max_attempts = args_int_or(&y, "maxAttempts", 1, 20, 3);
    p->backoff_ms = args_int_or(&y, "backoffMs", 0, 60000, 1000);
    json_object *on = args_arr_or(&y, "retryOn");
    for (size_t i = 0; on && i < json_object_array_length(on); i++) {
        int64_t v = json_object_get_int64(json_object_array_get_idx(on, i));
        if (v < 100 || v > 599 || i >= RETRY_ON_MAX)
            args_fail(&y, "retryOn", "must be a list of HTTP statuses");
        else
            p->retry_on[p->n_retry_on++] = (int)v;
    }
    if (!on) {
        memcpy(p->retry_on, retry_default, sizeof retry_default);
        p->n_retry_on = N_ELEMS(retry_default);
    }
    p->health = args_bool_or(&h, "enabled", p->kind < KIND_BUILTIN);
    p->health_sec = args_int_or(&h, "intervalSec", 1, 86400, 60);
    copy_arg(p->health_endpoint, sizeof p->health_endpoint,
             args_str_or(&h, "endpoint", sizeof p->health_endpoint - 1,
                         p->kind == KIND_OLLAMA ? "/api/tags" : "/v1/models"));
    int e = done(r, &t, where);
    e = e ? e : done(r, &l, where);
    e = e ? e : done(r, &y, where);
    return e ? e : done(r, &h, where);
}

static void read_replay(struct args *a, struct replay_conf *c)
{
    static const char *const modes[] = { "replay", "record", "auto", NULL };
    static const char *const levels[] = { "internal", "wire", NULL };

    c->mode = (enum replay_mode)args_enum_or(a, "mode", modes, REPLAY_REPLAY);
    c->wire = args_enum_or(a, "level", levels, 0) == 1;
    copy_arg(c->cassette, sizeof c->cassette,
             args_str_or(a, "cassette", sizeof c->cassette - 1, ""));
    copy_arg(c->wraps, sizeof c->wraps, args_str_or(a, "wraps", sizeof c->wraps - 1, ""));
    json_object *t = args_any_or(a, "timing");
    if (json_object_is_type(t, json_type_string)) {
        if (str_eq(json_object_get_string(t), "real"))
            c->timing = 1;
        else if (!str_eq(json_object_get_string(t), "none"))
            args_fail(a, "timing", "must be none, real or a factor");
    } else if (t) {
        c->timing = json_object_get_double(t);
    }
    c->normalize = args_arr_or(a, "normalize");
    c->redact = args_strs_or(a, "redact", 64);
    if (!*c->cassette)
        args_fail(a, "cassette", "missing");
}

static int kind_of(struct args *a, const char *name)
{
    const char *k = args_str_or(a, "kind", 32, NULL);

    if (!k) {
        for (int i = 0; i < KIND_COUNT; i++)
            if (str_eq(name, kind_names[i]))
                return i;
        return KIND_OPENAI;
    }
    for (int i = 0; i < KIND_COUNT; i++)
        if (str_eq(k, kind_names[i]))
            return i;
    args_fail(a, "kind",
              "must be one of anthropic openai ollama stability-ai elevenlabs builtin replay");
    return KIND_OPENAI;
}

static void read_modalities(struct args *a, struct prov_conf *p)
{
    json_object *list = args_strs_or(a, "modalities", 32);

    p->modalities = list ? 0 : kinds[p->kind].modalities;
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        int m = modality_parse(json_object_get_string(json_object_array_get_idx(list, i)));

        if (m < 0)
            args_fail(a, "modalities", "unknown modality");
        else
            p->modalities |= 1U << m;
    }
}

static void read_url(struct args *a, struct prov_conf *p)
{
    const char *url = args_str_or(a, "baseUrl", sizeof p->base_url - 1, NULL);
    const char *old = args_str_or(a, "base_url", sizeof p->base_url - 1, NULL);
    const char *key = url ? "baseUrl" : "base_url";

    url = url ? url : old ? old : kinds[p->kind].url;
    p->insecure = args_bool_or(a, "insecure", false);
    copy_arg(p->base_url, sizeof p->base_url, url);
    for (size_t n = strlen(p->base_url); n > 0 && p->base_url[n - 1] == '/'; n--)
        p->base_url[n - 1] = '\0';
    if (p->kind >= KIND_BUILTIN)
        return;
    if (!str_starts(p->base_url, "https://") && !str_starts(p->base_url, "http://"))
        args_fail(a, key, "must be an http or https URL");
    else if (str_starts(p->base_url, "http://") && !p->insecure && !url_is_loopback(p->base_url))
        args_fail(a, key, "plain http needs a loopback host, or insecure: true");
}

/* builtin lists its own two models, so that llm/models and routing see them like any other. */
static void builtin_models(struct prov_conf *p)
{
    static const struct {
        const char *id, *desc;
        enum modality m;
    } rows[] = { { "rules-1", "rules, no neural model", MOD_TEXT },
                 { "hash-256", "hashed words and letters, no neural model", MOD_EMBEDDING } };

    free(p->models);
    p->models = xcalloc(N_ELEMS(rows), sizeof *p->models);
    p->n_models = N_ELEMS(rows);
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct model_conf *m = &p->models[i];

        copy_arg(m->id, sizeof m->id, rows[i].id);
        copy_arg(m->description, sizeof m->description, rows[i].desc);
        copy_arg(m->tier, sizeof m->tier, "standard");
        m->modality = rows[i].m;
        m->context_window = 200000;
        m->max_output = 64000;
        m->priced = true;
    }
}

static int read_provider(struct reader *r, json_object *o, const char *map_name, const char *where)
{
    struct prov_conf *p = &r->c->provs[r->c->n_provs];
    struct args a = args_open(o);

    if (!json_object_is_type(o, json_type_object))
        return fail(r, yaml_line(o), where, "", "must be a map");
    const char *name = map_name ? args_str_or(&a, "name", sizeof p->name - 1, map_name)
                                : args_str(&a, "name", sizeof p->name - 1);
    copy_arg(p->name, sizeof p->name, name);
    if (name && (!*name || strpbrk(name, "/ \t\r\n")))
        args_fail(&a, "name", "must be a word without '/'");
    p->kind = (enum kind)kind_of(&a, p->name);
    p->enabled = args_bool_or(&a, "enabled", true);
    read_modalities(&a, p);
    read_url(&a, p);
    int e = read_auth(r, &a, p, where);
    e = e ? e : read_models(r, &a, p, where);
    e = e ? e : read_timing(r, &a, p, where);
    if (e)
        return e;
    copy_arg(p->default_model, sizeof p->default_model,
             args_str_or(&a, "defaultModel", sizeof p->default_model - 1, ""));
    copy_arg(p->max_tokens_field, sizeof p->max_tokens_field,
             args_str_or(&a, "maxTokensField", sizeof p->max_tokens_field - 1, ""));
    p->discover = args_bool_or(&a, "discover", p->kind == KIND_OLLAMA);
    p->request_tools = args_bool_or(&a, "requestTools", false);
    p->headers = args_obj_or(&a, "headers");
    p->extra_body = args_obj_or(&a, "extraBody");
    if (p->kind == KIND_REPLAY)
        read_replay(&a, &p->replay);
    if (p->kind == KIND_BUILTIN)
        builtin_models(p);
    if (*p->default_model && p->n_models && !conf_model(p, p->default_model))
        args_fail(&a, "defaultModel", "is not in models");
    if (!args_bad(&a) && conf_prov(r->c, p->name))
        args_fail(&a, "name", "two providers have this name");
    if ((e = done(r, &a, where)))
        return e;
    p->source = json_canonical(o);
    r->c->n_provs++;
    return 0;
}

static int read_providers(struct reader *r, json_object *o)
{
    char at[96];
    int e = 0;

    if (json_object_is_type(o, json_type_array)) {
        size_t n = json_object_array_length(o);

        if (n > PROVS_MAX)
            return fail(r, yaml_line(o), "spec", "providers", "too many");
        for (size_t i = 0; i < n && !e; i++) {
            snprintf(at, sizeof at, "spec.providers[%zu]", i);
            e = read_provider(r, json_object_array_get_idx(o, i), NULL, at);
        }
        return e;
    }
    if (!json_object_is_type(o, json_type_object))
        return fail(r, 0, "spec", "providers", "missing");
    if (json_object_object_length(o) > PROVS_MAX)
        return fail(r, yaml_line(o), "spec", "providers", "too many");
    json_object_object_foreach (o, key, value) {
        snprintf(at, sizeof at, "spec.providers.%.40s", key);
        if ((e = read_provider(r, value, key, at)))
            return e;
    }
    return 0;
}

static int read_defaults(struct reader *r, json_object *o)
{
    const char *where = "spec.defaultProviders";

    if (!o)
        return 0;
    json_object_object_foreach (o, key, value) {
        int m = modality_parse(key);
        const char *name = value && json_object_is_type(value, json_type_string)
                               ? json_object_get_string(value)
                               : NULL;

        if (m < 0)
            return fail(r, yaml_line(value), where, key, "unknown modality");
        if (!name)
            return fail(r, yaml_line(value), where, key, "must be the name of a provider");
        const struct prov_conf *p = conf_prov(r->c, name);
        if (!p)
            return fail(r, yaml_line(value), where, key, "names an unknown provider");
        if (!(p->modalities & 1U << m))
            return fail(r, yaml_line(value), where, key, "names a provider without this modality");
        r->c->default_prov[m] = (int)(p - r->c->provs);
    }
    return 0;
}

static int read_fallback(struct reader *r, json_object *o)
{
    const char *where = "spec.fallback";

    if (!o)
        return 0;
    json_object_object_foreach (o, key, list) {
        int m = modality_parse(key);
        size_t n =
            list && json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

        if (m < 0 || (list && !json_object_is_type(list, json_type_array)) || n > FALLBACK_MAX)
            return fail(r, yaml_line(list), where, key,
                        m < 0 ? "unknown modality" : "must be a list of at most 8");
        for (size_t i = 0; i < n; i++) {
            struct fallback_conf *f = &r->c->fallback[m][r->c->n_fallback[m]++];
            const char *s = json_object_get_string(json_object_array_get_idx(list, i));
            const char *slash = s ? strchr(s, '/') : NULL;

            snprintf(f->provider, sizeof f->provider, "%.*s", slash ? (int)(slash - s) : 63,
                     s ? s : "");
            copy_arg(f->model, sizeof f->model, slash ? slash + 1 : "");
            const struct prov_conf *p = conf_prov(r->c, f->provider);
            if (!p)
                return fail(r, yaml_line(json_object_array_get_idx(list, i)), where, key,
                            "names an unknown provider");
            if (!(p->modalities & 1U << m))
                return fail(r, yaml_line(json_object_array_get_idx(list, i)), where, key,
                            "names a provider without this modality");
        }
    }
    return 0;
}

/* A replay provider has the modalities of the one it wraps; without one it serves text. */
static int link_replay(struct reader *r)
{
    for (size_t i = 0; i < r->c->n_provs; i++) {
        struct prov_conf *p = &r->c->provs[i];

        if (p->kind != KIND_REPLAY || p->modalities)
            continue;
        const struct prov_conf *w = *p->replay.wraps ? conf_prov(r->c, p->replay.wraps) : NULL;
        if (*p->replay.wraps && (!w || w->kind == KIND_REPLAY))
            return fail(r, 0, "spec.providers", p->name, "wraps an unknown provider");
        if (!w && p->replay.mode != REPLAY_REPLAY)
            return fail(r, 0, "spec.providers", p->name, "mode record and auto need wraps");
        p->modalities = w ? w->modalities : M(TEXT);
    }
    return 0;
}

static int read_spec(struct reader *r, json_object *spec)
{
    static const char *const choices[] = { "any", "scoped", NULL };
    static const char *const caches[] = { "off", "auto", NULL };
    struct args a = args_open(spec);
    int e = read_providers(r, args_any_or(&a, "providers"));

    e = e ? e : link_replay(r);
    e = e ? e : read_defaults(r, args_obj_or(&a, "defaultProviders"));
    e = e ? e : read_fallback(r, args_obj_or(&a, "fallback"));
    if (e)
        return e;
    r->c->aliases = args_obj_or(&a, "aliases");
    r->c->scoped = args_enum_or(&a, "providerChoice", choices, 0) == 1;
    r->c->cache_auto = args_enum_or(&a, "promptCache", caches, 1) == 1;
    r->c->scratch_ttl_ms = args_ms_or(&a, "scratchTtl", 0, INT64_MAX / 2, 86400000);
    if (r->c->aliases) {
        json_object_object_foreach (r->c->aliases, key, value)
            if (!value || !json_object_is_type(value, json_type_string))
                return fail(r, yaml_line(value), "spec.aliases", key, "must be a model name");
    }
    return done(r, &a, "spec");
}

static int conf_from(json_object *root, struct llm_conf **ret, struct yaml_err *e)
{
    struct llm_conf *c = xcalloc(1, sizeof *c);
    struct reader r = { c, e };

    c->refs = 1;
    c->root = root;
    for (int m = 0; m < MOD_COUNT; m++)
        c->default_prov[m] = -1;
    json_object *spec = config_spec(root, "LlmConfig", e);
    int err = spec ? read_spec(&r, spec) : ERR_CONFIG;
    if (err) {
        llm_conf_unref(c);
        return err;
    }
    *ret = c;
    return 0;
}

int llm_conf_load(const char *path, struct llm_conf **ret, struct yaml_err *e)
{
    json_object *root = NULL;
    int err = yaml_load(path, &root, e);

    return err ? err : conf_from(root, ret, e);
}

int llm_conf_parse(const char *text, size_t len, struct llm_conf **ret, struct yaml_err *e)
{
    json_object *root = NULL;
    int err = yaml_parse(text, len, &root, e);

    return err ? err : conf_from(root, ret, e);
}

struct llm_conf *llm_conf_ref(struct llm_conf *c)
{
    c->refs++;
    return c;
}

void llm_conf_unref(struct llm_conf *c)
{
    if (!c || --c->refs > 0)
        return;
    for (size_t i = 0; i < PROVS_MAX; i++) {
        free(c->provs[i].models);
        free(c->provs[i].source);
    }
    json_put(c->root);
    free(c);
}

void llm_conf_unrefp(struct llm_conf **c)
{
    llm_conf_unref(*c);
    *c = NULL;
}

const struct prov_conf *conf_prov(const struct llm_conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_provs; i++)
        if (str_eq(c->provs[i].name, name))
            return &c->provs[i];
    return NULL;
}

const struct model_conf *conf_model(const struct prov_conf *p, const char *id)
{
    for (size_t i = 0; i < p->n_models; i++)
        if (str_eq(p->models[i].id, id))
            return &p->models[i];
    return NULL;
}

const char *conf_default_model(const struct prov_conf *p, enum modality m)
{
    const struct model_conf *d = *p->default_model ? conf_model(p, p->default_model) : NULL;

    if (*p->default_model && (!d || d->modality == m))
        return p->default_model;
    for (size_t i = 0; i < p->n_models; i++)
        if (p->models[i].modality == m)
            return p->models[i].id;
    return NULL;
}
