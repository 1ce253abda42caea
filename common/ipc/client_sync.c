/*
 * The blocking caller: connect, write, wait, read. The socket is blocking; poll before each read
 * keeps the deadline, SO_SNDTIMEO keeps it for a request too large for the socket buffer.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/ipc/client_int.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"

#define SMALL 65536

struct attempt {
    const struct ipc_req *q;
    struct ipc_reply *r;
    struct buf *text;
    int64_t deadline; /* of mono_ms, 0: none */
    bool sent, broken;
};

static int left_ms(const struct attempt *a)
{
    int64_t left;

    if (!a->deadline)
        return -1;
    left = a->deadline - mono_ms();
    return left < 0 ? 0 : (int)left;
}

static int timed_out(struct attempt *a)
{
    ipc_reply_fail(a->r, ERR_TIMEOUT, "phase", a->sent ? "call" : "connect", "no answer in time");
    json_add_bool(a->r->error.data, "forwarded", a->sent);
    return a->r->err;
}

static int send_request(struct attempt *a, int fd)
{
    int r;

    if (a->text->len > SMALL && a->deadline) {
        int ms = left_ms(a);
        struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 + 1 };

        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    }
    r = frame_write_fds(fd, a->text->data, a->text->len, a->q->fds, a->q->n_fds);
    a->sent = r == 0;
    return r;
}

/* Waits for the response; notifications are passed over. */
static int read_reply(struct attempt *a, int fd, struct frame_in *in)
{
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        const char *body = NULL;
        size_t len = 0, n_fds = 0;
        int got = -1;
        enum frame_result fr;
        struct rpc_msg m;

        if (poll(&p, 1, left_ms(a)) == 0)
            return timed_out(a);
        fr = frame_in_recv(in, fd, &body, &len, &got, a->q->reply_fd ? 1 : 0, &n_fds);
        if (n_fds) {
            closep(&a->r->fd);
            a->r->fd = got;
        }
        while (fr == FRAME_READY) {
            if (rpc_parse(body, len, &m) || m.kind == RPC_REQUEST) {
                fr = FRAME_BAD;
                rpc_done(&m);
                break;
            }
            if (m.kind == RPC_RESPONSE) {
                ipc_reply_take(a->r, &m);
                rpc_done(&m);
                return a->r->err;
            }
            rpc_done(&m);
            fr = frame_in_next(in, &body, &len);
        }
        if (fr == FRAME_BAD || fr == FRAME_TOOBIG)
            return ipc_reply_fail(a->r, ERR_INTERNAL, "reason", "bad_reply", "malformed reply");
        if (fr != FRAME_MORE) {
            if (a->q->note)
                return a->r->err = 0;
            a->broken = true;
            return ipc_reply_broken(a->r, a->sent, "closed");
        }
    }
}

static int attempt(struct attempt *a)
{
    cleanup(closep) int fd = -1;
    struct frame_in in;
    int r;

    fd = ipc_connect(a->q->sock, false);
    if (fd < 0)
        return ipc_reply_connect(a->r, fd);
    if (a->q->listener > 0 && !peer_listener_is(fd, a->q->listener))
        return ipc_reply_fail(a->r, ERR_UNAVAIL, "reason", "listener",
                              "the socket is not held by the process that should hold it");
    r = send_request(a, fd);
    if (r == -EAGAIN)
        return timed_out(a);
    if (a->sent && a->q->note)
        shutdown(fd, SHUT_WR);
    frame_in_init(&in, FRAME_MAX);
    r = read_reply(a, fd, &in); /* after a failed write too: a refusal may be there */
    frame_in_done(&in);
    return r;
}

int ipc_call(const struct ipc_req *q, struct ipc_reply *r)
{
    struct buf text;
    struct attempt a = { .q = q, .r = r, .text = &text };
    int timeout = q->timeout_ms ? q->timeout_ms : IPC_TIMEOUT_MS;

    ipc_reply_init(r);
    buf_init(&text, FRAME_MAX);
    ipc_request_text(q, &text);
    if (text.toobig) {
        buf_done(&text);
        return ipc_reply_fail(r, ERR_TOOBIG, NULL, NULL, err_text(ERR_TOOBIG));
    }
    a.deadline = timeout > 0 ? mono_ms() + timeout : 0;
    attempt(&a);
    if (a.broken && !q->n_fds && (q->repeatable || !a.sent)) {
        ipc_reply_done(r);
        ipc_reply_init(r);
        a.broken = a.sent = false;
        attempt(&a);
    }
    explicit_bzero(text.data, text.len);
    buf_done(&text);
    return r->err;
}
