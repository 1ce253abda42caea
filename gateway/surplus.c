/*
 * authsvc owns the sessions, but only the gateway sees which of them have a connection, so it
 * chooses. A user has 32 connections at most, so there is always an idle session to end. What a
 * crash leaves undone the next login does: the number is taken anew from authsvc's rows.
 */
#include "gateway/surplus.h"

#include "common/base/clock.h"

#define ASK_MS 5000

struct idle {
    const char *id; /* in the reply */
    int64_t used_ms;
};

static int by_use(const void *a, const void *b)
{
    const struct idle *x = a, *y = b;

    return (x->used_ms > y->used_ms) - (x->used_ms < y->used_ms);
}

static void kicked(struct ipc_reply *r, void *arg)
{
    (void)arg;
    if (r->err && r->err != ERR_NOTFOUND) /* another login may have ended it already */
        log_warn("auth/kick: %s", r->error.message);
}

/* Fills list (as long as rows) with those that may go; their number. */
static size_t idle_ones(json_object *rows, const char *keep, struct idle *list)
{
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        json_object *row = json_object_array_get_idx(rows, i);
        const char *id = json_str(row, "sessionId", "");
        const struct sess *s = sess_find(id);

        if (!id[0] || str_eq(id, keep) || (s && s->n_conns))
            continue;
        list[n].id = id;
        list[n].used_ms = 0;
        (void)rfc3339_parse(json_str(row, "lastActivityAt", ""), &list[n].used_ms);
        if (s && s->active_ms > list[n].used_ms)
            list[n].used_ms = s->active_ms;
        n++;
    }
    return n;
}

static void on_rows(struct ipc_reply *r, void *arg)
{
    cleanup(freep) char *keep = arg;
    cleanup(freep) struct idle *list = NULL;
    size_t n, total;

    if (r->err || !json_object_is_type(r->result, json_type_array)) {
        log_warn("auth/sessions: %s", r->err ? r->error.message : "not a list");
        return;
    }
    total = json_object_array_length(r->result);
    list = xcalloc(total + 1, sizeof(*list));
    n = idle_ones(r->result, keep, list);
    qsort(list, n, sizeof(*list), by_use);
    for (size_t i = 0; i < n && total - i > SESSIONS_PER_USER; i++)
        svc_call("auth/kick", json_make("session_id:s", list[i].id), NULL, ASK_MS, kicked, NULL);
}

void surplus_check(const struct ident *i, int64_t sessions)
{
    if (sessions > SESSIONS_PER_USER)
        svc_call("auth/sessions", json_make("username:s", i->identity), NULL, ASK_MS, on_rows,
                 xstrdup(i->session));
}
