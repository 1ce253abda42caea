/*
 * One connection is one struct conn, which holds the struct call that handlers see. The usual call
 * costs accept, credentials, read, send, close: no watch is armed unless the frame is late, the
 * answer does not fit, or the handler keeps the call. Kept calls are watched for a hang-up by a
 * timer's first turn (20 ms), so that quick ones never pay for it.
 */
#include "common/ipc/server.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/args.h"
#include "common/base/log.h"
#include "common/ipc/frame.h"
#include "common/ipc/peers.h"

#define FRAME_LATE_MS  10000  /* for the whole frame, from the accept */
#define IDLE_MS        600000 /* between notifications */
#define WRITE_STALL_MS 30000  /* a caller that takes nothing for so long is gone */
#define WATCH_LATER_MS 20
#define HALF_SCAN_MS   500
#define ACCEPT_WAIT_MS 100 /* out of descriptors */
#define SLOW_BYTES     65536
#define STREAM_BYTES   (1024 * 1024)
#define POOL_MAX       64
#define KEEP_BYTES     65536
#define PEERS_MAX      256

enum state { CONN_READ, CONN_CALL, CONN_FLUSH };
enum park { PARK_NONE, PARK_NEW, PARK_WATCHED, PARK_HALF };

struct conn {
    struct call call;
    struct server *s;
    LIST_ENTRY(conn) link;       /* all */
    TAILQ_ENTRY(conn) park_link; /* parked: new, or half-closed */
    int fd;
    enum state state;
    enum park park;
    bool pumping, closed, gone;
    bool noted; /* a notification came before */
    bool idle;  /* the timer is the idle one */
    struct frame_in in;
    struct frame_out out;
    struct rpc_msg msg;
    struct watch watch;
    struct timer timer;
    bool timer_on;
    loop_fn drain_fn, gone_fn;
    void *drain_arg, *gone_arg;
};
LIST_HEAD(conn_list, conn);
TAILQ_HEAD(conn_tail, conn);

struct server {
    struct loop *loop;
    int listen_fd;
    struct server_opts o;
    call_fn fn;
    void *arg;
    struct watch watch;
    struct timer resume, later, half;
    struct peers *peers;
    struct conn_list conns, pool;
    struct conn_tail parked, halved;
    unsigned n_conns, n_calls, n_pool;
    bool paused;
    struct buf tx;
};

static void conn_pump(struct conn *c);
static void call_gone(struct conn *c);

/* --- connections --------------------------------------------------------------------------------
 */

static struct conn *conn_of(struct call *call)
{
    return container_of(call, struct conn, call);
}

static const struct conn *conn_ofc(const struct call *call)
{
    return (const struct conn *)(const void *)((const char *)call - offsetof(struct conn, call));
}

static struct conn *conn_new(struct server *s, int fd)
{
    struct conn *c = LIST_FIRST(&s->pool);

    if (c) {
        LIST_REMOVE(c, link);
        s->n_pool--;
    } else {
        c = xcalloc(1, sizeof(*c));
        c->s = s;
        frame_in_init(&c->in, s->o.max_frame);
        frame_out_init(&c->out, s->o.max_frame + FRAME_HDR + STREAM_BYTES);
    }
    c->fd = fd;
    c->state = CONN_READ;
    c->park = PARK_NONE;
    c->pumping = c->closed = c->gone = c->noted = c->idle = c->timer_on = false;
    c->drain_fn = c->gone_fn = NULL;
    memset(&c->call, 0, sizeof(c->call));
    c->call.peer.pidfd = -1;
    LIST_INSERT_HEAD(&s->conns, c, link);
    s->n_conns++;
    return c;
}

static void unpark(struct conn *c)
{
    if (c->park == PARK_NEW)
        TAILQ_REMOVE(&c->s->parked, c, park_link);
    else if (c->park == PARK_HALF)
        TAILQ_REMOVE(&c->s->halved, c, park_link);
    c->park = PARK_NONE;
}

static void stop_timer(struct conn *c)
{
    if (c->timer_on)
        timer_done(&c->timer);
    c->timer_on = false;
}

static void call_fds_close(struct call *call)
{
    for (size_t i = 0; i < call->n_fds; i++)
        closep(&call->fds[i]);
    call->n_fds = 0;
}

/* Closes now; the memory goes to the pool when no callback of ours is on the stack. */
static void conn_close(struct conn *c)
{
    struct server *s = c->s;

    if (!c->closed) {
        unpark(c);
        stop_timer(c);
        watch_done(&c->watch);
        closep(&c->fd);
        c->fd = -1;
        call_fds_close(&c->call);
        if (c->call.peer.pidfd >= 0 && !s->peers)
            peer_done(&c->call.peer);
        if (c->msg.root)
            rpc_done(&c->msg);
        c->closed = true;
        s->n_conns--;
    }
    if (c->pumping)
        return;
    LIST_REMOVE(c, link);
    c->in.consumed = 0;
    c->out.sent = 0;
    if (c->in.b.cap > KEEP_BYTES)
        buf_done(&c->in.b);
    if (c->out.b.cap > KEEP_BYTES)
        buf_done(&c->out.b);
    buf_clear(&c->in.b);
    buf_clear(&c->out.b);
    if (s->n_pool < POOL_MAX) {
        LIST_INSERT_HEAD(&s->pool, c, link);
        s->n_pool++;
        return;
    }
    frame_in_done(&c->in);
    frame_out_done(&c->out);
    free(c);
}

static void on_late(void *arg)
{
    struct conn *c = arg;

    if (c->state != CONN_CALL) {
        conn_close(c);
        return;
    }
    call_gone(c); /* a stream whose reader takes nothing */
}

static void start_timer(struct conn *c, int64_t ms)
{
    if (!c->timer_on)
        timer_init(&c->timer, c->s->loop, on_late, c);
    c->timer_on = true;
    timer_set(&c->timer, ms);
}

static void call_gone(struct conn *c)
{
    loop_fn fn = c->gone_fn;

    if (c->gone)
        return;
    c->gone = true;
    unpark(c);
    stop_timer(c);
    watch_done(&c->watch);
    c->gone_fn = NULL;
    if (fn)
        fn(c->gone_arg);
}

/* --- writing ------------------------------------------------------------------------------------
 */

static void on_io(int fd, unsigned events, void *arg);

static void arm(struct conn *c, unsigned events)
{
    if (!c->watch.loop)
        watch_init(&c->watch, c->s->loop, c->fd, on_io, c);
    watch_set(&c->watch, events);
}

/* The last frame of a connection; closes when it is out. */
static void send_last(struct conn *c, const char *body, size_t len)
{
    int r = c->gone ? -EPIPE : frame_out_send(&c->out, c->fd, body, len);

    unpark(c);
    if (r != 1) {
        conn_close(c);
        return;
    }
    c->state = CONN_FLUSH;
    start_timer(c, WRITE_STALL_MS);
    arm(c, LOOP_WRITE);
}

static void refuse(struct conn *c, int err)
{
    struct buf *b = &c->s->tx;

    buf_clear(b);
    rpc_write_error(b, c->msg.id, c->msg.id_int, err, NULL, NULL);
    send_last(c, b->data, b->len);
}

static void trim_tx(struct server *s)
{
    if (s->tx.cap > 4 * KEEP_BYTES)
        buf_done(&s->tx);
}

/* The handler's answer is in s->tx; ends the call. */
static void answer(struct conn *c)
{
    struct server *s = c->s;

    s->n_calls--;
    if (c->call.note) {
        call_end(&c->call);
        return;
    }
    if (s->tx.toobig || s->tx.len > s->o.max_frame) {
        buf_done(&s->tx);
        rpc_write_error(&s->tx, c->msg.id, c->msg.id_int, ERR_TOOBIG, NULL, NULL);
    }
    send_last(c, s->tx.data, s->tx.len);
    trim_tx(s);
}

static struct buf *answer_buf(struct call *call)
{
    struct buf *b = &conn_of(call)->s->tx;

    buf_clear(b);
    b->toobig = false;
    return b;
}

void call_reply_text(struct call *call, const char *result_json, size_t len)
{
    struct conn *c = conn_of(call);

    rpc_write_result_text(answer_buf(call), c->msg.id, c->msg.id_int, result_json, len);
    answer(c);
}

void call_reply(struct call *call, json_object *result)
{
    struct conn *c = conn_of(call);

    rpc_write_result(answer_buf(call), c->msg.id, c->msg.id_int, result);
    json_put(result);
    answer(c);
}

static void __attribute__((format(printf, 4, 0)))
fail_with(struct call *call, int err, json_object *data, const char *fmt, va_list ap)
{
    struct conn *c = conn_of(call);
    char text[256] = "";

    if (fmt)
        vsnprintf(text, sizeof(text), fmt, ap);
    text[utf8_floor(text, strlen(text))] = '\0';
    rpc_write_error(answer_buf(call), c->msg.id, c->msg.id_int, err, text, data);
    json_put(data);
    answer(c);
}

void call_fail(struct call *call, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fail_with(call, err, NULL, fmt, ap);
    va_end(ap);
}

void call_fail_data(struct call *call, int err, json_object *data, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fail_with(call, err, data, fmt, ap);
    va_end(ap);
}

void call_bad_args(struct call *call, const struct args *a)
{
    json_object *data = json_new();

    json_add_str(data, "param", a->field);
    call_fail_data(call, a->err ? a->err : ERR_INVAL, data, "%s: %s", a->field, a->why);
}

void call_fail_rpc(struct call *call, const struct rpc_error *e)
{
    struct conn *c = conn_of(call);

    rpc_write_error_rpc(answer_buf(call), c->msg.id, c->msg.id_int, e);
    answer(c);
}

void call_reply_fds(struct call *call, json_object *result, const int *fds, size_t n_fds)
{
    struct conn *c = conn_of(call);
    struct buf *b = answer_buf(call);

    rpc_write_result(b, c->msg.id, c->msg.id_int, result);
    json_put(result);
    c->s->n_calls--;
    /* A fresh connection takes a small frame at once; if it does not, the caller sees a close. */
    if (!c->gone && !call->note && !b->toobig)
        frame_write_fds(c->fd, b->data, b->len, fds, n_fds);
    explicit_bzero(b->data, b->len);
    conn_close(c);
}

void call_end(struct call *call)
{
    struct conn *c = conn_of(call);

    if (c->state == CONN_CALL && !call->note)
        c->s->n_calls--;
    if (!call->note || c->gone || !c->s->o.many_notes) {
        conn_close(c);
        return;
    }
    /* The next notification of this sender. */
    unpark(c);
    rpc_done(&c->msg);
    call_fds_close(call);
    c->state = CONN_READ;
    c->noted = true;
    c->drain_fn = c->gone_fn = NULL;
    if (!c->pumping)
        conn_pump(c);
}

int call_note_text(struct call *call, const char *frame_json, size_t len)
{
    struct conn *c = conn_of(call);
    int r;

    if (c->gone || call->note)
        return 0;
    r = frame_out_send(&c->out, c->fd, frame_json, len);
    if (r == 0)
        return 0;
    if (r != 1) {
        call_gone(c);
        return 0;
    }
    if (!c->timer_on)
        start_timer(c, WRITE_STALL_MS);
    if (c->park != PARK_HALF)
        unpark(c);
    arm(c, LOOP_WRITE | (c->park == PARK_HALF ? 0 : LOOP_READ));
    return c->out.b.len - c->out.sent >= SLOW_BYTES;
}

int call_note(struct call *call, const char *method, json_object *params)
{
    struct buf *b = answer_buf(call);
    int r = 0;

    rpc_write_note(b, method, params);
    json_put(params);
    if (!b->toobig)
        r = call_note_text(call, b->data, b->len);
    trim_tx(conn_of(call)->s);
    return r;
}

void call_on_drain(struct call *call, loop_fn fn, void *arg)
{
    struct conn *c = conn_of(call);

    c->drain_fn = fn;
    c->drain_arg = arg;
}

void call_on_gone(struct call *call, loop_fn fn, void *arg)
{
    struct conn *c = conn_of(call);

    c->gone_fn = fn;
    c->gone_arg = arg;
}

bool call_is_gone(const struct call *call)
{
    return conn_ofc(call)->gone;
}

const char *call_id(const struct call *call)
{
    return conn_ofc(call)->msg.id;
}

/* --- reading ------------------------------------------------------------------------------------
 */

/* A whole frame is there: check it and hand it on. */
static void on_frame(struct conn *c, const char *body, size_t len)
{
    struct server *s = c->s;
    int r = rpc_parse(body, len, &c->msg);

    if (r == ERR_INVAL && c->msg.kind == RPC_NOTE) {
        conn_close(c);
        return;
    }
    if (!r && c->msg.kind == RPC_RESPONSE)
        r = ERR_REQUEST;
    if (!r && c->msg.kind == RPC_REQUEST && c->in.b.len > c->in.consumed)
        r = ERR_REQUEST; /* more behind a request */
    if (r) {
        refuse(c, r);
        return;
    }
    stop_timer(c);
    c->call.method = c->msg.method;
    c->call.params = c->msg.params;
    c->call.note = c->msg.kind == RPC_NOTE;
    c->state = CONN_CALL;
    s->n_calls += !c->call.note;
    s->fn(&c->call, s->arg);
}

/* The handler kept the call: see to it that a hang-up is noticed. */
static void park(struct conn *c)
{
    struct server *s = c->s;

    if (c->call.note) {
        /* The sender's next notifications wait in the socket until this one is done. */
        if (c->watch.loop)
            watch_set(&c->watch, 0);
        return;
    }
    if (c->park != PARK_NONE || c->watch.events || c->gone)
        return;
    c->park = PARK_NEW;
    TAILQ_INSERT_TAIL(&s->parked, c, park_link);
    if (!s->later.armed)
        timer_set(&s->later, WATCH_LATER_MS);
}

/* One read at most, then every frame that is whole. */
static void conn_pump(struct conn *c)
{
    struct server *s = c->s;
    bool may_read = true;

    c->pumping = true;
    while (!c->closed && c->state == CONN_READ) {
        const char *body = NULL;
        size_t len = 0;
        enum frame_result r = frame_in_next(&c->in, &body, &len);

        if (r == FRAME_MORE && may_read) {
            r = frame_in_recv(&c->in, c->fd, &body, &len, c->call.fds,
                              s->o.accept_fds ? CALL_FDS_MAX : 0, &c->call.n_fds);
            may_read = false;
        } else if (r == FRAME_MORE) {
            bool idle = c->noted && !c->in.b.len;

            if (!c->timer_on || c->idle != idle)
                start_timer(c, idle ? IDLE_MS : FRAME_LATE_MS);
            c->idle = idle;
            arm(c, LOOP_READ);
            break;
        }
        if (r == FRAME_READY) {
            may_read = false;
            on_frame(c, body, len);
        } else if (r == FRAME_TOOBIG) {
            refuse(c, ERR_TOOBIG);
        } else if (r == FRAME_BAD) {
            refuse(c, ERR_REQUEST);
        } else if (r != FRAME_MORE) {
            conn_close(c);
        }
    }
    c->pumping = false;
    if (c->closed)
        conn_close(c);
    else if (c->state == CONN_CALL)
        park(c);
}

/* The caller of a kept call wrote, half-closed, or hung up. */
static void on_caller(struct conn *c)
{
    struct pollfd p = { .fd = c->fd };
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        struct buf b = BUF_INIT(1024);

        rpc_write_error(&b, "", false, ERR_REQUEST, "one request per connection", NULL);
        frame_out_send(&c->out, c->fd, b.data, b.len);
        buf_done(&b);
        call_gone(c);
        return;
    }
    if (n < 0 || poll(&p, 1, 0) < 0 || p.revents & (POLLHUP | POLLERR)) {
        call_gone(c);
        return;
    }
    /* Half-closed: the caller still reads. epoll would report its end of file for ever. */
    watch_set(&c->watch, c->watch.events & ~LOOP_READ);
    unpark(c);
    c->park = PARK_HALF;
    TAILQ_INSERT_TAIL(&c->s->halved, c, park_link);
    if (!c->s->half.armed)
        timer_set(&c->s->half, HALF_SCAN_MS);
}

static void on_io(int fd, unsigned events, void *arg)
{
    struct conn *c = arg;
    int r;

    (void)fd;
    if (events & LOOP_WRITE) {
        size_t before = c->out.b.len - c->out.sent;

        r = frame_out_flush(&c->out, c->fd);
        if (r < 0 || (r == 0 && c->state == CONN_FLUSH)) {
            if (c->state == CONN_CALL)
                call_gone(c);
            else
                conn_close(c);
            return;
        }
        if (r == 0) {
            loop_fn fn = c->drain_fn;

            stop_timer(c);
            watch_set(&c->watch, c->park == PARK_HALF ? 0 : LOOP_READ);
            if (fn) {
                fn(c->drain_arg);
                return; /* c may be gone; a pending end of file is reported again */
            }
        } else if (c->out.b.len - c->out.sent < before) {
            start_timer(c, WRITE_STALL_MS);
        }
    }
    if (!(events & LOOP_READ))
        return;
    if (c->state == CONN_READ)
        conn_pump(c);
    else if (c->state == CONN_CALL)
        on_caller(c);
}

static void on_later(void *arg)
{
    struct server *s = arg;
    struct conn *c;

    while ((c = TAILQ_FIRST(&s->parked))) {
        unpark(c);
        c->park = PARK_WATCHED;
        arm(c, c->watch.events | LOOP_READ);
    }
}

static void on_half(void *arg)
{
    struct server *s = arg;
    struct conn *c, *next;

    /* A callback may end other calls: begin again after each. */
    for (c = TAILQ_FIRST(&s->halved); c; c = next) {
        struct pollfd p = { .fd = c->fd };

        next = TAILQ_NEXT(c, park_link);
        if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR)) {
            call_gone(c);
            next = TAILQ_FIRST(&s->halved);
        }
    }
    if (!TAILQ_EMPTY(&s->halved))
        timer_set(&s->half, HALF_SCAN_MS);
}

/* --- accepting ----------------------------------------------------------------------------------
 */

static bool admit_own(const struct peer *p, void *arg)
{
    (void)arg;
    return p->uid == 0 || p->uid == geteuid();
}

/* Identifies and admits the peer; false: close. */
static bool greet(struct conn *c)
{
    struct server *s = c->s;
    const struct peer *known;

    if (peer_cred(c->fd, &c->call.peer))
        return false;
    if (!s->o.admit(&c->call.peer, s->arg))
        return false;
    if (!s->peers)
        return true;
    known = peers_get(s->peers, c->fd, &c->call.peer);
    if (!known)
        return false;
    c->call.peer = *known; /* the pidfd stays the table's */
    return true;
}

static void on_accept(int fd, unsigned events, void *arg)
{
    struct server *s = arg;
    struct conn *c;
    int new;

    (void)events;
    new = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (new < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            watch_set(&s->watch, 0);
            timer_set(&s->resume, ACCEPT_WAIT_MS);
        }
        return;
    }
    c = conn_new(s, new);
    if (!greet(c)) {
        conn_close(c);
        return;
    }
    if (s->n_conns > s->o.max_conns) {
        refuse(c, ERR_BUSY);
        return;
    }
    conn_pump(c);
}

static void on_resume(void *arg)
{
    struct server *s = arg;

    if (!s->paused)
        watch_set(&s->watch, LOOP_READ);
}

void server_pause(struct server *s, bool paused)
{
    s->paused = paused;
    watch_set(&s->watch, paused ? 0 : LOOP_READ);
}

unsigned server_n_calls(const struct server *s)
{
    return s->n_calls;
}

struct server *server_new(struct loop *l, int listen_fd, const struct server_opts *o, call_fn fn,
                          void *arg)
{
    struct server *s = xcalloc(1, sizeof(*s));

    s->loop = l;
    s->listen_fd = listen_fd;
    if (o)
        s->o = *o;
    if (!s->o.max_frame || s->o.max_frame > FRAME_MAX)
        s->o.max_frame = FRAME_MAX;
    if (!s->o.max_conns)
        s->o.max_conns = 4096;
    if (!s->o.admit)
        s->o.admit = admit_own;
    if (s->o.peer_start)
        s->peers = peers_new(l, PEERS_MAX);
    s->fn = fn;
    s->arg = arg;
    LIST_INIT(&s->conns);
    LIST_INIT(&s->pool);
    TAILQ_INIT(&s->parked);
    TAILQ_INIT(&s->halved);
    buf_init(&s->tx, s->o.max_frame + 1024);
    timer_init(&s->resume, l, on_resume, s);
    timer_init(&s->later, l, on_later, s);
    timer_init(&s->half, l, on_half, s);
    watch_init(&s->watch, l, listen_fd, on_accept, s);
    watch_set(&s->watch, LOOP_READ);
    return s;
}

void server_free(struct server *s)
{
    struct conn *c;

    if (!s)
        return;
    watch_done(&s->watch);
    while ((c = LIST_FIRST(&s->conns))) {
        c->pumping = false;
        conn_close(c);
    }
    while ((c = LIST_FIRST(&s->pool))) {
        LIST_REMOVE(c, link);
        frame_in_done(&c->in);
        frame_out_done(&c->out);
        free(c);
    }
    timer_done(&s->resume);
    timer_done(&s->later);
    timer_done(&s->half);
    peers_free(s->peers);
    buf_done(&s->tx);
    free(s);
}
