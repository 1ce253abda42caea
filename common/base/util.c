/* Small things every room uses. The allocators end the process instead of returning NULL: a room is
 * restarted by init, and code without failure paths for memory is code that was tested. */
#include "common/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

void freep(void *p)
{
    void *v;

    memcpy(&v, p, sizeof(v));
    free(v);
}

void closep(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

void dirp_close(void *d)
{
    DIR *dir = *(DIR **)d;

    if (dir)
        closedir(dir);
}

static void *mem_or_die(void *p)
{
    if (!p) {
        static const char msg[] = "out of memory\n";
        ssize_t n = write(STDERR_FILENO, msg, sizeof(msg) - 1);
        (void)n;
        _exit(111);
    }
    return p;
}

void *xmalloc(size_t n)
{
    return mem_or_die(malloc(n ? n : 1));
}

void *xcalloc(size_t n, size_t size)
{
    return mem_or_die(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t n)
{
    return mem_or_die(realloc(p, n ? n : 1));
}

char *xstrdup(const char *s)
{
    return mem_or_die(strdup(s));
}

char *xstrndup(const char *s, size_t n)
{
    return mem_or_die(strndup(s, n));
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return mem_or_die(n < 0 ? NULL : s);
}

bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
    return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = s ? strlen(s) : 0, m = strlen(suffix);

    return s && n >= m && memcmp(s + n - m, suffix, m) == 0;
}

bool str_copy(char *dst, size_t size, const char *s)
{
    size_t n = strlen(s);
    bool fits = n < size;

    if (!size)
        return false;
    if (!fits)
        n = size - 1;
    memmove(dst, s, n);
    dst[n] = '\0';
    return fits;
}

bool parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret)
{
    char *end;

    if (!s || !(*s == '-' ? s[1] >= '0' && s[1] <= '9' : *s >= '0' && *s <= '9'))
        return false;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || *end || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

bool parse_duration_ms(const char *s, int64_t *ret_ms)
{
    static const struct {
        const char *suffix;
        int64_t ms;
    } units[] = { { "", 1000 },   { "ms", 1 },      { "s", 1000 },
                  { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
    size_t digits = s ? strspn(s, "0123456789") : 0;
    char num[16];
    int64_t v;

    if (!digits || digits >= sizeof(num))
        return false;
    memcpy(num, s, digits);
    num[digits] = '\0';
    if (!parse_i64(num, 0, INT64_MAX / 86400000, &v))
        return false;
    for (size_t i = 0; i < N_ELEMS(units); i++)
        if (strcmp(s + digits, units[i].suffix) == 0) {
            *ret_ms = v * units[i].ms;
            return true;
        }
    return false;
}

/* Bytes of the sequence at s (n > 0 bytes are there): 1..4, 0 malformed, -1 cut off by the end. */
static int utf8_seq(const unsigned char *s, size_t n)
{
    unsigned c = s[0], lo = 0x80, hi = 0xBF;
    int len;

    if (c < 0x80)
        return 1;
    if (c < 0xC2 || c > 0xF4)
        return 0;
    len = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0)
        lo = 0xA0;
    else if (c == 0xED)
        hi = 0x9F;
    else if (c == 0xF0)
        lo = 0x90;
    else if (c == 0xF4)
        hi = 0x8F;
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n)
            return -1;
        if (s[i] < lo || s[i] > hi)
            return 0;
        lo = 0x80;
        hi = 0xBF;
    }
    return len;
}

bool utf8_valid(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;

    for (size_t i = 0; i < len;) {
        uint64_t w;

        if (len - i >= 8 && (memcpy(&w, p + i, 8), !(w & 0x8080808080808080ULL))) {
            i += 8;
            continue;
        }
        int n = utf8_seq(p + i, len - i);
        if (n <= 0)
            return false;
        i += (size_t)n;
    }
    return true;
}

size_t utf8_floor(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;

    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = p[len - back];

        if ((c & 0xC0) == 0x80)
            continue;
        return utf8_seq(p + len - back, back) == -1 ? len - back : len;
    }
    return len;
}

uint64_t hash_bytes(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3ULL;
    return h;
}

uint64_t hash_str(const char *s)
{
    return hash_bytes(s, strlen(s));
}

bool ct_equal(const void *a, const void *b, size_t len)
{
    const unsigned char *x = a, *y = b;
    uint64_t diff = 0;

    for (; len >= sizeof(uint64_t); len -= sizeof(uint64_t)) {
        uint64_t u, v;

        memcpy(&u, x, sizeof(u));
        memcpy(&v, y, sizeof(v));
        diff |= u ^ v;
        x += sizeof(u);
        y += sizeof(v);
    }
    for (; len; len--)
        diff |= (uint64_t)(*x++ ^ *y++);
    __asm__ volatile("" : "+r"(diff)); /* the compiler must not learn when to stop */
    return diff == 0;
}

/* One [set] at p (behind the bracket): *hit tells whether c is in it; the end of the set, or NULL
 * if it is not closed. */
static const char *glob_set(const char *p, unsigned char c, bool *hit)
{
    bool negate = *p == '!' || *p == '^', in = false;

    if (negate)
        p++;
    for (bool first = true; *p && (first || *p != ']'); first = false) {
        unsigned char lo = (unsigned char)*p++, hi = lo;

        if (p[0] == '-' && p[1] && p[1] != ']') {
            hi = (unsigned char)p[1];
            p += 2;
        }
        in = in || (c >= lo && c <= hi);
    }
    *hit = in != negate;
    return *p == ']' ? p + 1 : NULL;
}

bool glob_match(const char *pattern, const char *s)
{
    const char *star = NULL, *retry = NULL;

    /* Only the last star can need to be tried again, so the work is pattern x text at worst. */
    while (*s) {
        const char *next = pattern;
        bool hit = false;

        if (*pattern == '*') {
            star = ++pattern;
            retry = s;
            continue;
        }
        if (*pattern == '?') {
            hit = true;
            next = pattern + 1;
        } else if (*pattern == '[') {
            next = glob_set(pattern + 1, (unsigned char)*s, &hit);
            if (!next) {
                hit = *s == '[';
                next = pattern + 1;
            }
        } else if (*pattern) {
            hit = *pattern == *s;
            next = pattern + 1;
        }
        if (hit) {
            pattern = next;
            s++;
        } else if (star) {
            pattern = star;
            s = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

bool tool_pattern_match(const char *pattern, const char *tool)
{
    size_t n = strlen(pattern);

    if (n == 1 && pattern[0] == '*')
        return true;
    if (n >= 2 && pattern[n - 1] == '*' && pattern[n - 2] == '/')
        return strncmp(pattern, tool, n - 1) == 0 && tool[n - 1];
    return strcmp(pattern, tool) == 0;
}
