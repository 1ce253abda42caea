/* Restart delays and the command line. */
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/init/init.h"

static void delays_double_up_to_ten_seconds(void **state)
{
    static const int64_t want[] = { 0, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000 };
    struct backoff b = { 0 };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(want); i++)
        assert_int_equal(backoff_next(&b, 10, 0), want[i]);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(backoff_next(&b, 10, 0), 10000);
}

static void jitter_is_a_tenth(void **state)
{
    struct backoff b = { .fails = 7 };

    (void)state;
    assert_int_equal(backoff_next(&b, 0, 100), 11000);
    assert_int_equal(backoff_next(&b, 0, -100), 9000);
}

static void a_minute_of_running_forgives(void **state)
{
    struct backoff b = { .fails = 7 };

    (void)state;
    assert_int_equal(backoff_next(&b, 59999, 0), 10000);
    assert_int_equal(backoff_next(&b, 60000, 0), 0);
    assert_int_equal(backoff_next(&b, 10, 0), 200);
}

static int parse(struct opts *o, bool *done, ...)
{
    static char *all[20][20]; /* options point into argv, as in a real process */
    static int n_calls;
    char **argv = all[n_calls++];
    int argc = 0;
    va_list ap;

    va_start(ap, done);
    argv[argc++] = xstrdup("avix-init");
    for (const char *s; (s = va_arg(ap, const char *));)
        argv[argc++] = xstrdup(s);
    va_end(ap);
    argv[argc] = NULL;
    optind = 0;
    return opts_parse(argc, argv, o, done);
}

static void options(void **state)
{
    struct opts o;
    bool done;

    (void)state;
    assert_int_equal(parse(&o, &done, "--root", "/r", "--port", "0", "--bind", "::1",
                           "--admin-addr", "none", "--log", "debug", "--log-stdout", "--json", "-v",
                           "--one-shot", NULL),
                     0);
    assert_string_equal(o.root, "/r");
    assert_int_equal(o.port, 0);
    assert_string_equal(o.bind, "::1");
    assert_string_equal(o.admin_addr, "none");
    assert_string_equal(o.log_level, "debug");
    assert_true(o.log_stdout && o.json && o.verbose && o.one_shot && !done);
    assert_int_equal(parse(&o, &done, "--root", "/r", NULL), 0);
    assert_int_equal(o.port, -1);
    assert_false(o.log_stdout || o.json || o.verbose || o.one_shot);
    assert_int_equal(parse(&o, &done, "--version", NULL), 0);
    assert_true(done);
}

static void bad_options(void **state)
{
    struct opts o;
    bool done;

    (void)state;
    unsetenv("AVIX_ROOT");
    assert_int_equal(parse(&o, &done, NULL), 2);
    assert_int_equal(parse(&o, &done, "--root", "/r", "--port", "65536", NULL), 2);
    assert_int_equal(parse(&o, &done, "--root", "/r", "--port", "x", NULL), 2);
    assert_int_equal(parse(&o, &done, "--root", "/r", "--log", "loud", NULL), 2);
    assert_int_equal(parse(&o, &done, "--root", "/r", "--what", NULL), 2);
    assert_int_equal(parse(&o, &done, "--root", "/r", "extra", NULL), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delays_double_up_to_ten_seconds),
        cmocka_unit_test(jitter_is_a_tenth),
        cmocka_unit_test(a_minute_of_running_forgives),
        cmocka_unit_test(options),
        cmocka_unit_test(bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
