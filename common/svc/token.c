/*
 * Tokens by OpenSSL's EVP_MAC. The context is set up with the key once and used again for every
 * sum (EVP_MAC_init without a key resets it), which takes half the time of a one-shot HMAC.
 *
 * Only this file of common/ uses libcrypto: a program that refers to none of these functions does
 * not load it.
 */
#include "common/svc/token.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/log.h"

struct hmac {
    EVP_MAC *mac;
    EVP_MAC_CTX *ctx;
};

static _Noreturn void crypto_broken(const char *what)
{
    die(70, "libcrypto: %s failed", what);
}

struct hmac *hmac_new(const uint8_t *key, size_t len)
{
    struct hmac *h = xcalloc(1, sizeof(*h));
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    h->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    h->ctx = h->mac ? EVP_MAC_CTX_new(h->mac) : NULL;
    if (!h->ctx || !EVP_MAC_init(h->ctx, key, len, params))
        crypto_broken("HMAC");
    return h;
}

void hmac_free(struct hmac *h)
{
    if (!h)
        return;
    EVP_MAC_CTX_free(h->ctx);
    EVP_MAC_free(h->mac);
    free(h);
}

void hmac_sum(struct hmac *h, const void *data, size_t len, uint8_t out[32])
{
    size_t n = 0;

    if (!EVP_MAC_init(h->ctx, NULL, 0, NULL) || !EVP_MAC_update(h->ctx, data, len) ||
        !EVP_MAC_final(h->ctx, out, &n, 32) || n != 32)
        crypto_broken("HMAC");
}

char *token_sign(struct hmac *h, const char *claims, size_t len)
{
    size_t body = B64URL_LEN(len);
    char *out = xmalloc(body + 1 + B64URL_LEN(32) + 1);
    uint8_t sum[32];
    size_t n = b64url_encode(claims, len, out);

    hmac_sum(h, out, n, sum);
    out[n] = '.';
    b64url_encode(sum, sizeof(sum), out + n + 1);
    return out;
}

/* Splits at the one dot; false if the form is wrong. */
static bool token_split(const char *token, size_t len, size_t *ret_body)
{
    if (!token || len < 2 + B64URL_LEN(32) || len > TOKEN_MAX)
        return false;
    size_t body = len - B64URL_LEN(32) - 1;

    *ret_body = body;
    return token[body] == '.' && !memchr(token, '.', body);
}

static json_object *claims_parse(const char *token, size_t body)
{
    char *text = xmalloc(body);
    ssize_t n = b64url_decode(token, body, text, body);
    json_object *claims = NULL;

    if (n < 0 || json_parse(text, (size_t)n, &claims) ||
        !json_object_is_type(claims, json_type_object)) {
        json_put(claims);
        claims = NULL;
    }
    free(text);
    return claims;
}

int token_verify(struct hmac *h, const char *token, size_t len, json_object **ret_claims)
{
    size_t body;
    uint8_t want[32], got[32];

    if (!token_split(token, len, &body) ||
        b64url_decode(token + body + 1, B64URL_LEN(32), got, sizeof(got)) != 32)
        return ERR_AUTH;
    hmac_sum(h, token, body, want);
    if (!ct_equal(want, got, sizeof(want)))
        return ERR_AUTH;
    json_object *claims = claims_parse(token, body);

    if (!claims)
        return ERR_AUTH;
    *ret_claims = claims;
    return 0;
}

void token_kind(const char *token, size_t len, char *out, size_t size)
{
    size_t body;

    out[0] = '\0';
    if (!token_split(token, len, &body))
        return;
    json_object *claims = claims_parse(token, body);

    if (!str_copy(out, size, json_str(claims, "kind", "")))
        out[0] = '\0';
    json_put(claims);
}

void key_derive(const uint8_t *master, size_t len, const char *info, uint8_t out[32])
{
    char digest[] = "SHA256", salt[] = "avix/v1";
    char *info_copy = xstrdup(info);
    uint8_t *key = xmalloc(len ? len : 1);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;

    memcpy(key, master, len);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, strlen(salt)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info_copy, strlen(info_copy)),
        OSSL_PARAM_construct_end(),
    };

    if (!ctx || EVP_KDF_derive(ctx, out, 32, params) <= 0)
        crypto_broken("HKDF");
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    explicit_bzero(key, len);
    free(key);
    free(info_copy);
}

void sha256(const void *data, size_t len, uint8_t out[32])
{
    unsigned n = 0;

    if (!EVP_Digest(data, len, out, &n, EVP_sha256(), NULL) || n != 32)
        crypto_broken("SHA-256");
}
