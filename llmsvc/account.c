/*
 * The spool is a file of JSON lines: {"open":row} before the kernel is asked, {"rec":row} when the
 * counts are known, {"ack":id} when the kernel has them. It is read once, at start: a record
 * without an ack is sent again, an open call without a record died with us and is recorded with its
 * input estimate. Nothing pending: the file is emptied.
 */
#include "llmsvc/account.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/svc/svc.h"

#define SPOOL_MAX    (64 * 1024 * 1024)
#define RETRY_MS     500
#define WAIT_MS      60000
#define RPC_MS       10000
#define SEND_AT_ONCE 16

struct reservation {
    struct ipc_call *call;
    struct timer timer;
    json_object *params;
    int64_t until;
    reserve_fn fn;
    void *arg;
};

/* A record on its way to the kernel. */
struct pending {
    json_object *row;
    struct ipc_call *call;
    TAILQ_ENTRY(pending) link;
};
TAILQ_HEAD(pending_list, pending);

static struct {
    struct loop *loop;
    int fd;
    struct pending_list list;
    size_t n_pending, n_open, n_sent;
    struct timer retry;
    bool started;
} g = { .fd = -1 };

static json_object *row_json(const struct usage_row *r)
{
    json_object *o = json_make(
        "call_id:s username:s pid:i provider:s model:s modality:s tokens_in:i tokens_out:i "
        "cache_read:i cache_write:i reasoning:i units:i",
        r->call_id, r->username, r->pid, r->provider, r->model, r->modality, r->in, r->out,
        r->cache_read, r->cache_write, r->reasoning, r->units);

    json_add(o, "cost_usd_micro", r->cost_micro < 0 ? NULL : json_object_new_int64(r->cost_micro));
    return o;
}

static void spool(const char *key, json_object *value)
{
    cleanup(json_putp) json_object *o = json_make("", NULL);
    cleanup(buf_done) struct buf b = BUF_INIT(65536);

    json_add(o, key, json_object_get(value));
    buf_adds(&b, json_text(o));
    buf_addc(&b, '\n');
    if (g.fd >= 0 && write_all(g.fd, b.data, b.len))
        log_error("llm-usage.spool: %s", strerror(errno));
}

static void spool_idle(void)
{
    if (!g.n_pending && !g.n_open && g.fd >= 0 && lseek(g.fd, 0, SEEK_END) > 65536 &&
        ftruncate(g.fd, 0))
        log_warn("llm-usage.spool: %s", strerror(errno));
}

static void send_pending(void);

static void on_recorded(struct ipc_reply *r, void *arg)
{
    struct pending *p = arg;
    bool again = r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT || r->err == ERR_METHOD ||
                 r->err == ERR_BUSY;

    p->call = NULL;
    g.n_sent--;
    if (again) {
        timer_set(&g.retry, RETRY_MS);
        return;
    }
    if (r->err)
        log_warn("kernel/usage/record %s: %s", json_str(p->row, "call_id", ""), r->error.message);
    cleanup(json_putp) json_object *id = json_object_new_string(json_str(p->row, "call_id", ""));
    spool("ack", id);
    TAILQ_REMOVE(&g.list, p, link);
    json_put(p->row);
    free(p);
    g.n_pending--;
    spool_idle();
    send_pending();
}

static void send_pending(void)
{
    struct pending *p = NULL;

    if (!g.started || g.retry.armed)
        return;
    TAILQ_FOREACH (p, &g.list, link) {
        if (g.n_sent >= SEND_AT_ONCE)
            return;
        if (p->call)
            continue;
        g.n_sent++;
        p->call =
            svc_call("kernel/usage/record", json_object_get(p->row), NULL, RPC_MS, on_recorded, p);
    }
}

static void on_retry(void *arg)
{
    (void)arg;
    send_pending();
}

static void queue_row(json_object *row)
{
    struct pending *p = xcalloc(1, sizeof *p);

    p->row = row;
    TAILQ_INSERT_TAIL(&g.list, p, link);
    g.n_pending++;
}

void account_record(const struct usage_row *r)
{
    json_object *row = row_json(r);

    spool("rec", row);
    if (g.n_open)
        g.n_open--;
    queue_row(row);
    send_pending();
}

/* Finds the row with this id in the list of rows and takes it out. */
static json_object *take_row(json_object *rows, const char *id)
{
    json_object *row = json_get(rows, id);

    if (row) {
        json_object_get(row);
        json_object_object_del(rows, id);
    }
    return row;
}

static void replay_line(const char *line, size_t len, json_object *open, json_object *recs)
{
    cleanup(json_putp) json_object *o = NULL;

    if (json_parse(line, len, &o) || !json_object_is_type(o, json_type_object))
        return; /* a torn last line */
    json_object *row = json_obj(o, "open");
    const char *id = json_str(row, "call_id", "");
    if (row) {
        json_add(open, id, json_object_get(row));
        return;
    }
    if ((row = json_obj(o, "rec"))) {
        id = json_str(row, "call_id", "");
        json_put(take_row(open, id));
        json_add(recs, id, json_object_get(row));
        return;
    }
    json_put(take_row(recs, json_str(o, "ack", "")));
}

static void spool_load(const char *path)
{
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *open = json_new(), *recs = json_new();
    size_t len = 0;

    if (file_read(path, SPOOL_MAX, &text, &len))
        return;
    for (char *p = text, *nl; p < text + len && (nl = memchr(p, '\n', (size_t)(text + len - p)));
         p = nl + 1)
        replay_line(p, (size_t)(nl - p), open, recs);
    json_object_object_foreach (open, id, row) {
        /* what it was reserved for is freed by recording the estimate */
        json_add(recs, id, json_object_get(row));
        spool("rec", row);
    }
    json_object_object_foreach (recs, key, rec) {
        (void)key;
        queue_row(json_object_get(rec));
    }
}

int account_init(struct loop *l, const char *dir)
{
    char path[160];
    int r = path_fmt(path, sizeof path, "%s/llm-usage.spool", dir);

    if (r)
        return r;
    g.loop = l;
    TAILQ_INIT(&g.list);
    timer_init(&g.retry, l, on_retry, NULL);
    g.fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (g.fd < 0)
        return -errno;
    spool_load(path);
    return 0;
}

void account_start(void)
{
    g.started = true;
    send_pending();
}

void account_fini(void)
{
    struct pending *p = NULL;

    while ((p = TAILQ_FIRST(&g.list))) {
        TAILQ_REMOVE(&g.list, p, link);
        if (p->call)
            ipc_cancel(p->call);
        json_put(p->row);
        free(p);
    }
    timer_done(&g.retry);
    if (g.fd >= 0)
        close(g.fd);
    g.fd = -1;
}

static void reserve_ask(struct reservation *r);

static void reserve_end(struct reservation *r, int err, int weight, const struct rpc_error *e)
{
    reserve_fn fn = r->fn;
    void *arg = r->arg;

    timer_done(&r->timer);
    json_put(r->params);
    free(r);
    fn(err, weight, e, arg);
}

static void on_reserved(struct ipc_reply *q, void *arg)
{
    struct reservation *r = arg;
    bool away = q->err == ERR_UNAVAIL || q->err == ERR_TIMEOUT || q->err == ERR_METHOD ||
                q->err == ERR_BUSY;

    r->call = NULL;
    if (away && mono_ms() < r->until) {
        timer_set(&r->timer, RETRY_MS);
        return;
    }
    if (!q->err)
        reserve_end(r, 0, (int)json_int(q->result, "weight", 1), NULL);
    else if (err_code(q->err) == err_code(ERR_LIMIT))
        reserve_end(r, ERR_QUOTA, 1, &q->error);
    else
        reserve_end(r, ERR_UNAVAIL, 1, &q->error);
}

static void on_again(void *arg)
{
    reserve_ask(arg);
}

static void reserve_ask(struct reservation *r)
{
    r->call =
        svc_call("kernel/usage/reserve", json_object_get(r->params), NULL, RPC_MS, on_reserved, r);
}

struct reservation *account_extend(const struct usage_row *row, int64_t tokens, int64_t cost_micro,
                                   int64_t timeout_ms, reserve_fn fn, void *arg)
{
    struct reservation *r = xcalloc(1, sizeof *r);

    r->fn = fn;
    r->arg = arg;
    r->until = mono_ms() + (timeout_ms < WAIT_MS ? timeout_ms : WAIT_MS);
    timer_init(&r->timer, g.loop, on_again, r);
    r->params =
        json_make("call_id:s username:s pid:i provider:s model:s modality:s tokens:i timeout_sec:i",
                  row->call_id, row->username, row->pid, row->provider, row->model, row->modality,
                  tokens, (timeout_ms + 999) / 1000);
    json_add(r->params, "cost_usd_micro",
             cost_micro < 0 ? NULL : json_object_new_int64(cost_micro));
    reserve_ask(r);
    return r;
}

struct reservation *account_reserve(const struct usage_row *row, int64_t tokens, int64_t estimate,
                                    int64_t cost_micro, int64_t timeout_ms, reserve_fn fn,
                                    void *arg)
{
    cleanup(json_putp) json_object *open = row_json(row);

    json_add_int(open, "tokens_in", estimate);
    spool("open", open);
    g.n_open++;
    return account_extend(row, tokens, cost_micro, timeout_ms, fn, arg);
}

void account_cancel(struct reservation *r)
{
    if (r->call)
        ipc_cancel(r->call);
    timer_done(&r->timer);
    json_put(r->params);
    free(r);
}
