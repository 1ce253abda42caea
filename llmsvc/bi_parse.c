/*
 * Goals to clauses. Code fences and quoted strings are taken out first, so that nothing inside them
 * splits a clause or looks like a verb; then the text is split, then each piece is read.
 */
#include <ctype.h>

#include "llmsvc/bi.h"

/* Placeholders for what was taken out of the goal before it is split. */
#define MARK_QUOTE '\x01'
#define MARK_CODE  '\x02'
#define MARK_JSON  '\x03'

static const char *const verbs[] = {
    "summarise", "summarize", "read",    "show",     "print",   "write",   "save",     "append",
    "create",    "list",      "find",    "locate",   "search",  "grep",    "count",    "calculate",
    "compute",   "run",       "execute", "remember", "recall",  "spawn",   "delegate", "use",
    "store",     "put",       "report",  "explain",  "analyse", "analyze", "research"
};
static const char *const extensions[] = { "md",   "txt",  "csv", "tsv",  "json", "jsonl",
                                          "yaml", "yml",  "log", "py",   "js",   "ts",
                                          "sh",   "html", "xml", "toml", "ini",  "cfg",
                                          "conf", "c",    "h",   "rs",   "go",   "java",
                                          "css",  "sql",  "tex", "rst",  "org",  "text" };

static bool word_is(const char *s, size_t n, const char *w)
{
    return strlen(w) == n && !strncasecmp(s, w, n);
}

static bool verb_at(const char *s)
{
    size_t n = 0;

    while (*s == ' ')
        s++;
    while (isalpha((unsigned char)s[n]))
        n++;
    for (size_t i = 0; i < N_ELEMS(verbs); i++)
        if (word_is(s, n, verbs[i]))
            return true;
    return false;
}

/* Length of a separator at p, 0 if there is none. in_line: p is not at the start. */
static size_t separator(const char *p, const char *start)
{
    static const char *const conj[] = { " and then ", ", then ", " then ", " and also " };

    if (*p == '\n' || *p == ';')
        return p[1 + strspn(p + 1, " \n")] == MARK_CODE ? 0
                                                        : 1; /* code belongs to what is before it */
    for (size_t i = 0; i < N_ELEMS(conj); i++)
        if (!strncasecmp(p, conj[i], strlen(conj[i])))
            return strlen(conj[i]);
    if (p == start && !strncasecmp(p, "then ", 5))
        return 5;
    if (!strncasecmp(p, " and ", 5) && verb_at(p + 5))
        return 5;
    if ((!strncmp(p, ", ", 2) || !strncmp(p, ". ", 2)) && verb_at(p + 2))
        return 2;
    if (!strncasecmp(p, ", and ", 6) && verb_at(p + 6))
        return 6;
    return 0;
}

static bool text_extension(const char *s, size_t n)
{
    const char *dot = memrchr(s, '.', n);

    if (!dot || dot == s)
        return false;
    for (size_t i = 0; i < N_ELEMS(extensions); i++)
        if (word_is(dot + 1, n - (size_t)(dot + 1 - s), extensions[i]))
            return true;
    return false;
}

static char *absolute(const char *s, size_t n, const char *user)
{
    if (*s == '/')
        return xstrndup(s, n);
    if (n >= 2 && (!strncmp(s, "./", 2) || !strncmp(s, "~/", 2))) {
        s += 2;
        n -= 2;
    }
    return xasprintf("/users/%s/workspace/%.*s", *user ? user : "admin", (int)n, s);
}

static void add_path(struct clause *c, const char *s, size_t n, const char *user)
{
    if (c->n_paths < PATHS_MAX && n <= 1024)
        c->paths[c->n_paths++] = absolute(s, n, user);
}

/* Reads one blank-free token; true if it is a path or glob and so no word. */
static bool token(struct clause *c, const char *s, size_t n, const char *user)
{
    while (n && strchr("([<\"'`", *s)) {
        s++;
        n--;
    }
    while (n && strchr(".,:;!?)]>\"'`", s[n - 1]))
        n--;
    if (!n)
        return false;
    bool pathy = (*s == '/' && n > 1 && (isalnum((unsigned char)s[1]) || strchr("_.-*", s[1]))) ||
                 !strncmp(s, "./", 2) || !strncmp(s, "~/", 2);

    if (memchr(s, '*', n) && (pathy || n > 1) && (memchr(s, '.', n) || memchr(s, '/', n))) {
        free(c->glob);
        c->glob = xstrndup(s, n);
        return true;
    }
    pathy |= n > 1 && s[n - 1] == '/' && isalnum((unsigned char)*s); /* "docs/" */
    if (pathy || (text_extension(s, n) && !memchr(s, '(', n))) {
        add_path(c, s, n, user);
        return true;
    }
    return false;
}

static bool wordy(char ch)
{
    return isalnum((unsigned char)ch) || (ch & 0x80) || ch == '\'' || ch == '-';
}

static void words_of(struct clause *c, const char *text, const char *user)
{
    cleanup(buf_done) struct buf w = BUF_INIT(TEXT_MAX);

    buf_addc(&w, ' ');
    for (const char *p = text; *p;) {
        size_t blank = strspn(p, " \t"), n = strcspn(p + blank, " \t");

        p += blank;
        if (n && !token(c, p, n, user))
            for (size_t i = 0; i < n; i++) {
                if (wordy(p[i]))
                    buf_addc(&w, (char)tolower((unsigned char)p[i]));
                else if (w.data[w.len - 1] != ' ')
                    buf_addc(&w, ' ');
            }
        if (w.data[w.len - 1] != ' ')
            buf_addc(&w, ' ');
        p += n;
    }
    c->words = buf_take(&w);
}

/* Characters of arithmetic, the words that stand for operators among them. */
static void expr_of(struct clause *c, const char *text)
{
    static const char *const skip[] = { "calculate",   "compute",  "what is",      "what's",
                                        "how much is", "evaluate", "the result of" };
    const char *best = text;

    for (size_t i = 0; i < N_ELEMS(skip); i++) {
        const char *p = strcasestr(text, skip[i]);

        if (p && p + strlen(skip[i]) > best)
            best = p + strlen(skip[i]);
    }
    best += strspn(best, " :");
    cleanup(freep) char *e = xstrdup(best);
    for (size_t n = strlen(e); n > 0 && strchr(" ?.!=", e[n - 1]); n--)
        e[n - 1] = '\0';
    double v = 0;
    if (strpbrk(e, "0123456789") && bi_eval(e, &v, NULL) &&
        (strpbrk(e, "+-*/%^()") || strpbrk(e, "abcdefghijklmnopqrstuvwxyz")))
        c->expr = TAKE(e);
}

static void count_of(struct clause *c)
{
    static const char *const units[] = { "bullets",   "bullet",   "points", "point",
                                         "sentences", "sentence", "key",    "lines" };
    static const char *const numbers[] = { "one", "two",   "three", "four", "five",
                                           "six", "seven", "eight", "nine", "ten" };

    for (const char *p = c->words; *p; p++) {
        int64_t v = 0;
        size_t n = strcspn(p, " ");

        if (*p == ' ' || (p > c->words && p[-1] != ' '))
            continue;
        if (isdigit((unsigned char)*p))
            v = strtoll(p, NULL, 10);
        for (size_t i = 0; i < N_ELEMS(numbers); i++)
            if (word_is(p, n, numbers[i]))
                v = (int64_t)i + 1;
        const char *next = p + n + (p[n] == ' ');
        for (size_t i = 0; v > 0 && v <= 50 && i < N_ELEMS(units); i++)
            if (word_is(next, strcspn(next, " "), units[i]))
                c->count = v;
    }
}

struct taken {
    char *quotes[64];
    size_t n_quotes;
    char *code, *language, *json;
};

/* Length of the braces at p with what is in them, 0 if they do not close. */
static size_t braces(const char *p)
{
    int depth = 0;
    bool text = false;

    for (const char *q = p; *q; q++) {
        if (text && *q == '\\' && q[1])
            q++;
        else if (*q == '"')
            text = !text;
        else if (!text && *q == '{')
            depth++;
        else if (!text && *q == '}' && --depth == 0)
            return (size_t)(q - p) + 1;
    }
    return 0;
}

static void take_code(const char **p, struct taken *t, struct buf *out)
{
    const char *body = strchr(*p + 3, '\n'), *end = body ? strstr(body, "```") : NULL;

    if (!end) {
        buf_add(out, *p, 3);
        *p += 3;
        return;
    }
    free(t->code);
    free(t->language);
    t->language = xstrndup(*p + 3, (size_t)(body - *p - 3));
    t->language[strcspn(t->language, " \r\t")] = '\0';
    t->code = xstrndup(body + 1, (size_t)(end - body - 1));
    buf_addc(out, ' ');
    buf_addc(out, MARK_CODE);
    buf_addc(out, ' ');
    *p = end + 3;
}

/* A quoted string at p (", “ ”, or ' after a blank); its length with the quotes, 0 if none. */
static size_t quoted(const char *p, const char *start, const char **inner, size_t *len)
{
    static const char *const pairs[][2] = {
        { "\"", "\"" }, { "\xe2\x80\x9c", "\xe2\x80\x9d" }, { "`", "`" }, { "'", "'" }
    };

    for (size_t i = 0; i < N_ELEMS(pairs); i++) {
        size_t a = strlen(pairs[i][0]);

        if (strncmp(p, pairs[i][0], a) != 0)
            continue;
        if (*p == '\'' && p > start && !isspace((unsigned char)p[-1]))
            continue;
        const char *end = strstr(p + a, pairs[i][1]);
        if (*p == '\'')
            while (end && end[1] && !strchr(" .,;:!?\n", end[1]))
                end = strchr(end + 1, '\'');
        if (!end || end == p + a)
            continue;
        *inner = p + a;
        *len = (size_t)(end - p) - a;
        return (size_t)(end - p) + strlen(pairs[i][1]);
    }
    return 0;
}

static char *take_out(const char *goal, struct taken *t)
{
    struct buf out = BUF_INIT(TEXT_MAX);

    for (const char *p = goal; *p;) {
        const char *inner = NULL;
        size_t len = 0, n = 0;

        if (!strncmp(p, "```", 3)) {
            take_code(&p, t, &out);
        } else if (*p == '{' && !t->json && (n = braces(p))) {
            t->json = xstrndup(p, n);
            buf_addc(&out, MARK_JSON);
            p += n;
        } else if (t->n_quotes < 64 && (n = quoted(p, goal, &inner, &len))) {
            buf_addc(&out, ' ');
            buf_addc(&out, MARK_QUOTE);
            buf_addc(&out, (char)(0x30 + t->n_quotes)); /* its number, one byte */
            buf_addc(&out, ' ');
            t->quotes[t->n_quotes++] = xstrndup(inner, len);
            p += n;
        } else {
            /* no control character but ours may stand in the text */
            buf_addc(&out, (unsigned char)*p < 0x20 && *p != '\n' && *p != '\t' ? ' ' : *p);
            p++;
        }
    }
    return buf_take(&out);
}

/* Puts quotes and code of this piece into the clause; the text goes on without them. */
static char *give_back(struct clause *c, const char *piece, struct taken *t, const char *user)
{
    struct buf out = BUF_INIT(TEXT_MAX);

    for (const char *p = piece; *p; p++) {
        if (*p == MARK_QUOTE && p[1]) {
            const char *q = t->quotes[(unsigned char)p[1] - 0x30];

            if ((*q == '/' || text_extension(q, strlen(q))) && !strchr(q, '\n') &&
                strlen(q) < 512 && !strchr(q, '*'))
                add_path(c, q, strlen(q), user);
            else if (c->n_quotes < QUOTES_MAX)
                c->quotes[c->n_quotes++] = xstrdup(q);
            p++;
        } else if (*p == MARK_CODE) {
            if (t->code && !c->code) {
                c->code = xstrdup(t->code);
                c->language = xstrdup(t->language);
            }
        } else if (*p == MARK_JSON) {
            if (t->json && !c->json)
                c->json = xstrdup(t->json);
            buf_adds(&out, t->json ? t->json : "");
        } else {
            buf_addc(&out, *p);
        }
    }
    buf_add(&out, "", 0);
    return buf_take(&out);
}

static void clause_free(struct clause *c)
{
    for (size_t k = 0; k < c->n_paths; k++)
        free(c->paths[k]);
    for (size_t k = 0; k < c->n_quotes; k++)
        free(c->quotes[k]);
    free(c->text);
    free(c->words);
    free(c->glob);
    free(c->code);
    free(c->language);
    free(c->json);
    free(c->expr);
}

static void add_clause(struct plan *p, const char *s, size_t n, struct taken *t, const char *user)
{
    while (n && strchr(" \t-*\xe2", *s) && *s) {
        if (*s == '\xe2') /* a bullet sign */
            break;
        s++;
        n--;
    }
    size_t digits = strspn(s, "0123456789");
    if (digits && digits < 3 && digits + 1 < n && (s[digits] == '.' || s[digits] == ')') &&
        s[digits + 1] == ' ') {
        s += digits + 2;
        n -= digits + 2;
    }
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    if (!n || p->n == CLAUSES_MAX)
        return;
    struct clause *c = &p->c[p->n];
    cleanup(freep) char *piece = xstrndup(s, n);

    memset(c, 0, sizeof *c);
    c->text = give_back(c, piece, t, user);
    words_of(c, c->text, user);
    expr_of(c, c->text);
    count_of(c);
    if (c->words[strspn(c->words, " ")] || c->n_paths || c->n_quotes || c->code || c->expr)
        p->n++;
    else
        clause_free(c);
}

void plan_parse(const char *goal, const char *user, struct plan *p)
{
    struct taken t = { .n_quotes = 0 };
    cleanup(freep) char *text = take_out(goal, &t);
    const char *start = text;

    memset(p, 0, sizeof *p);
    for (const char *at = text; *at;) {
        size_t n = separator(at, start);

        if (!n) {
            at++;
            continue;
        }
        add_clause(p, start, (size_t)(at - start), &t, user);
        at += n;
        start = at;
    }
    add_clause(p, start, strlen(start), &t, user);
    for (size_t i = 0; i < t.n_quotes; i++)
        free(t.quotes[i]);
    free(t.code);
    free(t.language);
    free(t.json);
}

void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        clause_free(&p->c[i]);
    p->n = 0;
}

bool has_word(const struct clause *c, const char *phrase)
{
    char key[64];

    snprintf(key, sizeof key, " %s ", phrase);
    return strstr(c->words, key) != NULL;
}

bool has_any(const struct clause *c, const char *const *phrases)
{
    for (; *phrases; phrases++)
        if (has_word(c, *phrases))
            return true;
    return false;
}
