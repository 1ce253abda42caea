/*
 * From provider errors to ours. Providers agree on little beyond the status: the body's type, code
 * and text decide between a prompt that is too long, a spent account, a parameter the model refuses
 * and a plain bad request.
 */
#include "llmsvc/fault.h"

#include <ctype.h>
#include <stdarg.h>
#include <strings.h>

#include "common/base/rnd.h"

#define SECRETS_MAX 64

static const char *secrets[SECRETS_MAX];

void mask_remember(const char *secret)
{
    for (size_t i = 0; i < SECRETS_MAX && strlen(secret) >= 6; i++)
        if (!secrets[i]) {
            secrets[i] = secret;
            return;
        }
}

void mask_forget(const char *secret)
{
    for (size_t i = 0; i < SECRETS_MAX; i++)
        if (secrets[i] == secret)
            secrets[i] = NULL;
}

static bool token_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '*';
}

/* A word that is a key by its look: a known prefix, or long and of mixed letters and digits
 * without being a dashed name such as a model's. */
static bool key_like(const char *s, size_t n)
{
    static const char *const prefixes[] = { "sk-",  "sk_",  "xai-", "gsk_", "pk-",
                                            "AIza", "key-", "hf_",  "ghp_", "eyJ" };
    bool upper = false, lower = false, digit = false;

    for (size_t i = 0; i < N_ELEMS(prefixes); i++)
        if (n >= 12 && !strncmp(s, prefixes[i], strlen(prefixes[i])))
            return true;
    if (n < 24 ||
        (n == UUID_LEN - 1 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'))
        return false;
    for (size_t i = 0; i < n; i++) {
        upper |= isupper((unsigned char)s[i]) != 0;
        lower |= islower((unsigned char)s[i]) != 0;
        digit |= isdigit((unsigned char)s[i]) != 0;
    }
    return digit && lower && (upper || n >= 32);
}

static size_t secret_at(const char *s)
{
    for (size_t i = 0; i < SECRETS_MAX; i++)
        if (secrets[i] && !strncmp(s, secrets[i], strlen(secrets[i])))
            return strlen(secrets[i]);
    return 0;
}

static void mask(char *out, size_t size, const char *in, bool controls)
{
    size_t n = 0;

    while (*in && n + 4 < size) {
        size_t word = 0, known = secret_at(in);

        while (token_char(in[word]))
            word++;
        if (known || (word && key_like(in, word))) {
            memcpy(out + n, "***", 3);
            n += 3;
            in += known ? known : word;
        } else {
            size_t take = word ? word : 1;

            for (size_t i = 0; i < take && n + 4 < size; i++) {
                if (i > 0 && secret_at(in + i)) {
                    take = i; /* one of ours inside a longer word */
                    break;
                }
                out[n++] =
                    !controls && ((unsigned char)in[i] < 0x20 || in[i] == 0x7f) ? ' ' : in[i];
            }
            in += take;
        }
    }
    out[utf8_floor(out, n)] = '\0';
}

void mask_text(char *out, size_t size, const char *in)
{
    mask(out, size, in, false);
}

void mask_secrets(char *out, size_t size, const char *in)
{
    mask(out, size, in, true);
}

void fault_done(struct fault *f)
{
    free(f->partial);
    f->partial = NULL;
    json_put(f->extra);
    f->extra = NULL;
}

void fault_set(struct fault *f, int err, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    f->err = err;
    mask_text(f->message, 501, text);
}

json_object *fault_data(const struct fault *f, const char *provider, int attempts)
{
    json_object *o = json_make("provider:s attempts:i", provider, (int64_t)attempts);

    if (f->status)
        json_add_int(o, "status", f->status);
    if (*f->type)
        json_add_str(o, "type", f->type);
    if (*f->request_id)
        json_add_str(o, "request_id", f->request_id);
    if (*f->param)
        json_add_str(o, "param", f->param);
    if (f->retry_after_ms >= 0)
        json_add_int(o, "retry_after", (f->retry_after_ms + 999) / 1000);
    if (f->limit)
        json_add_int(o, "limit", f->limit);
    if (f->tokens)
        json_add_int(o, "tokens", f->tokens);
    if (f->scope)
        json_add_str(o, "scope", f->scope);
    if (*f->node)
        json_add_str(o, "node", f->node);
    if (f->partial)
        json_add_str(o, "partial", f->partial);
    if (f->extra) {
        json_object_object_foreach (f->extra, key, value)
            json_add(o, key, value ? json_object_get(value) : NULL);
    }
    return o;
}

int64_t retry_after_parse(const char *s, int64_t now)
{
    struct tm tm = { 0 };
    char *end = NULL;

    if (str_empty(s))
        return -1;
    double v = strtod(s, &end);
    if (end != s && !*end)
        return v < 0 ? 0 : v > 86400 ? 86400000 : (int64_t)(v * 1000);
    end = strptime(s, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end)
        return -1;
    int64_t at = (int64_t)timegm(&tm) * 1000;
    return at > now ? at - now : 0;
}

static bool has(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

/* What an error body says, whichever wire it came from. */
struct said {
    const char *type, *code, *message, *param, *details;
};

static void read_body(json_object *root, struct said *s)
{
    json_object *e = json_obj(root, "error"), *detail = json_obj(root, "detail");

    *s = (struct said){ "", "", "", "", "" };
    if (e) {
        s->type = json_str(e, "type", "");
        s->code = json_str(e, "code", "");
        s->message = json_str(e, "message", "");
        s->param = json_str(e, "param", "");
        json_object *details = json_obj(e, "details");
        s->details = json_str(details, "error_code", json_str(details, "code", ""));
    } else if (detail) {
        s->type = json_str(detail, "status", "");
        s->message = json_str(detail, "message", "");
    } else {
        s->message = json_str(root, "error", json_str(root, "message", ""));
        s->type = json_str(root, "type", json_str(root, "name", ""));
    }
}

static bool is_context(const struct said *s)
{
    return has(s->code, "context_length") || has(s->type, "context_length") ||
           has(s->message, "context_length_exceeded") || has(s->message, "prompt is too long") ||
           has(s->message, "maximum context length") || has(s->message, "context window") ||
           has(s->message, "exceed_context_size") || has(s->message, "input is too long");
}

static bool is_spent(const struct said *s, bool no_retry_after)
{
    if (has(s->code, "insufficient_quota") || has(s->type, "insufficient_quota") ||
        has(s->type, "quota_exceeded") || has(s->type, "billing_error"))
        return true;
    if (has(s->details, "spend") || has(s->details, "credit"))
        return true;
    return no_retry_after && (has(s->message, "spend limit") || has(s->message, "credit balance") ||
                              has(s->message, "billing"));
}

/* "prompt is too long: 210000 tokens > 200000 maximum", "maximum context length is 8192 tokens.
 * However, your messages resulted in 9000 tokens" */
static void context_numbers(struct fault *f, const char *m)
{
    int64_t v[4];
    size_t n = 0;

    for (const char *p = m; *p && n < 4; p++) {
        if (!isdigit((unsigned char)*p) ||
            (p > m && (isalnum((unsigned char)p[-1]) || p[-1] == '-')))
            continue;
        char *end = NULL;
        v[n] = strtoll(p, &end, 10);
        n += v[n] >= 256;
        p = end - 1;
        if (!*end)
            break;
    }
    if (n < 2)
        return;
    f->limit = v[0] < v[1] ? v[0] : v[1];
    f->tokens = v[0] < v[1] ? v[1] : v[0];
}

/* Which optional parameter of ours the text blames. */
static unsigned blamed(const struct said *s)
{
    static const struct {
        const char *word;
        unsigned bit;
    } words[] = { { "temperature", PARAM_TEMPERATURE },
                  { "top_p", PARAM_TOP_P },
                  { "reasoning_effort", PARAM_EFFORT },
                  { "output_config", PARAM_THINKING },
                  { "max_completion_tokens", PARAM_MAX_TOKENS },
                  { "max_tokens", PARAM_MAX_TOKENS },
                  { "seed", PARAM_SEED },
                  { "stop_sequences", PARAM_STOP },
                  { "thinking", PARAM_THINKING },
                  { "'stop'", PARAM_STOP } };

    for (size_t i = 0; i < N_ELEMS(words); i++)
        if (has(s->param, words[i].word) || (!*s->param && has(s->message, words[i].word)))
            return words[i].bit;
    return str_eq(s->param, "stop") ? PARAM_STOP : 0;
}

static int err_of_400(struct fault *f, const struct said *s)
{
    if (is_context(s)) {
        context_numbers(f, s->message);
        return ERR_CONTEXT;
    }
    if (is_spent(s, true)) {
        f->spent = true;
        f->scope = "provider";
        return ERR_QUOTA;
    }
    if (has(s->code, "content_policy") || has(s->code, "content_filter") ||
        has(s->type, "content_policy"))
        return ERR_CONTENT;
    if (has(s->code, "model_not_found"))
        return ERR_MODEL;
    str_copy(f->param, sizeof f->param, s->param);
    f->drop = blamed(s);
    return ERR_BADREQ;
}

static int err_of_status(struct fault *f, const struct said *s, int status)
{
    switch (status) {
    case 401:
    case 403:
        return is_spent(s, true) ? ERR_QUOTA : ERR_PROVAUTH;
    case 402:
        f->scope = "provider";
        return ERR_QUOTA;
    case 404:
        return ERR_MODEL;
    case 400:
    case 413:
    case 422:
        return err_of_400(f, s);
    case 408:
    case 504:
        return ERR_PROVTIMEOUT;
    case 429:
        if (is_spent(s, f->retry_after_ms < 0)) {
            f->spent = true;
            f->scope = "provider";
            return ERR_QUOTA;
        }
        return ERR_PROVRATE;
    default:
        break;
    }
    if (status >= 500 || status == 409 || status == 425)
        return ERR_PROVDOWN;
    return status >= 400 ? ERR_BADREQ : ERR_PROVPROTO;
}

static void set_message(struct fault *f, const struct said *s, const char *fallback)
{
    fault_set(f, f->err, "%s", *s->message ? s->message : fallback);
    const char *type = *s->type ? s->type : s->code;
    mask_text(f->type, sizeof f->type, type);
}

void fault_from_http(struct fault *f, const struct prov_conf *p, int status,
                     const struct fault_head *h, const char *body, size_t len, int64_t now)
{
    cleanup(json_putp) json_object *root = NULL;
    struct said s;
    char text[300];

    f->status = status;
    f->retry_after_ms = retry_after_parse(h->retry_after, now);
    if (!str_empty(h->retry_after_ms)) {
        int64_t ms = 0;
        if (parse_i64(h->retry_after_ms, 0, 86400000, &ms))
            f->retry_after_ms = ms;
    }
    mask_text(f->request_id, sizeof f->request_id, h->request_id ? h->request_id : "");
    if (len && json_parse(body, len, &root))
        root = NULL;
    read_body(root, &s);
    snprintf(text, sizeof text, "%s answered HTTP %d%s%.200s", p->name, status,
             root || !len ? "" : ": ", root || !len ? "" : body);
    f->err = err_of_status(f, &s, status);
    set_message(f, &s, text);
    for (size_t i = 0; i < p->n_retry_on; i++)
        f->retry |= p->retry_on[i] == status;
    if (f->err == ERR_QUOTA || f->err == ERR_CONTEXT || f->err == ERR_PROVAUTH ||
        str_eq(h->should_retry, "false"))
        f->retry = false;
}

void fault_from_event(struct fault *f, const struct prov_conf *p, json_object *error)
{
    static const struct {
        const char *type;
        int status;
    } types[] = { { "overloaded_error", 529 },      { "rate_limit_error", 429 },
                  { "rate_limit_exceeded", 429 },   { "api_error", 500 },
                  { "server_error", 500 },          { "authentication_error", 401 },
                  { "permission_error", 403 },      { "not_found_error", 404 },
                  { "request_too_large", 413 },     { "timeout_error", 504 },
                  { "invalid_request_error", 400 }, { "billing_error", 402 } };
    cleanup(json_putp) json_object *root = json_make("error:o", json_object_get(error));
    struct said s;
    int status = 500;

    read_body(root, &s);
    for (size_t i = 0; i < N_ELEMS(types); i++)
        if (str_eq(s.type, types[i].type) || str_eq(s.code, types[i].type))
            status = types[i].status;
    f->err = err_of_status(f, &s, status);
    set_message(f, &s, "the stream ended with an error");
    for (size_t i = 0; i < p->n_retry_on; i++)
        f->retry |= p->retry_on[i] == status;
    if (f->err == ERR_QUOTA || f->err == ERR_CONTEXT || f->err == ERR_PROVAUTH)
        f->retry = false;
}
