/*
 * The Anthropic Messages API (llm page, section 6). Requests keep our block names; what differs is
 * cache marks, tool names, thinking and the forced output format. Stream events of text are scanned
 * and spliced, all others are parsed.
 */
#include "llmsvc/wire.h"

#define CACHE_MIN  4096
#define MARKS_MAX  4
#define BUDGET_MIN 1024

static void path(const struct prov_conf *p, char *out, size_t size)
{
    (void)p;
    str_copy(out, size, "/v1/messages");
}

static void mark(json_object *block)
{
    json_add(block, "cache_control", json_make("type:s", "ephemeral"));
}

/* --- requests --- */

static json_object *source_of(json_object *b, bool document)
{
    json_object *s = json_obj(b, "source");
    const char *type = json_str(s, "type", json_get(s, "url") ? "url" : "base64");
    const char *media = json_str(s, "media_type", document ? "application/pdf" : "image/png");

    if (str_eq(type, "url"))
        return json_make("type:s url:s", "url", json_str(s, "url", ""));
    if (document && str_starts(media, "text/"))
        return json_make("type:s media_type:s data:s", "text", "text/plain",
                         json_str(s, "data", ""));
    return json_make("type:s media_type:s data:s", "base64", media, json_str(s, "data", ""));
}

static json_object *block_of(struct lreq *r, json_object *b, int *marks);

static json_object *result_content(struct lreq *r, json_object *content, int *marks)
{
    if (!json_object_is_type(content, json_type_array))
        return json_object_get(content);
    json_object *out = json_new_arr();
    for (size_t i = 0; i < json_object_array_length(content); i++) {
        json_object *o = block_of(r, json_object_array_get_idx(content, i), marks);
        if (o)
            json_push(out, o);
    }
    return out;
}

/* One block as theirs (owned), NULL for one that is left out. */
static json_object *block_of(struct lreq *r, json_object *b, int *marks)
{
    const char *type = json_str(b, "type", "");
    json_object *o = NULL;

    if (str_eq(type, "text")) {
        o = json_make("type:s text:s", "text", json_str(b, "text", ""));
    } else if (str_eq(type, "tool_use")) {
        o = json_make("type:s id:s name:s input:o", "tool_use", json_str(b, "id", ""),
                      names_wire(&r->names, json_str(b, "name", "tool")),
                      json_object_get(json_obj(b, "input")));
    } else if (str_eq(type, "tool_result")) {
        o = json_make("type:s tool_use_id:s content:o", "tool_result",
                      json_str(b, "tool_use_id", ""),
                      result_content(r, json_get(b, "content"), marks));
        if (json_flag(b, "is_error", false))
            json_add_bool(o, "is_error", true);
    } else if (str_eq(type, "image")) {
        o = json_make("type:s source:o", "image", source_of(b, false));
    } else if (str_eq(type, "document")) {
        o = json_make("type:s source:o", "document", source_of(b, true));
        if (json_get(b, "title"))
            json_add_str(o, "title", json_str(b, "title", ""));
    } else if (str_eq(type, "thinking") && json_get(b, "signature")) {
        o = json_make("type:s thinking:s signature:s", "thinking", json_str(b, "thinking", ""),
                      json_str(b, "signature", ""));
    } else if (str_eq(type, "redacted_thinking")) {
        o = json_make("type:s data:s", "redacted_thinking", json_str(b, "data", ""));
    }
    if (o && json_flag(b, "cache", false) && *marks < MARKS_MAX) {
        mark(o);
        (*marks)++;
    }
    return o;
}

static json_object *messages_of(struct lreq *r, int *marks)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(r->messages); i++) {
        json_object *m = json_object_array_get_idx(r->messages, i), *blocks = json_new_arr();
        json_object *in = json_get(m, "content");

        for (size_t k = 0; k < json_object_array_length(in); k++) {
            json_object *o = block_of(r, json_object_array_get_idx(in, k), marks);
            if (o)
                json_push(blocks, o);
        }
        if (!json_object_array_length(blocks)) /* thinking alone, unsigned */
            json_push(blocks, json_make("type:s text:s", "text", "(no text)"));
        json_push(out, json_make("role:s content:o", json_str(m, "role", "user"), blocks));
    }
    return out;
}

static json_object *tools_of(struct lreq *r, int *marks)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(r->tools); i++) {
        json_object *t = json_object_array_get_idx(r->tools, i);
        json_object *o = json_make(
            "name:s description:s input_schema:o", names_wire(&r->names, json_str(t, "name", "")),
            json_str(t, "description", ""), json_object_get(json_get(t, "input_schema")));

        if (json_flag(t, "cache", false) && *marks < MARKS_MAX) {
            mark(o);
            (*marks)++;
        }
        json_push(out, o);
    }
    return out;
}

static json_object *last_of(json_object *arr)
{
    size_t n = arr ? json_object_array_length(arr) : 0;
    return n ? json_object_array_get_idx(arr, n - 1) : NULL;
}

static void mark_auto(json_object *block, int *marks)
{
    if (!block || *marks >= MARKS_MAX || json_get(block, "cache_control") ||
        strstr(json_str(block, "type", "text"), "thinking"))
        return;
    mark(block);
    (*marks)++;
}

/* The last tool, the end of system, the last block of the user turn before the last one. */
static void auto_marks(json_object *tools, json_object *sys, json_object *messages, int *marks)
{
    size_t n = json_object_array_length(messages), users = 0;

    mark_auto(last_of(tools), marks);
    mark_auto(last_of(sys), marks);
    for (size_t i = n; i-- > 0;) {
        json_object *m = json_object_array_get_idx(messages, i);

        if (str_eq(json_str(m, "role", ""), "user") && ++users == 2) {
            mark_auto(last_of(json_get(m, "content")), marks);
            break;
        }
    }
}

static json_object *choice_of(struct lreq *r)
{
    switch (r->choice) {
    case CHOICE_NONE:
        return json_make("type:s", "none");
    case CHOICE_REQUIRED:
        return json_make("type:s", "any");
    case CHOICE_NAMED:
        return json_make("type:s name:s", "tool", names_wire(&r->names, r->choice_name));
    case CHOICE_AUTO:
        break;
    }
    return NULL;
}

static bool has_cap(const struct model_conf *m, const char *cap)
{
    return !m || !m->capabilities || json_arr_has(m->capabilities, cap);
}

static void put_thinking(struct lreq *r, const struct target *t, json_object *body,
                         json_object *config)
{
    enum thinking_mode mode = t->m ? t->m->thinking : THINK_NONE;

    if (!r->thinking || t->drop & PARAM_THINKING || r->choice == CHOICE_REQUIRED ||
        r->choice == CHOICE_NAMED)
        return;
    if (mode == THINK_ADAPTIVE) {
        json_add(body, "thinking", json_make("type:s", "adaptive"));
        if (r->effort)
            json_add_str(config, "effort", effort_names[r->effort]);
    } else if (mode == THINK_BUDGET) {
        int64_t budget = r->budget_tokens ? r->budget_tokens : t->max_tokens / 2;

        budget = budget < BUDGET_MIN ? BUDGET_MIN : budget;
        if (budget < t->max_tokens)
            json_add(body, "thinking", json_make("type:s budget_tokens:i", "enabled", budget));
    }
}

static void put_format(struct lreq *r, const struct target *t, json_object *body,
                       json_object *config)
{
    json_object *schema = json_obj(r->response_format, "schema");

    if (!r->response_format)
        return;
    if (schema && t->m && t->m->capabilities && has_cap(t->m, "structured_output")) {
        json_add(config, "format",
                 json_make("type:s schema:o", "json_schema", json_object_get(schema)));
        return;
    }
    json_object *tools = json_arr(body, "tools");
    if (!tools) {
        tools = json_new_arr();
        json_add(body, "tools", tools);
    }
    json_push(tools, json_make("name:s description:s input_schema:o", FORCED_TOOL,
                               "Gives the answer in the required form.",
                               schema ? json_object_get(schema) : json_make("type:s", "object")));
    json_add(body, "tool_choice", json_make("type:s name:s", "tool", FORCED_TOOL));
    json_object_object_del(body, "thinking");
}

static void put_sampling(const struct lreq *r, const struct target *t, json_object *body)
{
    bool temperature =
        r->has_temperature && !(t->drop & PARAM_TEMPERATURE) && !json_get(body, "thinking");

    if (temperature)
        json_add_num(body, "temperature", r->temperature > 1 ? 1 : r->temperature);
    else if (r->has_top_p && !(t->drop & PARAM_TOP_P) && !json_get(body, "thinking"))
        json_add_num(body, "top_p", r->top_p);
    if (r->stop_sequences && !(t->drop & PARAM_STOP))
        json_add(body, "stop_sequences", json_object_get(r->stop_sequences));
}

static int build(struct lreq *r, const struct target *t, bool stream, struct buf *out,
                 const char **why)
{
    cleanup(json_putp) json_object *body =
        json_make("model:s max_tokens:i", t->model, t->max_tokens);
    cleanup(json_putp) json_object *config = json_new(), *sys = json_new_arr();
    int marks = 0;

    (void)why;
    for (size_t i = 0; i < json_object_array_length(r->sys); i++)
        json_push(sys, block_of(r, json_object_array_get_idx(r->sys, i), &marks));
    json_object *tools = tools_of(r, &marks), *messages = messages_of(r, &marks);
    if (t->cache_auto && r->bytes > CACHE_MIN)
        auto_marks(tools, sys, messages, &marks);
    size_t n = json_object_array_length(sys);
    if (n == 1 && !json_get(last_of(sys), "cache_control"))
        json_add_str(body, "system", json_str(last_of(sys), "text", ""));
    else if (n)
        json_add(body, "system", json_object_get(sys));
    json_add(body, "messages", messages);
    if (json_object_array_length(tools))
        json_add(body, "tools", tools);
    else
        json_put(tools);
    json_object *choice = json_get(body, "tools") ? choice_of(r) : NULL;
    if (choice)
        json_add(body, "tool_choice", choice);
    put_thinking(r, t, body, config);
    put_format(r, t, body, config);
    put_sampling(r, t, body);
    if (json_object_object_length(config))
        json_add(body, "output_config", json_object_get(config));
    if (t->p->extra_body) {
        json_object_object_foreach (t->p->extra_body, key, value)
            json_add(body, key, json_object_get(value));
    }
    if (stream)
        json_add_bool(body, "stream", true);
    return buf_adds(out, json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN |
                                                                  JSON_C_TO_STRING_NOSLASHESCAPE))
               ? ERR_TOOBIG
               : 0;
}

/* --- answers --- */

static void usage(struct answer *a, json_object *u)
{
    int64_t in = json_int(u, "input_tokens", -1);

    if (in >= 0) {
        a->cache_write = json_int(u, "cache_creation_input_tokens", a->cache_write);
        a->cache_read = json_int(u, "cache_read_input_tokens", a->cache_read);
        a->in = in + a->cache_write + a->cache_read;
        a->have_in = true;
    }
    if (json_get(u, "output_tokens")) {
        a->out = json_int(u, "output_tokens", 0);
        a->have_out = true;
    }
}

static int set_stop(struct decoder *d, const char *reason)
{
    struct answer *a = d->a;

    if (str_empty(reason))
        return 0;
    if (str_eq(reason, "tool_use")) {
        a->stop = d->forced_text ? STOP_END : STOP_TOOL;
    } else if (str_eq(reason, "max_tokens")) {
        a->stop = STOP_MAX;
    } else if (str_eq(reason, "model_context_window_exceeded")) {
        a->stop = STOP_MAX;
        str_copy(a->stop_detail, sizeof a->stop_detail, reason);
    } else if (str_eq(reason, "stop_sequence")) {
        a->stop = STOP_SEQUENCE;
    } else if (str_eq(reason, "refusal")) {
        fault_set(d->fault, ERR_CONTENT, "the model refused to answer");
        str_copy(d->fault->type, sizeof d->fault->type, "refusal");
        d->fault->partial = answer_partial(a);
        return ERR_CONTENT;
    } else {
        a->stop = STOP_END;
        if (!str_eq(reason, "end_turn"))
            str_copy(a->stop_detail, sizeof a->stop_detail, reason);
    }
    return 0;
}

static void message_head(struct answer *a, json_object *m)
{
    str_copy(a->request_id, sizeof a->request_id, json_str(m, "id", a->request_id));
    str_copy(a->model, sizeof a->model, json_str(m, "model", a->model));
    usage(a, json_obj(m, "usage"));
}

static int tool_begin(struct decoder *d, int index, json_object *b)
{
    char name[256];
    const char *wire = json_str(b, "name", "");

    if (str_eq(wire, FORCED_TOOL)) {
        d->forced_text = true;
        d->forced_index = index;
        answer_block_end(d->a);
        return 0;
    }
    names_avix(d->names, wire, name);
    return answer_tool_start(d->a, index, json_str(b, "id", ""), name);
}

static int block_start(struct decoder *d, json_object *o)
{
    json_object *b = json_obj(o, "content_block");
    const char *type = json_str(b, "type", ""), *s = NULL;
    int index = (int)json_int(o, "index", 0);

    if (str_eq(type, "tool_use"))
        return tool_begin(d, index, b);
    answer_block_end(d->a);
    if (str_eq(type, "redacted_thinking"))
        answer_redacted(d->a, json_str(b, "data", ""));
    else if (str_eq(type, "text") && (s = json_str(b, "text", "")) && *s)
        return answer_text(d->a, s, strlen(s));
    else if (str_eq(type, "thinking") && (s = json_str(b, "thinking", "")) && *s)
        return answer_thinking(d->a, s, strlen(s));
    return 0;
}

static struct json_slice inner(struct json_slice s)
{
    if (s.len >= 2 && s.at[0] == '"')
        return (struct json_slice){ s.at + 1, s.len - 2 };
    return (struct json_slice){ NULL, 0 };
}

static int block_delta(struct decoder *d, const char *data, size_t len)
{
    static const char *const top[] = { "index", "delta" };
    static const char *const parts[] = { "text", "partial_json", "thinking", "signature" };
    struct json_slice t[2], p[4];
    char num[16];
    int64_t index = 0;

    if (json_scan(data, len, top, t, 2) || !t[1].len || json_scan(t[1].at, t[1].len, parts, p, 4))
        return wire_bad(d, "a stream event is no JSON");
    snprintf(num, sizeof num, "%.*s", t[0].len < 12 ? (int)t[0].len : 12, t[0].len ? t[0].at : "0");
    (void)parse_i64(num, 0, INT32_MAX, &index);
    struct json_slice s = inner(p[0]);
    if (p[0].len)
        return answer_text_esc(d->a, s.at, s.len) ? wire_bad(d, "the answer is too long") : 0;
    if (p[1].len) {
        s = inner(p[1]);
        if ((int)index == d->forced_index) {
            char *text = xmalloc(p[1].len + 1);
            int r = 0;
            /* arguments of the forced tool are JSON text inside a JSON string: that text is the
             * answer */
            r = json_slice_str(p[1], text, p[1].len + 1) ? answer_text(d->a, text, strlen(text))
                                                         : ERR_PROVPROTO;
            free(text);
            return r ? wire_bad(d, "a stream event is no JSON") : 0;
        }
        return answer_tool_args_esc(d->a, (int)index, s.at, s.len)
                   ? wire_bad(d, "arguments without a tool call")
                   : 0;
    }
    s = inner(p[2]);
    if (p[2].len)
        return answer_thinking_esc(d->a, s.at, s.len) ? wire_bad(d, "the answer is too long") : 0;
    s = inner(p[3]);
    if (p[3].len)
        answer_signature(d->a, s.at, s.len); /* base64: nothing to unescape */
    return 0;
}

static int event_error(struct decoder *d, json_object *o)
{
    fault_from_event(d->fault, d->p, json_obj(o, "error"));
    return d->fault->err;
}

static int event(struct decoder *d, const char *name, const char *data, size_t len)
{
    cleanup(json_putp) json_object *o = NULL;

    if (str_eq(name, "content_block_delta"))
        return block_delta(d, data, len);
    if (json_parse(data, len, &o) || !json_object_is_type(o, json_type_object))
        return wire_bad(d, "a stream event is no JSON");
    const char *type = json_str(o, "type", name);
    if (str_eq(type, "content_block_delta"))
        return block_delta(d, data, len);
    if (str_eq(type, "message_start")) {
        message_head(d->a, json_obj(o, "message"));
    } else if (str_eq(type, "content_block_start")) {
        return block_start(d, o) ? wire_bad(d, "the answer is too long") : 0;
    } else if (str_eq(type, "content_block_stop")) {
        int index = (int)json_int(o, "index", 0);
        if (answer_tool(d->a, index))
            answer_tool_end(d->a, index);
        answer_block_end(d->a);
    } else if (str_eq(type, "message_delta")) {
        usage(d->a, json_obj(o, "usage"));
        return set_stop(d, json_str(json_obj(o, "delta"), "stop_reason", ""));
    } else if (str_eq(type, "message_stop")) {
        d->closed = true;
    } else if (str_eq(type, "error")) {
        return event_error(d, o);
    }
    return 0;
}

static int end(struct decoder *d)
{
    return d->closed ? 0 : wire_bad(d, "the stream ended without message_stop");
}

static int whole_block(struct decoder *d, int index, json_object *b)
{
    const char *type = json_str(b, "type", ""), *s = json_str(b, "text", "");
    int r = 0;

    if (str_eq(type, "text")) {
        answer_block_end(d->a);
        return answer_text(d->a, s, strlen(s));
    }
    if (str_eq(type, "tool_use")) {
        const char *args = json_text(json_get(b, "input"));

        if ((r = tool_begin(d, index, b)))
            return r;
        if (index == d->forced_index)
            return answer_text(d->a, args, strlen(args));
        r = answer_tool_args(d->a, index, args, strlen(args));
        answer_tool_end(d->a, index);
        return r;
    }
    if (str_eq(type, "thinking")) {
        answer_block_end(d->a);
        s = json_str(b, "thinking", "");
        r = answer_thinking(d->a, s, strlen(s));
        s = json_str(b, "signature", "");
        if (*s)
            answer_signature(d->a, s, strlen(s));
    } else if (str_eq(type, "redacted_thinking")) {
        answer_redacted(d->a, json_str(b, "data", ""));
    }
    return r;
}

static int whole(struct decoder *d, json_object *body)
{
    json_object *content = json_arr(body, "content");

    if (str_eq(json_str(body, "type", ""), "error"))
        return event_error(d, body);
    if (!content)
        return wire_bad(d, "the answer has no content");
    message_head(d->a, body);
    for (size_t i = 0; i < json_object_array_length(content); i++)
        if (whole_block(d, (int)i, json_object_array_get_idx(content, i)))
            return wire_bad(d, "the answer is too long");
    d->closed = true;
    return set_stop(d, json_str(body, "stop_reason", "end_turn"));
}

const struct wire wire_anthropic = {
    .path = path, .build = build, .event = event, .end = end, .whole = whole
};
