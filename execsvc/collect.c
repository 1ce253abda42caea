/* Head buffer, then a ring for the tail. Characters are not cut where the marker goes in. */
#include "execsvc/collect.h"

void collect_init(struct collect *c, size_t limit)
{
    *c = (struct collect){ .half = limit / 2 ? limit / 2 : 1 };
    buf_init(&c->head, c->half);
}

void collect_done(struct collect *c)
{
    buf_done(&c->head);
    free(TAKE(c->tail));
}

void collect_add(struct collect *c, const char *data, size_t n)
{
    size_t room = c->half - c->head.len, take = n < room ? n : room;

    c->total += n;
    buf_add(&c->head, data, take);
    data += take;
    n -= take;
    if (!n)
        return;
    if (!c->tail)
        c->tail = xmalloc(c->half);
    if (n > c->half) { /* only its end can stay */
        data += n - c->half;
        n = c->half;
    }
    while (n) {
        size_t end = c->half - c->tail_at, m = n < end ? n : end;

        memcpy(c->tail + c->tail_at, data, m);
        c->tail_at = (c->tail_at + m) % c->half;
        c->tail_len = c->tail_len + m > c->half ? c->half : c->tail_len + m;
        data += m;
        n -= m;
    }
}

bool collect_cut(const struct collect *c)
{
    return c->total > c->head.len + c->tail_len;
}

void collect_write(const struct collect *c, struct buf *out)
{
    struct buf b = BUF_INIT(2 * c->half + 128);
    size_t half = c->half ? c->half : 1, head = c->head.len, skip = 0;
    size_t from = (c->tail_at + half - c->tail_len) % half;
    bool cut = collect_cut(c);

    if (cut)
        head = utf8_floor(c->head.data, head);
    buf_add(&b, c->head.data, head);
    if (cut) {
        while (skip < 4 && skip < c->tail_len &&
               ((unsigned char)c->tail[(from + skip) % half] & 0xc0) == 0x80)
            skip++;
        buf_printf(&b, "\n[... %llu bytes cut ...]\n",
                   (unsigned long long)(c->total - head - (c->tail_len - skip)));
    }
    for (size_t i = skip; i < c->tail_len;) {
        size_t at = (from + i) % half, n = half - at;

        if (n > c->tail_len - i)
            n = c->tail_len - i;
        buf_add(&b, c->tail + at, n);
        i += n;
    }
    buf_add_json_str(out, b.data ? b.data : "", b.len);
    buf_done(&b);
}
