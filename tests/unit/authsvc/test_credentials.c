/* API keys, passwords in the worker, addresses, AES-GCM and secrets. */
#include "tests/unit/common/cm.h"

#include <errno.h>
#include <sys/stat.h>

#include "authsvc/apikey.h"
#include "authsvc/gcm.h"
#include "authsvc/netaddr.h"
#include "authsvc/password.h"
#include "authsvc/secrets.h"
#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "tests/rig/rig.h"

#define LEGACY_HASH_OF_KEY \
    "hmac-sha256:9394da9899820693ae998c4686bf3d0ba8b5a96839c9efe5a822b6949f960a69"
static const char key[] = "sk-avix-0123456789abcdefghijABCDEFGHIJ01";
static const uint8_t cred[32] = { 1, 2, 3 }, other[32] = { 9 };

static void api_key_hashes(void **state)
{
    struct key_hash h;

    (void)state;
    cleanup(freep) char *s1 = key_hash_new(KEY_S1, key, NULL),
                        *s1b = key_hash_new(KEY_S1, key, NULL);
    assert_string_not_equal(s1, s1b); /* a fresh salt each time */
    assert_true(key_hash_parse(s1, &h) && h.form == KEY_S1);
    assert_true(key_hash_match(&h, key, NULL));
    assert_false(key_hash_match(&h, "sk-avix-0123456789abcdefghijABCDEFGHIJ02", NULL));
    assert_false(key_hash_match(&h, "", NULL));
    cleanup(freep) char *k1 = key_hash_new(KEY_K1, key, cred);
    assert_true(key_hash_parse(k1, &h) && h.form == KEY_K1);
    assert_true(key_hash_match(&h, key, cred));
    assert_false(key_hash_match(&h, key, other)); /* another master key */
    assert_false(key_hash_match(&h, key, NULL));
    /* the older form: HMAC-SHA256 under a constant, in hex */
    assert_true(key_hash_parse(
        "hmac-sha256:c8e60d3feaf4a2d5cdf7ab1b5b6d5e0c42c4ab1e1d6fa4c1f24d3b8b6a7b9f01", &h));
    assert_int_equal(h.form, KEY_LEGACY);
    static const char *const bad[] = { "",
                                       "hmac-sha256:",
                                       "hmac-sha256:zz",
                                       "hmac-sha256:$s1$",
                                       "hmac-sha256:$k1$short",
                                       "hmac-sha256:$x9$AAAA",
                                       "sha256:00" };
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_false(key_hash_parse(bad[i], &h));
    cleanup(freep) char *longer = xasprintf("%sA", s1);
    assert_false(key_hash_parse(longer, &h));
}

static void older_hash_matches(void **state)
{
    struct key_hash h;

    (void)state;
    assert_true(key_hash_parse(LEGACY_HASH_OF_KEY, &h));
    assert_true(key_hash_match(&h, "sk-avix-test-key-123", NULL));
    assert_false(key_hash_match(&h, "sk-avix-test-key-124", NULL));
}

static void addresses(void **state)
{
    static const struct {
        const char *text, *key;
        bool loopback;
    } rows[] = {
        { "10.0.0.1", "10.0.0.1", false },
        { "10.0.0.1:80", "10.0.0.1", false },
        { "127.0.0.53", "127.0.0.53", true },
        { "::ffff:127.0.0.1", "127.0.0.1", true },
        { "::1", "::/64", true },
        { "[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64", false },
        { "2001:db8:1:2::9", "2001:db8:1:2::/64", false },
    };
    static const char *const bad[] = { "",     "localhost", "10.0.0",         "10.0.0.1:x",
                                       "[::1", "[::1]x",    "10.0.0.1:99999", "1.2.3.4.5" };
    char out[ADDR_KEY_LEN];
    struct addr a;
    struct cidr c;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        assert_true(addr_parse(rows[i].text, &a));
        assert_string_equal(addr_key(&a, out), rows[i].key);
        assert_int_equal(addr_loopback(&a), rows[i].loopback);
    }
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_false(addr_parse(bad[i], &a));
    assert_false(addr_parse(NULL, &a));
    assert_true(cidr_parse("10.0.0.0/9", &c) && addr_parse("10.127.0.1", &a) && cidr_has(&c, &a));
    assert_true(addr_parse("10.128.0.1", &a) && !cidr_has(&c, &a));
    assert_true(cidr_parse("0.0.0.0/0", &c) && cidr_has(&c, &a));
    assert_true(addr_parse("::1", &a) && !cidr_has(&c, &a));
    assert_true(cidr_parse("::/0", &c) && cidr_has(&c, &a));
    assert_false(cidr_parse("10.0.0.0/33", &c));
    assert_false(cidr_parse("10.0.0.0/-1", &c));
    assert_false(cidr_parse("::1/129", &c));
}

/* --- passwords -----------------------------------------------------------------------------------
 */

static struct loop *loop;
static int answers, yes;

static void count(bool ok, void *arg)
{
    (void)arg;
    answers++;
    yes += ok;
}

static void wait_for(int n)
{
    while (answers < n)
        loop_step(loop, true);
}

static int loop_setup(void **state)
{
    (void)state;
    loop = loop_new();
    answers = yes = 0;
    return 0;
}

static int loop_teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void known_answers(void **state)
{
    cleanup(freep) char *text = rig_data("crypto/argon2/argon2-kat.json", NULL);
    cleanup(json_putp) json_object *rows = NULL;
    struct passwords *p = passwords_new(loop);
    int asked = 0, want = 0;

    (void)state;
    assert_int_equal(json_parse(text, strlen(text), &rows), 0);
    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        json_object *o = json_object_array_get_idx(rows, i);

        if (!str_eq(json_str(o, "type", ""), "argon2id") || json_int(o, "m_log2", 99) > 16)
            continue;
        assert_int_equal(password_check(p, json_str(o, "encoded", ""), json_str(o, "password", ""),
                                        "a", count, NULL),
                         0);
        wait_for(++asked);
        assert_int_equal(yes, ++want);
        assert_int_equal(password_check(p, json_str(o, "encoded", ""), "wrong", "a", count, NULL),
                         0);
        wait_for(++asked);
        assert_int_equal(yes, want);
    }
    assert_true(want >= 5);
    /* without a hash, or with a password that is too long: never */
    char longest[PASSWORD_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[PASSWORD_MAX + 1] = '\0';
    assert_int_equal(password_check(p, NULL, "anything", "a", count, NULL), 0);
    wait_for(++asked);
    assert_int_equal(password_check(p, NULL, longest, "a", count, NULL), 0);
    wait_for(++asked);
    assert_int_equal(yes, want);
    passwords_free(p);
}

static void the_queue_is_bounded(void **state)
{
    struct passwords *p = passwords_new(loop);
    char addr[16];
    int taken = 0, busy = 0;

    (void)state;
    assert_int_equal(password_check(p, NULL, "x", "same", count, NULL), 0);
    assert_int_equal(password_check(p, NULL, "x", "same", count, NULL), ERR_BUSY);
    taken = 1;
    for (int i = 0; i < 50; i++) {
        snprintf(addr, sizeof(addr), "10.0.0.%d", i);
        if (password_check(p, NULL, "x", addr, count, NULL) == 0)
            taken++;
        else
            busy++;
    }
    assert_true(taken >= PASSWORD_WAITING && taken <= PASSWORD_WAITING + 2 * PASSWORD_THREADS);
    assert_true(busy > 0);
    assert_true(passwords_waiting(p) <= PASSWORD_WAITING + PASSWORD_THREADS);
    wait_for(1); /* results come while others wait */
    passwords_free(p);
    assert_int_equal(answers, taken); /* nobody is forgotten at the end */
}

/* --- secrets -------------------------------------------------------------------------------------
 */

static size_t unhex(json_object *o, const char *name, uint8_t *out, size_t cap)
{
    const char *s = json_str(o, name, "");

    assert_true(strlen(s) / 2 <= cap && hex_decode(s, strlen(s), out));
    return strlen(s) / 2;
}

static void aes_gcm_vectors(void **state)
{
    cleanup(freep) char *text = rig_data("crypto/aes_gcm_test.json", NULL);
    cleanup(json_putp) json_object *doc = NULL;
    int ran = 0;

    (void)state;
    assert_int_equal(json_parse(text, strlen(text), &doc), 0);
    json_object *groups = json_arr(doc, "testGroups");
    for (size_t g = 0; g < json_object_array_length(groups); g++) {
        json_object *grp = json_object_array_get_idx(groups, g), *tests = json_arr(grp, "tests");

        if (json_int(grp, "keySize", 0) != 256 || json_int(grp, "ivSize", 0) != 96 ||
            json_int(grp, "tagSize", 0) != 128)
            continue;
        for (size_t i = 0; i < json_object_array_length(tests); i++) {
            json_object *t = json_object_array_get_idx(tests, i);
            uint8_t k[32], iv[12], aad[4096], msg[4096], ct[4096], tag[16], out[4096], tag2[16];
            size_t n_aad = unhex(t, "aad", aad, sizeof(aad)), n = unhex(t, "msg", msg, sizeof(msg));
            size_t n_ct = unhex(t, "ct", ct, sizeof(ct));

            unhex(t, "key", k, 32);
            unhex(t, "iv", iv, 12);
            unhex(t, "tag", tag, 16);
            bool valid = str_eq(json_str(t, "result", ""), "valid");
            assert_int_equal(gcm_crypt(false, k, iv, aad, n_aad, ct, n_ct, out, tag), valid);
            ran++;
            if (!valid)
                continue;
            assert_memory_equal(out, msg, n);
            assert_true(gcm_crypt(true, k, iv, aad, n_aad, msg, n, out, tag2));
            assert_memory_equal(out, ct, n_ct);
            assert_memory_equal(tag2, tag, 16);
        }
    }
    assert_true(ran > 50);
}

static void secrets_are_bound_to_their_place(void **state)
{
    char *value = NULL, type[8], name[64];
    size_t len;

    (void)state;
    cleanup(freep) char *line = secret_seal(cred, "user:alice", "token", "s3cret", 6);
    assert_true(str_starts(line, "v1.") && str_ends(line, "\n"));
    assert_int_equal(secret_open(cred, "user:alice", "token", line, &value, &len), 0);
    assert_int_equal(len, 6);
    assert_string_equal(value, "s3cret");
    free(value);
    assert_int_equal(secret_open(cred, "user:bob", "token", line, &value, &len), ERR_AUTH);
    assert_int_equal(secret_open(cred, "user:alice", "tokem", line, &value, &len), ERR_AUTH);
    assert_int_equal(secret_open(other, "user:alice", "token", line, &value, &len), ERR_AUTH);
    static const char *const bad[] = { "", "v1.", "v2.00000000.AAAAAAAAAAAAAAAA.AAAA",
                                       "v1.00000000.AAAAAAAAAAAAAAAA.AAAA",
                                       "v1.00000000.AAAAAAAAAAAAAAA!.AAAAAAAAAAAAAAAAAAAAAAAA" };
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_int_equal(secret_open(cred, "user:alice", "token", bad[i], &value, &len), ERR_PARSE);
    /* one flipped character anywhere in the sealed part */
    for (size_t i = 29; i + 2 < strlen(line); i++) {
        cleanup(freep) char *cut = xstrdup(line);
        cut[i] = cut[i] == 'A' ? 'B' : 'A';
        assert_int_not_equal(secret_open(cred, "user:alice", "token", cut, &value, &len), 0);
    }
    assert_true(secret_owner_parse("service:llm", type, name));
    assert_string_equal(type, "service");
    static const char *const owners[] = { "",         "llm",        "root:x",  "user:", "user:../x",
                                          "user:a/b", "service:.x", "users:x", ":x" };
    for (size_t i = 0; i < N_ELEMS(owners); i++)
        assert_false(secret_owner_parse(owners[i], type, name));
}

static void put_secret(const char *root, const char *rel, const char *line)
{
    char path[400];

    assert_int_equal(path_fmt(path, sizeof(path), "%s/%s", root, rel), 0);
    assert_int_equal(file_write_atomic(path, line, strlen(line), 0600), 0);
}

static void secrets_of_an_owner(void **state)
{
    char root[] = "/tmp/avix-secrets-XXXXXX", path[400];

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof(path), "%s/secrets/service/llm", root);
    assert_int_equal(mkdir_p(path, 0700), 0);
    cleanup(freep) char *a = secret_seal(cred, "service:llm", "A_KEY", "one", 3);
    cleanup(freep) char *b = secret_seal(cred, "service:llm", "b-key", "two", 3);
    cleanup(freep) char *bin = secret_seal(cred, "service:llm", "bin", "\xFF\xFE", 2);
    put_secret(root, "secrets/service/llm/A_KEY.enc", a);
    put_secret(root, "secrets/service/llm/b-key.enc", b);
    put_secret(root, "secrets/service/llm/copied.enc", a);
    put_secret(root, "secrets/service/llm/bin.enc", bin);
    put_secret(root, "secrets/service/llm/.hidden.enc", a);
    put_secret(root, "secrets/service/llm/notes.txt", "x");
    snprintf(path, sizeof(path), "%s/secrets/service/llm/link.enc", root);
    assert_int_equal(symlink("A_KEY.enc", path), 0);
    cleanup(json_putp) json_object *failed = json_new_arr();
    cleanup(json_putp) json_object *all = secrets_read(cred, root, "service:llm", NULL, failed);
    assert_int_equal(json_object_object_length(all), 2);
    assert_string_equal(json_str(all, "A_KEY", ""), "one");
    assert_string_equal(json_str(all, "b-key", ""), "two");
    assert_true(json_arr_has(failed, "copied") && json_arr_has(failed, "link") &&
                json_arr_has(failed, "bin"));
    cleanup(json_putp) json_object *want = json_new_arr(), *no = json_new_arr();
    json_push_str(want, "b-key");
    json_push_str(want, "absent");
    cleanup(json_putp) json_object *some = secrets_read(cred, root, "service:llm", want, no);
    assert_string_equal(json_text(some), "{\"b-key\":\"two\"}");
    assert_int_equal(json_object_array_length(no), 0);
    cleanup(json_putp) json_object *none = secrets_read(cred, root, "user:nobody", NULL, no);
    assert_int_equal(json_object_object_length(none), 0);
    assert_int_equal(rm_rf(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(api_key_hashes),
        cmocka_unit_test(older_hash_matches),
        cmocka_unit_test(addresses),
        cmocka_unit_test_setup_teardown(known_answers, loop_setup, loop_teardown),
        cmocka_unit_test_setup_teardown(the_queue_is_bounded, loop_setup, loop_teardown),
        cmocka_unit_test(aes_gcm_vectors),
        cmocka_unit_test(secrets_are_bound_to_their_place),
        cmocka_unit_test(secrets_of_an_owner),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
