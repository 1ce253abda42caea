/*
 * Security page, test 21: auth/secret/export by an installed service, a taken-over unit for another
 * owner, a child of a unit, an agent, a stranger of the same user; files of the system calls
 * without a token, or by a service that was not called by that user. All refused, nothing exported.
 */
#include <sys/wait.h>

#include "common/svc/unit.h"
#include "tests/rig/guest.h"
#include "tests/suite/agent_run.h"

#include "tests/suite/abuse/inject.h"

static struct arun *a;
static struct guest *s;
static char *audit_before;

#define AUDIT "logs/secrets-audit.log"

static int setup(void **state)
{
    struct guest_opts o = { .name = "thief" };

    (void)state;
    a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    s = guest_start(a->g, &o);
    audit_before = rig_read(a->g, AUDIT);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(audit_before);
    guest_stop(s);
    arun_free(a);
    return 0;
}

static const char *const owners[] = { "service:llm",    "service:thief", "service:gateway",
                                      "service:kernel", "user:admin",    "service:exec" };

static void through_the_router(void **state)
{
    static const char *const methods[] = { "auth/secret/export", "kernel/secret/get",
                                           "kernel/secret/set", "secret/get" };
    cleanup(freep) char *agent =
        rig_token(a->g, "auth/secret/export kernel/secret/get kernel/secret/set secret/get", NULL);

    (void)state;
    for (size_t m = 0; m < N_ELEMS(methods); m++)
        for (size_t i = 0; i < N_ELEMS(owners); i++) {
            cleanup(freep) char *p =
                xasprintf("{\"owner\":\"%s\",\"name\":\"RIG_KEY\"}", owners[i]);
            struct ipc_reply r;

            if (!rig_call(a->g, agent, methods[m], p, &r))
                fail_msg("an agent may %s of %s", methods[m], owners[i]);
            ipc_reply_done(&r);
            if (!guest_call(s, methods[m], p, NULL))
                fail_msg("a service may %s of %s", methods[m], owners[i]);
            if (!rig_call(a->g, NULL, methods[m], p, &r))
                fail_msg("anyone may %s of %s", methods[m], owners[i]);
            ipc_reply_done(&r);
        }
}

/* The frame itself, from a process that is no unit, with any token: the peer decides. */
static void straight_by_a_stranger(void **state)
{
    cleanup(freep) char *kernel = guest_token("kernel", getpid());
    const char *const tokens[] = { NULL, s->token, kernel };

    (void)state;
    for (size_t t = 0; t < N_ELEMS(tokens); t++)
        for (size_t i = 0; i < N_ELEMS(owners); i++) {
            cleanup(json_putp) json_object *p = json_make("owner:s", owners[i]);
            struct ipc_req q = { .sock = rig_sock(a->g, "auth.sock"),
                                 .method = "auth/secret/export",
                                 .params = p,
                                 .token = tokens[t],
                                 .reply_fd = 1 };
            struct ipc_reply r;

            assert_int_equal(ipc_call(&q, &r), ERR_PERM);
            assert_int_equal(r.fd, -1);
            ipc_reply_done(&r);
        }
}

static void files_without_a_user(void **state)
{
    static const char *const params[] = {
        "{\"path\":\"/users/admin\",\"user\":\"admin\"}",
        "{\"path\":\"/users/admin\",\"_user\":{\"name\":\"admin\",\"uid\":1001,\"role\":\"admin\"}}",
        "{\"path\":\"/users/admin\",\"_as\":\"ct_00000000000000000000000000000000\"}",
        "{\"path\":\"/users/admin\",\"_caller\":{\"kind\":\"user\",\"user\":\"admin\"}}",
    };
    static const char *const methods[] = { "kernel/fs/read", "kernel/fs/write", "fs/read",
                                           "fs/list" };

    (void)state;
    for (size_t m = 0; m < N_ELEMS(methods); m++)
        for (size_t i = 0; i < N_ELEMS(params); i++) {
            struct ipc_reply r;
            int err = rig_call(a->g, NULL, methods[m], params[i], &r);

            ipc_reply_done(&r);
            if (err != ERR_AUTH)
                fail_msg("%s without a token: %d", methods[m], err);
            if (!guest_call(s, methods[m], params[i], NULL))
                fail_msg("%s %s by a service that nobody called", methods[m], params[i]);
        }
}

#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)

/* The error's code of an export asked for by this process: 0 if it was given. */
static int export_by(struct inj *j, const char *owner)
{
    char reply[8192];
    cleanup(freep) char *body =
        xasprintf("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"auth/secret/export\","
                  "\"params\":{\"owner\":\"%s\"}}",
                  owner);
    cleanup(json_putp) json_object *o = NULL;
    long n = inj_frame(j, rig_sock(a->g, "auth.sock"), body, reply, sizeof reply);

    if (n < 0)
        return (int)n;
    if (!n || json_parse(reply, (size_t)n, &o))
        return 1;
    return json_obj(o, "error") ? (int)json_int(json_obj(o, "error"), "code", 1) : 0;
}

static bool take(struct inj *j, const char *what, pid_t pid)
{
    if (INJECT_POSSIBLE && pid > 0 && inj_attach(j, pid))
        return true;
    print_message("SKIPPED: %s cannot be traced here\n", what);
    return false;
}

static void a_unit_for_another_owner(void **state)
{
    static const char *const units[] = { "llmsvc", "gateway", "execsvc", "memfs", "router" };

    (void)state;
    for (size_t u = 0; u < N_ELEMS(units); u++) {
        struct inj j = { 0 };
        int got[N_ELEMS(owners)];

        if (!take(&j, units[u], rig_unit_pid(a->g, units[u])))
            return;
        for (size_t i = 0; i < N_ELEMS(owners); i++)
            got[i] = export_by(&j, owners[i]);
        inj_detach(&j);
        for (size_t i = 0; i < N_ELEMS(owners); i++) {
            bool own = str_starts(owners[i], "service:") &&
                       unit_by_name(owners[i] + strlen("service:")) == unit_by_name(units[u]);

            if (own != (got[i] == 0))
                fail_msg("%s asks for %s: %d", units[u], owners[i], got[i]);
        }
    }
}

/* A fork of a unit has all that it had, but it is not the unit. */
static void a_child_of_a_unit(void **state)
{
    struct inj j = { 0 }, child;
    int got[N_ELEMS(owners)] = { 0 }, st;

    (void)state;
    if (!take(&j, "execsvc", rig_unit_pid(a->g, "execsvc")))
        return;
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, j.pid, 0,
                            PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK),
                     0);
    long pid = inj_call(&j, SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
    bool ok = pid > 0 && waitpid((pid_t)pid, &st, __WALL) == pid && WIFSTOPPED(st);

    child = j;
    child.pid = (pid_t)pid;
    for (size_t i = 0; ok && i < N_ELEMS(owners); i++)
        got[i] = export_by(&child, owners[i]);
    if (pid > 0) {
        kill((pid_t)pid, SIGKILL);
        ptrace(PTRACE_DETACH, pid, 0, SIGKILL);
    }
    inj_detach(&j);
    assert_true(ok);
    for (size_t i = 0; i < N_ELEMS(owners); i++)
        if (got[i] != -32002)
            fail_msg("a child of execsvc asks for %s: %d", owners[i], got[i]);
}

static void an_agent(void **state)
{
    struct inj j = { 0 };

    (void)state;
    if (!take(&j, "an agent", arun_host_pid(a)))
        return;
    int got = export_by(&j, "user:admin");
    inj_detach(&j);
    assert_int_equal(got, -ENOENT); /* the socket is not in its jail */
}
#else
static void a_unit_for_another_owner(void **state)
{
    (void)state;
    skip();
}
static void a_child_of_a_unit(void **state)
{
    (void)state;
    skip();
}
static void an_agent(void **state)
{
    (void)state;
    skip();
}
#endif

/* Last: nothing was handed out by all that but what a unit may have of its own. */
static void nothing_was_exported(void **state)
{
    cleanup(freep) char *now = rig_read(a->g, AUDIT);

    (void)state;
    assert_string_equal(now ? now : "", audit_before ? audit_before : "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(through_the_router),       cmocka_unit_test(straight_by_a_stranger),
        cmocka_unit_test(files_without_a_user),     cmocka_unit_test(an_agent),
        cmocka_unit_test(a_unit_for_another_owner), cmocka_unit_test(a_child_of_a_unit),
        cmocka_unit_test(nothing_was_exported),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
