/* Event kinds: who may publish what, and the shapes that deployed clients tell apart. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/kinds.h"

static json_object *parse(const char *text)
{
    json_object *o = NULL;

    assert_int_equal(json_parse(text, strlen(text), &o), 0);
    return o;
}

static const struct pub agent = { .unit = UNIT_NONE, .pid = 157, .name = "" };
static const struct pub kernel = { .unit = UNIT_KERNEL, .pid = -1, .name = "kernel" };
static const struct pub router = { .unit = UNIT_ROUTER, .pid = -1, .name = "router" };
static const struct pub memfs = { .unit = UNIT_MEMFS, .pid = -1, .name = "memfs" };
static const struct pub service = { .unit = UNIT_NONE, .pid = 0, .name = "weather" };

static void each_kind_has_one_publisher(void **state)
{
    (void)state;
    for (int i = 0; i < KIND_COUNT; i++) {
        enum kind_id k = (enum kind_id)i;

        assert_int_equal(kind_find(kinds[i].name), k);
        assert_int_equal(kind_allows(k, &agent), kinds[i].by == PUB_AGENT);
        assert_int_equal(kind_allows(k, &kernel),
                         kinds[i].by == PUB_KERNEL || kinds[i].by == PUB_ANY);
        assert_int_equal(kind_allows(k, &router),
                         kinds[i].by == PUB_ROUTER || kinds[i].by == PUB_ANY);
        assert_int_equal(kind_allows(k, &memfs), kinds[i].by == PUB_ANY);
        assert_int_equal(kind_allows(k, &service), kinds[i].by == PUB_ANY);
    }
    assert_int_equal(kind_find("agent.nope"), KIND_NONE);
    assert_int_equal(kind_find(""), KIND_NONE);
}

/* A body with every member that any kind lists, to see what is left of it. */
static json_object *everything(void)
{
    return parse(
        "{\"pid\":157,\"text\":\"t\",\"status\":\"s\",\"role\":\"r\",\"session_id\":\"a\","
        "\"sessionId\":\"b\",\"exitCode\":0,\"reason\":\"x\",\"level\":\"info\",\"message\":\"m\","
        "\"source\":\"forged\",\"name\":\"n\",\"goal\":\"g\",\"invocationId\":\"i\",\"turn_id\":\"t\","
        "\"callId\":\"c\",\"tool\":\"t\",\"kind\":\"agent\",\"signal\":\"SIGUSR1\",\"from\":\"f\","
        "\"change\":\"added\",\"state\":\"available\",\"jobId\":\"j\",\"outcome\":\"spawned\","
        "\"service\":\"s\",\"text_delta\":\"d\",\"seq\":0,\"is_final\":false,\"hil_id\":\"h\","
        "\"approval_token\":\"a\",\"hil_type\":\"escalation\",\"prompt\":\"p\",\"timeout_secs\":1,"
        "\"urgency\":\"low\",\"resolved_by\":\"x\",\"resolved_at\":\"x\",\"path\":\"/x\","
        "\"watch_id\":\"w\",\"code\":1,\"expiresAt\":\"x\",\"secondsLeft\":1,\"evil\":1}");
}

/* The shape rules of the page, for every kind, from a body that had everything. */
static void shapes_are_told_apart(void **state)
{
    (void)state;
    for (int i = 0; i < KIND_COUNT; i++) {
        json_object *b = everything();
        const struct pub *p = kinds[i].by == PUB_AGENT ? &agent : &kernel;
        bool two;

        assert_null(kind_shape((enum kind_id)i, b, p));
        assert_null(json_get(b, "evil"));
        assert_null(json_get(b, "_token"));
        two = json_get(b, "session_id") && json_get(b, "role");
        assert_int_equal(two, i == KIND_READY);
        two = json_get(b, "pid") && json_get(b, "text");
        assert_int_equal(two, i == KIND_OUTPUT || i == KIND_PROC_OUTPUT);
        if (i == KIND_EXIT)
            assert_null(json_get(b, "status"));
        if (i == KIND_STATUS) {
            assert_null(json_get(b, "exitCode"));
            assert_null(json_get(b, "text"));
        }
        if (json_get(b, "pid"))
            assert_int_equal(json_object_is_type(json_get(b, "pid"), json_type_string),
                             (kinds[i].flags & KF_STR) != 0);
        assert_int_equal((kinds[i].flags & KF_STR) != 0, str_starts(kinds[i].name, "agent."));
        json_put(b);
    }
}

static void what_is_missing_is_named(void **state)
{
    json_object *b = parse("{\"pid\":157}");

    (void)state;
    assert_string_equal(kind_shape(KIND_STATUS, b, &kernel), "status");
    json_put(b);
    b = parse("{\"status\":\"x\"}");
    assert_string_equal(kind_shape(KIND_STATUS, b, &kernel), "pid");
    json_put(b);
    b = parse("{\"pid\":\"157\",\"status\":\"x\"}");
    assert_string_equal(kind_shape(KIND_STATUS, b, &kernel), "pid");
    json_put(b);
}

static void an_agent_speaks_for_itself_only(void **state)
{
    json_object *b = parse("{\"pid\":158,\"text\":\"t\"}");

    (void)state;
    assert_string_equal(kind_shape(KIND_OUTPUT, b, &agent), "pid");
    json_put(b);
}

static void the_source_of_an_alert_is_ours(void **state)
{
    json_object *b = parse("{\"level\":\"warn\",\"message\":\"m\",\"source\":\"kernel\"}");

    (void)state;
    assert_null(kind_shape(KIND_ALERT, b, &service));
    assert_string_equal(json_str(b, "source", ""), "weather");
    json_put(b);
}

static void long_values_are_cut_at_a_character(void **state)
{
    char *big = xmalloc(CUT_TEXT + 100);
    json_object *b = parse("{\"pid\":157,\"callId\":\"c\",\"tool\":\"t\",\"args\":{\"a\":1}}");

    (void)state;
    for (size_t i = 0; i < CUT_TEXT + 98; i += 2)
        memcpy(big + i, "\xc3\xa9", 2);
    big[CUT_TEXT + 98] = '\0';
    json_add_str(json_obj(b, "args"), "long", big + 1 + 1);
    json_add_str(json_obj(b, "args"), "odd", "x");
    assert_null(kind_shape(KIND_TOOL_CALL, b, &agent));
    assert_int_equal(strlen(json_str(json_obj(b, "args"), "long", "")), CUT_VALUE);
    assert_int_equal(json_int(json_obj(b, "args"), "a", 0), 1);
    assert_true(json_flag(b, "truncated", false));
    json_put(b);
    b = parse("{\"pid\":157}");
    json_add_str(b, "text", big);
    assert_null(kind_shape(KIND_OUTPUT, b, &agent));
    assert_int_equal(strlen(json_str(b, "text", "")), CUT_TEXT);
    assert_true(json_flag(b, "truncated", false));
    json_put(b);
    /* one approves what one saw */
    b = everything();
    json_add(b, "args", parse("{}"));
    json_add_str(json_obj(b, "args"), "long", big);
    assert_null(kind_shape(KIND_HIL_REQUEST, b, &kernel));
    assert_int_equal(strlen(json_str(json_obj(b, "args"), "long", "")), strlen(big));
    json_put(b);
    free(big);
}

static void numbers_beside_pid_in_agent_bodies(void **state)
{
    json_object *b = parse("{\"pid\":157,\"name\":\"n\",\"goal\":\"g\",\"sessionId\":\"s\","
                           "\"invocationId\":\"i\",\"parentPid\":100}");

    (void)state;
    assert_null(kind_shape(KIND_SPAWNED, b, &kernel));
    assert_string_equal(json_str(b, "pid", ""), "157");
    assert_string_equal(json_str(b, "parentPid", ""), "100");
    json_put(b);
    b = parse("{\"pid\":157,\"exitCode\":0,\"kind\":\"agent\"}");
    assert_null(kind_shape(KIND_PROC_EXIT, b, &kernel));
    assert_int_equal(json_int(b, "pid", 0), 157);
    json_put(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_has_one_publisher),
        cmocka_unit_test(shapes_are_told_apart),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(an_agent_speaks_for_itself_only),
        cmocka_unit_test(the_source_of_an_alert_is_ours),
        cmocka_unit_test(long_values_are_cut_at_a_character),
        cmocka_unit_test(numbers_beside_pid_in_agent_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
