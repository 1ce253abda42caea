/* The file's place is part of what is authenticated: a file copied to another owner or name does
 * not open. */
#include "authsvc/secrets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

#include "authsvc/conf.h"
#include "authsvc/gcm.h"
#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"

#define NONCE_LEN   GCM_NONCE_LEN
#define TAG_LEN     GCM_TAG_LEN
#define KID_LEN     8
#define SECRETS_MAX 1000
#define LINE_MAX_B  (B64URL_LEN(SECRET_VALUE_MAX + TAG_LEN) + 64)

bool secret_owner_parse(const char *owner, char type[8], char name[64])
{
    bool service = str_starts(owner, "service:");

    if (!service && !str_starts(owner, "user:"))
        return false;
    str_copy(type, 8, service ? "service" : "user");
    return account_name_valid(strchr(owner, ':') + 1) && str_copy(name, 64, strchr(owner, ':') + 1);
}

static void key_id(const uint8_t *key, char out[KID_LEN + 1])
{
    uint8_t text[3 + 32] = { 'k', 'i', 'd' }, sum[32];
    char hex[65];

    memcpy(text + 3, key, 32);
    sha256(text, sizeof(text), sum);
    explicit_bzero(text, sizeof(text));
    hex_encode(sum, sizeof(sum), hex);
    memcpy(out, hex, KID_LEN);
    out[KID_LEN] = '\0';
}

static char *aad_of(const char *owner, const char *name, const char *kid)
{
    return xasprintf("avix-secret-v1|%s|%s|%s", owner, name, kid);
}

char *secret_seal(const uint8_t *key, const char *owner, const char *name, const void *value,
                  size_t len)
{
    uint8_t nonce[NONCE_LEN];
    char kid[KID_LEN + 1], nonce_text[B64URL_LEN(NONCE_LEN) + 1];
    cleanup(freep) uint8_t *body = xmalloc(len + TAG_LEN);
    cleanup(freep) char *text = xmalloc(B64URL_LEN(len + TAG_LEN) + 1);

    key_id(key, kid);
    rnd_bytes(nonce, sizeof(nonce));
    cleanup(freep) char *aad = aad_of(owner, name, kid);
    if (!gcm_crypt(true, key, nonce, aad, strlen(aad), value, len, body, body + len))
        die(70, "libcrypto: AES-256-GCM failed");
    b64url_encode(nonce, sizeof(nonce), nonce_text);
    b64url_encode(body, len + TAG_LEN, text);
    return xasprintf("v1.%s.%s.%s\n", kid, nonce_text, text);
}

int secret_open(const uint8_t *key, const char *owner, const char *name, const char *line,
                char **ret, size_t *ret_len)
{
    size_t n = strcspn(line, "\r\n");
    const char *kid_at = line + 3, *nonce_at = kid_at + KID_LEN + 1;
    const size_t nonce_b64 = B64URL_LEN(NONCE_LEN), head = 3 + KID_LEN + 1 + nonce_b64 + 1;
    char kid[KID_LEN + 1];
    uint8_t nonce[NONCE_LEN];

    if (n < head || n > LINE_MAX_B || strncmp(line, "v1.", 3) != 0 || kid_at[KID_LEN] != '.' ||
        nonce_at[nonce_b64] != '.' ||
        b64url_decode(nonce_at, nonce_b64, nonce, NONCE_LEN) != NONCE_LEN)
        return ERR_PARSE;
    size_t text_len = n - head;
    cleanup(freep) uint8_t *body = xmalloc(text_len + 1);
    ssize_t got = b64url_decode(line + head, text_len, body, text_len);
    if (got < TAG_LEN || got - TAG_LEN > SECRET_VALUE_MAX)
        return ERR_PARSE;
    key_id(key, kid);
    if (strncmp(kid, kid_at, KID_LEN) != 0)
        return ERR_AUTH;
    size_t len = (size_t)got - TAG_LEN;
    cleanup(freep) char *aad = aad_of(owner, name, kid);
    char *out = xmalloc(len + TAG_LEN);
    if (!gcm_crypt(false, key, nonce, aad, strlen(aad), body, len, (uint8_t *)out, body + len)) {
        explicit_bzero(out, len);
        free(out);
        return ERR_AUTH;
    }
    out[len] = '\0';
    *ret = out;
    *ret_len = len;
    return 0;
}

/* Reads one file beneath the owner's directory. 0 and the value, or an error. */
static int read_one(const uint8_t *key, int dir, const char *owner, const char *name, char **ret,
                    size_t *len)
{
    char file[80];
    cleanup(freep) char *line = NULL;
    size_t n = 0;

    snprintf(file, sizeof(file), "%s.enc", name);
    cleanup(closep) int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    char self[32];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    int r = file_read(self, LINE_MAX_B + 2, &line, &n);
    if (r)
        return r;
    r = secret_open(key, owner, name, line, ret, len);
    if (!r && !utf8_valid(*ret, *len)) {
        explicit_bzero(*ret, *len);
        free(TAKE(*ret));
        r = ERR_PARSE;
    }
    return r;
}

json_object *secrets_read(const uint8_t *key, const char *root, const char *owner,
                          json_object *names, json_object *failed)
{
    json_object *out = json_new();
    char type[8], who[64], path[512];

    if (!secret_owner_parse(owner, type, who) ||
        path_fmt(path, sizeof(path), "%s/secrets/%s/%s", root, type, who))
        return out;
    cleanup(dirp_close) DIR *d = opendir(path);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d)) && n < SECRETS_MAX;) {
        char name[64], *value = NULL;
        size_t stem = strlen(e->d_name), len = 0;

        if (!str_ends(e->d_name, ".enc") || stem - 4 >= sizeof(name))
            continue;
        memcpy(name, e->d_name, stem - 4);
        name[stem - 4] = '\0';
        if (!account_name_valid(name) || (names && !json_arr_has(names, name)))
            continue;
        n++;
        if (read_one(key, dirfd(d), owner, name, &value, &len) || !value) {
            json_push_str(failed, name);
            continue;
        }
        json_add(out, name, json_object_new_string_len(value, (int)len));
        explicit_bzero(value, len);
        free(value);
    }
    return out;
}

/* logs/secrets-audit.log: who asked for what, never the value. */
static void audit(const char *caller, const char *owner, json_object *got, json_object *failed)
{
    char ts[RFC3339_LEN], path[300];
    struct buf b = BUF_INIT(1 << 20);

    json_object_object_foreach (got, name, v) {
        (void)v;
        buf_printf(&b, "%s %s %s %s export ok\n", rfc3339(now_ms(), ts), caller, owner, name);
    }
    for (size_t i = 0; i < json_object_array_length(failed); i++)
        buf_printf(&b, "%s %s %s %s export failed\n", rfc3339(now_ms(), ts), caller, owner,
                   json_object_get_string(json_object_array_get_idx(failed, i)));
    cleanup(closep) int fd = -1;
    if (b.len && path_fmt(path, sizeof(path), "%s/logs/secrets-audit.log", svc.root) == 0)
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        (void)write_all(fd, b.data, b.len);
    buf_done(&b);
}

/* json-c keeps values, and the text made of them, as they are. */
static void wipe(json_object *got, const char *text)
{
    json_object_object_foreach (got, name, v) {
        (void)name;
        explicit_bzero((char *)(uintptr_t)json_object_get_string(v),
                       (size_t)json_object_get_string_len(v));
    }
    explicit_bzero((char *)(uintptr_t)text, strlen(text));
}

/* init and kernel: any owner; a unit: its own, under its name or an alias. */
static bool may_export(enum unit_id u, const char *owner)
{
    if (u == UNIT_INIT || u == UNIT_KERNEL)
        return true;
    return u != UNIT_NONE && str_starts(owner, "service:") &&
           unit_by_name(owner + strlen("service:")) == u;
}

void auth_secret_export(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *owner = args_str(&a, "owner", 80);
    json_object *names = args_strs_or(&a, "names", 63);
    enum unit_id from = svc_peer_unit(&c->peer);
    const uint8_t *key = svc_key(KEY_SECRET);
    char type[8], name[64];

    (void)who;
    if (!args_bad(&a) && !secret_owner_parse(owner, type, name))
        args_fail(&a, "owner", "must be service:<name> or user:<name>");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!may_export(from, owner) || !key) {
        call_fail(c, ERR_PERM, "secrets of '%s' are not for this process", owner);
        return;
    }
    cleanup(json_putp) json_object *failed = json_new_arr();
    cleanup(json_putp) json_object *got = secrets_read(key, svc.root, owner, names, failed);
    const char *text = json_text(got);
    int fd = memfd_sealed("secrets", text, strlen(text));
    audit(from == UNIT_INIT ? "init" : unit_rows[from].name, owner, got, failed);
    json_object *found = json_new_arr();
    json_object_object_foreach (got, key_name, v) {
        json_push_str(found, key_name);
        (void)v;
    }
    for (size_t i = 0; i < json_object_array_length(failed); i++)
        log_warn("secret '%s' of %s could not be opened: written under another master key, or "
                 "changed",
                 json_object_get_string(json_object_array_get_idx(failed, i)), owner);
    wipe(got, text);
    if (fd < 0) {
        json_put(found);
        call_fail(c, ERR_INTERNAL, "memfd: %s", strerror(-fd));
        return;
    }
    call_reply_fds(c, json_make("names:o failed:o", found, json_object_get(failed)), &fd, 1);
    close(fd);
}
