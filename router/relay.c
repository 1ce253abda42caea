/*
 * A call with its owner: steps 12 to 15. Connect, forward the spliced request, pass on each frame
 * when it is whole, and end with the response. The owner's bytes go to the caller as they came,
 * unless an integer id or a missing data.errno has to be put in.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/rnd.h"
#include "router/router.h"

#define CONNECT_MS   1000
#define FRESH_MS     5000 /* after a registration an owner may still be about to listen */
#define FRESH_TRY_MS 2000
#define RETRY_MS     20
#define BACKLOG_MS   2
#define STALL_MS     30000
#define CANCEL_MS    5000
#define STREAM_HOLD  (256 * 1024)
#define RANDOM_CALLS 64

static struct buf tx = BUF_INIT(FRAME_MAX + 65536), caller = BUF_INIT(1 << 20);
static struct buf trace = BUF_INIT(1 << 20);

static void on_upstream(int fd, unsigned events, void *arg);
static void read_upstream(struct rcall *c);

/* --- what is added to a call --------------------------------------------------------------------
 */

/* 128 random bits in hex; the kernel is asked once for many calls. */
static void handle_new(char out[36])
{
    static uint8_t pool[16 * RANDOM_CALLS];
    static size_t left;

    if (!left) {
        rnd_bytes(pool, sizeof(pool));
        left = RANDOM_CALLS;
    }
    left--;
    str_copy(out, 4, "ct_");
    hex_encode(pool + left * 16, 16, out + 3);
    explicit_bzero(pool + left * 16, 16);
}

/* "r-", six digits of this process, a running number. */
static void call_id_new(char out[32])
{
    static uint32_t boot, n;
    static const char digits[] = "0123456789abcdef";
    char *p = out;

    if (!boot)
        rnd_bytes(&boot, sizeof(boot));
    *p++ = 'r';
    *p++ = '-';
    for (int i = 20; i >= 0; i -= 4)
        *p++ = digits[boot >> i & 15];
    *p++ = '-';
    n++;
    for (int i = 28; i >= 0; i -= 4)
        if (n >> i || !i)
            *p++ = digits[n >> i & 15];
    *p = '\0';
}

static struct span caller_text(struct rcall *c)
{
    buf_clear(&caller);
    buf_add(&caller, c->id->caller_head, c->id->caller_head_len);
    buf_adds(&caller, ",\"tool\":\"");
    buf_adds(&caller, c->e->name);
    buf_adds(&caller, "\",\"call_id\":\"");
    buf_adds(&caller, c->call_id);
    buf_adds(&caller, "\",\"token\":\"");
    buf_adds(&caller, c->handle);
    buf_adds(&caller, "\"}");
    return (struct span){ caller.data, caller.len };
}

json_object *rcall_params(struct rcall *c)
{
    struct buf b = BUF_INIT(FRAME_MAX);
    json_object *o = NULL;

    buf_addc(&b, '{');
    for (size_t i = 0; i < c->env.n_keep; i++) {
        if (i)
            buf_addc(&b, ',');
        buf_add(&b, c->env.keep[i].at, c->env.keep[i].len);
    }
    buf_addc(&b, '}');
    if (json_parse(b.data, b.len, &o))
        o = json_new();
    buf_done(&b);
    return o;
}

/* --- accounts -----------------------------------------------------------------------------------
 */

void trace_flush(void)
{
    if (trace.len && write(STDERR_FILENO, trace.data, trace.len) < 0)
        log_warn("trace: %s", strerror(errno));
    buf_clear(&trace);
}

static void trace_line(const struct rcall *c, int64_t us, int code)
{
    char ts[RFC3339_LEN];

    if (!svc.config->trace_enabled)
        return;
    buf_printf(
        &trace,
        "{\"ts\":\"%s\",\"level\":\"info\",\"unit\":\"router\",\"msg\":\"call\",\"call_id\":\"%s\","
        "\"tool\":\"%s\",\"caller\":",
        rfc3339(now_ms(), ts), c->call_id, c->e->name);
    buf_add_json_str(&trace, c->id->load->key, strlen(c->id->load->key));
    buf_printf(&trace, ",\"owner\":\"%s\",\"ms\":%.3f,\"in\":%llu,\"out\":%llu,\"code\":%d}\n",
               c->e->owner->name, (double)us / 1000, (unsigned long long)c->bytes_in,
               (unsigned long long)c->bytes_out, code);
    if (trace.len > 32768)
        trace_flush();
}

static void measure(struct hist **h, int64_t us)
{
    if (!*h)
        *h = xcalloc(1, sizeof(**h));
    hist_add(*h, us);
}

void rcall_count(struct rcall *c, int err)
{
    int64_t us;
    struct owner *o;

    if (!c->e || !c->loaded)
        return;
    o = c->e->owner;
    us = mono_us() - c->t0_us;
    o->calls++;
    if (err) {
        o->errors++;
        snprintf(o->last_error, sizeof(o->last_error), "%s %s", c->e->name, err_name(err));
    }
    measure(&c->e->hist, us);
    hist_add(&o->hist, us);
    if (c->id->kind == CALLER_AGENT) {
        struct agent *a = agent_get(c->id->pid, c->id->host_pid, c->id->host_start);

        if (a)
            measure(&a->hist, us);
    }
    trace_line(c, us, err ? err_code(err) : 0);
}

void rcall_release(struct rcall *c)
{
    struct entry *e = c->e;
    struct owner *o;

    rcall_ungate(c);
    rcall_unqueue(c);
    if (c->load) {
        c->load->in_flight--;
        load_unref(c->load);
        c->load = NULL;
    }
    if (!e)
        return;
    o = e->owner;
    c->e = NULL;
    if (c->budgeted)
        budget_give_back(c->id->lineage, e->name);
    c->budgeted = false;
    e->in_flight--;
    if (c->slot) {
        c->slot = false;
        o->in_flight--;
        owner_serve(o);
    }
    drains_check(o);
    entry_unref(e);
}

void rcall_close_upstream(struct rcall *c)
{
    watch_done(&c->uwatch);
    closep(&c->ufd);
    closep(&c->cancel_fd);
    c->ufd = c->cancel_fd = -1;
}

/* --- ends ---------------------------------------------------------------------------------------
 */

static void lost(struct rcall *c, const char *reason)
{
    bool forwarded = c->phase == R_CALL;

    rcall_close_upstream(c);
    rcall_fail(c, ERR_UNAVAIL, json_make("reason:s forwarded:b", reason, (int)forwarded), "%s: %s",
               c->e->owner->name, reason);
}

static void no_connection(struct rcall *c, int negerr)
{
    rcall_fail(c, ERR_UNAVAIL,
               json_make("reason:s phase:s forwarded:b", strerror(-negerr), "connect", 0),
               "%s cannot be reached: %s", c->e->owner->name, strerror(-negerr));
}

static void bad_reply(struct rcall *c)
{
    rcall_close_upstream(c);
    rcall_fail(c, ERR_INTERNAL, json_make("reason:s forwarded:b", "bad_reply", 1),
               "%s answered nonsense", c->e->owner->name);
}

void rcall_timeout(struct rcall *c)
{
    static const char *const phases[] = {
        [R_GATE] = "queue",      [R_POLICY] = "queue", [R_QUEUE] = "queue",
        [R_CONNECT] = "connect", [R_CALL] = "call",    [R_OWN] = "call"
    };
    int64_t now = mono_ms();

    if (c->phase == R_CANCEL) {
        rcall_end(c);
        return;
    }
    if (c->phase == R_CONNECT && now < c->connect_until) {
        rcall_forward(c);
        return;
    }
    if (c->phase == R_CALL && c->out.b.len > c->out.sent && now >= c->stall_at) {
        rcall_gone(c); /* the caller takes nothing */
        return;
    }
    if (c->phase == R_GATE || c->phase == R_POLICY) {
        rcall_fail(c, ERR_UNAVAIL, json_make("reason:s forwarded:b", "authsvc", 0),
                   "authsvc does not answer");
        return;
    }
    if (c->phase == R_CONNECT) {
        no_connection(c, -ETIMEDOUT);
        return;
    }
    rcall_close_upstream(c);
    rcall_fail(c, ERR_TIMEOUT,
               json_make("phase:s forwarded:b", phases[c->phase], (int)(c->phase == R_CALL)), NULL);
}

static void on_owner_closed(int fd, unsigned events, void *arg)
{
    (void)fd;
    (void)events;
    rcall_end(arg);
}

/*
 * The caller hung up: the owner sees a close, and keeps its slot until it closes too. After our
 * shutdown the socket is at its end for poll; what still can be told apart are two edges, of the
 * shutdown and of the owner's close. An epoll of its own takes the first one here and now, and
 * becomes readable with the second.
 */
void rcall_cancel(struct rcall *c)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLET };
    int ep = epoll_create1(EPOLL_CLOEXEC), n = -1;

    c->phase = R_CANCEL;
    watch_done(&c->uwatch);
    if (ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, c->ufd, &e) == 0)
        n = epoll_wait(ep, &e, 1, 0);
    if (n < 0 || (n == 1 && e.events & EPOLLHUP)) {
        closep(&ep);
        rcall_end(c);
        return;
    }
    shutdown(c->ufd, SHUT_RDWR);
    epoll_wait(ep, &e, 1, 0);
    c->cancel_fd = ep;
    watch_init(&c->uwatch, svc.loop, ep, on_owner_closed, c);
    watch_set(&c->uwatch, LOOP_READ);
    rcall_timer(c, CANCEL_MS);
}

/* --- frames of the owner ------------------------------------------------------------------------
 */

/* The response with what is missing put in. */
static void send_patched(struct rcall *c, const char *body, size_t len, const struct reply *rp)
{
    buf_clear(&tx);
    if (rp->kind == REPLY_ERROR && !rp->has_errno) {
        cleanup(json_putp) json_object *err = NULL;
        struct rpc_error e = { .err = 0 };

        if (json_parse(rp->error.at, rp->error.len, &err)) {
            bad_reply(c);
            return;
        }
        rpc_error_read(err, &e);
        rpc_write_error_rpc(&tx, c->env.id, c->env.id_int, &e);
        rpc_error_done(&e);
    } else {
        size_t at = (size_t)(rp->id.at - body);

        buf_add(&tx, body, at);
        buf_adds(&tx, c->env.id);
        buf_add(&tx, body + at + rp->id.len, len - at - rp->id.len);
    }
    rcall_finish(c, tx.data, tx.len);
}

static void on_response(struct rcall *c, const char *body, size_t len, const struct reply *rp)
{
    struct entry *e = c->e;

    if (rp->kind == REPLY_ERROR && rp->code == err_code(ERR_METHOD) && !c->repeated &&
        !str_eq(e->method, e->name)) { /* it knows the tool by its name: nothing has run yet */
        c->repeated = true;
        e->by_name = !e->by_name;
        rcall_close_upstream(c);
        frame_in_done(&c->uin);
        rcall_forward(c);
        return;
    }
    rcall_count(c, rp->kind == REPLY_ERROR ? (int)err_from_code(rp->code) : 0);
    if (c->env.id_int || (rp->kind == REPLY_ERROR && !rp->has_errno))
        send_patched(c, body, len, rp);
    else
        rcall_finish(c, body, len);
}

static void set_call_timer(struct rcall *c)
{
    int64_t now = mono_ms(), at = c->deadline;

    if (c->e->streaming && c->e->idle_ms && (!at || now + c->e->idle_ms < at))
        at = now + c->e->idle_ms;
    c->deadline_now = at;
    if (c->out.b.len > c->out.sent && (!at || c->stall_at < at))
        at = c->stall_at;
    if (at)
        rcall_timer(c, at - now);
    else if (c->timer_on)
        timer_stop(&c->timer);
}

/* The caller took what was held back. */
void rcall_drained(struct rcall *c)
{
    size_t held = c->out.b.len - c->out.sent;

    c->stall_at = mono_ms() + STALL_MS;
    if (c->phase != R_CALL) {
        if (c->phase == R_FLUSH)
            rcall_timer(c, STALL_MS);
        return;
    }
    set_call_timer(c);
    if (held < STREAM_HOLD && c->uwatch.loop && !(c->uwatch.events & LOOP_READ)) {
        watch_set(&c->uwatch, c->uwatch.events | LOOP_READ);
        read_upstream(c); /* frames that are buffered already */
    }
}

/* A notification; false if the call ended. */
static bool on_note(struct rcall *c, const char *body, size_t len)
{
    int n = frame_out_send(&c->out, c->fd, body, len);

    c->bytes_out += len;
    if (n < 0 || n == ERR_TOOBIG) {
        rcall_gone(c);
        return false;
    }
    if (n == 1) {
        if (c->out.b.len - c->out.sent <= len + FRAME_HDR)
            c->stall_at = mono_ms() + STALL_MS;
        if (c->in_unseen)
            rcall_unsee(c);
        rcall_arm(c, LOOP_WRITE | (c->in_half ? 0 : LOOP_READ));
    }
    set_call_timer(c);
    if (c->out.b.len - c->out.sent > STREAM_HOLD) {
        watch_set(&c->uwatch, c->uwatch.events & ~LOOP_READ);
        return false;
    }
    return true;
}

/* One read, then every frame that is whole. */
static void read_upstream(struct rcall *c)
{
    bool may_read = true;

    while (c->phase == R_CALL) {
        const char *body = NULL;
        size_t len = 0;
        struct reply rp;
        enum frame_result got = frame_in_next(&c->uin, &body, &len);

        if (got == FRAME_MORE && may_read) {
            got = frame_in_read(&c->uin, c->ufd, &body, &len);
            may_read = false;
        }
        if (got == FRAME_MORE)
            return;
        if (got == FRAME_TOOBIG || got == FRAME_BAD) {
            bad_reply(c);
            return;
        }
        if (got != FRAME_READY) {
            lost(c, "closed");
            return;
        }
        reply_scan(body, len, &c->env, &rp);
        if (rp.kind == REPLY_NOTE) {
            if (!on_note(c, body, len))
                return;
            continue;
        }
        if (rp.kind == REPLY_BAD)
            bad_reply(c);
        else
            on_response(c, body, len, &rp);
        return;
    }
}

static void on_upstream(int fd, unsigned events, void *arg)
{
    struct rcall *c = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        int n = frame_out_flush(&c->uout, c->ufd);

        if (n <= 0)
            watch_set(&c->uwatch, c->uwatch.events & ~LOOP_WRITE);
        /* a broken pipe: what the owner said before it closed is still there to read */
    }
    if (events & LOOP_READ)
        read_upstream(c);
}

/* --- forwarding ---------------------------------------------------------------------------------
 */

static bool right_listener(const struct rcall *c)
{
    const struct owner *o = c->e->owner;

    return peer_listener_is(c->ufd, o->held ? svc.init_pid : o->host_pid);
}

/* Later: the backlog is full, or an owner that just registered does not listen yet. */
static bool try_later(struct rcall *c, int negerr)
{
    const struct owner *o = c->e->owner;
    int64_t now = mono_ms();
    bool fresh = (negerr == -ENOENT || negerr == -ECONNREFUSED) && !o->held &&
                 now - o->registered_at < FRESH_MS;

    if (negerr != -EAGAIN && !fresh)
        return false;
    if (c->phase != R_CONNECT)
        c->connect_until = now + (fresh ? FRESH_TRY_MS : CONNECT_MS);
    if (now >= c->connect_until)
        return false;
    c->phase = R_CONNECT;
    rcall_timer(c, fresh ? RETRY_MS : BACKLOG_MS);
    return true;
}

void rcall_forward(struct rcall *c)
{
    struct entry *e = c->e;
    int n;

    c->loaded = true;
    n = ipc_connect(e->sock, true);
    if (n < 0) {
        if (!try_later(c, n))
            no_connection(c, n);
        return;
    }
    c->ufd = n;
    if (!right_listener(c)) {
        rcall_close_upstream(c);
        rcall_fail(c, ERR_UNAVAIL, json_make("reason:s forwarded:b", "listener", 0),
                   "%s: its socket is held by another process", e->owner->name);
        return;
    }
    if (!c->handle[0]) {
        handle_new(c->handle);
        handle_add(c);
        call_id_new(c->call_id);
    }
    buf_clear(&tx);
    env_write(&c->env, e->by_name ? e->name : e->method, caller_text(c), &tx);
    if (tx.toobig || tx.len > FRAME_MAX) {
        rcall_close_upstream(c);
        rcall_fail(c, ERR_TOOBIG, json_make("limit:i", (int64_t)FRAME_MAX), NULL);
        return;
    }
    n = frame_out_send(&c->uout, c->ufd, tx.data, tx.len);
    if (tx.cap > 262144)
        buf_done(&tx);
    c->phase = R_CALL;
    c->budgeted = false; /* it may run from now on */
    if (n < 0 && n != -EPIPE && n != -ECONNRESET) {
        lost(c, strerror(-n));
        return;
    }
    watch_init(&c->uwatch, svc.loop, c->ufd, on_upstream, c);
    watch_set(&c->uwatch, LOOP_READ | (n == 1 ? LOOP_WRITE : 0));
    /* A new call gets its timer when it is looked at first (rcall_seen): most end before. */
    if (c->timer_on || (!c->pumping && !c->in_unseen))
        set_call_timer(c);
}

void rcall_seen(struct rcall *c)
{
    if (c->phase == R_CALL)
        set_call_timer(c);
}

void rcall_own(struct rcall *c)
{
    json_object *params = rcall_params(c);

    c->loaded = true;
    c->budgeted = false; /* it runs */
    c->phase = R_OWN;
    c->e->fn(c, params);
    json_put(params);
}

void calls_cut(struct owner *o, struct entry *e, const char *reason)
{
    struct rcall *c = NULL;

    while (rcalls_each(&c)) {
        if (!c->e || c->fd < 0 || (o && c->e->owner != o) || (e && c->e != e) ||
            (c->phase != R_CALL && c->phase != R_QUEUE && c->phase != R_CONNECT))
            continue;
        lost(c, reason);
        c = NULL; /* the list changed */
    }
}

void relay_fini(void)
{
    trace_flush();
    buf_done(&tx);
    buf_done(&caller);
    buf_done(&trace);
}
