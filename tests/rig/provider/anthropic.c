/*
 * The Anthropic Messages API: one JSON message, or the event stream message_start,
 * content_block_start / _delta / _stop per block, message_delta, message_stop.
 */
#include "tests/rig/provider/double.h"

void anthropic_error(struct reply *r, int status, const char *type, const char *message)
{
    char id[32];
    snprintf(id, sizeof id, "req_%06ld", r->n);
    cleanup(json_putp) json_object *o = json_make("type:s error:o request_id:s", "error",
                                                  json_make("type:s message:s", type, message), id);

    http_whole(r, status, "application/json", json_text(o));
}

static json_object *usage_of(const struct reply *r, bool start)
{
    return json_make(
        "input_tokens:i cache_creation_input_tokens:i cache_read_input_tokens:i output_tokens:i",
        step_usage(r->step, "input", 41), step_usage(r->step, "cache_write", 0),
        step_usage(r->step, "cache_read", 0),
        start ? (int64_t)1 : step_usage(r->step, "output", 17));
}

static const char *stop_of(const struct reply *r, json_object *tools)
{
    return json_str(r->step, "stop", json_object_array_length(tools) ? "tool_use" : "end_turn");
}

static json_object *message_of(const struct reply *r, const struct http_req *q,
                               json_object *content, const char *stop, bool start)
{
    char id[32];
    snprintf(id, sizeof id, "msg_%06ld", r->n);

    return json_make("id:s type:s role:s model:s content:o stop_reason:s stop_sequence:s usage:o",
                     id, "message", "assistant", json_str(q->json, "model", ""), content, stop,
                     json_str(r->step, "stop_sequence", NULL), usage_of(r, start));
}

static void whole(struct reply *r, const struct http_req *q)
{
    cleanup(json_putp) json_object *tools = step_tools(r->step, r->n, "toolu_");
    cleanup(json_putp) json_object *pieces = step_pieces(r->step);
    cleanup(buf_done) struct buf text = BUF_INIT(REQUEST_MAX);
    json_object *content = json_new_arr();
    const char *thinking = json_str(r->step, "thinking", NULL);

    if (thinking)
        json_push(content,
                  json_make("type:s thinking:s signature:s", "thinking", thinking, "c2lnbmF0dXJl"));
    for (size_t i = 0; i < json_object_array_length(pieces); i++)
        buf_adds(&text, json_object_get_string(json_object_array_get_idx(pieces, i)));
    if (text.len)
        json_push(content, json_make("type:s text:s", "text", text.data));
    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        json_object *t = json_object_array_get_idx(tools, i);

        json_push(content,
                  json_make("type:s id:s name:s input:o", "tool_use", json_str(t, "id", ""),
                            json_str(t, "name", ""), json_dup(json_get(t, "input"))));
    }
    cleanup(json_putp) json_object *m = message_of(r, q, content, stop_of(r, tools), false);
    if (!step_has_usage(r->step))
        json_object_object_del(m, "usage");
    http_whole(r, 200, "application/json", json_text(m));
}

static void event(struct reply *r, const char *name, json_object *o)
{
    http_event(r, name, json_text(o));
    json_put(o);
}

static void block(struct reply *r, int64_t index, json_object *start, const char *delta_type,
                  const char *delta_key, json_object *pieces)
{
    event(r, "content_block_start",
          json_make("type:s index:i content_block:o", "content_block_start", index, start));
    for (size_t i = 0; i < json_object_array_length(pieces); i++) {
        json_object *d = json_make("type:s", delta_type);

        json_add_str(d, delta_key, json_object_get_string(json_object_array_get_idx(pieces, i)));
        event(r, "content_block_delta",
              json_make("type:s index:i delta:o", "content_block_delta", index, d));
    }
}

static void block_stop(struct reply *r, int64_t index)
{
    event(r, "content_block_stop", json_make("type:s index:i", "content_block_stop", index));
}

static int64_t stream_text(struct reply *r)
{
    cleanup(json_putp) json_object *pieces = step_pieces(r->step);
    const char *thinking = json_str(r->step, "thinking", NULL);
    int64_t index = 0;

    if (thinking) {
        cleanup(json_putp) json_object *one = json_new_arr();

        json_push_str(one, thinking);
        block(r, index, json_make("type:s thinking:s signature:s", "thinking", "", ""),
              "thinking_delta", "thinking", one);
        event(r, "content_block_delta",
              json_make("type:s index:i delta:o", "content_block_delta", index,
                        json_make("type:s signature:s", "signature_delta", "c2lnbmF0dXJl")));
        block_stop(r, index++);
    }
    if (json_object_array_length(pieces)) {
        block(r, index, json_make("type:s text:s", "text", ""), "text_delta", "text", pieces);
        block_stop(r, index++);
    }
    return index;
}

static void stream(struct reply *r, const struct http_req *q)
{
    cleanup(json_putp) json_object *tools = step_tools(r->step, r->n, "toolu_");
    json_object *bad = json_obj(r->step, "stream_error");
    const char *garbage = json_str(r->step, "garbage", NULL);

    http_head(r, 200, "text/event-stream; charset=utf-8", -1, json_obj(r->step, "headers"));
    event(r, "message_start",
          json_make("type:s message:o", "message_start",
                    message_of(r, q, json_new_arr(), NULL, true)));
    event(r, "ping", json_make("type:s", "ping"));
    int64_t index = stream_text(r);
    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        json_object *t = json_object_array_get_idx(tools, i);
        cleanup(json_putp) json_object *pieces = tool_pieces(t);

        block(r, index,
              json_make("type:s id:s name:s input:o", "tool_use", json_str(t, "id", ""),
                        json_str(t, "name", ""), json_new()),
              "input_json_delta", "partial_json", pieces);
        block_stop(r, index++);
    }
    if (garbage)
        http_event(r, "content_block_delta", garbage);
    if (bad) {
        event(r, "error", json_make("type:s error:o", "error", json_dup(bad)));
    } else {
        event(r, "message_delta",
              json_make("type:s delta:o usage:o", "message_delta",
                        json_make("stop_reason:s stop_sequence:s", stop_of(r, tools),
                                  json_str(r->step, "stop_sequence", NULL)),
                        json_make("output_tokens:i", step_usage(r->step, "output", 17))));
        event(r, "message_stop", json_make("type:s", "message_stop"));
    }
    http_end(r);
}

void anthropic_answer(struct reply *r, const struct http_req *q)
{
    if (json_flag(q->json, "stream", false))
        stream(r, q);
    else
        whole(r, q);
}
