/* The state table, the classification of exits, and what sessions make of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/core/life.h"

static void straight_way(void **state)
{
    static const struct {
        enum phase from;
        enum life_ev ev;
        enum phase to;
        const char *act;
    } way[] = {
        { PH_REST, EV_GO, PH_FORK, "fork" },       { PH_FORK, EV_FORKED, PH_MINT, "mint" },
        { PH_MINT, EV_MINTED, PH_READY, "t2" },    { PH_READY, EV_READY, PH_TOOLS, "token" },
        { PH_TOOLS, EV_TOOLS, PH_START, "start" }, { PH_START, EV_REPORT, PH_LIVE, "live" },
    };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(way); i++) {
        assert_int_equal(life_next(way[i].from, way[i].ev), way[i].to);
        assert_string_equal(life_action(way[i].from, way[i].ev), way[i].act);
    }
}

static void ready_may_overtake(void **state)
{
    (void)state;
    assert_string_equal(life_action(PH_FORK, EV_READY), "hold");
    assert_string_equal(life_action(PH_MINT, EV_READY), "hold");
    assert_int_equal(life_next(PH_FORK, EV_READY), PH_FORK);
    /* and may be repeated when its answer was lost */
    assert_string_equal(life_action(PH_TOOLS, EV_READY), "token");
    assert_string_equal(life_action(PH_START, EV_READY), "token");
    assert_string_equal(life_action(PH_REST, EV_READY), "refuse");
    assert_string_equal(life_action(PH_GONE, EV_READY), "refuse");
    assert_string_equal(life_action(PH_ENDING, EV_READY), "refuse");
}

/* In every phase with a host process an exit, a kill, a stop and a timeout lead somewhere. */
static void no_phase_is_a_trap(void **state)
{
    (void)state;
    for (int ph = PH_FORK; ph <= PH_ENDING; ph++) {
        if (str_empty(life_action((enum phase)ph, EV_EXITED)))
            fail_msg("%s ignores an exit", phase_names[ph]);
        if (ph != PH_ENDING && life_next((enum phase)ph, EV_END) != PH_ENDING)
            fail_msg("%s ignores a kill", phase_names[ph]);
        if (ph != PH_ENDING && str_empty(life_action((enum phase)ph, EV_STOP)))
            fail_msg("%s ignores a stop", phase_names[ph]);
        if (ph != PH_LIVE && str_empty(life_action((enum phase)ph, EV_TIMEOUT)))
            fail_msg("%s never times out", phase_names[ph]);
    }
    assert_int_equal(life_next(PH_REST, EV_END), PH_GONE);
}

static void a_report_ends_every_start(void **state)
{
    static const enum phase starting[] = { PH_MINT, PH_READY, PH_TOOLS, PH_START };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(starting); i++)
        assert_int_equal(life_next(starting[i], EV_REPORT), PH_LIVE);
}

static void late_answers_change_nothing(void **state)
{
    static const enum life_ev late[] = { EV_FORKED, EV_FORK_FAIL, EV_MINTED,    EV_MINT_FAIL,
                                         EV_TOOLS,  EV_STARTED,   EV_START_LOST };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(late); i++) {
        assert_int_equal(life_next(PH_LIVE, late[i]), PH_LIVE);
        assert_string_equal(life_action(PH_LIVE, late[i]), "");
        assert_int_equal(life_next(PH_GONE, late[i]), PH_GONE);
        assert_string_equal(life_action(PH_GONE, late[i]), "");
    }
}

static void exits(void **state)
{
    static const struct {
        struct exit_facts f;
        enum outcome out;
        enum pstate ps;
        enum inv_state iv;
        enum sess_state ss;
        const char *reason;
    } rows[] = {
        /* one-shot goal reached */
        { { .cause = "done ", .started = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_COMPLETED,
          SS_COMPLETED,
          "" },
        { { .started = true }, OUT_FINAL, PS_STOPPED, IV_COMPLETED, SS_COMPLETED, "" },
        /* SIGSTOP obeyed */
        { { .cause = "stop stopped", .started = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_COMPLETED,
          SS_COMPLETED,
          "stopped" },
        { { .cause = "stop parent_exited", .started = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_COMPLETED,
          SS_COMPLETED,
          "parent_exited" },
        { { .cause = "hibernate hibernate", .started = true, .idle = true },
          OUT_SLEEP,
          PS_WAITING,
          IV_IDLE,
          SS_IDLE,
          "" },
        { { .cause = "shutdown shutdown", .started = true, .idle = true },
          OUT_SLEEP,
          PS_WAITING,
          IV_IDLE,
          SS_IDLE,
          "" },
        { { .cause = "shutdown shutdown", .started = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_KILLED,
          SS_IDLE,
          "interrupted_at_shutdown" },
        { { .cause = "interrupted ", .started = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_KILLED,
          SS_IDLE,
          "interrupted_at_shutdown" },
        /* kill */
        { { .cause = "kill killed", .signal = 9, .started = true, .may_restart = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_KILLED,
          SS_FAILED,
          "killed" },
        { { .cause = "kill because", .signal = 9 },
          OUT_FINAL,
          PS_STOPPED,
          IV_KILLED,
          SS_FAILED,
          "because" },
        { { .cause = "kill parent_killed", .lost = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_KILLED,
          SS_FAILED,
          "parent_killed" },
        /* failure report */
        { { .cause = "failed llm_unavailable", .code = 1, .started = true, .may_restart = true },
          OUT_FINAL,
          PS_STOPPED,
          IV_FAILED,
          SS_FAILED,
          "llm_unavailable" },
        /* deaths nobody asked for */
        { { .code = 64, .may_restart = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "bad_start" },
        { { .code = 69, .may_restart = true, .started = true },
          OUT_RESTART,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "kernel_unreachable" },
        { { .code = 69, .started = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "kernel_unreachable" },
        { { .code = 70, .started = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "internal" },
        { { .signal = 11, .started = true, .may_restart = true },
          OUT_RESTART,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "crashed: signal 11" },
        { { .signal = 11, .started = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "crashed: signal 11" },
        { { .signal = 9, .oom = true, .started = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "oom_killed" },
        { { .lost = true, .started = true }, OUT_FINAL, PS_CRASHED, IV_FAILED, SS_FAILED, "lost" },
        { { .signal = 11, .started = true, .idle = true, .may_restart = true },
          OUT_SLEEP,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "crashed: signal 11" },
        /* never started: exit 0 is no success */
        { { .may_restart = true }, OUT_RESTART, PS_CRASHED, IV_FAILED, SS_FAILED, "internal" },
        { { .cause = "abort spawn_failed: x", .signal = 9, .may_restart = true },
          OUT_FINAL,
          PS_CRASHED,
          IV_FAILED,
          SS_FAILED,
          "spawn_failed: x" },
    };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct verdict v;
        exit_classify(&rows[i].f, &v);
        if (v.out != rows[i].out || v.state != rows[i].ps || v.inv != rows[i].iv ||
            v.session != rows[i].ss || !str_eq(v.reason, rows[i].reason))
            fail_msg("row %zu: out %d, %s, %s, session %s, '%s'", i, v.out, pstate_names[v.state],
                     inv_names[v.inv], sess_names[v.session], v.reason);
    }
}

static void sessions(void **state)
{
    static const struct {
        enum sess_state s;
        enum sess_ev ev;
        enum sess_state to;
    } rows[] = {
        { SS_RUNNING, SE_GOAL, SS_IDLE },           { SS_IDLE, SE_WORK, SS_RUNNING },
        { SS_RUNNING, SE_PAUSE, SS_PAUSED },        { SS_PAUSED, SE_RESUME, SS_RUNNING },
        { SS_RUNNING, SE_END_CLEAN, SS_COMPLETED }, { SS_RUNNING, SE_INTERRUPTED, SS_IDLE },
        { SS_RUNNING, SE_END_BAD, SS_FAILED },      { SS_COMPLETED, SE_WORK, SS_RUNNING },
        { SS_ARCHIVED, SE_WORK, SS_ARCHIVED },      { SS_ARCHIVED, SE_END_BAD, SS_ARCHIVED },
    };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        assert_int_equal(session_next(rows[i].s, rows[i].ev), rows[i].to);
}

static void names_are_one_list(void **state)
{
    (void)state;
    assert_int_equal(name_index(pstate_names, PS_COUNT, "waiting"), PS_WAITING);
    assert_int_equal(name_index(wait_names, WO_COUNT, NULL), WO_NONE);
    assert_int_equal(name_index(wait_names, WO_COUNT, "pipe-read"), WO_PIPE_READ);
    assert_int_equal(name_index(inv_names, IV_COUNT, "killed"), IV_KILLED);
    assert_int_equal(name_index(sess_names, SS_COUNT, "archived"), SS_ARCHIVED);
    assert_int_equal(name_index(pstate_names, PS_COUNT, "x"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(straight_way),
        cmocka_unit_test(ready_may_overtake),
        cmocka_unit_test(no_phase_is_a_trap),
        cmocka_unit_test(a_report_ends_every_start),
        cmocka_unit_test(late_answers_change_nothing),
        cmocka_unit_test(exits),
        cmocka_unit_test(sessions),
        cmocka_unit_test(names_are_one_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
