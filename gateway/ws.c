/*
 * WebSockets: upgrade, messages, pings, closing.
 *
 * lws sends a close frame only when the close happens inside RECEIVE or TIMER; from WRITEABLE the
 * peer sees a bare end of file. So every close of ours is asked for with a one-microsecond timer.
 * The same timer, one per connection, carries all its dates: ping, silence, stall, token expiry.
 */
#include "common/base/clock.h"
#include "gateway/cmd.h"
#include "gateway/hosts.h"
#include "gateway/http.h"
#include "gateway/metrics.h"
#include "gateway/replay.h"

#define PING_MS        30000
#define SILENCE_MS     40000
#define STALL_MS       30000
#define CLOSE_FLUSH_MS 2000
#define EXPIRED_MS     600000
#define WARN_LAST_MS   60000
#define REPLIES_MAX    (16U << 20)

struct wsc {
    struct conn c;
    struct sock *s;
    struct lws *wsi;
    struct buf in;
    int64_t heard, pinged, stalled; /* mono; stalled: since when nothing left, 0: nothing waits */
    int64_t close_by;
    int code; /* of the close under way, 0: none */
    char reason[32];
    bool ping, rx_off;
    unsigned warned; /* bit 0: first, bit 1: last */
    int64_t warned_exp;
};

static unsigned n_ws;

unsigned ws_count(void)
{
    return n_ws;
}

static struct wsc *self(struct conn *c)
{
    return container_of(c, struct wsc, c);
}

static void arm(struct wsc *w, int64_t now);

static void wake(struct conn *c)
{
    struct wsc *w = self(c);

    if (!w->stalled) {
        w->stalled = mono_ms();
        if (!w->code)
            arm(w, w->stalled);
    }
    if (!w->rx_off && c->q.reply_bytes > REPLIES_MAX) {
        w->rx_off = true;
        lws_rx_flow_control(w->wsi, 0);
    }
    lws_callback_on_writable(w->wsi);
}

/* --- closing ---------------------------------------------------------------------------------- */

static void close_conn(struct conn *c, int code, const char *reason)
{
    struct wsc *w = self(c);
    json_object *b;

    if (w->code)
        return;
    w->code = code;
    str_copy(w->reason, sizeof(w->reason), reason);
    w->close_by = mono_ms() + CLOSE_FLUSH_MS;
    if (code == 4008)
        metric_add("slow_disconnects_total", NULL, 1);
    outq_drop_events(&c->q);
    c->subscribed = false;
    if (code != 1003 && code != 1007 && code != 1009) {
        b = json_make("reason:s code:i lastSeq:i", reason, (int64_t)code, (int64_t)c->last_seq);
        if (code == 1001)
            json_add_int(b, "retryAfterSecs", 1);
        conn_local(c, KIND_CLOSING, b);
    }
    lws_set_timer_usecs(w->wsi, 1);
}

static int finish_close(struct wsc *w)
{
    lws_close_reason(w->wsi, (enum lws_close_status)w->code, (unsigned char *)w->reason,
                     strlen(w->reason));
    return -1;
}

void ws_close_session(const struct sess *s, int code, const char *reason)
{
    struct conn *c, *next;

    for (c = LIST_FIRST(&conns); c; c = next) {
        next = LIST_NEXT(c, link);
        /* One that logs out itself gets its reply first. */
        if (!s || (c->id->sess == s && !(c->leaving && code == 4003)))
            close_conn(c, code, reason);
    }
}

/* --- upgrade ---------------------------------------------------------------------------------- */

static int refuse(struct lws *wsi, struct sock *s, int status, enum atp_code code, const char *why)
{
    struct buf b = BUF_INIT(16384), body = BUF_INIT(2048);
    static const char room[LWS_PRE];
    char l[48];

    (void)s;
    snprintf(l, sizeof(l), "result=\"%d\"", status);
    metric_add("ws_upgrades_total", l, 1);
    atp_write_http_error(&body, code, why);
    buf_add(&b, room, sizeof(room));
    buf_printf(&b, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    if (status == 401)
        buf_adds(&b, "WWW-Authenticate: Bearer\r\n");
    if (status == 503 || status == 429)
        buf_adds(&b, "Retry-After: 1\r\n");
    http_security(&b, "localhost", false);
    buf_printf(&b,
               "Cache-Control: no-store\r\nContent-Type: application/json\r\n"
               "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
               body.len, body.data);
    lws_write(wsi, (unsigned char *)b.data + LWS_PRE, b.len - LWS_PRE, LWS_WRITE_HTTP_HEADERS);
    buf_done(&body);
    buf_done(&b);
    return -1;
}

static unsigned conns_of(const char *identity)
{
    struct conn *c;
    unsigned n = 0;

    LIST_FOREACH(c, &conns, link)
    n += str_eq(c->id->identity, identity);
    return n;
}

static void nobody(struct ident *i, void *arg)
{
    (void)i;
    (void)arg;
}

int ws_confirm(struct lws *wsi, struct sock *s)
{
    struct facts f;
    const char *why = "", *token;
    struct ident *i;
    char uri[64];
    int status;

    if (!s)
        return -1;
    if (lws_hdr_copy(wsi, uri, sizeof(uri), WSI_TOKEN_GET_URI) < 0 || !str_eq(uri, "/atp"))
        return refuse(wsi, s, 404, ATP_ENOTFOUND, "the WebSocket is at /atp");
    facts_read(wsi, s, &f);
    token = f.bearer ? f.bearer : f.cookie[0] ? f.cookie : NULL;
    status = facts_check(&f, s, &why);
    if (status)
        return refuse(wsi, s, status, ATP_EPERM, why);
    if (!token)
        return refuse(wsi, s, 401, ATP_EAUTH,
                      f.has_cookie ? "the cookie is not valid here" : "no token");
    if (!f.bearer && !f.origin[0])
        return refuse(wsi, s, 403, ATP_EPERM, "a cookie needs an Origin");
    if (lws_hdr_total_length(wsi, WSI_TOKEN_PROTOCOL) > 0)
        return refuse(wsi, s, 400, ATP_EPARSE, "no subprotocol is spoken here");
    int64_t t0 = mono_us();
    i = ident_peek(token);
    metric_time("token_check_seconds", NULL, mono_us() - t0);
    if (!i) { /* only behind TLS, where the head cannot be seen before lws has it */
        ident_ask(token, nobody, NULL);
        return refuse(wsi, s, 503, ATP_EUNAVAIL, "the token is being checked; try again");
    }
    if (i->expired || (i->valid && i->exp_ms <= now_ms()))
        return refuse(wsi, s, 401, ATP_EEXPIRED, "the token has expired");
    if (!ident_live(i, now_ms()))
        return refuse(wsi, s, 401, ATP_EAUTH, "the token is not valid");
    if (ident_require_tls && !f.secure)
        return refuse(wsi, s, 426, ATP_EPERM, "TLS is required");
    if (n_ws >= WEB_CONNS_MAX || conns_of(i->identity) >= WEB_USER_CONNS) {
        metric_add("limited_total", "limit=\"connections\"", 1);
        return refuse(wsi, s, 429, ATP_ELIMIT, "too many connections");
    }
    ident_unref(s->id);
    s->id = ident_ref(i);
    free(s->token);
    s->token = xstrdup(token);
    if (!i->sess->remote[0])
        str_copy(i->sess->remote, sizeof(i->sess->remote), f.remote);
    metric_add("ws_upgrades_total", "result=\"101\"", 1);
    return 0;
}

static void gauge(const struct ident *i, double n)
{
    char l[48];

    snprintf(l, sizeof(l), "role=\"%s\"", role_name(i->role));
    metric_add("connections", l, n);
}

int ws_established(struct lws *wsi, struct sock *s)
{
    struct wsc *w;

    if (!s || !s->id)
        return -1;
    http_gone(s);
    w = s->ws = xcalloc(1, sizeof(*w));
    w->s = s;
    w->wsi = wsi;
    w->c.owner = w;
    w->c.wake = wake;
    w->c.close = close_conn;
    w->c.id = TAKE(s->id);
    w->c.token = TAKE(s->token);
    w->c.exp_ms = w->c.id->exp_ms;
    w->c.admin = s->l->admin;
    w->c.loopback = addr_is_loopback(s->remote);
    str_copy(w->c.remote, sizeof(w->c.remote), s->remote);
    buf_init(&w->in, ATP_FRAME_IN);
    w->heard = w->pinged = mono_ms();
    conn_init(&w->c);
    w->c.id->sess->refs++;
    w->c.id->sess->n_conns++;
    w->c.id->sess->active_ms = now_ms();
    n_ws++;
    gauge(w->c.id, 1);
    sock_known(s);
    cmd_ready(&w->c);
    if (svc.stopping)
        close_conn(&w->c, 1001, "shutdown");
    arm(w, mono_ms());
    return 0;
}

void ws_gone(struct sock *s)
{
    struct wsc *w = s->ws;

    if (!w)
        return;
    s->ws = NULL;
    n_ws--;
    gauge(w->c.id, -1);
    w->c.id->sess->n_conns--;
    w->c.id->sess->refs--; /* the ident still holds one */
    cmd_conn_gone(&w->c);
    conn_done(&w->c);
    buf_done(&w->in);
    free(w);
}

/* --- messages --------------------------------------------------------------------------------- */

static int end_now(struct wsc *w, int code, const char *why)
{
    char l[64];

    snprintf(l, sizeof(l), "reason=\"%s\"", why);
    metric_add("frame_errors_total", l, 1);
    w->code = code;
    str_copy(w->reason, sizeof(w->reason), why);
    return finish_close(w);
}

int ws_receive(struct lws *wsi, struct sock *s, const void *data, size_t len)
{
    struct wsc *w = s ? s->ws : NULL;
    size_t left;

    if (!w)
        return -1;
    w->heard = mono_ms();
    if (w->code)
        return 0;
    if (lws_frame_is_binary(wsi))
        return end_now(w, 1003, "binary");
    left = lws_remaining_packet_payload(wsi);
    if (w->in.len + len + left > ATP_FRAME_IN) {
        metric_add("limited_total", "limit=\"message\"", 1);
        return end_now(w, 1009, "message over 4 MiB");
    }
    if (!left && lws_is_final_fragment(wsi) && !w->in.len) {
        cmd_frame(&w->c, data, len);
        return 0;
    }
    buf_add(&w->in, data, len);
    if (left || !lws_is_final_fragment(wsi))
        return 0;
    cmd_frame(&w->c, w->in.data ? w->in.data : "", w->in.len);
    if (w->in.cap > 65536)
        buf_done(&w->in);
    else
        buf_clear(&w->in);
    return 0;
}

void ws_pong(struct sock *s)
{
    if (s && s->ws)
        s->ws->heard = mono_ms();
}

static bool send_one(struct wsc *w)
{
    struct out_msg *m = conn_next(&w->c);

    if (!m)
        return false;
    /* The header goes before the text; it is the same for every client of this frame. */
    int n = lws_write(w->wsi, m->data + OUT_PRE, m->len, LWS_WRITE_TEXT);

    out_msg_unref(m);
    return n >= 0;
}

int ws_writeable(struct sock *s)
{
    struct wsc *w = s ? s->ws : NULL;

    if (!w)
        return -1;
    w->stalled = 0;
    if (w->ping) {
        unsigned char room[LWS_PRE + 8];

        w->ping = false;
        if (lws_write(w->wsi, room + LWS_PRE, 0, LWS_WRITE_PING) < 0)
            return -1;
    }
    while (!lws_send_pipe_choked(w->wsi) && send_one(w))
        ;
    if (w->rx_off && w->c.q.reply_bytes < REPLIES_MAX / 2) {
        w->rx_off = false;
        lws_rx_flow_control(w->wsi, 1);
    }
    if (!outq_empty(&w->c.q)) {
        w->stalled = mono_ms();
        lws_callback_on_writable(w->wsi);
    } else if (w->code) {
        lws_set_timer_usecs(w->wsi, 1);
    }
    return 0;
}

/* --- dates ------------------------------------------------------------------------------------ */

static void warn(struct wsc *w, int64_t left)
{
    char ts[RFC3339_LEN];

    conn_local(&w->c, KIND_EXPIRING,
               json_make("expiresAt:s secondsLeft:i", rfc3339(w->c.exp_ms, ts), left / 1000));
}

/* Token expiry; returns ms until the next date of it. */
static int64_t check_token(struct wsc *w)
{
    int64_t left = w->c.exp_ms - now_ms(), first = ident_refresh_window_ms;

    if (w->warned_exp != w->c.exp_ms) {
        w->warned_exp = w->c.exp_ms;
        w->warned = 0;
    }
    if (left <= -EXPIRED_MS) {
        close_conn(&w->c, 4001, "token_expired");
        return 0;
    }
    if (left <= 0) {
        conn_mute(&w->c, true);
        return left + EXPIRED_MS;
    }
    conn_mute(&w->c, false);
    if (left <= WARN_LAST_MS) {
        if (!(w->warned & 2)) {
            w->warned = 3; /* first: the warning wakes, and waking looks at the dates */
            warn(w, left);
        }
        return left;
    }
    if (left <= first) {
        if (!w->warned) {
            w->warned = 1;
            warn(w, left);
        }
        return left - WARN_LAST_MS;
    }
    return left - first;
}

static void arm(struct wsc *w, int64_t now)
{
    int64_t due = check_token(w), d;

    if (w->code)
        return;
    d = w->pinged + PING_MS - now;
    due = d < due ? d : due;
    d = w->heard + SILENCE_MS - now;
    due = d < due ? d : due;
    d = w->stalled ? w->stalled + STALL_MS - now : due;
    due = d < due ? d : due;
    if (due < 1)
        due = 1;
    if (due > 3600000)
        due = 3600000;
    lws_set_timer_usecs(w->wsi, (lws_usec_t)due * 1000 + 500);
}

int ws_timer(struct sock *s)
{
    struct wsc *w = s->ws;
    int64_t now = mono_ms();

    if (w->code) {
        if ((outq_empty(&w->c.q) && !lws_partial_buffered(w->wsi)) || now >= w->close_by)
            return finish_close(w);
        lws_callback_on_writable(w->wsi);
        lws_set_timer_usecs(w->wsi, (lws_usec_t)(w->close_by - now) * 1000 + 500);
        return 0;
    }
    if (now - w->heard >= SILENCE_MS) {
        close_conn(&w->c, 4010, "ping_timeout");
        return 0;
    }
    if (w->stalled && now - w->stalled >= STALL_MS) {
        close_conn(&w->c, 4008, "slow_consumer");
        return 0;
    }
    if (now - w->pinged >= PING_MS) {
        w->pinged = now;
        w->ping = true;
        lws_callback_on_writable(w->wsi);
    }
    arm(w, now);
    return 0;
}
