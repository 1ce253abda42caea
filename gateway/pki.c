/*
 * TLS material. The self-signed certificate is made once, P-256, for localhost, the host's name and
 * the bind address; its fingerprint is logged so that it can be compared.
 */
#include "gateway/pki.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/svc.h"

#define YEARS_10 (3650L * 86400)

static char cert_path[300], key_path[300];
static bool files;

bool pki_is_files(void)
{
    return files;
}

static bool add_ext(X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = e && X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    return ok;
}

static X509 *make_cert(EVP_PKEY *key, const char *addr)
{
    X509 *x = X509_new();
    char host[128] = "localhost", san[512];
    X509_NAME *n = x ? X509_get_subject_name(x) : NULL;
    uint64_t serial;

    if (!x)
        return NULL;
    (void)gethostname(host, sizeof(host) - 1);
    rnd_bytes(&serial, sizeof(serial));
    snprintf(san, sizeof(san), "DNS:localhost,DNS:%s,IP:127.0.0.1,IP:::1%s%s", host,
             strchr("0:", addr[0]) && (str_eq(addr, "0.0.0.0") || str_eq(addr, "::")) ? "" : ",IP:",
             str_eq(addr, "0.0.0.0") || str_eq(addr, "::") ? "" : addr);
    X509_set_version(x, 2);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), YEARS_10);
    X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)"Avix", -1, -1, 0);
    X509_set_issuer_name(x, n);
    if (!X509_set_pubkey(x, key) || !add_ext(x, NID_subject_alt_name, san) ||
        !add_ext(x, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_ext(x, NID_ext_key_usage, "serverAuth") || !X509_sign(x, key, EVP_sha256())) {
        X509_free(x);
        return NULL;
    }
    return x;
}

static int write_pem(const char *path, X509 *x, EVP_PKEY *key)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *data;
    long n;
    int r = -EIO;

    if (b && (x ? PEM_write_bio_X509(b, x)
                : PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL))) {
        n = BIO_get_mem_data(b, &data);
        r = file_write_atomic(path, data, (size_t)n, x ? 0644 : 0600);
        explicit_bzero(data, (size_t)n);
    }
    BIO_free(b);
    return r;
}

static int make_pair(const char *addr)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = key ? make_cert(key, addr) : NULL;
    int r = x ? write_pem(key_path, NULL, key) : -EIO;

    r = r ? r : write_pem(cert_path, x, NULL);
    X509_free(x);
    EVP_PKEY_free(key);
    return r;
}

static void log_fingerprint(void)
{
    FILE *f = fopen(cert_path, "re");
    X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    unsigned char sum[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned n = 0;

    if (x && X509_digest(x, EVP_sha256(), sum, &n)) {
        hex_encode(sum, n, hex);
        log_info("certificate SHA-256 %s", hex);
    }
    X509_free(x);
    if (f)
        fclose(f);
}

int pki_load(const char *addr)
{
    const struct kernel_config *k = svc.config;
    char dir[300];
    int r;

    files = str_eq(k->tls_mode, "files");
    if (files) {
        str_copy(cert_path, sizeof(cert_path), k->tls_cert);
        str_copy(key_path, sizeof(key_path), k->tls_key);
    } else {
        snprintf(dir, sizeof(dir), "%s/etc/tls", svc.root);
        if (path_fmt(cert_path, sizeof(cert_path), "%s/cert.pem", dir) ||
            path_fmt(key_path, sizeof(key_path), "%s/key.pem", dir))
            return 78;
        if (access(cert_path, R_OK) || access(key_path, R_OK)) {
            r = mkdir_p(dir, 0700);
            r = r ? r : make_pair(addr);
            if (r) {
                log_error("%s: cannot make a certificate: %s", dir, strerror(-r));
                return 78;
            }
        }
        log_fingerprint();
    }
    if (access(cert_path, R_OK) || access(key_path, R_OK)) {
        log_error("spec.gateway.tls: %s or %s cannot be read", cert_path, key_path);
        return 78;
    }
    return 0;
}

void pki_vhost(struct lws_context_creation_info *info)
{
    info->options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT; /* without it a vhost stays plain */
    info->ssl_cert_filepath = cert_path;
    info->ssl_private_key_filepath = key_path;
    info->alpn = "http/1.1"; /* lws sends no bodies of files over h2 */
    info->ssl_options_set = (long)(SSL_OP_NO_SSLv3 | SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1);
    if (!str_eq(svc.config->tls_min, "1.2"))
        info->ssl_options_set |= (long)SSL_OP_NO_TLSv1_2;
}

void pki_reload(struct lws_context *context)
{
    if (!files)
        return;
    if (lws_tls_cert_updated(context, cert_path, key_path, NULL, 0, NULL, 0))
        log_error("spec.gateway.tls: %s cannot be used; the old certificate stays", cert_path);
    else
        log_info("certificate read again");
}
