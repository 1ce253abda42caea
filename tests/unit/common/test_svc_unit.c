/* The unit table, names, word lists, roles and _caller. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/svc/svc.h"

static void names(void **state)
{
    static const struct {
        const char *name;
        enum unit_id id;
    } rows[] = {
        { "router", UNIT_ROUTER },    { "memfs.svc", UNIT_MEMFS }, { "auth", UNIT_AUTHSVC },
        { "auth.svc", UNIT_AUTHSVC }, { "llm", UNIT_LLMSVC },      { "exec.svc", UNIT_EXECSVC },
        { "kernel", UNIT_KERNEL },    { "gateway", UNIT_GATEWAY }, { "", UNIT_NONE },
        { ".svc", UNIT_NONE },        { "route", UNIT_NONE },      { "routers", UNIT_NONE },
        { "ROUTER", UNIT_NONE },      { NULL, UNIT_NONE },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        assert_int_equal(unit_by_name(rows[i].name), rows[i].id);
}

/* Every need and key in the table exists, needs have no cycle, pids differ. */
static void the_table_is_sound(void **state)
{
    bool ready[UNIT_COUNT] = { false };
    char word[64];

    (void)state;
    for (int round = 0; round < UNIT_COUNT; round++) {
        for (int i = 0; i < UNIT_COUNT; i++) {
            const char *pos = unit_rows[i].needs;
            bool all = true;

            while (word_next(&pos, word, sizeof(word))) {
                enum unit_id n = unit_by_name(word);

                assert_true(n >= 0);
                all &= ready[n];
            }
            ready[i] |= all;
        }
    }
    for (int i = 0; i < UNIT_COUNT; i++) {
        const char *pos = unit_rows[i].keys;

        assert_true(ready[i]);
        while (word_next(&pos, word, sizeof(word))) {
            bool known = false;

            for (int k = 0; k < KEY_COUNT; k++)
                known |= str_eq(word, key_names[k]);
            assert_true(known);
        }
        for (int j = 0; j < i; j++)
            assert_int_not_equal(unit_rows[i].pid, unit_rows[j].pid);
    }
}

static void words(void **state)
{
    const char *pos = "  one two  three ";
    char w[4];

    (void)state;
    assert_true(word_next(&pos, w, sizeof(w)));
    assert_string_equal(w, "one");
    assert_true(word_next(&pos, w, sizeof(w)));
    assert_string_equal(w, "two");
    assert_true(word_next(&pos, w, sizeof(w)));
    assert_string_equal(w, "thr"); /* cut to fit */
    assert_false(word_next(&pos, w, sizeof(w)));
    assert_false(word_next(&pos, w, sizeof(w)));
}

static void roles(void **state)
{
    (void)state;
    for (int r = ROLE_GUEST; r <= ROLE_ADMIN; r++)
        assert_int_equal(role_parse(role_name((enum role)r)), r);
    assert_int_equal(role_parse("root"), ROLE_NONE);
    assert_int_equal(role_parse("none"), ROLE_NONE);
    assert_int_equal(role_parse(NULL), ROLE_NONE);
    assert_string_equal(role_name((enum role)99), "none");
}

static json_object *params(const char *caller)
{
    json_object *o = NULL;
    cleanup(freep) char *text = xasprintf("{\"x\":1,\"_caller\":%s}", caller);

    assert_int_equal(json_parse(text, strlen(text), &o), 0);
    return o;
}

static void callers(void **state)
{
    struct caller w;
    json_object *p =
        params("{\"kind\":\"agent\",\"pid\":157,\"user\":\"alice\",\"role\":\"user\","
               "\"token\":\"ct\",\"tool\":\"fs/read\",\"uid\":1001,\"crews\":[\"lab\"],"
               "\"agent\":\"researcher\",\"session_id\":\"s\",\"atpSession\":\"a\","
               "\"call_id\":\"r-1\"}");

    (void)state;
    assert_true(caller_parse(p, &w));
    assert_int_equal(w.kind, CALLER_AGENT);
    assert_int_equal(w.pid, 157);
    assert_string_equal(w.user, "alice");
    assert_string_equal(w.service, "");
    assert_int_equal(w.role, ROLE_USER);
    assert_int_equal(w.uid, 1001);
    assert_true(json_arr_has(w.crews, "lab"));
    assert_string_equal(w.agent, "researcher");
    assert_string_equal(w.session_id, "s");
    assert_string_equal(w.atp_session, "a");
    assert_string_equal(w.tool, "fs/read");
    assert_string_equal(w.call_id, "r-1");
    assert_string_equal(w.token, "ct");
    assert_false(caller_is_unit(&w, UNIT_KERNEL));
    json_put(p);
}

static void unit_callers(void **state)
{
    struct caller w;
    json_object *p = params("{\"kind\":\"service\",\"pid\":0,\"service\":\"kernel\"}");

    (void)state;
    assert_true(caller_parse(p, &w));
    assert_int_equal(w.kind, CALLER_SERVICE);
    assert_string_equal(w.user, "");
    assert_true(caller_is_unit(&w, UNIT_KERNEL));
    assert_false(caller_is_unit(&w, UNIT_ROUTER));
    assert_false(caller_is_unit(&w, UNIT_NONE));
    assert_false(caller_is_unit(NULL, UNIT_KERNEL));
    json_put(p);
    /* a user who calls himself kernel is no unit */
    p = params("{\"kind\":\"user\",\"user\":\"kernel\",\"service\":\"kernel\"}");
    assert_true(caller_parse(p, &w));
    assert_false(caller_is_unit(&w, UNIT_KERNEL));
    json_put(p);
}

static void no_caller(void **state)
{
    static const char *const bad[] = { "null", "[]", "\"agent\"", "{}", "{\"kind\":\"root\"}" };
    struct caller w;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        json_object *p = params(bad[i]);

        assert_false(caller_parse(p, &w));
        assert_int_equal(w.kind, CALLER_NONE);
        json_put(p);
    }
    assert_false(caller_parse(NULL, &w));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),     cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(words),     cmocka_unit_test(roles),
        cmocka_unit_test(callers),   cmocka_unit_test(unit_callers),
        cmocka_unit_test(no_caller),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
