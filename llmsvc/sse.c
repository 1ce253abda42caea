/*
 * The event-stream parser of the HTML standard, without reconnection. A line that lies whole in the
 * input is handled where it is; only cut lines are copied.
 */
#include "llmsvc/sse.h"

#include "common/base/err.h"

void sse_init(struct sse *s, sse_fn fn, void *arg)
{
    memset(s, 0, sizeof *s);
    s->fn = fn;
    s->arg = arg;
    buf_init(&s->line, SSE_EVENT_MAX + 4096);
    buf_init(&s->data, SSE_EVENT_MAX);
}

void sse_done(struct sse *s)
{
    buf_done(&s->line);
    buf_done(&s->data);
}

void sse_reset(struct sse *s)
{
    sse_fn fn = s->fn;
    void *arg = s->arg;

    sse_done(s);
    sse_init(s, fn, arg);
}

/* Length of the sequence at p if it is well-formed, else 0 with *bad bytes that stand for one
 * U+FFFD: the longest beginning of a sequence, at least one byte. */
static size_t sequence(const char *p, size_t left, size_t *bad)
{
    size_t n = (*p & 0x80) == 0      ? 1
               : (*p & 0xe0) == 0xc0 ? 2
               : (*p & 0xf0) == 0xe0 ? 3
               : (*p & 0xf8) == 0xf0 ? 4
                                     : 0;

    *bad = 1;
    if (n && n <= left && utf8_valid(p, n))
        return n;
    for (size_t k = 2; k < n && k <= left; k++) {
        /* a beginning is one that some ending completes */
        char full[4] = { p[0], p[1], k > 2 ? p[2] : '\x80', '\x80' };
        char high[4] = { p[0], p[1], k > 2 ? p[2] : '\xbf', '\xbf' };

        if (!utf8_valid(full, n) && !utf8_valid(high, n))
            break;
        *bad = k;
    }
    return 0;
}

/* Broken UTF-8 becomes U+FFFD, as a browser shows it. */
static int mend(struct buf *b)
{
    struct buf out = BUF_INIT(SSE_EVENT_MAX);
    size_t bad = 0;

    for (size_t i = 0; i < b->len && !out.toobig;) {
        size_t n = sequence(b->data + i, b->len - i, &bad);

        if (n)
            buf_add(&out, b->data + i, n);
        else
            buf_adds(&out, "\xef\xbf\xbd");
        i += n ? n : bad;
    }
    if (out.toobig) {
        buf_done(&out);
        return ERR_PROVPROTO;
    }
    buf_done(b);
    *b = out;
    return 0;
}

static int dispatch(struct sse *s)
{
    int r = 0;

    if (s->has_data) {
        buf_add(&s->data, "", 0);
        if (s->data.len && !utf8_valid(s->data.data, s->data.len) && (r = mend(&s->data)))
            return r;
        r = s->fn(s->event, s->data.data ? s->data.data : "", s->data.len, s->arg);
    }
    s->has_data = false;
    s->event[0] = '\0';
    buf_clear(&s->data);
    return r;
}

static int field(struct sse *s, const char *name, size_t n, const char *value, size_t len)
{
    if (n == 4 && !memcmp(name, "data", 4)) {
        if (s->has_data && buf_addc(&s->data, '\n'))
            return ERR_PROVPROTO;
        s->has_data = true;
        return buf_add(&s->data, value, len) ? ERR_PROVPROTO : 0;
    }
    if (n == 5 && !memcmp(name, "event", 5)) {
        size_t k = len < sizeof s->event - 1 ? len : sizeof s->event - 1;
        memcpy(s->event, value, k);
        s->event[k] = '\0';
    }
    return 0;
}

static int line(struct sse *s, const char *p, size_t len)
{
    if (!s->started) {
        s->started = true;
        if (len >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) {
            p += 3;
            len -= 3;
        }
    }
    if (!len)
        return dispatch(s);
    const char *colon = memchr(p, ':', len);
    if (colon == p)
        return 0;
    if (!colon)
        return field(s, p, len, "", 0);
    size_t n = (size_t)(colon - p), skip = n + 1;
    if (skip < len && p[skip] == ' ')
        skip++;
    return field(s, p, n, p + skip, len - skip);
}

int sse_feed(struct sse *s, const char *data, size_t len)
{
    const char *p = data, *end = data + len;
    int r = 0;

    while (p < end && !r) {
        if (s->after_cr && *p == '\n') {
            s->after_cr = false;
            p++;
            continue;
        }
        s->after_cr = false;
        size_t left = (size_t)(end - p), n = 0;
        const char *lf = memchr(p, '\n', left);
        const char *cr = memchr(p, '\r', lf ? (size_t)(lf - p) : left);
        const char *eol = cr ? cr : lf;

        n = eol ? (size_t)(eol - p) : left;
        if (!eol) {
            r = buf_add(&s->line, p, n) ? ERR_PROVPROTO : 0;
            break;
        }
        if (s->line.len) {
            r = buf_add(&s->line, p, n) ? ERR_PROVPROTO : line(s, s->line.data, s->line.len);
            buf_clear(&s->line);
        } else {
            r = line(s, p, n);
        }
        s->after_cr = cr != NULL;
        p = eol + 1;
    }
    return r;
}
