/*
 * An agent against a real HTTP server that speaks each of the three wire formats with streaming:
 * several tool calls in one turn, an answer of "slow down", a stream cut in the middle, a tool that
 * is refused. The answer must be made of what the tools returned.
 */
#include "tests/suite/agent_run.h"

static const char script[] =
    "{'steps':["
    "{'text':'I will look and write.','tools':["
    "{'name':'fs/write','input':{'path':'/users/admin/workspace/a.txt','content':'alpha'}},"
    "{'name':'fs/read','input':{'path':'/users/admin/workspace/a.txt'}},"
    "{'name':'fs/read','input':{'path':'/users/admin/workspace/none.txt'}},"
    "{'name':'fs/read','input':{}},"
    "{'name':'web/fetch','input':{'url':'x'}}]},"
    "{'status':429,'headers':{'retry-after':'0'},'error':{'type':'rate_limit_error','message':'slow down'}},"
    "{'text':'The first words of an answer that will break off','chunk':6,'cut_events':4},"
    "{'text':'The file says alpha. \\u00e4\\u00f6\\u00fc \\u20ac, and this sentence is long enough for several chunks of text to be sent.'}"
    "]}";

static void full_run(const char *kind)
{
    struct arun *a = arun_new(kind, script, NULL);
    static const char answer[] = "The file says alpha. äöü €, and this sentence is long enough for "
                                 "several chunks of text to be sent.";

    arun_spawn(a, "researcher", "What does the file say?", true);
    arun_wait_exit(a, 90);
    assert_string_equal(a->exit_reason, "completed");
    assert_int_equal(a->exit_code, 0);
    assert_string_equal(arun_output(a), answer);
    cleanup(freep) char *chunks = arun_chunks(a);
    assert_string_equal(chunks, answer);
    assert_int_equal(arun_count(a, "agent.tool_call"), 5);
    assert_int_equal(arun_count(a, "agent.tool_result"), 5);

    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "user"), 1);
    assert_int_equal(arun_n_lines(lines, "assistant"), 2); /* the broken stream left nothing */
    assert_int_equal(arun_n_lines(lines, "tool"), 5);
    assert_null(json_get(arun_line(lines, "tool", 0), "error"));
    assert_string_equal(json_str(arun_line(lines, "tool", 1), "content", ""), "alpha");
    static const char *const codes[] = { "ENOENT", "EINVAL", "EPERM" };
    for (size_t i = 0; i < 3; i++) {
        json_object *e = json_obj(arun_line(lines, "tool", 2 + i), "error");
        assert_non_null(e);
        if (i || !str_eq(json_str(e, "code", ""), "ENOTFOUND"))
            assert_string_equal(json_str(e, "code", ""), codes[i]);
    }
    assert_string_equal(json_str(arun_line(lines, "assistant", 1), "content", ""), answer);
    arun_free(a);
}

static void anthropic(void **state)
{
    (void)state;
    full_run("anthropic");
}

static void openai(void **state)
{
    (void)state;
    full_run("openai");
}

static void ollama(void **state)
{
    (void)state;
    full_run("ollama");
}

static void provider_says_no(void **state)
{
    struct arun *a = arun_new("anthropic",
                              "{'steps':[{'status':401,'error':{'type':'authentication_error',"
                              "'message':'bad key'}}]}",
                              NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "llm_unavailable");
    assert_int_equal(a->exit_code, 1);
    arun_free(a);
}

static void turn_limit(struct rig *g)
{
    rig_write(g, "data/users/admin/limits.yaml",
              "apiVersion: avix/v1\nkind: Limits\nmetadata: {target: agent-manifest, layer: user, "
              "owner: admin}\nlimits:\n  entrypoint:\n    maxTurnsPerGoal: {type: range, min: 1, "
              "max: 2}\n");
}

static void turns_have_an_end(void **state)
{
    struct arun *a = arun_new("openai",
                              "{'default':{'text':'once more','tools':[{'name':'fs/list','input':"
                              "{'path':'/users/admin/workspace'}}]}}",
                              turn_limit);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "turn_limit");
    assert_non_null(strstr(arun_output(a), "limit of 2 turns"));
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anthropic),
        cmocka_unit_test(openai),
        cmocka_unit_test(ollama),
        cmocka_unit_test(provider_says_no),
        cmocka_unit_test(turns_have_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
