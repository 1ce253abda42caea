/* hash-256: words, word pairs and letter triples hashed with FNV-1a into signed buckets. */
#include <ctype.h>
#include <math.h>

#include "llmsvc/builtin.h"

#define WORD_MAX 64

static void add(double v[EMBED_DIM], const char *s, size_t n, double weight)
{
    uint64_t h = hash_bytes(s, n);

    v[h % EMBED_DIM] += h & (1ULL << 63) ? -weight : weight;
}

static void word(double v[EMBED_DIM], const char *w, const char *prev)
{
    char text[2 * WORD_MAX + 4];
    size_t n = strlen(w);

    add(v, w, n, 1.0);
    if (*prev) {
        int len = snprintf(text, sizeof text, "%s %s", prev, w);
        add(v, text, (size_t)len, 0.7);
    }
    int len = snprintf(text, sizeof text, "^%s$", w);
    for (int i = 0; i + 3 <= len; i++)
        add(v, text + i, 3, 0.3);
}

json_object *builtin_embed(const char *s)
{
    double v[EMBED_DIM] = { 0 }, sum = 0;
    char w[WORD_MAX] = "", prev[WORD_MAX] = "";
    size_t n = 0;

    for (const char *p = s;; p++) {
        bool in = *p && (isalnum((unsigned char)*p) || (*p & 0x80));

        if (in && n < WORD_MAX - 1)
            w[n++] = (char)tolower((unsigned char)*p);
        if (!in && n) {
            w[n] = '\0';
            word(v, w, prev);
            str_copy(prev, sizeof prev, w);
            n = 0;
        }
        if (!*p)
            break;
    }
    for (size_t i = 0; i < EMBED_DIM; i++)
        sum += v[i] * v[i];
    json_object *out = json_new_arr();
    for (size_t i = 0; i < EMBED_DIM; i++)
        json_push(out, json_object_new_double(sum > 0 ? v[i] / sqrt(sum) : 0));
    return out;
}
