/*
 * The kernel as a client meets it: spawn, kill, pause, sessions, waiting, idempotency, crash
 * restarts, hibernation, quotas, and everything a spawn is refused for.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "tests/suite/agent_run.h"

/* Goals with "hold" wait for a gate that never opens, all others are answered at once. */
static const char script[] =
    "{'rules':[{'match':{'contains':'hold'},'wait':'never','text':'no'},"
    "{'match':{'contains':'child','tool_result':false},'text':'I start one.','tools':[{'name':"
    "'agent/spawn','input':{'agent':'planner','goal':'hold on'}}]},"
    "{'match':{'contains':'child','tool_result':true},'wait':'never','text':'no'}],"
    "'default':{'text':'Done.'}}";

static struct arun *start_with(void (*more)(struct rig *g))
{
    return arun_new("anthropic", script, more);
}

/* A command that must fail; its error code into out. */
static void refused(struct arun *a, const char *domain, const char *op, json_object *body,
                    const char *code, const char *text)
{
    cleanup(json_putp) json_object *r = ws_cmd(a->w, domain, op, body);
    assert_non_null(r);
    if (json_flag(r, "ok", false) || !str_eq(json_str(r, "code", ""), code) ||
        (text && !strstr(json_str(r, "message", ""), text)))
        fail_msg("%s.%s: %s instead of %s '%s'", domain, op, json_text(r), code, text ? text : "");
}

static json_object *body_of(struct arun *a, const char *domain, const char *op, json_object *body)
{
    json_object *r = arun_cmd(a, domain, op, body), *b = json_object_get(json_get(r, "body"));
    json_put(r);
    return b;
}

static json_object *stat_of(struct arun *a)
{
    return body_of(a, "proc", "stat", json_make("pid:i", a->pid));
}

static json_object *invocation(struct arun *a)
{
    return body_of(a, "proc", "invocation-get", json_make("id:s", a->inv));
}

static json_object *session(struct arun *a)
{
    return body_of(a, "proc", "session-get", json_make("session_id:s", a->session));
}

static bool is_running(void *arg)
{
    struct arun *a = arg;
    return arun_host_pid(a) > 0;
}

static bool has_no_host(void *arg)
{
    struct arun *a = arg;
    return arun_host_pid(a) == 0;
}

static void one_goal_from_spawn_to_end(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "researcher", "say done", true);
    cleanup(json_putp) json_object *w = body_of(a, "proc", "wait", json_make("pid:i", a->pid));
    assert_string_equal(json_str(w, "final_status", ""), "completed");
    assert_int_equal(json_int(w, "exit_code", -1), 0);
    assert_string_equal(json_str(w, "result", ""), "Done.");
    arun_wait_exit(a, 20);
    assert_string_equal(a->exit_reason, "completed");
    assert_int_equal(arun_count(a, "agent.spawned"), 1);
    assert_int_equal(arun_count(a, "agent.exit"), 1);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_string_equal(json_str(i, "status", ""), "completed");
    assert_string_equal(json_str(i, "result", ""), "Done.");
    assert_null(json_get(i, "exitReason"));
    assert_int_equal(json_int(i, "conversationTotal", 0), 2);
    assert_int_equal(json_int(i, "tokensConsumed", 0), 58);
    cleanup(json_putp) json_object *s = session(a);
    assert_string_equal(json_str(s, "status", ""), "completed");
    assert_string_equal(json_str(s, "summary", ""), "Done.");
    assert_string_equal(json_str(s, "title", ""), "say done");
    assert_int_equal(json_int(s, "ownerPid", 0), a->pid);
    assert_int_equal(json_int(s, "tokensTotal", 0), 58);
    assert_int_equal(json_object_array_length(json_arr(s, "pids")), 0);
    assert_int_equal(json_object_array_length(json_arr(s, "invocationPids")), 1);
    refused(a, "proc", "kill", json_make("pid:i", (int64_t)99999), "ENOTFOUND", "99999");
    refused(a, "proc", "pause", json_make("pid:i", a->pid), "ECONFLICT", NULL);
    arun_free(a);
}

static void kill_ends_the_whole_subtree(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "planner", "make a child", false);
    int64_t parent = a->pid, child = 0;
    for (int64_t end = mono_ms() + RIG_WAIT_MS; !child && mono_ms() < end; (void)arun_step(a, 50)) {
        cleanup(json_putp) json_object *st =
            body_of(a, "proc", "stat", json_make("pid:i tree:b", parent, 1));
        json_object *kids = json_arr(st, "children");
        if (json_object_array_length(kids) > 0)
            child = json_int(json_object_array_get_idx(kids, 0), "pid", 0);
    }
    assert_true(child > parent);
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", parent)));
    cleanup(json_putp) json_object *left = body_of(a, "proc", "list", json_new());
    assert_int_equal(json_object_array_length(left), 0);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_string_equal(json_str(i, "status", ""), "killed");
    assert_string_equal(json_str(i, "exitReason", ""), "killed");
    cleanup(json_putp) json_object *s = session(a);
    assert_string_equal(json_str(s, "status", ""), "failed");
    assert_int_equal(json_object_array_length(json_arr(s, "participants")), 1);
    cleanup(json_putp) json_object *all =
        body_of(a, "proc", "invocation-list", json_make("session_id:s", a->session));
    assert_int_equal(json_object_array_length(all), 2);
    for (size_t k = 0; k < 2; k++) {
        json_object *o = json_object_array_get_idx(all, k);
        if (json_int(o, "pid", 0) == child) {
            assert_string_equal(json_str(o, "exitReason", ""), "parent_killed");
            assert_int_equal(json_int(o, "parentPid", 0), parent);
        }
    }
    arun_wait_exit(a, 20);
    assert_int_equal(a->exit_code, 128 + 9);
    cleanup(json_putp) json_object *lines = arun_lines(a);
    json_object *last = json_object_array_get_idx(lines, json_object_array_length(lines) - 1);
    assert_string_equal(json_str(last, "content", ""), "[Agent stopped: killed]");
    arun_free(a);
}

static void pause_and_resume(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    assert_true(prov_wait(a->p, 1));
    refused(a, "proc", "resume", json_make("pid:i", a->pid), "ECONFLICT", "running");
    json_put(arun_cmd(a, "proc", "pause", json_make("pid:i", a->pid)));
    arun_wait_status(a, "paused");
    cleanup(json_putp) json_object *s = session(a), *i = invocation(a);
    assert_string_equal(json_str(s, "status", ""), "paused");
    assert_string_equal(json_str(i, "status", ""), "paused");
    refused(a, "proc", "pause", json_make("pid:i", a->pid), "ECONFLICT", "paused");
    json_put(arun_cmd(a, "proc", "resume", json_make("pid:i", a->pid)));
    arun_wait_status(a, "running");
    assert_true(prov_wait(a->p, 2)); /* the turn runs again */
    json_put(arun_cmd(a, "proc", "pause", json_make("pid:i hard:b", a->pid, 1)));
    cleanup(json_putp) json_object *st = stat_of(a);
    assert_string_equal(json_str(st, "status", ""), "paused");
    assert_true(json_flag(st, "frozen", false));
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid))); /* frozen too */
    arun_wait_exit(a, 20);
    assert_string_equal(a->exit_reason, "killed");
    arun_free(a);
}

static void sessions_live_on(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    cleanup(json_putp) json_object *s = session(a);
    assert_string_equal(json_str(s, "status", ""), "idle");
    refused(a, "proc", "session-delete", json_make("session_id:s", a->session), "ECONFLICT", NULL);
    cleanup(json_putp) json_object *r = body_of(
        a, "proc", "session-resume", json_make("session_id:s input:s", a->session, "second"));
    assert_int_equal(json_int(r, "pid", 0), a->pid);
    arun_wait_idle(a);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_int_equal(json_int(i, "conversationTotal", 0), 4);
    arun_signal(a, "SIGSTOP", NULL);
    arun_wait_exit(a, 20);
    assert_string_equal(a->exit_reason, "stopped");
    /* no process left: a new one becomes the owner, with what was said before */
    cleanup(json_putp) json_object *n = body_of(
        a, "proc", "session-resume", json_make("session_id:s input:s", a->session, "third"));
    int64_t old = a->pid;
    a->pid = json_int(n, "pid", 0);
    assert_true(a->pid > old);
    cleanup(json_putp) json_object *w = body_of(a, "proc", "wait", json_make("pid:i", a->pid));
    assert_string_equal(json_str(w, "final_status", ""), "completed");
    cleanup(json_putp) json_object *log = prov_log(a->p);
    const char *last = "";
    for (size_t k = 0; k < json_object_array_length(log); k++) {
        json_object *o = json_object_array_get_idx(log, k);
        if (json_get(o, "body"))
            last = json_text(o);
    }
    assert_non_null(strstr(last, "first"));
    assert_non_null(strstr(last, "third"));
    json_put(
        arun_cmd(a, "proc", "session-delete", json_make("session_id:s force:b", a->session, 1)));
    refused(a, "proc", "session-get", json_make("session_id:s", a->session), "ENOTFOUND", NULL);
    json_put(arun_cmd(a, "proc", "session-delete", json_make("session_id:s", "no-such-one")));
    char dir[400];
    snprintf(dir, sizeof dir, "%s/data/users/admin/agents/researcher", a->g->root);
    assert_int_equal(access(dir, F_OK), -1);
    arun_free(a);
}

static void waiting_has_an_end(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    cleanup(json_putp) json_object *w =
        body_of(a, "proc", "wait", json_make("pid:i timeout:i", a->pid, (int64_t)1));
    assert_string_equal(json_str(w, "final_status", ""), "timeout");
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid)));
    cleanup(json_putp) json_object *k = body_of(a, "proc", "wait", json_make("pid:i", a->pid));
    assert_string_equal(json_str(k, "final_status", ""), "stopped");
    assert_int_equal(json_int(k, "exit_code", 0), 137);
    arun_free(a);
}

static void a_key_spawns_once(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    cleanup(json_putp) json_object *x = body_of(
        a, "proc", "spawn", json_make("agent:s goal:s idempotency_key:s", "researcher", "a", "k1"));
    cleanup(json_putp) json_object *y = body_of(
        a, "proc", "spawn", json_make("agent:s goal:s idempotency_key:s", "researcher", "b", "k1"));
    assert_int_equal(json_int(x, "pid", 0), json_int(y, "pid", 1));
    rig_kill_unit(a->g, "kernel");
    cleanup(json_putp) json_object *z = body_of(
        a, "proc", "spawn", json_make("agent:s goal:s idempotency_key:s", "researcher", "c", "k1"));
    assert_string_equal(json_text(x), json_text(z));
    arun_free(a);
}

static void package(struct rig *g, const char *name, const char *manifest)
{
    char rel[128], dir[400];
    snprintf(dir, sizeof dir, "%s/data/bin/%s", g->root, name);
    assert_int_equal(mkdir_p(dir, 0755), 0);
    snprintf(rel, sizeof rel, "data/bin/%s/manifest.yaml", name);
    rig_write(g, rel, manifest);
}

#define HEAD(n, v) "apiVersion: avix/v1\nkind: Agent\nmetadata: {name: " n ", version: " v "}\n"
static void odd_packages(struct rig *g)
{
    package(g, "torn@1.0.0", "apiVersion: avix/v1\nkind: [Agent\n");
    package(g, "greedy@1.0.0", HEAD("greedy", "1.0.0") "spec: {tools: {required: [no/such]}}\n");
    package(g, "huge@1.0.0",
            HEAD("huge", "1.0.0") "spec: {entrypoint: {modelRequirements: {minContextWindow: "
                                  "150000}, modelPreference: nothing-9}}\n");
    package(g, "many@1.0.0",
            HEAD("many", "1.0.0") "spec: {requestedCapabilities: [\"fs:read\"]}\n");
    package(g, "many@1.2.0", "kind: Agent\n"); /* hides nothing */
    package(g, "many@2.0.0-rc.1", HEAD("many", "2.0.0-rc.1"));
    package(g, "changed@1.0.0", HEAD("changed", "1.0.0"));
    rig_write(g, "data/bin/changed@1.0.0/.install.json",
              "{\"files\":[{\"path\":\"manifest.yaml\",\"sha256\":\"00\"}]}");
}

static void refusals_name_what_is_wrong(void **state)
{
    struct arun *a = start_with(odd_packages);
    (void)state;
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "nobody", "x"), "ENOTFOUND", "nobody");
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "../etc", "x"), "EPARSE", "agent");
    refused(a, "proc", "spawn", json_make("goal:s", "x"), "EPARSE", "agent");
    refused(a, "proc", "spawn", json_make("agent:s", "researcher"), "EPARSE", "goal");
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "torn", "x"), "EPARSE",
            "/bin/torn@1.0.0/manifest.yaml:");
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "greedy", "x"), "EPERM", "no/such");
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "huge", "x"), "EPARSE", "nothing-9");
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "changed", "x"), "ECONFLICT",
            "changed");
    refused(a, "proc", "spawn",
            json_make("agent:s goal:s session_id:s", "researcher", "x", "no-session"), "ENOTFOUND",
            "no-session");
    cleanup(json_putp) json_object *list = body_of(a, "proc", "list-installed", json_new());
    bool torn = false;
    for (size_t i = 0; i < json_object_array_length(list); i++)
        torn |= str_eq(json_str(json_object_array_get_idx(list, i), "name", ""), "torn");
    assert_false(torn);
    /* the highest stable version that parses */
    arun_spawn(a, "many", "x", true);
    arun_wait_exit(a, 20);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_string_equal(json_str(i, "agentVersion", ""), "1.0.0");
    arun_spawn(a, "many@2.0.0-rc.1", "x", true);
    arun_wait_exit(a, 20);
    cleanup(json_putp) json_object *all =
        body_of(a, "fs", "list", json_make("path:s", "/proc/spawn-errors"));
    assert_true(json_object_array_length(json_arr(all, "entries")) >= 5);
    arun_free(a);
}

static void an_empty_list_grants_nothing(void **state)
{
    struct arun *a = start_with(odd_packages);
    (void)state;
    refused(a, "proc", "spawn",
            json_make("agent:s goal:s capabilities:o", "researcher", "x", json_new_arr()), "EPERM",
            "fs/read");
    cleanup(json_putp) json_object *r =
        body_of(a, "proc", "spawn",
                json_make("agent:s goal:s capabilities:o", "many", "hold", json_new_arr()));
    a->pid = json_int(r, "pid", 0);
    cleanup(json_putp) json_object *st = stat_of(a);
    assert_int_equal(json_object_array_length(json_arr(st, "granted")), 0);
    assert_true(json_object_array_length(json_arr(st, "denied")) > 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/resolved.yaml", (long long)a->pid);
    cleanup(json_putp) json_object *f = body_of(a, "fs", "read", json_make("path:s", path));
    assert_non_null(strstr(json_str(f, "content", ""), "grantedTools: []"));
    arun_free(a);
}

static void a_crash_is_mended_three_times(void **state)
{
    struct arun *a = start_with(NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    for (int i = 1; i <= 4; i++) {
        assert_true(rig_until(is_running, a));
        assert_true(prov_wait(a->p, i));
        pid_t host = arun_host_pid(a);
        assert_true(host > 0);
        assert_int_equal(kill(host, SIGKILL), 0);
    }
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "crashed: signal 9");
    assert_int_equal(a->exit_code, 128 + 9);
    cleanup(json_putp) json_object *st = stat_of(a), *s = session(a);
    assert_string_equal(json_str(st, "status", ""), "crashed");
    assert_int_equal(json_int(st, "restarts", 0), 3);
    assert_string_equal(json_str(s, "status", ""), "failed");
    arun_free(a);
}

static void sleepy(struct rig *g)
{
    cleanup(freep) char *text = rig_read(g, "etc/kernel.yaml");
    char *at = strstr(text, "spec:\n");
    assert_non_null(at);
    assert_null(strstr(text, "scheduler:"));
    cleanup(freep) char *more = xasprintf("%.*sspec:\n  scheduler: {hibernateAfterSec: 1}\n%s",
                                          (int)(at - text), text, at + strlen("spec:\n"));
    rig_write(g, "etc/kernel.yaml", more);
}

static void an_idle_agent_sleeps_and_wakes(void **state)
{
    struct arun *a = start_with(sleepy);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    assert_true(rig_until(has_no_host, a));
    cleanup(json_putp) json_object *st = stat_of(a);
    assert_string_equal(json_str(st, "status", ""), "waiting");
    assert_true(json_flag(st, "hibernated", false));
    rig_kill_unit(a->g, "kernel"); /* it sleeps on */
    cleanup(json_putp) json_object *st2 = stat_of(a);
    assert_true(json_flag(st2, "hibernated", false));
    arun_signal(a, "SIGPIPE", json_make("text:s", "second"));
    arun_wait_idle(a);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_int_equal(json_int(i, "conversationTotal", 0), 4);
    assert_true(rig_until(has_no_host, a));
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid))); /* without a process */
    arun_wait_exit(a, 20);
    assert_string_equal(a->exit_reason, "killed");
    arun_free(a);
}

static void quota(struct rig *g, const char *text)
{
    cleanup(freep) char *t = xasprintf("apiVersion: avix/v1\nkind: Users\nmetadata: {}\nspec:\n"
                                       "  users:\n    - {username: admin, uid: 1001, workspace: "
                                       "/users/admin/workspace,\n       quota: {%s}}\n",
                                       text);
    rig_write(g, "etc/users.yaml", t);
}

static void two_agents(struct rig *g)
{
    quota(g, "agents: 2");
}

static void a_full_quota_puts_the_idle_to_sleep(void **state)
{
    struct arun *a = start_with(two_agents);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    int64_t first = a->pid;
    arun_spawn(a, "researcher", "hold", false);
    arun_spawn(a, "researcher", "hold", false);
    int64_t third = a->pid;
    a->pid = first;
    assert_true(rig_until(has_no_host, a));
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "researcher", "x"), "ELIMIT", "agents");
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", third)));
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "completed");
    arun_free(a);
}

static void one_session(struct rig *g)
{
    quota(g, "sessions: 1");
}

static void sessions_are_counted(void **state)
{
    struct arun *a = start_with(one_session);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    refused(a, "proc", "spawn", json_make("agent:s goal:s", "researcher", "x"), "ELIMIT",
            "sessions");
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid)));
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    arun_free(a);
}

static void few_tokens(struct rig *g)
{
    quota(g, "tokens: 100");
}

static void tokens_run_out(void **state)
{
    struct arun *a = start_with(few_tokens);
    (void)state;
    arun_spawn(a, "researcher", "x", true);
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "quota_exceeded");
    assert_int_equal(a->exit_code, 1);
    cleanup(json_putp) json_object *i = invocation(a);
    assert_string_equal(json_str(i, "status", ""), "failed");
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_goal_from_spawn_to_end),
        cmocka_unit_test(kill_ends_the_whole_subtree),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(sessions_live_on),
        cmocka_unit_test(waiting_has_an_end),
        cmocka_unit_test(a_key_spawns_once),
        cmocka_unit_test(refusals_name_what_is_wrong),
        cmocka_unit_test(an_empty_list_grants_nothing),
        cmocka_unit_test(a_crash_is_mended_three_times),
        cmocka_unit_test(an_idle_agent_sleeps_and_wakes),
        cmocka_unit_test(a_full_quota_puts_the_idle_to_sleep),
        cmocka_unit_test(sessions_are_counted),
        cmocka_unit_test(tokens_run_out),
    };
    const char *only = getenv("CMOCKA_TEST_FILTER");
    if (!str_empty(only))
        cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
