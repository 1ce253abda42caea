/* The envelope: a table of what is accepted and refused, the examples of the specification, errors
 * on their way in and out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/ipc/rpc.h"
#include "tests/rig/rig.h"

static int parse(const char *text, struct rpc_msg *m)
{
    return rpc_parse(text, strlen(text), m);
}

static void envelopes(void **state)
{
    static const struct {
        const char *text;
        int err;
        enum rpc_kind kind;
        const char *id;
    } rows[] = {
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"m\"}", 0, RPC_REQUEST, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"m\",\"params\":{}}", 0, RPC_REQUEST, "0" },
        { "{\"jsonrpc\":\"2.0\",\"id\":-5,\"method\":\"m\",\"other\":1}", 0, RPC_REQUEST, "-5" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"a\":1}}", 0, RPC_NOTE, "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":null}", 0, RPC_RESPONSE, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"x\"}}", 0,
          RPC_RESPONSE, "" },
        { "", ERR_PARSE, 0, "" },
        { "{", ERR_PARSE, 0, "" },
        { "[]", ERR_REQUEST, 0, "" },
        { "7", ERR_REQUEST, 0, "" },
        { "{\"id\":\"a\",\"method\":\"m\"}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":2.0,\"id\":\"a\",\"method\":\"m\"}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"m\"}", ERR_REQUEST, 0, "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"m\"}", ERR_REQUEST, 0, "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":9007199254740993,\"method\":\"m\"}", ERR_REQUEST, 0, "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"\",\"method\":\"m\"}", ERR_REQUEST, 0, "" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"\"}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"a\\u0000\"}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"m\",\"params\":3}", ERR_INVAL, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\"}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":1,\"error\":{}}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":1}}", ERR_REQUEST, 0, "a" },
        { "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":1.5,\"message\":\"\"}}",
          ERR_REQUEST, 0, "a" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct rpc_msg m;
        int r = parse(rows[i].text, &m);

        if (r != rows[i].err || (!r && m.kind != rows[i].kind) || !str_eq(m.id, rows[i].id))
            fail_msg("%s: %d, id %s", rows[i].text, r, m.id);
        if (!r && m.kind != RPC_RESPONSE)
            assert_non_null(m.params);
        rpc_done(&m);
    }
}

static void lengths(void **state)
{
    char text[400], name[200];

    (void)state;
    for (int n = 127; n <= 129; n++) {
        struct rpc_msg m;

        memset(name, 'x', (size_t)n);
        name[n] = '\0';
        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":\"%s\",\"method\":\"m\"}", name);
        assert_int_equal(parse(text, &m), n > 128 ? ERR_REQUEST : 0);
        rpc_done(&m);
        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\"}", name);
        assert_int_equal(parse(text, &m), n > 128 ? ERR_REQUEST : 0);
        rpc_done(&m);
    }
}

/* Section 7 of the specification. Batches and positional parameters are not spoken here. */
static void examples_of_the_specification(void **state)
{
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *doc = NULL;
    size_t len;
    json_object *cases;

    (void)state;
    text = rig_data("jsonrpc/spec-examples.json", &len);
    assert_int_equal(json_parse(text, len, &doc), 0);
    cases = json_arr(doc, "cases");
    assert_true(json_object_array_length(cases) >= 10);
    for (size_t i = 0; i < json_object_array_length(cases); i++) {
        json_object *c = json_object_array_get_idx(cases, i), *params = NULL;
        const char *req = json_str(c, "request", "");
        cleanup(json_putp) json_object *parsed = NULL;
        struct rpc_msg m;
        int want, r = parse(req, &m);

        if (json_parse(req, strlen(req), &parsed))
            want = ERR_PARSE;
        else if (!json_object_is_type(parsed, json_type_object) ||
                 !json_object_is_type(json_get(parsed, "method"), json_type_string))
            want = ERR_REQUEST;
        else if (json_object_object_get_ex(parsed, "params", &params) &&
                 !json_object_is_type(params, json_type_object))
            want = ERR_INVAL;
        else
            want = 0;
        if (r != want)
            fail_msg("%s: %d, not %d", req, r, want);
        rpc_done(&m);
    }
}

static void errors_travel(void **state)
{
    static const struct {
        const char *error;
        int err;
        const char *reason;
    } rows[] = {
        { "{\"code\":-32003,\"message\":\"x\"}", ERR_NOTFOUND, "" },
        { "{\"code\":-32003,\"message\":\"x\",\"data\":{\"errno\":\"ENOENT\"}}", ERR_NOENT, "" },
        { "{\"code\":-32003,\"message\":\"x\",\"data\":{\"errno\":\"EPERM\"}}", ERR_NOTFOUND, "" },
        { "{\"code\":-32003,\"message\":\"x\",\"data\":{\"errno\":7}}", ERR_NOTFOUND, "" },
        { "{\"code\":-32001,\"message\":\"x\",\"data\":{\"reason\":\"revoked\"}}", ERR_AUTH,
          "revoked" },
        { "{\"code\":-32050,\"message\":\"own\",\"data\":[]}", ERR_FAILED, "" },
        { "{\"code\":12,\"message\":\"own\"}", ERR_FAILED, "" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        cleanup(json_putp) json_object *o = NULL;
        struct rpc_error e;
        struct buf b = BUF_INIT(4096);
        struct rpc_msg m;

        assert_int_equal(json_parse(rows[i].error, strlen(rows[i].error), &o), 0);
        rpc_error_read(o, &e);
        assert_int_equal(e.err, rows[i].err);
        assert_string_equal(rpc_error_reason(&e), rows[i].reason);
        rpc_write_error_rpc(&b, "7", true, &e);
        assert_int_equal(parse(b.data, &m), 0);
        assert_int_equal(json_int(m.error, "code", 0), e.code);
        assert_string_equal(json_str(json_obj(m.error, "data"), "errno", ""), err_name(e.err));
        rpc_done(&m);
        rpc_error_done(&e);
        buf_done(&b);
    }
}

static void texts(void **state)
{
    struct buf b = BUF_INIT(4096);
    cleanup(json_putp) json_object *data = json_make("a:i errno:s", (int64_t)1, "EFAKE");

    (void)state;
    rpc_write_result(&b, "x\"", false, NULL);
    assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"id\":\"x\\\"\",\"result\":null}");
    buf_clear(&b);
    rpc_write_error(&b, "", false, ERR_PERM, NULL, data);
    assert_string_equal(b.data,
                        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32002,\"message\":"
                        "\"not allowed\",\"data\":{\"errno\":\"EPERM\",\"a\":1}}}");
    buf_clear(&b);
    rpc_write_error(&b, "1", true, -5, "broken", NULL);
    assert_non_null(strstr(b.data, "-32603"));
    buf_clear(&b);
    rpc_write_note(&b, "m", NULL);
    assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{}}");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(envelopes),
        cmocka_unit_test(lengths),
        cmocka_unit_test(examples_of_the_specification),
        cmocka_unit_test(errors_travel),
        cmocka_unit_test(texts),
    };

    return cmocka_run_group_tests_name("ipc rpc", tests, NULL, NULL);
}
