/*
 * An agent's process that was taken over (security page, section 7): 3 identities of others in its
 * frames, 4 other sockets and frames that are not an agent's, 5 system calls outside its filter and
 * its conversation, 6 sockets that were planted for it.
 */
#include "tests/suite/agent_run.h"

#include "common/ipc/peer.h"

#include "tests/suite/abuse/inject.h"

#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)

static struct arun *a;

/* An agent that is idle and keeps its process. */
static int setup(void **state)
{
    (void)state;
    a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arun_free(a);
    return 0;
}

static struct inj take_over(void)
{
    struct inj j = { 0 };
    pid_t pid = arun_host_pid(a);

    assert_true(pid > 0);
    if (!INJECT_POSSIBLE || !inj_attach(&j, pid))
        skip();
    return j;
}

/* A token for the agent's own process, as the kernel would hold it. */
static char *own_token(const char *granted)
{
    pid_t pid = arun_host_pid(a);
    json_object *claims =
        json_make("pid:i hostPid:i hostStart:i agent:s sessionId:s", a->pid, (int64_t)pid,
                  (int64_t)proc_start_time(pid), "researcher", a->session);

    return rig_token(a->g, granted, claims);
}

/* One call from inside on a socket; the error's name, "" for a result, "closed" without a reply. */
static const char *outcome(struct inj *j, const char *sock, const char *method, const char *params)
{
    static char name[64];
    static char reply[65536];
    cleanup(freep) char *body = xasprintf(
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"%s\",\"params\":%s}", method, params);
    cleanup(json_putp) json_object *o = NULL;
    long n = inj_frame(j, rig_sock(a->g, sock), body, reply, sizeof reply);

    if (n < 0)
        return n == -ENOENT ? "ENOENT" : "connect";
    if (!n)
        return "closed";
    assert_int_equal(json_parse(reply, (size_t)n, &o), 0);
    str_copy(name, sizeof name,
             json_str(json_obj(json_obj(o, "error"), "data"), "errno",
                      json_obj(o, "error") ? "error" : ""));
    return name;
}

static bool is_refusal(const char *s)
{
    static const char *const names[] = { "EAUTH",  "EPERM",    "ENOTFOUND_METHOD",
                                         "closed", "EREQUEST", "EDENIED" };

    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (!strcmp(s, names[i]))
            return true;
    return false;
}

static void identities_of_others(void **state)
{
    struct inj j = take_over();
    cleanup(freep) char *token = own_token("fs/read fs/list");
    static const char *const claims[] = {
        "\"_caller\":{\"kind\":\"service\",\"service\":\"kernel\",\"pid\":0,\"role\":\"admin\"}",
        "\"_user\":{\"name\":\"admin\",\"uid\":0,\"role\":\"admin\",\"crews\":[],\"session_id\":\"x\"}",
        "\"_as\":\"ct_00000000000000000000000000000000\"",
        "\"_peer\":{\"pid\":1,\"start\":1}",
        "\"_caller_pid\":0,\"_caller_user\":\"root\"",
    };
    static const char *const socks[] = { "router.sock", "kernel.sock" };
    static const char *const methods[] = { "kernel/proc/list",   "kernel/proc/kill", "auth/policy",
                                           "kernel/agent/spawn", "fs/write",         "init/kill" };

    (void)state;
    for (size_t s = 0; s < N_ELEMS(socks); s++)
        for (size_t c = 0; c < N_ELEMS(claims); c++)
            for (size_t m = 0; m < N_ELEMS(methods); m++) {
                cleanup(freep) char *params =
                    xasprintf("{\"_token\":\"%s\",%s,\"pid\":%lld,\"path\":\"/users/admin/x\","
                              "\"content\":\"\"}",
                              token, claims[c], (long long)a->pid);
                const char *got = outcome(&j, socks[s], methods[m], params);
                if (!is_refusal(got)) {
                    inj_detach(&j);
                    fail_msg("%s on %s with %s: %s", methods[m], socks[s], claims[c], got);
                }
            }
    /* what it may do, it may do; a token in the old place counts as its token */
    cleanup(freep) char *good = xasprintf("{\"_token\":\"%s\",\"path\":\"/users/admin\"}", token);
    cleanup(freep) char *old =
        xasprintf("{\"_caller_token\":\"%s\",\"path\":\"/users/admin\"}", token);
    const char *r1 = outcome(&j, "router.sock", "fs/list", good);
    bool ok1 = !*r1;
    bool ok2 = !*outcome(&j, "router.sock", "fs/list", old);
    bool none =
        str_eq(outcome(&j, "router.sock", "fs/list", "{\"path\":\"/users/admin\"}"), "EAUTH");
    inj_detach(&j);
    assert_true(ok1);
    assert_true(ok2);
    assert_true(none);
}

static void other_sockets(void **state)
{
    struct inj j = take_over();
    static const char *const hidden[] = { "memfs.sock", "auth.sock", "llm.sock", "exec.sock",
                                          "init.sock" };
    static const char *const frames[] = { "init/exited",         "auth.revoked",
                                          "init/unit",           "init/stopping",
                                          "kernel/job/register", "kernel/secret/get",
                                          "approval.granted",    "agent.ready" };
    char own[64];

    (void)state;
    for (size_t i = 0; i < N_ELEMS(hidden); i++) {
        const char *got = outcome(&j, hidden[i], "init/list", "{}");
        if (!str_eq(got, "ENOENT")) {
            inj_detach(&j);
            fail_msg("%s: %s", hidden[i], got);
        }
    }
    snprintf(own, sizeof own, "agents/%lld.sock", (long long)a->pid);
    assert_string_equal(outcome(&j, own, "signal", "{}"), "ENOENT");
    for (size_t i = 0; i < N_ELEMS(frames); i++) {
        const char *got = outcome(&j, "kernel.sock", frames[i],
                                  "{\"_token\":\"x\",\"avixPid\":100,\"hostPid\":1,\"code\":0,"
                                  "\"users\":[\"admin\"]}");
        if (!is_refusal(got)) {
            inj_detach(&j);
            fail_msg("%s: %s", frames[i], got);
        }
    }
    inj_detach(&j);
    /* nothing was changed by all that */
    json_object *r = arun_cmd(a, "proc", "stat", json_make("pid:i", a->pid));
    assert_string_equal(json_str(json_obj(r, "body"), "status", ""), "waiting");
    json_put(r);
}

static void publish(struct inj *j, json_object *params)
{
    char reply[512];
    cleanup(json_putp) json_object *note =
        json_make("jsonrpc:s method:s params:o", "2.0", "event.publish", params);

    (void)inj_frame(j, rig_sock(a->g, "gateway.sock"), json_text(note), reply, sizeof reply);
}

static void foreign_events(void **state)
{
    struct inj j = take_over();

    (void)state;
    publish(&j, json_make("event:s body:o", "agent.status",
                          json_make("pid:i status:s", a->pid, "forged")));
    publish(&j, json_make("event:s body:o", "agent.output",
                          json_make("pid:i text:s turn_id:s", (int64_t)1, "forged", "x")));
    publish(&j, json_make("event:s body:o", "hil.request",
                          json_make("pid:i hil_id:s", a->pid, "forged")));
    publish(&j, json_make("event:s body:o", "sys.alert",
                          json_make("level:s message:s source:s", "error", "forged", "kernel")));
    inj_detach(&j);
    arun_signal(a, "SIGPIPE", json_make("text:s", "go on"));
    arun_wait_idle(a);
    assert_null(strstr(json_text(a->events), "forged"));
}

static void conversation_stays(void **state)
{
    struct inj j = take_over();
    static const char junk[] = "junk\n";
    char rel[300];

    (void)state;
    snprintf(rel, sizeof rel, "data/users/admin/agents/researcher/%s.jsonl", a->inv);
    cleanup(freep) char *before = rig_read(a->g, rel);
    assert_int_equal(inj_call(&j, SYS_fcntl, 4, F_SETFL, 0, 0, 0, 0), -EPERM);
    assert_int_equal(inj_call(&j, SYS_lseek, 4, 0, SEEK_SET, 0, 0, 0), 0);
    inj_put(&j, 0, junk, sizeof junk);
    assert_int_equal(inj_call(&j, SYS_write, 4, (long)j.room, 5, 0, 0, 0), 5);
    cleanup(freep) char *after = rig_read(a->g, rel);
    assert_int_equal(strncmp(before, after, strlen(before)), 0);
    assert_string_equal(after + strlen(before), "junk\n");
    inj_detach(&j);
}

static bool no_process(void *arg)
{
    return arun_host_pid(arg) == 0;
}

/* All other calls are tried by tests/unit/kernel/agent/test_seal.c; here, that the agent's process
 * wears that filter, and that the agent comes back after it was killed by it. */
static void forbidden_call_kills(void **state)
{
    struct inj j = take_over();
    long r = inj_call(&j, SYS_ftruncate, 4, 0, 0, 0, 0, 0);

    (void)state;
    assert_int_equal(r, INJ_DEAD - SIGSYS);
    assert_true(rig_until(no_process, a)); /* an idle one sleeps until it is spoken to */
    arun_signal(a, "SIGPIPE", json_make("text:s", "are you there?"));
    arun_wait_idle(a);
    assert_string_equal(arun_output(a), "Idle now.");
}

static void planted_sockets(void **state)
{
    char path[108], name[64];
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int bus = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int abs = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    snprintf(path, sizeof path, "%s/bus", a->g->run_dir);
    str_copy(un.sun_path, sizeof un.sun_path, path);
    assert_int_equal(bind(bus, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(bus, 4), 0);
    snprintf(name, sizeof name, "avix-abuse-%d", (int)getpid());
    memset(un.sun_path, 0, sizeof un.sun_path);
    str_copy(un.sun_path + 1, sizeof un.sun_path - 1, name);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);
    assert_int_equal(bind(abs, (struct sockaddr *)&un, len), 0);
    assert_int_equal(listen(abs, 4), 0);
    struct inj j = take_over();
    long r1 = inj_connect(&j, path, false), r2 = inj_connect(&j, name, true);
    long r3 = inj_call(&j, SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0, 0);
    inj_detach(&j);
    close(bus);
    close(abs);
    unlink(path);
    assert_int_equal(r1, -ENOENT);
    assert_int_equal(r2, -ECONNREFUSED);
    assert_int_equal(r3, -EPERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identities_of_others), cmocka_unit_test(other_sockets),
        cmocka_unit_test(foreign_events),       cmocka_unit_test(planted_sockets),
        cmocka_unit_test(conversation_stays),   cmocka_unit_test(forbidden_call_kills),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
#else
static void not_here(void **state)
{
    (void)state;
    skip();
}
int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(not_here) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
