/* Requests: any history becomes one that every provider takes; repairing it again changes nothing.
 */
// links: llmsvc/shape.c llmsvc/history.c llmsvc/anthropic.c llmsvc/openai.c
// links: llmsvc/wire.c llmsvc/answer.c llmsvc/fault.c
#include <stdint.h>

#include "llmsvc/wire.h"

static void build(struct lreq *r, enum kind k)
{
    struct prov_conf p = { .name = "p", .kind = k, .base_url = "https://api.openai.com" };
    struct target t = { .p = &p, .model = "m", .max_tokens = 100, .cache_auto = true };
    struct buf b = BUF_INIT(64 * 1024 * 1024);
    const char *why = "";

    if (!wire_of(k)->build(r, &t, true, &b, &why) && json_check(b.data, b.len))
        abort();
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_object *o = NULL, *sys = json_new_arr(), *again = NULL;
    const char *why = NULL;
    struct lreq r;
    struct args bad;

    if (!json_parse((const char *)data, size, &o) && json_object_is_type(o, json_type_object) &&
        !lreq_parse(o, &r, &bad)) {
        size_t n = json_object_array_length(r.messages);

        for (size_t i = 0; i < n; i++)
            if (!str_eq(json_str(json_object_array_get_idx(r.messages, i), "role", ""),
                        i % 2 ? "assistant" : "user"))
                abort();
        if (n % 2 == 0)
            abort();
        build(&r, KIND_ANTHROPIC);
        build(&r, KIND_OPENAI);
        json_object *copy = json_dup(r.messages);
        if (history_repair(copy, sys, &again, &why) || !json_object_equal(again, r.messages))
            abort();
        json_put(copy);
        json_put(again);
        lreq_done(&r);
    }
    json_put(sys);
    json_put(o);
    return 0;
}
