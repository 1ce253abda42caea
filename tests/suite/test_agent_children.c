/*
 * Children: spawned by a model's tool call and waited for, with no more than their parent has,
 * found in the list, sent a message, ended with their parent.
 */
#include "tests/suite/agent_run.h"

/* The result of a tool call in the conversation, by its place among the tool lines. */
static json_object *result_of(json_object *lines, size_t n)
{
    return json_obj(arun_line(lines, "tool", n), "result");
}

static void spawn_and_wait(void **state)
{
    struct arun *a = arun_new(
        "anthropic",
        "{'rules':[{'match':{'contains':'read the list'},'text':'The list has three entries.'}],"
        "'steps':["
        "{'text':'I delegate.','tools':[{'name':'agent/spawn','input':{'agent':'observer','goal':"
        "'read the list','waitForResult':true}}]},"
        "{'text':'','tools':[{'name':'agent/spawn','input':{'agent':'observer','goal':'read the list'}},"
        "{'name':'agent/list','input':{'status':'all'}}]},"
        "{'text':'My helper says: three.'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "planner", "Count the entries", true);
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a), "My helper says: three.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    json_object *first = result_of(lines, 0);
    assert_string_equal(json_str(first, "status", ""), "completed");
    assert_string_equal(json_str(first, "result", ""), "The list has three entries.");
    int64_t second = json_int(result_of(lines, 1), "pid", 0);
    assert_true(second > json_int(first, "pid", 0));
    json_object *list = json_arr(result_of(lines, 2), "agents");
    bool seen = false;
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        seen = seen || json_int(json_object_array_get_idx(list, i), "pid", 0) == a->pid;
    assert_true(seen);
    arun_free(a);
}

static void no_more_than_the_parent(void **state)
{
    /* planner has no fs/write and no exec tools: a researcher cannot start, an executor gets
     * nothing */
    struct arun *a = arun_new(
        "anthropic",
        "{'rules':[{'match':{'contains':'run it'},'text':'I cannot.'}],"
        "'steps':["
        "{'text':'','tools':[{'name':'agent/spawn','input':{'agent':'researcher','goal':'write it'}},"
        "{'name':'agent/spawn','input':{'agent':'executor','goal':'run it','waitForResult':true,"
        "'capabilities':['exec:*','fs:write','kernel:root']}}]},"
        "{'text':'done'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "planner", "go", true);
    arun_wait_exit(a, 60);
    cleanup(json_putp) json_object *lines = arun_lines(a);
    json_object *e = json_obj(arun_line(lines, "tool", 0), "error");
    assert_string_equal(json_str(e, "code", ""), "EPERM");
    int64_t child = json_int(result_of(lines, 1), "pid", 0);
    assert_true(child > 0);
    cleanup(json_putp) json_object *log = prov_log(a->p);
    bool asked = false;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        json_object *body = json_get(json_object_array_get_idx(log, i), "body");
        const char *text = body ? json_object_to_json_string(body) : "";
        if (!strstr(text, "You are executor."))
            continue;
        asked = true;
        assert_null(strstr(text, "exec__"));
        assert_null(strstr(text, "fs__write"));
        if (strstr(text, "kernel__"))
            fail_msg("%s", strstr(text, "kernel__"));
    }
    assert_true(asked);
    arun_free(a);
}

/* Its group grants llm/complete by name; what only the executor needs stays the executor's. */
static void no_runtime_tools_for_the_model(void **state)
{
    static const char *const never[] = { "llm__complete",      "llm__stream_complete",
                                         "llm__models",        "kernel__agent__",
                                         "kernel__resource__", "kernel__snap__create" };
    struct arun *a = arun_new("anthropic", "{'steps':[{'text':'done'}]}", NULL);

    (void)state;
    arun_spawn(a, "kernel.agent", "go", false);
    arun_wait_idle(a);
    cleanup(json_putp) json_object *log = prov_log(a->p);
    const char *text = json_text(log);
    assert_non_null(strstr(text, "llm__status"));
    for (size_t i = 0; i < N_ELEMS(never); i++)
        if (strstr(text, never[i]))
            fail_msg("%s", never[i]);
    cleanup(json_putp) json_object *st = arun_cmd(a, "proc", "stat", json_make("pid:i", a->pid));
    json_object *granted = json_arr(json_obj(st, "body"), "granted");
    assert_true(json_arr_has(granted, "llm/status"));
    for (size_t i = 0; i < json_object_array_length(granted); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(granted, i));
        if (str_starts(name, "kernel/agent/") || str_eq(name, "kernel/resource/request"))
            fail_msg("%s", name);
    }
    arun_free(a);
}

static bool alone(void *arg)
{
    struct arun *a = arg;
    json_object *r = rig_init_call(a->g, "init/list", NULL, NULL), *list = json_arr(r, "agents");
    size_t n = list ? json_object_array_length(list) : 0;

    json_put(r);
    return n == 0;
}

static void killed_with_the_parent(void **state)
{
    struct arun *a = arun_new(
        "openai",
        "{'rules':[{'match':{'contains':'never end'},'text':'I go on and on and on','chunk':4,'hold':"
        "{'after':3,'until':'never'}}],"
        "'steps':[{'text':'','tools':[{'name':'agent/spawn','input':{'agent':'observer','goal':"
        "'never end','waitForResult':true,'timeoutSec':0}}]}]}",
        NULL);

    (void)state;
    arun_spawn(a, "planner", "go", true);
    assert_true(prov_wait(a->p, 2));
    arun_wait_status(a, "waiting"); /* for its child */
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid)));
    arun_wait_exit(a, 20);
    assert_int_equal(a->exit_code, 128 + SIGKILL);
    assert_true(rig_until(alone, a));
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spawn_and_wait),
        cmocka_unit_test(no_more_than_the_parent),
        cmocka_unit_test(no_runtime_tools_for_the_model),
        cmocka_unit_test(killed_with_the_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
