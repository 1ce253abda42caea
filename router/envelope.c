/*
 * json_scan has checked the whole text before the walk over params begins, so the walk may trust
 * quotes and brackets. Names are compared unescaped: "_c\u0061ller" is as reserved as "_caller".
 * Every other member is kept, byte by byte, in runs.
 */
#include "router/envelope.h"

#include <stdio.h>

#include "common/base/err.h"

#define ID_INT_MAX (INT64_C(1) << 53)

static const char *const reserved_names[RES_COUNT] = {
    [RES_TOKEN] = "_token",
    [RES_CALLER] = "_caller",
    [RES_USER] = "_user",
    [RES_AS] = "_as",
    [RES_PEER] = "_peer",
    [RES_TIMEOUT] = "_timeout_ms",
    [RES_TRACE] = "_trace",
    [RES_CALLER_PID] = "_caller_pid",
    [RES_CALLER_USER] = "_caller_user",
    [RES_CALLER_TOKEN] = "_caller_token",
};

/* --- walking over checked text ------------------------------------------------------------------
 */

static const char *blanks(const char *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

/* p at the opening quote; behind the closing one. */
static const char *skip_string(const char *p)
{
    const char *q = strchr(++p, '"');

    if (!memchr(p, '\\', (size_t)(q - p)))
        return q + 1;
    for (; *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p + 1;
}

static const char *skip_value(const char *p)
{
    int depth = 0;

    do {
        if (*p == '"') {
            p = skip_string(p);
            continue;
        }
        if (*p == '{' || *p == '[')
            depth++;
        else if (*p == '}' || *p == ']')
            depth--;
        else if (!depth) /* a bare word: to its end */
            while (p[1] != ',' && p[1] != '}' && p[1] != ']' && p[1] != ' ' && p[1] != '\n' &&
                   p[1] != '\r' && p[1] != '\t')
                p++;
        p++;
    } while (depth);
    return p;
}

static int reserved_find(const char *name, size_t len)
{
    char plain[64];

    if (memchr(name, '\\', len)) {
        if (len >= sizeof(plain))
            return name[0] == '_' || name[0] == '\\' ? RES_COUNT : -1;
        len = json_unescape(name, len, plain);
        name = plain;
    }
    if (!len || name[0] != '_')
        return -1;
    for (int i = 0; i < RES_COUNT; i++)
        if (strlen(reserved_names[i]) == len && memcmp(reserved_names[i], name, len) == 0)
            return i;
    return RES_COUNT; /* reserved for the router, not known: dropped */
}

static bool keep(struct env *e, const char *from, const char *to, bool joined)
{
    if (joined) {
        e->keep[e->n_keep - 1].len = (size_t)(to - e->keep[e->n_keep - 1].at);
        return true;
    }
    if (e->n_keep == N_ELEMS(e->keep))
        return false;
    e->keep[e->n_keep++] = (struct span){ from, (size_t)(to - from) };
    return true;
}

static bool walk_params(struct env *e, const char *p)
{
    bool joined = false; /* the member before was kept */

    p = blanks(p + 1);
    while (*p != '}') {
        const char *name = p, *value, *end, *name_end = skip_string(p);
        int r;

        value = blanks(blanks(name_end) + 1); /* behind the colon */
        end = skip_value(value);
        r = reserved_find(name + 1, (size_t)(name_end - name) - 2);
        if (r < 0) {
            if (!keep(e, name, end, joined))
                return false;
        } else if (r < RES_COUNT) {
            e->res[r] = (struct json_slice){ value, (size_t)(end - value) };
        }
        joined = r < 0;
        p = blanks(end);
        if (*p == ',')
            p = blanks(p + 1);
    }
    return true;
}

/* --- requests -----------------------------------------------------------------------------------
 */

/* "" stays for an id that cannot be read. */
static bool read_id(struct json_slice s, struct env *e)
{
    char num[32];
    int64_t v;

    if (s.at[0] == '"')
        return json_slice_str(s, e->id, sizeof(e->id)) && e->id[0];
    if (s.len >= sizeof(num))
        return false;
    memcpy(num, s.at, s.len);
    num[s.len] = '\0';
    if (!parse_i64(num, -ID_INT_MAX, ID_INT_MAX, &v))
        return false;
    snprintf(e->id, sizeof(e->id), "%lld", (long long)v);
    e->id_int = true;
    return true;
}

int env_parse(const char *text, size_t len, struct env *e)
{
    static const char *const names[] = { "jsonrpc", "id", "method", "params" };
    struct json_slice s[4];
    int r = json_scan(text, len, names, s, N_ELEMS(names));

    e->kind = RPC_REQUEST;
    e->id[0] = '\0';
    e->id_int = false;
    e->n_keep = 0;
    e->params = (struct span){ NULL, 0 };
    memset(e->res, 0, sizeof(e->res));
    if (r)
        return r;
    if (!s[1].len)
        e->kind = RPC_NOTE;
    else if (!read_id(s[1], e))
        return ERR_REQUEST;
    if (s[0].len != 5 || memcmp(s[0].at, "\"2.0\"", 5) != 0)
        return ERR_REQUEST;
    if (!s[2].len || !json_slice_str(s[2], e->method, sizeof(e->method)) || !e->method[0])
        return ERR_REQUEST;
    e->method_len = strlen(e->method);
    if (!s[3].len)
        return 0;
    if (s[3].at[0] != '{')
        return ERR_INVAL;
    e->params = (struct span){ s[3].at, s[3].len };
    return walk_params(e, s[3].at) ? 0 : ERR_REQUEST;
}

bool env_str(const struct env *e, enum reserved r, char *out, size_t size)
{
    return e->res[r].len && json_slice_str(e->res[r], out, size);
}

void env_write(const struct env *e, const char *method, struct span caller, struct buf *out)
{
    bool comma = false;

    buf_adds(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    buf_add_json_str(out, e->id, strlen(e->id));
    buf_adds(out, ",\"method\":\"");
    buf_adds(out, method);
    buf_adds(out, "\",\"params\":{");
    if (caller.len) {
        buf_adds(out, "\"_caller\":");
        buf_add(out, caller.at, caller.len);
        comma = true;
    }
    for (size_t i = 0; i < e->n_keep; i++) {
        if (comma)
            buf_addc(out, ',');
        buf_add(out, e->keep[i].at, e->keep[i].len);
        comma = true;
    }
    buf_adds(out, "}}");
}

/* --- replies ------------------------------------------------------------------------------------
 */

static bool same_id(struct json_slice id, const struct env *e)
{
    char text[RPC_ID_MAX + 1];

    return json_slice_str(id, text, sizeof(text)) && str_eq(text, e->id);
}

static bool scan_error(struct json_slice error, struct reply *r)
{
    static const char *const names[] = { "code", "message", "data" };
    static const char *const in_data[] = { "errno" };
    struct json_slice s[3], d[1];
    char num[16];
    int64_t code;

    if (json_scan(error.at, error.len, names, s, 3) || !s[0].len || s[0].len >= sizeof(num) ||
        !s[1].len || s[1].at[0] != '"')
        return false;
    memcpy(num, s[0].at, s[0].len);
    num[s[0].len] = '\0';
    if (!parse_i64(num, -100000, 100000, &code))
        return false;
    r->code = (int)code;
    r->has_errno = s[2].len && s[2].at[0] == '{' && !json_scan(s[2].at, s[2].len, in_data, d, 1) &&
                   d[0].len && d[0].at[0] == '"';
    return true;
}

void reply_scan(const char *text, size_t len, const struct env *e, struct reply *r)
{
    static const char *const names[] = { "jsonrpc", "id", "method", "result", "error" };
    struct json_slice s[5];

    memset(r, 0, sizeof(*r));
    if (json_scan(text, len, names, s, N_ELEMS(names)) || s[0].len != 5 ||
        memcmp(s[0].at, "\"2.0\"", 5) != 0)
        return;
    if (!s[1].len) {
        r->kind = s[2].len && s[2].at[0] == '"' ? REPLY_NOTE : REPLY_BAD;
        return;
    }
    if (!s[3].len == !s[4].len || !same_id(s[1], e))
        return;
    r->id = (struct span){ s[1].at, s[1].len };
    r->result = (struct span){ s[3].at, s[3].len };
    if (s[3].len) {
        r->kind = REPLY_RESULT;
    } else if (s[4].at[0] == '{' && scan_error(s[4], r)) {
        r->error = (struct span){ s[4].at, s[4].len };
        r->kind = REPLY_ERROR;
    }
}

bool env_member(const struct env *e, const char *name, struct json_slice *out)
{
    const char *const names[] = { name };

    return e->params.len && !json_scan(e->params.at, e->params.len, names, out, 1) && out->len;
}
