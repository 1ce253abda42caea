/* Lockout, revocations, sessions, capability tokens, journal, file store: rules, limits, and what
 * is there again after the process died. */
#include "tests/unit/common/cm.h"

#include <errno.h>

#include "authsvc/captokens.h"
#include "authsvc/lockout.h"
#include "authsvc/revoked.h"
#include "authsvc/sessions.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

#define MIN 60000LL
#define T0  1777111200000LL

static char dir[32];
static struct loop *loop;
static const struct login_policy rules = { .lockout_count = 5, .lockout_ttl_ms = 15 * MIN };

static int setup(void **state)
{
    (void)state;
    memcpy(dir, "/tmp/avix-auth-XXXXXX", 22);
    loop = loop_new();
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return rm_rf(dir);
}

static const char *at(const char *name)
{
    static char path[128];

    assert_int_equal(path_fmt(path, sizeof(path), "%s/%s", dir, name), 0);
    return path;
}

static int fail_n(struct lockout *l, const char *id, const char *addr, int n, int64_t from)
{
    int locked = 0;

    for (int i = 0; i < n; i++)
        locked += lockout_failed(l, id, addr, from + i);
    return locked;
}

static int64_t pair_wait(struct lockout *l, const char *id, const char *addr, int64_t now)
{
    return lockout_wait(l, id, addr, false, false, now);
}

static void a_pair_is_locked(void **state)
{
    struct lockout *l = lockout_new(NULL, &rules, T0);

    (void)state;
    assert_int_equal(fail_n(l, "alice", "1.1.1.1", 4, T0), 0);
    assert_int_equal(pair_wait(l, "alice", "1.1.1.1", T0 + 10), 0);
    assert_int_equal(fail_n(l, "alice", "1.1.1.1", 1, T0 + 4), 1); /* the fifth raises the alarm */
    assert_int_equal(pair_wait(l, "alice", "1.1.1.1", T0 + 4), 15 * MIN);
    assert_int_equal(lockout_locked(l, T0 + 4), 1);
    /* others are not: another address; this address only by its rate, which ends sooner */
    assert_int_equal(pair_wait(l, "alice", "2.2.2.2", T0 + 4), 0);
    assert_int_equal(pair_wait(l, "bob", "1.1.1.1", T0 + 4), MIN - 4);
    assert_int_equal(pair_wait(l, "alice", "1.1.1.1", T0 + 4 + 15 * MIN), 0);
    assert_int_equal(lockout_locked(l, T0 + 4 + 15 * MIN), 0);
    /* the count starts again after the lock */
    assert_int_equal(fail_n(l, "alice", "1.1.1.1", 4, T0 + 16 * MIN), 0);
    assert_int_equal(fail_n(l, "alice", "1.1.1.1", 1, T0 + 17 * MIN), 1);
    lockout_free(l);
}

static void a_success_clears(void **state)
{
    struct lockout *l = lockout_new(NULL, &rules, T0);

    (void)state;
    fail_n(l, "alice", "1.1.1.1", 4, T0);
    lockout_succeeded(l, "alice", "1.1.1.1", T0 + 5);
    assert_int_equal(fail_n(l, "alice", "1.1.1.1", 4, T0 + 2 * MIN), 0);
    /* and old failures are forgotten */
    assert_int_equal(fail_n(l, "carol", "3.3.3.3", 4, T0), 0);
    assert_int_equal(fail_n(l, "carol", "3.3.3.3", 4, T0 + 16 * MIN), 0);
    lockout_free(l);
}

static void an_address_has_a_rate(void **state)
{
    struct lockout *l = lockout_new(NULL, &rules, T0);
    char id[16];

    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof(id), "guess%d", i);
        assert_int_equal(pair_wait(l, id, "1.1.1.1", T0 + i * 1000), 0);
        assert_false(lockout_failed(l, id, "1.1.1.1", T0 + i * 1000));
    }
    assert_int_equal(pair_wait(l, "guess9", "1.1.1.1", T0 + 5000), MIN - 5000);
    assert_int_equal(pair_wait(l, "guess9", "1.1.1.2", T0 + 5000), 0);
    assert_int_equal(pair_wait(l, "guess9", "1.1.1.1", T0 + MIN),
                     0); /* the first left the minute */
    lockout_failed(l, "guess9", "1.1.1.1", T0 + MIN);
    assert_int_equal(pair_wait(l, "guess8", "1.1.1.1", T0 + MIN), 1000);
    lockout_free(l);
}

static void an_identity_over_all_addresses(void **state)
{
    struct lockout *l = lockout_new(NULL, &rules, T0);
    char addr[16];
    int locked = 0;

    (void)state;
    for (int i = 0; i < 50; i++) {
        snprintf(addr, sizeof(addr), "10.0.0.%d", i);
        locked += lockout_failed(l, "alice", addr, T0 + i);
    }
    assert_int_equal(locked, 1); /* the 50th */
    assert_int_equal(lockout_wait(l, "alice", "9.9.9.9", true, false, T0 + 49), 15 * MIN);
    assert_int_equal(lockout_wait(l, "alice", "9.9.9.9", false, false, T0 + 49),
                     0); /* an API key */
    assert_int_equal(lockout_wait(l, "alice", "127.0.0.1", true, true, T0 + 49), 0); /* admin */
    lockout_free(l);
}

static void counts_outlive_the_process(void **state)
{
    struct lockout *l = lockout_new(at("lock"), &rules, T0);

    (void)state;
    fail_n(l, "alice", "1.1.1.1", 5, T0);
    fail_n(l, "bob", "2.2.2.2", 3, T0);
    fail_n(l, "carol", "3.3.3.3", 3, T0);
    lockout_succeeded(l, "carol", "3.3.3.3", T0 + 9);
    lockout_free(l);
    for (int round = 0; round < 2; round++) { /* the second reads what the first compacted */
        l = lockout_new(at("lock"), &rules, T0 + 100);
        assert_true(pair_wait(l, "alice", "1.1.1.1", T0 + 100) > 14 * MIN);
        lockout_free(l);
    }
    l = lockout_new(at("lock"), &rules, T0 + 2 * MIN);
    assert_int_equal(fail_n(l, "bob", "2.2.2.2", 2, T0 + 2 * MIN), 1);
    assert_int_equal(fail_n(l, "carol", "3.3.3.3", 4, T0 + 2 * MIN), 0);
    lockout_free(l);
    l = lockout_new(at("lock"), &rules, T0 + 60 * MIN);
    assert_int_equal(pair_wait(l, "alice", "1.1.1.1", T0 + 60 * MIN), 0);
    lockout_free(l);
}

static void tables_are_bounded(void **state)
{
    struct lockout *l = lockout_new(NULL, &rules, T0);
    char id[32];

    (void)state;
    fail_n(l, "first", "1.1.1.1", 5, T0 + 1000000);
    for (int i = 0; i < 40000; i++) {
        snprintf(id, sizeof(id), "id%d", i);
        lockout_failed(l, id, id, T0 + i);
    }
    assert_true(pair_wait(l, "first", "1.1.1.1", T0 + 1000005) > 0); /* the newest stays */
    lockout_free(l);
}

/* --- journal
 * -------------------------------------------------------------------------------------- */

static void sum_up(json_object *line, void *arg)
{
    *(int64_t *)arg += json_int(line, "n", 0);
}

static void journals_ignore_a_cut_line(void **state)
{
    int64_t sum = 0;
    struct journal *j = journal_open(at("j"), sum_up, &sum);

    (void)state;
    journal_add(j, json_make("n:i", (int64_t)1));
    journal_add(j, json_make("n:i", (int64_t)2));
    journal_close(j);
    cleanup(freep) char *text = NULL;
    size_t len;
    assert_int_equal(file_read(at("j"), 1000, &text, &len), 0);
    assert_int_equal(file_write_rename(at("j"), text, len - 3, 0600), 0); /* killed in the middle */
    j = journal_open(at("j"), sum_up, &sum);
    assert_int_equal(sum, 1);
    journal_add(j, json_make("n:i", (int64_t)4));
    journal_close(j);
    sum = 0;
    j = journal_open(at("j"), sum_up, &sum);
    assert_int_equal(sum, 5);
    journal_replace(j, "{\"n\":7}\n", 8);
    journal_add(j, json_make("n:i", (int64_t)1));
    assert_true(journal_grown(j) < 20);
    journal_close(j);
    sum = 0;
    journal_close(journal_open(at("j"), sum_up, &sum));
    assert_int_equal(sum, 8);
}

/* --- files
 * ---------------------------------------------------------------------------------------- */

static int saved, save_err;

static void on_saved(int err, void *arg)
{
    (void)arg;
    saved++;
    save_err = err;
}

static void wait_saved(int n)
{
    while (saved < n)
        loop_step(loop, true);
}

static void writes_are_joined(void **state)
{
    struct work_pool *disk = work_pool_new(loop, 1, 100);
    struct store *s = store_new(disk, at("f"), 0600), *no = store_new(disk, at("no/f"), 0600);
    char *text, word[16];
    size_t len;

    (void)state;
    saved = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(word, sizeof(word), "%d", i);
        store_save(s, xstrdup(word), on_saved, NULL);
    }
    wait_saved(100); /* each is told, once */
    assert_int_equal(save_err, 0);
    assert_int_equal(file_read(at("f"), 100, &text, &len), 0);
    assert_string_equal(text, "99");
    free(text);
    store_save(no, xstrdup("x"), on_saved, NULL);
    wait_saved(101);
    assert_int_equal(save_err, -ENOENT);
    store_save(s, xstrdup("a"), NULL, NULL);
    store_save(s, xstrdup("last"), on_saved, NULL);
    work_pool_free(disk); /* what waits is written first */
    assert_int_equal(saved, 102);
    assert_int_equal(file_read(at("f"), 100, &text, &len), 0);
    assert_string_equal(text, "last");
    free(text);
    store_free(s);
    store_free(no);
}

static void revocations(void **state)
{
    struct work_pool *disk = work_pool_new(loop, 1, 100);
    int err;
    struct revoked *r = revoked_new(at("revoked.json"), disk, T0, &err);

    (void)state;
    assert_non_null(r);
    assert_true(revoked_add(r, REV_TOKEN, "cap-1", T0 + MIN, T0));
    assert_false(revoked_add(r, REV_TOKEN, "cap-1", T0 + MIN, T0));      /* twice changes nothing */
    assert_false(revoked_add(r, REV_TOKEN, "old", T0, T0));              /* expired by itself */
    assert_true(revoked_add(r, REV_SESSION, "cap-1", T0 + 2 * MIN, T0)); /* kinds are apart */
    cleanup(json_putp) json_object *all = revoked_since(r, 0, T0);
    assert_string_equal(json_text(all), "{\"tokens\":[\"cap-1\"],\"sessions\":[\"cap-1\"],"
                                        "\"users\":[],\"lineages\":[],\"version\":2}");
    cleanup(json_putp) json_object *one = revoked_since(r, 1, T0);
    assert_string_equal(json_text(one), "{\"tokens\":[],\"sessions\":[\"cap-1\"],"
                                        "\"users\":[],\"lineages\":[],\"version\":2}");
    cleanup(json_putp) json_object *ahead = revoked_since(r, 99, T0); /* from another life: all */
    assert_int_equal(json_object_array_length(json_arr(ahead, "tokens")), 1);
    saved = 0;
    revoked_save(r, T0, on_saved, NULL);
    wait_saved(1);
    revoked_free(r);
    r = revoked_new(at("revoked.json"), disk, T0 + MIN, &err);
    assert_false(revoked_has(r, REV_TOKEN, "cap-1")); /* its time is over */
    assert_true(revoked_has(r, REV_SESSION, "cap-1"));
    assert_true(revoked_add(r, REV_LINEAGE, "l", T0 + 9 * MIN, T0 + MIN));
    cleanup(json_putp) json_object *next = revoked_since(r, 2, T0 + MIN);
    assert_string_equal(json_text(next), "{\"tokens\":[],\"sessions\":[],\"users\":[],"
                                         "\"lineages\":[\"l\"],\"version\":3}");
    revoked_free(r);
    assert_int_equal(file_write_atomic(at("revoked.json"), "{broken", 7, 0600), 0);
    assert_null(
        revoked_new(at("revoked.json"), disk, T0, &err)); /* never start as if nothing was */
    assert_int_equal(err, ERR_PARSE);
    work_pool_free(disk);
}

static void sessions(void **state)
{
    struct work_pool *disk = work_pool_new(loop, 1, 100);
    struct sessions *s = sessions_new(at("sessions.json"), disk, T0);
    char a[UUID_LEN], b[UUID_LEN];

    (void)state;
    sessions_add(s, uuid4(a), "alice", "1.1.1.1", "avix/1.0", T0, T0 + MIN)->role = ROLE_ADMIN;
    sessions_add(s, uuid4(b), "bob", "2.2.2.2", "", T0, T0 + 9 * MIN)->role = ROLE_USER;
    saved = 0;
    sessions_save(s, T0, on_saved, NULL);
    wait_saved(1);
    sessions_free(s);
    s = sessions_new(at("sessions.json"), disk, T0 + 1);
    assert_int_equal(sessions_count(s), 2);
    assert_string_equal(sessions_get(s, a)->client, "avix/1.0");
    assert_int_equal(sessions_get(s, a)->role, ROLE_ADMIN);
    sessions_drop(s, a);
    sessions_drop(s, a);
    assert_null(sessions_get(s, a));
    sessions_free(s);
    s = sessions_new(at("sessions.json"), disk, T0 + MIN); /* expired ones are gone */
    assert_int_equal(sessions_count(s), 1);
    for (int i = 0; i < 5000; i++) {
        sessions_add(s, uuid4(a), "flood", "", "", T0 + MIN + i, T0 + 9 * MIN + i);
        assert_true(sessions_count(s) <= 4096);
    }
    assert_null(sessions_get(s, b)); /* the oldest goes */
    assert_non_null(sessions_get(s, a));
    sessions_free(s);
    assert_int_equal(file_write_atomic(at("sessions.json"), "[]", 2, 0600), 0);
    s = sessions_new(at("sessions.json"), disk, T0);
    assert_int_equal(sessions_count(s), 0);
    sessions_free(s);
    work_pool_free(disk);
}

static json_object *claims(const char *id, int64_t pid, int64_t expires)
{
    char ts[RFC3339_LEN];

    return json_make("tokenId:s pid:i sub:s expiresAt:s", id, pid, "alice", rfc3339(expires, ts));
}

static void capability_tokens(void **state)
{
    struct cap_tokens *t = cap_tokens_new(at("tokens"), T0);
    const struct cap_token *x;

    (void)state;
    cap_tokens_add(t, claims("cap-1", 157, T0 + 60 * MIN), T0);
    cap_tokens_add(t, claims("cap-2", 157, T0 + 60 * MIN), T0);
    cap_tokens_add(t, claims("cap-3", 158, T0 - CAP_RENEW_LATE_MS), T0);
    cap_tokens_drop(t, "cap-1");
    cap_tokens_drop(t, "cap-1");
    cap_tokens_free(t);
    t = cap_tokens_new(at("tokens"), T0);
    assert_int_equal(cap_tokens_count(t), 1);
    assert_null(cap_tokens_get(t, "cap-1"));
    assert_null(cap_tokens_get(t, "cap-3")); /* too old to be renewed */
    x = cap_tokens_get(t, "cap-2");
    assert_true(x && x->pid == 157 && x->expires_at == T0 + 60 * MIN);
    assert_string_equal(x->user, "alice");
    cap_tokens_free(t);
    t = cap_tokens_new(at("tokens"), T0 + CAP_RENEW_LATE_MS + 60 * MIN);
    assert_int_equal(cap_tokens_count(t), 0);
    cap_tokens_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_is_locked),
        cmocka_unit_test(a_success_clears),
        cmocka_unit_test(an_address_has_a_rate),
        cmocka_unit_test(an_identity_over_all_addresses),
        cmocka_unit_test(counts_outlive_the_process),
        cmocka_unit_test(tables_are_bounded),
        cmocka_unit_test(journals_ignore_a_cut_line),
        cmocka_unit_test(writes_are_joined),
        cmocka_unit_test(revocations),
        cmocka_unit_test(sessions),
        cmocka_unit_test(capability_tokens),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
