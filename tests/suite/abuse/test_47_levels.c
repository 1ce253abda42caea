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
#include "tests/rig/rig.h"

#define NOT_HERE 90

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
static bool wears_landlock(enum unit_id u)
{
    return (unit_rows[u].sandbox & SBX_NO_EXEC) && !(unit_rows[u].sandbox & SBX_NO_NET);
}

static void check_unit(struct rig *g, enum unit_id u, char level)
{
    json_object *row = rig_unit(g, unit_rows[u].name);
    bool degraded = str_eq(json_str(row, "state", ""), "degraded");

    assert_non_null(json_arr(row, "missing"));
#if !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)
    if (wears_landlock(u)) {
        assert_int_equal(lacks(row, "landlock"), level == 'D');
        assert_int_equal(degraded, level == 'D');
    }
#endif
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
    if (level == 'D')
        assert_non_null(strstr(out, "gateway: missing landlock"));
    free(out);
    rig_stop(g);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
