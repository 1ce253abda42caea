/*
 * Making a history valid (llm page, section 3). First every message becomes blocks in our shape,
 * whatever spelling it came in; then calls and results are paired over the whole history; then it
 * is written out again with alternating roles, each result in the turn right after its call.
 */
#include <ctype.h>

#include "common/base/err.h"
#include "llmsvc/shape.h"

#define ID_MAX   64
#define MSGS_MAX 20000

struct turn {
    bool assistant;
    json_object *blocks; /* owned array */
};

struct history {
    struct turn *turns;
    size_t n, cap;
};

static void history_free(struct history *h)
{
    for (size_t i = 0; i < h->n; i++)
        json_put(h->turns[i].blocks);
    free(h->turns);
}

/* The array of the turn that comes next: the last one, if the role is the same. */
static json_object *turn_for(struct history *h, bool assistant)
{
    if (h->n && h->turns[h->n - 1].assistant == assistant)
        return h->turns[h->n - 1].blocks;
    if (h->n == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 16;
        h->turns = xrealloc(h->turns, h->cap * sizeof *h->turns);
    }
    h->turns[h->n] = (struct turn){ .assistant = assistant, .blocks = json_new_arr() };
    return h->turns[h->n++].blocks;
}

static json_object *text_block(const char *s)
{
    return json_make("type:s text:s", "text", s);
}

static void rename_key(json_object *o, const char *camel, const char *snake)
{
    json_object *v = json_get(o, camel);

    if (!v)
        return;
    if (!json_get(o, snake))
        json_add(o, snake, json_object_get(v));
    json_object_object_del(o, camel);
}

/* A block in our spelling (owned), NULL for one that is dropped, or *why for one nobody knows. */
static json_object *block_of(json_object *b, const char **why)
{
    static const char *const known[] = { "image",       "document", "tool_use",
                                         "tool_result", "thinking", "redacted_thinking" };
    const char *type = json_str(b, "type", "");

    if (json_object_is_type(b, json_type_string))
        return *json_object_get_string(b) ? text_block(json_object_get_string(b)) : NULL;
    if (str_eq(type, "text") || str_eq(type, "input_text")) {
        const char *s = json_str(b, "text", "");
        json_object *o = *s ? text_block(s) : NULL;

        if (o && json_flag(b, "cache", false))
            json_add_bool(o, "cache", true);
        return o;
    }
    if (str_eq(type, "image_url")) { /* the OpenAI spelling of an image */
        const char *url = json_str(json_obj(b, "image_url"), "url", "");
        const char *data = strstr(url, ";base64,");

        if (str_starts(url, "data:") && data) {
            cleanup(freep) char *media = xstrndup(url + 5, (size_t)(data - url - 5));
            return json_make("type:s source:o", "image",
                             json_make("type:s media_type:s data:s", "base64", media, data + 8));
        }
        return json_make("type:s source:o", "image", json_make("type:s url:s", "url", url));
    }
    for (size_t i = 0; i < N_ELEMS(known); i++) {
        if (!str_eq(type, known[i]))
            continue;
        json_object *o = json_dup(b);
        rename_key(o, "toolUseId", "tool_use_id");
        rename_key(o, "isError", "is_error");
        rename_key(json_obj(o, "source"), "mediaType", "media_type");
        return o;
    }
    *why = "unknown block type";
    return NULL;
}

static json_object *call_of(json_object *tool_call)
{
    json_object *f = json_obj(tool_call, "function"), *input = NULL;
    const char *args = json_str(f, "arguments", "{}");

    if (json_parse(args, strlen(args), &input) || !json_object_is_type(input, json_type_object)) {
        json_put(input);
        input = json_new();
    }
    return json_make("type:s id:s name:s input:o", "tool_use", json_str(tool_call, "id", ""),
                     json_str(f, "name", ""), input);
}

static void add_content(json_object *blocks, json_object *content, const char **why)
{
    if (json_object_is_type(content, json_type_string)) {
        if (*json_object_get_string(content))
            json_push(blocks, text_block(json_object_get_string(content)));
    } else if (json_object_is_type(content, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(content) && !*why; i++) {
            json_object *o = block_of(json_object_array_get_idx(content, i), why);
            if (o)
                json_push(blocks, o);
        }
    } else if (content) {
        *why = "content must be a string or blocks";
    }
}

static void add_message(struct history *h, json_object *m, json_object *sys, const char **why)
{
    const char *role = json_str(m, "role", "");
    json_object *content = json_get(m, "content"), *calls = json_arr(m, "tool_calls");

    if (!calls)
        calls = json_arr(m, "toolCalls");
    if (str_eq(role, "system") || str_eq(role, "developer")) {
        add_content(sys, content, why);
    } else if (str_eq(role, "user")) {
        add_content(turn_for(h, false), content, why);
    } else if (str_eq(role, "assistant")) {
        json_object *blocks = turn_for(h, true);

        add_content(blocks, content, why);
        for (size_t i = 0; calls && i < json_object_array_length(calls); i++)
            json_push(blocks, call_of(json_object_array_get_idx(calls, i)));
    } else if (str_eq(role, "tool")) {
        const char *id = json_str(m, "tool_call_id",
                                  json_str(m, "toolCallId", json_str(m, "tool_use_id", NULL)));

        if (!id) { /* already our tool_result blocks */
            add_content(turn_for(h, false), content, why);
            return;
        }
        json_object *r = json_make("type:s tool_use_id:s content:o", "tool_result", id,
                                   content ? json_dup(content) : json_object_new_string(""));
        if (json_flag(m, "is_error", false))
            json_add_bool(r, "is_error", true);
        json_push(turn_for(h, false), r);
    } else {
        *why = "role must be user, assistant, tool or system";
    }
}

static bool is_type(json_object *b, const char *type)
{
    return str_eq(json_str(b, "type", ""), type);
}

/* The first unused result for this id in a later turn, before the id is called again; owned. */
static json_object *take_result(struct history *h, size_t turn, const char *id)
{
    for (size_t t = turn + 1; t < h->n; t++) {
        json_object *blocks = h->turns[t].blocks;

        for (size_t i = 0; i < json_object_array_length(blocks); i++) {
            json_object *b = json_object_array_get_idx(blocks, i);

            if (h->turns[t].assistant && is_type(b, "tool_use") &&
                str_eq(json_str(b, "id", ""), id))
                return NULL;
            if (h->turns[t].assistant || !is_type(b, "tool_result") ||
                !str_eq(json_str(b, "tool_use_id", ""), id))
                continue;
            json_object_get(b);
            json_object_array_del_idx(blocks, i, 1);
            return b;
        }
    }
    return NULL;
}

/* A legal id that no other call of the history has. used: ids given so far. */
static const char *clean_id(struct map *used, const char *id, char out[ID_MAX + 1])
{
    static char mark;
    size_t n = 0;

    for (const char *p = id; *p && n < ID_MAX; p++)
        out[n++] = isalnum((unsigned char)*p) || *p == '-' || *p == '_' ? *p : '_';
    if (!n)
        n = (size_t)snprintf(out, ID_MAX + 1, "call");
    out[n] = '\0';
    for (unsigned k = 2; map_get(used, out); k++) {
        char tail[16];
        int len = snprintf(tail, sizeof tail, "_%u", k);
        size_t keep = n + (size_t)len > ID_MAX ? ID_MAX - (size_t)len : n;

        memcpy(out + keep, tail, (size_t)len + 1);
    }
    map_put(used, out, &mark);
    return out;
}

static json_object *result_for(json_object *found, const char *id)
{
    json_object *o = json_make("type:s tool_use_id:s", "tool_result", id);

    if (!found) {
        json_add_str(o, "content", "no result");
        json_add_bool(o, "is_error", true);
        return o;
    }
    json_object *content = json_get(found, "content");
    if (content && !json_object_is_type(content, json_type_string) &&
        !json_object_is_type(content, json_type_array))
        json_add_str(o, "content", json_text(content)); /* a bare value: its JSON text */
    else
        json_add(o, "content", content ? json_object_get(content) : json_object_new_string(""));
    if (json_flag(found, "is_error", false))
        json_add_bool(o, "is_error", true);
    if (json_flag(found, "cache", false))
        json_add_bool(o, "cache", true);
    return o;
}

static void push_message(json_object *out, bool assistant, json_object *blocks)
{
    json_push(out, json_make("role:s content:o", assistant ? "assistant" : "user", blocks));
}

/* The assistant turn with clean ids; its results, in the order of the calls, go to *results. */
static json_object *assistant_turn(struct history *h, size_t t, struct map *used,
                                   json_object *results)
{
    json_object *in = h->turns[t].blocks, *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(in); i++) {
        json_object *b = json_object_array_get_idx(in, i);
        char id[ID_MAX + 1];

        if (is_type(b, "tool_result"))
            continue;
        if (is_type(b, "tool_use")) {
            const char *old = json_str(b, "id", "");
            cleanup(json_putp) json_object *found = take_result(h, t, old);

            clean_id(used, old, id);
            json_push(results, result_for(found, id));
            json_add_str(b, "id", id);
            if (!json_obj(b, "input"))
                json_add(b, "input", json_new());
        }
        json_push(out, json_object_get(b));
    }
    return out;
}

/* A user turn without results that belong to no call. */
static void user_blocks(struct history *h, size_t t, json_object *out)
{
    json_object *in = h->turns[t].blocks;

    for (size_t i = 0; i < json_object_array_length(in); i++) {
        json_object *b = json_object_array_get_idx(in, i);

        if (!is_type(b, "tool_result") && !is_type(b, "tool_use") && !is_type(b, "thinking"))
            json_push(out, json_object_get(b));
    }
}

/* Writes turns out; neighbours of one role (a turn between them was dropped) are merged. */
static void write_turns(struct history *h, json_object *out)
{
    cleanup(json_putp) json_object *pending = NULL; /* the user turn being filled */
    json_object *last = NULL;                       /* content of the assistant turn before it */
    struct map used;

    map_init(&used);
    for (size_t t = 0; t < h->n; t++) {
        if (!h->turns[t].assistant) {
            if (!pending)
                pending = json_new_arr();
            user_blocks(h, t, pending);
            continue;
        }
        json_object *results = json_new_arr();
        json_object *blocks = assistant_turn(h, t, &used, results);

        if (!json_object_array_length(blocks)) {
            json_put(blocks);
            json_put(results);
            continue;
        }
        if (pending && json_object_array_length(pending)) {
            push_message(out, false, TAKE(pending));
            last = NULL;
        }
        json_put(pending);
        pending = NULL;
        if (last) {
            for (size_t i = 0; i < json_object_array_length(blocks); i++)
                json_push(last, json_object_get(json_object_array_get_idx(blocks, i)));
            json_put(blocks);
        } else {
            if (!json_object_array_length(out)) {
                json_object *first = json_new_arr();
                json_push(first, text_block("(continued)"));
                push_message(out, false, first);
            }
            last = blocks;
            push_message(out, true, blocks);
        }
        pending = results;
    }
    if (pending && json_object_array_length(pending))
        push_message(out, false, TAKE(pending));
    map_done(&used);
}

int history_repair(json_object *messages, json_object *sys, json_object **ret, const char **why)
{
    size_t n = json_object_array_length(messages);
    struct history h = { 0 };

    *why = n ? NULL : "must not be empty";
    if (n > MSGS_MAX)
        *why = "too many messages";
    for (size_t i = 0; i < n && !*why; i++) {
        json_object *m = json_object_array_get_idx(messages, i);

        if (json_object_is_type(m, json_type_object))
            add_message(&h, m, sys, why);
        else
            *why = "each message must be an object";
    }
    json_object *out = json_new_arr();
    if (!*why)
        write_turns(&h, out);
    history_free(&h);
    size_t len = json_object_array_length(out);
    if (!*why && !len)
        *why = "nothing but empty messages";
    if (!*why && str_eq(json_str(json_object_array_get_idx(out, len - 1), "role", ""), "assistant"))
        *why = "the last message must not be the assistant's";
    if (*why) {
        json_put(out);
        return ERR_INVAL;
    }
    *ret = out;
    return 0;
}
