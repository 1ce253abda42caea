/* Errors, small helpers, buffers, encodings, time, randomness, tables. */
#include "tests/unit/common/cm.h"

#include <errno.h>

#include "common/base/b64.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/rnd.h"
#include "common/base/toolname.h"
#include "common/base/vpath.h"

static void errors_have_names_and_codes(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_PARSE), "EPARSE");
    assert_int_equal(err_code(ERR_TOOBIG), -32031);
    assert_int_equal(err_code(0), -32603);
    assert_int_equal(err_code(-5), -32603);
    assert_int_equal(err_code(ERR_COUNT), -32603);
    assert_string_equal(err_name(12345), "EINTERNAL");
    for (int i = 1; i < ERR_COUNT; i++) {
        assert_int_equal(err_from_name(err_name(i)), i);
        assert_int_equal(err_code(err_from_code(err_code(i))), err_code(i));
        assert_true(err_text(i)[0] != '\0');
    }
    assert_int_equal(err_from_code(-32001), ERR_AUTH);
    assert_int_equal(err_from_code(-32699), ERR_INTERNAL);
    assert_int_equal(err_from_code(-32050), ERR_FAILED);
    assert_int_equal(err_from_code(7), ERR_FAILED);
    assert_int_equal(err_from_name("nothing"), ERR_NONE);
    assert_int_equal(err_from_name(NULL), ERR_NONE);
    assert_int_equal(err_from_errno(ENOENT), ERR_NOENT);
    assert_int_equal(err_from_errno(EXDEV), ERR_XDEV);
    assert_int_equal(err_from_errno(EACCES), ERR_PERM);
    assert_int_equal(err_from_errno(9999), ERR_INTERNAL);
}

static void text_helpers(void **state)
{
    char small[4];
    int64_t v = 7;

    (void)state;
    assert_true(str_eq(NULL, NULL));
    assert_false(str_eq(NULL, ""));
    assert_true(str_starts("abc", "ab"));
    assert_false(str_starts(NULL, "a"));
    assert_true(str_ends("abc", "bc"));
    assert_false(str_ends("c", "bc"));
    assert_true(str_empty(NULL) && str_empty("") && !str_empty(" "));
    assert_true(str_copy(small, sizeof(small), "abc"));
    assert_false(str_copy(small, sizeof(small), "abcd"));
    assert_string_equal(small, "abc");
    assert_true(parse_i64("-5", -10, 10, &v) && v == -5);
    assert_true(parse_i64("9223372036854775807", 0, INT64_MAX, &v) && v == INT64_MAX);
    v = 7;
    static const char *const bad[] = { "",     " 1", "+1", "1 ",  "1x",
                                       "0x10", "11", "-",  "--1", "99999999999999999999",
                                       NULL };
    for (int i = 0; bad[i]; i++)
        assert_false(parse_i64(bad[i], 0, 10, &v));
    assert_false(parse_i64(NULL, 0, 10, &v));
    assert_int_equal(v, 7);
}

static void durations(void **state)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: malformed */
    } rows[] = { { "15", 15000 },  { "250ms", 250 },  { "30s", 30000 },
                 { "5m", 300000 }, { "2h", 7200000 }, { "7d", 604800000 },
                 { "0", 0 },       { "", -1 },        { "s", -1 },
                 { "-5s", -1 },    { "5 s", -1 },     { "5S", -1 },
                 { "1.5s", -1 },   { "5ss", -1 },     { "99999999999999h", -1 } };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int64_t ms = -1;

        assert_int_equal(parse_duration_ms(rows[i].text, &ms), rows[i].ms >= 0);
        assert_int_equal(ms, rows[i].ms);
    }
}

static void utf8(void **state)
{
    static const char *const good[] = { "",
                                        "a",
                                        "\xC3\xA9",
                                        "\xE2\x82\xAC",
                                        "\xF0\x9F\x98\x80",
                                        "\xF4\x8F\xBF\xBF",
                                        "\xED\x9F\xBF",
                                        "\xEE\x80\x80" };
    static const char *const bad[] = { "\x80",
                                       "\xC0\x80",
                                       "\xC1\xBF",
                                       "\xE0\x80\x80",
                                       "\xED\xA0\x80",
                                       "\xF0\x80\x80\x80",
                                       "\xF4\x90\x80\x80",
                                       "\xF5\x80\x80\x80",
                                       "\xFF",
                                       "\xC3",
                                       "\xE2\x82",
                                       "a\xC3" };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(good); i++)
        assert_true(utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_false(utf8_valid(bad[i], strlen(bad[i])));
    assert_false(utf8_valid("12345678\xC3", 9));
    assert_int_equal(utf8_floor("ab\xE2\x82", 4), 2);
    assert_int_equal(utf8_floor("ab\xE2\x82\xAC", 5), 5);
    assert_int_equal(utf8_floor("ab\xF0\x9F\x98", 5), 2);
    assert_int_equal(utf8_floor("ab", 2), 2);
    assert_int_equal(utf8_floor("", 0), 0);
    assert_int_equal(utf8_floor("a\xFF", 2), 2); /* malformed, not cut off */
}

static void globs(void **state)
{
    static const struct {
        const char *p, *s;
        bool yes;
    } rows[] = {
        { "*", "", true },
        { "*", "abc", true },
        { "a*c", "abbc", true },
        { "a*c", "abbd", false },
        { "?", "a", true },
        { "?", "", false },
        { "[a-c]x", "bx", true },
        { "[!a-c]x", "bx", false },
        { "[!a-c]x", "dx", true },
        { "[]]", "]", true },
        { "[", "[", true },
        { "*a*b*c", "xaybzc", true },
        { "*a*b*c", "xaybz", false },
        { "", "", true },
        { "", "a", false },
        { "a/b*", "a/bc/d", true },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (glob_match(rows[i].p, rows[i].s) != rows[i].yes)
            fail_msg("%s against %s", rows[i].p, rows[i].s);
    /* no exponential case: 64 stars against a long miss */
    char p[129], s[4096];
    for (int i = 0; i < 64; i++)
        memcpy(p + 2 * i, "*a", 2);
    p[128] = '\0';
    memset(s, 'a', sizeof(s) - 2);
    memcpy(s + sizeof(s) - 2, "b", 2);
    assert_false(glob_match(p, s));
    assert_true(tool_pattern_match("fs/read", "fs/read"));
    assert_false(tool_pattern_match("fs/read", "fs/read2"));
    assert_true(tool_pattern_match("fs/*", "fs/read"));
    assert_true(tool_pattern_match("kernel/*", "kernel/proc/list"));
    assert_false(tool_pattern_match("fs/*", "fs"));
    assert_false(tool_pattern_match("fs/*", "fs/"));
    assert_false(tool_pattern_match("fs*", "fs/read"));
    assert_true(tool_pattern_match("*", "anything"));
}

static void constant_time_equality(void **state)
{
    (void)state;
    assert_true(ct_equal("abc", "abc", 3));
    assert_false(ct_equal("abc", "abd", 3));
    assert_true(ct_equal("abc", "abd", 2));
    assert_true(ct_equal("", "", 0));
    assert_true(hash_str("a") == 0xaf63dc4c8601ec8cULL);
}

static void buffers_have_a_ceiling(void **state)
{
    struct buf b = BUF_INIT(10);

    (void)state;
    assert_int_equal(buf_adds(&b, "12345"), 0);
    assert_int_equal(buf_adds(&b, "678901"), ERR_TOOBIG);
    assert_true(b.toobig);
    assert_string_equal(b.data, "12345");
    assert_int_equal(buf_printf(&b, "%d", 67890), 0);
    assert_int_equal(b.len, 10);
    assert_int_equal(buf_addc(&b, 'x'), ERR_TOOBIG);
    assert_int_equal(buf_printf(&b, "%s", "no"), ERR_TOOBIG);
    buf_shift(&b, 7);
    assert_string_equal(b.data, "890");
    buf_shift(&b, 99);
    assert_int_equal(b.len, 0);
    buf_clear(&b);
    assert_false(b.toobig);
    cleanup(freep) char *empty = buf_take(&b);
    assert_string_equal(empty, "");
    cleanup(freep) char *none = buf_take(&b);
    assert_string_equal(none, "");

    struct buf big = BUF_INIT(SIZE_MAX);
    cleanup(freep) char *word = xmalloc(2001);
    memset(word, 'w', 2000);
    word[2000] = '\0';
    assert_int_equal(buf_printf(&big, "%s%s", word, word), 0);
    assert_int_equal(big.len, 4000);
    buf_done(&big);
}

static void json_strings(void **state)
{
    struct buf b = BUF_INIT(1000);

    (void)state;
    assert_int_equal(buf_add_json_str(&b, "a\"\\\n\x01\x7F\0z", 9 - 1), 0);
    assert_string_equal(b.data, "\"a\\\"\\\\\\n\\u0001\\u007f\\u0000z\"");
    buf_clear(&b);
    assert_int_equal(buf_add_json_str(&b, "\xC3\xA9\xFF\xE2\x82", 5), 0);
    assert_string_equal(b.data, "\"\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    buf_done(&b);
    struct buf small = BUF_INIT(5);
    assert_int_equal(buf_adds(&small, "ab"), 0);
    assert_int_equal(buf_add_json_str(&small, "cde", 3), ERR_TOOBIG);
    assert_string_equal(small.data, "ab"); /* all or nothing */
    buf_done(&small);
}

static void base64_and_hex(void **state)
{
    static const char *const texts[] = { "", "f", "fo", "foo", "foob", "fooba", "foobar" };
    static const char *const url[] = { "", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy" };
    static const char *const bad[] = { "Z", "Zh", "Zm9", "Zg==", "Zm 8", "Zm9v\n", "Zm+v", "Zm/v" };
    char out[64];

    (void)state;
    for (size_t i = 0; i < N_ELEMS(texts); i++) {
        size_t n = strlen(texts[i]), len;

        assert_int_equal(b64url_encode(texts[i], n, out), strlen(url[i]));
        assert_string_equal(out, url[i]);
        assert_int_equal(B64URL_LEN(n), strlen(url[i]));
        assert_int_equal(b64url_decode(url[i], strlen(url[i]), out, n), n);
        assert_memory_equal(out, texts[i], n);
        if (n)
            assert_int_equal(b64url_decode(url[i], strlen(url[i]), out, n - 1), -1);
        cleanup(freep) char *std = b64_encode_new(texts[i], n);
        assert_int_equal(strlen(std) % 4, 0);
        cleanup(freep) char *back = b64_decode_new(std, strlen(std), &len);
        assert_non_null(back);
        assert_int_equal(len, n);
        assert_memory_equal(back, texts[i], n);
    }
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_int_equal(b64url_decode(bad[i], strlen(bad[i]), out, sizeof(out)), -1);
    assert_int_equal(b64url_decode("-_-_", 4, out, 3), 3);
    assert_memory_equal(out, "\xFB\xFF\xBF", 3);
    static const char *const bad_std[] = { "Zg",   "Zg=",  "Zg===", "Z===",
                                           "Zh==", "=Zg=", "Zm-v",  "Zg==Zg==" };
    for (size_t i = 0; i < N_ELEMS(bad_std); i++) {
        size_t len;
        assert_null(b64_decode_new(bad_std[i], strlen(bad_std[i]), &len));
    }
    hex_encode("\x00\xAB\xFF", 3, out);
    assert_string_equal(out, "00abff");
    assert_true(hex_decode("00aBFf", 6, out));
    assert_memory_equal(out, "\x00\xAB\xFF", 3);
    assert_false(hex_decode("0", 1, out));
    assert_false(hex_decode("0g", 2, out));
}

static void instants(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-04-25T10:00:00.123Z", 1777111200123 },
        { "2026-04-25T12:00:00.123456789+02:00", 1777111200123 },
        { "2026-04-25T04:30:00.1-05:30", 1777111200100 },
        { "2000-02-29T23:59:59Z", 951868799000 },
        { "1969-12-31T23:59:59.999Z", -1 },
        { "9999-12-31T23:59:59Z", 253402300799000 },
    };
    static const char *const bad[] = { "",
                                       "2026-04-25",
                                       "2026-13-01T00:00:00Z",
                                       "2026-02-29T00:00:00Z",
                                       "2026-04-25T24:00:00Z",
                                       "2026-04-25T10:00:00",
                                       "2026-04-25T10:00:00.Z",
                                       "2026-04-25T10:00:00+0200",
                                       "2026-04-25T10:00:00Zx",
                                       "2026-04-25 10:00:00Z",
                                       "2026-04-25T10:00:00.1234567890Z" };
    char out[RFC3339_LEN];
    int64_t ms;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        assert_true(rfc3339_parse(rows[i].text, &ms));
        assert_int_equal(ms, rows[i].ms);
        assert_true(rfc3339_parse(rfc3339(ms, out), &ms)); /* and back */
        assert_int_equal(ms, rows[i].ms);
    }
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_false(rfc3339_parse(bad[i], &ms));
    assert_false(rfc3339_parse(NULL, &ms));
    assert_string_equal(rfc3339(1777111200123, out), "2026-04-25T10:00:00.123Z");
    assert_string_equal(rfc3339(INT64_MAX, out), "9999-12-31T23:59:59.999Z");
    int64_t a = mono_us();
    assert_true(mono_us() >= a && mono_ms() >= a / 1000 && now_ms() > 1700000000000);
}

static void randomness(void **state)
{
    char a[UUID_LEN], b[UUID_LEN], s[33];

    (void)state;
    assert_true(uuid_valid(uuid4(a)) && uuid_valid(uuid4(b)));
    assert_string_not_equal(a, b);
    assert_false(uuid_valid("00000000-0000-0000-0000-000000000000"));
    assert_false(uuid_valid("0"));
    assert_false(uuid_valid(NULL));
    a[0] = 'X';
    assert_false(uuid_valid(a));
    rnd_base62(s, 32);
    assert_int_equal(strlen(s), 32);
    assert_int_equal(strspn(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
                     32);
}

static void maps(void **state)
{
    struct map m;
    char key[32];
    int values[1000];
    size_t i, n;
    const char *k;
    void *v;

    (void)state;
    map_init(&m);
    assert_null(map_get(&m, "x"));
    assert_null(map_del(&m, "x"));
    for (i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "some-longer-key-%zu", i);
        assert_null(map_put(&m, key, &values[i]));
    }
    assert_ptr_equal(map_put(&m, "some-longer-key-5", &values[0]), &values[5]);
    assert_ptr_equal(map_getn(&m, "some-longer-key-77xx", 18), &values[77]);
    assert_int_equal(m.n, 1000);
    for (i = 0, n = 0; map_each(&m, &i, &k, &v);)
        if (strlen(k) % 2)
            assert_non_null(map_del(&m, k));
        else
            n++;
    assert_int_equal(m.n, n);
    for (i = 0; map_each(&m, &i, &k, &v); n--)
        assert_int_equal(strlen(k) % 2, 0);
    assert_int_equal(n, 0);
    /* churn does not fill the table with removal marks */
    for (i = 0; i < 100000; i++) {
        snprintf(key, sizeof(key), "churn-%zu", i);
        map_put(&m, key, &values[1]);
        assert_ptr_equal(map_del(&m, key), &values[1]);
    }
    assert_true(m.cap <= 4096);
    assert_null(map_put(&m, "", &values[2]));
    assert_ptr_equal(map_get(&m, ""), &values[2]);
    map_done(&m);
    assert_int_equal(m.n, 0);
}

static void tool_names(void **state)
{
    static const struct {
        const char *name, *wire; /* NULL: not a tool name */
    } rows[] = {
        { "fs/read", "fs__read" },
        { "mcp/github/list-prs", "mcp__github__list-prs" },
        { "a/b_c.d", "a__b_c.d" },
        { "A/B", "A__B" },
        { "1/2", "1__2" },
        { "fs", NULL },
        { "", NULL },
        { "/fs/read", NULL },
        { "fs/", NULL },
        { "fs//read", NULL },
        { "a_/b", NULL },
        { "a/_b", NULL },
        { "a/b__c", NULL },
        { "a/b-", NULL },
        { "a/.b", NULL },
        { "a/b c", NULL },
        { "a/\xC3\xA9", NULL },
    };
    char out[2 * TOOL_MAX], back[2 * TOOL_MAX], longest[TOOL_MAX + 2];

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        size_t n = strlen(rows[i].name);

        assert_int_equal(tool_name_valid(rows[i].name, n), rows[i].wire != NULL);
        ssize_t w = tool_mangle(rows[i].name, n, out, sizeof(out));
        if (!rows[i].wire) {
            assert_int_equal(w, -1);
            continue;
        }
        assert_int_equal(w, strlen(rows[i].wire));
        assert_string_equal(out, rows[i].wire);
        assert_int_equal(tool_unmangle(out, (size_t)w, back, sizeof(back)), n);
        assert_string_equal(back, rows[i].name);
        assert_int_equal(tool_mangle(rows[i].name, n, out, (size_t)w), -1); /* no room for NUL */
    }
    static const char *const wires[] = { "fs",      "__fs",    "fs__", "fs____read",
                                         "fs/read", "fs_read", "a___b" };
    for (size_t i = 0; i < N_ELEMS(wires); i++)
        assert_int_equal(tool_unmangle(wires[i], strlen(wires[i]), back, sizeof(back)), -1);
    memset(longest, 'a', sizeof(longest));
    longest[1] = '/';
    assert_true(tool_name_valid(longest, TOOL_MAX));
    assert_false(tool_name_valid(longest, TOOL_MAX + 1));
}

static void virtual_paths(void **state)
{
    static const struct {
        const char *in, *out; /* NULL: ERR_INVAL */
    } rows[] = {
        { "/", "/" },
        { "/a", "/a" },
        { "//a///b/", "/a/b" },
        { "/./a/./b/.", "/a/b" },
        { "/a..b", "/a..b" },
        { "/...", "/..." },
        { "/\xC3\xA9", "/\xC3\xA9" },
        { "", NULL },
        { "a", NULL },
        { "./a", NULL },
        { "/..", NULL },
        { "/a/../b", NULL },
        { "/a\n", NULL },
        { "/a\x7F", NULL },
        { "/\xFF", NULL },
        { "/x/.avix-tmp-1", NULL },
    };
    char out[VPATH_MAX + 1], in[VPATH_MAX + 8];

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int r = vpath_normalise(rows[i].in, strlen(rows[i].in), out);

        assert_int_equal(r, rows[i].out ? 0 : ERR_INVAL);
        if (rows[i].out)
            assert_string_equal(out, rows[i].out);
    }
    assert_int_equal(vpath_normalise("/a\0b", 4, out), ERR_INVAL);
    memset(in, 'a', sizeof(in));
    in[0] = '/';
    assert_int_equal(vpath_normalise(in, 256, out), 0);
    assert_int_equal(vpath_normalise(in, 257, out), ERR_NAMETOOLONG);
    for (size_t i = 0; i < sizeof(in); i += 2)
        in[i] = '/';
    assert_int_equal(vpath_normalise(in, VPATH_MAX, out), 0);
    assert_int_equal(vpath_normalise(in, VPATH_MAX + 1, out), ERR_NAMETOOLONG);
    assert_true(vpath_beneath("/a/b", "/a"));
    assert_true(vpath_beneath("/a", "/a"));
    assert_false(vpath_beneath("/ab", "/a"));
    assert_false(vpath_beneath("/a", "/a/b"));
    assert_true(vpath_beneath("/a", "/"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_names_and_codes),
        cmocka_unit_test(text_helpers),
        cmocka_unit_test(durations),
        cmocka_unit_test(utf8),
        cmocka_unit_test(globs),
        cmocka_unit_test(constant_time_equality),
        cmocka_unit_test(buffers_have_a_ceiling),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(base64_and_hex),
        cmocka_unit_test(instants),
        cmocka_unit_test(randomness),
        cmocka_unit_test(maps),
        cmocka_unit_test(tool_names),
        cmocka_unit_test(virtual_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
