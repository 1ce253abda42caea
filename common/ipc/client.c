/*
 * The event-driven caller, and what it shares with the blocking one: connecting, the text of a
 * request, and reading a response. A call is repeated once by itself when the connection broke
 * before the request was out, or when the tool may be repeated.
 */
#include "common/ipc/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/ipc/client_int.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"

#define BACKLOG_RETRY_MS 5

int ipc_connect(const char *path, bool nonblock)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    cleanup(closep) int fd = -1;
    int r;

    if (!str_copy(a.sun_path, sizeof(a.sun_path), path))
        return -ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        return -errno;
    do
        r = connect(fd, (struct sockaddr *)&a, sizeof(a));
    while (r && errno == EINTR);
    if (r)
        return -errno;
    r = fd;
    fd = -1;
    return r;
}

void ipc_reply_done(struct ipc_reply *r)
{
    json_putp(&r->result);
    rpc_error_done(&r->error);
    closep(&r->fd);
    r->fd = -1;
}

void ipc_reply_init(struct ipc_reply *r)
{
    memset(r, 0, sizeof(*r));
    r->fd = -1;
}

int ipc_reply_fail(struct ipc_reply *r, int err, const char *key, const char *value,
                   const char *text)
{
    r->err = err;
    r->error.err = err;
    r->error.code = err_code(err);
    str_copy(r->error.message, sizeof(r->error.message), text);
    if (!r->error.data)
        r->error.data = json_new();
    json_add_str(r->error.data, "errno", err_name(err));
    if (key)
        json_add_str(r->error.data, key, value);
    return err;
}

int ipc_reply_broken(struct ipc_reply *r, bool sent, const char *what)
{
    ipc_reply_fail(r, ERR_UNAVAIL, "reason", what, "connection lost before the reply");
    json_add_bool(r->error.data, "forwarded", sent);
    return r->err;
}

int ipc_reply_connect(struct ipc_reply *r, int negerr)
{
    char text[160];

    snprintf(text, sizeof(text), "cannot connect: %s", strerror(-negerr));
    ipc_reply_fail(r, ERR_UNAVAIL, "reason", "connect", text);
    json_add_str(r->error.data, "phase", "connect");
    json_add_bool(r->error.data, "forwarded", false);
    return r->err;
}

int ipc_reply_take(struct ipc_reply *r, struct rpc_msg *m)
{
    if (!m->error) {
        r->err = 0;
        r->result = m->result ? json_object_get(m->result) : NULL;
        return 0;
    }
    rpc_error_read(m->error, &r->error);
    r->err = r->error.err;
    return r->err;
}

void ipc_request_text(const struct ipc_req *q, struct buf *b)
{
    static atomic_uint counter;
    const char *params = q->params ? json_text(q->params) : "{}";
    bool token = q->token && !json_get(q->params, "_token");
    const char *comma = params[1] == '}' ? "" : ",";

    buf_adds(b, "{\"jsonrpc\":\"2.0\",");
    if (!q->note)
        buf_printf(b, "\"id\":\"r-%x-%x\",", (unsigned)getpid(), atomic_fetch_add(&counter, 1));
    buf_adds(b, "\"method\":");
    buf_add_json_str(b, q->method, strlen(q->method));
    buf_adds(b, ",\"params\":{");
    if (token) {
        buf_adds(b, "\"_token\":");
        buf_add_json_str(b, q->token, strlen(q->token));
        if (!q->send_timeout)
            buf_adds(b, comma);
    }
    if (q->send_timeout)
        buf_printf(b, "%s\"_timeout_ms\":%d%s", token ? "," : "", q->timeout_ms, comma);
    buf_adds(b, params + 1);
    buf_addc(b, '}');
}

/* --- one call on a loop -------------------------------------------------------------------------
 */

struct ipc_call {
    struct loop *loop;
    ipc_note_fn note;
    ipc_done_fn done;
    void *arg;
    char sock[108];
    struct buf text;
    int fds[16];
    size_t n_fds;
    pid_t listener;
    bool repeatable, is_note, await_close, repeated;
    bool sent;   /* the whole request is in the socket */
    bool paused; /* by ipc_pause */
    bool busy, dead;
    int fd;
    struct frame_in in;
    struct frame_out out;
    struct watch watch;
    struct timer deadline, kick;
    struct ipc_reply reply;
    bool finished; /* reply is filled in; the kick delivers it */
};

static void call_io(struct ipc_call *c);

static void hang_up(struct ipc_call *c)
{
    watch_done(&c->watch);
    closep(&c->fd);
    c->fd = -1;
}

static void call_free(struct ipc_call *c)
{
    hang_up(c);
    timer_done(&c->deadline);
    timer_done(&c->kick);
    for (size_t i = 0; i < c->n_fds; i++)
        closep(&c->fds[i]);
    if (c->text.data)
        explicit_bzero(c->text.data, c->text.len);
    buf_done(&c->text);
    frame_in_done(&c->in);
    frame_out_done(&c->out);
    ipc_reply_done(&c->reply);
    free(c);
}

/* The reply is complete: delivers it from the loop. */
static void finish(struct ipc_call *c)
{
    c->finished = true;
    hang_up(c);
    timer_stop(&c->deadline);
    timer_set(&c->kick, 0);
}

static void deliver(struct ipc_call *c)
{
    ipc_done_fn done = c->done;

    c->busy = true;
    timer_stop(&c->kick);
    if (done)
        done(&c->reply, c->arg);
    call_free(c);
}

static void broken(struct ipc_call *c)
{
    if (!c->repeated && (c->repeatable || !c->sent) && !c->n_fds) {
        c->repeated = true;
        hang_up(c);
        frame_in_done(&c->in);
        frame_out_done(&c->out);
        timer_set(&c->kick, BACKLOG_RETRY_MS);
        return;
    }
    ipc_reply_broken(&c->reply, c->sent, "closed");
    finish(c);
}

static int send_first(struct ipc_call *c)
{
    int r;

    if (c->n_fds) { /* a small frame on an empty socket: goes out whole */
        r = frame_write_fds(c->fd, c->text.data, c->text.len, c->fds, c->n_fds);
        return r;
    }
    return frame_out_send(&c->out, c->fd, c->text.data, c->text.len);
}

static void on_watch(int fd, unsigned events, void *arg)
{
    struct ipc_call *c = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        int r = frame_out_flush(&c->out, c->fd);

        if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
            broken(c);
            return;
        }
        if (r <= 0) {
            c->sent = c->sent || r == 0;
            watch_set(&c->watch, c->paused ? 0 : LOOP_READ); /* a refusal may be there to read */
        }
    }
    if (events & LOOP_READ)
        call_io(c);
}

static void start(struct ipc_call *c)
{
    int r;

    c->fd = ipc_connect(c->sock, true);
    if (c->fd == -EAGAIN) { /* the backlog is full; the deadline bounds this */
        timer_set(&c->kick, BACKLOG_RETRY_MS);
        return;
    }
    if (c->fd < 0) {
        ipc_reply_connect(&c->reply, c->fd);
        c->fd = -1;
        finish(c);
        return;
    }
    if (c->listener > 0 && !peer_listener_is(c->fd, c->listener)) {
        ipc_reply_fail(&c->reply, ERR_UNAVAIL, "reason", "listener",
                       "the socket is not held by the process that should hold it");
        finish(c);
        return;
    }
    r = send_first(c);
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
        broken(c);
        return;
    }
    c->sent = r == 0;
    if (c->sent && c->is_note && !c->await_close) {
        c->reply.err = 0;
        finish(c);
        return;
    }
    watch_init(&c->watch, c->loop, c->fd, on_watch, c);
    watch_set(&c->watch, (r == 1 ? LOOP_WRITE : 0) | (c->paused ? 0 : LOOP_READ));
}

/* True if the call goes on. */
static bool on_body(struct ipc_call *c, const char *body, size_t len)
{
    struct rpc_msg m;
    int r = rpc_parse(body, len, &m);

    if (r || m.kind == RPC_REQUEST) {
        rpc_done(&m);
        ipc_reply_fail(&c->reply, ERR_INTERNAL, "reason", "bad_reply", "malformed reply");
        finish(c);
        return false;
    }
    if (m.kind == RPC_RESPONSE) {
        ipc_reply_take(&c->reply, &m);
        rpc_done(&m);
        finish(c);
        return false;
    }
    if (c->note) {
        c->busy = true;
        c->note(m.method, m.params, c->arg);
        c->busy = false;
    }
    rpc_done(&m);
    if (c->dead)
        call_free(c);
    else if (!c->paused)
        return true;
    return false;
}

/* Frames that are buffered, and one read. */
static void call_io(struct ipc_call *c)
{
    bool may_read = true;

    for (;;) {
        const char *body = NULL;
        size_t len = 0;
        enum frame_result r = frame_in_next(&c->in, &body, &len);

        if (r == FRAME_MORE && may_read) {
            r = frame_in_read(&c->in, c->fd, &body, &len);
            may_read = false;
        }
        if (r == FRAME_READY) {
            if (!on_body(c, body, len)) {
                return;
            }
            continue;
        }
        if (r == FRAME_TOOBIG || r == FRAME_BAD) {
            ipc_reply_fail(&c->reply, ERR_INTERNAL, "reason", "bad_reply", "malformed reply");
            finish(c);
        } else if (r != FRAME_MORE) {
            if (c->is_note) {
                c->reply.err = 0;
                finish(c);
            } else {
                broken(c);
            }
        }
        return;
    }
}

static void on_kick(void *arg)
{
    struct ipc_call *c = arg;

    if (c->finished)
        deliver(c);
    else if (c->fd < 0)
        start(c);
    else if (!c->paused)
        call_io(c);
}

static void on_deadline(void *arg)
{
    struct ipc_call *c = arg;

    ipc_reply_fail(&c->reply, ERR_TIMEOUT, "phase", c->sent ? "call" : "connect",
                   "no answer in time");
    json_add_bool(c->reply.error.data, "forwarded", c->sent);
    finish(c);
}

struct ipc_call *ipc_start(struct loop *l, const struct ipc_req *q, ipc_note_fn note,
                           ipc_done_fn done, void *arg)
{
    struct ipc_call *c = xcalloc(1, sizeof(*c));
    int timeout = q->timeout_ms ? q->timeout_ms : IPC_TIMEOUT_MS;

    c->loop = l;
    c->note = note;
    c->done = done;
    c->arg = arg;
    c->fd = -1;
    ipc_reply_init(&c->reply);
    buf_init(&c->text, FRAME_MAX);
    frame_in_init(&c->in, FRAME_MAX);
    frame_out_init(&c->out, FRAME_MAX + FRAME_HDR);
    timer_init(&c->deadline, l, on_deadline, c);
    timer_init(&c->kick, l, on_kick, c);
    c->listener = q->listener;
    c->repeatable = q->repeatable;
    c->is_note = q->note;
    c->await_close = q->await_close;
    for (size_t i = 0; i < q->n_fds && i < N_ELEMS(c->fds); i++)
        c->fds[c->n_fds++] = fcntl(q->fds[i], F_DUPFD_CLOEXEC, 3);
    ipc_request_text(q, &c->text);
    if (c->text.toobig) {
        ipc_reply_fail(&c->reply, ERR_TOOBIG, NULL, NULL, err_text(ERR_TOOBIG));
        finish(c);
        return c;
    }
    if (!str_copy(c->sock, sizeof(c->sock), q->sock)) {
        ipc_reply_connect(&c->reply, -ENAMETOOLONG);
        finish(c);
        return c;
    }
    if (timeout > 0)
        timer_set(&c->deadline, timeout);
    start(c);
    return c;
}

void ipc_cancel(struct ipc_call *c)
{
    if (!c)
        return;
    hang_up(c);
    if (!c->busy) {
        call_free(c);
        return;
    }
    timer_stop(&c->deadline);
    timer_stop(&c->kick);
    c->dead = true;
}

void ipc_pause(struct ipc_call *c, bool paused)
{
    if (c->paused == paused)
        return;
    c->paused = paused;
    if (c->finished || c->fd < 0)
        return;
    if (c->watch.loop)
        watch_set(&c->watch, (c->watch.events & LOOP_WRITE) | (paused ? 0 : LOOP_READ));
    if (!paused)
        timer_set(&c->kick, 0); /* frames that are buffered already */
}
