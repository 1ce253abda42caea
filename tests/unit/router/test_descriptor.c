/* Descriptors: fields, the short form of input, what is refused; and the histogram's figures. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "router/router.h"

static int parse(const char *text, struct entry *e)
{
    cleanup(json_putp) json_object *d = NULL;
    const char *why;

    memset(e, 0, sizeof(*e));
    assert_int_equal(json_parse(text, strlen(text), &d), 0);
    return entry_parse(e, d, &why);
}

static void fields(void **state)
{
    struct entry e;

    (void)state;
    assert_int_equal(parse("{\"name\":\"a/b\"}", &e), 0);
    assert_int_equal(e.timeout_ms, 30000);
    assert_int_equal(e.idle_ms, 120000);
    assert_string_equal(e.method, "a/b");
    assert_int_equal(e.state, TOOL_AVAILABLE);
    assert_int_equal(e.vis, VIS_ALL);
    assert_false(e.has_perms);
    json_put(e.descriptor);
    assert_int_equal(
        parse("{\"name\":\"a/b\",\"timeout\":\"2m\",\"stream_idle\":0,\"streaming\":true,"
              "\"readOnly\":true,\"idempotent\":true,\"destructive\":true,\"untrusted\":true,"
              "\"min_role\":\"operator\",\"blocking\":true,\"ipc\":{\"method\":\"ws.list\"},"
              "\"status\":{\"state\":\"degraded\",\"reason\":\"slow\",\"retry_after\":3}}",
              &e),
        0);
    assert_int_equal(e.timeout_ms, 120000);
    assert_int_equal(e.idle_ms, 0);
    assert_true(e.streaming && e.read_only && e.idempotent && e.destructive && e.untrusted &&
                e.blocking);
    assert_int_equal(e.min_role, ROLE_OPERATOR);
    assert_string_equal(e.method, "ws.list");
    assert_int_equal(e.state, TOOL_DEGRADED);
    assert_string_equal(e.reason, "slow");
    entry_restrict(&e);
    assert_false(e.blocking);
    assert_int_equal(e.min_role, ROLE_NONE);
    json_put(e.descriptor);
}

static void refused(void **state)
{
    static const char *const rows[] = {
        "{}",
        "{\"name\":\"one\"}",
        "{\"name\":\"a/b\",\"min_role\":\"king\"}",
        "{\"name\":\"a/b\",\"timeout\":\"soon\"}",
        "{\"name\":\"a/b\",\"streaming\":1}",
        "{\"name\":\"a/b\",\"visibility\":\"nobody\"}",
        "{\"name\":\"a/b\",\"visibility\":\"user:\"}",
        "{\"name\":\"a/b\",\"visibility\":\"!all\"}",
        "{\"name\":\"a/b\",\"visibility\":7}",
        "{\"name\":\"a/b\",\"ipc\":{\"method\":\"\"}}",
        "{\"name\":\"a/b\",\"ipc\":{\"method\":\"a\\\"b\"}}",
        "{\"name\":\"a/b\",\"ipc\":{\"method\":\"a\\nb\"}}",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct entry e;

        if (parse(rows[i], &e) != ERR_INVAL)
            fail_msg("accepted: %s", rows[i]);
        json_put(e.descriptor);
    }
}

static void schemas(void **state)
{
    static const struct {
        const char *input, *schema;
    } rows[] = {
        { "\"input\":{}", "{\"type\":\"object\",\"properties\":{}}" },
        { "\"input\":{\"p\":{\"type\":\"string\",\"required\":true,\"desc\":\"a path\"},\"n\":{\"type\":\"int\","
          "\"default\":3},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"float\"}},\"b\":\"bool\"}",
          "{\"type\":\"object\",\"properties\":{\"p\":{\"type\":\"string\",\"description\":\"a path\"},"
          "\"n\":{\"type\":\"integer\",\"default\":3},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}},"
          "\"b\":{\"type\":\"boolean\"}},\"required\":[\"p\"]}" },
        { "\"input\":{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\"}}}",
          "{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\"}}}" },
        { "\"input\":{\"p\":\"int\"},\"input_schema\":{\"type\":\"object\"}",
          "{\"type\":\"object\"}" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        cleanup(freep) char *text = xasprintf("{\"name\":\"a/b\",%s}", rows[i].input);
        struct entry e;

        assert_int_equal(parse(text, &e), 0);
        assert_string_equal(json_text(json_get(e.descriptor, "input_schema")), rows[i].schema);
        assert_null(json_get(e.descriptor, "input"));
        json_put(e.descriptor);
    }
}

static void quantiles(void **state)
{
    struct hist h = { .n = 0 };

    (void)state;
    assert_true(fabs(hist_quantile(&h, 0.5)) < 1e-9);
    for (int us = 1; us <= 10000; us++)
        hist_add(&h, us);
    assert_true(fabs(hist_quantile(&h, 0.5) / 5000 - 1) < 0.05);
    assert_true(fabs(hist_quantile(&h, 0.99) / 9900 - 1) < 0.05);
    assert_true(fabs(hist_quantile(&h, 0.999) / 9990 - 1) < 0.05);
    hist_add(&h, 0);
    hist_add(&h, -5);
    hist_add(&h, INT64_MAX);
    assert_int_equal(h.n, 10003);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),
        cmocka_unit_test(refused),
        cmocka_unit_test(schemas),
        cmocka_unit_test(quantiles),
    };

    return cmocka_run_group_tests_name("router descriptor", tests, NULL, NULL);
}
