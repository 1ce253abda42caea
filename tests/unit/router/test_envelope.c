/* Splicing: what is kept, what is dropped, what a reply is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "router/envelope.h"

static const struct span caller = { "{\"kind\":\"agent\"}", 16 };

static void params_are_spliced(void **state)
{
    static const struct {
        const char *params, *forwarded;
    } rows[] = {
        { "{}", "{\"_caller\":{\"kind\":\"agent\"}}" },
        { "{\"a\":1}", "{\"_caller\":{\"kind\":\"agent\"},\"a\":1}" },
        { "{\"_token\":\"t\",\"a\":1,\"b\":[{}]}",
          "{\"_caller\":{\"kind\":\"agent\"},\"a\":1,\"b\":[{}]}" },
        { "{\"a\":1,\"_token\":\"t\",\"b\":2}",
          "{\"_caller\":{\"kind\":\"agent\"},\"a\":1,\"b\":2}" },
        { "{\"a\":1,\"_token\":\"t\"}", "{\"_caller\":{\"kind\":\"agent\"},\"a\":1}" },
        { " { \"a\" : 1 , \"_token\" : \"t\" , \"c\" : -2.5e3 } ",
          "{\"_caller\":{\"kind\":\"agent\"},\"a\" : 1,\"c\" : -2.5e3}" },
        { "{\"_token\":\"t\",\"_caller\":{\"x\":1},\"_user\":{},\"_as\":\"h\",\"_peer\":{},\"_timeout_ms\":5,"
          "\"_trace\":1,\"_caller_pid\":1,\"_caller_user\":\"u\",\"_caller_token\":\"t\",\"_next\":0}",
          "{\"_caller\":{\"kind\":\"agent\"}}" },
        { "{\"\\u005fcaller\":1,\"_\\u0074oken\":\"x\",\"a\":\"_token\"}",
          "{\"_caller\":{\"kind\":\"agent\"},\"a\":\"_token\"}" },
        { "{\"a\":{\"_token\":1},\"s\":\"\\\"}{,\",\"t\":true}",
          "{\"_caller\":{\"kind\":\"agent\"},\"a\":{\"_token\":1},\"s\":\"\\\"}{,\",\"t\":true}" },
        { "{\"_a\":1,\"x\":1,\"_b\":[1,2],\"y\":2,\"_c\":{\"k\":1},\"z\":3}",
          "{\"_caller\":{\"kind\":\"agent\"},\"x\":1,\"y\":2,\"z\":3}" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        char text[1024], want[1024];
        struct env e;
        struct buf b = BUF_INIT(4096);

        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"a/b\",\"params\":%s}", rows[i].params);
        snprintf(want, sizeof(want),
                 "{\"jsonrpc\":\"2.0\",\"id\":\"7\",\"method\":\"c.d\",\"params\":%s}",
                 rows[i].forwarded);
        assert_int_equal(env_parse(text, strlen(text), &e), 0);
        env_write(&e, "c.d", caller, &b);
        assert_string_equal(b.data, want);
        buf_done(&b);
    }
}

/* More runs of kept members than there is room for: refused, not cut. */
static void too_many_unknown_reserved_names(void **state)
{
    struct buf b = BUF_INIT(1 << 16);
    struct env e;

    (void)state;
    buf_adds(&b, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"a/b\",\"params\":{\"z\":0");
    for (int i = 0; i < 40; i++)
        buf_printf(&b, ",\"_x%d\":1,\"y%d\":2", i, i);
    buf_adds(&b, "}}");
    assert_int_equal(env_parse(b.data, b.len, &e), ERR_REQUEST);
    buf_done(&b);
}

static void reserved_values(void **state)
{
    static const char text[] =
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"a/b\",\"params\":{"
        "\"_token\":\"a.b\",\"_as\":\"h\\u0041\",\"_timeout_ms\":250,\"name\":\"n\"}}";
    struct env e;
    char out[16];
    struct json_slice s;

    (void)state;
    assert_int_equal(env_parse(text, sizeof(text) - 1, &e), 0);
    assert_true(env_str(&e, RES_TOKEN, out, sizeof(out)));
    assert_string_equal(out, "a.b");
    assert_true(env_str(&e, RES_AS, out, sizeof(out)));
    assert_string_equal(out, "hA");
    assert_false(env_str(&e, RES_TIMEOUT, out, sizeof(out)));
    assert_int_equal(e.res[RES_TIMEOUT].len, 3);
    assert_false(env_str(&e, RES_USER, out, sizeof(out)));
    assert_true(env_member(&e, "name", &s));
    assert_int_equal(s.len, 3);
    assert_false(env_member(&e, "other", &s));
}

static void replies(void **state)
{
    static const struct {
        const char *text;
        enum reply_kind kind;
        int code;
        bool has_errno;
    } rows[] = {
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"result\":null}", REPLY_RESULT, 0, false },
        { "{\"result\":{},\"id\":\"\\u0072\",\"jsonrpc\":\"2.0\"}", REPLY_RESULT, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"id\":1}}", REPLY_NOTE, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":-32001,\"message\":\"m\"}}",
          REPLY_ERROR, -32001, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":5,\"message\":\"m\",\"data\":{\"errno\":\"E\"}}}",
          REPLY_ERROR, 5, true },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":5,\"message\":\"m\",\"data\":{\"errno\":1}}}",
          REPLY_ERROR, 5, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"s\",\"result\":1}", REPLY_BAD, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":1}", REPLY_BAD, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\"}", REPLY_BAD, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"method\":7}", REPLY_BAD, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":\"5\",\"message\":\"m\"}}",
          REPLY_BAD, 0, false },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":5}}", REPLY_BAD, 0, false },
        { "{\"id\":\"r\",\"result\":1}", REPLY_BAD, 0, false },
        { "nonsense", REPLY_BAD, 0, false },
    };
    struct env e = { .kind = RPC_REQUEST, .id = "r" };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct reply r;

        reply_scan(rows[i].text, strlen(rows[i].text), &e, &r);
        if (r.kind != rows[i].kind || r.code != rows[i].code || r.has_errno != rows[i].has_errno)
            fail_msg("%s: %d %d %d", rows[i].text, r.kind, r.code, r.has_errno);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(params_are_spliced),
        cmocka_unit_test(too_many_unknown_reserved_names),
        cmocka_unit_test(reserved_values),
        cmocka_unit_test(replies),
    };

    return cmocka_run_group_tests_name("router envelope", tests, NULL, NULL);
}
