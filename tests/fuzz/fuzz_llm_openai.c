/* Answers of the openai wire format: no crash, every chunk is JSON, done comes once and last. */
// links: llmsvc/sse.c llmsvc/answer.c llmsvc/anthropic.c llmsvc/openai.c
// links: llmsvc/wire.c llmsvc/fault.c llmsvc/shape.c llmsvc/history.c
#include <stdint.h>

#include "llmsvc/sse.h"
#include "llmsvc/wire.h"

static const struct prov_conf conf = { .name = "p", .kind = KIND_OPENAI };
static bool done;

static void chunk(const char *json, size_t len, void *arg)
{
    (void)arg;
    if (json_check(json, len) || done)
        abort();
    done = strstr(json, "\"type\":\"done\"") == json + 1;
}

static int event(const char *name, const char *data, size_t len, void *arg)
{
    return wire_openai.event(arg, name, data, len);
}

static void finish(struct answer *a, struct fault *f, int r)
{
    if ((r != 0) != (f->err != 0))
        abort();
    if (!r)
        answer_finish(a);
    else
        answer_flush(a);
    json_put(answer_content(a));
    free(answer_partial(a));
    json_put(fault_data(f, "p", 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fault f = FAULT_NONE;
    struct answer a;
    struct names names;
    struct decoder d;
    struct sse s;
    json_object *o = NULL;

    done = false;
    names_init(&names);
    names_wire(&names, "fs/read");
    answer_init(&a, chunk, NULL, true);
    decoder_init(&d, &a, &names, &conf, &f);
    if (!json_parse((const char *)data, size, &o)) {
        if (json_object_is_type(o, json_type_object))
            finish(&a, &f, wire_openai.whole(&d, o));
        json_put(o);
    } else {
        sse_init(&s, event, &d);
        int r = sse_feed(&s, (const char *)data, size);
        finish(&a, &f, r ? r : wire_openai.end(&d));
        sse_done(&s);
    }
    answer_done(&a);
    names_done(&names);
    fault_done(&f);
    return 0;
}
