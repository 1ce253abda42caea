/*
 * Security page, test 41: an agent writes what is not its to write, directly, through links, by
 * moves and copies: EPERM each time, and nothing tells whether the thing exists.
 */
#include <sys/stat.h>

#include "tests/suite/fs_calls.h"

#define U "/users/admin"
#define W U "/workspace"

/* Places that are closed for writing; `seen`: the agent may read them. */
static const struct {
    const char *there, *absent;
    bool seen;
} closed[] = {
    { U "/defaults.yaml", U "/defaults.yaml", true },
    { U "/limits.yaml", U "/limits.yaml", true },
    { U "/bin/x@1/manifest.yaml", U "/bin/none", true },
    { U "/snapshots/a.yaml", U "/snapshots/none", true },
    { U "/agents/x/1.jsonl", U "/agents/none", true },
    { U "/memory/a", U "/memory/none", false },
    { U "/.uploads/a", U "/.uploads/none", false },
    { "/users/bob/workspace/secret", "/users/bob/workspace/none", false },
    { "/users/bob", "/users/nobody", false },
    { "/etc/avix/auth.conf", "/etc/avix/none", false },
    { "/etc/avix/llm.yaml", "/etc/avix/none", false },
    { "/secrets/a", "/secrets/none", false },
    { "/crews/lab/shared/a", "/crews/lab/shared/none", false },
    { "/services/mail/workspace/a", "/services/none/workspace/a", false },
    { "/bin/researcher@1.0.0/manifest.yaml", "/bin/none", true },
    { "/proc/1/status.yaml", "/proc/999999/none", false },
    { "/kernel/defaults/agent.yaml", "/kernel/none", true },
    { "/tools/index.yaml", "/tools/none", true },
};

static void expect_perm(const char *tool, const char *params)
{
    int err = refused(tool, params);

    if (err_code(err) != err_code(ERR_PERM))
        fail_msg("%s %s: %s", tool, params, err_name(err));
}

static void nothing_is_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_ELEMS(closed); i++) {
        const char *path = i % 2 ? closed[i / 2].absent : closed[i / 2].there;
        static const struct {
            const char *tool, *format;
        } t[] = {
            { "fs/write", "{\"path\":\"%s\",\"content\":\"x\"}" },
            { "fs/write", "{\"path\":\"%s\",\"content\":\"x\",\"append\":true}" },
            { "kernel/fs/write", "{\"path\":\"%s\",\"content\":\"x\",\"mode\":\"create\"}" },
            { "fs/edit", "{\"path\":\"%s\",\"old\":\"a\",\"new\":\"b\"}" },
            { "fs/delete", "{\"path\":\"%s\",\"recursive\":true}" },
            { "fs/mkdir", "{\"path\":\"%s\"}" },
            { "fs/move", "{\"from\":\"%s\",\"to\":\"" W "/stolen\"}" },
            { "fs/move", "{\"from\":\"" W "/mine\",\"to\":\"%s\",\"overwrite\":true}" },
            { "fs/copy", "{\"from\":\"" W "/mine\",\"to\":\"%s\",\"overwrite\":true}" },
        };

        for (size_t k = 0; k < N_ELEMS(t); k++) {
            struct buf b = BUF_INIT(8192);
            const char *at = strstr(t[k].format, "%s");

            buf_add(&b, t[k].format, (size_t)(at - t[k].format));
            buf_adds(&b, path);
            buf_adds(&b, at + 2);
            expect_perm(t[k].tool, b.data);
            buf_done(&b);
        }
    }
    assert_text(W "/mine", "mine");
}

/* The whole error text and data, but for the path. */
static char *answer_to(const char *tool, const char *path)
{
    cleanup(freep) char *p = xasprintf("{\"path\":\"%s\"}", path);
    struct ipc_reply r;
    struct buf b = BUF_INIT(8192);
    int err = rig_call(rig, token, tool, p, &r);

    if (!err)
        buf_adds(&b, json_text(r.result));
    else
        buf_printf(&b, "%d %s %s", r.error.code, r.error.message, json_text(r.error.data));
    ipc_reply_done(&r);
    for (char *at; (at = strstr(b.data, path));)
        memmove(at, at + strlen(path), strlen(at + strlen(path)) + 1);
    return buf_take(&b);
}

static void nothing_shows_what_exists(void **state)
{
    static const char *const tools[] = { "fs/read", "fs/stat", "fs/exists", "fs/list" };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(closed); i++)
        for (size_t k = 0; !closed[i].seen && k < N_ELEMS(tools); k++) {
            cleanup(freep) char *there = answer_to(tools[k], closed[i].there);
            cleanup(freep) char *absent = answer_to(tools[k], closed[i].absent);

            if (str_starts(closed[i].there, "/proc")) /* kernel's own rule; a stranger's is EPERM */
                continue;
            assert_string_equal(there, absent);
            if (k == 2)
                assert_non_null(strstr(there, "\"exists\":false"));
        }
}

static void links_do_not_help(void **state)
{
    static const char *const to[] = { "../../bob/workspace", "../.uploads", "../memory",
                                      "../../../../etc",     "/etc",        "../agents" };
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s/data/users/admin/workspace/l", rig->root);
    for (size_t i = 0; i < N_ELEMS(to); i++) {
        json_object *o;

        unlink(path);
        assert_int_equal(symlink(to[i], path), 0);
        if (i == 0 || i == 3 || i == 4) {
            expect_perm("fs/read", "{\"path\":\"" W "/l/secret\"}");
            expect_perm("fs/write", "{\"path\":\"" W "/l/new\",\"content\":\"x\"}");
            expect_perm("fs/list", "{\"path\":\"" W "/l\"}");
            expect_perm("fs/move", "{\"from\":\"" W "/mine\",\"to\":\"" W "/l/x\"}");
        }
        o = ok("fs/glob", "{\"pattern\":\"**\",\"path\":\"" W "\"}");
        assert_null(strstr(json_text(o), "/l/"));
        json_put(o);
        o = ok("fs/search", "{\"query\":\"secret\",\"path\":\"" W "\"}");
        assert_int_equal(json_object_array_length(json_arr(o, "matches")), 0);
        json_put(o);
    }
    unlink(path);
}

/* What an agent may not see it does not find by looking from above either. */
static void walks_pass_over_what_is_closed(void **state)
{
    json_object *o = ok("fs/list", "{\"path\":\"" U "\",\"recursive\":true}");

    (void)state;
    assert_null(strstr(json_text(o), "uploads"));
    assert_null(strstr(json_text(o), "memory"));
    json_put(o);
    o = ok("fs/search", "{\"query\":\"secret\",\"path\":\"" U "\"}");
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 0);
    json_put(o);
    fine("fs/mkdir", "{\"path\":\"" W "/sub\"}");
    assert_int_equal(err_code(refused("fs/copy", "{\"from\":\"/users\",\"to\":\"" W
                                                 "/all\",\"recursive\":true}")),
                     err_code(ERR_PERM));
}

static int prepare(void **state)
{
    static const char *const dirs[] = { "users/bob/workspace",  "users/admin/.uploads",
                                        "users/admin/memory",   "users/admin/snapshots",
                                        "users/admin/agents/x", "users/admin/bin/x@1",
                                        "crews/lab/shared" };
    char path[512];
    int r = start(state);

    for (size_t i = 0; i < N_ELEMS(dirs); i++) {
        snprintf(path, sizeof(path), "%s/data/%s", rig->root, dirs[i]);
        mkdir_p(path, 0700);
    }
    rig_write(rig, "data/users/bob/workspace/secret", "secret of bob");
    rig_write(rig, "data/users/admin/.uploads/a", "secret upload");
    rig_write(rig, "data/users/admin/memory/a", "secret memory");
    rig_write(rig, "data/users/admin/snapshots/a.yaml", "a: 1");
    rig_write(rig, "data/users/admin/agents/x/1.jsonl", "{}");
    rig_write(rig, "data/users/admin/bin/x@1/manifest.yaml", "a: 1");
    rig_write(rig, "data/users/admin/limits.yaml", "a: 1");
    rig_write(rig, "data/crews/lab/shared/a", "x");
    fine("fs/write", "{\"path\":\"" W "/mine\",\"content\":\"mine\"}");
    return r;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_written),
        cmocka_unit_test(nothing_shows_what_exists),
        cmocka_unit_test(links_do_not_help),
        cmocka_unit_test(walks_pass_over_what_is_closed),
    };

    return cmocka_run_group_tests(tests, prepare, stop);
}
