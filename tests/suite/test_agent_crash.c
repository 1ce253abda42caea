/*
 * Any process may die while an agent works, one after the other, and the agent finishes all the
 * same; so may the agent. The gateway may die in the middle of an answer without its text being
 * lost.
 */
#include <sys/resource.h>

#include "tests/suite/agent_run.h"

/* One turn per gate: a call that reads, then the answer waits until the test lets it go. */
static const char script[] =
    "{'steps':["
    "{'text':'a','tools':[{'name':'fs/write','input':{'path':'/users/admin/workspace/n.txt','content':'seven'}}]},"
    "{'wait':'router','text':'b','tools':[{'name':'fs/read','input':{'path':'/users/admin/workspace/n.txt'}}]},"
    "{'wait':'kernel','text':'c','tools':[{'name':'fs/stat','input':{'path':'/users/admin/workspace/n.txt'}}]},"
    "{'wait':'gateway','text':'d','tools':[{'name':'fs/list','input':{'path':'/users/admin/workspace'}}]},"
    "{'wait':'memfs','text':'e','tools':[{'name':'fs/read','input':{'path':'/users/admin/workspace/n.txt','offset':1}}]},"
    "{'wait':'authsvc','text':'f','tools':[{'name':'fs/read','input':{'path':'/users/admin/workspace/n.txt','offset':2}}]},"
    "{'wait':'agent','text':'g','tools':[{'name':'fs/read','input':{'path':'/users/admin/workspace/n.txt','offset':3}}]}"
    "],'default':{'text':'It says seven.'}}";

static void kill_agent(struct arun *a)
{
    pid_t pid = arun_host_pid(a);

    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
}

static void one_after_the_other(void **state)
{
    static const char *const units[] = { "router", "kernel", "gateway", "memfs", "authsvc" };
    struct arun *a = arun_new("anthropic", script, NULL);
    int n = 1;

    (void)state;
    arun_spawn(a, "researcher", "What does n.txt say?", true);
    for (size_t i = 0; i < N_ELEMS(units); i++) {
        assert_true(prov_wait(a->p, ++n)); /* the next answer is being waited for */
        rig_kill_unit(a->g, units[i]);
        prov_release(a->p, units[i]);
    }
    prov_release(a->p, "agent");
    arun_wait_exit(a, 120);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a), "It says seven.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    for (size_t i = 0; i < arun_n_lines(lines, "tool"); i++)
        assert_null(json_get(arun_line(lines, "tool", i), "error"));
    arun_free(a);
}

static void model_service_dies(void **state)
{
    struct arun *a = arun_new("openai",
                              "{'steps':[{'text':'This will never be heard to its end.','chunk':5,"
                              "'hold':{'after':4,'until':'never'}}],'default':{'text':'Heard.'}}",
                              NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait(a, "agent.output.chunk", 1);
    rig_kill_unit(a->g, "llmsvc");
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    cleanup(freep) char *text = arun_chunks(a);
    assert_string_equal(text, "Heard.");
    arun_free(a);
}

static void agent_dies_in_a_stream(void **state)
{
    struct arun *a = arun_new(
        "anthropic",
        "{'steps':[{'text':'Look.','tools':[{'name':'fs/write','input':{'path':'/users/admin/workspace/"
        "x.txt','content':'1'}}]},{'text':'Half of an answer and no more of it.','chunk':6,'hold':"
        "{'after':4,'until':'never'}}],'default':{'text':'All of it.'}}",
        NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait(a, "agent.output", 1);
    assert_true(prov_wait(a->p, 2));
    kill_agent(a);
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a), "All of it.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "user"), 1);
    assert_int_equal(arun_n_lines(lines, "assistant"), 2);
    assert_int_equal(arun_n_lines(lines, "tool"), 1); /* a call with its result is not repeated */
    arun_free(a);
}

static void gateway_dies_in_an_answer(void **state)
{
    struct arun *a =
        arun_new("anthropic",
                 "{'steps':[{'text':'The answer has one turn only, and its first half "
                 "goes to a gateway that dies before the second half is said.','chunk':"
                 "10,'hold':{'after':9,'until':'go'}}]}",
                 NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait(a, "agent.output.chunk", 1);
    rig_kill_unit(a->g, "gateway");
    prov_release(a->p, "go");
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a),
                        "The answer has one turn only, and its first half goes to a "
                        "gateway that dies before the second half is said.");
    arun_free(a);
}

/* An answer that cannot be written down is not acted on. The process that follows finds what was
 * written before, gets the same answer without a second call of the model, and goes on. */
static void full_disk_once(void **state)
{
    struct arun *a =
        arun_new("anthropic",
                 "{'steps':[{'wait':'go','text':'I write.','tools':[{'name':'fs/write',"
                 "'input':{'path':'/users/admin/workspace/w','content':'x'}}]}],"
                 "'default':{'text':'Written.'}}",
                 NULL);
    struct rlimit small = { 10, 10 };

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    assert_true(prov_wait(a->p, 1));
    assert_int_equal(prlimit(arun_host_pid(a), RLIMIT_FSIZE, &small, NULL), 0);
    prov_release(a->p, "go");
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a), "Written.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "assistant"), 2);
    assert_int_equal(arun_n_lines(lines, "tool"), 1);
    assert_int_equal(arun_count(a, "agent.tool_call"), 1);
    assert_int_equal(prov_requests(a->p), 2);
    arun_free(a);
}

struct grown {
    struct rig *g;
    int than;
};
static bool grown(void *arg)
{
    struct grown *x = arg;

    return rig_count_processes(x->g) > x->than;
}

/* A call that may have run is not made again: the model is told, and decides. */
static void outcome_unknown(void **state)
{
    struct arun *a =
        arun_new("anthropic",
                 "{'steps':[{'wait':'go','text':'I run it.','tools':[{'name':'exec/shell',"
                 "'input':{'code':'sleep 20'}}]}],'default':{'text':'It may have run.'}}",
                 NULL);

    (void)state;
    arun_spawn(a, "executor", "x", true);
    assert_true(prov_wait(a->p, 1));
    struct grown x = { a->g, rig_count_processes(a->g) };
    prov_release(a->p, "go");
    arun_wait(a, "agent.tool_call", 1);
    if (!rig_until(grown, &x)) {
        arun_wait_exit(a, 60); /* no sandbox here: it was refused */
        arun_free(a);
        skip();
    }
    rig_kill_unit(a->g, "execsvc");
    arun_wait_exit(a, 60);
    assert_string_equal(a->exit_reason, "completed");
    assert_string_equal(arun_output(a), "It may have run.");
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_non_null(strstr(json_str(arun_line(lines, "tool", 0), "content", ""),
                           "outcome unknown: exec/shell may have run"));
    arun_free(a);
}

static bool answer_sent(void *arg)
{
    cleanup(json_putp) json_object *log = prov_log(arg);

    for (size_t i = 0; i < json_object_array_length(log); i++)
        if (str_eq(json_str(json_object_array_get_idx(log, i), "end", ""), "complete"))
            return true;
    return false;
}

/* The gateway asks init who publishes; while it gets no answer the events of that turn wait, and
 * still all of them come before the status that follows them. */
static void identification_takes_its_time(void **state)
{
    struct arun *a = arun_new("anthropic",
                              "{'steps':[{'wait':'go','text':'Said before anybody knew who was "
                              "speaking, in more than one piece of text.'}]}",
                              NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", false);
    assert_true(prov_wait(a->p, 1));
    assert_int_equal(kill(a->g->init_pid, SIGSTOP), 0);
    prov_release(a->p, "go");
    bool sent = rig_until(answer_sent, a->p);
    assert_int_equal(kill(a->g->init_pid, SIGCONT), 0);
    assert_true(sent);
    arun_wait_idle(a);
    assert_string_equal(
        arun_output(a),
        "Said before anybody knew who was speaking, in more than one piece of text.");
    cleanup(freep) char *text = arun_chunks(a);
    assert_string_equal(text, arun_output(a));
    arun_signal(a, "SIGSTOP", NULL);
    arun_wait_exit(a, 20);
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identification_takes_its_time),
        cmocka_unit_test(full_disk_once),
        cmocka_unit_test(outcome_unknown),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(model_service_dies),
        cmocka_unit_test(agent_dies_in_a_stream),
        cmocka_unit_test(gateway_dies_in_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
