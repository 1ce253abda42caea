/*
 * The event bus.
 *
 * The gateway can check no token, so it goes by the peer: a unit by init's table, anyone else by
 * init's list of agents and installed services, asked once per process. While that question is
 * open, and while the kernel is asked whose an agent is, the frames of that process wait in the
 * order in which they came: each holds its connection (the server reads on only when it is done),
 * so a publisher that waits for us to close sees its last event delivered.
 *
 * From there on everything is synchronous: shape, number, ring, connections, acknowledgement.
 */
#include "gateway/bus.h"

#include <inttypes.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/base/map.h"
#include "gateway/atp.h"
#include "gateway/conn.h"
#include "gateway/metrics.h"
#include "gateway/turns.h"

#define PEERS_MAX    4096U
#define WAITING_MAX  1024U /* frames of one process under check */
#define STRANGER_MS  5000  /* a process that init did not know is asked for again after this */
#define AGENT_EVENTS 500.0
#define AGENT_BYTES  (4.0 * 1024 * 1024)

struct waiting {
    TAILQ_ENTRY(waiting) link;
    struct call *call;
};
TAILQ_HEAD(waiting_list, waiting);

enum peer_state { PEER_ASKING, PEER_KNOWN, PEER_STRANGER };
struct publisher_peer {
    char key[48];
    pid_t pid;
    uint64_t start;
    enum peer_state state;
    struct pub pub;
    char name[64];
    int64_t at_ms;
    struct waiting_list waiting;
    unsigned n_waiting;
    struct ipc_call *asking;
};

static struct map peers;
static struct buf frame = BUF_INIT(16U << 20);

static void reject(const char *reason)
{
    char l[64];

    snprintf(l, sizeof(l), "reason=\"%s\"", reason);
    metric_add("publish_rejected_total", l, 1);
}

/* --- publishing ------------------------------------------------------------------------------- */

static uint64_t emit(struct ev *e, const char *session, const char *text, size_t len,
                     const char *id, int64_t ts)
{
    buf_clear(&frame);
    e->seq = ring_take_seq(conn_ring);
    atp_write_event(&frame, e->seq, kinds[e->kind].name, session, ts, text, len);
    struct ring_ev r = { .seq = e->seq,
                         .pid = e->pid,
                         .role = e->min,
                         .kind = kinds[e->kind].name,
                         .user = e->user,
                         .id = id,
                         .text = frame.data,
                         .len = frame.len };

    if (ring_append(conn_ring, &r))
        reject("too_big");
    e->msg = out_msg_new(frame.data, frame.len);
    conns_deliver(e);
    out_msg_unref(e->msg);
    metric_published[e->kind]++;
    if (frame.cap > (1U << 20))
        buf_done(&frame);
    return e->seq;
}

uint64_t bus_publish(enum kind_id k, json_object *body, const char *user, const char *session,
                     enum role min, const char *id)
{
    const char *text = json_text(body);
    json_object *pid = json_get(body, "pid");
    struct ev e = { .kind = k,
                    .min = min > kinds[k].min ? min : kinds[k].min,
                    .user = user,
                    .pid = atp_pid(pid),
                    .turn_id = json_str(body, "turn_id", "") };

    return emit(&e, session, text, strlen(text), id, now_ms());
}

static void emit_chunk(struct agent *a, struct chunk *c)
{
    struct ev e = { .kind = KIND_CHUNK, .min = ROLE_USER, .user = a->user, .pid = a->pid };

    c->frame_seq = ring_take_seq(conn_ring);
    c->ts_ms = now_ms();
    c->atp_session = a->atp_session;
    if (!turn_add(a, c)) {
        reject("repeated");
        return;
    }
    e.seq = c->frame_seq;
    e.chunk = c;
    e.msg = chunk_msg(c);
    conns_deliver(&e);
    out_msg_unref(e.msg);
    metric_published[KIND_CHUNK]++;
}

/* Deltas that the rate held back go out with this piece. */
static void flush_held(struct agent *a, struct chunk *c)
{
    if (!a->holding)
        return;
    if (c->seq_from && !buf_add(&a->held, c->text, c->len)) {
        c->text = a->held.data;
        c->len = a->held.len;
        c->seq_from = a->held_from;
    }
    a->holding = false;
}

static const char *publish_chunk(struct agent *a, json_object *body, bool in_rate)
{
    json_object *text = json_get(body, "text_delta");
    struct chunk c = { .pid = a->pid,
                       .session_id = json_str(body, "session_id", ""),
                       .turn_id = json_str(body, "turn_id", ""),
                       .final = json_flag(body, "is_final", false),
                       .discarded = json_flag(body, "discarded", false) };
    int64_t seq = json_int(body, "seq", -1), from = json_int(body, "seq_from", seq);

    if (!json_object_is_type(text, json_type_string) || seq < 0 || from < 0 || from > seq)
        return "shape";
    c.text = json_object_get_string(text);
    c.len = (size_t)json_object_get_string_len(text);
    c.seq = (uint64_t)seq;
    c.seq_from = (uint64_t)from;
    if (!in_rate && !c.final && c.seq_from) {
        if (!a->holding) {
            buf_clear(&a->held);
            a->held_from = c.seq_from;
        }
        if (!buf_add(&a->held, c.text, c.len)) {
            a->holding = true;
            return NULL;
        }
    }
    flush_held(a, &c);
    emit_chunk(a, &c);
    return NULL;
}

/* What an event tells the gateway itself. */
static void learn(enum kind_id k, json_object *body, const char *user, const char *session)
{
    int64_t pid = atp_pid(json_get(body, "pid"));
    struct agent *a;

    if (k != KIND_SPAWNED || pid < 0)
        return;
    a = agent_get(pid);
    a->known = true;
    str_copy(a->user, sizeof(a->user), user);
    str_copy(a->atp_session, sizeof(a->atp_session), session);
}

static void after(enum kind_id k, int64_t pid)
{
    struct agent *a = agent_find(pid);

    if (k == KIND_OUTPUT && a) {
        buf_clear(&a->text);
        a->whole = false;
    } else if (k == KIND_EXIT) {
        conns_forget_turn(pid);
        agent_gone(pid);
    }
}

/* --- one accepted frame ----------------------------------------------------------------------- */

struct pubreq {
    enum kind_id kind;
    json_object *body, *scope;
    const char *user, *session, *id;
    enum role min;
};

/* NULL, or why not. */
static const char *read_request(struct call *c, const struct pub *p, struct pubreq *q)
{
    const char *why;

    q->kind = kind_find(json_str(c->params, "event", ""));
    if (q->kind == KIND_NONE)
        return "kind";
    if (!kind_allows(q->kind, p))
        return "publisher";
    q->body = json_obj(c->params, "body");
    q->scope = json_obj(c->params, "scope");
    if (!q->body)
        return "shape";
    q->user = json_str(q->scope, "user", "");
    q->session = json_str(q->scope, "session", "");
    q->min = role_parse(json_str(q->scope, "min_role", ""));
    q->id = p->unit == UNIT_KERNEL ? json_str(c->params, "id", "") : "";
    if (strlen(q->id) > 128 || strlen(q->user) > 127 || strlen(q->session) > 63)
        return "shape";
    why = kind_shape(q->kind, q->body, p);
    return why ? "shape" : NULL;
}

static const char *as_agent(struct call *c, const struct pub *p, struct pubreq *q)
{
    struct agent *a = agent_find(p->pid);
    int64_t now = mono_ms();
    const char *text = json_text(q->body);
    bool in_rate;

    (void)c;
    if (!a || !a->known)
        return "agent";
    in_rate = bucket_take(&a->events, AGENT_EVENTS, AGENT_EVENTS, 1, now) &&
              bucket_take(&a->bytes, AGENT_BYTES, AGENT_BYTES, (double)strlen(text), now);
    if (q->kind == KIND_CHUNK)
        return publish_chunk(a, q->body, in_rate);
    if (!in_rate)
        return "rate";
    bus_publish(q->kind, q->body, a->user, a->atp_session, ROLE_NONE, "");
    return NULL;
}

static void finish(struct call *c, const char *why, uint64_t seq)
{
    if (why)
        reject(why);
    if (c->note)
        call_end(c);
    else if (why)
        call_fail(c, ERR_INVAL, "event refused: %s", why);
    else
        call_reply(c, json_make("seq:i", (int64_t)seq));
}

static void process(struct call *c, const struct pub *p)
{
    struct pubreq q;
    const char *why = read_request(c, p, &q);
    uint64_t seq = 0;

    if (!why && kinds[q.kind].by == PUB_AGENT) {
        why = as_agent(c, p, &q);
    } else if (!why) {
        seq = ring_find_id(conn_ring, q.id);
        if (!seq) {
            learn(q.kind, q.body, q.user, q.session);
            seq = bus_publish(q.kind, q.body, q.user, q.session, q.min, q.id);
        }
    }
    if (!why)
        after(q.kind, p->unit == UNIT_NONE ? p->pid : atp_pid(json_get(q.body, "pid")));
    finish(c, why, seq);
}

/* --- who is it -------------------------------------------------------------------------------- */

static void drain(struct publisher_peer *p)
{
    struct waiting *w;

    /* Ending a call may bring that connection's next frame at once: it goes behind. */
    while ((w = TAILQ_FIRST(&p->waiting))) {
        TAILQ_REMOVE(&p->waiting, w, link);
        p->n_waiting--;
        if (p->state == PEER_KNOWN)
            process(w->call, &p->pub);
        else
            finish(w->call, "peer", 0);
        free(w);
    }
}

static void settle(struct publisher_peer *p, enum peer_state s)
{
    p->asking = NULL;
    p->state = s;
    p->at_ms = mono_ms();
    drain(p);
}

static void learn_agents(json_object *rows)
{
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        json_object *row = json_object_array_get_idx(rows, i);
        int64_t pid = atp_pid(json_get(row, "pid"));
        const char *user = json_str(row, "user", json_str(row, "username", ""));
        struct agent *a;

        if (pid <= 0 || !user[0])
            continue;
        a = agent_get(pid);
        if (a->known)
            continue;
        a->known = true;
        str_copy(a->user, sizeof(a->user), user);
        str_copy(a->atp_session, sizeof(a->atp_session), json_str(row, "atpSession", ""));
    }
}

static void on_proc_list(struct ipc_reply *r, void *arg)
{
    struct publisher_peer *p = arg;
    json_object *rows = r->result;

    if (!r->err && rows && json_object_is_type(rows, json_type_object))
        rows = json_arr(rows, "processes");
    if (!r->err && rows && json_object_is_type(rows, json_type_array))
        learn_agents(rows);
    else
        log_warn("kernel/proc/list: %s", r->err ? r->error.message : "no list");
    settle(p, PEER_KNOWN);
}

static bool same_process(json_object *row, const struct publisher_peer *p)
{
    return json_int(row, "hostPid", 0) == p->pid &&
           (uint64_t)json_int(row, "startTime", 0) == p->start;
}

static bool find_agent(json_object *list, struct publisher_peer *p)
{
    json_object *agents = json_arr(list, "agents"), *units = json_arr(list, "units");

    p->pub = (struct pub){ .unit = UNIT_NONE, .pid = 0, .name = p->name };
    for (size_t i = 0; agents && i < json_object_array_length(agents); i++) {
        json_object *row = json_object_array_get_idx(agents, i);

        if (same_process(row, p)) {
            p->pub.pid = json_int(row, "avixPid", 0);
            return p->pub.pid > 0;
        }
    }
    for (size_t i = 0; units && i < json_object_array_length(units); i++) {
        json_object *row = json_object_array_get_idx(units, i);

        if (same_process(row, p)) {
            str_copy(p->name, sizeof(p->name), json_str(row, "name", ""));
            return true;
        }
    }
    return false;
}

static void on_init_list(struct ipc_reply *r, void *arg)
{
    struct publisher_peer *p = arg;
    struct agent *a;

    if (r->err || !find_agent(r->result, p)) {
        if (r->err)
            log_warn("init/list: %s", r->error.message);
        settle(p, PEER_STRANGER);
        return;
    }
    a = p->pub.pid > 0 ? agent_find(p->pub.pid) : NULL;
    if (p->pub.pid > 0 && (!a || !a->known)) {
        p->asking = svc_call("kernel/proc/list", json_new(), NULL, 5000, on_proc_list, p);
        return;
    }
    settle(p, PEER_KNOWN);
}

static void ask(struct publisher_peer *p)
{
    p->state = PEER_ASKING;
    p->asking = svc_frame(UNIT_INIT, "init/list", json_new(), false, on_init_list, p);
}

static void peer_free(struct publisher_peer *p)
{
    if (p->asking)
        ipc_cancel(p->asking);
    free(p);
}

/* Forgets the oldest that nobody waits for. */
static void trim(void)
{
    struct publisher_peer *old = NULL;
    size_t pos = 0;
    const char *key;
    void *v;

    if (peers.n < PEERS_MAX)
        return;
    while (map_each(&peers, &pos, &key, &v)) {
        struct publisher_peer *p = v;

        if (p->state != PEER_ASKING && (!old || p->at_ms < old->at_ms))
            old = p;
    }
    if (old) {
        map_del(&peers, old->key);
        peer_free(old);
    }
}

static struct publisher_peer *peer_for(const struct call *c)
{
    struct publisher_peer *p;
    char key[48];

    snprintf(key, sizeof(key), "%d:%" PRIu64, (int)c->peer.pid, c->peer.start);
    p = map_get(&peers, key);
    if (p && p->state == PEER_STRANGER && mono_ms() - p->at_ms > STRANGER_MS)
        ask(p);
    if (p)
        return p;
    trim();
    p = xcalloc(1, sizeof(*p));
    str_copy(p->key, sizeof(p->key), key);
    p->pid = c->peer.pid;
    p->start = c->peer.start;
    TAILQ_INIT(&p->waiting);
    map_put(&peers, key, p);
    ask(p);
    return p;
}

void bus_on_publish(struct call *c, const struct caller *who)
{
    enum unit_id unit = svc_peer_unit(&c->peer);
    struct publisher_peer *p;
    struct waiting *w;

    (void)who;
    if (unit != UNIT_NONE && unit != UNIT_INIT) {
        struct pub pub = { .unit = unit, .pid = -1, .name = unit_rows[unit].name };

        process(c, &pub);
        return;
    }
    if (!c->peer.start) {
        finish(c, "peer", 0);
        return;
    }
    p = peer_for(c);
    if (p->state == PEER_KNOWN && TAILQ_EMPTY(&p->waiting)) {
        process(c, &p->pub);
        return;
    }
    if (p->state == PEER_STRANGER || p->n_waiting >= WAITING_MAX) {
        finish(c, "peer", 0);
        return;
    }
    w = xcalloc(1, sizeof(*w));
    w->call = c;
    TAILQ_INSERT_TAIL(&p->waiting, w, link);
    p->n_waiting++;
}

/* --- start and end ---------------------------------------------------------------------------- */

void bus_start(void)
{
    struct ring_ev e;

    for (uint64_t at = 0; ring_after(conn_ring, at, &e); at = e.seq) {
        cleanup(json_putp) json_object *f = NULL;

        if (str_eq(e.kind, kinds[KIND_EXIT].name))
            agent_gone(e.pid);
        if (!str_eq(e.kind, kinds[KIND_SPAWNED].name) || json_parse(e.text, e.len, &f))
            continue;
        learn(KIND_SPAWNED, json_obj(f, "body"), e.user, json_str(f, "sessionId", ""));
    }
}

void bus_fini(void)
{
    size_t pos = 0;
    const char *key;
    void *v;

    while (map_each(&peers, &pos, &key, &v)) {
        struct publisher_peer *p = v;
        struct waiting *w;

        while ((w = TAILQ_FIRST(&p->waiting))) { /* the calls end with the server */
            TAILQ_REMOVE(&p->waiting, w, link);
            free(w);
        }
        peer_free(p);
    }
    map_done(&peers);
    buf_done(&frame);
    agents_fini();
}
