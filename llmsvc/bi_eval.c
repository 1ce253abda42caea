/*
 * Arithmetic by recursive descent: + - * / % ^ ( ), sqrt sum mean min max, and the words plus,
 * minus, times, divided by, percent of. The same walk writes the expression as Python.
 */
#include <ctype.h>
#include <math.h>
#include <strings.h>

#include "llmsvc/bi.h"

#define DEPTH_MAX 32
#define ARGS_MAX  256

struct eval {
    const char *p;
    bool bad;
    int depth;
    struct buf *py;
};

static void py(struct eval *e, const char *s)
{
    if (e->py)
        buf_adds(e->py, s);
}

static void blanks(struct eval *e)
{
    e->p += strspn(e->p, " \t");
}

static bool word(struct eval *e, const char *w)
{
    size_t n = strlen(w);

    blanks(e);
    if (strncasecmp(e->p, w, n) != 0 || isalpha((unsigned char)e->p[n]))
        return false;
    e->p += n;
    return true;
}

static double sum(struct eval *e);

static double call(struct eval *e, const char *name)
{
    double v[ARGS_MAX], out = 0;
    size_t n = 0;
    bool paren = false;

    blanks(e);
    (void)(word(e, "of") || word(e, "root of"));
    blanks(e);
    if (*e->p == '(') {
        paren = true;
        e->p++;
    }
    py(e, str_eq(name, "sqrt") ? "math.sqrt(" : str_eq(name, "mean") ? "statistics.mean([" : name);
    py(e, str_eq(name, "sqrt") || str_eq(name, "mean") ? "" : "([");
    do {
        if (n)
            py(e, ", ");
        if (n == ARGS_MAX) {
            e->bad = true;
            return 0;
        }
        v[n++] = sum(e);
        blanks(e);
        if (*e->p == ',')
            e->p++;
        else if (!word(e, "and"))
            break;
    } while (!e->bad && *e->p);
    py(e, str_eq(name, "sqrt") ? ")" : "])");
    blanks(e);
    if (paren && *e->p++ != ')')
        e->bad = true;
    if (str_eq(name, "sqrt")) {
        e->bad |= n != 1 || v[0] < 0;
        return e->bad ? 0 : sqrt(v[0]);
    }
    out = str_eq(name, "min") || str_eq(name, "max") ? v[0] : 0;
    for (size_t i = 0; i < n; i++) {
        if (str_eq(name, "min"))
            out = v[i] < out ? v[i] : out;
        else if (str_eq(name, "max"))
            out = v[i] > out ? v[i] : out;
        else
            out += v[i];
    }
    return str_eq(name, "mean") ? out / (double)n : out;
}

static double number(struct eval *e)
{
    char text[64];
    size_t n = 0;
    const char *p = e->p;

    /* 1,000,000: a comma before exactly three digits belongs to the number */
    while ((isdigit((unsigned char)*p) || *p == '.' ||
            (*p == ',' && n && isdigit((unsigned char)p[1]) && isdigit((unsigned char)p[2]) &&
             isdigit((unsigned char)p[3]) && !isdigit((unsigned char)p[4]))) &&
           n < sizeof text - 1) {
        if (*p != ',')
            text[n++] = *p;
        p++;
    }
    text[n] = '\0';
    char *end = NULL;
    double v = strtod(text, &end);
    if (!n || *end)
        e->bad = true;
    e->p = p;
    py(e, text);
    return v;
}

static double atom(struct eval *e)
{
    static const char *const names[][2] = { { "sqrt", "sqrt" },    { "square root", "sqrt" },
                                            { "sum", "sum" },      { "mean", "mean" },
                                            { "average", "mean" }, { "min", "min" },
                                            { "max", "max" } };

    blanks(e);
    if (++e->depth > DEPTH_MAX)
        e->bad = true;
    if (e->bad)
        return 0;
    double v = 0;
    (void)word(e, "the");
    blanks(e);
    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (word(e, names[i][0])) {
            v = call(e, names[i][1]);
            e->depth--;
            return v;
        }
    if (*e->p == '(') {
        e->p++;
        py(e, "(");
        v = sum(e);
        blanks(e);
        if (*e->p++ != ')') {
            e->bad = true;
            e->p--;
        }
        py(e, ")");
    } else if (*e->p == '-') {
        e->p++;
        py(e, "-");
        v = -atom(e);
    } else {
        v = number(e);
    }
    e->depth--;
    return v;
}

static double power(struct eval *e)
{
    double v = atom(e);

    blanks(e);
    if (*e->p == '^' || !strncmp(e->p, "**", 2)) {
        e->p += *e->p == '^' ? 1 : 2;
        py(e, "**");
        if (++e->depth > DEPTH_MAX)
            e->bad = true;
        v = e->bad ? 0 : pow(v, power(e));
        e->depth--;
    }
    return v;
}

static bool percent_of(struct eval *e)
{
    const char *save = e->p;

    blanks(e);
    if (*e->p == '%') {
        e->p++;
        if (word(e, "of"))
            return true;
    } else if (word(e, "percent") && word(e, "of")) {
        return true;
    }
    e->p = save;
    return false;
}

static double product(struct eval *e)
{
    double v = power(e);

    while (!e->bad) {
        blanks(e);
        if (percent_of(e)) {
            py(e, " / 100 * ");
            v = v / 100 * power(e);
        } else if (*e->p == '*' || word(e, "times") || word(e, "multiplied by")) {
            e->p += *e->p == '*';
            py(e, " * ");
            v *= power(e);
        } else if (*e->p == '/' || word(e, "divided by") || word(e, "over")) {
            e->p += *e->p == '/';
            py(e, " / ");
            double d = power(e);
            e->bad |= !(d < 0 || d > 0);
            v = e->bad ? 0 : v / d;
        } else if (*e->p == '%' || word(e, "mod")) {
            e->p += *e->p == '%';
            py(e, " % ");
            double d = power(e);
            e->bad |= !(d < 0 || d > 0);
            v = e->bad ? 0 : v - d * floor(v / d); /* the sign of the divisor, as in Python */
        } else {
            break;
        }
    }
    return v;
}

static double sum(struct eval *e)
{
    double v = product(e);

    while (!e->bad) {
        blanks(e);
        if (*e->p == '+' || word(e, "plus")) {
            e->p += *e->p == '+';
            py(e, " + ");
            v += product(e);
        } else if (*e->p == '-' || word(e, "minus")) {
            e->p += *e->p == '-';
            py(e, " - ");
            v -= product(e);
        } else {
            break;
        }
    }
    return v;
}

bool bi_eval(const char *expr, double *ret, struct buf *python)
{
    struct eval e = { .p = expr, .py = python };
    double v = sum(&e);

    blanks(&e);
    if (e.bad || *e.p || !isfinite(v))
        return false;
    *ret = v;
    return true;
}

void bi_number(double v, char out[40])
{
    if (fabs(v) < 1e15 && floor(v) >= v && floor(v) <= v)
        snprintf(out, 40, "%.0f", v);
    else
        snprintf(out, 40, "%.12g", v);
}
