/*
 * JSON-RPC 2.0 messages over json-c values: one parser that checks the envelope, and writers that
 * append text to a buffer.
 */
#include "common/ipc/rpc.h"

#include <stdio.h>

#define ID_INT_MAX (INT64_C(1) << 53)

static bool read_id(struct rpc_msg *m, json_object *id)
{
    if (json_object_is_type(id, json_type_string)) {
        size_t n = (size_t)json_object_get_string_len(id);
        const char *s = json_object_get_string(id);

        if (!n || n > RPC_ID_MAX || strlen(s) != n)
            return false;
        memcpy(m->id, s, n + 1);
        return true;
    }
    if (json_object_is_type(id, json_type_int)) {
        int64_t v = json_object_get_int64(id);

        if (v > ID_INT_MAX || v < -ID_INT_MAX)
            return false;
        snprintf(m->id, sizeof(m->id), "%lld", (long long)v);
        m->id_int = true;
        return true;
    }
    return false;
}

static int read_call(struct rpc_msg *m, json_object *method)
{
    json_object *params = NULL;
    int n;

    if (!json_object_is_type(method, json_type_string))
        return ERR_REQUEST;
    n = json_object_get_string_len(method);
    m->method = json_object_get_string(method);
    if (n < 1 || n > RPC_METHOD_MAX || strlen(m->method) != (size_t)n)
        return ERR_REQUEST;
    if (!json_object_object_get_ex(m->root, "params", &params)) {
        params = json_new();
        json_add(m->root, "params", params);
    }
    if (!json_object_is_type(params, json_type_object))
        return ERR_INVAL;
    m->params = params;
    return 0;
}

static int read_response(struct rpc_msg *m)
{
    bool result = json_object_object_get_ex(m->root, "result", &m->result);
    bool error = json_object_object_get_ex(m->root, "error", &m->error);
    json_object *code = NULL, *message = NULL;

    m->kind = RPC_RESPONSE;
    if (result == error)
        return ERR_REQUEST;
    if (!error)
        return 0;
    if (!json_object_is_type(m->error, json_type_object) ||
        !json_object_object_get_ex(m->error, "code", &code) ||
        !json_object_is_type(code, json_type_int) ||
        !json_object_object_get_ex(m->error, "message", &message) ||
        !json_object_is_type(message, json_type_string))
        return ERR_REQUEST;
    return 0;
}

int rpc_parse(const char *data, size_t len, struct rpc_msg *m)
{
    json_object *v = NULL;
    bool has_id;

    memset(m, 0, sizeof(*m));
    m->kind = RPC_REQUEST;
    if (json_parse(data, len, &m->root))
        return ERR_PARSE;
    if (!json_object_is_type(m->root, json_type_object))
        return ERR_REQUEST;
    has_id = json_object_object_get_ex(m->root, "id", &v);
    if (has_id && !read_id(m, v)) {
        /* A response to a request whose id could not be read carries null. */
        bool reply = !v && (json_object_object_get_ex(m->root, "result", NULL) ||
                            json_object_object_get_ex(m->root, "error", NULL));

        if (!reply)
            return ERR_REQUEST;
    }
    if (!str_eq(json_str(m->root, "jsonrpc", NULL), "2.0"))
        return ERR_REQUEST;
    if (json_object_object_get_ex(m->root, "method", &v)) {
        m->kind = has_id ? RPC_REQUEST : RPC_NOTE;
        return read_call(m, v);
    }
    return read_response(m);
}

void rpc_done(struct rpc_msg *m)
{
    json_putp(&m->root);
    memset(m, 0, sizeof(*m));
}

void rpc_error_done(struct rpc_error *e)
{
    json_putp(&e->data);
}

void rpc_error_read(json_object *error, struct rpc_error *e)
{
    enum err named;

    memset(e, 0, sizeof(*e));
    e->code = (int)json_int(error, "code", -32603);
    e->err = err_from_code(e->code);
    str_copy(e->message, sizeof(e->message), json_str(error, "message", ""));
    e->message[utf8_floor(e->message, strlen(e->message))] = '\0';
    e->data = json_obj(error, "data");
    if (e->data)
        json_object_get(e->data);
    named = err_from_name(json_str(e->data, "errno", NULL));
    if (named && err_code(named) == e->code)
        e->err = named;
    if (!e->message[0])
        str_copy(e->message, sizeof(e->message), err_text(e->err));
}

const char *rpc_error_reason(const struct rpc_error *e)
{
    return json_str(e->data, "reason", "");
}

static void write_head(struct buf *b, const char *id, bool id_int)
{
    buf_adds(b, "{\"jsonrpc\":\"2.0\",\"id\":");
    if (!id || !*id)
        buf_adds(b, "null");
    else if (id_int)
        buf_adds(b, id);
    else
        buf_add_json_str(b, id, strlen(id));
}

void rpc_write_result_text(struct buf *b, const char *id, bool id_int, const char *result,
                           size_t len)
{
    write_head(b, id, id_int);
    buf_adds(b, ",\"result\":");
    buf_add(b, result, len);
    buf_addc(b, '}');
}

void rpc_write_result(struct buf *b, const char *id, bool id_int, json_object *result)
{
    const char *t = result ? json_text(result) : "null";

    rpc_write_result_text(b, id, id_int, t, strlen(t));
}

/* The members of data but errno, which follows from the error. */
static void write_data(struct buf *b, int err, json_object *data)
{
    buf_adds(b, ",\"data\":{\"errno\":");
    buf_add_json_str(b, err_name(err), strlen(err_name(err)));
    if (data && json_object_is_type(data, json_type_object)) {
        json_object_object_foreach (data, key, val) {
            const char *t = val ? json_text(val) : "null";

            if (str_eq(key, "errno"))
                continue;
            buf_addc(b, ',');
            buf_add_json_str(b, key, strlen(key));
            buf_addc(b, ':');
            buf_adds(b, t);
        }
    }
    buf_addc(b, '}');
}

void rpc_write_error(struct buf *b, const char *id, bool id_int, int err, const char *message,
                     json_object *data)
{
    if (str_empty(message))
        message = err_text(err);
    write_head(b, id, id_int);
    buf_printf(b, ",\"error\":{\"code\":%d,\"message\":", err_code(err));
    buf_add_json_str(b, message, strlen(message));
    write_data(b, err, data);
    buf_adds(b, "}}");
}

void rpc_write_error_rpc(struct buf *b, const char *id, bool id_int, const struct rpc_error *e)
{
    write_head(b, id, id_int);
    buf_printf(b, ",\"error\":{\"code\":%d,\"message\":", e->code ? e->code : err_code(e->err));
    buf_add_json_str(b, e->message, strlen(e->message));
    write_data(b, e->err, e->data);
    buf_adds(b, "}}");
}

void rpc_write_note(struct buf *b, const char *method, json_object *params)
{
    buf_adds(b, "{\"jsonrpc\":\"2.0\",\"method\":");
    buf_add_json_str(b, method, strlen(method));
    buf_adds(b, ",\"params\":");
    buf_adds(b, params ? json_text(params) : "{}");
    buf_addc(b, '}');
}

void rpc_write_request(struct buf *b, const char *id, const char *method, json_object *params)
{
    write_head(b, id, false);
    buf_adds(b, ",\"method\":");
    buf_add_json_str(b, method, strlen(method));
    buf_adds(b, ",\"params\":");
    buf_adds(b, params ? json_text(params) : "{}");
    buf_addc(b, '}');
}
