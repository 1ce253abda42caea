/* avix server run: one agent, its answer on stdout, no daemon and no process left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/rig/rig.h"

static struct rig *g;

static int setup(void **state)
{
    (void)state;
    g = rig_new(&(struct rig_opts){ .no_start = true });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

static void the_answer_is_on_stdout(void **state)
{
    (void)state;
    char *out = NULL, *err = NULL;
    assert_int_equal(rig_avix(g, &out, &err, "server", "run", "--root", g->root, "--goal",
                              "calculate 40 + 2", NULL),
                     0);
    assert_non_null(strstr(out, "42"));
    assert_non_null(strstr(err, "→ exec/python"));
    assert_int_equal(rig_count_processes(g), 0);
    free(out);
    free(err);
}

static void events_are_lines_of_json(void **state)
{
    (void)state;
    char *out = NULL, *save = NULL;
    bool exited = false;
    assert_int_equal(rig_avix(g, &out, NULL, "--json", "server", "run", "--root", g->root, "--goal",
                              "hello", NULL),
                     0);
    for (char *l = strtok_r(out, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        cleanup(json_putp) json_object *o = NULL;
        assert_int_equal(json_parse(l, strlen(l), &o), 0);
        exited = exited || str_eq(json_str(o, "event", ""), "agent.exit");
    }
    assert_true(exited);
    free(out);
}

static void an_unknown_agent_is_exit_6(void **state)
{
    (void)state;
    char *err = NULL;
    assert_int_equal(rig_avix(g, NULL, &err, "server", "run", "--root", g->root, "--name", "nobody",
                              "--goal", "x", NULL),
                     6);
    assert_non_null(strstr(err, "nobody"));
    free(err);
}

static void a_running_daemon_is_named(void **state)
{
    (void)state;
    char *err = NULL;
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    assert_int_equal(
        rig_avix(g, NULL, &err, "server", "run", "--root", g->root, "--goal", "x", NULL), 1);
    assert_non_null(strstr(err, "a daemon runs on this root"));
    free(err);
    assert_int_equal(rig_shutdown(g), 0);
}

static void without_auth_conf_it_says_so(void **state)
{
    (void)state;
    char other[400], *err = NULL;
    snprintf(other, sizeof other, "%s/empty", g->dir);
    assert_int_equal(rig_avix(g, NULL, &err, "server", "run", "--root", other, "--goal", "x", NULL),
                     78);
    assert_non_null(strstr(err, "auth.conf not found"));
    free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_on_stdout),      cmocka_unit_test(events_are_lines_of_json),
        cmocka_unit_test(an_unknown_agent_is_exit_6),   cmocka_unit_test(a_running_daemon_is_named),
        cmocka_unit_test(without_auth_conf_it_says_so),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
