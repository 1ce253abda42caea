/* Output: tables by display width, safe text, errors with hints and exit codes. */
#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/cli.h"
#include "common/base/buf.h"
#include "common/base/clock.h"

int exit_of_code(const char *code)
{
    static const struct {
        const char *code;
        int exit;
    } map[] = {
        { "EAUTH", EX_AUTH },     { "EEXPIRED", EX_AUTH },      { "ESESSION", EX_AUTH },
        { "EPERM", EX_PERM },     { "ENOTFOUND", EX_NOTFOUND }, { "ECONFLICT", EX_CONFLICT },
        { "EUSED", EX_CONFLICT }, { "ELIMIT", EX_LIMIT },       { "EUNAVAIL", EX_UNAVAIL },
        { "EPARSE", EX_PARSE },   { "EINTERNAL", EX_INTERNAL },
    };
    for (size_t i = 0; i < N_ELEMS(map); i++)
        if (str_eq(code, map[i].code))
            return map[i].exit;
    return EX_INTERNAL;
}

int cli_fail(const struct cli *c, int exit, const char *code, const char *hint, const char *fmt,
             ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return exit;
    if (c->json) {
        json_object *o =
            json_make("error:o exit:i", json_make("code:s message:s", code, text), (int64_t)exit);
        fprintf(stderr, "%s\n", json_text(o));
        json_put(o);
    } else {
        fputs("avix: ", stderr);
        print_safe(stderr, text, strlen(text), false);
        fputc('\n', stderr);
        if (hint && !c->quiet)
            fprintf(stderr, "hint: %s\n", hint);
    }
    free(text);
    return exit;
}

/* Bytes of the UTF-8 sequence at s and its code point; 0 if malformed. */
static size_t decode(const unsigned char *s, size_t len, uint32_t *cp)
{
    size_t n = s[0] < 0x80             ? 1
               : (s[0] & 0xe0) == 0xc0 ? 2
               : (s[0] & 0xf0) == 0xe0 ? 3
               : (s[0] & 0xf8) == 0xf0 ? 4
                                       : 0;
    if (n == 0 || n > len || !utf8_valid((const char *)s, n))
        return 0;
    *cp = n == 1 ? s[0] : s[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++)
        *cp = *cp << 6 | (s[i] & 0x3f);
    return n;
}

/* Characters that could drive a terminal or hide text: controls, bidirectional marks, zero width,
 * tags. */
static bool harmful(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           c == 0x34f || c == 0x115f || c == 0x1160 || c == 0x17b4 || c == 0x17b5 ||
           (c >= 0x180b && c <= 0x180f) || c == 0x3164 || c == 0xffa0 ||
           (c >= 0xfe00 && c <= 0xfe0e) || (c >= 0x1d173 && c <= 0x1d17a) ||
           (c >= 0xe0000 && c <= 0xe01ef);
}

void print_safe(FILE *f, const char *s, size_t len, bool multi)
{
    for (size_t i = 0; i < len;) {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)s + i, len - i, &c);
        if (n == 0) {
            fprintf(f, "\\x%02x", (unsigned char)s[i]);
            i++;
        } else if (harmful(c) && !(multi && (c == '\n' || c == '\t'))) {
            fprintf(f, c < 0x100 ? "\\x%02x" : "\\u{%x}", c);
            i += n;
        } else {
            fwrite(s + i, 1, n, f);
            i += n;
        }
    }
}

/* The same document with what could drive a terminal written as \u escapes: it stands in strings
 * only. */
void print_json(json_object *o)
{
    const char *s =
        json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    size_t len = strlen(s);
    for (size_t i = 0, n; i < len; i += n) {
        uint32_t c = 0;
        n = decode((const unsigned char *)s + i, len - i, &c);
        if (n == 0) { /* not UTF-8: no JSON either */
            fputs("\\ufffd", stdout);
            n = 1;
        } else if (!harmful(c)) {
            fwrite(s + i, 1, n, stdout);
        } else if (c < 0x10000) {
            printf("\\u%04x", c);
        } else {
            printf("\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
        }
    }
    putchar('\n');
}

void table_init(struct table *t, const struct column *cols, size_t n_cols)
{
    *t = (struct table){ .cols = cols, .n_cols = n_cols };
}

void table_row(struct table *t, const char *const *cells)
{
    if (t->n_rows == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 16;
        t->cells = xrealloc(t->cells, t->cap * t->n_cols * sizeof *t->cells);
    }
    for (size_t i = 0; i < t->n_cols; i++) {
        /* one safe line per cell */
        char *text = NULL;
        size_t len = 0;
        FILE *f = open_memstream(&text, &len);
        print_safe(f, cells[i] ? cells[i] : "", cells[i] ? strlen(cells[i]) : 0, false);
        fclose(f);
        t->cells[t->n_rows * t->n_cols + i] = text;
    }
    t->n_rows++;
}

void table_done(struct table *t)
{
    for (size_t i = 0; i < t->n_rows * t->n_cols; i++)
        free(t->cells[i]);
    free(t->cells);
}

/* Display columns of UTF-8 text. */
static size_t width(const char *s)
{
    size_t w = 0;
    for (size_t i = 0, len = strlen(s); i < len;) {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)s + i, len - i, &c);
        int k = n ? wcwidth((wchar_t)c) : 1;
        w += k > 0 ? (size_t)k : 0;
        i += n ? n : 1;
    }
    return w;
}

/* Prints at most max columns of s, with an ellipsis if cut. */
static void print_cut(const char *s, size_t max)
{
    if (width(s) <= max) {
        fputs(s, stdout);
        return;
    }
    size_t w = 0, i = 0, len = strlen(s);
    while (i < len) {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)s + i, len - i, &c);
        int k = n ? wcwidth((wchar_t)c) : 1;
        if (w + (size_t)(k > 0 ? k : 0) + 1 > max)
            break;
        w += (size_t)(k > 0 ? k : 0);
        fwrite(s + i, 1, n ? n : 1, stdout);
        i += n ? n : 1;
    }
    fputs("…", stdout);
}

void table_print(const struct cli *c, struct table *t, const char *if_empty)
{
    size_t w[16] = { 0 }, used = 0, term = 0;
    struct winsize ws;

    setlocale(LC_CTYPE, "C.UTF-8");
    if (isatty(1) && !c->wide && ioctl(1, TIOCGWINSZ, &ws) == 0)
        term = ws.ws_col;
    for (size_t i = 0; i < t->n_cols; i++) {
        w[i] = c->no_header ? 0 : strlen(t->cols[i].title);
        for (size_t r = 0; r < t->n_rows; r++) {
            size_t k = width(t->cells[r * t->n_cols + i]);
            w[i] = k > w[i] ? k : w[i];
        }
        used += i + 1 < t->n_cols ? w[i] + 2 : 0;
    }
    for (size_t r = 0; r < t->n_rows + 1; r++) {
        if (r == 0 && c->no_header)
            continue;
        for (size_t i = 0; i < t->n_cols; i++) {
            const char *s = r ? t->cells[(r - 1) * t->n_cols + i] : t->cols[i].title;
            int pad = (int)(w[i] - (width(s) < w[i] ? width(s) : w[i]));
            bool last = i + 1 == t->n_cols;
            if (t->cols[i].right)
                printf("%*s", pad, "");
            if (last && term > used + 4)
                print_cut(s, term - used);
            else
                fputs(s, stdout);
            if (!last)
                printf("%*s", (t->cols[i].right ? 0 : pad) + 2, "");
        }
        putchar('\n');
    }
    if (t->n_rows == 0 && !c->quiet)
        fprintf(stderr, "%s\n", if_empty);
}

const char *when_text(const char *rfc, char *out, size_t size)
{
    int64_t ms;
    if (!rfc || !rfc3339_parse(rfc, &ms)) {
        str_copy(out, size, rfc ? rfc : "");
        return out;
    }
    int64_t ago = (now_ms() - ms) / 1000;
    struct tm tm;
    time_t s = (time_t)(ms / 1000);
    if (!isatty(1))
        str_copy(out, size, rfc);
    else if (ago < 60)
        snprintf(out, size, "%llds ago", (long long)(ago < 0 ? 0 : ago));
    else if (ago < 3600)
        snprintf(out, size, "%lldm ago", (long long)(ago / 60));
    else if (ago < 86400)
        snprintf(out, size, "%lldh ago", (long long)(ago / 3600));
    else if (!localtime_r(&s, &tm) || strftime(out, size, "%b %e %H:%M", &tm) == 0)
        str_copy(out, size, rfc);
    return out;
}

const char *id_text(const char *id, char *out, size_t size)
{
    str_copy(out, isatty(1) && size > 9 ? 9 : size, id ? id : "");
    return out;
}

const char *num_text(int64_t n, char *out, size_t size)
{
    char raw[32];
    size_t len = (size_t)snprintf(raw, sizeof raw, "%lld", (long long)n), o = 0;
    for (size_t i = 0; i < len && o + 2 < size; i++) {
        out[o++] = raw[i];
        size_t left = len - i - 1;
        if (left && left % 3 == 0 && raw[i] != '-')
            out[o++] = ',';
    }
    out[o] = 0;
    return out;
}

int ask_yes(const char *question)
{
    if (!isatty(0) || !isatty(2))
        return -1;
    char line[16];
    fprintf(stderr, "%s [y/N] ", question);
    if (!fgets(line, sizeof line, stdin))
        return 0;
    return line[0] == 'y' || line[0] == 'Y';
}

void print_fields(json_object *o)
{
    json_object_object_foreach (o, key, val) {
        const char *s = !val ? "-"
                        : json_object_is_type(val, json_type_string)
                            ? json_object_get_string(val)
                            : json_object_to_json_string_ext(
                                  val, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
        print_safe(stdout, key, strlen(key), false);
        fputs(": ", stdout);
        print_safe(stdout, s, strlen(s), false);
        putchar('\n');
    }
}
