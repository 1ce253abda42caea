/* Groups, policy and the grant computation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "kernel/core/grants.h"

static json_object *list(const char *words)
{
    json_object *a = json_new_arr();
    char w[130];
    while (*words) {
        size_t n = strcspn(words, " ");
        memcpy(w, words, n);
        w[n] = '\0';
        if (n)
            json_push_str(a, w);
        words += n + (words[n] == ' ');
    }
    return a;
}

static const char registered[] =
    "fs/read fs/write fs/list fs/stat fs/exists fs/glob fs/search fs/edit fs/mkdir fs/move fs/copy "
    "fs/delete exec/python exec/shell exec/js exec/run exec/runtimes exec/network llm/complete "
    "llm/stream_complete llm/models llm/status llm/providers llm/usage kernel/proc/list "
    "kernel/proc/kill kernel/proc/spawn kernel/ipc/list kernel/sys/info web/search mcp/gh/list "
    "kernel/proc/session/list kernel/proc/session/get kernel/agent/report sys/tools";

static void expect(const char *request, const char *want)
{
    struct tool_set t;
    cleanup(json_putp) json_object *reg = list(registered), *out = json_new_arr(), *w = list(want);
    tool_set_make(&t, reg);
    bool any = request_expand(&t, request, out);
    assert_int_equal(any, *want != '\0');
    assert_int_equal(json_object_array_length(out), json_object_array_length(w));
    for (size_t i = 0; i < json_object_array_length(w); i++)
        if (!json_arr_has(out, json_object_get_string(json_object_array_get_idx(w, i))))
            fail_msg("%s lacks %s", request,
                     json_object_get_string(json_object_array_get_idx(w, i)));
    tool_set_done(&t);
}

static void every_row_of_the_table(void **state)
{
    (void)state;
    expect("fs/read", "fs/read");
    expect("fs/none", "");
    expect("exec/*", "exec/python exec/shell exec/js exec/run exec/runtimes exec/network");
    expect("agent:spawn", "agent/spawn agent/kill agent/list agent/wait agent/send-message");
    expect("pipe:use", "");
    expect("memory:read", "");
    expect("llm:inference", "llm/complete llm/stream_complete llm/status llm/models llm/providers "
                            "llm/usage");
    expect("fs:read", "fs/read fs/list fs/stat fs/exists fs/glob fs/search");
    expect("fs:write", "fs/read fs/list fs/stat fs/exists fs/glob fs/search fs/write fs/edit "
                       "fs/mkdir fs/move fs/copy fs/delete");
    expect("exec:python", "exec/python exec/runtimes");
    expect("exec:*", "exec/python exec/shell exec/js exec/run exec/runtimes");
    expect("exec:network", "exec/network");
    expect("kernel:root", "kernel/proc/list kernel/proc/kill kernel/proc/spawn kernel/ipc/list "
                          "kernel/sys/info");
    expect("kernel:*", "kernel/proc/list kernel/proc/kill kernel/proc/spawn kernel/ipc/list "
                       "kernel/sys/info");
    expect("kernel:proc", "kernel/proc/list kernel/proc/kill kernel/proc/spawn");
    expect("session:read", "kernel/proc/session/list kernel/proc/session/get");
    expect("web:*", "web/search");
    expect("web", "web/search");
    expect("mcp:gh", "mcp/gh/list");
    expect("proc:*", "kernel/proc/list kernel/proc/kill kernel/proc/spawn");
    expect("nothing", "");
    expect("", "");
}

static void runtime_and_present_are_never_grants(void **state)
{
    (void)state;
    expect("kernel/agent/report", "");
    expect("sys/tools", "");
    assert_true(tool_always_present("job/watch"));
    assert_false(tool_always_present("fs/read"));
    assert_true(json_arr_has(grants_runtime(), "kernel/agent/report"));
}

static void policy_patterns(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *a = list("*"), *d = list("kernel/** exec/network");
    struct policy p = { .allowed = a, .denied = d };
    assert_true(policy_allows(&p, "fs/read"));
    assert_false(policy_allows(&p, "kernel/proc/list"));
    assert_false(policy_allows(&p, "exec/network"));
    struct policy none = { 0 }, all = { .all = true, .denied = d };
    assert_false(policy_allows(&none, "fs/read"));
    assert_true(policy_allows(&all, "kernel/proc/list"));
}

static struct grant_result compute(struct grant_input *in, const char *allowed)
{
    struct tool_set t;
    struct grant_result r;
    cleanup(json_putp) json_object *reg = list(registered), *a = list(allowed);
    struct policy p = { .allowed = a };
    tool_set_make(&t, reg);
    in->tools = &t;
    in->policy = &p;
    grants_compute(in, &r);
    tool_set_done(&t);
    return r;
}

static void set_is(json_object *got, const char *want)
{
    cleanup(json_putp) json_object *w = list(want);
    assert_string_equal(json_text(got), json_text(w));
}

static void narrowing_and_denial(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *req = list("fs:read exec:python"), *narrow = list("fs:*"),
                                   *denied = list("fs/stat"), *required = list("fs/read");
    struct grant_input in = {
        .requested = req, .required = required, .narrow = narrow, .removed = denied
    };
    struct grant_result r = compute(&in, "*");
    set_is(r.granted, "fs/exists fs/glob fs/list fs/read fs/search");
    set_is(r.denied, "exec/python exec/runtimes fs/stat");
    assert_int_equal(json_object_array_length(r.missing), 0);
    grant_result_done(&r);
}

static void required_outside_policy_is_missing(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *required = list("fs/read web/search memory/retrieve");
    struct grant_input in = { .required = required };
    struct grant_result r = compute(&in, "fs/*");
    set_is(r.granted, "fs/read");
    assert_true(json_arr_has(r.missing, "web/search"));
    assert_true(json_arr_has(r.missing, "memory/retrieve"));
    grant_result_done(&r);
}

static void empty_list_grants_nothing(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *req = list("fs:read"), *none = json_new_arr();
    struct grant_input in = { .requested = req, .narrow = none };
    struct grant_result r = compute(&in, "*");
    assert_int_equal(json_object_array_length(r.granted), 0);
    grant_result_done(&r);
    in = (struct grant_input){ .requested = req, .limit = none };
    r = compute(&in, "*");
    assert_int_equal(json_object_array_length(r.granted), 0);
    grant_result_done(&r);
    in = (struct grant_input){ .requested = req };
    r = compute(&in, "");
    assert_int_equal(json_object_array_length(r.granted), 0);
    grant_result_done(&r);
}

static void child_never_exceeds_its_parent(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *req = list("fs:write agent:spawn"),
                                   *parent = list("fs/read agent/list");
    struct grant_input in = { .requested = req, .parent = parent };
    struct grant_result r = compute(&in, "*");
    set_is(r.granted, "agent/list fs/read");
    grant_result_done(&r);
}

static void all_three_give_exec_run(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *req = list("exec:python exec:js exec:shell");
    struct grant_input in = { .requested = req };
    struct grant_result r = compute(&in, "*");
    assert_true(json_arr_has(r.granted, "exec/run"));
    grant_result_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table),
        cmocka_unit_test(runtime_and_present_are_never_grants),
        cmocka_unit_test(policy_patterns),
        cmocka_unit_test(narrowing_and_denial),
        cmocka_unit_test(required_outside_policy_is_missing),
        cmocka_unit_test(empty_list_grants_nothing),
        cmocka_unit_test(child_never_exceeds_its_parent),
        cmocka_unit_test(all_three_give_exec_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
