/*
 * Signals and idle time: pause in the middle of a stream, resume, stop, a second goal, messages, a
 * session taken up again, hibernation and its end.
 */
#include "tests/suite/agent_run.h"

static void pause_in_a_stream(void **state)
{
    struct arun *a =
        arun_new("anthropic",
                 "{'steps':[{'text':'These words are held in the middle of the way and "
                 "then thrown away.','chunk':8,'hold':{'after':5,'until':'never'}},"
                 "{'text':'The whole answer.'}]}",
                 NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait(a, "agent.output.chunk", 1);
    json_put(arun_cmd(a, "proc", "pause", json_make("pid:i", a->pid)));
    arun_wait_status(a, "paused");
    json_put(arun_cmd(a, "proc", "resume", json_make("pid:i", a->pid)));
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "completed");
    cleanup(freep) char *text = arun_chunks(a);
    assert_string_equal(text, "The whole answer.");
    assert_int_equal(arun_count(a, "agent.output"), 1);
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "assistant"), 1);
    arun_free(a);
}

static void stop_in_a_stream(void **state)
{
    struct arun *a = arun_new("openai",
                              "{'steps':[{'text':'These words are held in the middle of the way.',"
                              "'chunk':8,'hold':{'after':3,'until':'never'}}]}",
                              NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait(a, "agent.output.chunk", 1);
    arun_signal(a, "SIGSTOP", NULL);
    arun_wait_exit(a, 20);
    assert_int_equal(a->exit_code, 0);
    assert_string_equal(a->exit_reason, "stopped");
    arun_free(a);
}

static void goals_and_messages(void **state)
{
    struct arun *a =
        arun_new("anthropic", "{'steps':[{'text':'one'},{'text':'two'},{'text':'three'}]}", NULL);

    (void)state;
    arun_spawn(a, "researcher", "first goal", false);
    arun_wait_idle(a);
    arun_signal(a, "SIGPIPE", json_make("text:s", "and also this"));
    arun_wait_idle(a);
    json_put(arun_cmd(a, "proc", "session-resume",
                      json_make("session_id:s input:s", a->session, "second goal")));
    arun_wait_idle(a);
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_int_equal(arun_n_lines(lines, "user"), 3);
    assert_string_equal(json_str(arun_line(lines, "user", 0), "content", ""), "first goal");
    assert_string_equal(json_str(arun_line(lines, "user", 1), "content", ""), "and also this");
    assert_string_equal(json_str(arun_line(lines, "user", 2), "content", ""), "second goal");
    assert_string_equal(json_str(arun_line(lines, "assistant", 2), "content", ""), "three");
    arun_signal(a, "SIGSTOP", NULL);
    arun_wait_exit(a, 20);
    arun_free(a);
}

static void hibernate_soon(struct rig *g)
{
    cleanup(freep) char *k = rig_read(g, "etc/kernel.yaml");
    char *at = strstr(k, "hibernateAfterSec:");
    struct buf b = BUF_INIT(65536);

    if (at) {
        buf_add(&b, k, (size_t)(at - k));
        buf_adds(&b, "hibernateAfterSec: 1");
        at += strcspn(at, ",}\n");
        buf_adds(&b, at);
    } else {
        at = strstr(k, "spec:\n");
        assert_non_null(at);
        at += strlen("spec:\n");
        buf_add(&b, k, (size_t)(at - k));
        assert_null(strstr(k, "scheduler:"));
        buf_adds(&b, "  scheduler: {hibernateAfterSec: 1}\n");
        buf_adds(&b, at);
    }
    rig_write(g, "etc/kernel.yaml", b.data);
    buf_done(&b);
}

static bool no_process(void *arg)
{
    return arun_host_pid(arg) == 0;
}

static void sleeps_and_wakes(void **state)
{
    struct arun *a =
        arun_new("anthropic", "{'steps':[{'text':'one'},{'text':'two'}]}", hibernate_soon);

    (void)state;
    arun_spawn(a, "researcher", "first goal", false);
    arun_wait_idle(a);
    assert_true(rig_until(no_process, a));
    arun_signal(a, "SIGPIPE", json_make("text:s", "wake up"));
    arun_wait(a, "agent.output", 2);
    arun_wait_idle(a); /* its reports count, though another process made some before */
    assert_string_equal(arun_output(a), "two");
    cleanup(json_putp) json_object *log = prov_log(a->p);
    /* the second request holds the whole conversation */
    bool both = false;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        const char *t = json_text(json_object_array_get_idx(log, i));
        both = both || (strstr(t, "first goal") && strstr(t, "wake up"));
    }
    assert_true(both);
    arun_signal(a, "SIGKILL", NULL);
    arun_wait_exit(a, 20);
    arun_free(a);
}

/* A right that is taken away while the agent works is gone with its next call. */
static void loses_a_tool(void **state)
{
    struct arun *a = arun_new(
        "anthropic",
        "{'steps':[{'wait':'go','text':'','tools':[{'name':'fs/read','input':{'path':'/users/admin/"
        "none'}}]},{'text':'','tools':[{'name':'fs/write','input':{'path':'/users/admin/workspace/w',"
        "'content':'x'}}]},{'text':'I could not.'}]}",
        NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", true);
    assert_true(prov_wait(a->p, 1));
    json_object *revoke = json_new_arr();
    json_push_str(revoke, "fs/write");
    json_put(arun_cmd(a, "proc", "setcap", json_make("pid:i revoke:o", a->pid, revoke)));
    prov_release(a->p, "go");
    arun_wait_exit(a, 30);
    cleanup(json_putp) json_object *lines = arun_lines(a);
    json_object *e = json_obj(arun_line(lines, "tool", 1), "error");
    assert_string_equal(json_str(e, "code", ""), "EPERM");
    cleanup(json_putp) json_object *log = prov_log(a->p);
    assert_non_null(strstr(json_text(log), "the tool fs/write is no longer there"));
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pause_in_a_stream),  cmocka_unit_test(stop_in_a_stream),
        cmocka_unit_test(goals_and_messages), cmocka_unit_test(sleeps_and_wakes),
        cmocka_unit_test(loses_a_tool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
