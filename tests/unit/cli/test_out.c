/* Output: foreign text cannot drive a terminal, ids and numbers, exit codes, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/client/url.h"

const struct command commands[] = { { "x", "", "", "", NULL } };
const size_t n_commands = 1;

static char *safe(const char *s, bool multi)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    print_safe(f, s, strlen(s), multi);
    fclose(f);
    return text;
}

static void expect_safe(const char *in, bool multi, const char *want)
{
    char *got = safe(in, multi);
    assert_string_equal(got, want);
    free(got);
}

static void escapes_are_shown_as_text(void **state)
{
    (void)state;
    expect_safe("plain ä 漢", false, "plain ä 漢");
    expect_safe("\x1b[31mred", false, "\\x1b[31mred");
    expect_safe("\x1b]0;title\a", true, "\\x1b]0;title\\x07");
    expect_safe("a\nb\tc", true, "a\nb\tc");
    expect_safe("a\nb", false, "a\\x0ab");
    expect_safe("a\rb", true, "a\\x0db");
}

static void hidden_characters_are_shown(void **state)
{
    (void)state;
    expect_safe("\xe2\x80\xae"
                "evil",
                true, "\\u{202e}evil"); /* right-to-left override */
    expect_safe("a\xe2\x80\x8b"
                "b",
                true, "a\\u{200b}b");                    /* zero width space */
    expect_safe("\xf3\xa0\x81\x81", true, "\\u{e0041}"); /* tag character */
    expect_safe("\xc2\x9b"
                "31m",
                true, "\\x9b31m");               /* C1 control */
    expect_safe("\xff\xfe", true, "\\xff\\xfe"); /* no UTF-8 */
}

static void codes_have_exits(void **state)
{
    (void)state;
    assert_int_equal(exit_of_code("EAUTH"), EX_AUTH);
    assert_int_equal(exit_of_code("EEXPIRED"), EX_AUTH);
    assert_int_equal(exit_of_code("EPERM"), EX_PERM);
    assert_int_equal(exit_of_code("ENOTFOUND"), EX_NOTFOUND);
    assert_int_equal(exit_of_code("EUSED"), EX_CONFLICT);
    assert_int_equal(exit_of_code("ELIMIT"), EX_LIMIT);
    assert_int_equal(exit_of_code("EUNAVAIL"), EX_UNAVAIL);
    assert_int_equal(exit_of_code("EPARSE"), EX_PARSE);
    assert_int_equal(exit_of_code("nonsense"), EX_INTERNAL);
}

static void numbers_have_commas(void **state)
{
    (void)state;
    char b[32];
    assert_string_equal(num_text(0, b, sizeof b), "0");
    assert_string_equal(num_text(999, b, sizeof b), "999");
    assert_string_equal(num_text(1234567, b, sizeof b), "1,234,567");
    assert_string_equal(num_text(-1234, b, sizeof b), "-1,234");
}

static void addresses(void **state)
{
    (void)state;
    struct url u;
    assert_true(url_parse("http://localhost:9142", &u));
    assert_false(u.tls);
    assert_string_equal(u.host, "localhost");
    assert_int_equal(u.port, 9142);
    assert_true(url_parse("wss://avix.example/atp", &u));
    assert_true(u.tls);
    assert_int_equal(u.port, 443);
    assert_string_equal(u.text, "https://avix.example:443");
    assert_true(url_parse("https://[::1]:7/", &u));
    assert_string_equal(u.host, "::1");
    assert_string_equal(u.hostport, "[::1]:7");
    assert_false(url_parse("ftp://x", &u));
    assert_false(url_parse("http://", &u));
    assert_false(url_parse("http://x:0", &u));
    assert_false(url_parse("http://x:70000", &u));
    assert_false(url_parse("http://x/other", &u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_are_shown_as_text),
        cmocka_unit_test(hidden_characters_are_shown),
        cmocka_unit_test(codes_have_exits),
        cmocka_unit_test(numbers_have_commas),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
