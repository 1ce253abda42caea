/* Manifests: today's form, older forms, everything that is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "kernel/core/manifest.h"

#define HEAD "apiVersion: avix/v1\nkind: Agent\nmetadata: {name: researcher, version: \"1.0.0\"}\n"

static struct manifest *parse(const char *text, const char *dir, int want, const char *why)
{
    struct manifest *m = NULL;
    struct yaml_err e;
    int r = manifest_parse(text, strlen(text), dir, &m, &e);
    if (r != want)
        fail_msg("%d instead of %d: line %d: %s", r, want, e.line, e.msg);
    if (why && !strstr(e.msg, why))
        fail_msg("'%s' does not name '%s'", e.msg, why);
    return m;
}

static void full_form(void **state)
{
    (void)state;
    struct manifest *m = parse(
        HEAD "packaging: {source: x, signature: \"sha256:\"}\n"
             "spec:\n  systemPromptPath: prompt.md\n  requestedCapabilities: [\"fs:read\"]\n"
             "  tools: {required: [fs/read], optional: [\"web:*\"]}\n"
             "  entrypoint: {type: llm-loop, maxToolChain: 8, maxTurnsPerGoal: 50,"
             " modelRequirements: {minContextWindow: 16000, requiredCapabilities: [tool_use, "
             "vision]}}\n"
             "  memory: {workingContext: fixed, episodicPersistence: true, semanticStoreAccess: "
             "read-write}\n"
             "  snapshot: {mode: per-turn, restoreOnCrash: true}\n"
             "  defaults: {goalTemplate: \"Find {{topic}}\", environment: {temperature: 0.2}}\n"
             "  secrets: [key]\n  budget: {tokens: 5000}\n  visibility: public\n",
        "researcher@1.0.0", 0, NULL);
    assert_string_equal(m->name, "researcher");
    assert_string_equal(m->signature, "");
    assert_string_equal(m->prompt_path, "prompt.md");
    assert_true(json_arr_has(m->requested, "fs:read"));
    assert_true(json_arr_has(m->optional, "memory:read"));
    assert_true(json_arr_has(m->optional, "memory:write"));
    assert_int_equal(m->min_context, 16000);
    assert_true(json_arr_has(m->model_caps, "vision"));
    assert_true(m->context_fixed);
    assert_true(m->restore_on_crash);
    assert_int_equal(json_int(json_obj(m->values, "entrypoint"), "maxToolChain", 0), 8);
    assert_int_equal(json_int(m->budget, "tokens", 0), 5000);
    manifest_free(m);
}

static void older_form(void **state)
{
    (void)state;
    struct manifest *m =
        parse("apiVersion: avix/v1\nkind: AgentManifest\n"
              "metadata: {name: old.one, version: 0.1.0, signature: \"sha256:ab\"}\n"
              "spec:\n  capabilities: {required: [fs.read, bash], optional: [cli.x, python]}\n"
              "  entrypoint: {modelPreference: m-1, minContextTokens: 9000}\n"
              "  defaults: {systemPrompt: hello}\n  shiny: 1\n",
              "old.one", 0, NULL);
    assert_true(json_arr_has(m->required, "fs/read"));
    assert_true(json_arr_has(m->required, "exec/shell"));
    assert_true(json_arr_has(m->optional, "exec/python"));
    assert_int_equal(json_object_array_length(m->optional), 1);
    assert_string_equal(m->model, "m-1");
    assert_int_equal(m->min_context, 9000);
    assert_string_equal(m->prompt_text, "hello");
    assert_int_equal(json_object_array_length(m->warnings), 2);
    manifest_free(m);
}

static void refused(void **state)
{
    static const struct {
        const char *text, *dir, *why;
    } bad[] = {
        { "", NULL, "" },
        { "[]", NULL, "mapping" },
        { "kind: Agent\n", NULL, "apiVersion" },
        { "apiVersion: avix/v2\nkind: Agent\nmetadata: {}\n", NULL, "apiVersion" },
        { "apiVersion: avix/v1\nkind: Service\nmetadata: {name: a, version: 1.0.0}\n", NULL,
          "kind" },
        { HEAD "extra: 1\n", NULL, "extra" },
        { HEAD, "other@1.0.0", "name" },
        { HEAD, "researcher@2.0.0", "version" },
        { "apiVersion: avix/v1\nkind: Agent\nmetadata: {name: A, version: 1.0.0}\n", NULL, "name" },
        { "apiVersion: avix/v1\nkind: Agent\nmetadata: {name: a, version: \"1.0\"}\n", NULL,
          "version" },
        { HEAD "spec: {entrypoint: {type: script}}\n", NULL, "type" },
        { HEAD "spec: {entrypoint: {maxToolChain: no}}\n", NULL, "maxToolChain" },
        { HEAD "spec: {tools: {required: fs/read}}\n", NULL, "required" },
        { HEAD "spec: {requestedCapabilities: [1]}\n", NULL, "requestedCapabilities" },
        { HEAD "spec: {memory: {workingContext: maybe}}\n", NULL, "workingContext" },
        { HEAD "spec: {defaults: {environment: {temperature: hot}}}\n", NULL, "temperature" },
        { "apiVersion: avix/v1\n\tkind: Agent\n", NULL, "" },
        { "a: &x 1\nb: *x\n", NULL, "" },
    };
    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        (void)parse(bad[i].text, bad[i].dir, ERR_INVAL, bad[i].why);
}

static void too_large(void **state)
{
    (void)state;
    char *s = xmalloc(MANIFEST_MAX + 2);
    memset(s, ' ', MANIFEST_MAX + 1);
    s[MANIFEST_MAX + 1] = '\0';
    (void)parse(s, NULL, ERR_INVAL, "256");
    free(s);
}

static void versions_are_ordered(void **state)
{
    static const char *const up[] = { "junk",       "0.9.0",      "1.0.0-alpha", "1.0.0-alpha.1",
                                      "1.0.0-beta", "1.0.0-rc.2", "1.0.0-rc.11", "1.0.0",
                                      "1.2.0",      "1.10.0",     "2.0.0" };
    (void)state;
    for (size_t i = 0; i + 1 < N_ELEMS(up); i++) {
        if (semver_cmp(up[i], up[i + 1]) >= 0)
            fail_msg("%s is not below %s", up[i], up[i + 1]);
        assert_true(semver_cmp(up[i + 1], up[i]) > 0);
    }
    assert_int_equal(semver_cmp("1.0.0+a", "1.0.0+b"), 0);
    assert_true(semver_valid("1.0.0-rc.1+build.5"));
    assert_false(semver_valid("01.0.0"));
    assert_false(semver_valid("1.0.0-"));
    assert_false(semver_valid("1.0.0 "));
    assert_false(semver_valid("1.0.0-a..b"));
}

static void goals(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *vars = json_make("who:s", "Ann");
    cleanup(freep) char *a = goal_expand("Find {{topic}} for {{who}}{{none}}", "gold", vars);
    assert_string_equal(a, "Find gold for Ann");
    cleanup(freep) char *b = goal_expand("Daily report for {{who}}", "do this", vars);
    assert_string_equal(b, "do this");
    cleanup(freep) char *c = goal_expand("Daily report for {{who}}", "", vars);
    assert_string_equal(c, "Daily report for Ann");
    cleanup(freep) char *d = goal_expand(NULL, "x {{y}}", NULL);
    assert_string_equal(d, "x {{y}}");
    cleanup(freep) char *e = goal_expand("open {{goal", "g", NULL);
    assert_string_equal(e, "g");
}

static void packages_are_named(void **state)
{
    char n[64], v[64];
    (void)state;
    assert_true(package_split("a@1.0.0", n, sizeof n, v, sizeof v));
    assert_string_equal(n, "a");
    assert_string_equal(v, "1.0.0");
    assert_true(package_split("plain", n, sizeof n, v, sizeof v));
    assert_string_equal(v, "");
    assert_false(package_split("a@x", n, sizeof n, v, sizeof v));
    assert_false(package_split("../x", n, sizeof n, v, sizeof v));
    assert_false(package_split("", n, sizeof n, v, sizeof v));
    assert_false(agent_name_valid("-a"));
    assert_true(agent_name_valid("kernel.agent"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_form),
        cmocka_unit_test(older_form),
        cmocka_unit_test(refused),
        cmocka_unit_test(too_large),
        cmocka_unit_test(goals),
        cmocka_unit_test(versions_are_ordered),
        cmocka_unit_test(packages_are_named),
    };
    log_init("test", false, LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
