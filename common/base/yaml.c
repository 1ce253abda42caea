/*
 * YAML by libyaml's event reader into json-c values. What makes YAML dangerous or surprising is
 * refused (aliases, tags, several documents, duplicate keys) instead of interpreted.
 *
 * A value's line is kept as the json-c user data (line << 1 | 1): odd, so it cannot be taken for
 * the pointer json-c keeps there for numbers that came from JSON text. Null values have no object
 * and so no line.
 */
#include "common/base/yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <yaml.h>

#include "common/base/err.h"
#include "common/base/fsx.h"

#define YAML_DEPTH 32
#define YAML_NODES 100000

struct reader {
    yaml_parser_t parser;
    struct yaml_err *e;
    int depth, nodes;
};

static int fail(struct yaml_err *e, int line, const char *fmt, ...) printf_like(3, 4);
static int fail(struct yaml_err *e, int line, const char *fmt, ...)
{
    va_list ap;

    e->line = line;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    return ERR_CONFIG;
}

static void *line_tag(int line)
{
    return (void *)((uintptr_t)line << 1 | 1); // NOLINT: a number kept in a pointer
}

static int event_next(struct reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->parser, ev))
        return 0;
    size_t line = r->parser.problem_mark.line;
    return fail(r->e, (int)line + 1, "%s%s%s",
                r->parser.problem ? r->parser.problem : "not readable as YAML",
                r->parser.context ? ", " : "", r->parser.context ? r->parser.context : "");
}

static size_t span_digits(const char *s)
{
    return strspn(s, "0123456789");
}

/* The number forms of JSON, but for a fraction that may be empty. 1 integer, 2 float, 0 neither. */
static int number_form(const char *s)
{
    bool is_float = false;

    s += *s == '-';
    size_t n = span_digits(s);
    if (!n || (n > 1 && *s == '0'))
        return 0;
    s += n;
    if (*s == '.') {
        is_float = true;
        s++;
        s += span_digits(s);
    }
    if (*s == 'e' || *s == 'E') {
        is_float = true;
        s++;
        s += *s == '+' || *s == '-';
        n = span_digits(s);
        if (!n)
            return 0;
        s += n;
    }
    return *s ? 0 : is_float ? 2 : 1;
}

static json_object *scalar_value(const char *s, size_t len, bool plain)
{
    int64_t v;
    int form = 0;

    if (plain && strlen(s) == len) {
        if (len == 0 || strcmp(s, "null") == 0)
            return NULL;
        if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
            return json_object_new_boolean(*s == 't');
        form = number_form(s);
    }
    if (form == 1 && parse_i64(s, INT64_MIN, INT64_MAX, &v))
        return json_object_new_int64(v);
    if (form) {
        json_object *d = json_new_double(strtod(s, NULL), NULL);

        if (d)
            return d;
    }
    return json_object_new_string_len(s, (int)len);
}

static int read_node(struct reader *r, yaml_event_t *ev, json_object **ret);

static int read_sequence(struct reader *r, json_object *arr)
{
    for (;;) {
        cleanup(yaml_event_delete) yaml_event_t ev = { 0 };
        json_object *v = NULL;
        int e = event_next(r, &ev);

        if (e || ev.type == YAML_SEQUENCE_END_EVENT)
            return e;
        e = read_node(r, &ev, &v);
        if (e) {
            json_put(v);
            return e;
        }
        json_push(arr, v);
    }
}

static int read_mapping(struct reader *r, json_object *map)
{
    for (;;) {
        cleanup(yaml_event_delete) yaml_event_t key = { 0 };
        cleanup(yaml_event_delete) yaml_event_t ev = { 0 };
        json_object *v = NULL;
        int e = event_next(r, &key), line = (int)key.start_mark.line + 1;

        if (e || key.type == YAML_MAPPING_END_EVENT)
            return e;
        if (key.type != YAML_SCALAR_EVENT || key.data.scalar.anchor || key.data.scalar.tag)
            return fail(r->e, line, "a key must be plain text");
        const char *name = (const char *)key.data.scalar.value;
        if (strlen(name) != key.data.scalar.length)
            return fail(r->e, line, "a key must not hold NUL");
        if (json_object_object_get_ex(map, name, NULL))
            return fail(r->e, line, "duplicate key '%.64s'", name);
        e = event_next(r, &ev);
        if (!e)
            e = read_node(r, &ev, &v);
        if (e) {
            json_put(v);
            return e;
        }
        json_add(map, name, v);
    }
}

static int read_node(struct reader *r, yaml_event_t *ev, json_object **ret)
{
    int line = (int)ev->start_mark.line + 1, e = 0;
    json_object *o = NULL;

    if (++r->nodes > YAML_NODES)
        return fail(r->e, line, "more than %d values", YAML_NODES);
    /* yaml_event_t's members by type; anything but the three kinds of node is refused */
    if (ev->type == YAML_ALIAS_EVENT)
        return fail(r->e, line, "aliases are not allowed");
    if (ev->type == YAML_SCALAR_EVENT) {
        if (ev->data.scalar.anchor || ev->data.scalar.tag)
            return fail(r->e, line, "anchors and tags are not allowed");
        o = scalar_value((const char *)ev->data.scalar.value, ev->data.scalar.length,
                         ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE);
    } else if (ev->type == YAML_SEQUENCE_START_EVENT || ev->type == YAML_MAPPING_START_EVENT) {
        bool seq = ev->type == YAML_SEQUENCE_START_EVENT;

        if (seq ? ev->data.sequence_start.anchor || ev->data.sequence_start.tag
                : ev->data.mapping_start.anchor || ev->data.mapping_start.tag)
            return fail(r->e, line, "anchors and tags are not allowed");
        if (++r->depth > YAML_DEPTH)
            return fail(r->e, line, "nested deeper than %d", YAML_DEPTH);
        o = seq ? json_new_arr() : json_new();
        e = seq ? read_sequence(r, o) : read_mapping(r, o);
        r->depth--;
    } else {
        return fail(r->e, line, "unexpected content");
    }
    if (o)
        json_object_set_userdata(o, line_tag(line), NULL);
    *ret = o;
    return e;
}

static int read_stream(struct reader *r, json_object **ret)
{
    bool seen = false;

    for (;;) {
        cleanup(yaml_event_delete) yaml_event_t ev = { 0 };
        int e = event_next(r, &ev), line = (int)ev.start_mark.line + 1;

        if (e)
            return e;
        if (ev.type == YAML_STREAM_END_EVENT)
            return seen ? 0 : fail(r->e, 0, "empty file");
        if (ev.type == YAML_STREAM_START_EVENT || ev.type == YAML_DOCUMENT_END_EVENT)
            continue;
        if (ev.type == YAML_DOCUMENT_START_EVENT) {
            if (seen)
                return fail(r->e, line, "more than one document");
            if (ev.data.document_start.tag_directives.start !=
                ev.data.document_start.tag_directives.end)
                return fail(r->e, line, "tags are not allowed");
            seen = true;
            continue;
        }
        e = read_node(r, &ev, ret);
        if (e)
            return e;
    }
}

int yaml_parse(const char *text, size_t len, json_object **ret, struct yaml_err *e)
{
    struct reader r = { .e = e };
    json_object *o = NULL;

    *e = (struct yaml_err){ 0 };
    if (len > YAML_MAX)
        return fail(e, 0, "larger than %d bytes", YAML_MAX);
    if (!utf8_valid(text, len))
        return fail(e, 0, "not UTF-8");
    if (!yaml_parser_initialize(&r.parser))
        return -ENOMEM;
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    int rc = read_stream(&r, &o);
    yaml_parser_delete(&r.parser);
    if (rc) {
        json_put(o);
        return rc;
    }
    *ret = o;
    return 0;
}

int yaml_load(const char *path, json_object **ret, struct yaml_err *e)
{
    cleanup(freep) char *text = NULL;
    size_t len;
    int r = file_read(path, YAML_MAX, &text, &len);

    *e = (struct yaml_err){ 0 };
    if (r == ERR_TOOBIG)
        return fail(e, 0, "larger than %d bytes", YAML_MAX);
    if (r) {
        snprintf(e->msg, sizeof(e->msg), "%s", strerror(-r));
        return r;
    }
    r = yaml_parse(text, len, ret, e);
    explicit_bzero(text, len);
    return r;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static bool plain_safe(const char *s, size_t len)
{
    static const char *const words[] = { "null", "true", "false", "yes", "no",  "on",
                                         "off",  "y",    "n",     "nan", "inf", NULL };
    static const char set[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/ .@+-";

    if (!len || strlen(s) != len || strspn(s, set) != len || s[len - 1] == ' ')
        return false;
    if (!((s[0] | 32) >= 'a' && (s[0] | 32) <= 'z') && s[0] != '/' && s[0] != '_')
        return false;
    for (int i = 0; words[i]; i++)
        if (strcasecmp(s, words[i]) == 0)
            return false;
    return true;
}

/* A JSON string, with every character escaped that a YAML reader takes for a line end or refuses.
 */
static void dump_str(struct buf *b, const char *s, size_t len)
{
    struct buf q = BUF_INIT(SIZE_MAX / 2);

    if (plain_safe(s, len)) {
        buf_add(b, s, len);
        return;
    }
    buf_add_json_str(&q, s, len);
    for (size_t i = 0; i < q.len; i++) {
        unsigned char c = (unsigned char)q.data[i], d = (unsigned char)q.data[i + 1];

        if (c == 0xC2 && d < 0xA0) {
            buf_printf(b, "\\u%04x", d);
            i++;
        } else if (c == 0xE2 && d == 0x80 && ((unsigned char)q.data[i + 2] & 0xFE) == 0xA8) {
            buf_printf(b, "\\u%04x", 0x2000 | ((unsigned char)q.data[i + 2] & 0x3F));
            i += 2;
        } else if (c == 0xEF && memcmp(q.data + i, "\xEF\xBB\xBF", 3) == 0) {
            buf_adds(b, "\\ufeff");
            i += 2;
        } else if (c == 0xEF && d == 0xBF && (unsigned char)q.data[i + 2] >= 0xBE) {
            buf_printf(b, "\\uff%02x", 0xC0 | ((unsigned char)q.data[i + 2] & 0x3F));
            i += 2;
        } else {
            buf_addc(b, (char)c);
        }
    }
    buf_done(&q);
}

static void indent(struct buf *b, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_adds(b, "  ");
}

static bool is_block(json_object *o)
{
    return (json_object_is_type(o, json_type_object) && json_object_object_length(o)) ||
           (json_object_is_type(o, json_type_array) && json_object_array_length(o));
}

/* here: the cursor stands behind "- " or at the start of an indented line. */
static void dump_block(struct buf *b, json_object *o, int depth, bool here);

static void dump_value(struct buf *b, json_object *o, int depth)
{
    if (is_block(o)) {
        buf_addc(b, '\n');
        dump_block(b, o, depth, false);
        return;
    }
    buf_addc(b, ' ');
    if (json_object_is_type(o, json_type_string))
        dump_str(b, json_object_get_string(o), (size_t)json_object_get_string_len(o));
    else
        buf_adds(b, json_text(o));
    buf_addc(b, '\n');
}

static void dump_block(struct buf *b, json_object *o, int depth, bool here)
{
    if (json_object_is_type(o, json_type_object)) {
        json_object_object_foreach (o, key, val) {
            if (!here)
                indent(b, depth);
            here = false;
            dump_str(b, key, strlen(key));
            buf_addc(b, ':');
            dump_value(b, val, depth + 1);
        }
        return;
    }
    for (size_t i = 0, n = json_object_array_length(o); i < n; i++) {
        json_object *v = json_object_array_get_idx(o, i);

        if (!here)
            indent(b, depth);
        here = false;
        buf_addc(b, '-');
        if (is_block(v)) {
            buf_addc(b, ' ');
            dump_block(b, v, depth + 1, true);
        } else {
            dump_value(b, v, depth + 1);
        }
    }
}

char *yaml_dump(json_object *o)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);

    if (is_block(o)) {
        dump_block(&b, o, 0, false);
    } else {
        dump_value(&b, o, 0);
        buf_shift(&b, 1);
    }
    return buf_take(&b);
}
