/*
 * Everything here follows from the lines alone, so that a process that was started again builds the
 * same messages as the one that died. Only the removal of old results is not on disk: it comes back
 * by itself when the context is full again.
 */
#include "kernel/agent/context.h"

#include <stdio.h>

void context_init(struct context *c, int64_t limit)
{
    *c = (struct context){ .limit = limit, .summary = xstrdup("") };
}

static void entries_cut(struct context *c, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        json_put(c->e[i].line);
    memmove(c->e + from, c->e + to, (c->n - to) * sizeof *c->e);
    c->n -= to - from;
}

void context_done(struct context *c)
{
    entries_cut(c, 0, c->n);
    free(c->e);
    free(c->summary);
    *c = (struct context){ .n = 0 };
}

static enum line_role role_of(json_object *line)
{
    static const char *const names[] = { [LINE_USER] = "user",
                                         [LINE_ASSISTANT] = "assistant",
                                         [LINE_TOOL] = "tool",
                                         [LINE_SYSTEM] = "system" };
    const char *role = json_str(line, "role", "");

    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (!strcmp(role, names[i]))
            return (enum line_role)i;
    return LINE_OTHER;
}

char *text_cut_middle(const char *s, size_t len, size_t max)
{
    char note[64];

    if (len <= max)
        return xstrndup(s, len);
    size_t room = max > sizeof note ? max - sizeof note : 0;
    size_t head = utf8_floor(s, room / 2);
    size_t tail = len - room / 2;
    while (tail < len && ((unsigned char)s[tail] & 0xc0) == 0x80)
        tail++;
    snprintf(note, sizeof note, "\n[… %zu bytes cut …]\n", tail - head);
    return xasprintf("%.*s%s%.*s", (int)head, s, note, (int)(len - tail), s + tail);
}

/* A copy of a tool line with the content as the model sees it; its result is not needed here. */
static json_object *tool_line(json_object *line)
{
    const char *text = json_str(line, "content", "");
    cleanup(freep) char *cut = text_cut_middle(text, strlen(text), CONTEXT_RESULT_MAX);
    json_object *o =
        json_make("role:s toolCallId:s content:s", "tool", json_str(line, "toolCallId", ""), cut);

    if (json_get(line, "error"))
        json_add_bool(o, "error", true);
    return o;
}

static size_t line_bytes(json_object *line)
{
    json_object *calls = json_arr(line, "toolCalls");

    return strlen(json_str(line, "content", "")) + (calls ? strlen(json_text(calls)) : 0);
}

/* Drops the entries of this file with from <= seq <= to. What stands before them in older files and
 * after the first user entry goes too when from is 0: the summary covers it. */
static void apply_summary(struct context *c, json_object *line)
{
    json_object *of = json_obj(line, "summaryOf");
    int64_t from = json_int(of, "from", -1), to = json_int(of, "to", -1);
    size_t out = 0;
    bool first_user = true;
    static const char head[] = "[Context summary]: ";
    const char *text = json_str(line, "content", "");

    for (size_t i = 0; i < c->n; i++) {
        struct entry *e = &c->e[i];
        bool keep = first_user && e->role == LINE_USER;
        if (keep)
            first_user = false;
        if (!keep && (e->file == c->file ? e->seq >= from && e->seq <= to : from == 0))
            json_put(e->line);
        else
            c->e[out++] = *e;
    }
    c->n = out;
    free(c->summary);
    c->summary = xstrdup(str_starts(text, head) ? text + sizeof head - 1 : text);
    c->base = 0;
    c->added = strlen(c->summary);
    for (size_t i = 0; i < c->n; i++)
        c->added += line_bytes(c->e[i].line);
}

void context_add(struct context *c, json_object *line)
{
    enum line_role role = role_of(line);

    if (role == LINE_SYSTEM && json_obj(line, "summaryOf")) {
        apply_summary(c, line);
        return;
    }
    if (role == LINE_SYSTEM || role == LINE_OTHER)
        return;
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 8;
        c->e = xrealloc(c->e, c->cap * sizeof *c->e);
    }
    json_object *mine = role == LINE_TOOL ? tool_line(line) : json_object_get(line);
    c->added += line_bytes(mine);
    c->e[c->n++] = (struct entry){
        .line = mine, .role = role, .seq = json_int(line, "seq", 0), .file = c->file
    };
}

size_t context_replay(struct context *c, const char *text, size_t len, bool own)
{
    size_t bad = 0;
    int64_t last = 0;

    while (len) {
        const char *nl = memchr(text, '\n', len);
        size_t n = nl ? (size_t)(nl - text) : len;
        cleanup(json_putp) json_object *line = NULL;
        if (n && (json_parse(text, n, &line) || !json_object_is_type(line, json_type_object))) {
            bad++;
        } else if (n) {
            int64_t seq = json_int(line, "seq", 0);
            if (seq <= last && !own)
                c->file++;
            last = seq;
            context_add(c, line);
            json_object *usage = json_obj(line, "usage");
            if (usage && role_of(line) == LINE_ASSISTANT) {
                c->base = json_int(usage, "in", 0);
                c->added = line_bytes(line);
            }
        }
        n += nl ? 1 : 0;
        text += n;
        len -= n;
    }
    if (!own) {
        c->file++;
        c->base = 0; /* another prompt: the estimate starts anew */
        c->added = strlen(c->summary);
        for (size_t i = 0; i < c->n; i++)
            c->added += line_bytes(c->e[i].line);
    }
    return bad;
}

static json_object *text_block(const char *text)
{
    return json_make("type:s text:s", "text", text);
}

static json_object *assistant_message(json_object *line)
{
    json_object *blocks = json_new_arr(), *calls = json_arr(line, "toolCalls");
    const char *text = json_str(line, "content", "");

    if (*text)
        json_push(blocks, text_block(text));
    for (size_t i = 0; calls && i < json_object_array_length(calls); i++) {
        json_object *k = json_object_array_get_idx(calls, i), *args = json_obj(k, "args");
        json_push(blocks,
                  json_make("type:s id:s name:s input:o", "tool_use", json_str(k, "id", ""),
                            json_str(k, "name", ""), args ? json_object_get(args) : json_new()));
    }
    if (!json_object_array_length(blocks)) {
        json_put(blocks);
        return NULL;
    }
    return json_make("role:s content:o", "assistant", blocks);
}

static json_object *result_block(json_object *line)
{
    json_object *b = json_make("type:s tool_use_id:s content:s", "tool_result",
                               json_str(line, "toolCallId", ""), json_str(line, "content", ""));

    if (json_flag(line, "error", false))
        json_add_bool(b, "is_error", true);
    return b;
}

json_object *context_range_messages(const struct context *c, size_t from, size_t to)
{
    json_object *out = json_new_arr(), *results = NULL;

    for (size_t i = from; i < to; i++) {
        struct entry *e = &c->e[i];
        json_object *m = NULL;
        if (e->role == LINE_TOOL) {
            if (!results) {
                results = json_new_arr();
                json_push(out, json_make("role:s content:o", "user", results));
            }
            json_push(results, result_block(e->line));
            continue;
        }
        results = NULL;
        if (e->role == LINE_USER)
            m = json_make("role:s content:s", "user", json_str(e->line, "content", ""));
        else
            m = assistant_message(e->line);
        if (m)
            json_push(out, m);
    }
    return out;
}

json_object *context_messages(const struct context *c)
{
    return context_range_messages(c, 0, c->n);
}

int64_t context_used(const struct context *c)
{
    return c->base + (int64_t)((c->added + 3) / 4);
}

void context_counted(struct context *c, int64_t input_tokens)
{
    if (input_tokens <= 0)
        return;
    c->base = input_tokens;
    c->added = 0;
}

bool context_full(const struct context *c)
{
    return context_used(c) * 100 >= c->limit * 85;
}

bool context_summary_range(const struct context *c, size_t *from, size_t *to)
{
    size_t first = 0;

    while (first < c->n && c->e[first].role != LINE_USER)
        first++;
    size_t end = c->n > CONTEXT_KEEP ? c->n - CONTEXT_KEEP : 0;
    while (end > first && c->e[end].role == LINE_TOOL)
        end--;
    if (first + 1 >= end)
        return false;
    *from = first + 1;
    *to = end;
    return true;
}

static const char *name_of_call(const struct context *c, size_t before, const char *id)
{
    for (size_t i = before; i-- > 0;) {
        json_object *calls = json_arr(c->e[i].line, "toolCalls");
        for (size_t k = 0; calls && k < json_object_array_length(calls); k++) {
            json_object *call = json_object_array_get_idx(calls, k);
            if (str_eq(json_str(call, "id", ""), id))
                return json_str(call, "name", "a tool");
        }
    }
    return "a tool";
}

bool context_drop_results(struct context *c, bool all)
{
    bool any = false;

    for (size_t i = 0; i < c->n && (all || context_full(c)); i++) {
        json_object *line = c->e[i].line;
        const char *text = json_str(line, "content", "");
        size_t n = strlen(text);
        if (c->e[i].role != LINE_TOOL || n < 128)
            continue;
        const char *tool = name_of_call(c, i, json_str(line, "toolCallId", ""));
        cleanup(freep) char *note = xasprintf("[removed: %zu bytes of %s]", n, tool);
        size_t gone = n - strlen(note);
        json_add_str(line, "content", note);
        any = true;
        if (c->added >= gone)
            c->added -= gone;
        else
            c->base = c->base > (int64_t)(gone / 4) ? c->base - (int64_t)(gone / 4) : 0;
    }
    return any;
}

json_object *context_result_of(const struct context *c, size_t i, const char *call_id)
{
    for (i++; i < c->n && c->e[i].role == LINE_TOOL; i++)
        if (str_eq(json_str(c->e[i].line, "toolCallId", ""), call_id))
            return c->e[i].line;
    return NULL;
}

ssize_t context_open_calls(const struct context *c)
{
    size_t i = c->n;

    while (i > 0 && c->e[i - 1].role == LINE_TOOL)
        i--;
    if (!i || c->e[i - 1].role != LINE_ASSISTANT)
        return -1;
    i--;
    json_object *calls = json_arr(c->e[i].line, "toolCalls");
    for (size_t k = 0; calls && k < json_object_array_length(calls); k++)
        if (!context_result_of(c, i, json_str(json_object_array_get_idx(calls, k), "id", "")))
            return (ssize_t)i;
    return -1;
}
