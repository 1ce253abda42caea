/* Every row of the permission table for every kind of caller, and what lies between the rows. */
#include "tests/unit/memfs/common.h"

enum { AGENT, USER, OTHER, OPERATOR, ADMIN, KERNEL, EXEC, SERVICE, N_KINDS };

static struct caller callers[N_KINDS];
static json_object *crews;

static void make_callers(void)
{
    crews = json_new_arr();
    json_push_str(crews, "lab");
    callers[AGENT] = who_is(CALLER_AGENT, "alice", ROLE_USER, 157);
    callers[USER] = who_is(CALLER_USER, "alice", ROLE_USER, 0);
    callers[OTHER] = who_is(CALLER_USER, "bob", ROLE_USER, 0);
    callers[OPERATOR] = who_is(CALLER_USER, "olga", ROLE_OPERATOR, 0);
    callers[ADMIN] = who_is(CALLER_USER, "adam", ROLE_ADMIN, 0);
    callers[KERNEL] = who_is(CALLER_SERVICE, "kernel", ROLE_NONE, 0);
    callers[EXEC] = who_is(CALLER_SERVICE, "execsvc", ROLE_NONE, 6);
    callers[SERVICE] = who_is(CALLER_SERVICE, "mail", ROLE_NONE, 101);
    callers[AGENT].crews = callers[USER].crews = crews;
}

/* One letter per kind, in the order of the enum: - r w b(oth). */
static const struct {
    const char *path, *rights;
} rows[] = {
    { "/secrets", "--------" },
    { "/secrets/x", "--------" },
    { "/etc/avix/auth.conf", "--------" },
    { "/etc/avix/kernel.yaml", "--------" },
    { "/etc/avix/trusted-keys/a.asc", "--------" },
    { "/etc/avix/llm.yaml", "----r---" },
    { "/etc/avix", "----r---" },
    { "/etc", "----r---" },
    { "/", "----r---" },
    { "/tools/index.yaml", "rrrrrrrr" },
    { "/kernel/defaults/agent.yaml", "rrrrrrrr" },
    { "/bin/researcher@1.0.0/manifest.yaml", "rrrrrrrr" },
    { "/proc/157/scratch/a", "brrrr-w-" },
    { "/proc/158/scratch/a", "rrrrr-w-" }, /* whose agent 158 is, is asked elsewhere */
    { "/proc/157/status.yaml", "rrrrrrrr" },
    { "/proc/services/llm/status.yaml", "rrrrrrrr" },
    { "/users/alice/agents/x/1.jsonl", "rr--r---" },
    { "/users/alice/agents", "rr--r---" },
    { "/users/alice/snapshots/a.yaml", "rr--r---" },
    { "/users/alice/memory/a", "-r--r---" },
    { "/crews/lab/memory/a", "-r--r---" },
    { "/users/alice/.uploads/a", "-b--b---" },
    { "/users/alice/bin/x/prompt.md", "rr--rr--" },
    { "/users/alice/limits.yaml", "rr--rr--" },
    { "/users/alice/defaults.yaml", "rb--br--" },
    { "/users/alice", "bb--b---" },
    { "/users/alice/workspace/a/b", "bb--b---" },
    { "/users/alice/agents2/x", "bb--b---" },
    { "/users/alicea/workspace", "----b---" },
    { "/users/bob/workspace/a", "--b-b---" },
    { "/users/olga/x", "---bb---" },
    { "/users", "----r---" },
    { "/crews/lab/shared/open/a", "bb--b---" },
    { "/crews/lab/shared/closed/a", "----r---" },
    { "/crews/lab/shared", "----r---" },
    { "/crews/all/shared/a", "----b---" },
    { "/crews/none/shared/a", "----r---" },
    { "/crews/lab/defaults.yaml", "----rr--" },
    { "/crews/lab", "----r---" },
    { "/services/mail/workspace/a", "----b--b" },
    { "/services/mail/bin/a", "----r--r" },
    { "/services/other/workspace/a", "----b---" },
    { "/nowhere", "----r---" },
};

static void every_row_for_every_kind(void **state)
{
    static const char letters[] = "-rwb";

    (void)state;
    make_callers();
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        for (int k = 0; k < N_KINDS; k++) {
            char got = letters[perm_of(&callers[k], rows[i].path) & 3];

            if (got != rows[i].rights[k])
                fail_msg("%s for kind %d: %c, not %c", rows[i].path, k, got, rows[i].rights[k]);
        }
    json_put(crews);
}

/* Law 13: no role lets an agent write these. */
static void agents_never_write_these(void **state)
{
    static const char *const places[] = {
        "/proc/1/x",        "/proc/158/scratch/x",
        "/kernel/x",        "/tools/x",
        "/bin/x",           "/etc/x",
        "/secrets/x",       "/etc/avix/x",
        "/users/alice/bin", "/services/mail/workspace/x",
    };
    static const enum role roles[] = { ROLE_NONE, ROLE_GUEST, ROLE_USER, ROLE_OPERATOR,
                                       ROLE_ADMIN };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(places); i++)
        for (size_t j = 0; j < N_ELEMS(roles); j++) {
            struct caller w = who_is(CALLER_AGENT, "alice", roles[j], 157);

            assert_false(perm_of(&w, places[i]) & MAY_W);
        }
}

/* An agent of an admin is an agent. */
static void role_of_the_user_opens_nothing_to_an_agent(void **state)
{
    struct caller w = who_is(CALLER_AGENT, "adam", ROLE_ADMIN, 157);

    (void)state;
    assert_int_equal(perm_of(&w, "/users/alice/workspace/a"), 0);
    assert_int_equal(perm_of(&w, "/etc/avix/llm.yaml"), 0);
    assert_int_equal(perm_of(&w, "/users"), 0);
}

static void a_caller_without_a_name_is_nobody(void **state)
{
    struct caller w = who_is(CALLER_USER, "", ROLE_USER, 0);

    (void)state;
    assert_int_equal(perm_of(&w, "/users/alice/workspace/a"), 0);
    assert_int_equal(perm_of(&w, "/users/"), 0);
    w = who_is(CALLER_NONE, "alice", ROLE_ADMIN, 0);
    assert_int_equal(perm_of(&w, "/users/alice/workspace/a"), 0);
}

static void scratch_of_others_needs_its_owner(void **state)
{
    struct caller agent = who_is(CALLER_AGENT, "alice", ROLE_USER, 157);
    struct caller user = who_is(CALLER_USER, "alice", ROLE_USER, 0);
    struct caller op = who_is(CALLER_USER, "olga", ROLE_OPERATOR, 0);

    (void)state;
    assert_false(perm_needs_owner(&agent, "/proc/157/scratch/a"));
    assert_true(perm_needs_owner(&agent, "/proc/158/scratch/a"));
    assert_true(perm_needs_owner(&user, "/proc/157/scratch"));
    assert_false(perm_needs_owner(&op, "/proc/157/scratch/a"));
    assert_false(perm_needs_owner(&user, "/proc/157/status.yaml"));
}

static void shared_paths_follow_the_file(void **state)
{
    (void)state;
    assert_true(perm_shared("lab", "/crews/lab/shared/open"));
    assert_false(perm_shared("lab", "/crews/lab/shared/opener"));
    assert_true(perm_shared("all", "/crews/all/shared/x"));
    assert_false(perm_shared("absent", "/crews/absent/shared/x"));
    host_write("etc/crews.yaml", "apiVersion: avix/v1\nkind: Crews\nspec:\n  crews:\n"
                                 "    - {name: lab, sharedPaths: [docs]}\n");
    assert_false(perm_shared("lab", "/crews/lab/shared/open"));
    assert_true(perm_shared("lab", "/crews/lab/shared/docs/a"));
    host_write("etc/crews.yaml", "spec: [\n");
    assert_false(perm_shared("lab", "/crews/lab/shared/docs/a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_for_every_kind),
        cmocka_unit_test(agents_never_write_these),
        cmocka_unit_test(role_of_the_user_opens_nothing_to_an_agent),
        cmocka_unit_test(a_caller_without_a_name_is_nobody),
        cmocka_unit_test(scratch_of_others_needs_its_owner),
        cmocka_unit_test(shared_paths_follow_the_file),
    };

    return cmocka_run_group_tests(tests, root_setup, root_teardown);
}
