/* The event-stream reader against what a browser delivers, in whole pieces and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/json.h"
#include "llmsvc/sse.h"

static int collect(const char *event, const char *data, size_t len, void *arg)
{
    json_push(arg, json_make("event:s data:o", *event ? event : "message",
                             json_object_new_string_len(data, (int)len)));
    return 0;
}

static void check(const char *name, const char *in, size_t len, size_t step, json_object *want)
{
    cleanup(json_putp) json_object *got = json_new_arr();
    struct sse s;

    sse_init(&s, collect, got);
    for (size_t i = 0; i < len; i += step)
        assert_int_equal(sse_feed(&s, in + i, len - i < step ? len - i : step), 0);
    sse_done(&s);
    if (json_object_array_length(got) != json_object_array_length(want))
        fail_msg("%s: %zu events, not %zu", name, json_object_array_length(got),
                 json_object_array_length(want));
    for (size_t i = 0; i < json_object_array_length(want); i++) {
        json_object *w = json_object_array_get_idx(want, i), *g = json_object_array_get_idx(got, i);

        if (!str_eq(json_str(w, "event", ""), json_str(g, "event", "")) ||
            !json_object_equal(json_get(w, "data"), json_get(g, "data")))
            fail_msg("%s: event %zu is %s", name, i, json_text(g));
    }
}

static int count(const char *event, const char *data, size_t len, void *arg)
{
    (void)event;
    (void)data;
    (void)len;
    ++*(int64_t *)arg;
    return 0;
}

/* Two vectors are described, not stored: one long line, and many events. */
static void generated(json_object *v)
{
    struct buf in = BUF_INIT(SSE_EVENT_MAX);
    struct sse s;
    int64_t n = 0;

    if (str_eq(json_str(v, "generator", ""), "long-line")) {
        buf_adds(&in, "data: ");
        for (int i = 0; i < 100000; i++)
            buf_adds(&in, "0123456789");
        buf_adds(&in, "\n\n");
    } else {
        for (int i = 0; i < 1000; i++)
            buf_printf(&in, "data: %d\n\n", i);
    }
    sse_init(&s, count, &n);
    for (size_t i = 0; i < in.len; i += 1000)
        assert_int_equal(sse_feed(&s, in.data + i, in.len - i < 1000 ? in.len - i : 1000), 0);
    assert_int_equal(n, json_int(json_obj(v, "events"), "count", 0));
    sse_done(&s);
    buf_done(&in);
}

static void vectors(void **state)
{
    const char *dir = getenv("AVIX_TEST_DATA");
    cleanup(freep) char *path = xasprintf("%s/sse/sse-vectors.json", dir ? dir : "tests/data");
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *o = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(file_read(path, 1 << 24, &text, &len), 0);
    assert_int_equal(json_parse(text, len, &o), 0);
    json_object *list = json_arr(o, "vectors");
    assert_int_equal(json_object_array_length(list), 46);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *v = json_object_array_get_idx(list, i);
        const char *b64 = json_str(v, "input_b64", "");
        size_t n = 0;

        if (!json_arr(v, "events")) {
            generated(v);
            continue;
        }
        cleanup(freep) char *in = b64_decode_new(b64, strlen(b64), &n);

        assert_non_null(in);
        for (size_t step = 1; step <= 7; step++)
            check(json_str(v, "name", ""), in, n, step, json_arr(v, "events"));
        check(json_str(v, "name", ""), in, n, n ? n : 1, json_arr(v, "events"));
    }
}

static int stop_at_once(const char *event, const char *data, size_t len, void *arg)
{
    (void)event;
    (void)data;
    (void)len;
    ++*(int *)arg;
    return ERR_CONTENT;
}

static void a_handler_stops_the_reading(void **state)
{
    struct sse s;
    int n = 0;

    (void)state;
    sse_init(&s, stop_at_once, &n);
    assert_int_equal(sse_feed(&s, "data: 1\n\ndata: 2\n\n", 18), ERR_CONTENT);
    assert_int_equal(n, 1);
    sse_done(&s);
}

static void an_event_has_a_ceiling(void **state)
{
    struct sse s;
    int n = 0, r = 0;
    cleanup(freep) char *block = xmalloc(65536);

    (void)state;
    memset(block, 'x', 65536);
    sse_init(&s, stop_at_once, &n);
    assert_int_equal(sse_feed(&s, "data: ", 6), 0);
    for (int i = 0; i < 128 && !r; i++)
        r = sse_feed(&s, block, 65536);
    assert_int_equal(r, ERR_PROVPROTO);
    sse_reset(&s);
    for (int i = 0; i < 100 && !r; i++) {
        r = sse_feed(&s, "data: ", 6);
        r = r ? r : sse_feed(&s, block, 65536);
        r = r ? r : sse_feed(&s, "\n", 1);
    }
    assert_int_equal(r, ERR_PROVPROTO);
    sse_done(&s);
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(a_handler_stops_the_reading),
        cmocka_unit_test(an_event_has_a_ceiling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
