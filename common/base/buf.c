/* Growing by doubling, never past the ceiling; one byte more is kept for the NUL behind the data.
 */
#include "common/base/buf.h"

#include <stdarg.h>

#include "common/base/err.h"

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf)BUF_INIT(max);
}

void buf_done(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->toobig = false;
    if (b->data)
        b->data[0] = '\0';
}

int buf_reserve(struct buf *b, size_t n)
{
    if (n > b->max || b->len > b->max - n) {
        b->toobig = true;
        return ERR_TOOBIG;
    }
    if (b->len + n + 1 > b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 64;

        if (cap < b->len + n + 1)
            cap = b->len + n + 1;
        if (cap > b->max + 1 && b->max + 1 > b->max)
            cap = b->max + 1;
        b->data = xrealloc(b->data, cap);
        b->cap = cap;
        b->data[b->len] = '\0';
    }
    return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
    int r = buf_reserve(b, len);

    if (r)
        return r;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int buf_adds(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_addc(struct buf *b, char c)
{
    return buf_add(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    char small[512];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0)
        return ERR_INTERNAL;
    if ((size_t)n < sizeof(small))
        return buf_add(b, small, (size_t)n);
    int r = buf_reserve(b, (size_t)n);
    if (r)
        return r;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

/* What a byte below 0x20, a quote, a backslash or DEL is written as. */
static size_t json_escape(unsigned char c, char out[8])
{
    static const char letter[] = "\"\"\\\\\bb\ff\nn\rr\tt";

    for (size_t i = 0; i < sizeof(letter) - 1; i += 2)
        if ((unsigned char)letter[i] == c) {
            out[0] = '\\';
            out[1] = letter[i + 1];
            return 2;
        }
    return (size_t)snprintf(out, 8, "\\u%04x", c);
}

static bool json_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\' && c < 0x7F;
}

int buf_add_json_str(struct buf *b, const char *s, size_t len)
{
    size_t start = b->len, i = 0;
    int r = buf_addc(b, '"');

    while (!r && i < len) {
        size_t run = i;
        char esc[8];

        while (run < len && json_plain((unsigned char)s[run]))
            run++;
        if (run > i) {
            r = buf_add(b, s + i, run - i);
            i = run;
        } else if ((unsigned char)s[i] < 0x80) {
            r = buf_add(b, esc, json_escape((unsigned char)s[i], esc));
            i++;
        } else {
            size_t n = 2;

            while (n <= 4 && n <= len - i && !utf8_valid(s + i, n))
                n++;
            if (n <= 4 && n <= len - i) {
                r = buf_add(b, s + i, n);
                i += n;
            } else {
                r = buf_add(b, "\xEF\xBF\xBD", 3);
                i++;
            }
        }
    }
    if (!r)
        r = buf_addc(b, '"');
    if (r) {
        b->len = start;
        if (b->data)
            b->data[start] = '\0';
    }
    return r;
}

void buf_shift(struct buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
    } else {
        memmove(b->data, b->data + n, b->len - n);
        b->len -= n;
    }
    if (b->data)
        b->data[b->len] = '\0';
}

char *buf_take(struct buf *b)
{
    char *s = b->data ? b->data : xcalloc(1, 1);

    buf_init(b, b->max);
    return s;
}
