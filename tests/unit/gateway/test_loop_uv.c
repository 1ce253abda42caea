/* The libuv back end behind common/ipc/loop.h: the promises that header makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "gateway/loop_uv.h"

static struct loop *l;

static int setup(void **state)
{
    (void)state;
    l = loop_uv_new();
    return l ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(l);
    return 0;
}

struct seen {
    struct watch w;
    struct timer t;
    int n;
    unsigned events;
    int64_t at;
    char order[16];
};

static void on_watch(int fd, unsigned events, void *arg)
{
    struct seen *s = arg;

    (void)fd;
    s->n++;
    s->events = events;
}

static void level_triggered(void **state)
{
    struct seen s = { .n = 0 };
    int fd[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    watch_init(&s.w, l, fd[0], on_watch, &s);
    watch_set(&s.w, LOOP_READ);
    assert_int_equal(write(fd[1], "x", 1), 1);
    for (int i = 1; i <= 3; i++) {
        loop_step(l, true);
        assert_int_equal(s.n, i);
        assert_int_equal(s.events, LOOP_READ);
    }
    watch_set(&s.w, LOOP_WRITE);
    loop_step(l, true);
    assert_int_equal(s.events, LOOP_WRITE);
    watch_set(&s.w, 0);
    loop_step(l, false);
    assert_int_equal(s.n, 4);
    watch_done(&s.w);
    watch_done(&s.w);
    close(fd[0]);
    /* the number is used again by another watch at once */
    int again = dup(fd[1]);
    watch_init(&s.w, l, again, on_watch, &s);
    watch_set(&s.w, LOOP_READ);
    loop_step(l, true);
    assert_int_equal(s.n, 5);
    watch_done(&s.w);
    close(again);
    close(fd[1]);
}

static void hang_up_and_error_are_readable(void **state)
{
    struct seen s = { .n = 0 };
    int fd[2];

    (void)state;
    assert_int_equal(pipe(fd), 0);
    close(fd[0]);
    watch_init(&s.w, l, fd[1], on_watch, &s); /* a pipe without a reader: EPOLLERR */
    watch_set(&s.w, LOOP_WRITE);
    loop_step(l, true);
    loop_step(l, true);
    assert_int_equal(s.n, 2);
    assert_true(s.events & LOOP_WRITE);
    watch_done(&s.w);
    close(fd[1]);
}

static void end_in_callback(int fd, unsigned events, void *arg)
{
    struct seen *s = arg;

    (void)fd;
    (void)events;
    watch_done(&s->w);
    free(s);
}

static void an_owner_may_vanish_in_its_callback(void **state)
{
    struct seen *s = xcalloc(1, sizeof(*s));
    int fd[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    watch_init(&s->w, l, fd[0], end_in_callback, s);
    watch_set(&s->w, LOOP_READ | LOOP_WRITE);
    loop_step(l, true);
    loop_step(l, false);
    close(fd[0]);
    close(fd[1]);
}

static void on_timer(void *arg)
{
    struct seen *s = arg;

    s->n++;
    s->at = mono_ms();
}

static void timers(void **state)
{
    struct seen s = { .n = 0 };
    int64_t t0 = mono_ms();

    (void)state;
    timer_init(&s.t, l, on_timer, &s);
    timer_set(&s.t, 5000);
    timer_set(&s.t, 20);
    assert_true(s.t.armed);
    while (!s.n)
        loop_step(l, true);
    assert_false(s.t.armed);
    assert_in_range(s.at - t0, 19, 2000);
    timer_set(&s.t, 0);
    timer_stop(&s.t);
    loop_step(l, false);
    assert_int_equal(s.n, 1);
    timer_done(&s.t);
    timer_done(&s.t);
}

static struct seen order;

static void second(void *arg)
{
    (void)arg;
    order.order[order.n++] = '2';
    loop_stop(l);
}

static void first(void *arg)
{
    (void)arg;
    order.order[order.n++] = '1';
    loop_defer(l, second, NULL);
}

static void deferred_run_before_it_sleeps(void **state)
{
    (void)state;
    loop_defer(l, first, NULL);
    loop_run(l);
    assert_string_equal(order.order, "12");
}

static void on_sig(void *arg)
{
    *(int *)arg += 1;
    loop_stop(l);
}

static void signals(void **state)
{
    struct seen keep = { .n = 0 };
    int n = 0;

    (void)state;
    timer_init(&keep.t, l, on_timer, &keep);
    timer_set(&keep.t, 5000);
    loop_signal(l, SIGUSR1, on_sig, &n);
    kill(getpid(), SIGUSR1);
    loop_run(l);
    assert_int_equal(n, 1);
    timer_done(&keep.t);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(level_triggered),
        T(hang_up_and_error_are_readable),
        T(an_owner_may_vanish_in_its_callback),
        T(timers),
        T(deferred_run_before_it_sleeps),
        T(signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
