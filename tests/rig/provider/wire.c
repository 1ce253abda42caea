/* What both wire formats take from a step: text in pieces, tool calls, usage. */
#include "common/base/toolname.h"
#include "tests/rig/provider/double.h"

/* Words with the blank before them, so that joined pieces give the text back. */
static void split_words(json_object *out, const char *s)
{
    while (*s) {
        size_t n = strspn(s, " \n");

        n += strcspn(s + n, " \n");
        json_push(out, json_object_new_string_len(s, (int)n));
        s += n;
    }
}

static void split_bytes(json_object *out, const char *s, size_t size)
{
    for (size_t len = strlen(s); len > 0;) {
        size_t n = size < len ? utf8_floor(s, size) : len;

        if (!n)
            n = size < len ? size : len;
        json_push(out, json_object_new_string_len(s, (int)n));
        s += n;
        len -= n;
    }
}

json_object *step_pieces(json_object *step)
{
    json_object *text = json_get(step, "text");
    int64_t tokens = json_int(step, "tokens", 0), chunk = json_int(step, "chunk", 0);
    json_object *out = json_new_arr();

    if (json_object_is_type(text, json_type_array)) {
        json_put(out);
        return json_dup(text);
    }
    if (text && chunk > 0)
        split_bytes(out, json_object_get_string(text), (size_t)chunk);
    else if (text)
        split_words(out, json_object_get_string(text));
    for (int64_t i = 0; i < tokens; i++) {
        char word[32];

        snprintf(word, sizeof word, "%sw%06ld", i ? " " : "", (long)i);
        json_push_str(out, word);
    }
    return out;
}

json_object *step_tools(json_object *step, long n, const char *prefix)
{
    json_object *tools = json_arr(step, "tools");
    json_object *out = tools ? json_dup(tools) : json_new_arr();

    for (size_t i = 0; i < json_object_array_length(out); i++) {
        json_object *t = json_object_array_get_idx(out, i);
        const char *name = json_str(t, "name", "");
        char wire[2 * TOOL_MAX], id[64];

        if (strchr(name, '/') && tool_mangle(name, strlen(name), wire, sizeof wire) >= 0)
            json_add_str(t, "name", wire);
        if (!json_get(t, "id")) {
            snprintf(id, sizeof id, "%s%06ld_%zu", prefix, n, i);
            json_add_str(t, "id", id);
        }
        if (!json_get(t, "input"))
            json_add(t, "input", json_new());
    }
    return out;
}

const char *tool_args(json_object *tool)
{
    const char *raw = json_str(tool, "raw", NULL);

    return raw ? raw : json_text(json_get(tool, "input"));
}

json_object *tool_pieces(json_object *tool)
{
    json_object *out = json_new_arr();
    const char *args = tool_args(tool);
    int64_t pieces = json_int(tool, "pieces", 3);
    size_t len = strlen(args);

    if (!json_get(tool, "raw") && !json_object_object_length(json_get(tool, "input")))
        return out; /* a call without arguments streams none */
    split_bytes(out, args, pieces > 0 ? (len + (size_t)pieces - 1) / (size_t)pieces : len);
    return out;
}

bool step_has_usage(json_object *step)
{
    return json_object_object_get_ex(step, "usage", NULL) ? json_get(step, "usage") != NULL : true;
}

int64_t step_usage(json_object *step, const char *key, int64_t dflt)
{
    json_object *u = json_obj(step, "usage");

    return u ? json_int(u, key, 0) : dflt;
}
