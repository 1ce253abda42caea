/*
 * make bench: a table on stdout, and with BENCH_JSON=file the rows as JSON. Ends with 1 if a
 * judged row failed. Arguments: the folder of the programs, then names of groups (all if none).
 */
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/base/fsx.h"
#include "common/base/json.h"
#include "tests/bench/bench.h"

#define ROWS_MAX 128
#define NOISE    1.08 /* a goal is missed when the best of three runs is above it by this */

static struct row rows[ROWS_MAX];
static size_t n_rows;

static void cell(double v)
{
    if (isnan(v))
        printf(" %9s", "-");
    else if (v >= 100)
        printf(" %9.0f", v);
    else
        printf(" %9.3g", v);
}

static void head(void)
{
    printf("%-30s %9s %9s %9s %9s %7s %7s  %s\n", "name", "p50", "p99", "floor", "target", "ratio",
           "", "");
}

void row_add(const struct row *r)
{
    if (n_rows == ROWS_MAX)
        return;
    rows[n_rows++] = *r;
    printf("%-30s", r->name);
    cell(r->p50);
    cell(r->p99);
    cell(r->floor);
    cell(r->target);
    if (isnan(r->ratio))
        printf(" %7s", "-");
    else
        printf(" %7.2f", r->ratio);
    printf(" %7s  %s%s%s\n",
           isnan(r->target) ? ""
           : r->pass        ? "ok"
                            : "MISSED",
           r->unit, r->note[0] ? "; " : "", r->note);
    fflush(stdout);
}

static struct row row_of(const char *name, const char *unit, double p50, double p99,
                         const char *note)
{
    struct row r = { .unit = unit,
                     .p50 = p50,
                     .p99 = p99,
                     .floor = NAN,
                     .target = NAN,
                     .ratio = NAN,
                     .pass = true };

    str_copy(r.name, sizeof(r.name), name);
    str_copy(r.note, sizeof(r.note), note ? note : "");
    return r;
}

void row_judge(const char *name, const char *unit, const struct target *t, double floor,
               double ratio, double goal, const char *note)
{
    struct row r = row_of(name, unit, t->p50, t->p99, note);

    r.floor = floor;
    r.target = goal;
    r.ratio = ratio;
    r.pass = ratio <= goal * NOISE;
    row_add(&r);
}

void row_ratio(const char *name, const char *unit, double p50, double p99, double floor,
               double target, const char *note)
{
    struct target t = { .p50 = p50, .p99 = p99 };

    row_judge(name, unit, &t, floor, p50 / floor, target, note);
}

void row_limit(const char *name, const char *unit, double p50, double p99, double target,
               const char *note)
{
    struct row r = row_of(name, unit, p50, p99, note);

    r.target = target;
    r.pass = p50 <= target;
    row_add(&r);
}

void row_info(const char *name, const char *unit, double p50, double p99, const char *note)
{
    struct row r = row_of(name, unit, p50, p99, note);

    row_add(&r);
}

void row_skip(const char *name, const char *why)
{
    struct row r = row_of(name, "", NAN, NAN, why);

    row_add(&r);
}

static void add_num(json_object *o, const char *key, double v)
{
    if (isnan(v))
        json_add(o, key, NULL);
    else
        json_add_num(o, key, v);
}

static void write_json(const char *path)
{
    json_object *a = json_new_arr();

    for (size_t i = 0; i < n_rows; i++) {
        json_object *o = json_make("name:s unit:s", rows[i].name, rows[i].unit);

        add_num(o, "p50", rows[i].p50);
        add_num(o, "p99", rows[i].p99);
        add_num(o, "floor", rows[i].floor);
        add_num(o, "target", rows[i].target);
        add_num(o, "ratio", rows[i].ratio);
        json_add_bool(o, "pass", rows[i].pass);
        json_add_str(o, "note", rows[i].note);
        json_push(a, o);
    }
    if (file_write_rename(path, json_text(a), strlen(json_text(a)), 0644))
        perror(path);
    json_put(a);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(const char *bin);
    } groups[] = {
        { "routed", bench_routed },
        { "prims", bench_prims },
        { "suite", bench_suite },
        { "stream", bench_stream },
    };
    const char *bin = argc > 1 ? argv[1] : "build/bin", *json = getenv("BENCH_JSON");
    size_t failed = 0;

    setenv("AVIX_TEST_BIN", bin, 1);
    /* So that other work on this machine disturbs less; floors and targets alike. */
    if (setpriority(PRIO_PROCESS, 0, -19))
        fprintf(stderr, "not running at high priority\n");
    head();
    for (size_t i = 0; i < N_ELEMS(groups); i++) {
        bool wanted = argc <= 2;

        for (int k = 2; k < argc; k++)
            wanted = wanted || str_eq(argv[k], groups[i].name);
        if (wanted)
            groups[i].fn(bin);
    }
    if (json)
        write_json(json);
    for (size_t i = 0; i < n_rows; i++)
        failed += !rows[i].pass;
    printf(
        "%zu rows, %zu missed; a ratio may exceed its target by 8 %% (noise), the best of up to three "
        "runs counts\n",
        n_rows, failed);
    return failed != 0;
}
