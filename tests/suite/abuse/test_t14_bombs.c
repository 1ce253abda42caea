/*
 * Security page, test 14: fork, memory, file and output bombs in sandboxes. Their limits hold, and
 * other calls go on meanwhile.
 */
#include <pthread.h>

#include "tests/suite/fs_calls.h"

#define W "/users/admin/workspace"

struct bomb {
    const char *tool, *params;
    struct ipc_reply reply;
    int err;
    bool done;
};

static void *set_off(void *arg)
{
    struct bomb *b = arg;

    b->err = rig_call(rig, token, b->tool, b->params, &b->reply);
    __atomic_store_n(&b->done, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void limits_hold_and_others_go_on(void **state)
{
    struct bomb bombs[] = {
        { .tool = "exec/shell",
          .params = "{\"code\":\"f() { f | f & }; f; sleep 2\",\"timeout_ms\":3000}" },
        { .tool = "exec/python",
          .params = "{\"code\":\"import os,time\\nx=[]\\nfor i in range(6): os.fork()\\nwhile 1: "
                    "x.append(bytearray(1<<20))\",\"memory_mb\":128,\"timeout_ms\":3000}" },
        { .tool = "exec/shell",
          .params = "{\"code\":\"i=0; while :; do head -c 50000000 /dev/zero > /box/$i || exit 9; "
                    "i=$((i+1)); done\",\"timeout_ms\":5000}" },
        { .tool = "exec/shell", .params = "{\"code\":\"yes & yes >&2\",\"timeout_ms\":2000}" },
    };
    pthread_t t[N_ELEMS(bombs)];
    json_object *o = ok("exec/runtimes", "{}");
    bool none = !str_eq(json_str(json_obj(o, "sandbox"), "tier", ""), "bwrap");
    int calls = 0, left = N_ELEMS(bombs);
    int64_t worst = 0;

    (void)state;
    json_put(o);
    if (none) {
        print_message("SKIPPED: no sandbox here\n");
        skip();
    }
    fine("fs/write", "{\"path\":\"" W "/calm\",\"content\":\"calm\"}");
    for (size_t i = 0; i < N_ELEMS(bombs); i++)
        assert_int_equal(pthread_create(&t[i], NULL, set_off, &bombs[i]), 0);
    while (left) {
        int64_t at = mono_ms();

        fine("fs/read", "{\"path\":\"" W "/calm\"}");
        if (mono_ms() - at > worst)
            worst = mono_ms() - at;
        calls++;
        left = 0;
        for (size_t i = 0; i < N_ELEMS(bombs); i++)
            left += !__atomic_load_n(&bombs[i].done, __ATOMIC_SEQ_CST);
    }
    for (size_t i = 0; i < N_ELEMS(bombs); i++) {
        pthread_join(t[i], NULL);
        if (bombs[i].err)
            fail_msg("%zu: %s", i, bombs[i].reply.error.message);
        /* a shell whose forks were refused may end well itself */
        if (i)
            assert_int_not_equal(json_int(bombs[i].reply.result, "exit_code", 0), 0);
        assert_true(strlen(json_str(bombs[i].reply.result, "stdout", "")) < (1 << 20) + 200);
        ipc_reply_done(&bombs[i].reply);
    }
    print_message("%d calls beside the bombs, the slowest %lld ms\n", calls, (long long)worst);
    assert_true(calls > 20);
    assert_true(worst < 2000);
    o = ok("exec/shell", "{\"code\":\"echo fine\"}");
    assert_string_equal(json_str(o, "stdout", ""), "fine\n");
    json_put(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_hold_and_others_go_on),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
