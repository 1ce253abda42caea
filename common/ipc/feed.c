/*
 * A connection that carries notifications one after the other. Frames go out at once while the
 * peer keeps up, and wait in a bounded queue while it does not. A feed whose connection broke says
 * so and stays broken: its owner knows what must be said again.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ipc/client.h"
#include "common/ipc/frame.h"

#define BACKLOG_RETRY_MS 5

struct ipc_feed {
    struct loop *loop;
    char sock[108];
    int fd;
    bool broken, closing, half;
    struct frame_out out;
    struct buf text; /* scratch */
    struct watch watch;
    struct timer retry, deadline;
    loop_fn done, lost;
    void *arg, *lost_arg;
};

void ipc_feed_on_break(struct ipc_feed *f, loop_fn fn, void *arg)
{
    f->lost = fn;
    f->lost_arg = arg;
}

static void tell_lost(struct ipc_feed *f)
{
    loop_fn fn = f->lost;

    f->lost = NULL;
    if (fn)
        fn(f->lost_arg);
}

static void feed_broken(struct ipc_feed *f)
{
    watch_done(&f->watch);
    closep(&f->fd);
    f->fd = -1;
    timer_stop(&f->retry);
    f->broken = true;
}

void ipc_feed_abort(struct ipc_feed *f)
{
    if (!f)
        return;
    feed_broken(f);
    timer_done(&f->retry);
    timer_done(&f->deadline);
    frame_out_done(&f->out);
    buf_done(&f->text);
    free(f);
}

static void feed_closed(struct ipc_feed *f)
{
    loop_fn done = f->done;
    void *arg = f->arg;

    ipc_feed_abort(f);
    if (done)
        done(arg);
}

/* Everything is out and no more will come: say so, then wait for the peer's close. */
static void half_close(struct ipc_feed *f)
{
    if (f->half || !f->closing || f->fd < 0 || f->out.b.len > f->out.sent)
        return;
    f->half = true;
    shutdown(f->fd, SHUT_WR);
}

static void on_watch(int fd, unsigned events, void *arg)
{
    struct ipc_feed *f = arg;
    char sink[512];
    int r = 0;

    if (events & LOOP_WRITE)
        r = frame_out_flush(&f->out, fd);
    if (r == 0 && events & LOOP_WRITE)
        watch_set(&f->watch, LOOP_READ);
    if (r >= 0 && events & LOOP_READ) {
        ssize_t n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            if (n < 0 || !f->half)
                tell_lost(f);
            r = -EPIPE;
        }
    } else if (r < 0) {
        tell_lost(f);
    }
    if (r >= 0) {
        half_close(f);
        return;
    }
    if (f->closing)
        feed_closed(f);
    else
        feed_broken(f);
}

static void on_retry(void *arg)
{
    struct ipc_feed *f = arg;
    int r;

    f->fd = ipc_connect(f->sock, true);
    if (f->fd == -EAGAIN) {
        f->fd = -1;
        timer_set(&f->retry, BACKLOG_RETRY_MS);
        return;
    }
    if (f->fd < 0) {
        f->fd = -1;
        f->broken = true;
        if (f->closing)
            timer_set(&f->deadline, 0);
        return;
    }
    watch_init(&f->watch, f->loop, f->fd, on_watch, f);
    r = frame_out_flush(&f->out, f->fd);
    watch_set(&f->watch, LOOP_READ | (r == 1 ? LOOP_WRITE : 0));
    half_close(f);
}

static void on_deadline(void *arg)
{
    feed_closed(arg);
}

struct ipc_feed *ipc_feed_open(struct loop *l, const char *sock, size_t max_queued)
{
    struct ipc_feed *f = xcalloc(1, sizeof(*f));

    f->loop = l;
    f->fd = -1;
    frame_out_init(&f->out, max_queued);
    buf_init(&f->text, FRAME_MAX);
    timer_init(&f->retry, l, on_retry, f);
    timer_init(&f->deadline, l, on_deadline, f);
    if (!str_copy(f->sock, sizeof(f->sock), sock))
        f->broken = true;
    else
        on_retry(f);
    return f;
}

int ipc_feed_send(struct ipc_feed *f, const char *method, json_object *params)
{
    int r;

    if (f->broken || f->closing)
        return ERR_UNAVAIL;
    buf_clear(&f->text);
    rpc_write_note(&f->text, method, params);
    if (f->text.toobig) {
        buf_done(&f->text);
        return ERR_TOOBIG;
    }
    if (f->fd < 0) { /* not connected yet: only queue */
        char hdr[FRAME_HDR];

        if (f->out.b.len + FRAME_HDR + f->text.len > f->out.b.max)
            return ERR_BUSY;
        frame_put_len(hdr, (uint32_t)f->text.len);
        buf_add(&f->out.b, hdr, FRAME_HDR);
        buf_add(&f->out.b, f->text.data, f->text.len);
        return 0;
    }
    r = frame_out_send(&f->out, f->fd, f->text.data, f->text.len);
    if (r == ERR_TOOBIG)
        return ERR_BUSY;
    if (r < 0) {
        feed_broken(f);
        return ERR_UNAVAIL;
    }
    if (r == 1)
        watch_set(&f->watch, LOOP_READ | LOOP_WRITE);
    return 0;
}

void ipc_feed_close(struct ipc_feed *f, int timeout_ms, loop_fn done, void *arg)
{
    f->closing = true;
    f->done = done;
    f->arg = arg;
    timer_set(&f->deadline, f->broken ? 0 : timeout_ms);
    half_close(f);
}
