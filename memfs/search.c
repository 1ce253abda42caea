/*
 * What a search does with one file: read it whole (at most 16 MiB, no NUL bytes), go through its
 * lines, note the first match of each. Regular expressions are POSIX extended ones; back-references
 * are refused, because with them matching is exponential.
 */
#include "memfs/search.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <strings.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/globpat.h"

#define FILE_LIMIT   (16 << 20)
#define LINE_SHOWN   512
#define RESULT_BYTES (4 << 20)

struct searching {
    const struct search_req *q;
    struct globpat glob;
    bool glob_path;
    regex_t re;
    size_t query_len;
    struct buf out; /* the matches */
    char *text;     /* FILE_LIMIT + 1 bytes */
    int64_t n, files, deadline;
    bool truncated;
};

static bool has_backref(const char *re)
{
    for (; *re; re++)
        if (*re == '\\' && *++re >= '1' && *re <= '9')
            return true;
        else if (!*re)
            break;
    return false;
}

static const char *find_text(const struct searching *s, const char *line, size_t n)
{
    const char *needle = s->q->query;

    if (!s->q->ignore_case)
        return memmem(line, n, needle, s->query_len);
    for (; n >= s->query_len; line++, n--)
        if (!strncasecmp(line, needle, s->query_len))
            return line;
    return NULL;
}

/* Offset of the first match in a line, or -1. */
static ssize_t find_in(const struct searching *s, const char *line, size_t n)
{
    regmatch_t m = { .rm_so = 0, .rm_eo = (regoff_t)n };

    if (s->q->regex)
        return regexec(&s->re, line, 1, &m, REG_STARTEND) ? -1 : m.rm_so;
    const char *hit = find_text(s, line, n);

    return hit ? hit - line : -1;
}

static size_t n_chars(const char *s, size_t n)
{
    size_t chars = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xc0) != 0x80;
    return chars;
}

static size_t line_len(const char *at, const char *end)
{
    const char *nl = memchr(at, '\n', (size_t)(end - at));

    return (size_t)((nl ? nl : end) - at);
}

static size_t shown(const char *at, size_t n)
{
    return n > LINE_SHOWN ? utf8_floor(at, LINE_SHOWN) : n;
}

/* Up to n lines before (or after) the line at, as a JSON array. */
static void add_context(struct searching *s, const char *key, const char *text, const char *end,
                        const char *line, bool before)
{
    const char *at = line;
    bool first = true;

    buf_printf(&s->out, ",\"%s\":[", key);
    if (before)
        for (int64_t i = 0; i < s->q->context && at > text; i++)
            for (at--; at > text && at[-1] != '\n';)
                at--;
    else
        at += line_len(at, end) + 1;
    for (int64_t i = 0; before ? at < line : i < s->q->context && at < end; i++) {
        size_t n = line_len(at, end);

        if (!first)
            buf_addc(&s->out, ',');
        first = false;
        buf_add_json_str(&s->out, at, shown(at, n));
        at += n + 1;
    }
    buf_addc(&s->out, ']');
}

static void add_match(struct searching *s, const char *path, const char *text, const char *end,
                      const char *line, size_t n, int64_t number, size_t col)
{
    size_t from = col > LINE_SHOWN / 2 ? col - LINE_SHOWN / 4 : 0;

    while (from > 0 && ((unsigned char)line[from] & 0xc0) == 0x80)
        from--;
    buf_adds(&s->out, s->n++ ? ",{\"path\":" : "{\"path\":");
    buf_add_json_str(&s->out, path, strlen(path));
    buf_printf(&s->out, ",\"line\":%lld,\"column\":%zu,\"text\":", (long long)number,
               n_chars(line, col) + 1);
    buf_add_json_str(&s->out, line + from, shown(line + from, n - from));
    if (s->q->context) {
        add_context(s, "before", text, end, line, true);
        add_context(s, "after", text, end, line, false);
    }
    buf_addc(&s->out, '}');
}

static bool search_text(struct searching *s, const char *path, size_t len)
{
    const char *text = s->text, *end = text + len;
    int64_t number = 1;

    for (const char *at = text; at < end; number++) {
        size_t n = line_len(at, end);
        ssize_t col = find_in(s, at, n);

        if (col >= 0) {
            if (s->n == s->q->limit || s->out.len > RESULT_BYTES) {
                s->truncated = true;
                return false;
            }
            add_match(s, path, text, end, at, n, number, (size_t)col);
        }
        at += n + 1;
    }
    return true;
}

static ssize_t read_text(struct searching *s, const struct entry *e)
{
    cleanup(closep) int own =
        *e->name ? openat(e->dir, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    int fd = *e->name ? own : e->dir; /* the file itself, when the walk began at one */
    struct stat st;
    size_t got = 0;

    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > FILE_LIMIT)
        return -1;
    while (got < (size_t)st.st_size) {
        ssize_t r = pread(fd, s->text + got, (size_t)st.st_size - got, (off_t)got);

        if (r <= 0)
            break;
        got += (size_t)r;
    }
    s->text[got] = '\0';
    return memchr(s->text, '\0', got) ? -1 : (ssize_t)got;
}

static enum walk_next search_entry(const struct entry *e, void *arg)
{
    struct searching *s = arg;
    ssize_t n;

    if (e->folder ||
        (s->q->glob && !globpat_match(&s->glob, s->glob_path || !*e->name ? e->rel : e->name)))
        return WALK_ON;
    if ((n = read_text(s, e)) < 0)
        return WALK_ON;
    s->files++;
    return search_text(s, e->path, (size_t)n) ? WALK_ON : WALK_END;
}

static int compile(struct searching *s, struct fault *f)
{
    char why[128];
    int r;

    if (!s->q->regex)
        return 0;
    if (has_backref(s->q->query)) {
        f->data = json_make("param:s", "query");
        return fault_set(f, ERR_INVAL, "query: back-references are not supported");
    }
    r = regcomp(&s->re, s->q->query, REG_EXTENDED | (s->q->ignore_case ? REG_ICASE : 0));
    if (!r)
        return 0;
    regerror(r, &s->re, why, sizeof(why));
    f->data = json_make("param:s", "query");
    return fault_set(f, ERR_INVAL, "query: %s", why);
}

int search_run(const struct caller *who, const struct loc *l, const struct search_req *q,
               struct buf *out, struct fault *f)
{
    struct searching s = { .q = q,
                           .glob_path = q->glob && strchr(q->glob, '/'),
                           .query_len = strlen(q->query),
                           .out = BUF_INIT(2 * RESULT_BYTES) };
    struct walk w = { .who = who, .recursive = true, .fn = search_entry, .arg = &s };

    if (q->glob && globpat_init(&s.glob, q->glob)) {
        f->data = json_make("param:s", "glob");
        return fault_set(f, ERR_INVAL, "glob: malformed, or too many alternatives");
    }
    if (!compile(&s, f)) {
        s.text = xmalloc(FILE_LIMIT + 1);
        if (!walk_run(&w, l, f)) {
            buf_adds(out, "{\"matches\":[");
            buf_add(out, s.out.data, s.out.len);
            buf_printf(out, "],\"files\":%lld,\"truncated\":%s}", (long long)s.files,
                       s.truncated || w.cut ? "true" : "false");
        }
        free(s.text);
        if (q->regex)
            regfree(&s.re);
    }
    if (q->glob)
        globpat_done(&s.glob);
    buf_done(&s.out);
    return f->err;
}
