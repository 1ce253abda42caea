/* API keys carry 190 random bits, so one HMAC is enough: there is nothing to guess slowly. */
#include "authsvc/apikey.h"

#include "common/base/b64.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"

#define PREFIX   "hmac-sha256:"
#define SALT_B64 B64URL_LEN(16)
#define MAC_B64  B64URL_LEN(32)

static const char legacy_key[] = "config-init-secret";

bool key_hash_parse(const char *text, struct key_hash *ret)
{
    *ret = (struct key_hash){ 0 };
    if (!str_starts(text, PREFIX))
        return false;
    text += strlen(PREFIX);
    size_t n = strlen(text);
    if (str_starts(text, "$s1$")) {
        ret->form = KEY_S1;
        return n == 4 + SALT_B64 + 1 + MAC_B64 && text[4 + SALT_B64] == '$' &&
               b64url_decode(text + 4, SALT_B64, ret->salt, 16) == 16 &&
               b64url_decode(text + 5 + SALT_B64, MAC_B64, ret->mac, 32) == 32;
    }
    if (str_starts(text, "$k1$")) {
        ret->form = KEY_K1;
        return n == 4 + MAC_B64 && b64url_decode(text + 4, MAC_B64, ret->mac, 32) == 32;
    }
    ret->form = KEY_LEGACY;
    return n == 64 && hex_decode(text, 64, ret->mac);
}

static void mac_of(const struct key_hash *h, const char *key, const uint8_t *cred, uint8_t out[32])
{
    struct hmac *m;

    if (h->form == KEY_S1)
        m = hmac_new(h->salt, sizeof(h->salt));
    else if (h->form == KEY_K1)
        m = hmac_new(cred, 32);
    else
        m = hmac_new((const uint8_t *)legacy_key, sizeof(legacy_key) - 1);
    hmac_sum(m, key, strlen(key), out);
    hmac_free(m);
}

bool key_hash_match(const struct key_hash *h, const char *key, const uint8_t *cred)
{
    uint8_t mac[32];

    if (h->form == KEY_K1 && !cred)
        return false;
    mac_of(h, key, cred, mac);
    return ct_equal(mac, h->mac, sizeof(mac));
}

char *key_hash_new(enum key_form form, const char *key, const uint8_t *cred)
{
    struct key_hash h = { .form = form };
    char salt[SALT_B64 + 1], mac[MAC_B64 + 1];

    rnd_bytes(h.salt, sizeof(h.salt));
    mac_of(&h, key, cred, h.mac);
    b64url_encode(h.salt, sizeof(h.salt), salt);
    b64url_encode(h.mac, sizeof(h.mac), mac);
    return form == KEY_S1 ? xasprintf(PREFIX "$s1$%s$%s", salt, mac)
                          : xasprintf(PREFIX "$k1$%s", mac);
}
