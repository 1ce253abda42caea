/* Streamed text: 80 bytes or 50 ms, whole characters, no secret in any piece. */
#include "tests/unit/kernel/agent/common.h"

#include "common/base/clock.h"
#include "kernel/agent/chunk.h"

struct out {
    struct buf all;
    size_t n, biggest;
    bool broken;
};

static void emit(const char *text, size_t len, void *arg)
{
    struct out *o = arg;

    o->n++;
    o->broken = o->broken || !utf8_valid(text, len);
    o->biggest = len > o->biggest ? len : o->biggest;
    buf_add(&o->all, text, len);
}

struct fix {
    struct loop *loop;
    struct mask mask;
    struct out out;
    struct chunker c;
};

static int setup(void **state)
{
    struct fix *f = xcalloc(1, sizeof *f);

    f->loop = loop_new();
    buf_init(&f->out.all, 1 << 20);
    assert_int_equal(mask_load(&f->mask, "{\"K\":\"sesame-open\"}", 19), 0);
    chunk_init(&f->c, f->loop, &f->mask, emit, &f->out);
    chunk_begin(&f->c);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;

    chunk_done(&f->c);
    mask_done(&f->mask);
    buf_done(&f->out.all);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void text(struct fix *f, const char *s)
{
    chunk_text(&f->c, s, strlen(s));
}

static void goes_at_80_bytes(void **state)
{
    struct fix *f = *state;

    for (int i = 0; i < 7; i++)
        text(f, "0123456789");
    assert_int_equal(f->out.n, 0);
    text(f, "0123456789");
    assert_int_equal(f->out.n, 1);
    assert_int_equal(f->out.all.len, 80);
    assert_false(f->c.timer.armed);
}

static void goes_after_50_ms(void **state)
{
    struct fix *f = *state;
    int64_t t0 = mono_ms();

    text(f, "short");
    while (!f->out.n)
        loop_step(f->loop, true);
    assert_true(mono_ms() - t0 >= 45);
    assert_string_equal(f->out.all.data, "short");
}

static void keeps_characters_whole(void **state)
{
    struct fix *f = *state;
    static const char s[] = "äöü€𝄞";

    for (int k = 0; k < 40; k++)
        for (size_t i = 0; i < sizeof s - 1; i++)
            chunk_text(&f->c, s + i, 1);
    chunk_flush(&f->c, true);
    assert_false(f->out.broken);
    assert_int_equal(f->out.all.len, 40 * (sizeof s - 1));
}

static void keeps_secrets_whole(void **state)
{
    struct fix *f = *state;
    static const char s[] = "the word is sesame-open and sesame alone is none. ";

    for (int k = 0; k < 20; k++)
        for (size_t i = 0; i < sizeof s - 1; i++) {
            chunk_text(&f->c, s + i, 1);
            if (i % 7 == 0)
                chunk_flush(&f->c, false);
        }
    chunk_flush(&f->c, true);
    assert_null(strstr(f->out.all.data, "sesame-open"));
    assert_non_null(strstr(f->out.all.data, "word is [secret:K] and sesame alone"));
}

static void held_text_wakes_nobody(void **state)
{
    struct fix *f = *state;

    text(f, "sesame");
    while (f->c.timer.armed)
        loop_step(f->loop, true);
    assert_int_equal(f->out.n, 0); /* it may be the start of a secret: waits without a timer */
    chunk_flush(&f->c, true);
    assert_string_equal(f->out.all.data, "sesame");
}

static void dropped_text_is_gone(void **state)
{
    struct fix *f = *state;

    text(f, "abc");
    chunk_drop(&f->c);
    chunk_flush(&f->c, true);
    assert_int_equal(f->out.n, 0);
    assert_false(f->c.timer.armed);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(goes_at_80_bytes),    T(goes_after_50_ms),       T(keeps_characters_whole),
        T(keeps_secrets_whole), T(held_text_wakes_nobody), T(dropped_text_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
