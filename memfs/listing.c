/*
 * Pages: entries come sorted component by component, the cursor is the last name of a page, and the
 * next page starts behind it. So a page is right even if files came and went in between.
 */
#include "memfs/listing.h"

#include <fcntl.h>

#include "common/base/clock.h"
#include "common/base/globpat.h"

#define PAGE_BYTES (4 << 20)

struct listing {
    const struct list_req *q;
    struct globpat glob;
    bool by_path; /* the pattern is matched with the relative path */
    struct buf names, items;
    int64_t n;
    char last[VPATH_MAX + 1];
    bool more;
};

/* Order of the walk: byte order, with '/' before everything else. */
static int rel_cmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    int x = *a == '/' ? 1 : (unsigned char)*a + (*a != 0);
    int y = *b == '/' ? 1 : (unsigned char)*b + (*b != 0);

    return x - y;
}

static bool starts_below(const char *cursor, const char *rel)
{
    size_t n = strlen(rel);

    return !strncmp(cursor, rel, n) && cursor[n] == '/';
}

static void add_item(struct listing *s, const struct entry *e)
{
    struct stat st = { .st_size = 0 };
    char etag[ETAG_LEN], when[RFC3339_LEN];

    fstatat(e->dir, e->name, &st, AT_SYMLINK_NOFOLLOW);
    buf_adds(&s->items, s->items.len ? ",{\"name\":" : "{\"name\":");
    buf_add_json_str(&s->items, e->rel, strlen(e->rel));
    buf_printf(&s->items, ",\"kind\":\"%s\",\"size\":%lld,\"modifiedAt\":\"%s\",\"etag\":\"%s\"}",
               e->folder ? "dir" : "file", (long long)st.st_size, rfc3339(stat_mtime_ms(&st), when),
               etag_of(&st, etag));
}

static enum walk_next list_entry(const struct entry *e, void *arg)
{
    struct listing *s = arg;
    const char *cursor = s->q->cursor;

    if (cursor && rel_cmp(e->rel, cursor) <= 0)
        return str_eq(cursor, e->rel) || starts_below(cursor, e->rel) ? WALK_ON : WALK_PASS;
    if (s->q->glob && !globpat_match(&s->glob, s->by_path ? e->rel : e->name))
        return WALK_ON;
    if (s->n == s->q->limit || s->names.len + s->items.len > PAGE_BYTES) {
        s->more = true;
        return WALK_END;
    }
    if (s->n++)
        buf_addc(&s->names, ',');
    buf_add_json_str(&s->names, e->rel, strlen(e->rel));
    if (s->q->details)
        add_item(s, e);
    str_copy(s->last, sizeof(s->last), e->rel);
    return WALK_ON;
}

static void list_write(const struct listing *s, const struct loc *l, struct buf *out)
{
    buf_adds(out, "{\"path\":");
    buf_add_json_str(out, l->path, strlen(l->path));
    buf_adds(out, ",\"entries\":[");
    buf_add(out, s->names.data, s->names.len);
    buf_addc(out, ']');
    if (s->q->details) {
        buf_adds(out, ",\"items\":[");
        buf_add(out, s->items.data, s->items.len);
        buf_addc(out, ']');
    }
    if (s->more) {
        buf_adds(out, ",\"next_cursor\":");
        buf_add_json_str(out, s->last, strlen(s->last));
    }
    buf_addc(out, '}');
}

static int bad_pattern(struct fault *f, const char *param)
{
    f->data = json_make("param:s", param);
    return fault_set(f, ERR_INVAL, "%s: malformed, or more than %d alternatives", param, GLOB_ALTS);
}

int list_run(const struct caller *who, const struct loc *l, const struct list_req *q,
             const atomic_bool *stop, struct buf *out, struct fault *f)
{
    struct listing s = { .q = q,
                         .by_path = q->recursive && q->glob && strchr(q->glob, '/'),
                         .names = BUF_INIT(2 * PAGE_BYTES),
                         .items = BUF_INIT(2 * PAGE_BYTES) };
    struct walk w = {
        .who = who, .recursive = q->recursive, .fn = list_entry, .arg = &s, .stop = stop
    };
    struct stat st;

    if (local_stat(l, &st, f))
        return f->err;
    if (!S_ISDIR(st.st_mode))
        return fault_io(f, ERR_NOTDIR, l->path);
    if (q->glob && globpat_init(&s.glob, q->glob))
        return bad_pattern(f, "glob");
    if (!walk_run(&w, l, f)) {
        s.more |= w.cut && s.n;
        if (w.cut && !s.n)
            fault_set(f, ERR_TIMEOUT, "%.200s: too much to look through", l->path);
        else
            list_write(&s, l, out);
    }
    if (q->glob)
        globpat_done(&s.glob);
    buf_done(&s.names);
    buf_done(&s.items);
    return f->err;
}

struct globbing {
    struct globpat pat;
    struct buf paths;
    int64_t n, limit;
    bool truncated;
};

static enum walk_next glob_entry(const struct entry *e, void *arg)
{
    struct globbing *g = arg;

    if (globpat_match(&g->pat, e->rel)) {
        if (g->n == g->limit || g->paths.len > PAGE_BYTES) {
            g->truncated = true;
            return WALK_END;
        }
        if (g->n++)
            buf_addc(&g->paths, ',');
        buf_add_json_str(&g->paths, e->path, strlen(e->path));
    }
    return g->pat.depth_max >= 0 && e->depth + 1 >= g->pat.depth_max ? WALK_PASS : WALK_ON;
}

int glob_run(const struct caller *who, const struct loc *l, const char *pattern, int64_t limit,
             const atomic_bool *stop, struct buf *out, struct fault *f)
{
    struct globbing g = { .limit = limit, .paths = BUF_INIT(2 * PAGE_BYTES) };
    struct walk w = { .who = who, .recursive = true, .fn = glob_entry, .arg = &g, .stop = stop };

    if (globpat_init(&g.pat, pattern))
        return bad_pattern(f, "pattern");
    if (!walk_run(&w, l, f)) {
        buf_adds(out, "{\"paths\":[");
        buf_add(out, g.paths.data, g.paths.len);
        buf_printf(out, "],\"truncated\":%s}", g.truncated || w.cut ? "true" : "false");
    }
    globpat_done(&g.pat);
    buf_done(&g.paths);
    return f->err;
}
