/* Reports to a kernel that is away: kept in order, a ceiling, the oldest given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/init/init.h"

static void reports_wait_and_are_bounded(void **state)
{
    (void)state;
    log_init("test", true, LOG_ERROR);
    init.loop = loop_new();
    units[UNIT_KERNEL].state = ST_STOPPED;
    report("init/unit", json_make("name:s", "memfs"));
    for (int64_t i = 0; i < REPORTS_MAX - 1; i++)
        report("init/exited", json_make("avixPid:i", i));
    cleanup(json_putp) json_object *all = reports_exits();

    assert_int_equal(json_object_array_length(all), REPORTS_MAX - 1);
    report("init/exited", json_make("avixPid:i", (int64_t)9998)); /* the init/unit goes */
    report("init/exited", json_make("avixPid:i", (int64_t)9999)); /* and the first exit */
    cleanup(json_putp) json_object *now = reports_exits();

    assert_int_equal(json_object_array_length(now), REPORTS_MAX);
    assert_int_equal(json_int(json_object_array_get_idx(now, 0), "avixPid", -1), 1);
    assert_int_equal(json_int(json_object_array_get_idx(now, REPORTS_MAX - 1), "avixPid", -1),
                     9999);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(reports_wait_and_are_bounded) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
