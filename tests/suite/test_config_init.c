/* avix server config init: what it writes, with which modes, and what it refuses. No daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "common/base/yaml.h"
#include "tests/rig/rig.h"

static struct rig *fresh(void)
{
    return rig_new(&(struct rig_opts){ .no_start = true });
}

static mode_t mode_of(struct rig *g, const char *rel)
{
    char path[600];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", g->root, rel);
    return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void files_and_modes(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    static const char *const secret[] = { "etc/auth.conf",  "etc/kernel.yaml",  "etc/users.yaml",
                                          "etc/crews.yaml", "etc/crontab.yaml", "etc/fstab.yaml",
                                          "etc/llm.yaml",   "etc/mcp.yaml",     "etc/exec.yaml" };
    static const char *const dirs[] = { "etc",         "secrets",
                                        "logs",        "data/users/admin/workspace",
                                        "data/crews",  "data/services",
                                        "data/scratch" };
    static const char *const agents[] = { "kernel.agent", "researcher", "planner", "executor",
                                          "observer" };
    for (size_t i = 0; i < N_ELEMS(secret); i++)
        assert_int_equal(mode_of(g, secret[i]), 0600);
    for (size_t i = 0; i < N_ELEMS(dirs); i++)
        assert_int_equal(mode_of(g, dirs[i]), 0700);
    for (size_t i = 0; i < N_ELEMS(agents); i++) {
        char rel[128], *text;
        json_object *m = NULL;
        struct yaml_err e;
        snprintf(rel, sizeof rel, "data/bin/%s@1.0.0", agents[i]);
        assert_int_equal(mode_of(g, rel), 0755);
        snprintf(rel, sizeof rel, "data/bin/%s@1.0.0/manifest.yaml", agents[i]);
        text = rig_read(g, rel);
        assert_non_null(text);
        assert_int_equal(yaml_parse(text, strlen(text), &m, &e), 0);
        assert_string_equal(json_str(json_obj(m, "metadata"), "name", ""), agents[i]);
        json_put(m);
        free(text);
        snprintf(rel, sizeof rel, "data/bin/%s@1.0.0/.install.json", agents[i]);
        text = rig_read(g, rel);
        assert_non_null(text);
        free(text);
    }
}

static void the_key_is_printed_once_and_stored_nowhere(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    assert_true(str_starts(g->api_key, "sk-avix-"));
    assert_int_equal(strlen(g->api_key), 40);
    char *out = NULL;
    const char *argv[] = { "/bin/grep", "-rF", g->api_key, g->dir, NULL };
    assert_int_equal(rig_run(g, argv, NULL, &out, NULL), 1);
    free(out);
}

static void twice_changes_nothing(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char *before = rig_read(g, "etc/auth.conf"), *out = NULL, *err = NULL;
    assert_int_equal(rig_avix(g, &out, &err, "server", "config", "init", "--root", g->root, NULL),
                     0);
    assert_non_null(strstr(err, "already initialised"));
    char *after = rig_read(g, "etc/auth.conf");
    assert_string_equal(before, after);
    free(before);
    free(after);
    free(out);
    free(err);
}

static void force_keeps_the_old_file(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char *before = rig_read(g, "etc/auth.conf");
    assert_int_equal(rig_avix(g, NULL, NULL, "server", "config", "init", "--root", g->root,
                              "--force", "--no-detect", NULL),
                     0);
    char *bak = rig_read(g, "etc/auth.conf.bak"), *after = rig_read(g, "etc/auth.conf");
    assert_string_equal(before, bak);
    assert_string_not_equal(before, after);
    free(before);
    free(bak);
    free(after);
}

static void dry_run_writes_nothing(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char other[400], *err = NULL;
    struct stat st;
    snprintf(other, sizeof other, "%s/other", g->dir);
    assert_int_equal(rig_avix(g, NULL, &err, "server", "config", "init", "--root", other,
                              "--dry-run", "--no-detect", NULL),
                     0);
    assert_non_null(strstr(err, "would write"));
    assert_int_equal(stat(other, &st), -1);
    free(err);
}

static void refusals_name_what_is_wrong(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char other[400];
    struct stat st;
    snprintf(other, sizeof other, "%s/other", g->dir);
    const struct {
        const char *flag, *value, *says;
    } bad[] = {
        { "--role", "guest", "admin" },
        { "--role", "king", "--role" },
        { "--mode", "cloud", "--mode" },
        { "--user", "../x", "--user" },
        { "--ttl", "soon", "--ttl" },
        { "--master-key-source", "sticky-note", "--master-key-source" },
        { "--api-key", "short", "API key" },
        { "--credential-type", "none", "--credential-type" },
    };
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        char *err = NULL;
        assert_int_equal(rig_avix(g, NULL, &err, "server", "config", "init", "--root", other,
                                  "--no-detect", bad[i].flag, bad[i].value, NULL),
                         2);
        assert_non_null(strstr(err, bad[i].says));
        free(err);
        char auth[420];
        snprintf(auth, sizeof auth, "%s/etc/auth.conf", other);
        assert_int_equal(stat(auth, &st), -1); /* not complete: the next start still says so */
    }
}

static void a_password_is_hashed(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char other[400], *text;
    snprintf(other, sizeof other, "%s/other", g->dir);
    const char *argv[] = { rig_bin("avix"), "server",     "config",      "init",
                           "--root",        other,        "--no-detect", "--credential-type",
                           "password",      "--password", "-",           NULL };
    assert_int_equal(rig_run(g, argv, "correct horse battery\n", NULL, NULL), 0);
    str_copy(g->root, sizeof g->root, other);
    text = rig_read(g, "etc/auth.conf");
    assert_non_null(strstr(text, "argon2id:$argon2id$v=19$m=65536,t=3,p=4$"));
    assert_null(strstr(text, "correct horse"));
    free(text);
    const char *weak[] = { rig_bin("avix"),
                           "server",
                           "config",
                           "init",
                           "--root",
                           other,
                           "--force",
                           "--no-detect",
                           "--credential-type",
                           "password",
                           "--password",
                           "-",
                           NULL };
    assert_int_equal(rig_run(g, weak, "short\n", NULL, NULL), 2);
}

static void a_key_file_is_private(void **state)
{
    (void)state;
    cleanup(rig_stopp) struct rig *g = fresh();
    char other[400], key[400], *text;
    struct stat st;
    snprintf(other, sizeof other, "%s/other", g->dir);
    snprintf(key, sizeof key, "%s/master.key", g->dir);
    assert_int_equal(rig_avix(g, NULL, NULL, "server", "config", "init", "--root", other,
                              "--no-detect", "--master-key-source", "key-file", "--master-key-file",
                              key, NULL),
                     0);
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 65);
    str_copy(g->root, sizeof g->root, other);
    text = rig_read(g, "etc/kernel.yaml");
    assert_non_null(strstr(text, key));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_and_modes),
        cmocka_unit_test(the_key_is_printed_once_and_stored_nowhere),
        cmocka_unit_test(twice_changes_nothing),
        cmocka_unit_test(force_keeps_the_old_file),
        cmocka_unit_test(dry_run_writes_nothing),
        cmocka_unit_test(refusals_name_what_is_wrong),
        cmocka_unit_test(a_password_is_hashed),
        cmocka_unit_test(a_key_file_is_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
