/*
 * Frames and errors of the client protocol.
 *
 * A frame is parsed whole into a tree: bodies are forwarded as trees anyway, and the limits of
 * common/base/json.h hold. Errors are a closed set of eleven codes, because deployed clients cannot
 * decode another one; what is finer goes in detail.reason.
 */
#include "gateway/atp.h"

#include <stdarg.h>

#include "common/base/clock.h"
#include "common/base/rnd.h"

static const struct {
    const char *name;
    int http;
} codes[ATP_CODES] = {
    [ATP_OK] = { "OK", 200 },
#define ATP_ERR(name, http) [ATP_##name] = { #name, http },
#include "gateway/atp_err.def"
#undef ATP_ERR
};

const char *atp_code_name(enum atp_code c)
{
    return c > ATP_OK && c < ATP_CODES ? codes[c].name : "EINTERNAL";
}

int atp_code_http(enum atp_code c)
{
    return c < ATP_CODES ? codes[c].http : 500;
}

enum atp_code atp_fail(struct atp_err *e, enum atp_code code, const char *fmt, ...)
{
    va_list ap;

    atp_err_done(e);
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    e->message[utf8_floor(e->message, strlen(e->message))] = '\0';
    return code;
}

static json_object *detail(struct atp_err *e)
{
    if (!e->detail)
        e->detail = json_new();
    return e->detail;
}

void atp_detail_str(struct atp_err *e, const char *key, const char *v)
{
    json_add_str(detail(e), key, v);
}

void atp_detail_int(struct atp_err *e, const char *key, int64_t v)
{
    json_add_int(detail(e), key, v);
}

void atp_err_done(struct atp_err *e)
{
    json_put(e->detail);
    e->detail = NULL;
}

/* --- errors from inside ----------------------------------------------------------------------- */

static enum atp_code code_from_number(int code)
{
    switch (code) {
    case -32002:
    case -32034:
        return ATP_EPERM;
    case -32003:
        return ATP_ENOTFOUND;
    case -32006:
    case -32030:
        return ATP_ECONFLICT;
    case -32009:
        return ATP_EUSED;
    case -32004:
    case -32008:
    case -32031:
    case -32033:
        return ATP_ELIMIT;
    case -32700:
    case -32600:
    case -32602:
        return ATP_EPARSE;
    case -32005:
    case -32007:
    case -32601:
    case -32032:
        return ATP_EUNAVAIL;
    default:
        return code <= -32010 && code >= -32029 ? ATP_EUNAVAIL : ATP_EINTERNAL;
    }
}

/* Names that clients may see beat the number, but for the two that concern our own token. */
static enum atp_code code_from_name(const char *name)
{
    for (int c = ATP_OK + 1; c < ATP_CODES; c++)
        if (c != ATP_EAUTH && c != ATP_EEXPIRED && str_eq(name, codes[c].name))
            return (enum atp_code)c;
    return ATP_OK;
}

/* What may leave the machine of an error's data: everything but the router's own bookkeeping. */
static void copy_data(struct atp_err *e, json_object *data, const char *errname)
{
    static const char *const hidden[] = { "errno", "forwarded", "ref", "tool" };

    if (data && json_object_is_type(data, json_type_object)) {
        json_object_object_foreach (data, k, v) {
            const char *as = k;
            bool skip = false;

            for (size_t i = 0; i < N_ELEMS(hidden); i++)
                skip |= str_eq(k, hidden[i]);
            if (skip)
                continue;
            if (str_eq(k, "param"))
                as = "field";
            else if (str_eq(k, "retry_after_ms"))
                as = "retryAfterMs";
            json_add(detail(e), as, json_dup(v));
        }
    }
    if (errname[0] && !str_eq(errname, atp_code_name(e->code)) &&
        (!e->detail || !json_get(e->detail, "reason")))
        atp_detail_str(e, "reason", errname);
}

void atp_from_rpc(struct atp_err *e, const struct rpc_error *r, char ref[17])
{
    const char *name = json_str(r->data, "errno", "");
    enum atp_code c = code_from_name(name);
    int number = r->code ? r->code : err_code(r->err);

    if (!name[0] && r->err)
        name = err_name(r->err);
    if (c == ATP_OK)
        c = code_from_number(number);
    ref[0] = '\0';
    if (c == ATP_EINTERNAL) {
        uint64_t n;

        rnd_bytes(&n, sizeof(n));
        snprintf(ref, 17, "%016llx", (unsigned long long)n);
        atp_fail(e, c, "internal error");
        atp_detail_str(e, "ref", ref);
        return;
    }
    atp_fail(e, c, "%s", r->message[0] ? r->message : err_text(r->err));
    if (r->err == ERR_TIMEOUT || number == -32007)
        atp_detail_str(e, "reason", "timeout");
    copy_data(e, r->data, name);
}

/* --- frames in -------------------------------------------------------------------------------- */

static void read_id(struct atp_in *in)
{
    json_object *v = json_get(in->root, "id");
    const char *s;
    size_t n;

    if (!v || !json_object_is_type(v, json_type_string))
        return;
    s = json_object_get_string(v);
    n = (size_t)json_object_get_string_len(v);
    if (n < 1 || n > ATP_ID_MAX)
        return;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] > 0x7e)
            return;
    memcpy(in->id, s, n + 1);
}

static enum atp_code bad_field(struct atp_err *e, const char *field, const char *why)
{
    atp_fail(e, ATP_EPARSE, "%s: %s", field, why);
    atp_detail_str(e, "field", field);
    return ATP_EPARSE;
}

/* An optional or required string; NUL inside is refused by the parser's users. */
static bool read_str(json_object *o, const char *key, const char **ret)
{
    json_object *v = json_get(o, key);

    *ret = "";
    if (!v)
        return true;
    if (!json_object_is_type(v, json_type_string) ||
        strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
        return false;
    *ret = json_object_get_string(v);
    return true;
}

static enum atp_code parse_cmd(struct atp_in *in, struct atp_err *e)
{
    json_object *body = json_get(in->root, "body");

    if (!in->id[0])
        return bad_field(e, "id", "must be 1 to 128 printable ASCII characters");
    if (!read_str(in->root, "domain", &in->domain) || !in->domain[0])
        return bad_field(e, "domain", "must be a string");
    if (!read_str(in->root, "op", &in->op) || !in->op[0])
        return bad_field(e, "op", "must be a string");
    if (!body) {
        body = json_new();
        json_add(in->root, "body", body);
    }
    if (!json_object_is_type(body, json_type_object))
        return bad_field(e, "body", "must be an object");
    in->body = body;
    return ATP_OK;
}

static enum atp_code parse_subscribe(struct atp_in *in, struct atp_err *e)
{
    json_object *since = json_get(in->root, "since_seq"), *pids = json_get(in->root, "pids");

    in->events = json_arr(in->root, "events");
    if (!in->events)
        return bad_field(e, "events", "must be an array of strings");
    if (json_object_array_length(in->events) > ATP_KINDS_MAX)
        return bad_field(e, "events", "at most 64 kinds");
    for (size_t i = 0; i < json_object_array_length(in->events); i++)
        if (!json_object_is_type(json_object_array_get_idx(in->events, i), json_type_string))
            return bad_field(e, "events", "must be an array of strings");
    in->since = -1;
    if (since) {
        if (!json_object_is_type(since, json_type_int) || json_object_get_int64(since) < 0)
            return bad_field(e, "since_seq", "must be an unsigned integer");
        in->since = json_object_get_int64(since);
    }
    if (pids) {
        if (!json_object_is_type(pids, json_type_array) || json_object_array_length(pids) > 1024)
            return bad_field(e, "pids", "must be an array of at most 1024 pids");
        for (size_t i = 0; i < json_object_array_length(pids); i++)
            if (atp_pid(json_object_array_get_idx(pids, i)) < 0)
                return bad_field(e, "pids", "must be an array of pids");
    }
    in->pids = pids;
    return ATP_OK;
}

enum atp_code atp_parse(const char *text, size_t len, struct atp_in *in, struct atp_err *e)
{
    const char *type;

    memset(in, 0, sizeof(*in));
    in->token = in->domain = in->op = "";
    if (json_parse(text, len, &in->root))
        return atp_fail(e, ATP_EPARSE, "not a JSON object");
    if (!in->root || !json_object_is_type(in->root, json_type_object))
        return atp_fail(e, ATP_EPARSE, "not a JSON object");
    read_id(in);
    if (!read_str(in->root, "type", &type))
        return bad_field(e, "type", "must be a string");
    if (!read_str(in->root, "token", &in->token))
        return bad_field(e, "token", "must be a string");
    if (str_eq(type, "cmd")) {
        in->kind = ATP_CMD;
        return parse_cmd(in, e);
    }
    if (str_eq(type, "subscribe")) {
        in->kind = ATP_SUBSCRIBE;
        return parse_subscribe(in, e);
    }
    return bad_field(e, "type", "must be \"cmd\" or \"subscribe\"");
}

void atp_in_done(struct atp_in *in)
{
    json_put(in->root);
    in->root = NULL;
}

int64_t atp_pid(json_object *v)
{
    int64_t n;

    if (!v)
        return -1;
    if (json_object_is_type(v, json_type_int)) {
        n = json_object_get_int64(v);
        return n >= 0 && n < ATP_PID_MAX ? n : -1;
    }
    if (json_object_is_type(v, json_type_string) &&
        parse_i64(json_object_get_string(v), 0, ATP_PID_MAX - 1, &n))
        return n;
    return -1;
}

/* --- frames out ------------------------------------------------------------------------------- */

void atp_write_ok(struct buf *b, const char *id, json_object *body)
{
    buf_adds(b, "{\"type\":\"reply\",\"id\":");
    buf_add_json_str(b, id, strlen(id));
    buf_adds(b, ",\"ok\":true,\"body\":");
    buf_adds(b, body ? json_text(body) : "null");
    buf_addc(b, '}');
}

void atp_write_fail(struct buf *b, const char *id, const struct atp_err *e)
{
    const char *name = atp_code_name(e->code);

    buf_adds(b, "{\"type\":\"reply\",\"id\":");
    buf_add_json_str(b, id, strlen(id));
    buf_printf(b, ",\"ok\":false,\"error\":{\"code\":\"%s\",\"message\":", name);
    buf_add_json_str(b, e->message, strlen(e->message));
    if (e->detail) {
        buf_adds(b, ",\"detail\":");
        buf_adds(b, json_text(e->detail));
    }
    buf_printf(b, "},\"code\":\"%s\",\"message\":", name);
    buf_add_json_str(b, e->message, strlen(e->message));
    buf_addc(b, '}');
}

void atp_write_event(struct buf *b, uint64_t seq, const char *kind, const char *session,
                     int64_t ts_ms, const char *body, size_t len)
{
    char ts[RFC3339_LEN];

    buf_printf(b, "{\"type\":\"event\",\"seq\":%llu,\"event\":\"%s\",\"sessionId\":",
               (unsigned long long)seq, kind);
    buf_add_json_str(b, session, strlen(session));
    buf_printf(b, ",\"ts\":\"%s\",\"body\":", rfc3339(ts_ms, ts));
    buf_add(b, body, len);
    buf_addc(b, '}');
}

void atp_write_http_error(struct buf *b, enum atp_code code, const char *message)
{
    buf_printf(b, "{\"error\":\"%s\",\"message\":", atp_code_name(code));
    buf_add_json_str(b, message, strlen(message));
    buf_addc(b, '}');
}
