/*
 * The tools an agent has of its own, called by a model: waiting for, messaging and ending children,
 * its rights, asking for more, and the errors of each. What a tool returned is read from the
 * conversation.
 */
#include "tests/suite/agent_run.h"

static json_object *lines;

static json_object *result(size_t n)
{
    json_object *l = arun_line(lines, "tool", n), *r = json_get(l, "result");

    if (json_get(l, "error") || !r)
        fail_msg("tool %zu: %s", n, json_text(l));
    return r;
}

static const char *code(size_t n)
{
    return json_str(json_obj(arun_line(lines, "tool", n), "error"), "code", "none");
}

/* Runs a planner to its end with these steps; its conversation is in lines. */
static struct arun *run(const char *script)
{
    struct arun *a = arun_new("anthropic", script, NULL);

    arun_spawn(a, "planner", "go", true);
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    lines = arun_lines(a);
    return a;
}

static void end(struct arun *a)
{
    json_putp(&lines);
    arun_free(a);
}

static void a_job_that_is_not_there(void **state)
{
    struct arun *a =
        run("{'steps':[{'text':'','tools':[{'name':'job/watch','input':{'jobId':'x'}}]},"
            "{'text':'ok'}]}");

    (void)state;
    assert_string_equal(code(0), "ENOTFOUND");
    end(a);
}

static void rights_are_listed_and_asked_for(void **state)
{
    struct arun *a = run(
        "{'steps':[{'text':'','tools':["
        "{'name':'cap/list','input':{}},"
        "{'name':'cap/request-tool','input':{'tool':'fs/write','reason':'to write'}},"
        "{'name':'cap/request-tool','input':{'tool':'fs/write','reason':'again'}},"
        "{'name':'cap/request-tool','input':{'tool':'fs/read','reason':'have it'}},"
        "{'name':'cap/request-tool','input':{'tool':'fs/write'}},"
        "{'name':'cap/escalate','input':{'reason':'which one?','options':[{'label':'a'}]}},"
        "{'name':'cap/request-tool','input':{'tool':'no/such','reason':'x'}},"
        "{'name':'sys/tools','input':{'namespace':'fs'}},{'name':'cap/list','input':{}}]},{'text':'','tools':["
        "{'name':'sys/tools','input':{'keyword':'folder','granted_only':true,'schemas':true}}]},"
        "{'text':'ok'}]}");

    (void)state;
    json_object *r = result(0);
    assert_true(json_arr_has(json_arr(r, "grantedTools"), "fs/read"));
    assert_false(json_arr_has(json_arr(r, "grantedTools"), "fs/write"));
    assert_int_equal(json_int(json_obj(r, "constraints"), "maxToolChainLength", 0), 10);
    assert_non_null(json_str(r, "tokenExpiresAt", NULL));
    r = result(1); /* nobody can be asked here */
    assert_false(json_flag(r, "granted", true));
    assert_non_null(strstr(json_str(r, "reason", ""), "nobody"));
    assert_string_equal(code(2), "EDENIED"); /* not twice in one goal */
    assert_true(json_flag(result(3), "granted", false));
    assert_string_equal(json_str(result(3), "scope", ""), "session");
    assert_string_equal(code(4), "EINVAL");
    assert_string_equal(code(5), "EDENIED");
    assert_false(json_flag(result(6), "granted", true));
    json_object *tools = json_arr(result(7), "tools");
    assert_true(json_object_array_length(tools) >= 10);
    for (size_t i = 0; i < json_object_array_length(tools); i++)
        assert_true(str_starts(json_str(json_object_array_get_idx(tools, i), "name", ""), "fs/"));
    assert_string_equal(code(8), "ELIMIT"); /* the ninth of a turn */
    tools = json_arr(result(9), "tools");
    assert_true(json_object_array_length(tools) >= 1);
    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        json_object *t = json_object_array_get_idx(tools, i);
        assert_non_null(json_get(t, "input_schema"));
        assert_false(str_eq(json_str(t, "name", ""), "fs/mkdir")); /* not granted */
    }
    end(a);
}

/* The first child of the rig has the pid after its parent's. */
static void children_are_told_waited_for_and_ended(void **state)
{
    struct arun *a = arun_new(
        "openai",
        "{'rules':[{'match':{'contains':'stay there'},'wait':'child','text':'The end of it.'}],"
        "'steps':[{'text':'','tools':[{'name':'agent/spawn','input':{'agent':'observer','goal':"
        "'stay there'}}]},"
        "{'wait':'known','text':'','tools':["
        "{'name':'agent/list','input':{'status':'running'}},"
        "{'name':'agent/list','input':{'status':'nonsense'}},"
        "{'name':'agent/wait','input':{'pid':101,'timeoutSec':1}},"
        "{'name':'agent/send-message','input':{'pid':101,'message':'hurry up'}},"
        "{'name':'agent/send-message','input':{'pid':99999,'message':'hello'}},"
        "{'name':'agent/send-message','input':{'pid':101}},"
        "{'name':'agent/wait','input':{'pid':99999}},"
        "{'name':'agent/wait','input':{'pid':100}}]},"
        "{'text':'','tools':["
        "{'name':'agent/kill','input':{'pid':100}},"
        ""
        "{'name':'agent/kill','input':{'pid':99999}},"
        "{'name':'agent/kill','input':{'pid':101,'reason':'not needed'}},"
        "{'name':'agent/wait','input':{'pid':101,'timeoutSec':0}},"
        "{'name':'agent/send-message','input':{'pid':101,'message':'late'}},"
        "{'name':'agent/spawn','input':{'agent':'../x','goal':'y'}},"
        "{'name':'agent/spawn','input':{'agent':'no-such','goal':'y'}}]},"
        "{'text':'ok'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "planner", "go", true);
    assert_int_equal(a->pid, 100);
    assert_true(prov_wait(a->p, 3)); /* parent, child, parent again */
    prov_release(a->p, "known");
    arun_wait_exit(a, 60);
    lines = arun_lines(a);
    assert_int_equal(json_int(result(0), "pid", 0), 101);
    json_object *list = json_arr(result(1), "agents");
    bool seen = false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        assert_string_equal(json_str(o, "status", ""), "running");
        seen = seen || json_int(o, "pid", 0) == 101;
    }
    assert_true(seen);
    assert_string_equal(code(2), "EINVAL");
    assert_string_equal(json_str(result(3), "finalStatus", ""), "timeout");
    assert_int_equal(json_int(result(3), "pid", 0), 101);
    assert_true(json_int(result(3), "durationSec", -1) >= 1);
    assert_true(json_flag(result(4), "delivered", false));
    assert_string_equal(code(5), "ENOTFOUND");
    assert_string_equal(code(6), "EINVAL");
    assert_string_equal(code(7), "ENOTFOUND");
    assert_string_equal(code(8), "EPERM"); /* itself */
    assert_string_equal(code(9), "EPERM");
    assert_string_equal(code(10), "ENOTFOUND");
    (void)result(11);
    assert_string_equal(json_str(result(12), "finalStatus", ""), "stopped");
    assert_string_equal(code(13), "ECONFLICT");
    assert_string_equal(code(14), "EINVAL");
    assert_string_equal(code(15), "ENOTFOUND");
    end(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_are_listed_and_asked_for),
        cmocka_unit_test(a_job_that_is_not_there),
        cmocka_unit_test(children_are_told_waited_for_and_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
