/*
 * Connections of callers: accept one, read at once, hand on a whole frame; later write the answer
 * and close. Nothing is watched that can be avoided: a hang-up is looked for only in calls older
 * than 20 ms. The bytes' own credentials (SCM_CREDENTIALS) say who wrote them, so a known process
 * costs no further system call.
 */
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "router/router.h"

#define CONNS_MAX      4096
#define FRAME_LATE_MS  10000
#define NOTES_IDLE_MS  600000
#define STALL_MS       30000
#define UNSEEN_MS      20
#define HALF_MS        500
#define ACCEPT_WAIT_MS 100
#define OUT_MAX        (FRAME_MAX + FRAME_HDR + 1048576)
#define POOL_MAX       128
#define KEEP_BYTES     65536
#define HANDLES        4096

LIST_HEAD(rcalls, rcall);
static struct {
    struct watch watch;
    struct timer resume, unseen_timer, half_timer;
    struct peers *peers;
    struct rcalls calls, pool;
    TAILQ_HEAD(, rcall) unseen, half;
    unsigned n, n_pool;
    size_t max_frame;
    gid_t group;
    bool stopped;
    struct rcall *handles[HANDLES];
    struct buf tx;
} r = { .group = (gid_t)-1 };

static void pump(struct rcall *c);
static void rcall_on_timer(void *arg);

/* --- handles ------------------------------------------------------------------------------------
 */

/* Handles are random: four of their digits spread well enough. */
static unsigned handle_slot(const char *h)
{
    uint32_t v;

    memcpy(&v, h + 3, sizeof(v));
    return (v * 2654435761U >> 16) % HANDLES;
}

void handle_add(struct rcall *c)
{
    struct rcall **at = &r.handles[handle_slot(c->handle)];

    c->handle_next = *at;
    *at = c;
}

static void handle_del(struct rcall *c)
{
    struct rcall **at;

    if (!c->handle[0])
        return;
    for (at = &r.handles[handle_slot(c->handle)]; *at; at = &(*at)->handle_next)
        if (*at == c) {
            *at = c->handle_next;
            break;
        }
    c->handle[0] = '\0';
}

struct rcall *call_by_handle(const char *handle)
{
    struct rcall *c = strlen(handle) < 8 ? NULL : r.handles[handle_slot(handle)];

    while (c && !str_eq(c->handle, handle))
        c = c->handle_next;
    return c;
}

/* --- life ---------------------------------------------------------------------------------------
 */

static struct rcall *rcall_new(int fd)
{
    struct rcall *c = LIST_FIRST(&r.pool);

    if (c) {
        LIST_REMOVE(c, link);
        r.n_pool--;
    } else {
        c = xcalloc(1, sizeof(*c));
        frame_in_init(&c->in, r.max_frame);
        frame_in_init(&c->uin, r.max_frame);
        frame_out_init(&c->out, OUT_MAX);
        frame_out_init(&c->uout, OUT_MAX);
    }
    c->phase = R_READ;
    c->pumping = c->closed = c->in_unseen = c->in_half = c->timer_on = c->notes = false;
    c->loaded = c->slot = c->budgeted = c->sent_all = c->repeated = false;
    c->fd = fd;
    c->ufd = c->cancel_fd = -1;
    c->id = c->via = NULL;
    c->e = NULL;
    c->load = NULL;
    c->drain = NULL;
    c->queue = NULL;
    c->handle[0] = c->call_id[0] = '\0';
    c->deadline = c->connect_until = 0;
    c->env.id[0] = '\0';
    c->env.id_int = false;
    c->env.method[0] = '\0';
    c->bytes_in = c->bytes_out = 0;
    LIST_INSERT_HEAD(&r.calls, c, link);
    r.n++;
    return c;
}

void rcall_unsee(struct rcall *c)
{
    if (c->in_unseen)
        TAILQ_REMOVE(&r.unseen, c, unseen);
    if (c->in_half)
        TAILQ_REMOVE(&r.half, c, unseen);
    c->in_unseen = c->in_half = false;
}

static void trim_in(struct frame_in *in)
{
    if (in->b.cap > KEEP_BYTES)
        buf_done(&in->b);
    buf_clear(&in->b);
    in->consumed = 0;
}

static void trim_out(struct frame_out *o)
{
    if (o->b.cap > KEEP_BYTES)
        buf_done(&o->b);
    buf_clear(&o->b);
    o->sent = 0;
}

static void rcall_drop_caller(struct rcall *c)
{
    rcall_unsee(c);
    watch_done(&c->watch);
    closep(&c->fd);
    c->fd = -1;
}

/* Everything ends; the memory stays until no function of ours works with it. */
void rcall_end(struct rcall *c)
{
    if (!c->closed) {
        c->closed = true;
        handle_del(c);
        if (c->phase == R_POLICY)
            policy_forget_waiter(c);
        drain_forget(c);
        rcall_drop_caller(c);
        rcall_close_upstream(c);
        if (c->timer_on)
            timer_done(&c->timer);
        rcall_release(c);
        ident_unref(c->id);
        ident_unref(c->via);
        c->id = c->via = NULL;
        r.n--;
    }
    if (c->pumping)
        return;
    LIST_REMOVE(c, link);
    trim_in(&c->in);
    trim_in(&c->uin);
    trim_out(&c->out);
    trim_out(&c->uout);
    if (r.n_pool < POOL_MAX) {
        LIST_INSERT_HEAD(&r.pool, c, link);
        r.n_pool++;
        return;
    }
    frame_in_done(&c->in);
    frame_in_done(&c->uin);
    frame_out_done(&c->out);
    frame_out_done(&c->uout);
    free(c);
}

void rcall_timer(struct rcall *c, int64_t ms)
{
    if (!c->timer_on)
        timer_init(&c->timer, svc.loop, rcall_on_timer, c);
    c->timer_on = true;
    timer_set(&c->timer, ms);
}

unsigned calls_open(void)
{
    return r.n;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static void on_io(int fd, unsigned events, void *arg);

void rcall_arm(struct rcall *c, unsigned events)
{
    if (!c->watch.loop)
        watch_init(&c->watch, svc.loop, c->fd, on_io, c);
    watch_set(&c->watch, events);
}

/* The last frame; nothing of the call is needed any more but the connection. */
void rcall_finish(struct rcall *c, const char *body, size_t len)
{
    int n;

    if (c->env.kind == RPC_NOTE && c->env.method[0]) {
        rcall_end(c);
        return;
    }
    n = c->fd < 0 ? -EPIPE : frame_out_send(&c->out, c->fd, body, len);
    c->bytes_out += len;
    if (n != 1) {
        rcall_end(c);
        return;
    }
    handle_del(c);
    rcall_unsee(c);
    rcall_close_upstream(c);
    rcall_release(c);
    c->phase = R_FLUSH;
    rcall_timer(c, STALL_MS);
    rcall_arm(c, LOOP_WRITE);
}

static struct buf *tx(void)
{
    if (r.tx.cap > 4 * KEEP_BYTES)
        buf_done(&r.tx);
    buf_clear(&r.tx);
    return &r.tx;
}

void rcall_fail(struct rcall *c, int err, json_object *data, const char *fmt, ...)
{
    char text[256] = "";
    struct buf *b = tx();
    va_list ap;

    if (fmt) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
    }
    text[utf8_floor(text, strlen(text))] = '\0';
    rcall_count(c, err);
    rpc_write_error(b, c->env.id, c->env.id_int, err, text, data);
    json_put(data);
    rcall_finish(c, b->data, b->len);
}

void rcall_reply(struct rcall *c, json_object *result)
{
    struct buf *b = tx();

    rcall_count(c, 0);
    rpc_write_result(b, c->env.id, c->env.id_int, result);
    json_put(result);
    if (b->toobig || b->len > FRAME_MAX) {
        buf_clear(b);
        rpc_write_error(b, c->env.id, c->env.id_int, ERR_TOOBIG, NULL, NULL);
    }
    rcall_finish(c, b->data, b->len);
}

/* --- the caller's side while the call is under way ----------------------------------------------
 */

/* The caller is gone: what it asked for has no reader. */
void rcall_gone(struct rcall *c)
{
    rcall_drop_caller(c);
    if (c->phase == R_CALL)
        rcall_cancel(c);
    else
        rcall_end(c);
}

static void on_caller(struct rcall *c)
{
    struct pollfd p = { .fd = c->fd };
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        struct buf *b = tx();

        rpc_write_error(b, "", false, ERR_REQUEST, "one request per connection", NULL);
        frame_out_send(&c->out, c->fd, b->data, b->len);
        rcall_gone(c);
        return;
    }
    if (n < 0 || poll(&p, 1, 0) < 0 || p.revents & (POLLHUP | POLLERR)) {
        rcall_gone(c);
        return;
    }
    watch_set(&c->watch, c->watch.events & ~LOOP_READ);
    rcall_unsee(c);
    c->in_half = true;
    TAILQ_INSERT_TAIL(&r.half, c, unseen);
    if (!r.half_timer.armed)
        timer_set(&r.half_timer, HALF_MS);
}

static void on_half(void *arg)
{
    struct rcall *c, *next;

    (void)arg;
    for (c = TAILQ_FIRST(&r.half); c; c = next) {
        struct pollfd p = { .fd = c->fd };

        next = TAILQ_NEXT(c, unseen);
        if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR)) {
            rcall_gone(c);
            next = TAILQ_FIRST(&r.half);
        }
    }
    if (!TAILQ_EMPTY(&r.half))
        timer_set(&r.half_timer, HALF_MS);
}

static void on_unseen(void *arg)
{
    struct rcall *c;

    (void)arg;
    while ((c = TAILQ_FIRST(&r.unseen))) {
        rcall_unsee(c);
        rcall_arm(c, c->watch.events | LOOP_READ);
        rcall_seen(c);
    }
}

static void on_io(int fd, unsigned events, void *arg)
{
    struct rcall *c = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        int n = frame_out_flush(&c->out, c->fd);

        if (n < 0) {
            rcall_gone(c);
            return;
        }
        if (n == 0 && c->phase == R_FLUSH) {
            rcall_end(c);
            return;
        }
        if (n == 0)
            watch_set(&c->watch, c->in_half ? 0 : LOOP_READ);
        rcall_drained(c);
        return; /* c may be gone; what can be read is reported again */
    }
    if (!(events & LOOP_READ))
        return;
    if (c->phase == R_READ)
        pump(c);
    else if (c->phase != R_FLUSH)
        on_caller(c);
}

/* --- the frame ----------------------------------------------------------------------------------
 */

static void on_note(struct rcall *c)
{
    if (is_registration(c->env.method))
        registration_frame(c);
    if (!c->closed) { /* the next one */
        rcall_release(c);
        c->phase = R_READ;
        c->notes = true;
    }
}

static void on_frame(struct rcall *c, const char *body, size_t len)
{
    int e = env_parse(body, len, &c->env);

    c->bytes_in = len;
    c->t0_us = mono_us();
    if (e == ERR_INVAL && c->env.kind == RPC_NOTE) {
        rcall_end(c);
        return;
    }
    if (!e && c->env.kind == RPC_REQUEST && c->in.b.len > c->in.consumed)
        e = ERR_REQUEST;
    if (e) {
        c->env.method[0] = '\0';
        rcall_fail(c, e, NULL, NULL);
    } else if (c->env.kind == RPC_NOTE) {
        on_note(c);
    } else if (is_registration(c->env.method)) {
        registration_frame(c);
    } else {
        rcall_admit(c);
    }
}

static bool admitted(const struct peer *p)
{
    return p->uid == 0 || p->uid == geteuid() || (r.group != (gid_t)-1 && p->gid == r.group);
}

/* Settles who the peer is: by the bytes' credentials, or the connection's. */
static bool greet(struct rcall *c, const struct frame_cred *cred)
{
    const struct peer *known;

    if (cred->pid > 0)
        c->peer = (struct peer){ cred->pid, cred->uid, cred->gid, 0, -1 };
    else if (peer_cred(c->fd, &c->peer))
        return false;
    if (!admitted(&c->peer))
        return false;
    known = peers_get(r.peers, c->fd, &c->peer);
    if (!known)
        return false;
    c->peer.start = known->start;
    c->peer.pidfd = -1;
    return true;
}

/* Later bytes come from the process that was greeted, with the rights it had then. */
static bool same_writer(const struct rcall *c, const struct frame_cred *cred)
{
    return cred->pid <= 0 || (cred->pid == c->peer.pid && cred->uid == c->peer.uid);
}

/* False: closed. */
static bool on_result(struct rcall *c, enum frame_result got, const char *body, size_t len)
{
    switch (got) {
    case FRAME_READY:
        if (c->timer_on)
            timer_stop(&c->timer);
        if (c->watch.loop)
            watch_set(&c->watch, 0);
        on_frame(c, body, len);
        break;
    case FRAME_TOOBIG:
        rcall_fail(c, ERR_TOOBIG, json_make("limit:i size:i", (int64_t)r.max_frame, (int64_t)len),
                   NULL);
        break;
    case FRAME_BAD:
        rcall_fail(c, ERR_REQUEST, NULL, NULL);
        break;
    case FRAME_MORE:
        break;
    case FRAME_EOF:
    case FRAME_CUT:
    case FRAME_ERROR:
    default:
        rcall_end(c);
        break;
    }
    return !c->closed;
}

/* One read at most, then every frame that is whole. */
static void pump(struct rcall *c)
{
    bool may_read = true;

    c->pumping = true;
    while (!c->closed && c->phase == R_READ) {
        const char *body = NULL;
        size_t len = 0;
        struct frame_cred cred = { .pid = 0 };
        enum frame_result got = frame_in_next(&c->in, &body, &len);

        if (got == FRAME_MORE && may_read) {
            got = frame_in_recv_cred(&c->in, c->fd, &body, &len, &cred);
            may_read = false;
            if (!c->peer.pid ? !greet(c, &cred) : !same_writer(c, &cred)) {
                rcall_end(c);
                break;
            }
        } else if (got == FRAME_MORE) {
            rcall_timer(c, c->notes && !c->in.b.len ? NOTES_IDLE_MS : FRAME_LATE_MS);
            rcall_arm(c, LOOP_READ);
            break;
        }
        if (!on_result(c, got, body, len))
            break;
    }
    c->pumping = false;
    if (c->closed) {
        rcall_end(c);
    } else if (c->phase != R_READ && c->phase != R_FLUSH && c->phase != R_CANCEL &&
               !c->watch.events && !c->in_unseen && !c->in_half) {
        c->in_unseen = true;
        TAILQ_INSERT_TAIL(&r.unseen, c, unseen);
        if (!r.unseen_timer.armed)
            timer_set(&r.unseen_timer, UNSEEN_MS);
    }
}

static void rcall_on_timer(void *arg)
{
    struct rcall *c = arg;

    if (c->phase == R_READ || c->phase == R_FLUSH)
        rcall_end(c);
    else
        rcall_timeout(c);
}

/* --- accepting ----------------------------------------------------------------------------------
 */

static void on_accept(int fd, unsigned events, void *arg)
{
    struct rcall *c;
    int new = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    (void)arg;
    if (new < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            watch_set(&r.watch, 0);
            timer_set(&r.resume, ACCEPT_WAIT_MS);
        }
        return;
    }
    c = rcall_new(new);
    c->peer = (struct peer)PEER_NONE;
    c->env.kind = RPC_REQUEST;
    if (r.n > CONNS_MAX)
        rcall_fail(c, ERR_BUSY, json_make("retry_after_ms:i", (int64_t)100), NULL);
    else
        pump(c);
}

static void on_resume(void *arg)
{
    (void)arg;
    if (!r.stopped)
        watch_set(&r.watch, LOOP_READ);
}

void calls_stop(void)
{
    r.stopped = true;
    watch_set(&r.watch, 0);
}

bool rcalls_each(struct rcall **pos)
{
    *pos = *pos ? LIST_NEXT(*pos, link) : LIST_FIRST(&r.calls);
    return *pos != NULL;
}

void calls_init(void)
{
    const struct group *g;
    int on = 1;

    r.max_frame = (size_t)svc.config->max_message_bytes;
    if (svc.config->socket_group[0] && (g = getgrnam(svc.config->socket_group)))
        r.group = g->gr_gid;
    LIST_INIT(&r.calls);
    LIST_INIT(&r.pool);
    TAILQ_INIT(&r.unseen);
    TAILQ_INIT(&r.half);
    buf_init(&r.tx, FRAME_MAX + 4096);
    r.peers = peers_new(svc.loop, 4096);
    timer_init(&r.resume, svc.loop, on_resume, NULL);
    timer_init(&r.unseen_timer, svc.loop, on_unseen, NULL);
    timer_init(&r.half_timer, svc.loop, on_half, NULL);
    if (setsockopt(svc.listen_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
        log_warn("SO_PASSCRED: %s", strerror(errno));
    watch_init(&r.watch, svc.loop, svc.listen_fd, on_accept, NULL);
    watch_set(&r.watch, LOOP_READ);
}

void calls_fini(void)
{
    struct rcall *c;

    watch_done(&r.watch);
    while ((c = LIST_FIRST(&r.calls))) {
        c->pumping = false;
        rcall_end(c);
    }
    while ((c = LIST_FIRST(&r.pool))) {
        LIST_REMOVE(c, link);
        frame_in_done(&c->in);
        frame_in_done(&c->uin);
        frame_out_done(&c->out);
        frame_out_done(&c->uout);
        free(c);
    }
    timer_done(&r.resume);
    timer_done(&r.unseen_timer);
    timer_done(&r.half_timer);
    peers_free(r.peers);
    buf_done(&r.tx);
}
