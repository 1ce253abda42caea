/*
 * Extractive summaries: markup away, sentences, tf-idf, then maximal marginal relevance (0.7)
 * against what was already chosen, in the original order. Deterministic: ties go to the earlier
 * sentence.
 */
#include <ctype.h>
#include <math.h>

#include "common/base/map.h"
#include "llmsvc/bi.h"

#define SENTENCES_MAX 2000
#define TERMS_MAX     64 /* distinct terms of one sentence that count */
#define CHOSEN_MAX    50
#define SENTENCE_LEN  600
#define LAMBDA        0.7

struct sentence {
    char *text;
    size_t source;
    int line;
    bool first, chosen; /* first of its paragraph's document */
    int terms[TERMS_MAX];
    double w[TERMS_MAX];
    size_t n_terms, n_words;
    double score;
};
struct doc {
    struct sentence *s;
    size_t n;
    struct map ids; /* term to its number + 1 */
    int *df;        /* sentences with the term */
    bool *bonus;    /* in a heading or in the goal */
    size_t n_terms, cap;
};

static const char stop_words[] =
    " a about above after again all also am an and any are as at be because been before being below between both but by "
    "can could did do does doing down during each few for from further had has have having he her here hers him his how i "
    "if in into is it its itself just me more most my no nor not now of off on once only or other our out over own same "
    "she should so some such than that the their them then there these they this those through to too under until up us "
    "very was we were what when where which while who whom why will with would you your ";

static bool is_stop(const char *w)
{
    char key[72];

    snprintf(key, sizeof key, " %s ", w);
    return strlen(w) < 2 || strstr(stop_words, key) != NULL;
}

/* --- terms --- */

static int term_id(struct doc *d, const char *w)
{
    size_t id = (size_t)map_get(&d->ids, w);

    if (id)
        return (int)id - 1;
    if (d->n_terms == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 1024;
        d->df = xrealloc(d->df, d->cap * sizeof *d->df);
        d->bonus = xrealloc(d->bonus, d->cap * sizeof *d->bonus);
    }
    d->df[d->n_terms] = 0;
    d->bonus[d->n_terms] = false;
    map_put(&d->ids, w, (void *)(d->n_terms + 1));
    return (int)d->n_terms++;
}

/* A plural s is dropped, so that "agent" and "agents" are one term. */
static void stem(char *w)
{
    size_t n = strlen(w);

    if (n > 4 && w[n - 1] == 's' && w[n - 2] != 's' && w[n - 2] != 'u' && w[n - 2] != 'i')
        w[n - 1] = '\0';
}

/* Next word of *p in lower case; false at the end. */
static bool next_word(const char **p, char w[64])
{
    size_t n = 0;

    while (**p && !isalnum((unsigned char)**p) && !(**p & 0x80))
        (*p)++;
    while (**p && (isalnum((unsigned char)**p) || (**p & 0x80) || (**p == '\'' && n))) {
        if (n < 62)
            w[n++] = (char)tolower((unsigned char)**p);
        (*p)++;
    }
    w[n] = '\0';
    return n > 0;
}

static void mark_bonus(struct doc *d, const char *text)
{
    char w[64];

    for (const char *p = text; next_word(&p, w);)
        if (!is_stop(w)) {
            stem(w);
            int id = term_id(d, w); /* may move the table */

            d->bonus[id] = true;
        }
}

static void count_terms(struct doc *d, struct sentence *s)
{
    char w[64];

    for (const char *p = s->text; next_word(&p, w);) {
        size_t i = 0;

        s->n_words++;
        if (is_stop(w))
            continue;
        stem(w);
        int id = term_id(d, w);
        while (i < s->n_terms && s->terms[i] != id)
            i++;
        if (i == s->n_terms) {
            if (i == TERMS_MAX)
                continue;
            s->terms[s->n_terms++] = id;
            s->w[i] = 0;
            d->df[id]++;
        }
        s->w[i] += 1;
    }
}

/* --- sentences --- */

static bool abbreviation(const char *start, const char *dot)
{
    static const char *const known[] = { "e.g", "i.e",  "etc", "vs",  "mr",  "mrs",    "ms",
                                         "dr",  "prof", "no",  "fig", "st",  "inc",    "ltd",
                                         "co",  "jan",  "feb", "mar", "apr", "jun",    "jul",
                                         "aug", "sep",  "oct", "nov", "dec", "approx", "cf" };
    const char *w = dot;

    while (w > start && !isspace((unsigned char)w[-1]) && w[-1] != '(')
        w--;
    size_t n = (size_t)(dot - w);
    if (n == 1 && isalpha((unsigned char)*w))
        return true; /* an initial */
    for (size_t i = 0; i < N_ELEMS(known); i++)
        if (strlen(known[i]) == n && !strncasecmp(known[i], w, n))
            return true;
    return false;
}

static void add_sentence(struct doc *d, const char *s, size_t n, size_t source, int line)
{
    while (n && isspace((unsigned char)*s)) {
        s++;
        n--;
    }
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    if (n < 3 || d->n == SENTENCES_MAX)
        return;
    struct sentence *e = &d->s[d->n];
    memset(e, 0, sizeof *e);
    e->text = xstrndup(s, n > SENTENCE_LEN ? utf8_floor(s, SENTENCE_LEN) : n);
    e->source = source;
    e->line = line;
    e->first = d->n == 0 || d->s[d->n - 1].source != source;
    count_terms(d, e);
    if (e->n_words < 2) {
        free(e->text);
        return;
    }
    d->n++;
}

/* Splits the text of one paragraph; lines holds the line number of each byte's line start. */
static void split_sentences(struct doc *d, const char *p, size_t n, size_t source, int line)
{
    size_t start = 0;
    int at = line, start_line = line;

    for (size_t i = 0; i < n; i++) {
        if (start == i || (i > 0 && start + 1 == i && p[i - 1] == ' '))
            start_line = at;
        if (p[i] == '\n')
            at++;
        if (!strchr(".!?", p[i]))
            continue;
        size_t end = i + 1;
        while (end < n && strchr("\"')]*_", p[end]))
            end++;
        if (end < n && !isspace((unsigned char)p[end]))
            continue;
        if (p[i] == '.' && abbreviation(p + start, p + i))
            continue;
        add_sentence(d, p + start, end - start, source, start_line);
        while (end < n && isspace((unsigned char)p[end])) {
            at += p[end] == '\n';
            end++;
        }
        start = end;
        i = end - 1;
        start_line = at;
    }
    add_sentence(d, p + start, n - start, source, start_line);
}

/* One line without markup: emphasis, code marks, links and images become their text. */
static void strip_inline(const char *s, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (c == '*' || c == '`' ||
            (c == '_' && (i == 0 || i + 1 == n || s[i - 1] == ' ' || s[i + 1] == ' ')))
            continue;
        if (c == '!' && i + 1 < n && s[i + 1] == '[')
            continue;
        if (c == '[') {
            const char *close = memchr(s + i, ']', n - i);

            if (close && close + 1 < s + n && close[1] == '(') {
                const char *end = memchr(close, ')', (size_t)(s + n - close));

                strip_inline(s + i + 1, (size_t)(close - s) - i - 1, out);
                i = end ? (size_t)(end - s) : n;
                continue;
            }
        }
        if (c == '<' && i + 1 < n && (isalpha((unsigned char)s[i + 1]) || s[i + 1] == '/')) {
            const char *end = memchr(s + i, '>', n - i);

            if (end) {
                i = (size_t)(end - s);
                continue;
            }
        }
        buf_addc(out, c);
    }
}

struct para {
    struct buf b;
    int line;
};

static void para_end(struct doc *d, struct para *p, size_t source)
{
    if (p->b.len)
        split_sentences(d, p->b.data, p->b.len, source, p->line);
    buf_clear(&p->b);
}

/* What a line is. 0: text; 1: heading; 2: item of a list; 3: nothing to read. */
static int line_kind(const char **s, size_t *n)
{
    while (*n && isspace((unsigned char)**s)) {
        (*s)++;
        (*n)--;
    }
    if (!*n || **s == '|' || strspn(*s, "-=*_ ") >= *n)
        return 3;
    if (**s == '#') {
        size_t k = strspn(*s, "# ");
        k = k < *n ? k : *n;
        *s += k;
        *n -= k;
        return 1;
    }
    size_t k = strchr("-*+>", **s) && *n > 1 && (*s)[1] == ' ' ? 2 : 0;
    size_t digits = strspn(*s, "0123456789");
    if (!k && digits && digits < 4 && digits + 1 < *n && strchr(".)", (*s)[digits]) &&
        (*s)[digits + 1] == ' ')
        k = digits + 2;
    *s += k;
    *n -= k;
    return k ? 2 : 0;
}

static void read_source(struct doc *d, const struct source *src, size_t index)
{
    struct para p = { .b = BUF_INIT(TEXT_MAX) };
    const char *s = src->text, *end = src->text + src->len;
    bool fence = false, front = src->len > 4 && !strncmp(s, "---\n", 4);
    int line = 1;

    for (; s < end; line++) {
        const char *nl = memchr(s, '\n', (size_t)(end - s)), *at = s;
        size_t n = nl ? (size_t)(nl - s) : (size_t)(end - s);

        s += n + 1;
        if (front) {
            front = line == 1 || n < 3 || strncmp(at, "---", 3) != 0;
            continue;
        }
        if (n >= 3 && (!strncmp(at, "```", 3) || !strncmp(at, "~~~", 3)))
            fence = !fence;
        int kind = fence ? 3 : line_kind(&at, &n);
        if (kind)
            para_end(d, &p, index);
        if (kind == 3)
            continue;
        if (!p.b.len)
            p.line = line;
        else
            buf_addc(&p.b, '\n');
        strip_inline(at, n, &p.b);
        if (kind == 1) {
            buf_add(&p.b, "", 0);
            mark_bonus(d, p.b.data ? p.b.data : "");
            buf_clear(&p.b);
        }
    }
    para_end(d, &p, index);
    buf_done(&p.b);
}

/* --- choice --- */

static void score_all(struct doc *d)
{
    for (size_t i = 0; i < d->n; i++) {
        struct sentence *s = &d->s[i];
        bool bonus = false;
        double norm = 0;

        for (size_t k = 0; k < s->n_terms; k++) {
            s->w[k] *= log(1.0 + (double)d->n / d->df[s->terms[k]]);
            s->score += s->w[k];
            norm += s->w[k] * s->w[k];
            bonus |= d->bonus[s->terms[k]];
        }
        s->score /= sqrt((double)(s->n_words ? s->n_words : 1));
        s->score *= (s->first ? 1.15 : 1.0) * (bonus ? 1.10 : 1.0) *
                    (strpbrk(s->text, "0123456789") ? 1.05 : 1.0);
        if (s->n_words < 4)
            s->score *= 0.5;
        for (size_t k = 0; k < s->n_terms && norm > 0; k++)
            s->w[k] /= sqrt(norm);
    }
}

static double cosine(const struct sentence *a, const struct sentence *b)
{
    double sum = 0;

    for (size_t i = 0; i < a->n_terms; i++)
        for (size_t k = 0; k < b->n_terms; k++)
            if (a->terms[i] == b->terms[k])
                sum += a->w[i] * b->w[k];
    return sum;
}

static void choose(struct doc *d, size_t want)
{
    double *like = xcalloc(d->n ? d->n : 1, sizeof *like), top = 0;

    for (size_t i = 0; i < d->n; i++)
        top = d->s[i].score > top ? d->s[i].score : top;
    for (size_t k = 0; k < want && k < CHOSEN_MAX; k++) {
        size_t best = d->n;
        double best_v = 0;

        for (size_t i = 0; i < d->n; i++) {
            double v = LAMBDA * d->s[i].score / (top > 0 ? top : 1) - (1 - LAMBDA) * like[i];

            if (!d->s[i].chosen && (best == d->n || v > best_v)) {
                best = i;
                best_v = v;
            }
        }
        if (best == d->n)
            break;
        d->s[best].chosen = true;
        for (size_t i = 0; i < d->n; i++) {
            double c = cosine(&d->s[best], &d->s[i]);
            like[i] = c > like[i] ? c : like[i];
        }
    }
    free(like);
}

static void write_one(const struct sentence *s, const struct source *src, struct buf *out)
{
    buf_adds(out, "- ");
    for (const char *p = s->text; *p; p++)
        buf_addc(out, *p == '\n' || *p == '\t' ? ' ' : *p);
    if (src[s->source].path)
        buf_printf(out, " (%s:%d)", src[s->source].path, s->line);
    buf_addc(out, '\n');
}

bool bi_summary(const struct source *src, size_t n_sources, const char *goal, int64_t n,
                struct buf *out)
{
    struct doc d = { .s = xcalloc(SENTENCES_MAX, sizeof *d.s) };

    map_init(&d.ids);
    mark_bonus(&d, goal);
    for (size_t i = 0; i < n_sources; i++)
        read_source(&d, &src[i], i);
    size_t want = n > 0 ? (size_t)n : d.n / 10;
    if (n <= 0)
        want = want < 3 ? 3 : want > 7 ? 7 : want;
    score_all(&d);
    choose(&d, want);
    for (size_t i = 0; i < d.n; i++)
        if (d.s[i].chosen)
            write_one(&d.s[i], src, out);
    for (size_t i = 0; i < d.n; i++)
        free(d.s[i].text);
    bool any = d.n > 0;
    free(d.s);
    free(d.df);
    free(d.bonus);
    map_done(&d.ids);
    return any;
}
