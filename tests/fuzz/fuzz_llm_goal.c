/* Goals of the builtin rules, arithmetic and summaries: no crash, bounded results. */
// links: llmsvc/bi_parse.c llmsvc/bi_eval.c llmsvc/bi_summary.c llmsvc/bi_data.c
#include <stdint.h>

#include "llmsvc/bi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size);
    struct buf out = BUF_INIT(TEXT_MAX);
    struct plan p;
    double v = 0;

    plan_parse(text, "alice", &p);
    if (p.n > CLAUSES_MAX)
        abort();
    for (size_t i = 0; i < p.n; i++)
        for (size_t k = 0; k < p.c[i].n_paths; k++)
            if (p.c[i].paths[k][0] != '/')
                abort();
    plan_done(&p);
    (void)bi_eval(text, &v, &out);
    static const char *const names[] = { "/a.md", "/a.csv", "/a.json", "/a.log", "/a.tsv" };
    for (size_t i = 0; i < N_ELEMS(names); i++) {
        struct source s = { names[i], text, strlen(text) };

        buf_clear(&out);
        (void)bi_data(&s, &out);
    }
    struct source s = { "/a.md", text, strlen(text) };
    buf_clear(&out);
    (void)bi_summary(&s, 1, text, 0, &out);
    buf_done(&out);
    free(text);
    return 0;
}
