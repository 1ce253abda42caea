/*
 * A connection's queue.
 *
 * Order is kept always: a client moves its cursor with every number it sees, so a merged chunk
 * stays at the place, and under the number, of its oldest part; only its turn-local seq is the
 * newest's.
 */
#include "gateway/outq.h"

#include "gateway/atp.h"

struct out_item {
    TAILQ_ENTRY(out_item) link;
    enum out_type type;
    uint64_t seq;
    struct out_msg *msg; /* NULL once a chunk has merged */
    size_t bytes;        /* counted */
    struct chunk c;      /* OUT_CHUNK: ids and text are owned here once merged */
    struct buf text;     /* merged text */
    char *ids;           /* copies of the three ids, one block */
};

#define ITEM_COST 128U

struct out_msg *out_msg_new(const char *text, size_t len)
{
    struct out_msg *m = xmalloc(sizeof(*m) + OUT_PRE + len);

    m->refs = 1;
    m->len = len;
    memcpy(m->data + OUT_PRE, text, len);
    return m;
}

struct out_msg *out_msg_ref(struct out_msg *m)
{
    m->refs++;
    return m;
}

void out_msg_unref(struct out_msg *m)
{
    if (m && --m->refs == 0)
        free(m);
}

struct out_msg *chunk_msg(const struct chunk *c)
{
    struct buf body = BUF_INIT(16U << 20), frame = BUF_INIT(20U << 20);
    struct out_msg *m;

    buf_printf(&body, "{\"pid\":\"%lld\",\"session_id\":", (long long)c->pid);
    buf_add_json_str(&body, c->session_id, strlen(c->session_id));
    buf_adds(&body, ",\"turn_id\":");
    buf_add_json_str(&body, c->turn_id, strlen(c->turn_id));
    buf_adds(&body, ",\"text_delta\":");
    buf_add_json_str(&body, c->text, c->len);
    buf_printf(&body, ",\"seq\":%llu,\"is_final\":%s", (unsigned long long)c->seq,
               c->final ? "true" : "false");
    if (c->discarded)
        buf_adds(&body, ",\"discarded\":true");
    if (c->from || c->seq_from != c->seq)
        buf_printf(&body, ",\"seq_from\":%llu", (unsigned long long)c->seq_from);
    buf_addc(&body, '}');
    atp_write_event(&frame, c->frame_seq, "agent.output.chunk", c->atp_session, c->ts_ms, body.data,
                    body.len);
    m = out_msg_new(frame.data, frame.len);
    buf_done(&body);
    buf_done(&frame);
    return m;
}

void outq_init(struct outq *q)
{
    memset(q, 0, sizeof(*q));
    TAILQ_INIT(&q->items);
}

static void item_free(struct outq *q, struct out_item *i)
{
    TAILQ_REMOVE(&q->items, i, link);
    if (i->type == OUT_EVENT || i->type == OUT_CHUNK) {
        q->n_events--;
        q->event_bytes -= i->bytes;
    } else {
        q->reply_bytes -= i->bytes;
    }
    out_msg_unref(i->msg);
    buf_done(&i->text);
    free(i->ids);
    free(i);
}

void outq_done(struct outq *q)
{
    while (!TAILQ_EMPTY(&q->items))
        item_free(q, TAILQ_FIRST(&q->items));
}

bool outq_empty(const struct outq *q)
{
    return TAILQ_EMPTY(&q->items);
}

bool outq_full(const struct outq *q, size_t more)
{
    return q->n_events >= OUT_EVENTS_MAX ||
           (q->n_events && q->event_bytes + more + ITEM_COST > OUT_BYTES_MAX);
}

bool outq_low(const struct outq *q)
{
    return q->n_events < OUT_EVENTS_MAX / 4 && q->event_bytes < OUT_BYTES_MAX / 4;
}

static struct out_item *item_new(struct outq *q, enum out_type type, size_t len)
{
    struct out_item *i = xcalloc(1, sizeof(*i));

    i->type = type;
    i->bytes = len + ITEM_COST;
    if (type == OUT_EVENT || type == OUT_CHUNK) {
        q->n_events++;
        q->event_bytes += i->bytes;
    } else {
        q->reply_bytes += i->bytes;
    }
    return i;
}

void outq_push(struct outq *q, enum out_type type, struct out_msg *m, uint64_t seq)
{
    struct out_item *i = item_new(q, type, m->len);

    i->msg = out_msg_ref(m);
    i->seq = seq;
    TAILQ_INSERT_TAIL(&q->items, i, link);
}

/* The item keeps copies: the chunk's texts are the publisher's. */
static void item_own(struct out_item *i, const struct chunk *c)
{
    size_t a = strlen(c->session_id) + 1, b = strlen(c->turn_id) + 1,
           d = strlen(c->atp_session) + 1;

    i->c = *c;
    i->ids = xmalloc(a + b + d);
    i->c.session_id = memcpy(i->ids, c->session_id, a);
    i->c.turn_id = memcpy(i->ids + a, c->turn_id, b);
    i->c.atp_session = memcpy(i->ids + a + b, c->atp_session, d);
    buf_init(&i->text, OUT_BYTES_MAX);
    buf_add(&i->text, c->text, c->len);
    i->c.text = NULL;
}

/* The waiting chunk that a new piece continues. */
static struct out_item *find_open(struct outq *q, const struct chunk *c)
{
    struct out_item *i;

    TAILQ_FOREACH_REVERSE(i, &q->items, out_list, link)
    {
        if (i->type == OUT_CHUNK && i->c.pid == c->pid && i->c.turn == c->turn)
            return i->c.final || i->c.seq + 1 != c->seq_from ? NULL : i;
    }
    return NULL;
}

static bool merge(struct outq *q, const struct chunk *c)
{
    struct out_item *i = find_open(q, c);

    if (!i || buf_add(&i->text, c->text, c->len))
        return false;
    out_msg_unref(i->msg);
    i->msg = NULL;
    i->c.seq = c->seq;
    i->c.from = true;
    i->c.final = c->final;
    i->c.discarded = c->discarded;
    i->bytes += c->len;
    q->event_bytes += c->len;
    return true;
}

void outq_push_chunk(struct outq *q, const struct chunk *c, struct out_msg *m)
{
    struct out_item *i;

    if (q->n_events >= OUT_MERGE_FROM && merge(q, c))
        return;
    i = item_new(q, OUT_CHUNK, m->len);
    i->msg = out_msg_ref(m);
    i->seq = c->frame_seq;
    item_own(i, c);
    TAILQ_INSERT_TAIL(&q->items, i, link);
}

void outq_drop_chunks(struct outq *q, void (*dropped)(int64_t, uint64_t, void *), void *arg)
{
    struct out_item *i, *next;

    for (i = TAILQ_FIRST(&q->items); i; i = next) {
        next = TAILQ_NEXT(i, link);
        if (i->type != OUT_CHUNK)
            continue;
        dropped(i->c.pid, i->c.turn, arg);
        item_free(q, i);
    }
}

void outq_drop_events(struct outq *q)
{
    struct out_item *i, *next;

    for (i = TAILQ_FIRST(&q->items); i; i = next) {
        next = TAILQ_NEXT(i, link);
        if (i->type == OUT_EVENT || i->type == OUT_CHUNK)
            item_free(q, i);
    }
}

struct out_msg *outq_pop(struct outq *q, enum out_type *type, uint64_t *seq)
{
    struct out_item *i = TAILQ_FIRST(&q->items);
    struct out_msg *m;

    if (!i)
        return NULL;
    *type = i->type;
    *seq = i->seq;
    if (!i->msg) {
        i->c.text = i->text.data ? i->text.data : "";
        i->c.len = i->text.len;
        i->msg = chunk_msg(&i->c);
    }
    m = out_msg_ref(i->msg);
    item_free(q, i);
    return m;
}
