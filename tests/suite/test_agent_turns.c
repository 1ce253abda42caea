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

static void long_answers_go_on(void **state)
{
    struct arun *a = arun_new("openai",
                              "{'steps':[{'text':'The first half, ','stop':'length'},{'text':'the "
                              "second half.'}]}",
                              NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    assert_string_equal(arun_output(a), "The first half, the second half.");
    cleanup(freep) char *chunks = arun_chunks(a);
    assert_string_equal(chunks, "The first half, the second half.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "assistant"), 1); /* one entry, and no hint to go on */
    assert_int_equal(arun_n_lines(lines, "user"), 1);
    arun_free(a);
}

static void cut_calls_get_more_room(void **state)
{
    struct arun *a = arun_new(
        "openai",
        "{'steps':[{'text':'','tools':[{'name':'fs/list','input':{},'raw':'{\\'path\\':\\'/us'}],"
        "'stop':'length'},"
        "{'text':'','tools':[{'name':'fs/list','input':{'path':'/users/admin/workspace'}}]},"
        "{'text':'Listed.'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    assert_string_equal(arun_output(a), "Listed.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "tool"), 1);
    assert_null(json_get(arun_line(lines, "tool", 0), "error"));
    cleanup(json_putp) json_object *log = prov_log(a->p);
    int64_t first = 0, second = 0;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        json_object *body = json_obj(json_object_array_get_idx(log, i), "body");
        int64_t max = json_int(body, "max_completion_tokens", json_int(body, "max_tokens", 0));
        if (max && !first)
            first = max;
        else if (max && !second)
            second = max;
    }
    assert_int_equal(first, 4096);
    assert_true(second > first);
    arun_free(a);
}

static void full_context_is_summarised(void **state)
{
    struct arun *a = arun_new(
        "anthropic",
        "{'rules':[{'match':{'contains':'Summarise the following part'},'text':'Four things were "
        "read.'}],'steps':["
        "{'text':'1','tools':[{'name':'fs/list','input':{'path':'/users/admin'}}]},"
        "{'text':'2','tools':[{'name':'fs/stat','input':{'path':'/users/admin'}}]},"
        "{'text':'3','tools':[{'name':'fs/exists','input':{'path':'/users/admin'}}]},"
        "{'text':'4','tools':[{'name':'fs/list','input':{'path':'/users/admin/workspace'}}]},"
        "{'text':'5','tools':[{'name':'fs/stat','input':{'path':'/users/admin/workspace'}}],"
        "'usage':{'input':90000,'output':5}},"
        "{'text':'All done.'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "researcher", "Look around", true);
    arun_wait_exit(a, 60);
    assert_string_equal(arun_output(a), "All done.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    json_object *s = arun_line(lines, "system", 0);
    assert_string_equal(json_str(s, "content", ""), "[Context summary]: Four things were read.");
    assert_int_equal(json_int(json_obj(s, "summaryOf"), "from", 0), 2);
    cleanup(json_putp) json_object *log = prov_log(a->p);
    json_object *last = NULL;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        json_object *body = json_obj(json_object_array_get_idx(log, i), "body");
        last = body ? body : last;
    }
    const char *text = json_text(last);
    assert_non_null(strstr(text, "[Context summary]: Four things were read."));
    assert_non_null(strstr(text, "Look around"));
    assert_true(json_object_array_length(json_arr(last, "messages")) < 10);
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
        cmocka_unit_test(long_answers_go_on),
        cmocka_unit_test(cut_calls_get_more_room),
        cmocka_unit_test(full_context_is_summarised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
