/*
 * Trees of json-c values. Text is validated first (json_scan.c), then built by the small recursive
 * reader below, which can trust what it reads: json-c's own reader accepts malformed text, and
 * turns integers beyond 64 bits into the largest one.
 */
#include "common/base/json.h"

#include <errno.h>
#include <json-c/printbuf.h>
#include <math.h>
#include <stdarg.h>

#include "common/base/err.h"

/* --- reading ------------------------------------------------------------------------------------
 */

struct reader {
    const char *p;
    const char *end;
};

static void skip(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
        r->p++;
}

/* The string at the opening quote, unescaped: into small if it fits, else allocated. */
static char *read_string(struct reader *r, char *small, size_t size, size_t *ret_len)
{
    const char *body = ++r->p, *q = body;

    while (*q != '"')
        q += *q == '\\' ? 2 : 1;
    size_t len = (size_t)(q - body);
    char *out = len < size ? small : xmalloc(len + 1);
    *ret_len = json_unescape(body, len, out);
    out[*ret_len] = '\0';
    r->p = q + 1;
    return out;
}

static json_object *read_number(struct reader *r)
{
    char small[64];
    size_t n = 0;
    json_object *o = NULL;

    while (r->p + n < r->end && strchr("+-.0123456789Ee", r->p[n]))
        n++;
    char *text = n < sizeof(small) ? small : xmalloc(n + 1);
    memcpy(text, r->p, n);
    text[n] = '\0';
    r->p += n;
    if (!strpbrk(text, ".eE")) {
        errno = 0;
        long long v = strtoll(text, NULL, 10);
        if (!errno)
            o = json_object_new_int64(v);
    }
    /* the text is kept, so that a number goes out as it came in */
    if (!o)
        o = json_object_new_double_s(strtod(text, NULL), text);
    if (text != small)
        free(text);
    return o;
}

static int read_value(struct reader *r, json_object **ret);

static int read_object(struct reader *r, json_object **ret)
{
    json_object *o = *ret = json_new();

    r->p++;
    for (skip(r); *r->p != '}'; skip(r)) {
        char small[128];
        size_t len;
        json_object *v = NULL;

        if (*r->p == ',') {
            r->p++;
            skip(r);
        }
        char *name = read_string(r, small, sizeof(small), &len);
        /* names are C strings in the tree: a NUL in one (legal JSON) is shown as U+FFFD, and must
         * not make it equal to another member */
        bool nul = strlen(name) != len;
        if (nul) {
            struct buf b = BUF_INIT(len * 3 + 1);

            for (size_t i = 0; i < len; i++)
                buf_adds(&b, name[i] ? (char[]){ name[i], '\0' } : "\xEF\xBF\xBD");
            if (name != small)
                free(name);
            name = buf_take(&b);
        }
        skip(r);
        r->p++;
        int e = read_value(r, &v);
        if (!e && nul && json_object_object_get_ex(o, name, NULL))
            e = ERR_PARSE;
        if (e)
            json_put(v);
        else
            json_object_object_add_ex(o, name, v, nul ? 0 : JSON_C_OBJECT_ADD_KEY_IS_NEW);
        if (name != small)
            free(name);
        if (e)
            return e;
    }
    r->p++;
    return 0;
}

static int read_array(struct reader *r, json_object **ret)
{
    json_object *a = *ret = json_new_arr();

    r->p++;
    for (skip(r); *r->p != ']'; skip(r)) {
        json_object *v = NULL;

        if (*r->p == ',')
            r->p++;
        int e = read_value(r, &v);
        if (e) {
            json_put(v);
            return e;
        }
        json_push(a, v);
    }
    r->p++;
    return 0;
}

/* Depth is bounded: the text has passed json_check. */
static int read_value(struct reader *r, json_object **ret)
{
    char small[256], *s;
    size_t len;

    skip(r);
    switch (*r->p) {
    case '{':
        return read_object(r, ret);
    case '[':
        return read_array(r, ret);
    case '"':
        s = read_string(r, small, sizeof(small), &len);
        *ret = json_object_new_string_len(s, (int)len);
        if (s != small)
            free(s);
        return 0;
    case 't':
    case 'f':
        *ret = json_object_new_boolean(*r->p == 't');
        r->p += *r->p == 't' ? 4 : 5;
        return 0;
    case 'n':
        *ret = NULL;
        r->p += 4;
        return 0;
    default:
        *ret = read_number(r);
        return 0;
    }
}

int json_parse(const char *data, size_t len, json_object **ret)
{
    struct reader r = { data, data + len };
    json_object *o = NULL;
    int e = len > INT32_MAX ? ERR_PARSE : json_check(data, len);

    if (!e)
        e = read_value(&r, &o);
    if (e) {
        json_put(o);
        return e;
    }
    *ret = o;
    return 0;
}

void json_put(json_object *o)
{
    json_object_put(o);
}

void json_putp(json_object **o)
{
    json_object_put(*o);
}

/* --- writing ------------------------------------------------------------------------------------
 */

const char *json_text(json_object *o)
{
    return json_object_to_json_string_ext(o,
                                          JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

static int name_order(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

static void canonical(struct buf *b, json_object *o)
{
    if (json_object_is_type(o, json_type_array)) {
        buf_addc(b, '[');
        for (size_t i = 0, n = json_object_array_length(o); i < n; i++) {
            if (i)
                buf_addc(b, ',');
            canonical(b, json_object_array_get_idx(o, i));
        }
        buf_addc(b, ']');
    } else if (json_object_is_type(o, json_type_object)) {
        size_t n = (size_t)json_object_object_length(o), i = 0;
        cleanup(freep) const char **names = xcalloc(n, sizeof(*names));

        json_object_object_foreach (o, key, val) {
            (void)val;
            names[i++] = key;
        }
        qsort(names, n, sizeof(*names), name_order);
        buf_addc(b, '{');
        for (i = 0; i < n; i++) {
            if (i)
                buf_addc(b, ',');
            buf_add_json_str(b, names[i], strlen(names[i]));
            buf_addc(b, ':');
            canonical(b, json_object_object_get(o, names[i]));
        }
        buf_addc(b, '}');
    } else if (json_object_is_type(o, json_type_string)) {
        buf_add_json_str(b, json_object_get_string(o), (size_t)json_object_get_string_len(o));
    } else {
        buf_adds(b, json_text(o));
    }
}

char *json_canonical(json_object *o)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);

    canonical(&b, o);
    return buf_take(&b);
}

/* --- getters ------------------------------------------------------------------------------------
 */

json_object *json_get(json_object *o, const char *key)
{
    json_object *v = NULL;

    return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) ? v
                                                                                             : NULL;
}

static json_object *typed(json_object *o, const char *key, enum json_type type)
{
    json_object *v = json_get(o, key);

    return v && json_object_is_type(v, type) ? v : NULL;
}

const char *json_str(json_object *o, const char *key, const char *dflt)
{
    json_object *v = typed(o, key, json_type_string);

    if (!v)
        return dflt;
    const char *s = json_object_get_string(v);
    return strlen(s) == (size_t)json_object_get_string_len(v) ? s : dflt;
}

int64_t json_int(json_object *o, const char *key, int64_t dflt)
{
    json_object *v = typed(o, key, json_type_int);

    return v ? json_object_get_int64(v) : dflt;
}

bool json_flag(json_object *o, const char *key, bool dflt)
{
    json_object *v = typed(o, key, json_type_boolean);

    return v ? json_object_get_boolean(v) : dflt;
}

double json_num(json_object *o, const char *key, double dflt)
{
    json_object *v = json_get(o, key);
    bool num = json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int);

    return v && num ? json_object_get_double(v) : dflt;
}

json_object *json_arr(json_object *o, const char *key)
{
    return typed(o, key, json_type_array);
}

json_object *json_obj(json_object *o, const char *key)
{
    return typed(o, key, json_type_object);
}

bool json_arr_has(json_object *arr, const char *s)
{
    if (!json_object_is_type(arr, json_type_array))
        return false;
    for (size_t i = 0, n = json_object_array_length(arr); i < n; i++) {
        json_object *v = json_object_array_get_idx(arr, i);

        if (json_object_is_type(v, json_type_string) &&
            (size_t)json_object_get_string_len(v) == strlen(s) &&
            strcmp(json_object_get_string(v), s) == 0)
            return true;
    }
    return false;
}

/* --- builders -----------------------------------------------------------------------------------
 */

static void *sure(void *p)
{
    if (!p)
        abort();
    return p;
}

json_object *json_new(void)
{
    return sure(json_object_new_object());
}

json_object *json_new_arr(void)
{
    return sure(json_object_new_array());
}

void json_add(json_object *o, const char *key, json_object *v)
{
    if (json_object_object_add(o, key, v))
        abort();
}

static json_object *new_str(const char *s)
{
    return s ? sure(json_object_new_string(s)) : NULL;
}

/* The shortest decimal that reads back as the same double. */
static int double_text(json_object *o, struct printbuf *pb, int level, int flags)
{
    double v = json_object_get_double(o);
    char s[40];
    int n = 0;

    (void)level;
    (void)flags;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(s, sizeof(s) - 2, "%.*g", digits, v);
        if (strtod(s, NULL) == v)
            break;
    }
    if (!strpbrk(s, ".e")) { /* stays a double when it is read again */
        memcpy(s + n, ".0", 3);
        n += 2;
    }
    return printbuf_memappend(pb, s, n);
}

json_object *json_new_double(double v, void *userdata)
{
    if (!isfinite(v))
        return NULL;
    json_object *o = sure(json_object_new_double(v));
    json_object_set_serializer(o, double_text, userdata, NULL);
    return o;
}

void json_add_str(json_object *o, const char *key, const char *s)
{
    json_add(o, key, new_str(s));
}

void json_add_int(json_object *o, const char *key, int64_t v)
{
    json_add(o, key, sure(json_object_new_int64(v)));
}

void json_add_bool(json_object *o, const char *key, bool v)
{
    json_add(o, key, sure(json_object_new_boolean(v)));
}

void json_add_num(json_object *o, const char *key, double v)
{
    json_add(o, key, json_new_double(v, NULL));
}

void json_push(json_object *arr, json_object *v)
{
    if (json_object_array_add(arr, v))
        abort();
}

void json_push_str(json_object *arr, const char *s)
{
    json_push(arr, new_str(s));
}

json_object *json_make(const char *fmt, ...)
{
    json_object *o = json_new();
    va_list ap;

    va_start(ap, fmt);
    for (const char *p = fmt + strspn(fmt, " "); *p; p += strspn(p, " ")) {
        char key[64];
        size_t n = strcspn(p, ":");

        if (n >= sizeof(key) || !p[n])
            abort();
        memcpy(key, p, n);
        key[n] = '\0';
        p += n + 1;
        switch (*p++) {
        case 's':
            json_add_str(o, key, va_arg(ap, const char *));
            break;
        case 'i':
            json_add_int(o, key, va_arg(ap, int64_t));
            break;
        case 'b':
            json_add_bool(o, key, va_arg(ap, int));
            break;
        case 'd':
            json_add_num(o, key, va_arg(ap, double));
            break;
        case 'o':
            json_add(o, key, va_arg(ap, json_object *));
            break;
        default:
            abort();
        }
    }
    va_end(ap);
    return o;
}

/* Lines of YAML values travel with a copy (yaml.c: userdata with the lowest bit set is a line). */
static void copy_line(json_object *from, json_object *to)
{
    void *u = json_object_get_userdata(from);

    if ((uintptr_t)u & 1)
        json_object_set_userdata(to, u, NULL);
}

json_object *json_dup(json_object *o)
{
    json_object *c = NULL;
    void *u;

    switch (json_object_get_type(o)) {
    case json_type_null:
        return NULL;
    case json_type_boolean:
        c = json_object_new_boolean(json_object_get_boolean(o));
        break;
    case json_type_int:
        c = json_object_new_int64(json_object_get_int64(o));
        break;
    case json_type_double:
        u = json_object_get_userdata(o);
        if ((uintptr_t)u & 1 || !u)
            return json_new_double(json_object_get_double(o), u);
        return sure(json_object_new_double_s(json_object_get_double(o), u));
    case json_type_string:
        c = json_object_new_string_len(json_object_get_string(o), json_object_get_string_len(o));
        break;
    case json_type_array:
        c = json_new_arr();
        for (size_t i = 0, n = json_object_array_length(o); i < n; i++)
            json_push(c, json_dup(json_object_array_get_idx(o, i)));
        break;
    case json_type_object:
        c = json_new();
        json_object_object_foreach (o, key, val) {
            if (json_object_object_add_ex(c, key, json_dup(val), JSON_C_OBJECT_ADD_KEY_IS_NEW))
                abort();
        }
        break;
    }
    copy_line(o, sure(c));
    return c;
}
