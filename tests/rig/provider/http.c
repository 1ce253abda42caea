/*
 * HTTP/1.1 as far as a provider double needs it: keep-alive, request bodies by Content-Length or
 * chunked, Expect: 100-continue, answers with a length or chunked. What a step wants to go wrong
 * (delays, gates, cuts, resets, garbage) happens in here, below the wire formats.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "tests/rig/provider/double.h"

struct conn {
    int fd;
    struct buf in;
};

static bool fill(struct conn *c)
{
    if (buf_reserve(&c->in, 65536))
        return false;
    ssize_t n = recv(c->fd, c->in.data + c->in.len, 65536, 0);
    if (n <= 0)
        return false;
    c->in.len += (size_t)n;
    c->in.data[c->in.len] = '\0';
    return true;
}

/* Length of the head including its blank line, 0 while it is incomplete. */
static size_t head_len(const struct conn *c)
{
    const char *end = c->in.len ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;

    return end ? (size_t)(end - c->in.data) + 4 : 0;
}

static void parse_headers(char *at, struct http_req *q)
{
    char *save = NULL;

    for (char *line = strtok_r(at, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
        char *colon = strchr(line, ':');

        if (!colon)
            continue;
        *colon++ = '\0';
        colon += strspn(colon, " \t");
        for (char *p = line; *p; p++)
            *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
        json_add_str(q->headers, line, colon);
    }
}

static bool read_chunked(struct conn *c, struct buf *body)
{
    for (;;) {
        char *eol = NULL;
        while (!c->in.len || !(eol = memmem(c->in.data, c->in.len, "\r\n", 2)))
            if (!fill(c))
                return false;
        size_t n = strtoul(c->in.data, NULL, 16);
        buf_shift(&c->in, (size_t)(eol - c->in.data) + 2);
        while (c->in.len < n + 2)
            if (!fill(c))
                return false;
        if (buf_add(body, c->in.data, n))
            return false;
        buf_shift(&c->in, n + 2);
        if (!n)
            return true;
    }
}

static bool read_body(struct conn *c, struct http_req *q)
{
    cleanup(buf_done) struct buf body = BUF_INIT(REQUEST_MAX);
    size_t want = strtoul(json_str(q->headers, "content-length", "0"), NULL, 10);

    if (strstr(json_str(q->headers, "expect", ""), "100-continue"))
        (void)send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL);
    if (strstr(json_str(q->headers, "transfer-encoding", ""), "chunked")) {
        if (!read_chunked(c, &body))
            return false;
    } else {
        while (c->in.len < want)
            if (!fill(c))
                return false;
        if (want && buf_add(&body, c->in.data, want))
            return false;
        buf_shift(&c->in, want);
    }
    q->body_len = body.len;
    q->body = buf_take(&body);
    if (q->body_len && json_parse(q->body, q->body_len, &q->json))
        q->json = NULL;
    return true;
}

static bool read_request(struct conn *c, struct http_req *q)
{
    size_t n = 0;

    while (!(n = head_len(c)))
        if (c->in.len > 1024 * 1024 || !fill(c))
            return false;
    cleanup(freep) char *head = xstrndup(c->in.data, n);
    buf_shift(&c->in, n);
    char *eol = strstr(head, "\r\n");
    *eol = '\0';
    if (sscanf(head, "%7s %511s", q->method, q->path) != 2)
        return false;
    q->headers = json_new();
    parse_headers(eol + 2, q);
    q->keep_alive = !strstr(json_str(q->headers, "connection", ""), "close");
    return read_body(c, q);
}

static void request_done(struct http_req *q)
{
    json_put(q->headers);
    json_put(q->json);
    free(q->body);
}

static bool client_gone(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    char c = 0;

    return poll(&p, 1, 0) > 0 && recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static void put(struct reply *r, const char *data, size_t len)
{
    while (len > 0 && !r->stop) {
        ssize_t n = send(r->fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            r->stop = true;
            r->result = "hangup";
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

void http_head(struct reply *r, int status, const char *type, ssize_t length, json_object *extra)
{
    cleanup(buf_done) struct buf b = BUF_INIT(1024 * 1024);

    r->chunked = length < 0;
    buf_printf(&b, "HTTP/1.1 %d Status\r\ncontent-type: %s\r\n", status, type);
    buf_printf(&b, "request-id: req_%06ld\r\nx-request-id: req_%06ld\r\n", r->n, r->n);
    if (r->chunked)
        buf_adds(&b, "transfer-encoding: chunked\r\n");
    else
        buf_printf(&b, "content-length: %zd\r\n", length);
    if (extra) {
        json_object_object_foreach (extra, key, value)
            buf_printf(&b, "%s: %s\r\n", key, json_object_get_string(value));
    }
    buf_adds(&b, "\r\n");
    put(r, b.data, b.len);
}

/* Closes hard when the step says reset, so the peer sees ECONNRESET instead of an end. */
static void cut(struct reply *r)
{
    struct linger hard = { .l_onoff = 1, .l_linger = 0 };

    if (json_flag(r->step, "reset", false))
        setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    r->stop = true;
    r->result = "cut";
}

void http_body(struct reply *r, const char *data, size_t len)
{
    int64_t limit = json_int(r->step, "cut_bytes", -1);
    bool last = limit >= 0 && r->sent + len >= (size_t)limit;
    char size[24];

    if (r->stop || !len)
        return;
    if (last)
        len = (size_t)limit - r->sent;
    cleanup(buf_done) struct buf b = BUF_INIT(REQUEST_MAX);
    if (r->chunked) {
        snprintf(size, sizeof size, "%zx\r\n", len);
        buf_adds(&b, size);
    }
    buf_add(&b, data, len);
    if (r->chunked)
        buf_adds(&b, "\r\n");
    if (len)
        put(r, b.data, b.len);
    r->sent += len;
    if (last && !r->stop)
        cut(r);
}

static void pace(struct reply *r)
{
    int64_t gap = json_int(r->step, "gap_us", json_int(r->step, "gap_ms", 0) * 1000);

    if (gap <= 0)
        return;
    int64_t now = mono_us();
    if (r->next_us > now)
        usleep((useconds_t)(r->next_us - now));
    r->next_us = (r->next_us ? r->next_us : now) + gap;
}

static void event_gates(struct reply *r)
{
    json_object *hold = json_obj(r->step, "hold"); /* {after: N, until: "name"} */
    int64_t limit = json_int(r->step, "cut_events", -1);

    if (limit >= 0 && r->events >= limit)
        cut(r);
    if (!r->stop && hold && r->events == json_int(hold, "after", 0) &&
        !script_wait(json_str(hold, "until", ""), r->fd)) {
        r->stop = true;
        r->result = "hangup";
    }
    if (!r->stop && client_gone(r->fd)) {
        r->stop = true;
        r->result = "hangup";
    }
}

void http_event(struct reply *r, const char *name, const char *data)
{
    cleanup(buf_done) struct buf b = BUF_INIT(REQUEST_MAX);
    const char *eol = json_flag(r->step, "crlf", false) ? "\r\n" : "\n";

    if (r->stop)
        return;
    pace(r);
    event_gates(r);
    if (r->stop)
        return;
    if (name)
        buf_printf(&b, "event: %s%s", name, eol);
    buf_printf(&b, "data: %s%s%s", data, eol, eol);
    if (json_flag(r->step, "burst", false))
        buf_add(&r->burst, b.data, b.len);
    else
        http_body(r, b.data, b.len);
    r->events++;
}

void http_end(struct reply *r)
{
    if (r->burst.len)
        http_body(r, r->burst.data, r->burst.len);
    if (json_int(r->step, "cut_events", -1) == r->events)
        cut(r);
    if (r->chunked)
        put(r, "0\r\n\r\n", 5);
}

void http_whole(struct reply *r, int status, const char *type, const char *body)
{
    json_object *headers = json_obj(r->step, "headers");

    http_head(r, status, type, (ssize_t)strlen(body), headers);
    http_body(r, body, strlen(body));
}

static enum wire wire_of(const char *path)
{
    if (str_ends(path, "/messages"))
        return WIRE_ANTHROPIC;
    return str_ends(path, "/chat/completions") ? WIRE_OPENAI : WIRE_NONE;
}

static void list_models(struct reply *r, const struct http_req *q, json_object *models)
{
    cleanup(json_putp) json_object *list = json_new_arr();
    size_t n = models ? json_object_array_length(models) : 0;
    bool tags = str_ends(q->path, "/api/tags");
    bool anthropic = json_get(q->headers, "anthropic-version") != NULL;

    for (size_t i = 0; i < n; i++) {
        const char *id = json_object_get_string(json_object_array_get_idx(models, i));

        if (tags)
            json_push(list,
                      json_make("name:s model:s modified_at:s size:i digest:s details:o", id, id,
                                "2026-01-01T00:00:00Z", (int64_t)2019393189, "a80c4f17acd5",
                                json_make("format:s family:s parameter_size:s", "gguf", "llama",
                                          "3.2B")));
        else if (anthropic)
            json_push(list, json_make("type:s id:s display_name:s created_at:s", "model", id, id,
                                      "2026-01-01T00:00:00Z"));
        else
            json_push(list, json_make("id:s object:s created:i owned_by:s", id, "model",
                                      (int64_t)1767225600, "library"));
    }
    cleanup(json_putp) json_object *o =
        tags        ? json_make("models:o", json_object_get(list))
        : anthropic ? json_make("data:o has_more:b", json_object_get(list), 0)
                    : json_make("object:s data:o", "list", json_object_get(list));
    http_whole(r, 200, "application/json", json_text(o));
}

/* Requests that are no completions: lists of models, details of one, embeddings. */
static int answer_other(struct reply *r, const struct http_req *q)
{
    cleanup(json_putp) json_object *models = script_get("models");

    if (str_ends(q->path, "/models") || str_ends(q->path, "/api/tags")) {
        list_models(r, q, models);
        return 200;
    }
    if (str_ends(q->path, "/api/show")) {
        cleanup(json_putp) json_object *window = script_get("context_length");
        int64_t n = window ? json_object_get_int64(window) : 131072;
        cleanup(json_putp) json_object *o =
            json_make("details:o model_info:o capabilities:o", json_make("family:s", "llama"),
                      json_make("general.architecture:s llama.context_length:i", "llama", n),
                      json_tokener_parse("[\"completion\",\"tools\"]"));
        http_whole(r, 200, "application/json", json_text(o));
        return 200;
    }
    if (str_ends(q->path, "/embeddings")) {
        openai_embeddings(r, q);
        return 200;
    }
    openai_error(r, 404, "invalid_request_error", NULL, "Invalid URL");
    return 404;
}

/* 0 to go on, or the status of the refusal that was sent. */
static int refuse(struct reply *r, const struct http_req *q, enum wire w)
{
    cleanup(json_putp) json_object *auth = script_get("auth");
    cleanup(json_putp) json_object *lax = script_get("lax");
    const char *header = json_str(auth, "header", NULL);
    char text[256];
    const char *why = NULL;

    if (header && !str_eq(json_str(q->headers, header, ""), json_str(auth, "value", ""))) {
        if (w == WIRE_ANTHROPIC)
            anthropic_error(r, 401, "authentication_error", "invalid x-api-key");
        else
            openai_error(r, 401, "invalid_request_error", "invalid_api_key",
                         "Incorrect API key provided");
        return 401;
    }
    if (w == WIRE_NONE || (lax && json_object_get_boolean(lax)))
        return 0;
    why = w == WIRE_ANTHROPIC ? strict_anthropic(q, text) : strict_openai(q, text);
    if (!why)
        return 0;
    if (w == WIRE_ANTHROPIC)
        anthropic_error(r, 400, "invalid_request_error", why);
    else
        openai_error(r, 400, "invalid_request_error", NULL, why);
    return 400;
}

static void plain_error(struct reply *r, enum wire w, int status)
{
    json_object *e = json_obj(r->step, "error");
    const char *body = json_str(r->step, "body", NULL);

    if (body)
        http_whole(r, status, json_str(r->step, "content_type", "application/json"), body);
    else if (w == WIRE_ANTHROPIC)
        anthropic_error(r, status, json_str(e, "type", "api_error"),
                        json_str(e, "message", "scripted error"));
    else
        openai_error(r, status, json_str(e, "type", "server_error"), json_str(e, "code", NULL),
                     json_str(e, "message", "scripted error"));
}

static int answer_step(struct reply *r, const struct http_req *q, enum wire w)
{
    int status = (int)json_int(r->step, "status", 200);
    const char *gate = json_str(r->step, "wait", NULL);
    int64_t delay = json_int(r->step, "delay_ms", 0);

    if (delay > 0)
        usleep((useconds_t)delay * 1000);
    if ((gate && !script_wait(gate, r->fd)) || client_gone(r->fd)) {
        r->stop = true;
        r->result = "hangup";
        return 0;
    }
    if (json_flag(r->step, "no_answer", false)) {
        cut(r);
        return 0;
    }
    if (status >= 300 || json_get(r->step, "body"))
        plain_error(r, w, status);
    else if (w == WIRE_ANTHROPIC)
        anthropic_answer(r, q);
    else
        openai_answer(r, q);
    return status;
}

/* True if the connection may serve another request. */
static bool serve_one(struct conn *c)
{
    struct http_req q = { .keep_alive = false };
    struct reply r = { .fd = c->fd, .result = "complete", .burst = BUF_INIT(REQUEST_MAX) };
    char rule[64] = "";
    int status = 0;

    if (!read_request(c, &q)) {
        request_done(&q);
        return false;
    }
    enum wire w = wire_of(q.path);
    if (w != WIRE_NONE)
        r.step = script_pick(&q, rule);
    r.n = script_log_request(&q, rule);
    if (!(status = refuse(&r, &q, w))) {
        if (w == WIRE_NONE) {
            status = answer_other(&r, &q);
        } else if (!r.step) {
            status = 500;
            openai_error(&r, 500, "server_error", NULL,
                         "test-provider: no step of the script is left");
        } else {
            status = answer_step(&r, &q, w);
        }
    }
    script_log_end(&r, status);
    bool again = q.keep_alive && !r.stop;
    json_put(r.step);
    buf_done(&r.burst);
    request_done(&q);
    return again;
}

void http_serve(int fd)
{
    struct conn c = { .fd = fd, .in = BUF_INIT(REQUEST_MAX) };

    while (serve_one(&c))
        ;
    buf_done(&c.in);
    close(fd);
}
