/* What can be said about data instead of prose: tables, JSON, logs. */
#include <ctype.h>

#include "llmsvc/bi.h"

#define COLUMNS_MAX 32
#define KEYS_MAX    24

struct column {
    char name[64];
    double min, max, sum;
    size_t numbers, empty;
    char first[64];  /* the first values, to tell a constant from a mix */
    size_t distinct; /* 1 or more than 1 */
};

/* Next field of a row at *p, unquoted into out; false at the end of the row (*p is behind it). */
static bool field(const char **p, const char *end, char sep, char out[128], bool *more)
{
    size_t n = 0;
    const char *s = *p;
    bool quote = s < end && *s == '"';

    *more = false;
    s += quote;
    for (; s < end; s++) {
        if (quote && *s == '"') {
            if (s + 1 < end && s[1] == '"')
                s++;
            else {
                quote = false;
                continue;
            }
        } else if (!quote && (*s == sep || *s == '\n')) {
            break;
        }
        if (n < 127 && *s != '\r')
            out[n++] = *s;
    }
    out[n] = '\0';
    *more = s < end && *s == sep;
    bool row_over = s >= end || *s == '\n';
    *p = s < end ? s + 1 : s;
    return !row_over;
}

static void value(struct column *c, const char *v)
{
    char *end = NULL;
    double d = strtod(v, &end);

    if (!*v) {
        c->empty++;
        return;
    }
    if (!c->distinct) {
        str_copy(c->first, sizeof c->first, v);
        c->distinct = 1;
    } else if (c->distinct == 1 && strncmp(c->first, v, sizeof c->first - 1) != 0) {
        c->distinct = 2;
    }
    if (end == v || *end)
        return;
    if (!c->numbers || d < c->min)
        c->min = d;
    if (!c->numbers || d > c->max)
        c->max = d;
    c->sum += d;
    c->numbers++;
}

static void write_column(const struct column *c, size_t rows, struct buf *out)
{
    char a[40], b[40], m[40];

    buf_printf(out, "- %s: ", *c->name ? c->name : "(no name)");
    if (c->numbers && c->numbers + c->empty == rows) {
        bi_number(c->min, a);
        bi_number(c->max, b);
        bi_number(c->sum / (double)c->numbers, m);
        buf_printf(out, "numbers from %s to %s, mean %s", a, b, m);
    } else if (c->distinct == 1) {
        buf_printf(out, "always \"%s\"", c->first);
    } else {
        buf_printf(out, "text, for example \"%s\"", c->first);
    }
    if (c->empty)
        buf_printf(out, ", %zu empty", c->empty);
    buf_addc(out, '\n');
}

static bool table(const struct source *s, char sep, struct buf *out)
{
    struct column col[COLUMNS_MAX];
    const char *p = s->text, *end = s->text + s->len;
    size_t n = 0, rows = 0;
    bool more = true;
    char v[128];

    memset(col, 0, sizeof col);
    for (bool in_row = true; in_row && p < end;) {
        in_row = field(&p, end, sep, v, &more);
        if (n < COLUMNS_MAX)
            str_copy(col[n++].name, sizeof col[0].name, v);
    }
    while (p < end) {
        size_t k = 0;
        bool blank = *p == '\n';

        for (bool in_row = true; in_row && p <= end; k++) {
            in_row = field(&p, end, sep, v, &more);
            if (k < n && !blank)
                value(&col[k], v);
        }
        rows += !blank;
    }
    if (n < 2)
        return false;
    buf_printf(out, "- A table of %zu rows and %zu columns (%s:1)\n", rows, n, s->path);
    for (size_t i = 0; i < n; i++)
        write_column(&col[i], rows, out);
    return true;
}

static const char *type_word(json_object *o)
{
    switch (json_object_get_type(o)) {
    case json_type_object:
        return "object";
    case json_type_array:
        return "list";
    case json_type_string:
        return "text";
    case json_type_int:
    case json_type_double:
        return "number";
    case json_type_boolean:
        return "true or false";
    case json_type_null:
        break;
    }
    return "null";
}

static void json_value(const char *key, json_object *o, struct buf *out)
{
    buf_printf(out, "- %.60s: %s", key, type_word(o));
    if (json_object_is_type(o, json_type_array))
        buf_printf(out, " of %zu", json_object_array_length(o));
    else if (json_object_is_type(o, json_type_object))
        buf_printf(out, " with %d keys", json_object_object_length(o));
    else if (o)
        buf_printf(out, " (%.80s)", json_object_get_string(o));
    buf_addc(out, '\n');
}

static bool json_doc(const struct source *s, struct buf *out)
{
    cleanup(json_putp) json_object *o = NULL;
    size_t n = 0;

    if (json_parse(s->text, s->len, &o) ||
        (!json_object_is_type(o, json_type_object) && !json_object_is_type(o, json_type_array)))
        return false;
    json_object *row = o;
    if (json_object_is_type(o, json_type_array)) {
        size_t len = json_object_array_length(o);

        row = len ? json_object_array_get_idx(o, 0) : NULL;
        buf_printf(out, "- A list of %zu entries (%s:1)\n", len, s->path);
        if (!json_object_is_type(row, json_type_object))
            return true;
        buf_adds(out, "- The first entry:\n");
    } else {
        buf_printf(out, "- An object with %d keys (%s:1)\n", json_object_object_length(o), s->path);
    }
    json_object_object_foreach (row, key, v) {
        if (n++ == KEYS_MAX)
            break;
        json_value(key, v, out);
    }
    return true;
}

static bool has_level(const char *s, size_t n, const char *level)
{
    size_t k = strlen(level);

    for (size_t i = 0; i + k <= n; i++)
        if (!strncasecmp(s + i, level, k) && (i == 0 || !isalpha((unsigned char)s[i - 1])) &&
            (i + k == n || !isalpha((unsigned char)s[i + k])))
            return true;
    return false;
}

static bool log_doc(const struct source *s, struct buf *out)
{
    static const char *const levels[] = { "error", "warn",  "warning", "info",
                                          "debug", "fatal", "critical" };
    size_t count[N_ELEMS(levels)] = { 0 }, lines = 0, shown = 0;
    cleanup(buf_done) struct buf bad = BUF_INIT(65536);
    const char *end = s->text + s->len, *first = s->text, *last = s->text;

    for (const char *p = s->text; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p);

        lines += n > 0;
        last = n ? p : last;
        for (size_t i = 0; i < N_ELEMS(levels); i++)
            if (has_level(p, n, levels[i])) {
                count[i]++;
                if ((i == 0 || i >= 5) && shown < 3) {
                    buf_printf(&bad, "- %.*s (%s:%zu)\n", n > 200 ? 200 : (int)n, p, s->path,
                               lines);
                    shown++;
                }
                break;
            }
        p += n + 1;
    }
    buf_printf(out, "- A log of %zu lines (%s:1)\n- Levels:", lines, s->path);
    bool any = false;
    for (size_t i = 0; i < N_ELEMS(levels); i++)
        if (count[i]) {
            buf_printf(out, " %s %zu", levels[i], count[i]);
            any = true;
        }
    buf_adds(out, any ? "\n" : " none named\n");
    if (bad.len)
        buf_add(out, bad.data, bad.len);
    buf_printf(out, "- First: %.*s\n- Last: %.*s\n", (int)strcspn(first, "\n"), first,
               (int)strcspn(last, "\n"), last);
    return true;
}

bool bi_data(const struct source *s, struct buf *out)
{
    if (!s->path || !s->len)
        return false;
    if (str_ends(s->path, ".csv"))
        return table(s, ',', out);
    if (str_ends(s->path, ".tsv"))
        return table(s, '\t', out);
    if (str_ends(s->path, ".json"))
        return json_doc(s, out);
    return str_ends(s->path, ".log") && log_doc(s, out);
}
