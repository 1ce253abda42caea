/* Tool names: one table look-up per byte, one pass. */
#include "common/base/toolname.h"

enum { BAD, ALNUM, MARK, SLASH };

#define A10 ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM
#define A26 A10, A10, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM
static const unsigned char kind[256] = {
    ['-'] = MARK, ['.'] = MARK, ['/'] = SLASH, ['0'] = A10, ['A'] = A26, ['_'] = MARK, ['a'] = A26,
};

/* Copies a valid name to out with "__" for each slash; length or -1. */
static ssize_t walk(const char *name, size_t len, char *out)
{
    const unsigned char *p = (const unsigned char *)name;
    unsigned prev = SLASH; /* a name starts like a segment */
    unsigned char last = 0;
    size_t o = 0, slashes = 0;

    if (len > TOOL_MAX)
        return -1;
    for (size_t i = 0; i < len; i++) {
        unsigned k = kind[p[i]];

        if (k == BAD || (k != ALNUM && (prev == SLASH || (k == SLASH && prev != ALNUM))) ||
            (p[i] == '_' && last == '_'))
            return -1;
        if (k == SLASH) {
            slashes++;
            out[o++] = '_';
            out[o++] = '_';
        } else {
            out[o++] = (char)p[i];
        }
        prev = k;
        last = p[i];
    }
    return prev == ALNUM && slashes ? (ssize_t)o : -1;
}

bool tool_name_valid(const char *name, size_t len)
{
    char out[2 * TOOL_MAX];

    return walk(name, len, out) >= 0;
}

ssize_t tool_mangle(const char *name, size_t len, char *out, size_t size)
{
    char tmp[2 * TOOL_MAX];
    ssize_t n = walk(name, len, tmp);

    if (n < 0 || (size_t)n >= size)
        return -1;
    memcpy(out, tmp, (size_t)n);
    out[n] = '\0';
    return n;
}

ssize_t tool_unmangle(const char *wire, size_t len, char *out, size_t size)
{
    char tmp[2 * TOOL_MAX];
    size_t o = 0;

    if (len > sizeof(tmp) - 1)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (wire[i] == '_' && i + 1 < len && wire[i + 1] == '_') {
            tmp[o++] = '/';
            i++;
        } else if (wire[i] == '/') {
            return -1;
        } else {
            tmp[o++] = wire[i];
        }
    }
    if (o >= size || !tool_name_valid(tmp, o))
        return -1;
    memcpy(out, tmp, o);
    out[o] = '\0';
    return (ssize_t)o;
}
