#pragma once
/*
 * Hashes of API keys as they stand in auth.conf, behind "hmac-sha256:". Three forms:
 *   $s1$<salt>$<mac>  HMAC under a random salt of 16 bytes; what config init writes
 *   $k1$<mac>         HMAC under the sub-key `cred`: useless to who has the file alone
 *   64 hex digits     the older form, HMAC under a constant
 * Salt and mac are base64url.
 */
#include "common/base/util.h"

enum key_form { KEY_S1, KEY_K1, KEY_LEGACY };
struct key_hash {
    enum key_form form;
    uint8_t salt[16], mac[32];
};

/* The whole text with its "hmac-sha256:"; false if malformed. */
bool key_hash_parse(const char *text, struct key_hash *ret);
/* Constant time. cred: the sub-key, 32 bytes, or NULL (then no k1 hash matches). */
bool key_hash_match(const struct key_hash *h, const char *key, const uint8_t *cred);
/* A fresh hash of a key, s1 or k1 (needs cred); text is yours to free(). */
char *key_hash_new(enum key_form form, const char *key, const uint8_t *cred);
