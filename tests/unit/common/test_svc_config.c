/* kernel.yaml: defaults, ranges, words, unknown and legacy keys, rules between keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/svc/config.h"

#define HEAD "apiVersion: avix/v1\nkind: KernelConfig\nspec:\n"

static int parse(const char *spec, struct kernel_config **c, struct yaml_err *e)
{
    cleanup(freep) char *text = xasprintf("%s%s", HEAD, spec);

    *c = NULL;
    return kernel_config_parse(text, strlen(text), c, e);
}

/* The text is refused with this line and a message that holds `needle`. */
static void refused(const char *spec, int line, const char *needle)
{
    struct kernel_config *c;
    struct yaml_err e;

    assert_int_equal(parse(spec, &c, &e), ERR_CONFIG);
    assert_null(c);
    if (!strstr(e.msg, needle))
        print_error("message was: %s\n", e.msg);
    assert_non_null(strstr(e.msg, needle));
    assert_int_equal(e.line, line);
}

static struct kernel_config *accepted(const char *spec)
{
    struct kernel_config *c;
    struct yaml_err e;

    if (parse(spec, &c, &e))
        print_error("line %d: %s\n", e.line, e.msg);
    assert_non_null(c);
    return c;
}

static void defaults(void **state)
{
    struct kernel_config *c = accepted("  {}\n");

    (void)state;
    assert_int_equal(c->max_concurrent_agents, 50);
    assert_int_equal(c->hibernate_after_sec, 300);
    assert_int_equal(c->archive_after_days, 90);
    assert_int_equal(c->memory_max_mib, 256);
    assert_int_equal(c->open_files, 64);
    assert_int_equal(c->cpu_sec, 0);
    assert_int_equal(c->stop_grace_sec, 10);
    assert_int_equal(c->ready_timeout_sec, 5);
    assert_int_equal(c->max_restarts, 3);
    assert_string_equal(c->seccomp, "enforce");
    assert_string_equal(c->jail, "auto");
    assert_string_equal(c->uids, "auto");
    assert_string_equal(c->services, "enforce");
    assert_int_equal(c->default_context_limit, 200000);
    assert_int_equal(c->max_message_bytes, 16777216);
    assert_int_equal(c->per_caller_agent, 32);
    assert_int_equal(c->per_caller_service, 128);
    assert_int_equal(c->per_caller_user, 64);
    assert_string_equal(c->socket_group, "");
    assert_string_equal(c->mode, "cli");
    assert_string_equal(c->bind, "localhost");
    assert_int_equal(c->port, 9142);
    assert_string_equal(c->admin_addr, "127.0.0.1:7701");
    assert_string_equal(c->tls_mode, "off");
    assert_string_equal(c->tls_min, "1.3");
    assert_false(c->tls_allow_plain);
    assert_true(c->web_enabled);
    assert_true(c->policy_engine);
    assert_true(c->hil_on_escalation);
    assert_true(c->cap_upgrade_hil);
    assert_int_equal(c->max_tool_chain, 10);
    assert_int_equal(c->hil_timeout_sec, 600);
    assert_string_equal(c->taint_policy, "mark");
    assert_string_equal(c->model_default, "claude-sonnet-4");
    assert_string_equal(c->model_kernel, "claude-opus-4");
    assert_string_equal(c->model_fallback, "claude-haiku-4");
    assert_true(c->temperature > 0.69 && c->temperature < 0.71);
    assert_string_equal(c->log_level, "info");
    assert_true(c->metrics_enabled);
    assert_false(c->trace_enabled);
    assert_string_equal(c->master_source, "env");
    assert_string_equal(c->master_env, "AVIX_MASTER_KEY");
    assert_string_equal(c->service_get, "own");
    assert_string_equal(c->legacy, "");
    kernel_config_free(c);
    kernel_config_free(NULL);
}

static void values(void **state)
{
    struct kernel_config *c = accepted("  agents: {memoryMaxMiB: 64, seccomp: log}\n"
                                       "  ipc: {perCaller: {agent: 5}, socketGroup: avix}\n"
                                       "  gateway: {port: 0, allowed_hosts: [a, b]}\n"
                                       "  safety: {policyEngine: disabled, hilRequiredTools: "
                                       "[fs/delete]}\n"
                                       "  models: {temperature: 1}\n"
                                       "  secrets: {masterKey: {source: key-file, keyFile: /k}}\n");

    (void)state;
    assert_int_equal(c->memory_max_mib, 64);
    assert_string_equal(c->seccomp, "log");
    assert_int_equal(c->per_caller_agent, 5);
    assert_int_equal(c->per_caller_service, 128);
    assert_string_equal(c->socket_group, "avix");
    assert_int_equal(c->port, 0);
    assert_int_equal(json_object_array_length(c->allowed_hosts), 2);
    assert_false(c->policy_engine);
    assert_true(json_arr_has(c->hil_required_tools, "fs/delete"));
    assert_true(c->temperature == 1.0);
    assert_string_equal(c->master_source, "key-file");
    assert_string_equal(c->master_file, "/k");
    assert_non_null(c->master);
    kernel_config_free(c);
}

static void unknown_keys_name_line_and_key(void **state)
{
    (void)state;
    refused("  agent: {}\n", 4, "spec.agent: unknown key");
    refused("  agents:\n    memoryMaxMB: 3\n", 5, "spec.agents.memoryMaxMB: unknown key");
    refused("  ipc:\n    perCaller:\n      robot: 1\n", 6, "spec.ipc.perCaller.robot");
    refused("  gateway:\n    tls:\n      cert: x\n", 6, "spec.gateway.tls.cert");
}

static void wrong_types_and_ranges(void **state)
{
    (void)state;
    refused("  agents:\n    openFiles: many\n", 5, "must be an integer");
    refused("  agents:\n    openFiles: 3\n", 5, "not within 16..65536");
    refused("  agents:\n    seccomp: maybe\n", 5, "none of: enforce log off");
    refused("  scheduler:\n    algorithm: best\n", 5, "none of");
    refused("  scheduler:\n    preemption: 1\n", 5, "must be a boolean");
    refused("  gateway:\n    port: 65536\n", 5, "not within 0..65535");
    refused("  gateway:\n    allowed_hosts: x\n", 5, "must be a list");
    refused("  models:\n    temperature: 3\n", 5, "not within 0..2");
    refused("  models:\n    default: 5\n", 5, "must be a string");
    refused("  safety:\n    policyEngine: true\n", 5, "must be a string");
    refused("  safety:\n    hil_timeout: soon\n", 5, "no duration");
    refused("  ipc: 5\n", 4, "spec.ipc: must be a mapping");
    refused("  secrets: {masterKey: {source: cloud}}\n", 4, "none of: env key-file");
}

static void legacy_keys_are_listed(void **state)
{
    struct kernel_config *c = accepted("  memory: {evictionPolicy: lru, sharedMemoryPath: /x}\n"
                                       "  ipc: {socketPath: /y, runtime_dir: /z}\n"
                                       "  secrets: {signingKey: abc}\n"
                                       "  safety: {hil_timeout: 10m}\n");

    (void)state;
    assert_string_equal(c->legacy, "memory.evictionPolicy memory.sharedMemoryPath ipc.socketPath "
                                   "ipc.runtime_dir secrets.signingKey");
    assert_int_equal(c->hil_timeout_sec, 600);
    kernel_config_free(c);
}

static void message_size_has_a_floor(void **state)
{
    static const struct {
        const char *spec;
        int want;
    } rows[] = {
        { "  ipc: {maxMessageBytes: 65536}\n", 1048576 },
        { "  ipc: {maxMessageBytes: 65536, maxLargeMessageBytes: 4000000}\n", 4000000 },
        { "  ipc: {maxLargeMessageBytes: 2000000}\n", 2000000 },
        { "  ipc: {maxMessageBytes: 2000000000}\n", 16777216 },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct kernel_config *c = accepted(rows[i].spec);

        assert_int_equal(c->max_message_bytes, rows[i].want);
        kernel_config_free(c);
    }
}

static void defaults_that_depend(void **state)
{
    struct kernel_config *c = accepted("  gateway: {mode: headless}\n");

    (void)state;
    assert_string_equal(c->bind, "0.0.0.0");
    assert_string_equal(c->tls_mode, "self-signed");
    kernel_config_free(c);
    refused("  gateway: {bind: 0.0.0.0, tls: {mode: \"off\"}}\n", 4, "allow_plain");
    c = accepted("  gateway: {bind: 0.0.0.0, tls: {mode: \"off\", allow_plain: true}}\n");
    kernel_config_free(c);
    refused("  gateway: {tls: {mode: files}}\n", 4, "cert_path");
    c = accepted("  gateway: {tls: {min_version: 1.2}}\n");
    assert_string_equal(c->tls_min, "1.2");
    kernel_config_free(c);
}

static void an_empty_key_keeps_its_default(void **state)
{
    struct kernel_config *c = accepted("  agents:\n    openFiles:\n  ipc:\n");

    (void)state;
    assert_int_equal(c->open_files, 64);
    kernel_config_free(c);
}

static void heads(void **state)
{
    static const struct {
        const char *text, *needle;
    } rows[] = {
        { "kind: KernelConfig\nspec: {}\n", "apiVersion" },
        { "apiVersion: avix/v2\nkind: KernelConfig\nspec: {}\n", "apiVersion" },
        { "apiVersion: avix/v1\nkind: Users\nspec: {}\n", "kind must be KernelConfig" },
        { "apiVersion: avix/v1\nkind: KernelConfig\n", "spec is missing" },
        { "apiVersion: avix/v1\nkind: KernelConfig\nspecs: {}\n", "specs: unknown key" },
        { "[]\n", "must be a mapping" },
        { "just text\n", "must be a mapping" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct kernel_config *c = NULL;
        struct yaml_err e;

        assert_int_equal(kernel_config_parse(rows[i].text, strlen(rows[i].text), &c, &e),
                         ERR_CONFIG);
        assert_non_null(strstr(e.msg, rows[i].needle));
    }
}

static void a_missing_file_is_errno(void **state)
{
    struct kernel_config *c = NULL;
    struct yaml_err e;

    (void)state;
    assert_true(kernel_config_load("/nonexistent", &c, &e) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(values),
        cmocka_unit_test(unknown_keys_name_line_and_key),
        cmocka_unit_test(wrong_types_and_ranges),
        cmocka_unit_test(legacy_keys_are_listed),
        cmocka_unit_test(message_size_has_a_floor),
        cmocka_unit_test(defaults_that_depend),
        cmocka_unit_test(an_empty_key_keeps_its_default),
        cmocka_unit_test(heads),
        cmocka_unit_test(a_missing_file_is_errno),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
