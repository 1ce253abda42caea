#pragma once
/* Tokens: base64url(claims) "." base64url(HMAC-SHA256(key, the first part)) (ipc page, section 4).
 */
#include "common/base/json.h"

#define TOKEN_MAX 65536

/* A reusable HMAC-SHA256 under one key. */
struct hmac;
struct hmac *hmac_new(const uint8_t *key, size_t len);
void hmac_free(struct hmac *h);
void hmac_sum(struct hmac *h, const void *data, size_t len, uint8_t out[32]);

/* Signs claims text; yours to free(). */
char *token_sign(struct hmac *h, const char *claims, size_t len);
/* Checks form and signature and gives the claims (json_put). 0, or ERR_AUTH. Expiry is the caller's
 * to check. */
int token_verify(struct hmac *h, const char *token, size_t len, json_object **ret_claims);
/* The "kind" claim is read without verification to choose the key; "" if malformed. */
void token_kind(const char *token, size_t len, char *out, size_t size);
/* HKDF-SHA256 with salt "avix/v1". */
void key_derive(const uint8_t *master, size_t len, const char *info, uint8_t out[32]);
void sha256(const void *data, size_t len, uint8_t out[32]);
