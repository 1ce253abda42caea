/*
 * The checks real servers make before a model sees a request, as far as their public documentation
 * states them: required fields, the alphabet of tool names, the order of roles, and that every tool
 * call has its result where it belongs. A client that sends a broken history gets its 400 here too.
 */
#include <ctype.h>

#include "tests/rig/provider/double.h"

static bool name_ok(const char *s)
{
    size_t n = strlen(s);

    for (const char *p = s; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-')
            return false;
    return n >= 1 && n <= 64;
}

/* True if the array of blocks (or calls) has one whose member `key` is id. */
static bool has_id(json_object *blocks, const char *key, const char *id)
{
    size_t n = blocks && json_object_is_type(blocks, json_type_array)
                   ? json_object_array_length(blocks)
                   : 0;

    for (size_t i = 0; i < n; i++)
        if (str_eq(json_str(json_object_array_get_idx(blocks, i), key, ""), id))
            return true;
    return false;
}

static const char *check_blocks(json_object *m, json_object *prev, json_object *next, size_t i,
                                char out[256])
{
    json_object *content = json_arr(m, "content");
    size_t n = content ? json_object_array_length(content) : 0;
    bool other = false;

    for (size_t k = 0; k < n; k++) {
        json_object *b = json_object_array_get_idx(content, k);
        const char *type = json_str(b, "type", "");

        if (str_eq(type, "tool_result")) {
            if (other || !has_id(json_arr(prev, "content"), "id", json_str(b, "tool_use_id", ""))) {
                snprintf(
                    out, 256,
                    "messages.%zu.content.%zu: unexpected `tool_use_id` found in `tool_result` blocks",
                    i, k);
                return out;
            }
            continue;
        }
        other = true;
        if (str_eq(type, "text") && str_empty(json_str(b, "text", "")))
            return "messages: text content blocks must be non-empty";
        if (str_eq(type, "tool_use") &&
            (!name_ok(json_str(b, "id", "")) ||
             !has_id(json_arr(next, "content"), "tool_use_id", json_str(b, "id", "")))) {
            snprintf(
                out, 256,
                "messages.%zu: `tool_use` ids were found without `tool_result` blocks immediately after: %.60s",
                i, json_str(b, "id", ""));
            return out;
        }
    }
    return NULL;
}

static const char *check_tools(json_object *tools, bool openai)
{
    size_t n = tools ? json_object_array_length(tools) : 0;

    for (size_t i = 0; i < n; i++) {
        json_object *t = json_object_array_get_idx(tools, i);
        json_object *f = openai ? json_obj(t, "function") : t;

        if (!name_ok(json_str(f, "name", "")))
            return "tools: name must match ^[a-zA-Z0-9_-]{1,64}$";
        if (!openai && !str_eq(json_str(json_obj(f, "input_schema"), "type", ""), "object"))
            return "tools: input_schema.type: Field required";
    }
    return NULL;
}

const char *strict_anthropic(const struct http_req *q, char out[256])
{
    json_object *messages = json_arr(q->json, "messages");
    size_t n = messages ? json_object_array_length(messages) : 0;
    const char *why = NULL;

    if (!json_get(q->headers, "anthropic-version"))
        return "anthropic-version: header is required";
    if (str_empty(json_str(q->json, "model", "")))
        return "model: Field required";
    if (json_int(q->json, "max_tokens", 0) < 1)
        return "max_tokens: Field required";
    if (!n)
        return "messages: at least one message is required";
    for (size_t i = 0; i < n && !why; i++) {
        json_object *m = json_object_array_get_idx(messages, i);
        const char *want = i % 2 ? "assistant" : "user";

        if (!str_eq(json_str(m, "role", ""), want))
            why = "messages: roles must alternate between \"user\" and \"assistant\"";
        else
            why =
                check_blocks(m, i ? json_object_array_get_idx(messages, i - 1) : NULL,
                             i + 1 < n ? json_object_array_get_idx(messages, i + 1) : NULL, i, out);
    }
    if (!why && n % 2 == 0)
        why =
            "This model does not support assistant message prefill. The conversation must end with a user message.";
    return why ? why : check_tools(json_arr(q->json, "tools"), false);
}

const char *strict_openai(const struct http_req *q, char out[256])
{
    json_object *messages = json_arr(q->json, "messages"), *calls = NULL;
    size_t n = messages ? json_object_array_length(messages) : 0, open_calls = 0;

    if (str_empty(json_str(q->json, "model", "")))
        return "you must provide a model parameter";
    if (!n)
        return "'messages' is too short";
    for (size_t i = 0; i < n; i++) {
        json_object *m = json_object_array_get_idx(messages, i);
        const char *role = json_str(m, "role", "");

        if (str_eq(role, "tool")) {
            if (!open_calls || !has_id(calls, "id", json_str(m, "tool_call_id", "")))
                return "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
            open_calls--;
            continue;
        }
        if (open_calls)
            return "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                   "'tool_call_id'.";
        if (!str_eq(role, "system") && !str_eq(role, "user") && !str_eq(role, "assistant")) {
            snprintf(out, 256, "Invalid value: '%.40s' for role", role);
            return out;
        }
        calls = json_arr(m, "tool_calls");
        open_calls = calls ? json_object_array_length(calls) : 0;
    }
    if (open_calls)
        return "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
               "'tool_call_id'.";
    return check_tools(json_arr(q->json, "tools"), true);
}
