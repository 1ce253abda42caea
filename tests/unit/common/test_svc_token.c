/* HMAC, HKDF and tokens, against the Wycheproof vectors and by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/svc/token.h"
#include "common/svc/unit.h"
#include "tests/rig/rig.h"

static json_object *vectors(const char *rel)
{
    json_object *o = NULL;
    size_t len;
    cleanup(freep) char *text = rig_data(rel, &len);

    assert_int_equal(json_parse(text, len, &o), 0);
    return o;
}

/* A hex member as bytes. */
static uint8_t *bytes(json_object *o, const char *key, size_t *len)
{
    const char *hex = json_str(o, key, "");
    uint8_t *out = xmalloc(strlen(hex) / 2 + 1);

    assert_true(hex_decode(hex, strlen(hex), out));
    *len = strlen(hex) / 2;
    return out;
}

static void hmac_once(const uint8_t *key, size_t key_len, const void *data, size_t len,
                      uint8_t out[32])
{
    struct hmac *h = hmac_new(key, key_len);

    hmac_sum(h, "something else first", 20, out);
    hmac_sum(h, data, len, out);
    hmac_free(h);
}

static void hmac_vectors(void **state)
{
    cleanup(json_putp) json_object *doc = vectors("crypto/hmac_sha256_test.json");
    json_object *groups = json_arr(doc, "testGroups");
    int n = 0;

    (void)state;
    for (size_t g = 0; g < json_object_array_length(groups); g++) {
        json_object *group = json_object_array_get_idx(groups, g);
        json_object *tests = json_arr(group, "tests");
        size_t tag_bytes = (size_t)json_int(group, "tagSize", 0) / 8;

        for (size_t i = 0; i < json_object_array_length(tests); i++) {
            json_object *t = json_object_array_get_idx(tests, i);
            size_t kl, ml, tl;
            cleanup(freep) uint8_t *key = bytes(t, "key", &kl);
            cleanup(freep) uint8_t *msg = bytes(t, "msg", &ml);
            cleanup(freep) uint8_t *tag = bytes(t, "tag", &tl);
            uint8_t sum[32];

            hmac_once(key, kl, msg, ml, sum);
            bool same = tl == tag_bytes && ct_equal(sum, tag, tag_bytes);

            assert_int_equal(same, str_eq(json_str(t, "result", ""), "valid"));
            n++;
        }
    }
    assert_true(n > 100);
}

/* RFC 5869 from our HMAC. */
static void hkdf(const uint8_t *ikm, size_t ikm_len, const uint8_t *salt, size_t salt_len,
                 const uint8_t *info, size_t info_len, uint8_t *out, size_t size)
{
    uint8_t prk[32], t[32], zero[32] = { 0 };
    struct buf b = BUF_INIT(1 << 20);
    size_t have = 0;

    hmac_once(salt_len ? salt : zero, salt_len ? salt_len : 32, ikm, ikm_len, prk);
    for (uint8_t i = 1; have < size; i++) {
        buf_clear(&b);
        if (i > 1)
            buf_add(&b, t, sizeof(t));
        buf_add(&b, info, info_len);
        buf_add(&b, &i, 1);
        hmac_once(prk, sizeof(prk), b.data, b.len, t);
        size_t n = size - have < 32 ? size - have : 32;

        memcpy(out + have, t, n);
        have += n;
    }
    buf_done(&b);
}

static void hkdf_vectors(void **state)
{
    cleanup(json_putp) json_object *doc = vectors("crypto/hkdf_sha256_test.json");
    json_object *groups = json_arr(doc, "testGroups");
    int n = 0;

    (void)state;
    for (size_t g = 0; g < json_object_array_length(groups); g++) {
        json_object *tests = json_arr(json_object_array_get_idx(groups, g), "tests");

        for (size_t i = 0; i < json_object_array_length(tests); i++) {
            json_object *t = json_object_array_get_idx(tests, i);
            size_t il, sl, fl, ol, size = (size_t)json_int(t, "size", 0);
            cleanup(freep) uint8_t *ikm = bytes(t, "ikm", &il);
            cleanup(freep) uint8_t *salt = bytes(t, "salt", &sl);
            cleanup(freep) uint8_t *info = bytes(t, "info", &fl);
            cleanup(freep) uint8_t *okm = bytes(t, "okm", &ol);

            if (!str_eq(json_str(t, "result", ""), "valid"))
                continue;
            cleanup(freep) uint8_t *out = xmalloc(size + 1);

            hkdf(ikm, il, salt, sl, info, fl, out, size);
            assert_int_equal(ol, size);
            assert_memory_equal(out, okm, size);
            n++;
        }
    }
    assert_true(n > 50);
}

static void sub_keys_are_hkdf(void **state)
{
    uint8_t master[48], want[32], got[32], first[32];

    (void)state;
    for (size_t i = 0; i < sizeof(master); i++)
        master[i] = (uint8_t)(i * 7);
    for (int k = 0; k < KEY_COUNT; k++) {
        hkdf(master, sizeof(master), (const uint8_t *)"avix/v1", 7, (const uint8_t *)key_names[k],
             strlen(key_names[k]), want, 32);
        key_derive(master, sizeof(master), key_names[k], got);
        assert_memory_equal(got, want, 32);
        if (k == 0)
            memcpy(first, got, 32);
        else
            assert_memory_not_equal(got, first, 32);
    }
}

static void sha256_known(void **state)
{
    uint8_t sum[32];
    char hex[65];

    (void)state;
    sha256("abc", 3, sum);
    hex_encode(sum, 32, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#define CLAIMS "{\"kind\":\"ServiceToken\",\"unit\":\"memfs\"}"

static void sign_and_verify(void **state)
{
    struct hmac *h = hmac_new((const uint8_t *)"0123456789abcdef0123456789abcdef", 32);
    cleanup(freep) char *t = token_sign(h, CLAIMS, strlen(CLAIMS));
    cleanup(json_putp) json_object *claims = NULL;
    char kind[32];

    (void)state;
    assert_int_equal(token_verify(h, t, strlen(t), &claims), 0);
    assert_string_equal(json_str(claims, "unit", ""), "memfs");
    token_kind(t, strlen(t), kind, sizeof(kind));
    assert_string_equal(kind, "ServiceToken");
    token_kind(t, strlen(t), kind, 4);
    assert_string_equal(kind, "");
    hmac_free(h);
}

static void another_key_fails(void **state)
{
    struct hmac *a = hmac_new((const uint8_t *)"a", 1), *b = hmac_new((const uint8_t *)"b", 1);
    cleanup(freep) char *t = token_sign(a, CLAIMS, strlen(CLAIMS));
    json_object *claims = NULL;

    (void)state;
    assert_int_equal(token_verify(b, t, strlen(t), &claims), ERR_AUTH);
    assert_null(claims);
    hmac_free(a);
    hmac_free(b);
}

static void every_changed_byte_fails(void **state)
{
    struct hmac *h = hmac_new((const uint8_t *)"k", 1);
    cleanup(freep) char *t = token_sign(h, CLAIMS, strlen(CLAIMS));
    json_object *claims = NULL;
    size_t len = strlen(t);

    (void)state;
    for (size_t i = 0; i < len; i++) {
        t[i] ^= 1;
        assert_int_equal(token_verify(h, t, len, &claims), ERR_AUTH);
        t[i] ^= 1;
        assert_int_equal(token_verify(h, t, i, &claims), ERR_AUTH);
    }
    hmac_free(h);
}

static void malformed_tokens(void **state)
{
    static const char *const bad[] = { "", ".", "a", "a.b", "....", "e30=.AAAA" };
    struct hmac *h = hmac_new((const uint8_t *)"k", 1);
    json_object *claims = NULL;
    char kind[16] = "x";

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        assert_int_equal(token_verify(h, bad[i], strlen(bad[i]), &claims), ERR_AUTH);
        token_kind(bad[i], strlen(bad[i]), kind, sizeof(kind));
        assert_string_equal(kind, "");
    }
    assert_int_equal(token_verify(h, NULL, 0, &claims), ERR_AUTH);
    /* well signed, but no JSON object inside */
    static const char *const inside[] = { "[]", "x", "1", "{\"a\":1,\"a\":2}", "{}{}" };

    for (size_t i = 0; i < N_ELEMS(inside); i++) {
        cleanup(freep) char *t = token_sign(h, inside[i], strlen(inside[i]));

        assert_int_equal(token_verify(h, t, strlen(t), &claims), ERR_AUTH);
    }
    hmac_free(h);
}

static void a_token_over_the_ceiling_fails(void **state)
{
    struct hmac *h = hmac_new((const uint8_t *)"k", 1);
    size_t len = TOKEN_MAX;
    cleanup(freep) char *claims = xmalloc(len), *t = NULL;
    json_object *o = NULL;

    (void)state;
    memset(claims, ' ', len);
    claims[0] = '{';
    claims[len - 1] = '}';
    t = token_sign(h, claims, len);
    assert_int_equal(token_verify(h, t, strlen(t), &o), ERR_AUTH);
    hmac_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hmac_vectors),
        cmocka_unit_test(hkdf_vectors),
        cmocka_unit_test(sub_keys_are_hkdf),
        cmocka_unit_test(sha256_known),
        cmocka_unit_test(sign_and_verify),
        cmocka_unit_test(another_key_fails),
        cmocka_unit_test(every_changed_byte_fails),
        cmocka_unit_test(malformed_tokens),
        cmocka_unit_test(a_token_over_the_ceiling_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
