/* Ids of turns: the rule of the agents page, and that no two turns of a conversation share one. */
#include "tests/unit/kernel/agent/common.h"

#include "kernel/agent/ids.h"

static void follows_the_rule(void **state)
{
    char id[UUID_LEN];

    (void)state;
    assert_string_equal(turn_id("00000000-0000-4000-8000-000000000000", 1, 0, id),
                        "00000000-0000-4000-8000-000000000100");
    assert_string_equal(turn_id("00000000-0000-4000-8000-000000000000", 0x123456789, 0xff, id),
                        "00000000-0000-4000-8000-0123456789ff");
    /* the topmost of the 7 bytes is the second of the fourth group */
    assert_string_equal(turn_id("00000000-0000-4000-8000-000000000000", (int64_t)1 << 40, 0, id),
                        "00000000-0000-4000-8001-000000000000");
    assert_string_equal(turn_id("14160f7b-c6ce-4cd1-88ed-dc5270f9ebff", 0, 0xff, id),
                        "14160f7b-c6ce-4cd1-88ed-dc5270f9eb00");
    assert_true(uuid_valid(id));
}

static void same_place_same_id(void **state)
{
    char a[UUID_LEN], b[UUID_LEN];

    (void)state;
    for (int64_t seq = 0; seq < 50; seq++)
        for (unsigned n = 0; n < 4; n++) {
            turn_id("14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0", seq, n, a);
            assert_string_equal(a, turn_id("14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0", seq, n, b));
            assert_string_not_equal(a,
                                    turn_id("14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0", seq, n + 1, b));
            assert_string_not_equal(a,
                                    turn_id("14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0", seq + 1, n, b));
        }
}

static void calls_of_a_turn_differ(void **state)
{
    char a[UUID_LEN], b[UUID_LEN];
    const char *turn = "14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0";

    (void)state;
    assert_string_equal(call_uuid(turn, 0, a), "15160f7b-c6ce-4cd1-88ed-dc5270f9ebf0");
    assert_string_not_equal(a, call_uuid(turn, 1, b));
    assert_string_not_equal(a, turn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_rule),
        cmocka_unit_test(same_place_same_id),
        cmocka_unit_test(calls_of_a_turn_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
