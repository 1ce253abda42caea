/* JSON: what is accepted, what is refused, what a tree keeps, slices, builders. */
#include "tests/unit/common/cm.h"

#include <dirent.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/json.h"

static int check(const char *s)
{
    int r = json_check(s, strlen(s));
    json_object *o = NULL;

    /* the tree reader decides the same way */
    assert_int_equal(json_parse(s, strlen(s), &o), r);
    json_put(o);
    return r;
}

static void accepts(void **state)
{
    static const char *const good[] = {
        "{}",
        " [ ] ",
        "null",
        "\"\"",
        "-0",
        "1e5",
        "-1.5E-3",
        "0",
        "[1,[2,{\"a\":[]}],\"x\"]",
        "{\"a\":1,\"b\":{\"a\":1}}",
        "\"\\ud834\\udd1e\"",
        "\"\xE2\x82\xAC\"",
        "[true,false,null]",
        "{\"a\":[{\"a\":1},{\"a\":2}],\"b\":3}",
        "123456789012345678901234567890",
        "1e999",
        "\"\\u0000\"",
        "{\"a\\u0000b\":1,\"a\":2}",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(good); i++)
        if (check(good[i]))
            fail_msg("refused: %s", good[i]);
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "--1",
        "nul",
        "truex",
        "[1 2]",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud834\"",
        "\"\\udd1e\"",
        "\"\\ud834\\u0061\"",
        "\"\t\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xF5\x80\x80\x80\"",
        "\"\x80\"",
        "\"\xE2\x82\"",
        "{} {}",
        "1 2",
        "\xEF\xBB\xBF{}",
        "NaN",
        "Infinity",
        "'a'",
        "[1]//",
        "/**/[]",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "[,1]",
        "[1,,2]",
        "{\"x\":{\"a\":1,\"b\":2,\"a\":3}}",
        "[{\"a\":1},{\"b\":1,\"b\":1}]",
        "{\"a\":}",
        "{,}",
        "{\"\":1,\"\":2}",
        "{\"\\u20ac\":1,\"\xE2\x82\xAC\":2}",
        "{\"/\":1,\"\\/\":2}",
        "-",
        "{\"a\\u0000b\":1,\"a\\u0000b\":2}",
        "[1}",
        "{\"a\":1]",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        if (check(bad[i]) != ERR_PARSE)
            fail_msg("accepted: %s", bad[i]);
}

static void nesting_has_a_limit(void **state)
{
    char text[2 * JSON_DEPTH + 3];

    (void)state;
    for (int n = JSON_DEPTH; n <= JSON_DEPTH + 1; n++) {
        memset(text, '[', (size_t)n);
        memset(text + n, ']', (size_t)n);
        text[2 * n] = '\0';
        assert_int_equal(check(text), n > JSON_DEPTH ? ERR_PARSE : 0);
    }
}

static void twins_in_large_objects(void **state)
{
    struct buf b = BUF_INIT(1 << 20);

    (void)state;
    for (int twin = 0; twin <= 1; twin++) {
        buf_clear(&b);
        buf_adds(&b, "[{\"deep\":{");
        for (int i = 0; i < 5000; i++)
            buf_printf(&b, "%s\"member%d\":%d", i ? "," : "", i, i);
        buf_adds(&b, twin ? ",\"member\\u0031234\":0}}]" : "}}]");
        assert_int_equal(check(b.data), twin ? ERR_PARSE : 0);
    }
    buf_done(&b);
}

/* nst/JSONTestSuite: y_ must be accepted (but for duplicate names, which the wire refuses), n_
 * refused, i_ is free but must not crash. */
static void conformance_suite(void **state)
{
    const char *data = getenv("AVIX_TEST_DATA");
    char dir[512], path[1024];
    unsigned n_yes = 0, n_no = 0, wrong = 0;

    (void)state;
    assert_int_equal(path_fmt(dir, sizeof(dir), "%s/json/test_parsing", data ? data : "tests/data"),
                     0);
    cleanup(dirp_close) DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        cleanup(freep) char *text = NULL;
        json_object *o = NULL;
        size_t len;

        if (!strchr("yni", e->d_name[0]) || e->d_name[1] != '_')
            continue;
        assert_int_equal(path_fmt(path, sizeof(path), "%s/%s", dir, e->d_name), 0);
        assert_int_equal(file_read(path, 1 << 20, &text, &len), 0);
        int r = json_check(text, len);
        assert_int_equal(json_parse(text, len, &o), r);
        json_put(o);
        n_yes += e->d_name[0] == 'y';
        n_no += e->d_name[0] == 'n';
        bool twins = str_starts(e->d_name, "y_object_duplicated_key");
        if ((e->d_name[0] == 'y' && !r == twins) || (e->d_name[0] == 'n' && !r)) {
            print_error("%s: %s\n", e->d_name, r ? "refused" : "accepted");
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(n_yes, 95);
    assert_int_equal(n_no, 188);
}

static void tree_keeps_values(void **state)
{
    static const char text[] =
        "{\"i\":9223372036854775807,\"big\":9223372036854775808,\"d\":0.1,"
        "\"neg\":-9223372036854775808,\"s\":\"a\\u0000b\\n\\u00e9\",\"n\":null,"
        "\"e\":1E2,\"a\":[1,\"x\",null,{}],\"t\":true}";
    cleanup(json_putp) json_object *o = NULL;

    (void)state;
    assert_int_equal(json_parse(text, sizeof(text) - 1, &o), 0);
    assert_int_equal(json_int(o, "i", 0), INT64_MAX);
    assert_int_equal(json_int(o, "neg", 0), INT64_MIN);
    assert_int_equal(json_int(o, "big", 7), 7);
    assert_true(json_num(o, "big", 0) == 9223372036854775808.0);
    assert_true(json_num(o, "d", 0) == 0.1);
    assert_null(json_get(o, "n"));
    assert_ptr_equal(json_str(o, "s", NULL), NULL); /* holds NUL: no C string */
    assert_true(json_flag(o, "t", false));
    assert_true(json_arr_has(json_arr(o, "a"), "x"));
    assert_false(json_arr_has(json_arr(o, "a"), "y"));
    assert_string_equal(json_text(o),
                        "{\"i\":9223372036854775807,\"big\":9223372036854775808,\"d\":0.1,"
                        "\"neg\":-9223372036854775808,\"s\":\"a\\u0000b\\n\xC3\xA9\",\"n\":null,"
                        "\"e\":1E2,\"a\":[1,\"x\",null,{}],\"t\":true}");
    cleanup(json_putp) json_object *c = json_dup(o);
    assert_string_equal(json_text(c), json_text(o));
}

static void canonical_is_sorted(void **state)
{
    static const char text[] = "{\"b\" : 1, \"a\" : {\"z\":[1, 2],\"y\":\"\\u0041\"}}";
    cleanup(json_putp) json_object *o = NULL;

    (void)state;
    assert_int_equal(json_parse(text, sizeof(text) - 1, &o), 0);
    cleanup(freep) char *s = json_canonical(o);
    assert_string_equal(s, "{\"a\":{\"y\":\"A\",\"z\":[1,2]},\"b\":1}");
}

static void scan_finds_members(void **state)
{
    static const char text[] =
        " { \"a\" : {\"id\":1}, \"i\\u0064\" : \"r\\n-1\" , \"m\":[1,2] ,\"z\":3}";
    static const char *const names[] = { "id", "m", "absent", "z" };
    struct json_slice s[4];
    char out[16];

    (void)state;
    assert_int_equal(json_scan(text, sizeof(text) - 1, names, s, 4), 0);
    assert_true(json_slice_str(s[0], out, sizeof(out)));
    assert_string_equal(out, "r\n-1");
    assert_true(json_slice_str(s[0], out, 5));
    assert_false(json_slice_str(s[0], out, 4));
    assert_int_equal(s[1].len, 5);
    assert_memory_equal(s[1].at, "[1,2]", 5);
    assert_int_equal(s[2].len, 0);
    assert_int_equal(s[3].len, 1);
    assert_false(json_slice_str(s[1], out, sizeof(out)));
    assert_int_equal(json_scan("[1]", 3, names, s, 4), ERR_REQUEST);
    assert_int_equal(json_scan("{\"id\":1", 7, names, s, 4), ERR_PARSE);
    assert_int_equal(json_scan("{\"id\":\"a\\u0000\"}", 16, names, s, 4), 0);
    assert_false(json_slice_str(s[0], out, sizeof(out)));
}

static void builders(void **state)
{
    cleanup(json_putp) json_object *o =
        json_make("s:s i:i b:b d:d n:s o:o", "x\"", (int64_t)-5, 1, 0.3, NULL, json_new_arr());

    (void)state;
    json_add_num(o, "whole", 2.0);
    json_add_num(o, "inf", 1.0 / 0.0);
    assert_string_equal(json_text(o), "{\"s\":\"x\\\"\",\"i\":-5,\"b\":true,\"d\":0.3,\"n\":null,"
                                      "\"o\":[],\"whole\":2.0,\"inf\":null}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),
        cmocka_unit_test(refuses),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(twins_in_large_objects),
        cmocka_unit_test(conformance_suite),
        cmocka_unit_test(tree_keeps_values),
        cmocka_unit_test(canonical_is_sorted),
        cmocka_unit_test(scan_finds_members),
        cmocka_unit_test(builders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
