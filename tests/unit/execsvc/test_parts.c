/* The parts without a sandbox: output halves, exec.yaml, request checks, prefixes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "execsvc/collect.h"
#include "execsvc/conf.h"
#include "execsvc/request.h"

static char *collected(size_t limit, const char *text, size_t step, bool *cut)
{
    struct collect c;
    struct buf out = BUF_INIT(1 << 20);
    json_object *o = NULL;
    char *s;

    collect_init(&c, limit);
    for (size_t i = 0, n = strlen(text); i < n; i += step)
        collect_add(&c, text + i, step < n - i ? step : n - i);
    *cut = collect_cut(&c);
    collect_write(&c, &out);
    assert_int_equal(json_parse(out.data, out.len, &o), 0);
    s = xstrdup(json_object_get_string(o));
    json_put(o);
    buf_done(&out);
    collect_done(&c);
    return s;
}

static void output_keeps_both_ends(void **state)
{
    bool cut;

    (void)state;
    for (size_t step = 1; step < 30; step++) {
        char *s = collected(10, "0123456789", step, &cut);

        assert_false(cut);
        assert_string_equal(s, "0123456789");
        free(s);
        s = collected(10, "0123456789abcdefghij", step, &cut);
        assert_true(cut);
        assert_string_equal(s, "01234\n[... 10 bytes cut ...]\nfghij");
        free(s);
    }
    char *s = collected(10, "", 1, &cut);

    assert_string_equal(s, "");
    free(s);
}

static void output_is_cut_between_characters(void **state)
{
    bool cut;
    char *s = collected(10, "abc\xc3\xa4\xc3\xa4 0123456 \xe2\x82\xac\xe2\x82\xac", 1, &cut);

    (void)state;
    assert_true(cut);
    assert_true(utf8_valid(s, strlen(s)));
    assert_null(strstr(s, "\xef\xbf\xbd")); /* no replacement character */
    free(s);
}

static struct exec_conf conf;
static struct yaml_err e;

static int parse(const char *spec)
{
    cleanup(freep) char *text = xasprintf("apiVersion: avix/v1\nkind: ExecConfig\nspec:\n%s", spec);

    exec_conf_done(&conf);
    return exec_conf_parse(text, strlen(text), &conf, &e);
}

static void configuration(void **state)
{
    (void)state;
    assert_int_equal(exec_conf_load("/nonexistent/exec.yaml", &conf, &e), 0);
    assert_true(conf.bwrap);
    assert_int_equal(conf.dflt.timeout_ms, 30000);
    assert_int_equal(conf.max.timeout_ms, 590000);
    assert_int_equal(conf.dflt.memory_mb, 512);
    assert_int_equal(conf.network, NET_NO);
    assert_int_equal(parse("  sandbox: {unsafe: false}\n"), 0);
    assert_int_equal(parse("  sandbox: {tiers: [landlock]}\n"), 0);
    assert_false(conf.bwrap);
    assert_int_equal(parse("  network: {allow: host}\n"), 0);
    assert_int_equal(conf.network, NET_HOST);
    assert_int_equal(parse("  network: {allow: true}\n"), 0);
    assert_int_equal(conf.network, NET_PASTA);
    assert_int_equal(parse("  limits: {memoryMb: 100, timeoutMs: {default: 5, max: 10}}\n"), 0);
    assert_int_equal(conf.dflt.memory_mb, 100);
    assert_int_equal(conf.max.timeout_ms, 10);
    assert_int_equal(parse("  limits: {outputBytes: {max: 1000}}\n"), 0);
    assert_int_equal(conf.dflt.output_bytes, 1000);
    assert_int_equal(parse("  runtimes: {lua: /usr/bin/lua}\n"), 0);
    assert_non_null(conf.runtimes);
}

static void bad_configuration_names_the_place(void **state)
{
    static const char *const bad[] = {
        "  nothing: 1\n",
        "  sandbox: {tier: x}\n",
        "  network: {allow: maybe}\n",
        "  limits: {memoryMb: 0}\n",
        "  limits: {memoryMb: 99999}\n",
        "  limits: {timeoutMs: {default: 20, max: 10}}\n",
        "  limits: {x: 1}\n",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        assert_int_equal(parse(bad[i]), ERR_CONFIG);
        assert_true(e.msg[0]);
    }
    exec_conf_done(&conf);
}

/* The field at fault, "" if the request is fine. */
static const char *ask(const char *json)
{
    static struct args a;
    static json_object *o;
    struct request q;

    json_put(o);
    o = NULL;
    assert_int_equal(json_parse(json, strlen(json), &o), 0);
    a = args_open(o);
    request_read(&q, &a, &conf, NULL);
    return args_bad(&a) ? a.field : "";
}

static void requests(void **state)
{
    static const struct {
        const char *json, *field;
    } t[] = {
        { "{\"code\":\"x\"}", "" },
        { "{}", "code" },
        { "{\"code\":5}", "code" },
        { "{\"code\":\"x\",\"env\":{\"A\":\"1\",\"_b2\":\"\"}}", "" },
        { "{\"code\":\"x\",\"env\":{\"AVIX_ROOT\":\"1\"}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"LD_PRELOAD\":\"1\"}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"A=B\":\"1\"}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"\":\"1\"}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"1A\":\"1\"}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"A\":1}}", "env" },
        { "{\"code\":\"x\",\"env\":{\"A\":\"a\\u0000b\"}}", "env" },
        { "{\"code\":\"x\",\"args\":[\"a\\u0000b\"]}", "args" },
        { "{\"code\":\"x\",\"args\":[1]}", "args" },
        { "{\"code\":\"x\",\"timeout_ms\":0}", "timeout_ms" },
        { "{\"code\":\"x\",\"timeout_ms\":590001}", "timeout_ms" },
        { "{\"code\":\"x\",\"memory_mb\":8193}", "memory_mb" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\"a/b\",\"content\":\"\"}]}", "" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\"/a\",\"content\":\"\"}]}", "files" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\"../a\",\"content\":\"\"}]}", "files" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\".\",\"content\":\"\"}]}", "files" },
        { "{\"code\":\"x\",\"files\":[{\"content\":\"\"}]}", "files" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\"a\"}]}", "files" },
        { "{\"code\":\"x\",\"files\":[{\"path\":\"a\",\"content\":\"\",\"encoding\":\"x\"}]}",
          "files" },
        { "{\"code\":\"x\",\"mounts\":[{\"path\":\"/users/a\"}]}", "" },
        { "{\"code\":\"x\",\"mounts\":[{}]}", "mounts" },
        { "{\"code\":\"x\",\"mounts\":[{\"path\":\"/a\",\"at\":\"/etc\"}]}", "mounts" },
        { "{\"code\":\"x\",\"mounts\":[{\"path\":\"/a\",\"at\":\"/box/../etc\"}]}", "mounts" },
        { "{\"code\":\"x\",\"mounts\":[{\"path\":\"/a\",\"at\":\"/box\"}]}", "mounts" },
        { "{\"code\":\"x\",\"mounts\":[{\"path\":\"/a\",\"mode\":\"x\"}]}", "mounts" },
        { "{\"code\":\"x\",\"artifacts\":[1]}", "artifacts" },
    };

    (void)state;
    assert_int_equal(exec_conf_load("/nonexistent/exec.yaml", &conf, &e), 0);
    for (size_t i = 0; i < N_ELEMS(t); i++)
        if (!str_eq(ask(t[i].json), t[i].field))
            fail_msg("%s: fault in '%s'", t[i].json, ask(t[i].json));
}

static void input_has_a_ceiling(void **state)
{
    struct buf b = BUF_INIT(20 << 20);

    (void)state;
    buf_adds(&b, "{\"code\":\"x\",\"stdin\":\"");
    for (int i = 0; i < INPUT_MAX - 1; i++)
        buf_addc(&b, 'a');
    buf_adds(&b, "\"}");
    assert_string_equal(ask(b.data), "");
    b.len -= 2;
    buf_adds(&b, "a\"}");
    assert_string_equal(ask(b.data), "code");
    buf_done(&b);
}

static void prefixes(void **state)
{
    (void)state;
    setenv("AVIX_ROOT", "/srv/avix", 1);
    setenv("AVIX_RUN_DIR", "/opt/tools/run", 1);
    assert_true(prefix_usable("/root/.pyenv/versions/3.11.7"));
    assert_true(prefix_usable("/opt/node"));
    assert_false(prefix_usable("/"));
    assert_false(prefix_usable("/root"));
    assert_false(prefix_usable("/home/me"));
    assert_false(prefix_usable("/srv"));
    assert_false(prefix_usable("/srv/avix"));
    assert_false(prefix_usable("/opt/tools"));
    assert_false(prefix_usable("relative"));
    assert_true(prefix_usable("/srv/av"));
    unsetenv("AVIX_ROOT");
    unsetenv("AVIX_RUN_DIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_keeps_both_ends),
        cmocka_unit_test(output_is_cut_between_characters),
        cmocka_unit_test(configuration),
        cmocka_unit_test(bad_configuration_names_the_place),
        cmocka_unit_test(requests),
        cmocka_unit_test(input_has_a_ceiling),
        cmocka_unit_test(prefixes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
