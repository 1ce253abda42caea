/*
 * Requests: routing, bodies, answers.
 *
 * Where a request comes from is checked before anything else, for every path. Answers are written
 * here in full, head and body; lws only carries them. A body is always read to its end, so that the
 * next request on the connection begins where it should; one that is far too long ends it.
 */
#include "gateway/http.h"

#include <stdarg.h>
#include <strings.h>

#include "gateway/metrics.h"
#include "gateway/pki.h"

#define DISCARD_MAX (1U << 20)
#define WORK_S      40
#define PIECE       (256U * 1024)

static const struct route routes[] = {
    { VERB_POST, "/atp/auth/login", "login", http_login },
    { VERB_POST, "/atp/auth/refresh", "refresh", http_refresh },
    { VERB_POST, "/atp/auth/logout", "logout", http_logout },
    { VERB_GET, "/atp/health", "health", http_health },
    { VERB_GET, "/healthz", "healthz", http_healthz },
    { VERB_GET, "/readyz", "readyz", http_readyz },
    { VERB_GET, "/metrics", "metrics", http_metrics },
};

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        { 200, "OK" },
        { 204, "No Content" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 409, "Conflict" },
        { 413, "Content Too Large" },
        { 415, "Unsupported Media Type" },
        { 421, "Misdirected Request" },
        { 426, "Upgrade Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 503, "Service Unavailable" },
    };

    for (size_t i = 0; i < N_ELEMS(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Error";
}

void http_security(struct buf *b, const char *host, bool hsts)
{
    /* host was checked: it holds no blank, quote or semicolon */
    buf_printf(b,
               "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
               "img-src 'self' data: blob:; font-src 'self'; connect-src 'self' ws://%s wss://%s; "
               "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
               "require-trusted-types-for 'script'; trusted-types 'none'\r\n",
               host, host);
    buf_adds(b, "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                "X-Frame-Options: DENY\r\nCross-Origin-Opener-Policy: same-origin\r\n"
                "Cross-Origin-Resource-Policy: same-origin\r\n"
                "Cross-Origin-Embedder-Policy: require-corp\r\n"
                "Permissions-Policy: camera=(), microphone=(), geolocation=(), payment=(), "
                "usb=()\r\n");
    if (hsts)
        buf_adds(b, "Strict-Transport-Security: max-age=31536000\r\n");
}

static bool no_store(const char *path)
{
    return str_starts(path, "/atp") || str_eq(path, "/metrics") || str_eq(path, "/readyz");
}

static void count(const struct req *r, int status)
{
    char l[96];

    snprintf(l, sizeof(l), "path=\"%s\",code=\"%d\"", r->route ? r->route->label : "file", status);
    metric_add("http_requests_total", l, 1);
}

void http_answer_static(struct req *r, int status, const char *type, const char *extra,
                        const char *body, size_t len)
{
    char host[300];

    if (r->answered)
        return;
    r->answered = true;
    count(r, status);
    str_copy(host, sizeof(host), status == 421 ? "localhost" : r->f.host);
    buf_printf(&r->head, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    http_security(&r->head, host, pki_is_files() && r->f.secure);
    if (no_store(r->path))
        buf_adds(&r->head, "Cache-Control: no-store\r\n");
    if (extra)
        buf_adds(&r->head, extra);
    if (r->close_after)
        buf_adds(&r->head, "Connection: close\r\n");
    if (status != 204 && status != 304)
        buf_printf(&r->head, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, len);
    buf_adds(&r->head, "\r\n");
    r->data = body;
    r->len = r->verb == VERB_HEAD || status == 204 || status == 304 ? 0 : len;
    lws_set_timeout(r->wsi, PENDING_TIMEOUT_HTTP_CONTENT, 30);
    lws_callback_on_writable(r->wsi);
}

void http_answer(struct req *r, int status, const char *type, const char *extra, const char *body,
                 size_t len)
{
    if (r->answered)
        return;
    buf_clear(&r->out);
    buf_add(&r->out, body, len);
    http_answer_static(r, status, type, extra, r->out.data, r->out.len);
}

void http_json(struct req *r, int status, const char *extra, json_object *body)
{
    const char *text = json_text(body);

    http_answer(r, status, "application/json", extra, text, strlen(text));
    json_put(body);
}

void http_fail(struct req *r, int status, enum atp_code code, const char *extra, const char *fmt,
               ...)
{
    struct buf b = BUF_INIT(4096);
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    atp_write_http_error(&b, code, text);
    http_answer(r, status ? status : atp_code_http(code), "application/json", extra, b.data, b.len);
    buf_done(&b);
}

/* --- a request's life ------------------------------------------------------------------------- */

static void req_free(struct req *r)
{
    if (!r)
        return;
    if (r->call)
        ipc_cancel(r->call);
    ident_cancel(r->query);
    if (r->work_gone)
        r->work_gone(r);
    if (r->token)
        explicit_bzero(r->token, strlen(r->token));
    free(r->token);
    if (r->body.data)
        explicit_bzero(r->body.data, r->body.cap);
    buf_done(&r->body);
    if (r->out.data)
        explicit_bzero(r->out.data, r->out.cap);
    buf_done(&r->out);
    if (r->head.data)
        explicit_bzero(r->head.data, r->head.cap);
    buf_done(&r->head);
    free(r);
}

void http_gone(struct sock *s)
{
    req_free(s->req);
    s->req = NULL;
}

static enum verb verb_of(struct lws *wsi)
{
    if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI))
        return VERB_GET;
    if (lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI))
        return VERB_HEAD;
    return lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI) ? VERB_POST : VERB_OTHER;
}

static void header(struct lws *wsi, enum lws_token_indexes t, char *out, size_t size)
{
    if (lws_hdr_copy(wsi, out, (int)size, t) < 0)
        out[0] = '\0';
}

static void read_head(struct req *r)
{
    char type[96], accept[128];
    const char *token;

    facts_read(r->wsi, r->s, &r->f);
    token = r->f.bearer ? r->f.bearer : r->f.cookie[0] ? r->f.cookie : NULL;
    r->by_cookie = token && !r->f.bearer;
    r->token = token ? xstrdup(token) : NULL;
    r->f.bearer = NULL;
    r->f.cookie = "";
    header(r->wsi, WSI_TOKEN_HTTP_USER_AGENT, r->agent, sizeof(r->agent));
    header(r->wsi, WSI_TOKEN_HTTP_IF_NONE_MATCH, r->if_none_match, sizeof(r->if_none_match));
    header(r->wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, type, sizeof(type));
    header(r->wsi, WSI_TOKEN_HTTP_ACCEPT_ENCODING, accept, sizeof(accept));
    type[strcspn(type, "; ")] = '\0';
    r->json = strcasecmp(type, "application/json") == 0;
    r->gzip = strstr(accept, "gzip") != NULL;
}

static void find_route(struct req *r)
{
    enum verb v = r->verb == VERB_HEAD ? VERB_GET : r->verb;

    for (size_t i = 0; i < N_ELEMS(routes); i++) {
        if (!str_eq(routes[i].path, r->path))
            continue;
        r->route = &routes[i];
        if (routes[i].verb != v)
            http_fail(r, 405, ATP_EPARSE,
                      routes[i].verb == VERB_POST ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n",
                      "%s does not take this method", r->path);
        return;
    }
    if (v == VERB_GET)
        return;
    http_fail(r, 405, ATP_EPARSE, "Allow: GET, HEAD\r\n", "%s does not take this method", r->path);
}

static void dispatch(struct req *r)
{
    /* lws reports the end of an empty body too, after we went ahead without one. */
    if (r->dispatched || r->answered)
        return;
    r->dispatched = true;
    lws_set_timeout(r->wsi, PENDING_TIMEOUT_HTTP_CONTENT, WORK_S);
    if (r->too_big)
        http_fail(r, 413, ATP_ELIMIT, NULL, "the body is over %u bytes", HTTP_BODY_MAX);
    else if (r->route)
        r->route->fn(r);
    else if (str_eq(r->path, "/atp"))
        http_fail(r, 426, ATP_EPARSE, "Upgrade: websocket\r\n", "/atp is a WebSocket");
    else if (str_starts(r->path, "/atp/") || str_eq(r->path, "/mcp") || str_starts(r->path, "/v1/"))
        http_fail(r, 404, ATP_ENOTFOUND, NULL, "%.200s: not found", r->path);
    else
        files_serve(r);
}

int http_begin(struct lws *wsi, struct sock *s, const char *path)
{
    struct req *r;
    const char *why;
    char length[24];
    int64_t n = 0;
    int status;

    if (!s)
        return -1;
    http_gone(s);
    r = s->req = xcalloc(1, sizeof(*r));
    r->s = s;
    r->wsi = wsi;
    buf_init(&r->body, HTTP_BODY_MAX);
    buf_init(&r->head, 64 * 1024);
    buf_init(&r->out, 64U << 20);
    r->verb = verb_of(wsi);
    str_copy(r->path, sizeof(r->path), path);
    read_head(r);
    header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof(length));
    if (length[0] && !parse_i64(length, 0, INT64_MAX, &n))
        n = DISCARD_MAX + 1;
    if (n > DISCARD_MAX)
        r->close_after = true;
    status = facts_check(&r->f, s, &why);
    if (status)
        http_fail(r, status, ATP_EPERM, NULL, "%s", why);
    else if (r->by_cookie && r->verb == VERB_POST && !r->f.origin[0])
        http_fail(r, 403, ATP_EPERM, NULL, "a cookie needs an Origin");
    else
        find_route(r);
    if (n > DISCARD_MAX)
        http_fail(r, 413, ATP_ELIMIT, NULL, "the body is over %u bytes", HTTP_BODY_MAX);
    if (r->verb == VERB_POST && n && !r->close_after)
        return 0; /* the body first */
    dispatch(r);
    return 0;
}

int http_body(struct sock *s, const void *data, size_t len)
{
    if (s && s->req && buf_add(&s->req->body, data, len))
        s->req->too_big = true;
    return 0;
}

int http_complete(struct sock *s)
{
    if (s && s->req)
        dispatch(s->req);
    return 0;
}

/* lws writes its header before the bytes we give it, so a piece is copied behind room for that. */
static int write_piece(struct req *r)
{
    static unsigned char piece[LWS_PRE + PIECE];
    size_t n = r->len - r->sent < PIECE ? r->len - r->sent : PIECE;

    memcpy(piece + LWS_PRE, r->data + r->sent, n);
    r->sent += n;
    return lws_write(r->wsi, piece + LWS_PRE, n,
                     r->sent == r->len ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) < 0
               ? -1
               : 0;
}

static int write_head(struct req *r)
{
    struct buf b = BUF_INIT(128 * 1024);
    static const char room[LWS_PRE];
    int n;

    buf_add(&b, room, sizeof(room));
    buf_add(&b, r->head.data, r->head.len);
    n = lws_write(r->wsi, (unsigned char *)b.data + LWS_PRE, r->head.len, LWS_WRITE_HTTP_HEADERS);
    explicit_bzero(b.data, b.len);
    buf_done(&b);
    r->head_out = true;
    return n < 0 ? -1 : 0;
}

int http_writeable(struct lws *wsi, struct sock *s)
{
    struct req *r = s ? s->req : NULL;
    bool shut;

    if (!r || !r->answered)
        return 0;
    if (!r->head_out && write_head(r))
        return -1;
    while (r->sent < r->len && !lws_send_pipe_choked(wsi))
        if (write_piece(r))
            return -1;
    if (r->sent < r->len) {
        lws_callback_on_writable(wsi);
        return 0;
    }
    shut = r->close_after;
    http_gone(s);
    if (shut || lws_http_transaction_completed(wsi))
        return -1;
    return 0;
}
