/*
 * Security page, test 12: a tool's budget of one use, under a hundred calls at a time and with the
 * router killed among them, is used once: the owner sees one call at most, ever.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "tests/rig/guest.h"

#define CALLS 100

static struct rig *g;
static struct guest *s;

static int up(void **state)
{
    (void)state;
    g = rig_new(NULL);
    s = guest_start(g, NULL);
    return 0;
}

static int down(void **state)
{
    (void)state;
    guest_stop(s);
    rig_stop(g);
    return 0;
}

/* A hundred calls at once; what came of them. */
struct storm {
    struct loop *l;
    pid_t kill_at_first; /* SIGKILL to this process after so many replies; 0: nobody */
    int kill_after;
    int left, fine, budget, broken, other;
};

static void replied(struct ipc_reply *r, void *arg)
{
    struct storm *x = arg;

    if (!r->err)
        x->fine++;
    else if (r->err == ERR_BUDGET)
        x->budget++;
    else if (r->err == ERR_UNAVAIL)
        x->broken++;
    else
        x->other++;
    if (x->kill_at_first > 0 && x->fine + x->budget >= x->kill_after) {
        kill(x->kill_at_first, SIGKILL);
        x->kill_at_first = 0;
    }
    if (--x->left == 0)
        loop_stop(x->l);
}

static struct storm storm(const char *token, pid_t victim, int kill_after)
{
    struct storm x = {
        .l = loop_new(), .left = CALLS, .kill_at_first = victim, .kill_after = kill_after
    };
    struct ipc_req q = { .sock = rig_sock(g, "router.sock"),
                         .method = "echo/echo",
                         .token = token,
                         .timeout_ms = 20000 };

    for (int i = 0; i < CALLS; i++)
        ipc_start(x.l, &q, NULL, replied, &x);
    loop_run(x.l);
    loop_free(x.l);
    assert_int_equal(x.other, 0);
    assert_int_equal(x.fine + x.budget + x.broken, CALLS);
    return x;
}

/* Calls of echo/echo that reached the owner since the last time it was asked. A call of another
 * tool comes last, so nothing is still under way. */
static int arrived(void)
{
    cleanup(freep) char *t = rig_token(g, "echo/old", NULL);
    struct ipc_reply r;
    int n = 0;

    assert_int_equal(rig_call(g, t, "echo/old", "{}", &r), 0);
    ipc_reply_done(&r);
    for (;;) {
        const char *e = guest_event(s, 5000);

        if (!*e || str_eq(e, "call gone"))
            return n;
        n += str_eq(e, "call echo/echo");
    }
}

static char *once(const char *lineage, int64_t uses)
{
    return rig_token(g, "echo/echo echo/old",
                     json_make("budgets:o lineage:s", json_make("echo/echo:i", uses), lineage));
}

static void a_hundred_at_once_use_it_once(void **state)
{
    cleanup(freep) char *t = once("abuse-12-once", 1), *three = once("abuse-12-three", 3);
    struct storm x = storm(t, 0, 0);

    (void)state;
    assert_int_equal(x.fine, 1);
    assert_int_equal(x.budget, CALLS - 1);
    assert_int_equal(arrived(), 1);
    x = storm(three, 0, 0);
    assert_int_equal(x.fine, 3);
    assert_int_equal(x.budget, CALLS - 3);
    assert_int_equal(arrived(), 3);
}

/* Another token of the same process has the same lineage, and so the same uses. */
static void a_new_token_brings_no_new_use(void **state)
{
    cleanup(freep) char *first = once("abuse-12-renewed", 1);
    cleanup(freep) char *second = once("abuse-12-renewed", 1);
    struct storm x = storm(first, 0, 0);

    (void)state;
    assert_int_equal(x.fine, 1);
    x = storm(second, 0, 0);
    assert_int_equal(x.fine, 0);
    assert_int_equal(arrived(), 1);
}

static bool router_is_new(void *arg)
{
    pid_t now = rig_unit_pid(g, "router");

    return now > 0 && now != *(pid_t *)arg;
}

/* Killed before anything was answered, in the middle, and late; then a hundred more. */
static void the_router_killed_among_them(void **state)
{
    static const int after[] = { 0, 1, 50 };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(after); i++) {
        char lineage[40];
        pid_t old = rig_unit_pid(g, "router");

        snprintf(lineage, sizeof lineage, "abuse-12-kill-%zu", i);
        cleanup(freep) char *t = once(lineage, 1);
        int seen = 0, fine;

        if (after[i] == 0)
            kill(old, SIGKILL);
        struct storm x = storm(t, after[i] ? old : 0, after[i]);
        fine = x.fine;
        assert_true(rig_until(router_is_new, &old));
        seen += arrived();
        for (int more = 0; more < 2; more++) {
            x = storm(t, 0, 0);
            fine += x.fine;
            assert_int_equal(x.broken, 0);
        }
        seen += arrived();
        assert_true(fine <= 1);
        assert_true(seen <= 1);
        assert_true(fine <= seen);
        if (after[i] > 1) /* it had answered, so the use was made */
            assert_int_equal(seen, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_at_once_use_it_once),
        cmocka_unit_test(a_new_token_brings_no_new_use),
        cmocka_unit_test(the_router_killed_among_them),
    };

    return cmocka_run_group_tests(tests, up, down);
}
