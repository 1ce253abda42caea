#pragma once
/* AES-256-GCM with a nonce of 12 bytes and a tag of 16. */
#include "common/base/util.h"

#define GCM_NONCE_LEN 12
#define GCM_TAG_LEN   16

/* Seals in into out and tag, or opens it; out holds len bytes. False: the tag does not fit (out is
 * then to be thrown away). */
bool gcm_crypt(bool seal, const uint8_t key[32], const uint8_t *nonce, const void *aad,
               size_t aad_len, const void *in, size_t len, uint8_t *out, uint8_t *tag);
