/* Parameter resolution: layers, clamps, locks, sets, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "kernel/core/resolve.h"

static json_object *js(const char *s)
{
    json_object *o = NULL;
    assert_int_equal(json_parse(s, strlen(s), &o), 0);
    return o;
}

static struct resolve_output run(const char *const *defaults, const char *const *limits, int want)
{
    struct resolve_input in = { .default_model = "m-0" };
    struct resolve_output out;
    json_object *keep[16];
    size_t n = 0;
    for (; defaults && *defaults; defaults += 2) {
        keep[n] = js(defaults[1]);
        in.defaults[in.n_defaults++] =
            (struct resolve_layer){ .values = keep[n++], .source = defaults[0], .path = "/p" };
    }
    for (; limits && *limits; limits += 2) {
        keep[n] = js(limits[1]);
        in.limits[in.n_limits++] =
            (struct resolve_layer){ .values = keep[n++], .source = limits[0], .path = "/l" };
    }
    assert_int_equal(resolve_fields(&in, &out), want);
    /* sources are literals, values may go */
    while (n > 0)
        json_put(keep[--n]);
    return out;
}

static int64_t num(const struct resolve_output *o, const char *sec, const char *name)
{
    return json_int(json_obj(o->resolved, sec), name, -1);
}

static void defaults_stand(void **state)
{
    (void)state;
    struct resolve_output o = run(NULL, NULL, 0);
    assert_string_equal(json_str(json_obj(o.resolved, "entrypoint"), "modelPreference", ""), "m-0");
    assert_int_equal(num(&o, "entrypoint", "maxToolChain"), 5);
    assert_int_equal(num(&o, "entrypoint", "maxTurnsPerGoal"), 20);
    assert_int_equal(num(&o, "environment", "timeoutSec"), 300);
    assert_true(json_num(json_obj(o.resolved, "environment"), "temperature", 0) > 0.69);
    resolve_output_done(&o);
}

static void later_layers_win(void **state)
{
    (void)state;
    const char *d[] = { "crew-lab", "{\"entrypoint\":{\"maxToolChain\":7,\"maxTurnsPerGoal\":9}}",
                        "user-al",  "{\"entrypoint\":{\"maxToolChain\":8}}",
                        "manifest", "{\"entrypoint\":{\"maxToolChain\":9}}",
                        "spawn",    "{\"entrypoint\":{\"modelPreference\":\"m-9\"}}",
                        NULL };
    struct resolve_output o = run(d, NULL, 0);
    assert_int_equal(num(&o, "entrypoint", "maxToolChain"), 9);
    assert_int_equal(num(&o, "entrypoint", "maxTurnsPerGoal"), 9);
    json_object *a = json_obj(o.annotations, "entrypoint.maxTurnsPerGoal");
    assert_string_equal(json_str(a, "source", ""), "crew-lab");
    assert_string_equal(json_str(json_obj(o.resolved, "entrypoint"), "modelPreference", ""), "m-9");
    resolve_output_done(&o);
}

static void wrong_types_are_passed_over(void **state)
{
    (void)state;
    const char *d[] = { "user-al", "{\"entrypoint\":{\"maxToolChain\":\"many\"}}", NULL };
    struct resolve_output o = run(d, NULL, 0);
    assert_int_equal(num(&o, "entrypoint", "maxToolChain"), 5);
    resolve_output_done(&o);
}

static void ranges_clamp_and_intersect(void **state)
{
    (void)state;
    const char *d[] = { "manifest",
                        "{\"entrypoint\":{\"maxTurnsPerGoal\":9000},"
                        "\"environment\":{\"timeoutSec\":1,\"temperature\":1.9}}",
                        NULL };
    const char *l[] = { "crew-a",
                        "{\"entrypoint\":{\"maxTurnsPerGoal\":{\"max\":100}},"
                        "\"environment\":{\"temperature\":{\"type\":\"range\",\"max\":1}}}",
                        "crew-b",
                        "{\"entrypoint\":{\"maxTurnsPerGoal\":{\"range\":{\"min\":2,\"max\":40}}}}",
                        NULL };
    struct resolve_output o = run(d, l, 0);
    assert_int_equal(num(&o, "entrypoint", "maxTurnsPerGoal"), 40);
    assert_int_equal(num(&o, "environment", "timeoutSec"), 30);
    json_object *a = json_obj(o.annotations, "entrypoint.maxTurnsPerGoal");
    assert_string_equal(json_str(a, "clampedBy", ""), "crew-b");
    assert_int_equal(json_int(a, "clampedFrom", 0), 9000);
    a = json_obj(o.annotations, "environment.timeoutSec");
    assert_string_equal(json_str(a, "clampedBy", ""), "system-limits");
    resolve_output_done(&o);
}

static void bool_locks_and_null_frees(void **state)
{
    (void)state;
    const char *l[] = { "crew-a",
                        "{\"snapshot\":{\"enabled\":{\"value\":true},"
                        "\"restoreOnCrash\":{\"value\":null}}}",
                        NULL };
    const char *d[] = { "manifest", "{\"snapshot\":{\"restoreOnCrash\":true}}", NULL };
    struct resolve_output o = run(d, l, 0);
    assert_true(json_flag(json_obj(o.resolved, "snapshot"), "enabled", false));
    assert_true(json_flag(json_obj(o.resolved, "snapshot"), "restoreOnCrash", false));
    resolve_output_done(&o);
}

static void sets_and_tools(void **state)
{
    (void)state;
    const char *l[] = { "crew-a", "{\"tools\":{\"allowed\":[\"fs/read\",\"fs/list\"]}}", "user-al",
                        "{\"tools\":{\"allowed\":[\"fs/read\",\"web/x\"]}}", NULL };
    struct resolve_output o = run(NULL, l, 0);
    assert_string_equal(json_text(o.tool_limit), "[\"fs/read\"]");
    resolve_output_done(&o);
}

static void refusals(void **state)
{
    (void)state;
    const char *l[] = { "crew-a", "{\"entrypoint\":{\"modelPreference\":{\"values\":[\"m-1\"]}}}",
                        NULL };
    struct resolve_output o = run(NULL, l, ERR_INVAL);
    assert_non_null(strstr(o.why, "modelPreference"));
    resolve_output_done(&o);
    const char *ro[] = { "crew-a", "{\"entrypoint\":{\"maxToolChain\":{\"readonly\":true}}}",
                         NULL };
    const char *d[] = { "manifest", "{\"entrypoint\":{\"maxToolChain\":6}}", NULL };
    o = run(d, ro, ERR_INVAL);
    resolve_output_done(&o);
    o = run(NULL, ro, 0);
    resolve_output_done(&o);
}

static void files_are_checked(void **state)
{
    char why[128];
    (void)state;
    cleanup(json_putp) json_object *ok = js("{\"entrypoint\":{\"maxToolChain\":6}}");
    cleanup(json_putp) json_object *bad = js("{\"entrypoint\":{\"maxToolChain\":900}}");
    cleanup(json_putp) json_object *type = js("{\"entrypoint\":{\"maxToolChain\":\"x\"}}");
    assert_int_equal(resolve_check(ok, NULL, 0, why, sizeof why), 0);
    assert_int_equal(resolve_check(bad, NULL, 0, why, sizeof why), ERR_INVAL);
    assert_non_null(strstr(why, "limits"));
    assert_int_equal(resolve_check(type, NULL, 0, why, sizeof why), ERR_INVAL);
    cleanup(json_putp) json_object *sd = resolve_system_defaults("m"),
                                   *sl = resolve_system_limits();
    assert_int_equal(resolve_check(sd, NULL, 0, why, sizeof why), 0);
    assert_int_equal(json_int(json_obj(json_obj(sl, "entrypoint"), "maxToolChain"), "max", 0), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_stand),
        cmocka_unit_test(later_layers_win),
        cmocka_unit_test(wrong_types_are_passed_over),
        cmocka_unit_test(ranges_clamp_and_intersect),
        cmocka_unit_test(bool_locks_and_null_frees),
        cmocka_unit_test(sets_and_tools),
        cmocka_unit_test(refusals),
        cmocka_unit_test(files_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
