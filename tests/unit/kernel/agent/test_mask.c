/* Secret values: replaced wherever they are, and nothing else is. */
#include "tests/unit/kernel/agent/common.h"

#include "kernel/agent/mask.h"

static struct mask load(const char *text)
{
    struct mask m;
    char *t = xstrdup(text);

    for (char *p = t; *p; p++)
        if (*p == '\'')
            *p = '"';
    assert_int_equal(mask_load(&m, t, strlen(t)), 0);
    free(t);
    return m;
}

static void expect(const struct mask *m, const char *in, const char *out)
{
    struct buf b = BUF_INIT(4096);

    mask_text(m, in, strlen(in), &b);
    assert_string_equal(b.data ? b.data : "", out);
    buf_done(&b);
}

static void replaces(void **state)
{
    struct mask m = load("{'KEY':'hunter2','LONG':'hunter2-and-more','EMPTY':'','U':'wörd'}");

    (void)state;
    assert_int_equal(m.n, 3);
    expect(&m, "nothing here", "nothing here");
    expect(&m, "hunter2", "[secret:KEY]");
    expect(&m, "a hunter2-and-more b", "a [secret:LONG] b"); /* the longer one as a whole */
    expect(&m, "hunter2hunter2", "[secret:KEY][secret:KEY]");
    expect(&m, "wörd hunter", "[secret:U] hunter");
    expect(&m, "", "");
    mask_done(&m);
}

static void replaces_in_json(void **state)
{
    struct mask m = load("{'KEY':'a\\\\b'}"); /* a value that JSON writes with an escape */
    json_object *in = js("{'x':['a\\\\b',1,{'k a\\\\b':null}],'y':true}");
    json_object *out = mask_json(&m, in);

    (void)state;
    assert_int_equal(m.s[0].len, 3);
    assert_string_equal(json_text(out),
                        "{\"x\":[\"[secret:KEY]\",1,{\"k [secret:KEY]\":null}],\"y\":true}");
    json_put(in);
    json_put(out);
    mask_done(&m);
}

static void shares_what_is_clean(void **state)
{
    struct mask m = load("{'KEY':'hunter2'}");
    json_object *in = js("{'x':['clean']}"), *out = mask_json(&m, in);

    (void)state;
    assert_ptr_equal(in, out);
    json_put(in);
    json_put(out);
    mask_done(&m);
}

static size_t tail(const struct mask *m, const char *s)
{
    return mask_tail(m, s, strlen(s));
}

static void holds_back_beginnings(void **state)
{
    struct mask m = load("{'A':'aab','B':'aabaac','C':'xyz'}");

    (void)state;
    assert_int_equal(tail(&m, "hello"), 0);
    assert_int_equal(tail(&m, "hello x"), 1);
    assert_int_equal(tail(&m, "hello xy"), 2);
    assert_int_equal(tail(&m, "hello xyz"), 0); /* whole: may go, it is replaced */
    assert_int_equal(tail(&m, "aab"), 3);       /* whole, but it may become the longer one */
    assert_int_equal(tail(&m, "aabaa"), 5);
    assert_int_equal(tail(&m, "aabaac"), 0);
    assert_int_equal(tail(&m, "aaa"), 2);
    mask_done(&m);
}

static void refuses_other_forms(void **state)
{
    static const char *const bad[] = { "", "[]", "{\"A\":1}", "{\"A\":null}", "x" };
    struct mask m;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_int_equal(mask_load(&m, bad[i], strlen(bad[i])), ERR_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaces),
        cmocka_unit_test(replaces_in_json),
        cmocka_unit_test(shares_what_is_clean),
        cmocka_unit_test(holds_back_beginnings),
        cmocka_unit_test(refuses_other_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
