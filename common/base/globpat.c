/*
 * Braces are expanded first, by rewriting the leftmost innermost-complete group; then each
 * alternative is matched component by component. A run of ** is tried against every suffix with
 * memory of what failed (one bit per pair), so the cost is components times components.
 */
#include "common/base/globpat.h"

#include "common/base/err.h"
#include "common/base/vpath.h"

#define SEGS_MAX 128

/* The first balanced group: *open, *close at its braces; false if there is none. */
static bool find_group(const char *p, const char **open, const char **close)
{
    int depth = 0;

    *open = strchr(p, '{');
    for (const char *c = *open; c && *c; c++) {
        depth += *c == '{' ? 1 : *c == '}' ? -1 : 0;
        if (!depth) {
            *close = c;
            return true;
        }
    }
    return false;
}

/* End of the alternative that starts at p: a comma of this level, or the closing brace. */
static const char *alt_end(const char *p, const char *close)
{
    int depth = 0;

    for (; p < close && (depth || *p != ','); p++)
        depth += *p == '{' ? 1 : *p == '}' ? -1 : 0;
    return p;
}

static int expand(struct globpat *g, const char *pattern)
{
    const char *open, *close;

    if (!find_group(pattern, &open, &close)) {
        if (g->n == GLOB_ALTS || strlen(pattern) > VPATH_MAX)
            return ERR_INVAL;
        g->alts[g->n++] = xstrdup(pattern);
        return 0;
    }
    for (const char *at = open + 1;; at++) {
        const char *end = alt_end(at, close);
        cleanup(freep) char *one =
            xasprintf("%.*s%.*s%s", (int)(open - pattern), pattern, (int)(end - at), at, close + 1);
        int r = expand(g, one);

        if (r || end == close)
            return r;
        at = end;
    }
}

int globpat_init(struct globpat *g, const char *pattern)
{
    int r, depth = 0;

    g->n = 0;
    g->depth_max = 0;
    if (!*pattern || strlen(pattern) > VPATH_MAX)
        return ERR_INVAL;
    for (const char *c = pattern; *c && depth >= 0; c++)
        depth += *c == '{' ? 1 : *c == '}' ? -1 : 0;
    r = depth ? ERR_INVAL : expand(g, pattern);
    for (size_t i = 0; !r && i < g->n && g->depth_max >= 0; i++) {
        int n = 1;

        for (const char *c = g->alts[i]; *c; c++)
            n += *c == '/';
        if (strstr(g->alts[i], "**"))
            g->depth_max = -1;
        else if (n > g->depth_max)
            g->depth_max = n;
    }
    if (r)
        globpat_done(g);
    return r;
}

void globpat_done(struct globpat *g)
{
    for (size_t i = 0; i < g->n; i++)
        free(g->alts[i]);
    g->n = 0;
}

/* Splits at slashes in place. Number of components, or -1: too many. */
static int split(char *s, char **seg)
{
    int n = 0;

    for (char *at = s; at;) {
        char *slash = strchr(at, '/');

        if (slash)
            *slash++ = '\0';
        if (*at) {
            if (n == SEGS_MAX)
                return -1;
            seg[n++] = at;
        }
        at = slash;
    }
    return n;
}

struct match {
    char *p[SEGS_MAX], *s[SEGS_MAX];
    int np, ns;
    uint8_t failed[SEGS_MAX + 1][(SEGS_MAX + 8) / 8];
};

static bool match_from(struct match *m, int i, int j)
{
    while (i < m->np && !str_eq(m->p[i], "**")) {
        if (j == m->ns || !glob_match(m->p[i], m->s[j]))
            return false;
        i++;
        j++;
    }
    if (i == m->np)
        return j == m->ns;
    for (int k = j; k <= m->ns; k++) {
        if (m->failed[i][k / 8] & (1U << (k % 8)))
            continue;
        if (match_from(m, i + 1, k))
            return true;
        m->failed[i][k / 8] |= (uint8_t)(1U << (k % 8));
    }
    return false;
}

bool globpat_match(const struct globpat *g, const char *rel)
{
    for (size_t i = 0; i < g->n; i++) {
        cleanup(freep) char *p = xstrdup(g->alts[i]);
        cleanup(freep) char *s = xstrdup(rel);
        struct match m = { .np = 0 };

        m.np = split(p, m.p);
        m.ns = split(s, m.s);
        if (m.np >= 0 && m.ns >= 0 && match_from(&m, 0, 0))
            return true;
    }
    return false;
}
