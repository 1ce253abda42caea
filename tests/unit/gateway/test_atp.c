/* Frames in and out, and the closed set of errors. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/atp.h"

static void frames_in(void **state)
{
    static const struct {
        const char *text;
        enum atp_code want;
        const char *id; /* readable */
    } cases[] = {
        { "{\"type\":\"cmd\",\"id\":\"1\",\"domain\":\"proc\",\"op\":\"list\"}", ATP_OK, "1" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"domain\":\"proc\",\"op\":\"list\",\"body\":null,"
          "\"extra\":[1]}",
          ATP_OK, "1" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"domain\":\"proc\",\"op\":\"list\",\"body\":[]}",
          ATP_EPARSE, "1" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"domain\":7,\"op\":\"list\"}", ATP_EPARSE, "1" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"domain\":\"proc\"}", ATP_EPARSE, "1" },
        { "{\"type\":\"cmd\",\"id\":1,\"domain\":\"proc\",\"op\":\"list\"}", ATP_EPARSE, "" },
        { "{\"type\":\"cmd\",\"id\":\"\",\"domain\":\"proc\",\"op\":\"list\"}", ATP_EPARSE, "" },
        { "{\"type\":\"cmd\",\"id\":\"a\\nb\",\"domain\":\"proc\",\"op\":\"list\"}", ATP_EPARSE,
          "" },
        { "{\"type\":\"cmd\",\"id\":\"\xc3\xa9\",\"domain\":\"proc\",\"op\":\"list\"}", ATP_EPARSE,
          "" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"token\":5,\"domain\":\"proc\",\"op\":\"list\"}",
          ATP_EPARSE, "1" },
        { "{\"type\":\"reply\",\"id\":\"9\"}", ATP_EPARSE, "9" },
        { "{\"id\":\"9\"}", ATP_EPARSE, "9" },
        { "{\"type\":\"cmd\",\"id\":\"1\",\"id\":\"2\"}", ATP_EPARSE, "" },
        { "[]", ATP_EPARSE, "" },
        { "null", ATP_EPARSE, "" },
        { "", ATP_EPARSE, "" },
        { "{", ATP_EPARSE, "" },
        { "{\"type\":\"subscribe\",\"events\":[\"*\"]}", ATP_OK, "" },
        { "{\"type\":\"subscribe\",\"events\":[],\"id\":\"s\",\"since_seq\":0,\"pids\":[1,\"2\"]}",
          ATP_OK, "s" },
        { "{\"type\":\"subscribe\",\"events\":\"*\",\"id\":\"s\"}", ATP_EPARSE, "s" },
        { "{\"type\":\"subscribe\",\"events\":[1],\"id\":\"s\"}", ATP_EPARSE, "s" },
        { "{\"type\":\"subscribe\",\"events\":[],\"since_seq\":-1}", ATP_EPARSE, "" },
        { "{\"type\":\"subscribe\",\"events\":[],\"since_seq\":\"1\"}", ATP_EPARSE, "" },
        { "{\"type\":\"subscribe\",\"events\":[],\"pids\":[\"x\"]}", ATP_EPARSE, "" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct atp_err e = { .detail = NULL };
        struct atp_in in;

        assert_int_equal(atp_parse(cases[i].text, strlen(cases[i].text), &in, &e), cases[i].want);
        assert_string_equal(in.id, cases[i].id);
        if (!cases[i].want && in.kind == ATP_CMD)
            assert_true(json_object_is_type(in.body, json_type_object));
        atp_in_done(&in);
        atp_err_done(&e);
    }
}

static void ids_and_kinds_have_limits(void **state)
{
    struct atp_err e = { .detail = NULL };
    struct atp_in in;
    char id[140], text[300];
    struct buf b = BUF_INIT(65536);

    (void)state;
    memset(id, 'a', sizeof(id));
    id[129] = '\0';
    snprintf(text, sizeof(text), "{\"type\":\"cmd\",\"id\":\"%s\",\"domain\":\"a\",\"op\":\"b\"}",
             id);
    assert_int_equal(atp_parse(text, strlen(text), &in, &e), ATP_EPARSE);
    assert_string_equal(in.id, "");
    atp_in_done(&in);
    id[128] = '\0';
    snprintf(text, sizeof(text), "{\"type\":\"cmd\",\"id\":\"%s\",\"domain\":\"a\",\"op\":\"b\"}",
             id);
    assert_int_equal(atp_parse(text, strlen(text), &in, &e), ATP_OK);
    atp_in_done(&in);
    buf_adds(&b, "{\"type\":\"subscribe\",\"id\":\"s\",\"events\":[\"*\"");
    for (int i = 0; i < 64; i++)
        buf_adds(&b, ",\"x\"");
    buf_adds(&b, "]}");
    assert_int_equal(atp_parse(b.data, b.len, &in, &e), ATP_EPARSE);
    assert_string_equal(in.id, "s");
    atp_in_done(&in);
    atp_err_done(&e);
    buf_done(&b);
}

static enum atp_code mapped(int err, int code, const char *data, char *detail, size_t size)
{
    struct rpc_error r = { .err = err, .code = code, .message = "the text" };
    struct atp_err e = { .detail = NULL };
    char ref[17];
    enum atp_code c;

    if (data)
        assert_int_equal(json_parse(data, strlen(data), &r.data), 0);
    atp_from_rpc(&e, &r, ref);
    c = e.code;
    snprintf(detail, size, "%s|%s", e.message, e.detail ? json_text(e.detail) : "");
    assert_int_equal(c == ATP_EINTERNAL, ref[0] != '\0');
    json_put(r.data);
    atp_err_done(&e);
    return c;
}

/* Every row of err.def, by its number, against the table of the page. */
static void every_number_has_a_code(void **state)
{
    static const struct {
        int code;
        enum atp_code want;
    } cases[] = {
        { -32002, ATP_EPERM },     { -32034, ATP_EPERM },     { -32003, ATP_ENOTFOUND },
        { -32006, ATP_ECONFLICT }, { -32030, ATP_ECONFLICT }, { -32009, ATP_EUSED },
        { -32004, ATP_ELIMIT },    { -32008, ATP_ELIMIT },    { -32031, ATP_ELIMIT },
        { -32033, ATP_ELIMIT },    { -32700, ATP_EPARSE },    { -32600, ATP_EPARSE },
        { -32602, ATP_EPARSE },    { -32000, ATP_EINTERNAL }, { -32001, ATP_EINTERNAL },
        { -32603, ATP_EINTERNAL }, { -32005, ATP_EUNAVAIL },  { -32007, ATP_EUNAVAIL },
        { -32601, ATP_EUNAVAIL },  { -32010, ATP_EUNAVAIL },  { -32020, ATP_EUNAVAIL },
        { -32029, ATP_EUNAVAIL },  { -32032, ATP_EUNAVAIL },  { -32040, ATP_EINTERNAL },
        { -1, ATP_EINTERNAL },
    };
    char d[400];

    (void)state;
    for (size_t i = 0; i < N_ELEMS(cases); i++)
        assert_int_equal(mapped(err_from_code(cases[i].code), cases[i].code, NULL, d, sizeof(d)),
                         cases[i].want);
}

static void details(void **state)
{
    char d[400];

    (void)state;
    /* the name wins over the number, but not for our own token */
    assert_int_equal(mapped(ERR_CONFLICT, -32006, "{\"errno\":\"EUSED\"}", d, sizeof(d)),
                     ATP_EUSED);
    assert_int_equal(mapped(ERR_AUTH, -32001, "{\"errno\":\"EAUTH\"}", d, sizeof(d)),
                     ATP_EINTERNAL);
    assert_non_null(strstr(d, "internal error|{\"ref\":"));
    assert_null(strstr(d, "the text"));
    mapped(ERR_INVAL, -32602, "{\"errno\":\"EINVAL\",\"param\":\"goal\"}", d, sizeof(d));
    assert_non_null(strstr(d, "\"field\":\"goal\""));
    mapped(ERR_LIMIT, -32004,
           "{\"errno\":\"ELIMIT\",\"limit\":\"quota.agents\",\"retry_after_ms\":5}", d, sizeof(d));
    assert_string_equal(d, "the text|{\"limit\":\"quota.agents\",\"retryAfterMs\":5}");
    mapped(ERR_NOENT, -32003, "{\"errno\":\"ENOENT\"}", d, sizeof(d));
    assert_non_null(strstr(d, "\"reason\":\"ENOENT\""));
    mapped(ERR_TIMEOUT, -32007, "{\"errno\":\"ETIMEOUT\",\"phase\":\"call\",\"forwarded\":true}", d,
           sizeof(d));
    assert_non_null(strstr(d, "\"reason\":\"timeout\""));
    assert_null(strstr(d, "forwarded"));
}

static void frames_out(void **state)
{
    struct buf b = BUF_INIT(65536);
    struct atp_err e = { .detail = NULL };
    cleanup(json_putp) json_object *o = NULL;

    (void)state;
    atp_fail(&e, ATP_EPERM, "no \"%s\"", "way");
    atp_detail_str(&e, "required", "admin_listener");
    atp_write_fail(&b, "req-2", &e);
    assert_string_equal(b.data,
                        "{\"type\":\"reply\",\"id\":\"req-2\",\"ok\":false,\"error\":{\"code\":"
                        "\"EPERM\",\"message\":\"no \\\"way\\\"\",\"detail\":{\"required\":"
                        "\"admin_listener\"}},\"code\":\"EPERM\",\"message\":\"no \\\"way\\\"\"}");
    buf_clear(&b);
    atp_write_ok(&b, "r", NULL);
    assert_string_equal(b.data, "{\"type\":\"reply\",\"id\":\"r\",\"ok\":true,\"body\":null}");
    buf_clear(&b);
    atp_write_event(&b, 7, "agent.exit", "s", 1777111200123, "{\"pid\":\"1\"}", 11);
    assert_string_equal(b.data,
                        "{\"type\":\"event\",\"seq\":7,\"event\":\"agent.exit\",\"sessionId\":"
                        "\"s\",\"ts\":\"2026-04-25T10:00:00.123Z\",\"body\":{\"pid\":\"1\"}}");
    assert_int_equal(json_parse(b.data, b.len, &o), 0);
    buf_done(&b);
    atp_err_done(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_in),
        cmocka_unit_test(ids_and_kinds_have_limits),
        cmocka_unit_test(every_number_has_a_code),
        cmocka_unit_test(details),
        cmocka_unit_test(frames_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
