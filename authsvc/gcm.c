/* One context per use: secrets are few. */
#include "authsvc/gcm.h"

#include <openssl/evp.h>

bool gcm_crypt(bool seal, const uint8_t key[32], const uint8_t *nonce, const void *aad,
               size_t aad_len, const void *in, size_t len, uint8_t *out, uint8_t *tag)
{
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    int n = 0, r = x && EVP_CipherInit_ex(x, EVP_aes_256_gcm(), NULL, key, nonce, seal);

    if (aad_len)
        r = r && EVP_CipherUpdate(x, NULL, &n, aad, (int)aad_len);
    if (len)
        r = r && EVP_CipherUpdate(x, out, &n, in, (int)len);
    if (!seal)
        r = r && EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_SET_TAG, GCM_TAG_LEN, tag);
    uint8_t rest[GCM_TAG_LEN];
    r = r && EVP_CipherFinal_ex(x, rest, &n) > 0;
    if (seal)
        r = r && EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, GCM_TAG_LEN, tag);
    EVP_CIPHER_CTX_free(x);
    return r;
}
