/*
 * Security page, test 16: mounts of another user's tree, by its path, through a link, and through
 * a link that is swapped in after the check: never inside the sandbox.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "tests/suite/fs_calls.h"

#define W "/users/admin/workspace"

static char real_dir[512], link_path[512], swap[512];

static void links_and_paths_are_refused(void **state)
{
    static const char *const paths[] = {
        "/users/bob", "/users/bob/workspace",  "/users",    "/", "/etc/avix", "/secrets", "/proc",
        W "/link",    "/users/admin/.uploads", "/services",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(paths); i++) {
        cleanup(freep) char *p =
            xasprintf("{\"code\":\"ls -R /box/mnt\",\"mounts\":[{\"path\":\"%s\"}]}", paths[i]);
        int err = refused("exec/shell", p);

        if (err_code(err) != err_code(ERR_PERM))
            fail_msg("%s: %s", paths[i], err_name(err));
    }
}

static void *swap_for_ever(void *arg)
{
    const bool *end = arg;

    while (!__atomic_load_n(end, __ATOMIC_SEQ_CST))
        renameat2(AT_FDCWD, real_dir, AT_FDCWD, swap, RENAME_EXCHANGE);
    return NULL;
}

/* real_dir is a folder of the caller and a link to bob's by turns. */
static void a_swapped_link_leads_nowhere(void **state)
{
    bool end = false;
    pthread_t t;
    int ran = 0, not = 0;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, swap_for_ever, &end), 0);
    for (int i = 0; i < 60; i++) {
        struct ipc_reply r;

        if (rig_call(rig, token, "exec/shell",
                     "{\"code\":\"cat /box/mnt/0/*\",\"mounts\":[{\"path\":\"" W
                     "/turns\",\"mode\":\"rw\"}]}",
                     &r)) {
            if (r.error.code != err_code(ERR_PERM))
                fail_msg("%s", r.error.message);
            not ++;
        } else {
            assert_string_equal(json_str(r.result, "stdout", ""), "of admin");
            ran++;
        }
        ipc_reply_done(&r);
    }
    __atomic_store_n(&end, true, __ATOMIC_SEQ_CST);
    pthread_join(t, NULL);
    print_message("%d ran, %d were refused\n", ran, not );
    assert_true(not > 0);
}

static int prepare(void **state)
{
    json_object *o;
    char path[512];
    int r = start(state);

    o = ok("exec/runtimes", "{}");
    if (!str_eq(json_str(json_obj(o, "sandbox"), "tier", ""), "bwrap")) {
        print_message("SKIPPED: no sandbox here\n");
        exit(77);
    }
    json_put(o);
    snprintf(path, sizeof(path), "%s/data/users/bob/workspace", rig->root);
    mkdir_p(path, 0700);
    rig_write(rig, "data/users/bob/workspace/secret", "of bob");
    fine("fs/write", "{\"path\":\"" W "/turns/file\",\"content\":\"of admin\"}");
    snprintf(link_path, sizeof(link_path), "%s/data/users/admin/workspace/link", rig->root);
    assert_int_equal(symlink("../../bob/workspace", link_path), 0);
    snprintf(real_dir, sizeof(real_dir), "%s/data/users/admin/workspace/turns", rig->root);
    snprintf(swap, sizeof(swap), "%s/data/users/admin/workspace/other", rig->root);
    assert_int_equal(symlink("../../bob/workspace", swap), 0);
    return r;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_and_paths_are_refused),
        cmocka_unit_test(a_swapped_link_leads_nowhere),
    };

    return cmocka_run_group_tests(tests, prepare, stop);
}
