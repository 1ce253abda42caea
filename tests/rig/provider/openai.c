/*
 * The OpenAI chat completions API, and what Ollama serves under /v1: one chat.completion, or
 * chat.completion.chunk objects that end with [DONE]. With "whole_tools" a call comes in one
 * chunk, as Ollama sends it.
 */
#include "tests/rig/provider/double.h"

#define CREATED 1767225600

void openai_error(struct reply *r, int status, const char *type, const char *code,
                  const char *message)
{
    cleanup(json_putp) json_object *o = json_make(
        "error:o", json_make("message:s type:s param:s code:s", message, type, NULL, code));

    http_whole(r, status, "application/json", json_text(o));
}

static json_object *usage_of(const struct reply *r)
{
    int64_t in = step_usage(r->step, "input", 41), out = step_usage(r->step, "output", 17);

    return json_make("prompt_tokens:i completion_tokens:i total_tokens:i prompt_tokens_details:o "
                     "completion_tokens_details:o",
                     in, out, in + out,
                     json_make("cached_tokens:i", step_usage(r->step, "cache_read", 0)),
                     json_make("reasoning_tokens:i", step_usage(r->step, "reasoning", 0)));
}

static const char *stop_of(const struct reply *r, json_object *tools)
{
    return json_str(r->step, "stop", json_object_array_length(tools) ? "tool_calls" : "stop");
}

static json_object *function_call(json_object *t, const char *args)
{
    return json_make("id:s type:s function:o", json_str(t, "id", ""), "function",
                     json_make("name:s arguments:s", json_str(t, "name", ""), args));
}

static json_object *envelope(const struct reply *r, const struct http_req *q, const char *object)
{
    char id[40];
    snprintf(id, sizeof id, "chatcmpl-%06ld", r->n);

    return json_make("id:s object:s created:i model:s", id, object, (int64_t)CREATED,
                     json_str(q->json, "model", ""));
}

static void whole(struct reply *r, const struct http_req *q)
{
    cleanup(json_putp) json_object *tools = step_tools(r->step, r->n, "call_");
    cleanup(json_putp) json_object *pieces = step_pieces(r->step);
    cleanup(json_putp) json_object *o = envelope(r, q, "chat.completion");
    cleanup(buf_done) struct buf text = BUF_INIT(REQUEST_MAX);
    json_object *m = json_make("role:s", "assistant"), *calls = json_new_arr(),
                *choices = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(pieces); i++)
        buf_adds(&text, json_object_get_string(json_object_array_get_idx(pieces, i)));
    json_add_str(m, "content", text.len ? text.data : NULL);
    json_add_str(m, "refusal", json_str(r->step, "refusal", NULL));
    if (json_get(r->step, "thinking"))
        json_add_str(m, "reasoning_content", json_str(r->step, "thinking", ""));
    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        json_object *t = json_object_array_get_idx(tools, i);
        json_push(calls, function_call(t, tool_args(t)));
    }
    if (json_object_array_length(calls))
        json_add(m, "tool_calls", calls);
    else
        json_put(calls);
    json_push(choices,
              json_make("index:i message:o finish_reason:s", (int64_t)0, m, stop_of(r, tools)));
    json_add(o, "choices", choices);
    if (step_has_usage(r->step))
        json_add(o, "usage", usage_of(r));
    http_whole(r, 200, "application/json", json_text(o));
}

static void chunk(struct reply *r, const struct http_req *q, json_object *delta, const char *finish)
{
    cleanup(json_putp) json_object *o = envelope(r, q, "chat.completion.chunk");
    json_object *choices = json_new_arr();

    json_push(choices, json_make("index:i delta:o logprobs:s finish_reason:s", (int64_t)0, delta,
                                 NULL, finish));
    json_add(o, "choices", choices);
    http_event(r, NULL, json_text(o));
}

static json_object *call_delta(size_t index, json_object *call)
{
    json_object *list = json_new_arr();

    json_add_int(call, "index", (int64_t)index);
    json_push(list, call);
    return json_make("tool_calls:o", list);
}

static void stream_tool(struct reply *r, const struct http_req *q, size_t index, json_object *t)
{
    if (json_flag(r->step, "whole_tools", false)) {
        chunk(r, q, call_delta(index, function_call(t, tool_args(t))), NULL);
        return;
    }
    cleanup(json_putp) json_object *pieces = tool_pieces(t);

    chunk(r, q, call_delta(index, function_call(t, "")), NULL);
    for (size_t i = 0; i < json_object_array_length(pieces); i++)
        chunk(r, q,
              call_delta(index, json_make("function:o",
                                          json_make("arguments:s",
                                                    json_object_get_string(
                                                        json_object_array_get_idx(pieces, i))))),
              NULL);
}

static void stream(struct reply *r, const struct http_req *q)
{
    cleanup(json_putp) json_object *tools = step_tools(r->step, r->n, "call_");
    cleanup(json_putp) json_object *pieces = step_pieces(r->step);
    json_object *bad = json_obj(r->step, "stream_error");
    const char *thinking = json_str(r->step, "thinking", NULL),
               *garbage = json_str(r->step, "garbage", NULL);

    http_head(r, 200, "text/event-stream; charset=utf-8", -1, json_obj(r->step, "headers"));
    chunk(r, q, json_make("role:s content:s", "assistant", ""), NULL);
    if (thinking)
        chunk(r, q, json_make("reasoning_content:s", thinking), NULL);
    for (size_t i = 0; i < json_object_array_length(pieces); i++)
        chunk(r, q,
              json_make("content:s", json_object_get_string(json_object_array_get_idx(pieces, i))),
              NULL);
    for (size_t i = 0; i < json_object_array_length(tools); i++)
        stream_tool(r, q, i, json_object_array_get_idx(tools, i));
    if (garbage)
        http_event(r, NULL, garbage);
    if (bad) {
        cleanup(json_putp) json_object *o = json_make("error:o", json_dup(bad));
        http_event(r, NULL, json_text(o));
    } else {
        chunk(r, q, json_new(), stop_of(r, tools));
        if (json_flag(json_obj(q->json, "stream_options"), "include_usage", false) &&
            step_has_usage(r->step)) {
            cleanup(json_putp) json_object *o = envelope(r, q, "chat.completion.chunk");

            json_add(o, "choices", json_new_arr());
            json_add(o, "usage", usage_of(r));
            http_event(r, NULL, json_text(o));
        }
        http_event(r, NULL, "[DONE]");
    }
    http_end(r);
}

void openai_answer(struct reply *r, const struct http_req *q)
{
    if (json_flag(q->json, "stream", false))
        stream(r, q);
    else
        whole(r, q);
}

void openai_embeddings(struct reply *r, const struct http_req *q)
{
    json_object *in = json_get(q->json, "input"), *data = json_new_arr();
    size_t n = json_object_is_type(in, json_type_array) ? json_object_array_length(in) : 1;

    for (size_t i = 0; i < n; i++)
        json_push(data, json_make("object:s index:i embedding:o", "embedding", (int64_t)i,
                                  json_tokener_parse("[0.25,-0.5,0.125,1.0]")));
    cleanup(json_putp) json_object *o =
        json_make("object:s data:o model:s usage:o", "list", data, json_str(q->json, "model", ""),
                  json_make("prompt_tokens:i total_tokens:i", (int64_t)(8 * n), (int64_t)(8 * n)));
    http_whole(r, 200, "application/json", json_text(o));
}
