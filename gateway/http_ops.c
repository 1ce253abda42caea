/*
 * Health, readiness, metrics. The two that ask others keep their answer for a moment, and callers
 * that come meanwhile wait for the same answer: a scraper cannot make us call more often.
 */
#include "common/base/clock.h"
#include "gateway/http.h"
#include "gateway/metrics.h"

#define ASK_MS          500
#define READY_KEPT_MS   1000
#define METRICS_KEPT_MS 5000

/* One answer that several requests may wait for. */
struct shared {
    int64_t at; /* mono, 0: none yet */
    struct buf text;
    bool good;
    unsigned open; /* calls without an answer */
    struct waiter *waiters;
};
struct waiter {
    struct waiter *next;
    struct req *r;
};

static struct shared ready = { .text = BUF_INIT(4096) };
static struct shared stats = { .text = BUF_INIT(8U << 20) };

static void wait_for(struct shared *s, struct req *r, void (*gone)(struct req *))
{
    struct waiter *w = xcalloc(1, sizeof(*w));

    w->r = r;
    w->next = s->waiters;
    s->waiters = w;
    r->work = s;
    r->work_gone = gone;
}

static void leave(struct req *r)
{
    struct shared *s = r->work;

    for (struct waiter **p = &s->waiters; *p; p = &(*p)->next)
        if ((*p)->r == r) {
            struct waiter *w = *p;

            *p = w->next;
            free(w);
            return;
        }
}

static void answer_all(struct shared *s, void (*answer)(struct req *r))
{
    struct waiter *w;

    while ((w = s->waiters)) {
        s->waiters = w->next;
        w->r->work_gone = NULL;
        answer(w->r);
        free(w);
    }
}

void http_health(struct req *r)
{
    http_answer_static(r, 200, "text/plain; charset=utf-8", NULL, "ok", 2);
}

void http_healthz(struct req *r)
{
    http_json(r, 200, NULL, json_make("status:s version:s", "ok", AVIX_VERSION));
}

/* --- readiness -------------------------------------------------------------------------------- */

static struct {
    bool router, authsvc, kernel;
} seen;

static void ready_answer(struct req *r)
{
    http_answer(r, ready.good ? 200 : 503, "application/json", NULL, ready.text.data,
                ready.text.len);
}

static void ready_done(void)
{
    json_object *checks = json_new(), *body;

    json_add_str(checks, "router", seen.router ? "ok" : "unavailable");
    json_add_str(checks, "authsvc", seen.authsvc ? "ok" : "unavailable");
    json_add_str(checks, "kernel", seen.kernel ? "ok" : "unavailable");
    json_add_str(checks, "ring", "ok"); /* without it this process does not run */
    ready.good = seen.router && seen.authsvc && seen.kernel && !svc.stopping;
    body = json_make("ready:b checks:o", (int)ready.good, checks);
    buf_clear(&ready.text);
    buf_adds(&ready.text, json_text(body));
    json_put(body);
    ready.at = mono_ms();
    answer_all(&ready, ready_answer);
}

/* Any answer but "I could not reach it" shows that both the router and the owner are there. */
static bool alive(const struct ipc_reply *r)
{
    return r->err != ERR_UNAVAIL && r->err != ERR_TIMEOUT && r->err != ERR_BUSY &&
           r->err != ERR_METHOD;
}

static void on_ready(struct ipc_reply *r, void *arg)
{
    bool reached = alive(r) || r->err == ERR_METHOD || json_get(r->error.data, "phase");

    *(bool *)arg = alive(r);
    seen.router |= reached && !str_eq(rpc_error_reason(&r->error), "connect");
    if (--ready.open == 0)
        ready_done();
}

void http_readyz(struct req *r)
{
    if (ready.at && mono_ms() - ready.at < READY_KEPT_MS && !svc.stopping) {
        ready_answer(r);
        return;
    }
    wait_for(&ready, r, leave);
    if (ready.open)
        return;
    memset(&seen, 0, sizeof(seen));
    ready.open = 2;
    svc_call("auth/validate", json_make("token:s", "-"), NULL, ASK_MS, on_ready, &seen.authsvc);
    svc_call("kernel/sys/info", json_new(), NULL, ASK_MS, on_ready, &seen.kernel);
}

/* --- metrics ---------------------------------------------------------------------------------- */

static void stats_answer(struct req *r)
{
    http_answer(r, 200, "text/plain; version=0.0.4", NULL, stats.text.data, stats.text.len);
}

static void own_stats(struct buf *b)
{
    size_t queued = 0;
    struct conn *c;

    LIST_FOREACH(c, &conns, link)
    queued += c->q.event_bytes + c->q.reply_bytes;
    metrics_write(b);
    buf_printf(b, "avix_gateway_queue_bytes %zu\n", queued);
    buf_printf(b, "avix_gateway_ring_events %u\n", ring_count(conn_ring));
    buf_printf(b, "avix_gateway_ring_bytes %zu\n", ring_used(conn_ring));
    buf_printf(b, "avix_gateway_ring_evicted_total %llu\n",
               (unsigned long long)ring_evicted(conn_ring));
    buf_printf(b, "avix_gateway_seq %llu\n", (unsigned long long)ring_head(conn_ring));
    buf_printf(b, "avix_build_info{version=\"%s\"} 1\n", AVIX_VERSION);
}

static void on_stats(struct ipc_reply *r, void *arg)
{
    const char *text = NULL;

    (void)arg;
    if (!r->err && json_object_is_type(r->result, json_type_string))
        text = json_object_get_string(r->result);
    else if (!r->err)
        text = json_str(r->result, "text", json_str(r->result, "metrics", NULL));
    if (text) {
        buf_adds(&stats.text, text);
        if (text[0] && !str_ends(text, "\n"))
            buf_addc(&stats.text, '\n');
    }
    if (--stats.open)
        return;
    stats.at = mono_ms();
    answer_all(&stats, stats_answer);
}

static void stats_begin(struct req *r)
{
    static const char *const names[] = { "ipc", "auth", "fs", "kernel", "llm", "exec", "mcp" };

    if (stats.at && !stats.open && mono_ms() - stats.at < METRICS_KEPT_MS) {
        stats_answer(r);
        return;
    }
    wait_for(&stats, r, leave);
    if (stats.open)
        return;
    buf_clear(&stats.text);
    own_stats(&stats.text);
    stats.open = N_ELEMS(names);
    for (size_t i = 0; i < N_ELEMS(names); i++) {
        char method[32];

        snprintf(method, sizeof(method), "%s/metrics", names[i]);
        svc_call(method, json_new(), NULL, ASK_MS, on_stats, NULL);
    }
}

static void on_metrics_token(struct ident *i, void *arg)
{
    struct req *r = arg;

    r->query = NULL;
    if (!i)
        http_fail(r, 0, ATP_EUNAVAIL, NULL, "the token cannot be checked now");
    else if (!ident_live(i, now_ms()))
        http_fail(r, 0, i->expired ? ATP_EEXPIRED : ATP_EAUTH, NULL, "the token is not valid");
    else if (i->role < ROLE_OPERATOR)
        http_fail(r, 0, ATP_EPERM, NULL, "metrics need role operator");
    else
        stats_begin(r);
}

void http_metrics(struct req *r)
{
    if (r->f.loopback) {
        stats_begin(r);
        return;
    }
    if (!r->token || r->by_cookie) {
        http_fail(r, 0, ATP_EAUTH, "WWW-Authenticate: Bearer\r\n", "no token");
        return;
    }
    struct ident_query *q = ident_ask(r->token, on_metrics_token, r);
    if (q)
        r->query = q;
}

void http_ops_fini(void)
{
    buf_done(&ready.text);
    buf_done(&stats.text);
}
