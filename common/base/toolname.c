/* Tool names: one pass, one table look-up per byte. */
#include "common/base/toolname.h"

enum { BAD, ALNUM, MARK, SLASH };

#define A10 ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM
#define A26 A10, A10, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM, ALNUM
static const unsigned char kind[256] = {
    ['-'] = MARK, ['.'] = MARK, ['/'] = SLASH, ['0'] = A10, ['A'] = A26, ['_'] = MARK, ['a'] = A26,
};

/* Copies a valid name to out, which holds 2 * TOOL_MAX, with "__" for each slash; length or -1.
 * Only what is not a letter or digit looks at its neighbour. */
static ssize_t walk(const char *name, size_t len, char *out)
{
    const unsigned char *p = (const unsigned char *)name;
    size_t o = 0, slashes = 0;

    if (!len || len > TOOL_MAX || kind[p[0]] != ALNUM || kind[p[len - 1]] != ALNUM)
        return -1;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = p[i], k = kind[c];

        out[o++] = (char)c;
        if (k == ALNUM)
            continue;
        unsigned before = kind[p[i - 1]];
        if (k == SLASH && before == ALNUM) {
            slashes++;
            out[o - 1] = '_';
            out[o++] = '_';
        } else if (k != MARK || before == SLASH || (c == '_' && p[i - 1] == '_')) {
            return -1;
        }
    }
    return slashes ? (ssize_t)o : -1;
}

bool tool_name_valid(const char *name, size_t len)
{
    char out[2 * TOOL_MAX];

    return walk(name, len, out) >= 0;
}

ssize_t tool_mangle(const char *name, size_t len, char *out, size_t size)
{
    char tmp[2 * TOOL_MAX];
    char *to = size >= sizeof(tmp) ? out : tmp;
    ssize_t n = walk(name, len, to);

    if (n < 0 || (size_t)n >= size)
        return -1;
    if (to == tmp)
        memcpy(out, tmp, (size_t)n);
    out[n] = '\0';
    return n;
}

/* The inverse of walk: every "__" is a slash, so none is left inside a segment. */
static ssize_t walk_back(const char *wire, size_t len, char *out)
{
    const unsigned char *p = (const unsigned char *)wire;
    size_t o = 0, slashes = 0;
    unsigned before = SLASH;

    if (!len || len > 2 * TOOL_MAX || kind[p[len - 1]] != ALNUM)
        return -1;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = p[i];
        unsigned k = kind[c];

        out[o++] = (char)c;
        if (k != ALNUM) {
            if (k != MARK || before == SLASH)
                return -1;
            if (c == '_' && p[i + 1] == '_') { /* i + 1 is there: the last byte is no mark */
                if (before != ALNUM)
                    return -1;
                out[o - 1] = '/';
                k = SLASH;
                slashes++;
                i++;
            }
        }
        before = k;
    }
    return slashes && o <= TOOL_MAX ? (ssize_t)o : -1;
}

ssize_t tool_unmangle(const char *wire, size_t len, char *out, size_t size)
{
    char tmp[2 * TOOL_MAX];
    char *to = size >= sizeof(tmp) ? out : tmp;
    ssize_t n = walk_back(wire, len, to);

    if (n < 0 || (size_t)n >= size)
        return -1;
    if (to == tmp)
        memcpy(out, tmp, (size_t)n);
    out[n] = '\0';
    return n;
}
