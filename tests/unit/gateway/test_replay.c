/* Ids seen on a connection, and the rate bucket. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/rate.h"
#include "gateway/replay.h"

static void an_id_is_new_once(void **state)
{
    struct replay *r = NULL;
    char id[32];

    (void)state;
    for (unsigned i = 0; i < REPLAY_IDS; i++) {
        snprintf(id, sizeof(id), "id-%u", i);
        assert_true(replay_add(&r, id));
        assert_false(replay_add(&r, id));
    }
    for (unsigned i = 0; i < REPLAY_IDS; i += 97) {
        snprintf(id, sizeof(id), "id-%u", i);
        assert_false(replay_add(&r, id));
    }
    replay_free(r);
}

static void the_oldest_are_forgotten(void **state)
{
    struct replay *r = NULL;
    char id[32];
    unsigned total = 3 * REPLAY_IDS;

    (void)state;
    for (unsigned i = 0; i < total; i++) {
        snprintf(id, sizeof(id), "id-%u", i);
        assert_true(replay_add(&r, id));
    }
    for (unsigned i = total - REPLAY_IDS; i < total; i++) {
        snprintf(id, sizeof(id), "id-%u", i);
        assert_false(replay_add(&r, id));
    }
    assert_true(replay_add(&r, "id-0"));
    replay_free(r);
    replay_free(NULL);
}

static void a_bucket_fills_at_its_rate(void **state)
{
    struct bucket b = { 0, 0 };
    int n = 0;

    (void)state;
    while (bucket_take(&b, 200, 400, 1, 1000))
        n++;
    assert_int_equal(n, 400);
    assert_false(bucket_take(&b, 200, 400, 1, 1004));
    assert_true(bucket_take(&b, 200, 400, 1, 1010));
    n = 0;
    while (bucket_take(&b, 200, 400, 1, 2010))
        n++;
    assert_in_range(n, 199, 202);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_is_new_once),
        cmocka_unit_test(the_oldest_are_forgotten),
        cmocka_unit_test(a_bucket_fills_at_its_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
