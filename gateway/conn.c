/*
 * Delivery to one connection and to all.
 *
 * A connection is in one of two modes. Live: what passes its gates is queued as it comes. Behind:
 * nothing is queued but what it reads from the ring at its own pace, until its cursor meets the
 * head; the change back happens in the same instant, so there is no hole and no duplicate. A
 * subscription with since_seq starts behind; a queue that overflows falls behind.
 *
 * Chunks are not in the ring. While a connection is behind, or when its queue is full, they are
 * dropped and the turn is marked lost; once there is room the turn's whole text goes out as one
 * chunk that replaces what the client has.
 */
#include "gateway/conn.h"

#include "common/base/clock.h"
#include "gateway/atp.h"
#include "gateway/metrics.h"
#include "gateway/turns.h"

struct conn_head conns = LIST_HEAD_INITIALIZER(conns);
unsigned n_conns;
struct ring *conn_ring;

void conn_init(struct conn *c)
{
    outq_init(&c->q);
    LIST_INIT(&c->cmds);
    c->since_ms = now_ms();
    LIST_INSERT_HEAD(&conns, c, link);
    n_conns++;
}

void conn_done(struct conn *c)
{
    LIST_REMOVE(c, link);
    n_conns--;
    outq_done(&c->q);
    free(c->pids);
    free(c->subs);
    free(c->turns);
    if (c->token) {
        explicit_bzero(c->token, strlen(c->token));
        free(c->token);
    }
    ident_unref(c->id);
}

/* --- gates ------------------------------------------------------------------------------------ */

static bool has_pid(const struct conn *c, int64_t pid)
{
    for (size_t i = 0; i < c->n_pids; i++)
        if (c->pids[i] == pid)
            return true;
    return false;
}

static bool signal_subscribed(const struct conn *c, int64_t pid)
{
    for (size_t i = 0; i < c->n_subs; i++)
        if (c->subs[i].pid == pid)
            return true;
    return false;
}

bool conn_wants(const struct conn *c, enum kind_id kind, enum role min, const char *user,
                int64_t pid)
{
    const struct kind *k = &kinds[kind];

    if (c->id->role < k->min || c->id->role < min)
        return false;
    if (k->flags & KF_OWN && c->id->role < ROLE_OPERATOR && !str_eq(user, c->id->identity))
        return false;
    if (kind == KIND_PROC_SIGNAL && signal_subscribed(c, pid))
        return true;
    if (!c->subscribed || !(c->star || c->kinds & (1U << kind)))
        return false;
    return !(k->flags & KF_PID) || !c->n_pids || has_pid(c, pid);
}

/* --- turns ------------------------------------------------------------------------------------ */

static struct conn_turn *turn_find(struct conn *c, int64_t pid)
{
    for (size_t i = 0; i < c->n_turns; i++)
        if (c->turns[i].pid == pid)
            return &c->turns[i];
    return NULL;
}

static struct conn_turn *turn_make(struct conn *c, int64_t pid)
{
    c->turns = xrealloc(c->turns, (c->n_turns + 1) * sizeof(*c->turns));
    c->turns[c->n_turns] = (struct conn_turn){ .pid = pid, .turn = 0, .state = TURN_MISSED };
    return &c->turns[c->n_turns++];
}

static void turn_drop(struct conn *c, struct conn_turn *t)
{
    *t = c->turns[--c->n_turns];
}

void conns_forget_turn(int64_t pid)
{
    struct conn *c;

    LIST_FOREACH(c, &conns, link)
    {
        struct conn_turn *t = turn_find(c, pid);

        if (t)
            turn_drop(c, t);
    }
}

static void mark_lost(int64_t pid, uint64_t turn, void *arg)
{
    struct conn_turn *t = turn_find(arg, pid);

    if (t && t->turn == turn)
        t->state = TURN_LOST;
}

static void push_whole(struct conn *c, const struct agent *a, struct conn_turn *t)
{
    struct chunk whole;

    if (!turn_whole(a, &whole)) {
        t->state = TURN_MISSED;
        return;
    }
    struct out_msg *m = chunk_msg(&whole);

    outq_push_chunk(&c->q, &whole, m);
    out_msg_unref(m);
    t->state = TURN_WHOLE;
}

/* Room again: what was lost goes out whole. */
static void catch_turns_up(struct conn *c)
{
    for (size_t i = 0; i < c->n_turns; i++) {
        struct conn_turn *t = &c->turns[i];
        const struct agent *a = t->state == TURN_LOST ? agent_find(t->pid) : NULL;

        if (t->state != TURN_LOST)
            continue;
        if (a && a->turn == t->turn)
            push_whole(c, a, t);
        else
            t->state = TURN_MISSED;
    }
}

/* --- delivery --------------------------------------------------------------------------------- */

static void deliver_chunk(struct conn *c, const struct ev *e)
{
    const struct chunk *k = e->chunk;
    struct conn_turn *t = turn_find(c, k->pid);

    if (!t)
        t = turn_make(c, k->pid);
    if (t->turn != k->turn) {
        t->turn = k->turn;
        t->state = k->seq_from == 0 ? TURN_WHOLE : TURN_MISSED;
    }
    if (t->state == TURN_LOST)
        return;
    if (c->behind) {
        t->state = TURN_LOST;
        return;
    }
    if (outq_full(&c->q, e->msg->len)) {
        outq_drop_chunks(&c->q, mark_lost, c);
        metric_add("events_dropped_total", "reason=\"queue_full\"", 1);
        t = turn_find(c, k->pid);
        t->state = TURN_LOST;
        return;
    }
    outq_push_chunk(&c->q, k, e->msg);
    metric_sent[KIND_CHUNK]++;
}

/* The whole text is not sent again to who saw it all grow and asked for nothing in particular. */
static bool has_it_already(struct conn *c, const struct ev *e)
{
    struct conn_turn *t;
    const struct agent *a;
    bool has;

    if (e->kind != KIND_OUTPUT)
        return false;
    t = turn_find(c, e->pid);
    a = agent_find(e->pid);
    has = t && a && t->turn == a->turn && t->state == TURN_WHOLE && a->final && !a->discarded &&
          str_eq(a->turn_id, e->turn_id) && !(c->kinds & (1U << KIND_OUTPUT)) && c->kinds == 0 &&
          !c->behind;
    if (t)
        turn_drop(c, t);
    return has;
}

static void deliver(struct conn *c, const struct ev *e)
{
    if (kinds[e->kind].flags & KF_CHUNK) {
        deliver_chunk(c, e);
        c->wake(c);
        return;
    }
    if (has_it_already(c, e) || c->behind)
        return;
    if (outq_full(&c->q, e->msg->len))
        outq_drop_chunks(&c->q, mark_lost, c);
    if (outq_full(&c->q, e->msg->len)) {
        c->behind = true;
        c->cursor = e->seq - 1;
        return;
    }
    outq_push(&c->q, OUT_EVENT, e->msg, e->seq);
    metric_sent[e->kind]++;
    c->wake(c);
}

void conns_deliver(const struct ev *e)
{
    struct conn *c, *next;

    for (c = LIST_FIRST(&conns); c; c = next) {
        next = LIST_NEXT(c, link);
        if (!c->muted && conn_wants(c, e->kind, e->min, e->user, e->pid))
            deliver(c, e);
    }
}

void conn_reply(struct conn *c, const char *text, size_t len)
{
    struct out_msg *m = out_msg_new(text, len);

    outq_push(&c->q, OUT_REPLY, m, 0);
    out_msg_unref(m);
    c->wake(c);
}

void conn_local(struct conn *c, enum kind_id k, json_object *body)
{
    struct buf b = BUF_INIT(ATP_FRAME_OUT);
    const char *text = json_text(body);

    atp_write_event(&b, 0, kinds[k].name, c->id->session, now_ms(), text, strlen(text));
    json_put(body);
    struct out_msg *m = out_msg_new(b.data, b.len);

    outq_push(&c->q, OUT_LOCAL, m, 0);
    out_msg_unref(m);
    buf_done(&b);
    c->wake(c);
}

/* --- the ring --------------------------------------------------------------------------------- */

static bool ring_wants(const struct conn *c, const struct ring_ev *e, enum kind_id *k)
{
    *k = kind_find(e->kind);
    return *k != KIND_NONE && conn_wants(c, *k, (enum role)e->role, e->user, e->pid);
}

/* Reads on from the ring while there is room; live again once the cursor meets the head. */
static void pump(struct conn *c)
{
    struct ring_ev e;
    enum kind_id k;

    if (!c->behind || c->muted || c->stuck || !outq_low(&c->q))
        return;
    if (c->cursor < ring_floor(conn_ring)) {
        c->stuck = true;
        c->close(c, 4008, "slow_consumer");
        return;
    }
    while (ring_after(conn_ring, c->cursor, &e)) {
        if (!outq_low(&c->q))
            return;
        c->cursor = e.seq;
        if (!ring_wants(c, &e, &k))
            continue;
        struct out_msg *m = out_msg_new(e.text, e.len);

        outq_push(&c->q, OUT_EVENT, m, e.seq);
        out_msg_unref(m);
        metric_sent[k]++;
    }
    c->behind = false;
    catch_turns_up(c);
}

static void offer_turn(struct agent *a, void *arg)
{
    struct conn *c = arg;
    struct conn_turn *t;

    if (!conn_wants(c, KIND_CHUNK, ROLE_NONE, a->user, a->pid))
        return;
    t = turn_find(c, a->pid);
    if (!t)
        t = turn_make(c, a->pid);
    else if (t->turn == a->turn && t->state == TURN_WHOLE)
        return;
    t->turn = a->turn;
    t->state = TURN_LOST; /* sent by catch_turns_up */
}

struct sub_result conn_subscribe(struct conn *c, bool star, uint32_t mask, const int64_t *pids,
                                 size_t n_pids, int64_t since)
{
    struct sub_result r = { .replayed = 0, .gap = false };
    struct ring_ev e;
    enum kind_id k;

    c->subscribed = true;
    c->star = star;
    c->kinds = mask;
    free(c->pids);
    c->pids = NULL;
    c->n_pids = n_pids;
    if (n_pids) {
        c->pids = xcalloc(n_pids, sizeof(*pids));
        memcpy(c->pids, pids, n_pids * sizeof(*pids));
    }
    if (since >= 0) {
        uint64_t n = (uint64_t)since;

        r.gap = n < ring_floor(conn_ring);
        c->cursor = r.gap ? ring_floor(conn_ring) : n;
        for (uint64_t at = c->cursor; ring_after(conn_ring, at, &e); at = e.seq)
            r.replayed += ring_wants(c, &e, &k);
        /* What waits is in the ring too, or of the old subscription. */
        outq_drop_events(&c->q);
        for (size_t i = 0; i < c->n_turns; i++)
            c->turns[i].state = TURN_LOST;
        c->behind = true;
    }
    agents_each(offer_turn, c);
    if (!c->behind)
        catch_turns_up(c);
    c->wake(c);
    return r;
}

void conn_mute(struct conn *c, bool muted)
{
    if (c->muted == muted)
        return;
    c->muted = muted;
    if (muted && !c->behind) {
        c->behind = true;
        c->cursor = ring_head(conn_ring);
    }
    if (!muted)
        c->wake(c);
}

struct out_msg *conn_next(struct conn *c)
{
    enum out_type type;
    uint64_t seq;
    struct out_msg *m;

    pump(c);
    m = outq_pop(&c->q, &type, &seq);
    if (m && seq > c->last_seq)
        c->last_seq = seq;
    if (m && !c->behind && outq_low(&c->q))
        catch_turns_up(c);
    return m;
}
