/*
 * The list is the router's; the compiled table only fills in the always present tools that the
 * executor serves itself, should the list not name them. The order is by name and nothing else, so
 * that providers can cache the prefix.
 */
#include "kernel/agent/tools.h"

#include <stdio.h>

#define INDEX_TOOLS  64
#define LOAD_AT_ONCE 32
#define LOADED_MAX   96

/* name, description, input schema: used when the registry does not describe them */
static const struct {
    const char *name, *desc, *schema;
} own[] = {
    { "cap/escalate",
      "Ask a person for a decision. Gives the option they chose and what they said.",
      "{\"type\":\"object\",\"properties\":{\"reason\":{\"type\":\"string\"},\"context\":{\"type\":"
      "\"string\"},\"options\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{"
      "\"id\":{\"type\":\"string\"},\"label\":{\"type\":\"string\"}},\"required\":[\"id\",\"label\"]"
      "}}},\"required\":[\"reason\"]}" },
    { "cap/list", "List the tools you are granted, your limits and when your token expires.",
      "{\"type\":\"object\",\"properties\":{}}" },
    { "cap/request-tool", "Ask for a tool that you are not granted.",
      "{\"type\":\"object\",\"properties\":{\"tool\":{\"type\":\"string\"},\"reason\":{\"type\":"
      "\"string\"},\"urgency\":{\"type\":\"string\",\"enum\":[\"low\",\"normal\",\"medium\",\"high\"]"
      "}},\"required\":[\"tool\",\"reason\"]}" },
    { "sys/tools", "Search the tools of this system by namespace or keyword.",
      "{\"type\":\"object\",\"properties\":{\"namespace\":{\"type\":\"string\"},\"keyword\":{"
      "\"type\":\"string\"},\"granted_only\":{\"type\":\"boolean\"}}}" },
};

static const char *const always[] = { "cap/escalate", "cap/list", "cap/request-tool", "job/watch",
                                      "sys/tools" };
static const char *const category2[] = { "agent/kill",  "agent/list", "agent/send-message",
                                         "agent/spawn", "agent/wait", "pipe/close",
                                         "pipe/open",   "pipe/read",  "pipe/write" };
static const char *const resumable[] = { "agent/list",   "agent/spawn", "agent/wait",
                                         "cap/escalate", "cap/list",    "cap/request-tool",
                                         "job/watch",    "pipe/read",   "sys/tools" };

static bool among(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

bool tool_always(const char *name)
{
    return among(always, N_ELEMS(always), name);
}

bool tool_category2(const char *name)
{
    return among(category2, N_ELEMS(category2), name);
}

bool tool_resumable(const char *name)
{
    return among(resumable, N_ELEMS(resumable), name);
}

static void tool_done(struct tool *t)
{
    free(t->name);
    free(t->desc);
    json_put(t->schema);
}

void tools_done(struct tools *t)
{
    for (size_t i = 0; i < t->n; i++)
        tool_done(&t->t[i]);
    free(t->t);
    *t = (struct tools){ .n = 0 };
}

struct tool *tools_find(const struct tools *t, const char *name)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(t->t[mid].name, name);
        if (!c)
            return &t->t[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* Puts a tool in its place; a name that is there already stays as it is. */
static struct tool *insert(struct tools *t, const char *name)
{
    size_t i = t->n;

    if (tools_find(t, name))
        return NULL;
    t->t = xrealloc(t->t, (t->n + 1) * sizeof *t->t);
    while (i && strcmp(t->t[i - 1].name, name) > 0) {
        t->t[i] = t->t[i - 1];
        i--;
    }
    t->n++;
    t->t[i] = (struct tool){ .name = xstrdup(name) };
    return &t->t[i];
}

static int64_t duration_ms(json_object *v)
{
    int64_t ms = 0;

    if (json_object_is_type(v, json_type_int))
        ms = json_object_get_int64(v) * 1000;
    else if (json_object_is_type(v, json_type_string))
        (void)parse_duration_ms(json_object_get_string(v), &ms);
    return ms > 0 && ms <= 3600 * 1000 ? ms : 0;
}

static void take_row(struct tools *t, json_object *row)
{
    const char *name = json_str(row, "name", "");
    const char *state = json_str(row, "state", "available");
    bool degraded = str_eq(state, "degraded");
    json_object *schema = json_obj(row, "input_schema");

    if (!*name || (!degraded && !str_eq(state, "available")))
        return;
    struct tool *n = insert(t, name);
    if (!n)
        return;
    n->desc = xstrdup(json_str(row, "description", ""));
    n->schema = json_object_get(schema);
    n->read_only = json_flag(row, "readOnly", false);
    n->idempotent = json_flag(row, "idempotent", false);
    n->untrusted = json_flag(row, "untrusted", false);
    n->degraded = degraded;
    n->timeout_ms = duration_ms(json_get(row, "timeout"));
}

static void add_own(struct tools *t)
{
    for (size_t i = 0; i < N_ELEMS(own); i++) {
        struct tool *n = insert(t, own[i].name);
        if (!n)
            continue;
        n->desc = xstrdup(own[i].desc);
        if (json_parse(own[i].schema, strlen(own[i].schema), &n->schema))
            n->schema = NULL;
    }
}

static size_t wire_size(const struct tool *t)
{
    return 2 * strlen(t->name) + 2 * strlen(t->desc) + 64 +
           (t->schema ? strlen(json_text(t->schema)) : 0);
}

static bool differs(const struct tool *a, const struct tool *b)
{
    return !str_eq(a->desc, b->desc) || a->degraded != b->degraded ||
           !json_object_equal(a->schema, b->schema);
}

bool tools_apply(struct tools *t, json_object *reply, bool (*offered)(const char *name),
                 int64_t context_limit, json_object *gone)
{
    json_object *list = json_arr(reply, "tools");
    struct tools now = { .version = json_int(reply, "version", 0), .tick = t->tick };
    size_t size = 0;
    bool changed = false;

    if (json_flag(reply, "unchanged", false) || !list)
        return false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *row = json_object_array_get_idx(list, i);
        if (!offered || offered(json_str(row, "name", "")))
            take_row(&now, row);
    }
    add_own(&now);
    for (size_t i = 0; i < now.n; i++) {
        struct tool *was = tools_find(t, now.t[i].name);
        if (was) {
            now.t[i].loaded = was->loaded;
            now.t[i].used = was->used;
        }
        changed = changed || !was || differs(was, &now.t[i]);
        size += wire_size(&now.t[i]);
    }
    for (size_t i = 0; i < t->n; i++)
        if (!tools_find(&now, t->t[i].name)) {
            changed = true;
            if (gone)
                json_push_str(gone, t->t[i].name);
        }
    now.index = now.n > INDEX_TOOLS || (int64_t)size * 5 > context_limit; /* 4 bytes a token, 5 % */
    tools_done(t);
    *t = now;
    return changed;
}

static json_object *wire_row(const struct tool *t)
{
    json_object *schema = t->schema ? json_object_get(t->schema)
                                    : json_make("type:s properties:o", "object", json_new());

    return json_make("name:s description:s input_schema:o", t->name, t->desc, schema);
}

json_object *tools_wire(const struct tools *t, json_object *required)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < t->n; i++) {
        const struct tool *x = &t->t[i];
        if (!t->index || x->loaded || tool_always(x->name) || tool_category2(x->name) ||
            (required && json_arr_has(required, x->name)))
            json_push(out, wire_row(x));
    }
    return out;
}

static void describe_index(const struct tools *t, struct buf *out)
{
    buf_adds(out, "There are too many tools to list. Find and load some with sys/tools, by "
                  "namespace or keyword. Namespaces:\n");
    for (size_t i = 0; i < t->n;) {
        size_t len = strcspn(t->t[i].name, "/"), first = i;
        while (i < t->n && !strncmp(t->t[i].name, t->t[first].name, len) &&
               t->t[i].name[len] == '/')
            i++;
        if (i == first)
            i++;
        buf_printf(out, "- %.*s: %zu\n", (int)len, t->t[first].name, i - first);
    }
}

/* One line of a description: what a prompt needs, and no room for a text that poses as another
 * block. */
static void add_line(struct buf *out, const char *s)
{
    for (; *s; s++)
        buf_addc(out, (unsigned char)*s < 0x20 ? ' ' : *s);
}

void tools_describe(const struct tools *t, struct buf *out)
{
    if (t->index) {
        describe_index(t, out);
    } else {
        for (size_t i = 0; i < t->n; i++) {
            buf_printf(out, "- %s: ", t->t[i].name);
            add_line(out, t->t[i].desc);
            buf_adds(out, t->t[i].degraded ? " (degraded)\n" : "\n");
        }
    }
}

static void forget_oldest(struct tools *t)
{
    struct tool *old = NULL;
    size_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        if (t->t[i].loaded) {
            n++;
            if (!old || t->t[i].used < old->used)
                old = &t->t[i];
        }
    if (n > LOADED_MAX && old)
        old->loaded = false;
}

void tools_touch(struct tools *t, struct tool *tool)
{
    tool->used = ++t->tick;
}

void tools_load(struct tools *t, json_object *result)
{
    json_object *list = json_arr(result, "tools");
    size_t n = 0;

    for (size_t i = 0; list && n < LOAD_AT_ONCE && i < json_object_array_length(list); i++) {
        struct tool *x = tools_find(t, json_str(json_object_array_get_idx(list, i), "name", ""));
        if (!x)
            continue;
        n++;
        x->loaded = true;
        tools_touch(t, x);
        forget_oldest(t);
    }
}
