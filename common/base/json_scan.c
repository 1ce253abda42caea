/*
 * One pass over JSON text with a stack of at most 64 containers, no recursion and no tree: the
 * validator behind json_check, json_scan and json_parse.
 *
 * Duplicate names: each object keeps a 64-bit set of its names' hashes. Only when a bit is hit
 * twice (always so in large objects) are the names compared when the object closes: pairwise if
 * they are few, else sorted by (hash, text). Sorting by the text as well bounds the work for names
 * that are made to collide. Names are compared unescaped, so "a" and "\u0061" are the same member.
 */
#include "common/base/err.h"
#include "common/base/json.h"

#define NAMES_FIXED 256 /* on the stack; more go to the heap */
#define NAMES_FEW   16

struct name {
    uint32_t hash, at, len;
    bool escaped;
};

struct level {
    uint32_t first; /* index of the object's first name */
    bool object, suspect;
    uint64_t seen;
};

struct scan {
    const unsigned char *p, *end, *base;
    struct name *names;
    size_t n_names, cap_names;
    int depth;
    struct level levels[JSON_DEPTH];
    struct name fixed[NAMES_FIXED];
};

static int hex4(const unsigned char *p)
{
    int v = 0;

    for (int i = 0; i < 4; i++) {
        int c = p[i], d;

        if (c >= '0' && c <= '9')
            d = c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (c | 32) - 'a' + 10;
        else
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* The character of the escape at p (behind the backslash), moving p behind it; -1 if malformed. */
static int32_t escape_read(const unsigned char **p, const unsigned char *end)
{
    static const char pairs[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    const unsigned char *q = *p;

    if (q == end)
        return -1;
    if (*q != 'u') {
        for (size_t i = 0; i < sizeof(pairs) - 1; i += 2)
            if ((unsigned char)pairs[i] == *q) {
                *p = q + 1;
                return pairs[i + 1];
            }
        return -1;
    }
    if (end - q < 5)
        return -1;
    int32_t c = hex4(q + 1);
    q += 5;
    if (c >= 0xD800 && c <= 0xDBFF) {
        int lo = end - q >= 6 && q[0] == '\\' && q[1] == 'u' ? hex4(q + 2) : -1;

        if (lo < 0xDC00 || lo > 0xDFFF)
            return -1;
        c = 0x10000 + ((c - 0xD800) << 10) + (lo - 0xDC00);
        q += 6;
    } else if (c >= 0xDC00 && c <= 0xDFFF) {
        return -1;
    }
    *p = q;
    return c;
}

static size_t utf8_put(int32_t c, unsigned char out[4])
{
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (unsigned char)(0x80 | (c & 0x3F));
    out[0] = (unsigned char)((0xF00 >> n & 0xFF) | c);
    return n;
}

/* Next bytes of a valid string body as UTF-8: 1..4 bytes into out, 0 at its end. */
static size_t unescape_next(const unsigned char **p, const unsigned char *end, unsigned char out[4])
{
    if (*p == end)
        return 0;
    if (**p != '\\') {
        out[0] = *(*p)++;
        return 1;
    }
    (*p)++;
    int32_t c = escape_read(p, end);
    return c < 0 ? 0 : utf8_put(c, out);
}

size_t json_unescape(const char *body, size_t len, char *out)
{
    const unsigned char *p = (const unsigned char *)body, *end = p + len;
    unsigned char u[4];
    size_t o = 0, n;

    while (p < end) {
        const unsigned char *run = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((run ? run : end) - p);

        memcpy(out + o, p, plain);
        o += plain;
        p += plain;
        if ((n = unescape_next(&p, end, u)) == 0)
            break;
        memcpy(out + o, u, n);
        o += n;
    }
    return o;
}

static bool hit8(uint64_t w)
{
    /* any byte that is below 0x20, '"', '\\' or not ASCII */
    const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
    uint64_t q = w ^ (ones * '"'), b = w ^ (ones * '\\');

    return ((w - ones * 0x20) | (q - ones) | (b - ones) | w) & tops;
}

/* p behind the opening quote; on success behind the closing one. */
static bool string_read(struct scan *s, bool *escaped)
{
    const unsigned char *p = s->p, *end = s->end;

    *escaped = false;
    for (;;) {
        uint64_t w;

        while (end - p >= 8 && (memcpy(&w, p, 8), !hit8(w)))
            p += 8;
        if (p == end)
            return false;
        unsigned char c = *p;
        if (c == '"') {
            s->p = p + 1;
            return true;
        }
        if (c < 0x20)
            return false;
        if (c == '\\') {
            *escaped = true;
            p++;
            if (escape_read(&p, end) < 0)
                return false;
        } else if (c < 0x80) {
            p++;
        } else {
            size_t n = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;

            if ((size_t)(end - p) < n || !utf8_valid((const char *)p, n))
                return false;
            p += n;
        }
    }
}

static bool number_read(struct scan *s)
{
    const unsigned char *p = s->p, *end = s->end;
#define DIGIT (p < end && *p >= '0' && *p <= '9')

    if (p < end && *p == '-')
        p++;
    if (!DIGIT)
        return false;
    if (*p++ != '0')
        while (DIGIT)
            p++;
    if (p < end && *p == '.') {
        p++;
        if (!DIGIT)
            return false;
        while (DIGIT)
            p++;
    }
    if (p < end && (*p | 32) == 'e') {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        if (!DIGIT)
            return false;
        while (DIGIT)
            p++;
    }
#undef DIGIT
    s->p = p;
    return true;
}

static bool word_read(struct scan *s, const char *word, size_t n)
{
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

static uint32_t name_hash(const unsigned char *p, size_t len, bool escaped)
{
    const unsigned char *end = p + len;
    uint32_t h = 2166136261U;
    unsigned char u[4];
    size_t n;

    if (!escaped) {
        for (; p < end; p++)
            h = (h ^ *p) * 16777619U;
    } else {
        while ((n = unescape_next(&p, end, u)) != 0)
            for (size_t i = 0; i < n; i++)
                h = (h ^ u[i]) * 16777619U;
    }
    return h ^ h >> 15;
}

/* Order of two names by unescaped text; 0 means the same member. */
static int name_cmp(const unsigned char *base, const struct name *a, const struct name *b)
{
    const unsigned char *p = base + a->at, *pe = p + a->len, *q = base + b->at, *qe = q + b->len;
    unsigned char u[4], v[4];
    size_t nu = 0, nv = 0, iu = 0, iv = 0;

    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    for (;;) {
        if (iu == nu) {
            nu = unescape_next(&p, pe, u);
            iu = 0;
        }
        if (iv == nv) {
            nv = unescape_next(&q, qe, v);
            iv = 0;
        }
        if (!nu || !nv)
            return (nu != 0) - (nv != 0);
        if (u[iu] != v[iv])
            return u[iu] < v[iv] ? -1 : 1;
        iu++;
        iv++;
    }
}

static int name_cmp_qsort(const void *a, const void *b, void *base)
{
    return name_cmp(base, a, b);
}

/* The object that closes has two members of one name. */
static bool has_twins(struct scan *s, const struct level *l)
{
    struct name *n = s->names + l->first;
    size_t count = s->n_names - l->first;

    if (count <= NAMES_FEW) {
        for (size_t i = 1; i < count; i++)
            for (size_t j = 0; j < i; j++)
                if (n[i].hash == n[j].hash && name_cmp(s->base, &n[i], &n[j]) == 0)
                    return true;
        return false;
    }
    qsort_r(n, count, sizeof(*n), name_cmp_qsort, (void *)(uintptr_t)s->base);
    for (size_t i = 1; i < count; i++)
        if (name_cmp(s->base, &n[i - 1], &n[i]) == 0)
            return true;
    return false;
}

static void name_push(struct scan *s, struct level *l, const unsigned char *at, size_t len,
                      bool escaped)
{
    if (s->n_names == s->cap_names) {
        size_t cap = s->cap_names * 2;

        if (s->names == s->fixed) {
            s->names = xmalloc(cap * sizeof(*s->names));
            memcpy(s->names, s->fixed, sizeof(s->fixed));
        } else {
            s->names = xrealloc(s->names, cap * sizeof(*s->names));
        }
        s->cap_names = cap;
    }
    uint32_t h = name_hash(at, len, escaped);
    uint64_t bit = 1ULL << (h >> 26);
    l->suspect = l->suspect || (l->seen & bit);
    l->seen |= bit;
    s->names[s->n_names++] = (struct name){ h, (uint32_t)(at - s->base), (uint32_t)len, escaped };
}

static void blanks(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static bool open_level(struct scan *s, bool object)
{
    if (s->depth == JSON_DEPTH)
        return false;
    s->levels[s->depth++] = (struct level){ .first = (uint32_t)s->n_names, .object = object };
    s->p++;
    return true;
}

/* Reads `"name" :`; the name (between the quotes) in *at, *len. */
static bool member_read(struct scan *s, const unsigned char **at, size_t *len, bool *escaped)
{
    blanks(s);
    if (s->p == s->end || *s->p != '"')
        return false;
    *at = ++s->p;
    if (!string_read(s, escaped))
        return false;
    *len = (size_t)(s->p - 1 - *at);
    name_push(s, &s->levels[s->depth - 1], *at, *len, *escaped);
    blanks(s);
    if (s->p == s->end || *s->p != ':')
        return false;
    s->p++;
    return true;
}

struct wanted {
    const char *const *names;
    struct json_slice *out;
    size_t n;
};

static struct json_slice *wanted_find(const struct wanted *w, const unsigned char *at, size_t len,
                                      bool escaped)
{
    char plain[128];

    if (escaped) {
        if (len >= sizeof(plain))
            return NULL;
        len = json_unescape((const char *)at, len, plain);
        at = (const unsigned char *)plain;
    }
    for (size_t i = 0; i < w->n; i++)
        if (strlen(w->names[i]) == len && memcmp(w->names[i], at, len) == 0)
            return &w->out[i];
    return NULL;
}

static bool scalar_read(struct scan *s)
{
    bool escaped;

    switch (*s->p) {
    case '"':
        s->p++;
        return string_read(s, &escaped);
    case 't':
        return word_read(s, "true", 4);
    case 'f':
        return word_read(s, "false", 5);
    case 'n':
        return word_read(s, "null", 4);
    default:
        return number_read(s);
    }
}

static bool close_level(struct scan *s)
{
    struct level *l = &s->levels[s->depth - 1];

    if (l->suspect && has_twins(s, l))
        return false;
    s->n_names = l->first;
    s->depth--;
    s->p++;
    return true;
}

static bool run(struct scan *s, const struct wanted *w)
{
    struct json_slice *slot = NULL; /* the top-level member being read, if it is wanted */
    const unsigned char *slot_at = NULL, *at;
    size_t len;
    bool fresh, escaped; /* fresh: the container has just been opened */

value:
    blanks(s);
    if (s->p == s->end)
        return false;
    if (slot && s->depth == 1)
        slot_at = s->p;
    fresh = false;
    if (*s->p == '{' || *s->p == '[') {
        if (!open_level(s, *s->p == '{'))
            return false;
        fresh = true;
    } else if (!scalar_read(s)) {
        return false;
    }
    for (;;) {
        if (s->depth == 1 && slot && !fresh) {
            *slot = (struct json_slice){ (const char *)slot_at, (size_t)(s->p - slot_at) };
            slot = NULL;
        }
        blanks(s);
        if (s->depth == 0)
            return s->p == s->end;
        if (s->p == s->end)
            return false;
        bool object = s->levels[s->depth - 1].object;
        if (*s->p == (object ? '}' : ']')) {
            if (!close_level(s))
                return false;
            fresh = false;
            continue;
        }
        if (!fresh && *s->p++ != ',')
            return false;
        if (!object)
            goto value;
        if (!member_read(s, &at, &len, &escaped))
            return false;
        if (w && s->depth == 1)
            slot = wanted_find(w, at, len, escaped);
        goto value;
    }
}

static int scan(const char *data, size_t len, const struct wanted *w)
{
    struct scan s;

    if (len >= UINT32_MAX)
        return ERR_PARSE;
    s.base = s.p = (const unsigned char *)data;
    s.end = s.p + len;
    s.names = s.fixed;
    s.n_names = 0;
    s.cap_names = NAMES_FIXED;
    s.depth = 0;
    bool ok = run(&s, w);
    if (s.names != s.fixed)
        free(s.names);
    return ok ? 0 : ERR_PARSE;
}

int json_check(const char *data, size_t len)
{
    return scan(data, len, NULL);
}

int json_scan(const char *data, size_t len, const char *const *names, struct json_slice *out,
              size_t n)
{
    struct wanted w = { names, out, n };
    size_t i = 0;

    memset(out, 0, n * sizeof(*out));
    int r = scan(data, len, &w);
    while (!r && strchr(" \t\r\n", data[i]))
        i++;
    return r ? r : data[i] == '{' ? 0 : ERR_REQUEST;
}

bool json_slice_str(struct json_slice s, char *out, size_t size)
{
    if (s.len < 2 || s.at[0] != '"')
        return false;
    const unsigned char *p = (const unsigned char *)s.at + 1, *end = p + s.len - 2;
    unsigned char u[4];
    size_t o = 0, n;

    while ((n = unescape_next(&p, end, u)) != 0) {
        if (u[0] == '\0' || o + n >= size)
            return false;
        memcpy(out + o, u, n);
        o += n;
    }
    if (o >= size)
        return false;
    out[o] = '\0';
    return true;
}
