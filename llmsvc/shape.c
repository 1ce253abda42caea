/*
 * Requests to the internal shape. camelCase spellings count as their snake_case names; unknown
 * fields are ignored, as everywhere on our sockets.
 */
#include "llmsvc/shape.h"

#include <ctype.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/toolname.h"
#include "common/svc/token.h"

const char *const effort_names[5] = { "", "low", "medium", "high", "max" };

void names_init(struct names *n)
{
    map_init(&n->to_wire);
    map_init(&n->to_avix);
}

void names_done(struct names *n)
{
    void *v = NULL;
    const char *k = NULL;

    for (size_t i = 0; map_each(&n->to_wire, &i, &k, &v);)
        free(v);
    for (size_t i = 0; map_each(&n->to_avix, &i, &k, &v);)
        free(v);
    map_done(&n->to_wire);
    map_done(&n->to_avix);
}

static bool wire_ok(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '_' && s[i] != '-')
            return false;
    return len >= 1 && len <= WIRE_NAME_MAX;
}

/* 48 cleaned characters, '-', 8 hex digits of SHA-256 of the name. */
static void alias_of(const char *avix, char out[WIRE_NAME_MAX + 1])
{
    uint8_t sum[32];
    char hex[65];
    size_t n = 0;

    for (const char *p = avix; *p && n < 48; p++)
        out[n++] = isalnum((unsigned char)*p) || *p == '-' ? *p : '_';
    sha256(avix, strlen(avix), sum);
    hex_encode(sum, sizeof sum, hex);
    snprintf(out + n, WIRE_NAME_MAX + 1 - n, "-%.8s", hex);
}

const char *names_wire(struct names *n, const char *avix)
{
    const char *known = map_get(&n->to_wire, avix);
    char out[2 * TOOL_MAX + 2];
    size_t len = 0;

    if (known)
        return known;
    for (const char *p = avix; *p && len < sizeof out - 2; p++) {
        out[len++] = *p == '/' ? '_' : *p;
        if (*p == '/')
            out[len++] = '_';
    }
    out[len] = '\0';
    if (!wire_ok(out, len) || map_get(&n->to_avix, out))
        alias_of(avix, out);
    char *wire = xstrdup(out);
    map_put(&n->to_wire, avix, wire);
    free(map_put(&n->to_avix, wire, xstrdup(avix)));
    return wire;
}

const char *names_avix(const struct names *n, const char *wire, char out[256])
{
    const char *known = map_get(&n->to_avix, wire);

    if (known) {
        str_copy(out, 256, known);
        return out;
    }
    if (tool_unmangle(wire, strlen(wire), out, 256) < 0)
        str_copy(out, 256, wire);
    return out;
}

/* Top-level names in both spellings: the value under the snake_case one, as a shallow copy. */
static json_object *snake(json_object *params)
{
    static const char *const camel[][2] = {
        { "maxTokens", "max_tokens" },
        { "topP", "top_p" },
        { "toolChoice", "tool_choice" },
        { "stopSequences", "stop_sequences" },
        { "turnId", "turn_id" },
        { "responseFormat", "response_format" },
        { "timeoutMs", "timeout_ms" },
        { "allowFallback", "allow_fallback" },
        { "acceptChunks", "accept_chunks" },
    };
    json_object *out = json_new();

    json_object_object_foreach (params, key, value) {
        const char *name = key;

        for (size_t i = 0; i < N_ELEMS(camel); i++)
            if (str_eq(key, camel[i][0]))
                name = camel[i][1];
        if (name == key || !json_object_object_get_ex(params, name, NULL))
            json_add(out, name, json_object_get(value));
    }
    return out;
}

static json_object *prop_of(json_object *row)
{
    static const struct {
        const char *from, *to;
    } types[] = { { "bool", "boolean" }, { "int", "integer" }, { "float", "number" } };
    json_object *out = json_new();

    if (json_object_is_type(row, json_type_string)) {
        json_add_str(out, "type", json_object_get_string(row));
    } else if (json_object_is_type(row, json_type_object)) {
        json_object_object_foreach (row, key, value) {
            if (str_eq(key, "desc"))
                json_add(out, "description", json_object_get(value));
            else if (str_eq(key, "items"))
                json_add(out, "items", prop_of(value));
            else if (!str_eq(key, "required") || !json_object_is_type(value, json_type_boolean))
                json_add(out, key, json_object_get(value));
        }
    }
    const char *type = json_str(out, "type", "string");
    for (size_t i = 0; i < N_ELEMS(types); i++)
        if (str_eq(type, types[i].from))
            type = types[i].to;
    cleanup(freep) char *copy = xstrdup(type);
    json_add_str(out, "type", copy);
    return out;
}

json_object *schema_of(json_object *input)
{
    if (!json_object_is_type(input, json_type_object))
        return json_make("type:s properties:o", "object", json_new());
    if (json_object_is_type(json_get(input, "type"), json_type_string) ||
        json_get(input, "$schema")) {
        json_object *copy = json_dup(input);

        if (!json_get(copy, "type"))
            json_add_str(copy, "type", "object");
        if (str_eq(json_str(copy, "type", ""), "object") && !json_obj(copy, "properties"))
            json_add(copy, "properties", json_new());
        return copy;
    }
    json_object *props = json_new(), *required = json_new_arr();
    json_object_object_foreach (input, key, row) {
        json_add(props, key, prop_of(row));
        if (json_object_is_type(row, json_type_object) && json_flag(row, "required", false))
            json_push_str(required, key);
    }
    json_object *out = json_make("type:s properties:o", "object", props);
    if (json_object_array_length(required))
        json_add(out, "required", required);
    else
        json_put(required);
    return out;
}

static int by_name(const void *a, const void *b)
{
    json_object *x = *(json_object *const *)a, *y = *(json_object *const *)b;
    return strcmp(json_str(x, "name", ""), json_str(y, "name", ""));
}

static void read_tools(struct args *a, struct lreq *r)
{
    json_object *list = args_arr_or(a, "tools");
    size_t n = list ? json_object_array_length(list) : 0;

    r->tools = json_new_arr();
    if (n > 1024)
        args_fail(a, "tools", "at most 1024");
    for (size_t i = 0; i < n && !args_bad(a); i++) {
        json_object *t = json_object_array_get_idx(list, i);
        json_object *schema = json_obj(t, "input_schema");
        const char *name = json_str(t, "name", "");

        if (!schema)
            schema = json_obj(t, "inputSchema");
        if (!schema)
            schema = json_obj(t, "input");
        if (!*name || strlen(name) > TOOL_MAX) {
            args_fail(a, "tools", "each tool needs a name of 1 to 128 bytes");
            break;
        }
        json_object *row = json_make("name:s description:s input_schema:o", name,
                                     json_str(t, "description", ""), schema_of(schema));
        if (json_flag(t, "cache", false))
            json_add_bool(row, "cache", true);
        json_push(r->tools, row);
    }
    json_object_array_sort(r->tools, by_name);
    for (size_t i = 0; i < json_object_array_length(r->tools); i++) {
        const char *name = json_str(json_object_array_get_idx(r->tools, i), "name", "");

        if (map_get(&r->names.to_wire, name))
            args_fail(a, "tools", "a tool is listed twice");
        names_wire(&r->names, name);
    }
}

static void read_choice(struct args *a, struct lreq *r)
{
    static const char *const words[] = { "auto", "none", "required" };
    json_object *o = args_any_or(a, "tool_choice");
    const char *name = NULL;

    if (!o)
        return;
    if (json_object_is_type(o, json_type_string)) {
        for (size_t i = 0; i < N_ELEMS(words); i++)
            if (str_eq(json_object_get_string(o), words[i])) {
                r->choice = (enum choice)i;
                return;
            }
    } else if ((name = json_str(o, "name", NULL))) {
        r->choice = CHOICE_NAMED;
        str_copy(r->choice_name, sizeof r->choice_name, name);
        if (map_get(&r->names.to_wire, name))
            return;
    }
    args_fail(a, "tool_choice",
              name ? "names a tool that is not in tools"
                   : "must be auto, none, required or {name}");
}

static void read_thinking(struct args *a, struct lreq *r)
{
    json_object *o = args_obj_or(a, "thinking");

    if (!o)
        return;
    r->thinking = true;
    const char *effort = json_str(o, "effort", NULL);
    for (int i = EFFORT_LOW; effort && i <= EFFORT_MAX; i++)
        if (str_eq(effort, effort_names[i]))
            r->effort = (enum effort)i;
    if (effort && !r->effort)
        args_fail(a, "thinking", "effort must be low, medium, high or max");
    r->budget_tokens = json_int(o, "budget_tokens", json_int(o, "budgetTokens", 0));
    if (r->budget_tokens < 0)
        args_fail(a, "thinking", "budget_tokens must be positive");
}

static void read_format(struct args *a, struct lreq *r)
{
    json_object *o = args_obj_or(a, "response_format");
    const char *type = json_str(o, "type", "");

    if (!o || str_eq(type, "text"))
        return;
    if (!str_eq(type, "json") && !str_eq(type, "json_schema"))
        args_fail(a, "response_format", "type must be json or json_schema");
    else if (str_eq(type, "json_schema") && !json_obj(o, "schema"))
        args_fail(a, "response_format", "json_schema needs a schema");
    r->response_format = json_object_get(o);
}

static void read_system(struct args *a, struct lreq *r)
{
    json_object *o = args_any_or(a, "system");

    r->sys = json_new_arr();
    if (json_object_is_type(o, json_type_string)) {
        if (*json_object_get_string(o))
            json_push(r->sys, json_make("type:s text:s", "text", json_object_get_string(o)));
    } else if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            json_object *b = json_object_array_get_idx(o, i);
            const char *text = json_str(b, "text", NULL);

            if (!text)
                args_fail(a, "system", "must be a string or text blocks");
            else if (*text)
                json_push(r->sys, json_dup(b));
        }
    } else if (o) {
        args_fail(a, "system", "must be a string or text blocks");
    }
}

static void read_numbers(struct args *a, struct lreq *r)
{
    r->max_tokens = args_int_or(a, "max_tokens", 1, INT32_MAX, 0);
    r->has_temperature = json_get(a->o, "temperature") != NULL;
    r->temperature = args_num_or(a, "temperature", 0, 2, 0);
    r->has_top_p = json_get(a->o, "top_p") != NULL;
    r->top_p = args_num_or(a, "top_p", 0, 1, 0);
    r->has_seed = json_get(a->o, "seed") != NULL;
    r->seed = args_int_or(a, "seed", INT64_MIN, INT64_MAX, 0);
    r->timeout_ms = args_int_or(a, "timeout_ms", 1, 86400000, 0);
    r->allow_fallback = args_bool_or(a, "allow_fallback", false);
    json_object *stop = args_strs_or(a, "stop_sequences", 256);
    if (stop && json_object_array_length(stop))
        r->stop_sequences = json_object_get(stop);
    json_object *accept = args_arr_or(a, "accept_chunks");
    r->want_thinking = accept && json_arr_has(accept, "thinking");
}

int lreq_parse(json_object *params, struct lreq *ret, struct args *bad)
{
    cleanup(json_putp) json_object *p = snake(params);
    struct args a = args_open(p);
    const char *why = NULL;

    memset(ret, 0, sizeof *ret);
    names_init(&ret->names);
    const char *s = args_str_or(&a, "provider", sizeof ret->provider - 1, "");
    str_copy(ret->provider, sizeof ret->provider, s ? s : "");
    s = args_str_or(&a, "model", sizeof ret->model - 1, "");
    str_copy(ret->model, sizeof ret->model, s ? s : "");
    s = args_str_or(&a, "turn_id", sizeof ret->turn_id - 1, "");
    str_copy(ret->turn_id, sizeof ret->turn_id, s ? s : "");
    read_system(&a, ret);
    read_tools(&a, ret);
    read_choice(&a, ret);
    read_numbers(&a, ret);
    read_thinking(&a, ret);
    read_format(&a, ret);
    json_object *messages = args_arr(&a, "messages");
    if (!args_bad(&a) && history_repair(messages, ret->sys, &ret->messages, &why))
        args_fail(&a, "messages", why);
    if (args_bad(&a)) {
        *bad = a;
        bad->o = NULL;
        lreq_done(ret);
        memset(ret, 0, sizeof *ret);
        return ERR_INVAL;
    }
    ret->bytes = strlen(json_text(ret->messages)) + strlen(json_text(ret->sys)) +
                 strlen(json_text(ret->tools));
    return 0;
}

void lreq_done(struct lreq *r)
{
    json_put(r->sys);
    json_put(r->messages);
    json_put(r->tools);
    json_put(r->stop_sequences);
    json_put(r->response_format);
    r->sys = r->messages = r->tools = r->stop_sequences = r->response_format = NULL;
    names_done(&r->names);
    names_init(&r->names);
}

int64_t lreq_estimate(const struct lreq *r)
{
    return (int64_t)(r->bytes / 4) + 1;
}

void message_text(json_object *message, struct buf *out)
{
    json_object *content = json_get(message, "content");
    size_t n = content && json_object_is_type(content, json_type_array)
                   ? json_object_array_length(content)
                   : 0;

    if (json_object_is_type(content, json_type_string))
        buf_adds(out, json_object_get_string(content));
    for (size_t i = 0; i < n; i++) {
        json_object *b = json_object_array_get_idx(content, i);

        if (!str_eq(json_str(b, "type", ""), "text"))
            continue;
        if (out->len)
            buf_addc(out, '\n');
        buf_adds(out, json_str(b, "text", ""));
    }
}

static bool has_block(json_object *content, const char *type)
{
    size_t n = content && json_object_is_type(content, json_type_array)
                   ? json_object_array_length(content)
                   : 0;

    for (size_t i = 0; i < n; i++) {
        json_object *b = json_object_array_get_idx(content, i);

        if (str_eq(json_str(b, "type", ""), type) || has_block(json_get(b, "content"), type))
            return true;
    }
    return false;
}

bool lreq_has_block(const struct lreq *r, const char *type)
{
    for (size_t i = 0; i < json_object_array_length(r->messages); i++)
        if (has_block(json_get(json_object_array_get_idx(r->messages, i), "content"), type))
            return true;
    return false;
}
