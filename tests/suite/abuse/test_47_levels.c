/*
 * Security page, test 47: the isolation level and what each unit lacks are named, at the levels
 * that are built: B (namespaces), C (a host that gives none), D (and no Landlock either). The host
 * is made poorer by a seccomp filter that the whole suite inherits.
 */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/svc/sandbox.h"
#include "common/svc/unit.h"
#include "tests/suite/agent_run.h"

#define NOT_HERE 90

/* Builds that confine nothing, because their runtimes need more calls. */
#if defined(AVIX_SAN) || defined(AVIX_COVERAGE)
#define CONFINED 0
#else
#define CONFINED 1
#endif

static int refuse(scmp_filter_ctx f, int err, int call)
{
    return seccomp_rule_add(f, SCMP_ACT_ERRNO((uint32_t)err), call, 0);
}

static int refuse_flag(scmp_filter_ctx f, int call, scmp_datum_t flag)
{
    struct scmp_arg_cmp cmp = {
        .arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = flag, .datum_b = flag
    };

    return seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), call, 1, &cmp);
}

/* From here on no namespace can be made; landlock: nor a Landlock rule set. */
static bool poorer(bool landlock)
{
    static const scmp_datum_t spaces[] = { CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID,
                                           CLONE_NEWIPC };
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    int r = f ? 0 : -ENOMEM;

    for (size_t i = 0; !r && i < N_ELEMS(spaces); i++) {
        r = refuse_flag(f, SCMP_SYS(unshare), spaces[i]);
        if (!r)
            r = refuse_flag(f, SCMP_SYS(clone), spaces[i]);
    }
    if (!r)
        r = refuse(f, ENOSYS, SCMP_SYS(clone3));
    if (!r && landlock)
        r = refuse(f, ENOSYS, SCMP_SYS(landlock_create_ruleset));
    if (!r)
        r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!r)
        r = seccomp_load(f);
    seccomp_release(f);
    return r == 0;
}

static bool lacks(json_object *unit, const char *what)
{
    json_object *m = json_arr(unit, "missing");

    for (size_t i = 0; m && i < json_object_array_length(m); i++)
        if (strstr(json_object_get_string(json_object_array_get_idx(m, i)), what))
            return true;
    return false;
}

/* A unit of the network is the only one that wears Landlock. */
static bool __attribute__((unused)) wears_landlock(enum unit_id u)
{
    return (unit_rows[u].sandbox & SBX_NO_EXEC) && !(unit_rows[u].sandbox & SBX_NO_NET);
}

static void check_unit(struct rig *g, enum unit_id u, char level)
{
    json_object *row = rig_unit(g, unit_rows[u].name);
    bool degraded = str_eq(json_str(row, "state", ""), "degraded");

    assert_non_null(json_arr(row, "missing"));
    if (CONFINED && wears_landlock(u)) {
        assert_int_equal(lacks(row, "landlock"), level == 'D');
        assert_int_equal(degraded, level == 'D');
    }
    if (u == UNIT_EXECSVC && level != 'B') {
        assert_true(lacks(row, "ESANDBOX"));
        assert_true(degraded);
    }
    if (u != UNIT_EXECSVC && level == 'B')
        assert_false(degraded);
    json_put(row);
}

static bool exec_has_looked(void *arg)
{
    json_object *u = rig_unit(arg, "execsvc");
    bool yes = lacks(u, "ESANDBOX");

    json_put(u);
    return yes;
}

static void with_required_jail(struct rig *g)
{
    char *text = rig_read(g, "etc/kernel.yaml");
    cleanup(freep) char *more = xasprintf("%s  agents:\n    jail: require\n", text);

    rig_write(g, "etc/kernel.yaml", more);
    free(text);
}

/* An agent says that it has no jail, and does not start where one is required. */
static void check_agent(char level)
{
    struct arun *a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);
    char path[64];
    bool said;

    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    snprintf(path, sizeof path, "/proc/%lld/status.yaml", (long long)a->pid);
    json_object *r = arun_cmd(a, "fs", "read", json_make("path:s", path));
    said = strstr(json_str(json_obj(r, "body"), "content", ""), "jail: ") != NULL;
    if (said != (level != 'B'))
        fail_msg("at level %c: %s", level, json_text(r));
    json_put(r);
    arun_free(a);
    if (level == 'B')
        return;
    a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", with_required_jail);
    r = ws_cmd(a->w, "proc", "spawn", json_make("agent:s goal:s", "researcher", "x"));
    if (json_flag(r, "ok", false)) {
        json_object *e = ws_event(a->w, "agent.exit", 20000);

        assert_non_null(e);
        assert_int_not_equal(json_int(json_obj(e, "body"), "exitCode", 1), 0);
        json_put(e);
    }
    json_put(r);
    arun_free(a);
}

static void check_level(char level)
{
    struct rig *g = rig_new(NULL);
    char want[] = "level: ?", *out = NULL;
    json_object *list = rig_init_call(g, "init/list", NULL, NULL);

    want[7] = level;
    assert_string_equal(json_str(list, "level", ""), want + 7);
    json_put(list);
    if (level != 'B')
        assert_true(rig_until(exec_has_looked, g));
    for (int u = 0; u < UNIT_COUNT; u++)
        check_unit(g, (enum unit_id)u, level);
    assert_int_equal(rig_avix(g, &out, NULL, "server", "status", "--root", g->root, NULL), 0);
    if (!strstr(out, want))
        fail_msg("'%s' is not in\n%s", want, out);
    if (level != 'B')
        assert_non_null(strstr(out, "execsvc: missing ESANDBOX"));
    if (CONFINED && level == 'D')
        assert_non_null(strstr(out, "gateway: missing landlock"));
    free(out);
    rig_stop(g);
    if (CONFINED)
        check_agent(level);
}

/* In a process of its own, because a filter stays. */
static void at(char level)
{
    int st = -1;
    pid_t pid = fork();

    if (pid == 0) {
        if (level != 'B' && !poorer(level == 'D'))
            _exit(NOT_HERE);
        check_level(level); /* a failure ends this process by another way than the exit below */
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &st, 0), pid);
    if (WIFEXITED(st) && WEXITSTATUS(st) == NOT_HERE) {
        print_message("SKIPPED: no filter can be set here\n");
        skip();
    }
    assert_int_equal(st, 0);
}

/* "require" asks for level A: users of their own for units, which no host has without root, and
 * which this version has nowhere. */
static void level_a_cannot_be_required(void **state)
{
    struct rig_opts o = { .no_start = true };
    struct rig *g = rig_new(&o);
    char err[1024] = "";

    (void)state;
    rig_write(g, "etc/kernel.yaml",
              "apiVersion: avix/v1\nkind: KernelConfig\nspec: {isolation: {uids: require}, models: "
              "{default: builtin/rules-1}}\n");
    assert_int_equal(rig_boot(g, NULL, err, sizeof err), 78);
    if (!strstr(err, "etc/kernel.yaml: spec.isolation.uids"))
        fail_msg("%s", err);
    rig_write(g, "etc/kernel.yaml",
              "apiVersion: avix/v1\nkind: KernelConfig\nspec: {isolation: {uids: auto}, models: "
              "{default: builtin/rules-1}}\n");
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    rig_stop(g);
}

static bool namespaces_here(void)
{
    int st = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) != 0);
    return waitpid(pid, &st, 0) == pid && st == 0;
}

static void with_namespaces(void **state)
{
    (void)state;
    if (!namespaces_here()) {
        print_message("SKIPPED: no namespaces here\n");
        skip();
    }
    at('B');
}

static void without_namespaces(void **state)
{
    (void)state;
    if (landlock_abi() < 1) {
        print_message("SKIPPED: no Landlock here\n");
        skip();
    }
    at('C');
}

static void without_both(void **state)
{
    (void)state;
    at('D');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_namespaces),
        cmocka_unit_test(without_namespaces),
        cmocka_unit_test(without_both),
        cmocka_unit_test(level_a_cannot_be_required),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
