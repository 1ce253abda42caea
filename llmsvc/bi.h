#pragma once
/* Inside the builtin provider: parsing of goals, the plan, evaluation, summaries. */
#include "common/base/buf.h"
#include "common/base/json.h"
#include "llmsvc/shape.h"

#define CLAUSES_MAX 8
#define PATHS_MAX   8
#define QUOTES_MAX  8
#define STEPS_MAX   16
#define FILE_MAX    (256 * 1024)
#define TEXT_MAX    (2 * 1024 * 1024)

/* One clause of a goal: what was found in it. All texts owned by the clause. */
struct clause {
    char *text;  /* as written */
    char *words; /* lower case, without paths, quotes and code; words parted by one blank, one at
                    each end */
    char *paths[PATHS_MAX];
    size_t n_paths;
    char *quotes[QUOTES_MAX];
    size_t n_quotes;
    char *glob; /* a word with * or ?, or NULL */
    char *code, *language;
    char *json;    /* what stands in braces, or NULL */
    char *expr;    /* arithmetic, or NULL */
    int64_t count; /* "in 3 bullets"; 0: not said */
};
struct plan {
    struct clause c[CLAUSES_MAX];
    size_t n;
};
/* user: for relative paths. */
void plan_parse(const char *goal, const char *user, struct plan *p);
void plan_done(struct plan *p);
/* True if the words contain this word or phrase. */
bool has_word(const struct clause *c, const char *phrase);
bool has_any(const struct clause *c, const char *const *phrases); /* NULL-ended */

/* Evaluates arithmetic. False if it is none. python (may be NULL) gets the same as Python. */
bool bi_eval(const char *expr, double *ret, struct buf *python);
/* A number as people write it. */
void bi_number(double v, char out[40]);

/* A source for a summary. */
struct source {
    const char *path; /* borrowed; NULL: the text of the request itself */
    const char *text;
    size_t len;
};
/* Appends the summary of the sources: bullets with path:line. n: sentences wanted, 0: by size.
 * False if there was nothing to say. */
bool bi_summary(const struct source *s, size_t n_sources, const char *goal, int64_t n,
                struct buf *out);
/* CSV, JSON and logs: columns, keys, counts. False if it is none of them. */
bool bi_data(const struct source *s, struct buf *out);

/* The run of a plan. */
struct bi {
    const struct lreq *req;
    const char *goal;
    char user[64];
    json_object *results; /* id to {content, is_error}, of the messages after the goal */
    json_object *pending; /* calls to make now: [{id, name, input}] */
    int step;
    bool request_tools;
    struct buf say;  /* said before the calls */
    struct buf prev; /* answer of the clause before */
    char *prev_path; /* file the clause before was about */
};
bool bi_has(const struct bi *b, const char *tool);
/* The result of a call (borrowed), or NULL: it is pending now, or the limit is reached. input
 * taken. */
const char *bi_call(struct bi *b, const char *tool, json_object *input, bool *error);
/* True while a call waits for its result. */
bool bi_waits(const struct bi *b);
/* Text of {"error":{...}} results, "" if none. */
void bi_error_text(const char *result, char out[300]);
/* One clause: its answer into out. */
void bi_clause(struct bi *b, const struct clause *c, struct buf *out);
/* bi_more.c: rows without files. */
void bi_help(struct bi *b, struct buf *out);
void bi_refuse(const struct clause *c, struct buf *out);
void bi_run_code(struct bi *b, const struct clause *c, struct buf *out);
void bi_compute(struct bi *b, const struct clause *c, struct buf *out);
void bi_memory(struct bi *b, const struct clause *c, bool store, struct buf *out);
void bi_delegate(struct bi *b, const struct clause *c, struct buf *out);
void bi_use(struct bi *b, const struct clause *c, struct buf *out);
/* Says which tool is missing and how to get it. */
void bi_missing(struct bi *b, const char *tool, struct buf *out);
