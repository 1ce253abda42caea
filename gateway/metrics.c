/*
 * Counters by "name{labels}". Those that count events sit in arrays: they are touched for every
 * event and every client.
 */
#include "gateway/metrics.h"

#include "common/base/map.h"

static const int64_t bounds_us[] = { 10,    50,    100,    500,    1000,    5000,
                                     10000, 50000, 100000, 500000, 1000000, 10000000 };
#define N_BOUNDS N_ELEMS(bounds_us)

struct hist {
    char name[64], labels[128];
    uint64_t counts[N_BOUNDS + 1], n;
    double sum;
};

uint64_t metric_published[KIND_COUNT], metric_sent[KIND_COUNT];
static struct map counters, hists;

static void key_of(const char *name, const char *labels, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s%s", name, labels ? "{" : "", labels ? labels : "",
             labels ? "}" : "");
}

void metric_add(const char *name, const char *labels, double n)
{
    char key[256];
    double *v;

    key_of(name, labels, key, sizeof(key));
    v = map_get(&counters, key);
    if (!v) {
        v = xcalloc(1, sizeof(*v));
        map_put(&counters, key, v);
    }
    *v += n;
}

double metric_get(const char *name, const char *labels)
{
    char key[256];
    double *v;

    key_of(name, labels, key, sizeof(key));
    v = map_get(&counters, key);
    return v ? *v : 0;
}

void metric_time(const char *name, const char *labels, int64_t us)
{
    char key[256];
    struct hist *h;
    size_t i = 0;

    key_of(name, labels, key, sizeof(key));
    h = map_get(&hists, key);
    if (!h) {
        h = xcalloc(1, sizeof(*h));
        str_copy(h->name, sizeof(h->name), name);
        str_copy(h->labels, sizeof(h->labels), labels ? labels : "");
        map_put(&hists, key, h);
    }
    while (i < N_BOUNDS && us > bounds_us[i])
        i++;
    h->counts[i]++;
    h->n++;
    h->sum += (double)us / 1e6;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Lines of one name must stand together. */
static void write_counters(struct buf *b)
{
    const char **keys = xcalloc(counters.n + 1, sizeof(*keys));
    size_t n = 0, pos = 0;
    const char *key;
    void *v;

    while (map_each(&counters, &pos, &key, &v))
        keys[n++] = key;
    qsort(keys, n, sizeof(*keys), by_text);
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "avix_gateway_%s %.17g\n", keys[i], *(double *)map_get(&counters, keys[i]));
    free(keys);
}

static void write_hist(struct buf *b, const struct hist *h)
{
    const char *comma = h->labels[0] ? "," : "";
    uint64_t total = 0;

    for (size_t i = 0; i < N_BOUNDS; i++) {
        total += h->counts[i];
        buf_printf(b, "avix_gateway_%s_bucket{%s%sle=\"%g\"} %llu\n", h->name, h->labels, comma,
                   (double)bounds_us[i] / 1e6, (unsigned long long)total);
    }
    buf_printf(b, "avix_gateway_%s_bucket{%s%sle=\"+Inf\"} %llu\n", h->name, h->labels, comma,
               (unsigned long long)h->n);
    const char *open = h->labels[0] ? "{" : "", *shut = h->labels[0] ? "}" : "";
    buf_printf(b, "avix_gateway_%s_sum%s%s%s %.9g\n", h->name, open, h->labels, shut, h->sum);
    buf_printf(b, "avix_gateway_%s_count%s%s%s %llu\n", h->name, open, h->labels, shut,
               (unsigned long long)h->n);
}

void metrics_write(struct buf *b)
{
    size_t pos = 0;
    const char *key;
    void *v;

    write_counters(b);
    while (map_each(&hists, &pos, &key, &v))
        write_hist(b, v);
    for (int i = 0; i < KIND_COUNT; i++)
        if (metric_published[i])
            buf_printf(b, "avix_gateway_events_published_total{kind=\"%s\"} %llu\n", kinds[i].name,
                       (unsigned long long)metric_published[i]);
    for (int i = 0; i < KIND_COUNT; i++)
        if (metric_sent[i])
            buf_printf(b, "avix_gateway_events_sent_total{kind=\"%s\"} %llu\n", kinds[i].name,
                       (unsigned long long)metric_sent[i]);
}

void metrics_fini(void)
{
    size_t pos = 0;
    const char *key;
    void *v;

    while (map_each(&counters, &pos, &key, &v))
        free(v);
    map_done(&counters);
    pos = 0;
    while (map_each(&hists, &pos, &key, &v))
        free(v);
    map_done(&hists);
}
