/*
 * The timer is armed only while bytes are waiting, so an idle agent has none. When the text ends,
 * what was held back goes out: a broken character as it is (the JSON writer replaces it), the start
 * of a secret that never went on as the plain text it is.
 */
#include "kernel/agent/chunk.h"

#define PENDING_MAX (1024 * 1024)

static void out(struct chunker *c, size_t n)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);

    mask_text(c->mask, c->pending.data, n, &b);
    c->emit(b.data, b.len, c->arg);
    buf_done(&b);
    buf_shift(&c->pending, n);
}

/* Bytes at the front that may leave now. */
static size_t ready(const struct chunker *c)
{
    size_t n = utf8_floor(c->pending.data, c->pending.len);

    return n - mask_tail(c->mask, c->pending.data, n);
}

void chunk_flush(struct chunker *c, bool last)
{
    if (!c->pending.len)
        return;
    size_t n = last ? c->pending.len : ready(c);
    if (n)
        out(c, n);
    timer_stop(&c->timer);
    if (c->pending.len && !last)
        timer_set(&c->timer, CHUNK_MS);
}

static void on_timer(void *arg)
{
    struct chunker *c = arg;
    size_t had = c->pending.len;

    chunk_flush(c, false);
    if (c->pending.len == had)
        timer_stop(&c->timer); /* only more text can set this free */
}

void chunk_init(struct chunker *c, struct loop *l, const struct mask *m,
                void (*emit)(const char *, size_t, void *), void *arg)
{
    *c = (struct chunker){ .mask = m, .emit = emit, .arg = arg };
    buf_init(&c->pending, PENDING_MAX);
    timer_init(&c->timer, l, on_timer, c);
}

void chunk_begin(struct chunker *c)
{
    chunk_drop(c);
    c->total = 0;
}

void chunk_text(struct chunker *c, const char *text, size_t len)
{
    if (!len)
        return;
    bool first = !c->pending.len;
    c->total += len;
    if (buf_add(&c->pending, text, len)) {
        chunk_flush(c, true);
        (void)buf_add(&c->pending, text, len < PENDING_MAX ? len : PENDING_MAX);
    }
    if (c->pending.len >= CHUNK_BYTES)
        chunk_flush(c, false);
    else if (first)
        timer_set(&c->timer, CHUNK_MS);
}

void chunk_drop(struct chunker *c)
{
    buf_clear(&c->pending);
    timer_stop(&c->timer);
}

void chunk_done(struct chunker *c)
{
    timer_done(&c->timer);
    buf_done(&c->pending);
}
