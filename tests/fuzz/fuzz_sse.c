/* The event-stream reader: no crash, and the same events however the bytes are cut. */
// links: llmsvc/sse.c
#include <stdint.h>

#include "llmsvc/sse.h"

struct sum {
    uint64_t h;
    size_t n;
};

static int add(const char *event, const char *data, size_t len, void *arg)
{
    struct sum *s = arg;

    if (strlen(event) > 63 || data[len] != '\0' || !utf8_valid(data, len))
        abort();
    s->h = s->h * 31 + hash_str(event) + hash_bytes(data, len) + 1;
    s->n++;
    return 0;
}

static struct sum run(const char *p, size_t size, size_t step)
{
    struct sum sum = { 0, 0 };
    struct sse s;

    sse_init(&s, add, &sum);
    for (size_t i = 0; i < size; i += step)
        if (sse_feed(&s, p + i, size - i < step ? size - i : step))
            abort();
    sse_done(&s);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sum whole = run((const char *)data, size, size ? size : 1);
    struct sum bytes = run((const char *)data, size, 1), three = run((const char *)data, size, 3);

    if (whole.h != bytes.h || whole.n != bytes.n || whole.h != three.h)
        abort();
    return 0;
}
