/*
 * What the kernel must hear: ended agents and changes of units, in order, one at a time, each kept
 * until the kernel has acknowledged it. While the kernel is down they wait here, REPORTS_MAX at
 * most; over that the oldest is given up and counted.
 */
#include <sys/queue.h>

#include "common/base/fsx.h"
#include "kernel/init/init.h"

#define ACK_MS   5000
#define RETRY_MS 200

struct item {
    const char *method; /* static text */
    json_object *params;
    TAILQ_ENTRY(item) link;
};
static TAILQ_HEAD(, item) queue = TAILQ_HEAD_INITIALIZER(queue);
static size_t n_items;
static struct item *in_flight;
static struct timer retry;
static bool retry_made;

static void send_next(void *arg);

static void item_free(struct item *it)
{
    TAILQ_REMOVE(&queue, it, link);
    n_items--;
    json_put(it->params);
    free(it);
}

/* An answer, even a refusal, means that the kernel has it; anything else is sent again. */
static void acknowledged(struct ipc_reply *r, void *arg)
{
    struct item *it = arg;
    bool lost = r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT || r->err == ERR_BUSY;

    in_flight = NULL;
    if (!lost) {
        if (r->err)
            log_warn("kernel refused %s: %s", it->method, r->error.message);
        item_free(it);
        send_next(NULL);
    } else if (units[UNIT_KERNEL].state == ST_RUNNING) {
        timer_set(&retry, RETRY_MS);
    }
}

static void send_next(void *arg)
{
    struct item *it = TAILQ_FIRST(&queue);
    char sock[108];

    (void)arg;
    if (!it || in_flight || units[UNIT_KERNEL].state != ST_RUNNING)
        return;
    (void)path_fmt(sock, sizeof(sock), "%s/%s", init.run_dir, unit_rows[UNIT_KERNEL].socket);
    struct ipc_req q = { .sock = sock,
                         .method = it->method,
                         .params = it->params,
                         .timeout_ms = ACK_MS,
                         .listener = getpid() };

    in_flight = it;
    (void)ipc_start(init.loop, &q, NULL, acknowledged, it);
}

void report(const char *method, json_object *params)
{
    struct item *it = xcalloc(1, sizeof(*it)), *old = TAILQ_FIRST(&queue);

    if (!retry_made) {
        timer_init(&retry, init.loop, send_next, NULL);
        retry_made = true;
    }
    if (n_items >= REPORTS_MAX && old == in_flight)
        old = TAILQ_NEXT(old, link);
    if (n_items >= REPORTS_MAX) {
        log_error("a report to the kernel is given up: %s", json_text(old->params));
        item_free(old);
    }
    it->method = method;
    it->params = params;
    TAILQ_INSERT_TAIL(&queue, it, link);
    n_items++;
    send_next(NULL);
}

void reports_flush(void)
{
    send_next(NULL);
}

json_object *reports_exits(void)
{
    json_object *a = json_new_arr();
    struct item *it;

    TAILQ_FOREACH (it, &queue, link) {
        if (str_eq(it->method, "init/exited"))
            json_push(a, json_object_get(it->params));
    }
    return a;
}
