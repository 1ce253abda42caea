/* One frame at a time per receiver; what comes meanwhile is joined into the next. */
#include "authsvc/push.h"

#include "authsvc/revoked.h"
#include "common/svc/svc.h"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS   5000

static struct target {
    struct timer retry;
    json_object *pending, *flying; /* {tokens, sessions, users, lineages} */
    struct ipc_call *call;
    enum unit_id unit;
    int delay_ms;
} targets[] = { { .unit = UNIT_ROUTER }, { .unit = UNIT_KERNEL }, { .unit = UNIT_GATEWAY } };

static size_t count(json_object *delta)
{
    size_t n = 0;

    for (int k = 0; k < REV_KINDS; k++) {
        json_object *list = json_arr(delta, revoked_names[k]);

        n += list ? json_object_array_length(list) : 0;
    }
    return n;
}

static void merge(json_object *into, json_object *from)
{
    for (int k = 0; k < REV_KINDS; k++) {
        json_object *a = json_arr(into, revoked_names[k]), *b = json_arr(from, revoked_names[k]);

        for (size_t i = 0; b && i < json_object_array_length(b); i++)
            json_push(a, json_object_get(json_object_array_get_idx(b, i)));
    }
}

static json_object *empty(void)
{
    json_object *o = json_new();

    for (int k = 0; k < REV_KINDS; k++)
        json_add(o, revoked_names[k], json_new_arr());
    return o;
}

static void send_next(void *arg);

static void sent(struct ipc_reply *r, void *arg)
{
    struct target *t = arg;

    t->call = NULL;
    if (r->err) {
        merge(t->pending, t->flying);
        t->delay_ms = t->delay_ms ? t->delay_ms * 2 : RETRY_FIRST_MS;
        if (t->delay_ms > RETRY_MAX_MS)
            t->delay_ms = RETRY_MAX_MS;
        timer_set(&t->retry, t->delay_ms);
    } else {
        t->delay_ms = 0;
        if (count(t->pending))
            timer_set(&t->retry, 0);
    }
    json_put(t->flying);
    t->flying = NULL;
}

static void send_next(void *arg)
{
    struct target *t = arg;

    if (t->call || !count(t->pending))
        return;
    t->flying = t->pending;
    t->pending = empty();
    t->call = svc_frame(t->unit, "auth.revoked", json_dup(t->flying), true, sent, t);
}

void push_init(void)
{
    for (size_t i = 0; i < N_ELEMS(targets); i++) {
        targets[i].pending = empty();
        timer_init(&targets[i].retry, svc.loop, send_next, &targets[i]);
    }
}

void push_revoked(json_object *delta)
{
    for (size_t i = 0; count(delta) && i < N_ELEMS(targets); i++) {
        merge(targets[i].pending, delta);
        if (!targets[i].delay_ms)
            send_next(&targets[i]);
    }
    json_put(delta);
}

void push_done(void)
{
    for (size_t i = 0; i < N_ELEMS(targets); i++) {
        struct target *t = &targets[i];

        if (t->call)
            ipc_cancel(t->call);
        timer_done(&t->retry);
        json_put(t->pending);
        json_put(t->flying);
        *t = (struct target){ .unit = t->unit };
    }
}
