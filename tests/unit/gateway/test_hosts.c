/* Host, Origin, cookies, tokens, forwarding, heads. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/hosts.h"

static json_object *list(const char *text)
{
    json_object *o = NULL;

    assert_int_equal(json_parse(text, strlen(text), &o), 0);
    return o;
}

static void hosts(void **state)
{
    cleanup(json_putp) json_object *extra = list("[\"avix.example\"]");
    static const struct {
        const char *host;
        bool loop, open, extra_loop;
    } cases[] = {
        { "localhost:9142", true, true, true },
        { "LOCALHOST", true, true, true },
        { "127.0.0.1:9142", true, true, true },
        { "[::1]:9142", true, true, true },
        { "127.0.0.2", false, true, false },
        { "evil.example:9142", false, true, false },
        { "avix.example:9142", false, true, true },
        { "localhost.evil.example", false, true, false },
        { "localhost:9142:1", false, false, false },
        { "localhost:x", false, false, false },
        { "localhost, evil", false, false, false },
        { "a b", false, false, false },
        { "a\";script", false, false, false },
        { "", false, false, false },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        assert_int_equal(host_allowed(cases[i].host, true, NULL), cases[i].loop);
        assert_int_equal(host_allowed(cases[i].host, false, NULL), cases[i].open);
        assert_int_equal(host_allowed(cases[i].host, true, extra), cases[i].extra_loop);
    }
    /* names given: other binds are checked too */
    assert_false(host_allowed("other.example", false, extra));
    assert_true(host_allowed("avix.example", false, extra));
}

static void origins(void **state)
{
    cleanup(json_putp) json_object *extra = list("[\"https://app.example\"]");

    (void)state;
    assert_true(origin_allowed(NULL, false, "localhost:1", NULL));
    assert_true(origin_allowed("", false, "localhost:1", NULL));
    assert_true(origin_allowed("http://localhost:1", false, "localhost:1", NULL));
    assert_false(origin_allowed("https://localhost:1", false, "localhost:1", NULL));
    assert_true(origin_allowed("https://localhost:1", true, "localhost:1", NULL));
    assert_false(origin_allowed("http://localhost:2", false, "localhost:1", NULL));
    assert_false(origin_allowed("http://127.0.0.1:1", false, "localhost:1", NULL));
    assert_false(origin_allowed("http://evil.example", false, "localhost:1", extra));
    assert_false(origin_allowed("null", false, "localhost:1", extra));
    assert_true(origin_allowed("https://app.example", false, "localhost:1", extra));
}

static void tokens_and_cookies(void **state)
{
    char v[32];

    (void)state;
    assert_string_equal(bearer_token("Bearer abc"), "abc");
    assert_string_equal(bearer_token("bEARER   abc"), "abc");
    assert_null(bearer_token("Basic abc"));
    assert_null(bearer_token("Bearer "));
    assert_null(bearer_token("Bearerabc"));
    assert_null(bearer_token(""));
    assert_true(cookie_get("avix_atp=x.y", "avix_atp", v, sizeof(v)));
    assert_string_equal(v, "x.y");
    assert_true(cookie_get("a=1; avix_atp=\"q\" ; b=2", "avix_atp", v, sizeof(v)));
    assert_string_equal(v, "q");
    assert_false(cookie_get("xavix_atp=1", "avix_atp", v, sizeof(v)));
    assert_false(cookie_get("avix_atp2=1", "avix_atp", v, sizeof(v)));
    assert_false(cookie_get("avix_atp=", "avix_atp", v, sizeof(v)));
    assert_false(
        cookie_get("avix_atp=0123456789012345678901234567890123456789", "avix_atp", v, sizeof(v)));
    assert_false(cookie_get("", "avix_atp", v, sizeof(v)));
}

static void addresses(void **state)
{
    cleanup(json_putp) json_object *c =
        list("[\"10.0.0.0/8\",\"192.168.1.7\",\"fd00::/8\",\"bad\"]");
    char v[64];

    (void)state;
    assert_true(cidr_match("10.1.2.3", c));
    assert_true(cidr_match("::ffff:10.1.2.3", c));
    assert_false(cidr_match("11.1.2.3", c));
    assert_true(cidr_match("192.168.1.7", c));
    assert_false(cidr_match("192.168.1.8", c));
    assert_true(cidr_match("fd12::1", c));
    assert_false(cidr_match("fe80::1", c));
    assert_false(cidr_match("nonsense", c));
    assert_false(cidr_match("10.1.2.3", NULL));
    assert_true(addr_is_loopback("127.9.9.9"));
    assert_true(addr_is_loopback("::1"));
    assert_true(addr_is_loopback("::ffff:127.0.0.1"));
    assert_false(addr_is_loopback("128.0.0.1"));
    /* the rightmost that is no proxy: what stands left of it anyone could have written */
    assert_true(forwarded_for("6.6.6.6, 5.5.5.5, 10.0.0.9", c, v, sizeof(v)));
    assert_string_equal(v, "5.5.5.5");
    assert_false(forwarded_for("10.0.0.9", c, v, sizeof(v)));
    assert_false(forwarded_for("junk, 10.0.0.9", c, v, sizeof(v)));
    assert_false(forwarded_for("", c, v, sizeof(v)));
}

static void heads(void **state)
{
    static const char h[] = "GET /atp HTTP/1.1\r\nHost: x\r\nUpgrade:  WebSocket \r\n"
                            "authorization: Bearer t\r\n\r\nrest";
    char v[32];

    (void)state;
    assert_int_equal(head_len(h, sizeof(h) - 1), sizeof(h) - 1 - 4);
    assert_int_equal(head_len(h, 30), 0);
    assert_true(head_get(h, sizeof(h) - 5, "AUTHORIZATION", v, sizeof(v)));
    assert_string_equal(v, "Bearer t");
    assert_false(head_get(h, sizeof(h) - 5, "origin", v, sizeof(v)));
    assert_false(head_get(h, sizeof(h) - 5, "authorization", v, 4));
    assert_true(head_is_upgrade(h, sizeof(h) - 5, "/atp"));
    assert_false(head_is_upgrade(h, sizeof(h) - 5, "/at"));
    assert_false(head_is_upgrade("GET /atpx HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 43, "/atp"));
    assert_true(head_is_upgrade("GET /atp?x HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 44, "/atp"));
    assert_false(head_is_upgrade("POST /atp HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 43, "/atp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts),
        cmocka_unit_test(origins),
        cmocka_unit_test(tokens_and_cookies),
        cmocka_unit_test(addresses),
        cmocka_unit_test(heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
