/* Base64 and hex. Decoding is strict, so that one value has one text: a token cannot be written in
 * two ways. */
#include "common/base/b64.h"

static const char url_set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char std_set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define X     (-1)
#define ROW16 X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X
#define LETTERS(c62, c63, m62, m63)                                                                \
    {                                                                                              \
        ROW16, ROW16, X, X, X, X, X, X, X, X, X, X, X, c62, X, m62, X, c63, 52, 53, 54, 55, 56,    \
            57, 58, 59, 60, 61, X, X, X, X, X, X, X, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, \
            14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, X, X, X, X, m63, X, 26, 27, 28, 29,    \
            30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50,    \
            51, X, X, X, X, X, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16, ROW16              \
    }
static const unsigned char std_map[256] = LETTERS(62, 63, X, X);
static const unsigned char url_map[256] = LETTERS(X, X, 62, 63);

static size_t encode(const char *set, const unsigned char *p, size_t len, char *out)
{
    char *o = out;
    size_t i = 0;

    for (; i + 2 < len; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];

        *o++ = set[v >> 18];
        *o++ = set[v >> 12 & 63];
        *o++ = set[v >> 6 & 63];
        *o++ = set[v & 63];
    }
    if (i < len) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < len ? (uint32_t)p[i + 1] << 8 : 0);

        *o++ = set[v >> 18];
        *o++ = set[v >> 12 & 63];
        if (i + 1 < len)
            *o++ = set[v >> 6 & 63];
    }
    *o = '\0';
    return (size_t)(o - out);
}

/* Without padding. */
static ssize_t decode(const unsigned char map[256], const char *s, size_t len, unsigned char *out,
                      size_t cap)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t need = len / 4 * 3 + (len % 4 ? len % 4 - 1 : 0), i = 0;
    unsigned char *o = out;

    if (len % 4 == 1 || need > cap)
        return -1;
    for (; i + 3 < len; i += 4) {
        unsigned a = map[p[i]], b = map[p[i + 1]], c = map[p[i + 2]], d = map[p[i + 3]];

        if ((a | b | c | d) & 0x80)
            return -1;
        *o++ = (unsigned char)(a << 2 | b >> 4);
        *o++ = (unsigned char)(b << 4 | c >> 2);
        *o++ = (unsigned char)(c << 6 | d);
    }
    if (i < len) {
        unsigned a = map[p[i]], b = map[p[i + 1]], c = i + 2 < len ? map[p[i + 2]] : 0;

        if (((a | b | c) & 0x80) || (i + 2 < len ? (c & 3) : (b & 15)))
            return -1;
        *o++ = (unsigned char)(a << 2 | b >> 4);
        if (i + 2 < len)
            *o++ = (unsigned char)(b << 4 | c >> 2);
    }
    return o - out;
}

size_t b64url_encode(const void *data, size_t len, char *out)
{
    return encode(url_set, data, len, out);
}

ssize_t b64url_decode(const char *s, size_t len, void *out, size_t cap)
{
    return decode(url_map, s, len, out, cap);
}

char *b64_encode_new(const void *data, size_t len)
{
    char *out = xmalloc((len + 2) / 3 * 4 + 1);
    size_t n = encode(std_set, data, len, out);

    while (n % 4)
        out[n++] = '=';
    out[n] = '\0';
    return out;
}

void *b64_decode_new(const char *s, size_t len, size_t *ret_len)
{
    size_t body = len;

    if (len % 4)
        return NULL;
    while (body && len - body < 2 && s[body - 1] == '=')
        body--;
    unsigned char *out = xmalloc(len / 4 * 3 + 1);
    ssize_t n = decode(std_map, s, body, out, len / 4 * 3);
    if (n < 0) {
        free(out);
        return NULL;
    }
    out[n] = '\0';
    *ret_len = (size_t)n;
    return out;
}

void hex_encode(const void *data, size_t len, char *out)
{
    static const char set[] = "0123456789abcdef";
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = set[p[i] >> 4];
        out[2 * i + 1] = set[p[i] & 15];
    }
    out[2 * len] = '\0';
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool hex_decode(const char *s, size_t len, void *out)
{
    unsigned char *o = out;

    if (len % 2)
        return false;
    for (size_t i = 0; i < len; i += 2) {
        int hi = nibble(s[i]), lo = nibble(s[i + 1]);

        if (hi < 0 || lo < 0)
            return false;
        o[i / 2] = (unsigned char)(hi << 4 | lo);
    }
    return true;
}
