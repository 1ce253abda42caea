/*
 * OpenAI chat completions (llm page, section 7), which xAI, Ollama, vLLM, llama.cpp and most other
 * servers speak too. Text deltas are scanned and spliced; tool calls and the rest are parsed.
 */
#include "llmsvc/wire.h"

static void path(const struct prov_conf *p, char *out, size_t size)
{
    (void)p;
    str_copy(out, size, "/v1/chat/completions");
}

static bool is_openai(const struct prov_conf *p)
{
    return str_starts(p->base_url, "https://api.openai.com");
}

/* --- requests --- */

static json_object *image_part(json_object *b)
{
    json_object *s = json_obj(b, "source");
    const char *url = json_str(s, "url", NULL);

    if (url)
        return json_make("type:s image_url:o", "image_url", json_make("url:s", url));
    cleanup(freep) char *data = xasprintf(
        "data:%s;base64,%s", json_str(s, "media_type", "image/png"), json_str(s, "data", ""));
    return json_make("type:s image_url:o", "image_url", json_make("url:s", data));
}

static json_object *file_part(json_object *b)
{
    json_object *s = json_obj(b, "source");
    cleanup(freep) char *data = xasprintf(
        "data:%s;base64,%s", json_str(s, "media_type", "application/pdf"), json_str(s, "data", ""));

    return json_make(
        "type:s file:o", "file",
        json_make("filename:s file_data:s", json_str(b, "title", "document.pdf"), data));
}

static json_object *text_part(const char *s)
{
    return json_make("type:s text:s", "text", s);
}

/* A tool message for one result; its images go to *images for the user message after it. */
static json_object *tool_message(json_object *b, json_object *images)
{
    cleanup(buf_done) struct buf text = BUF_INIT(ANSWER_MAX);
    json_object *content = json_get(b, "content");

    if (json_flag(b, "is_error", false))
        buf_adds(&text, "[error] ");
    if (json_object_is_type(content, json_type_string)) {
        buf_adds(&text, json_object_get_string(content));
    } else {
        size_t n = content ? json_object_array_length(content) : 0;

        for (size_t i = 0; i < n; i++) {
            json_object *p = json_object_array_get_idx(content, i);

            if (str_eq(json_str(p, "type", ""), "image"))
                json_push(images, image_part(p));
            else
                buf_adds(&text, json_str(p, "text", ""));
        }
    }
    return json_make("role:s tool_call_id:s content:s", "tool", json_str(b, "tool_use_id", ""),
                     text.data ? text.data : "");
}

static void user_messages(json_object *m, json_object *out)
{
    cleanup(json_putp) json_object *parts = json_new_arr();
    json_object *in = json_get(m, "content");
    bool plain = true;

    for (size_t i = 0; i < json_object_array_length(in); i++) {
        json_object *b = json_object_array_get_idx(in, i);
        const char *type = json_str(b, "type", "");

        if (str_eq(type, "tool_result"))
            json_push(out, tool_message(b, parts));
        else if (str_eq(type, "text"))
            json_push(parts, text_part(json_str(b, "text", "")));
        else if (str_eq(type, "image"))
            json_push(parts, image_part(b));
        else if (str_eq(type, "document"))
            json_push(parts, file_part(b));
    }
    size_t n = json_object_array_length(parts);
    for (size_t i = 0; i < n; i++)
        plain &= str_eq(json_str(json_object_array_get_idx(parts, i), "type", ""), "text");
    if (!n)
        return;
    if (plain && n == 1) {
        json_push(out, json_make("role:s content:s", "user",
                                 json_str(json_object_array_get_idx(parts, 0), "text", "")));
        return;
    }
    json_push(out, json_make("role:s content:o", "user", json_object_get(parts)));
}

static json_object *assistant_message(struct lreq *r, json_object *m)
{
    cleanup(buf_done) struct buf text = BUF_INIT(ANSWER_MAX);
    json_object *in = json_get(m, "content"), *calls = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(in); i++) {
        json_object *b = json_object_array_get_idx(in, i);
        const char *type = json_str(b, "type", "");

        if (str_eq(type, "text")) {
            if (text.len)
                buf_addc(&text, '\n');
            buf_adds(&text, json_str(b, "text", ""));
        } else if (str_eq(type, "tool_use")) {
            json_push(calls, json_make("id:s type:s function:o", json_str(b, "id", ""), "function",
                                       json_make("name:s arguments:s",
                                                 names_wire(&r->names, json_str(b, "name", "tool")),
                                                 json_text(json_get(b, "input")))));
        }
    }
    json_object *o = json_make("role:s", "assistant");
    bool has_calls = json_object_array_length(calls) > 0;
    json_add_str(o, "content", text.len ? text.data : has_calls ? NULL : "");
    if (has_calls)
        json_add(o, "tool_calls", calls);
    else
        json_put(calls);
    return o;
}

static json_object *messages_of(struct lreq *r)
{
    cleanup(buf_done) struct buf sys = BUF_INIT(ANSWER_MAX);
    json_object *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(r->sys); i++) {
        if (sys.len)
            buf_adds(&sys, "\n\n");
        buf_adds(&sys, json_str(json_object_array_get_idx(r->sys, i), "text", ""));
    }
    if (sys.len)
        json_push(out, json_make("role:s content:s", "system", sys.data));
    for (size_t i = 0; i < json_object_array_length(r->messages); i++) {
        json_object *m = json_object_array_get_idx(r->messages, i);

        if (str_eq(json_str(m, "role", ""), "assistant"))
            json_push(out, assistant_message(r, m));
        else
            user_messages(m, out);
    }
    return out;
}

static void put_tools(struct lreq *r, json_object *body)
{
    static const char *const words[] = { "auto", "none", "required" };
    size_t n = json_object_array_length(r->tools);
    json_object *out = json_new_arr();

    for (size_t i = 0; i < n; i++) {
        json_object *t = json_object_array_get_idx(r->tools, i);

        json_push(out, json_make("type:s function:o", "function",
                                 json_make("name:s description:s parameters:o",
                                           names_wire(&r->names, json_str(t, "name", "")),
                                           json_str(t, "description", ""),
                                           json_object_get(json_get(t, "input_schema")))));
    }
    if (!n) {
        json_put(out);
        return;
    }
    json_add(body, "tools", out);
    if (r->choice == CHOICE_NAMED)
        json_add(body, "tool_choice",
                 json_make("type:s function:o", "function",
                           json_make("name:s", names_wire(&r->names, r->choice_name))));
    else if (r->choice != CHOICE_AUTO)
        json_add_str(body, "tool_choice", words[r->choice]);
}

static void put_format(struct lreq *r, json_object *body)
{
    json_object *f = r->response_format, *schema = json_obj(f, "schema");

    if (!f)
        return;
    if (!schema) {
        json_add(body, "response_format", json_make("type:s", "json_object"));
        return;
    }
    json_object *o =
        json_make("name:s schema:o", json_str(f, "name", "answer"), json_object_get(schema));
    if (json_get(f, "strict"))
        json_add_bool(o, "strict", json_flag(f, "strict", false));
    json_add(body, "response_format", json_make("type:s json_schema:o", "json_schema", o));
}

static void put_numbers(struct lreq *r, const struct target *t, json_object *body)
{
    const char *field = *t->p->max_tokens_field ? t->p->max_tokens_field
                        : is_openai(t->p)       ? "max_completion_tokens"
                                                : "max_tokens";

    if (t->drop & PARAM_MAX_TOKENS)
        field = str_eq(field, "max_tokens") ? "max_completion_tokens" : "max_tokens";
    json_add_int(body, field, t->max_tokens);
    if (r->has_temperature && !(t->drop & PARAM_TEMPERATURE))
        json_add_num(body, "temperature", r->temperature);
    if (r->has_top_p && !(t->drop & PARAM_TOP_P))
        json_add_num(body, "top_p", r->top_p);
    if (r->has_seed && !(t->drop & PARAM_SEED))
        json_add_int(body, "seed", r->seed);
    if (r->stop_sequences && !(t->drop & PARAM_STOP))
        json_add(body, "stop", json_object_get(r->stop_sequences));
    if (r->effort && !(t->drop & PARAM_EFFORT) &&
        (!t->m || t->m->thinking != THINK_NONE || !t->p->n_models))
        json_add_str(body, "reasoning_effort",
                     effort_names[r->effort == EFFORT_MAX ? EFFORT_HIGH : r->effort]);
}

/* Input that this server cannot take. */
static const char *refuse(const struct lreq *r, const struct target *t)
{
    if (lreq_has_block(r, "document") && !is_openai(t->p))
        return "documents are not supported by this provider";
    return NULL;
}

static int build(struct lreq *r, const struct target *t, bool stream, struct buf *out,
                 const char **why)
{
    cleanup(json_putp) json_object *body =
        json_make("model:s messages:o", t->model, messages_of(r));

    if ((*why = refuse(r, t)))
        return ERR_MODALITY;
    put_tools(r, body);
    put_format(r, body);
    put_numbers(r, t, body);
    if (stream) {
        json_add_bool(body, "stream", true);
        json_add(body, "stream_options", json_make("include_usage:b", 1));
    }
    if (t->p->extra_body) {
        json_object_object_foreach (t->p->extra_body, key, value)
            json_add(body, key, json_object_get(value));
    }
    return buf_adds(out, json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN |
                                                                  JSON_C_TO_STRING_NOSLASHESCAPE))
               ? ERR_TOOBIG
               : 0;
}

/* --- answers --- */

static void usage(struct answer *a, json_object *u)
{
    if (!u)
        return;
    if (json_get(u, "prompt_tokens")) {
        a->in = json_int(u, "prompt_tokens", 0);
        a->have_in = true;
    }
    if (json_get(u, "completion_tokens")) {
        a->out = json_int(u, "completion_tokens", 0);
        a->have_out = true;
    }
    a->cache_read = json_int(json_obj(u, "prompt_tokens_details"), "cached_tokens", a->cache_read);
    a->reasoning =
        json_int(json_obj(u, "completion_tokens_details"), "reasoning_tokens", a->reasoning);
}

static int refused(struct decoder *d, const char *text)
{
    fault_set(d->fault, ERR_CONTENT, "%s", *text ? text : "the provider filtered the answer");
    free(d->fault->partial);
    d->fault->partial = answer_partial(d->a);
    return ERR_CONTENT;
}

static int set_stop(struct decoder *d, const char *reason)
{
    struct answer *a = d->a;

    answer_tool_end(a, -1);
    d->saw_finish = true;
    if (str_eq(reason, "content_filter"))
        return refused(d, "");
    if (str_eq(reason, "length"))
        a->stop = STOP_MAX;
    else if (str_eq(reason, "tool_calls") || str_eq(reason, "function_call") || answer_has_tools(a))
        a->stop = STOP_TOOL;
    else
        a->stop = STOP_END;
    if (!str_eq(reason, "stop") && !str_eq(reason, "length") && !str_eq(reason, "tool_calls"))
        str_copy(a->stop_detail, sizeof a->stop_detail, reason);
    return 0;
}

/* Starts a call; an id is made when the server sends none. */
static int call_begin(struct decoder *d, int index, const char *id, const char *wire)
{
    char name[256], made[48];

    if (str_empty(id)) {
        snprintf(made, sizeof made, "call_%u_%d", ++d->n_ids, index);
        id = made;
    }
    return answer_tool_start(d->a, index, id, names_avix(d->names, wire, name));
}

static int call_delta(struct decoder *d, size_t pos, json_object *c)
{
    json_object *f = json_obj(c, "function"), *args = json_get(f, "arguments");
    int index = (int)json_int(c, "index", (int64_t)pos);
    struct ablock *open = answer_tool(d->a, index);
    const char *id = json_str(c, "id", ""), *name = json_str(f, "name", "");
    /* a new id under a known index is a new call (some servers number every call 0) */
    bool begin = !open || (*id && *name && !str_eq(open->id, id));
    int r = 0;

    if (begin) {
        if (open && open->open)
            answer_tool_end(d->a, index);
        if ((r = call_begin(d, index, id, name)))
            return r;
    }
    if (json_object_is_type(args, json_type_string)) {
        const char *s = json_object_get_string(args);
        return answer_tool_args(d->a, index, s, strlen(s));
    }
    if (args && json_object_object_length(args) > 0) { /* an object where text belongs */
        const char *s = json_text(args);
        return answer_tool_args(d->a, index, s, strlen(s));
    }
    return 0;
}

static int calls_delta(struct decoder *d, const char *text, size_t len)
{
    cleanup(json_putp) json_object *calls = NULL;

    if (json_parse(text, len, &calls) || !json_object_is_type(calls, json_type_array))
        return wire_bad(d, "tool_calls is no array");
    for (size_t i = 0; i < json_object_array_length(calls); i++)
        if (call_delta(d, i, json_object_array_get_idx(calls, i)))
            return wire_bad(d, "the answer is too long");
    return 0;
}

static bool is_str(struct json_slice s)
{
    return s.len >= 2 && s.at[0] == '"';
}

static int delta(struct decoder *d, struct json_slice s)
{
    static const char *const names[] = { "content", "tool_calls", "reasoning_content", "reasoning",
                                         "refusal" };
    struct json_slice v[5];
    int r = 0;

    if (s.at[0] != '{')
        return 0;
    if (json_scan(s.at, s.len, names, v, 5))
        return wire_bad(d, "a stream event is no JSON");
    for (int i = 2; i <= 3 && !r; i++)
        if (is_str(v[i]) && v[i].len > 2) {
            r = answer_thinking_esc(d->a, v[i].at + 1, v[i].len - 2);
            break;
        }
    if (!r && is_str(v[0]))
        r = answer_text_esc(d->a, v[0].at + 1, v[0].len - 2);
    if (r)
        return wire_bad(d, "the answer is too long");
    if (is_str(v[4])) {
        char text[400] = "";
        (void)json_slice_str(v[4], text, sizeof text);
        size_t n = strlen(d->refusal);
        snprintf(d->refusal + n, sizeof d->refusal - n, "%s", text);
    }
    return v[1].len && v[1].at[0] == '[' ? calls_delta(d, v[1].at, v[1].len) : 0;
}

/* The one element of an array's text; false if it is not an array of one object. */
static bool single(struct json_slice s, struct json_slice *ret)
{
    const char *p = s.at, *e = NULL;

    if (s.len < 2 || *p != '[')
        return false;
    e = p + s.len;
    for (p++, e--; p < e && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r');)
        p++;
    while (e > p && (e[-1] == ' ' || e[-1] == '\n' || e[-1] == '\t' || e[-1] == '\r'))
        e--;
    *ret = (struct json_slice){ p, (size_t)(e - p) };
    return p < e && *p == '{';
}

static int stream_tail(struct decoder *d, const struct json_slice *v)
{
    if (v[1].len && v[1].at[0] == '{') {
        cleanup(json_putp) json_object *u = NULL;
        if (!json_parse(v[1].at, v[1].len, &u))
            usage(d->a, u);
    }
    if (v[2].len && v[2].at[0] != 'n') {
        cleanup(json_putp) json_object *e = NULL;
        if (!json_parse(v[2].at, v[2].len, &e) && json_object_is_type(e, json_type_object))
            fault_from_event(d->fault, d->p, e);
        return wire_bad(d, "the stream ended with an error");
    }
    return 0;
}

static int event(struct decoder *d, const char *name, const char *data, size_t len)
{
    static const char *const top[] = { "choices", "usage", "error", "id", "model" };
    static const char *const inside[] = { "delta", "finish_reason" };
    struct json_slice v[5], one, c[2];
    char reason[64] = "";

    (void)name;
    if (len == 6 && !memcmp(data, "[DONE]", 6)) {
        d->closed = true;
        return *d->refusal ? refused(d, d->refusal) : 0;
    }
    if (json_scan(data, len, top, v, 5))
        return wire_bad(d, "a stream event is no JSON");
    if (!*d->a->request_id && is_str(v[3]))
        (void)json_slice_str(v[3], d->a->request_id, sizeof d->a->request_id);
    if (!*d->a->model && is_str(v[4]))
        (void)json_slice_str(v[4], d->a->model, sizeof d->a->model);
    if (single(v[0], &one)) {
        if (json_scan(one.at, one.len, inside, c, 2)) {
            cleanup(json_putp) json_object *all = NULL; /* more than one choice: the first counts */
            if (json_parse(v[0].at, v[0].len, &all) || !json_object_is_type(all, json_type_array))
                return wire_bad(d, "a stream event is no JSON");
            cleanup(freep) char *text = xstrdup(json_text(json_object_array_get_idx(all, 0)));
            if (json_scan(text, strlen(text), inside, c, 2) || (c[0].len && delta(d, c[0])))
                return wire_bad(d, "a stream event is no JSON");
            c[0].len = 0;
            if (is_str(c[1]))
                (void)json_slice_str(c[1], reason, sizeof reason);
            c[1].len = 0;
        }
        int r = c[0].len ? delta(d, c[0]) : 0;
        if (r)
            return r;
        if (is_str(c[1]))
            (void)json_slice_str(c[1], reason, sizeof reason);
        if (*reason && (r = set_stop(d, reason)))
            return r;
    }
    return stream_tail(d, v);
}

static int end(struct decoder *d)
{
    if (d->closed || d->saw_finish)
        return *d->refusal ? refused(d, d->refusal) : 0;
    return wire_bad(d, "the stream ended without finish_reason");
}

static int content_parts(struct decoder *d, json_object *content)
{
    const char *s = NULL;

    if (json_object_is_type(content, json_type_string)) {
        s = json_object_get_string(content);
        return answer_text(d->a, s, strlen(s));
    }
    if (json_object_is_type(content, json_type_array))
        for (size_t i = 0; i < json_object_array_length(content); i++) {
            s = json_str(json_object_array_get_idx(content, i), "text", "");
            int r = answer_text(d->a, s, strlen(s));
            if (r)
                return r;
        }
    return 0;
}

static int whole(struct decoder *d, json_object *body)
{
    json_object *choice =
        json_arr(body, "choices") ? json_object_array_get_idx(json_arr(body, "choices"), 0) : NULL;
    json_object *m = json_obj(choice, "message"), *calls = json_arr(m, "tool_calls");

    if (json_obj(body, "error")) {
        fault_from_event(d->fault, d->p, json_obj(body, "error"));
        return d->fault->err;
    }
    if (!m)
        return wire_bad(d, "the answer has no choices");
    str_copy(d->a->request_id, sizeof d->a->request_id, json_str(body, "id", ""));
    str_copy(d->a->model, sizeof d->a->model, json_str(body, "model", ""));
    usage(d->a, json_obj(body, "usage"));
    const char *think = json_str(m, "reasoning_content", json_str(m, "reasoning", ""));
    int r = answer_thinking(d->a, think, strlen(think));
    r = r ? r : content_parts(d, json_get(m, "content"));
    for (size_t i = 0; calls && i < json_object_array_length(calls) && !r; i++) {
        r = call_delta(d, i, json_object_array_get_idx(calls, i));
    }
    if (r)
        return wire_bad(d, "the answer is too long");
    if (!str_empty(json_str(m, "refusal", "")))
        return refused(d, json_str(m, "refusal", ""));
    d->closed = true;
    return set_stop(d, json_str(choice, "finish_reason", "stop"));
}

const struct wire wire_openai = {
    .path = path, .build = build, .event = event, .end = end, .whole = whole
};
