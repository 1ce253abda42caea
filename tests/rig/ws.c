/* See ws.h. Blocking sockets with poll for deadlines. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

struct pending {
    json_object *frame;
    STAILQ_ENTRY(pending) link;
};
struct ws {
    int fd, close_code;
    unsigned next_id;
    struct buf in, msg;
    STAILQ_HEAD(, pending) queue;
};

static int connect_port(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const void *data, size_t len)
{
    for (size_t o = 0; o < len;) {
        ssize_t n = send(fd, (const char *)data + o, len - o, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        o += (size_t)n;
    }
    return true;
}

/* One read with a deadline: bytes appended, 0 at end of file, -1 on timeout or error. */
static int read_some(int fd, struct buf *b, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    if (poll(&p, 1, timeout_ms) != 1 || buf_reserve(b, 65536))
        return -1;
    ssize_t n = recv(fd, b->data + b->len, 65536, 0);
    if (n > 0) {
        b->len += (size_t)n;
        b->data[b->len] = 0;
    }
    return n < 0 && errno == ECONNRESET ? 0 : (int)n;
}

int http_request(int port, const char *method, const char *path, const char *headers,
                 const char *body, char **reply)
{
    struct buf out = BUF_INIT(16 << 20), in = BUF_INIT(64 << 20);
    int fd = connect_port(port), status = 0;
    if (fd < 0)
        return 0;
    buf_printf(&out, "%s %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n%s", method,
               path, port, headers ? headers : "");
    if (body)
        buf_printf(&out, "Content-Length: %zu\r\n", strlen(body));
    buf_adds(&out, "\r\n");
    if (body)
        buf_adds(&out, body);
    send_all(fd, out.data, out.len);
    int64_t end = mono_ms() + RIG_WAIT_MS;
    while (mono_ms() < end) {
        if (read_some(fd, &in, (int)(end - mono_ms())) <= 0)
            break;
        /* a response with a length is complete before the peer closes */
        char *head_end = strstr(in.data, "\r\n\r\n"),
             *cl = strcasestr(in.data, "\r\ncontent-length:");
        if (head_end && cl && cl < head_end &&
            in.len >= (size_t)(head_end + 4 - in.data) + strtoul(cl + 17, NULL, 10))
            break;
    }
    if (in.len > 12 && str_starts(in.data, "HTTP/1."))
        status = (int)strtol(in.data + 9, NULL, 10);
    close(fd);
    buf_done(&out);
    if (reply)
        *reply = buf_take(&in);
    buf_done(&in);
    return status;
}

int atp_login(int port, const char *identity, const char *credential, char **token)
{
    json_object *o = json_make("identity:s credential:s", identity, credential), *a = NULL;
    char *reply = NULL;
    int status = http_request(port, "POST", "/atp/auth/login", "Content-Type: application/json\r\n",
                              json_text(o), &reply);
    json_put(o);
    char *body = reply ? strstr(reply, "\r\n\r\n") : NULL;
    *token = NULL;
    if (status == 200 && body && json_parse(body + 4, strlen(body + 4), &a) == 0)
        *token = xstrdup(json_str(a, "token", ""));
    json_put(a);
    free(reply);
    return *token ? 0 : status ? status : -1;
}

struct ws *ws_open(int port, const char *token, const char *headers, int *status)
{
    uint8_t nonce[16];
    struct ws *w = xcalloc(1, sizeof *w);
    w->fd = connect_port(port);
    buf_init(&w->in, 64 << 20);
    buf_init(&w->msg, 64 << 20);
    STAILQ_INIT(&w->queue);
    rnd_bytes(nonce, sizeof nonce);
    char *key = b64_encode_new(nonce, sizeof nonce);
    struct buf out = BUF_INIT(1 << 20);
    buf_printf(
        &out,
        "GET /atp HTTP/1.1\r\nHost: localhost:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: %s\r\n%s",
        port, key, headers ? headers : "");
    if (token)
        buf_printf(&out, "Authorization: Bearer %s\r\n", token);
    buf_adds(&out, "\r\n");
    free(key);
    int code = 0;
    char *end = NULL;
    if (w->fd >= 0 && send_all(w->fd, out.data, out.len))
        while (!end && read_some(w->fd, &w->in, RIG_WAIT_MS) > 0)
            end = strstr(w->in.data, "\r\n\r\n");
    if (w->in.len > 12 && str_starts(w->in.data, "HTTP/1."))
        code = (int)strtol(w->in.data + 9, NULL, 10);
    buf_done(&out);
    if (status)
        *status = code;
    if (code != 101 || !end) {
        ws_close(w);
        return NULL;
    }
    buf_shift(&w->in, (size_t)(end + 4 - w->in.data));
    return w;
}

void ws_close(struct ws *w)
{
    if (!w)
        return;
    while (!STAILQ_EMPTY(&w->queue)) {
        struct pending *p = STAILQ_FIRST(&w->queue);
        STAILQ_REMOVE_HEAD(&w->queue, link);
        json_put(p->frame);
        free(p);
    }
    if (w->fd >= 0)
        close(w->fd);
    buf_done(&w->in);
    buf_done(&w->msg);
    free(w);
}

void ws_closep(struct ws **w)
{
    ws_close(*w);
    *w = NULL;
}

int ws_fd(struct ws *w)
{
    return w->fd;
}

int ws_close_code(struct ws *w)
{
    return w->close_code;
}

bool ws_send_raw(struct ws *w, int opcode, const void *data, size_t len, bool masked)
{
    uint8_t head[14] = { (uint8_t)(0x80 | opcode) }, mask[4] = { 0 };
    size_t n = 2;
    if (len < 126) {
        head[1] = (uint8_t)len;
    } else {
        bool wide = len > 65535;
        head[1] = wide ? 127 : 126;
        size_t k = wide ? 8 : 2;
        for (size_t i = 0; i < k; i++)
            head[n + i] = (uint8_t)(len >> (8 * (k - 1 - i)));
        n += k;
    }
    char *copy = xmalloc(len + 1);
    memcpy(copy, data, len);
    if (masked) {
        head[1] |= 0x80;
        rnd_bytes(mask, sizeof mask);
        memcpy(head + n, mask, 4);
        n += 4;
        for (size_t i = 0; i < len; i++)
            copy[i] = (char)(copy[i] ^ (char)mask[i % 4]);
    }
    bool ok = send_all(w->fd, head, n) && send_all(w->fd, copy, len);
    free(copy);
    return ok;
}

bool ws_send(struct ws *w, json_object *frame)
{
    const char *text = json_text(frame);
    bool ok = ws_send_raw(w, 1, text, strlen(text), true);
    json_put(frame);
    return ok;
}

/* Handles one WebSocket frame that is whole in w->in; 1 if a message is complete in w->msg, 0 if
 * more bytes are needed, -1 closed. */
static int take_frame(struct ws *w)
{
    const uint8_t *p = (const uint8_t *)w->in.data;
    if (w->in.len < 2)
        return 0;
    size_t len = p[1] & 0x7f, head = 2, ext = len == 126 ? 2 : len == 127 ? 8 : 0;
    if (w->in.len < head + ext)
        return 0;
    if (ext) {
        len = 0;
        for (size_t i = 0; i < ext; i++)
            len = len << 8 | p[2 + i];
        head += ext;
    }
    if (w->in.len < head + len)
        return 0;
    int op = p[0] & 15;
    bool fin = p[0] & 0x80;
    if (op == 8) {
        w->close_code = len >= 2 ? p[head] << 8 | p[head + 1] : 1005;
        return -1;
    }
    if (op == 9)
        ws_send_raw(w, 10, p + head, len, true);
    if (op < 3)
        buf_add(&w->msg, p + head, len);
    buf_shift(&w->in, head + len);
    return op < 3 && fin ? 1 : 2;
}

static json_object *recv_wire(struct ws *w, int timeout_ms)
{
    int64_t end = mono_ms() + timeout_ms;
    while (!w->close_code) {
        int r = take_frame(w);
        if (r < 0)
            return NULL;
        if (r == 1) {
            json_object *o = NULL;
            int bad = json_parse(w->msg.data, w->msg.len, &o);
            if (bad)
                fprintf(stderr, "ws: the gateway sent no JSON: %s\n", w->msg.data);
            buf_clear(&w->msg);
            return o;
        }
        if (r == 2)
            continue;
        int64_t left = end - mono_ms();
        if (left <= 0)
            return NULL;
        int n = read_some(w->fd, &w->in, (int)left);
        if (n == 0)
            w->close_code = 1006;
        if (n <= 0)
            return NULL;
    }
    return NULL;
}

json_object *ws_recv(struct ws *w, int timeout_ms)
{
    struct pending *p = STAILQ_FIRST(&w->queue);
    if (!p)
        return recv_wire(w, timeout_ms);
    STAILQ_REMOVE_HEAD(&w->queue, link);
    json_object *o = p->frame;
    free(p);
    return o;
}

json_object *ws_cmd(struct ws *w, const char *domain, const char *op, json_object *body)
{
    char id[32];
    snprintf(id, sizeof id, "t-%u", ++w->next_id);
    if (!ws_send(w, json_make("type:s id:s domain:s op:s body:o", "cmd", id, domain, op,
                              body ? body : json_new())))
        return NULL;
    int64_t end = mono_ms() + RIG_WAIT_MS;
    while (mono_ms() < end) {
        json_object *o = recv_wire(w, (int)(end - mono_ms()));
        if (!o)
            return NULL;
        if (str_eq(json_str(o, "type", ""), "reply") && str_eq(json_str(o, "id", ""), id))
            return o;
        struct pending *p = xcalloc(1, sizeof *p);
        p->frame = o;
        STAILQ_INSERT_TAIL(&w->queue, p, link);
    }
    return NULL;
}

json_object *ws_event(struct ws *w, const char *kind, int timeout_ms)
{
    int64_t end = mono_ms() + timeout_ms;
    for (;;) {
        int64_t left = end - mono_ms();
        json_object *o = ws_recv(w, left > 0 ? (int)left : 0);
        if (!o)
            return NULL;
        if (str_eq(json_str(o, "event", ""), kind))
            return o;
        json_put(o);
    }
}

struct ws *ws_admin(struct rig *g)
{
    char *token = NULL;
    if (atp_login(g->port, "admin", g->api_key, &token) != 0)
        return NULL;
    struct ws *w = ws_open(g->port, token, NULL, NULL);
    free(token);
    if (w)
        json_put(ws_event(w, "session.ready", RIG_WAIT_MS));
    return w;
}
