/* Without a sandbox nothing is executed, and everyone is told why. */
#include "tests/suite/fs_calls.h"

static void no_tier(struct rig *g)
{
    rig_write(g, "etc/exec.yaml",
              "apiVersion: avix/v1\nkind: ExecConfig\nspec:\n"
              "  sandbox: {tiers: [landlock]}\n");
}

static bool exec_is_off(void *arg)
{
    json_object *data = NULL;
    int err = refused_with("exec/shell", "{\"code\":\":\"}", &data);
    bool off = err == ERR_UNAVAIL && strstr(json_str(data, "reason", ""), "ESANDBOX");

    (void)arg;
    json_put(data);
    assert_true(off || err == ERR_SANDBOX);
    return off;
}

/* Before the registry knows, execsvc itself says no; then the router does, with the reason. */
static void without_a_sandbox_exec_is_off(void **state)
{
    struct rig_opts o = { .before = no_tier };
    json_object *unit;

    (void)state;
    rig = rig_new(&o);
    token = rig_token(rig, FS_TOOLS, NULL);
    assert_true(rig_until(exec_is_off, NULL));
    unit = rig_unit(rig, "execsvc");
    assert_string_equal(json_str(unit, "state", ""), "degraded");
    json_put(unit);
    unit = ok("exec/runtimes", "{}");
    assert_string_equal(json_str(json_obj(unit, "sandbox"), "tier", ""), "none");
    json_put(unit);
    free(token);
    rig_stop(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_sandbox_exec_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
