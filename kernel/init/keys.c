/*
 * The master key is read once, turned into sub-keys, and wiped together with the environment
 * variable it came from. Sub-keys live in one locked page that no fork inherits; a child gets its
 * own on a memfd.
 */
#include <argon2.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"
#include "kernel/init/init.h"

#define MASTER_MAX   1024
#define SALT_LEN     16
#define KDF_LANES    4
#define SECRET_FILE  "/run/secrets/avix_master_key"
#define HANDOVER_ENV "AVIX_INIT_KEYS_FD"

static struct keyring {
    uint8_t key[KEY_COUNT][KEY_LEN];
    bool have;
} * ring;
static struct hmac *svc_hmac;

/* Text of a key as an operator gives it: yours to wipe and free. */
struct text {
    char s[MASTER_MAX + 2];
    size_t len;
};

static _Noreturn void no_key(const char *fmt, ...) printf_like(1, 2);
static _Noreturn void no_key(const char *fmt, ...)
{
    char why[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    boot_fail(EXIT_NO_KEY, "no master key: %s", why);
}

static void ring_new(void)
{
    void *p = mmap(NULL, sizeof(*ring), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        no_key("no memory");
    if (mlock(p, sizeof(*ring)))
        log_warn("the sub-keys are not in locked memory: %s", strerror(errno));
    (void)madvise(p, sizeof(*ring), MADV_DONTDUMP);
    (void)madvise(p, sizeof(*ring), MADV_WIPEONFORK);
    ring = p;
}

static void text_read_fd(struct text *t, int fd, const char *from)
{
    ssize_t n;

    while (t->len < sizeof(t->s) - 1 &&
           (n = read(fd, t->s + t->len, sizeof(t->s) - 1 - t->len)) > 0)
        t->len += (size_t)n;
    if (t->len > MASTER_MAX)
        no_key("%s holds more than %d bytes", from, MASTER_MAX);
    while (t->len && (t->s[t->len - 1] == '\n' || t->s[t->len - 1] == '\r'))
        t->len--;
    t->s[t->len] = '\0';
}

static void text_read_file(struct text *t, const char *path, bool strict)
{
    struct stat st;
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        no_key("%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        no_key("%s is no regular file", path);
    if (strict && st.st_uid != geteuid() && st.st_uid != 0)
        no_key("%s belongs to another user", path);
    if (strict && (st.st_mode & 077))
        no_key("%s has mode %04o, must be 0600", path, (unsigned)st.st_mode & 07777);
    text_read_fd(t, fd, path);
}

/* Overwrites the value where it stands, so /proc/<pid>/environ shows nothing either. */
static void env_wipe(const char *name)
{
    char *v = getenv(name);

    if (v)
        explicit_bzero(v, strlen(v));
    unsetenv(name);
}

static void text_from_env(struct text *t)
{
    const char *name = init.config->master_env, *v = getenv(name);
    const char *file = getenv("AVIX_MASTER_KEY_FILE");

    if (!str_empty(v)) {
        if (strlen(v) > MASTER_MAX)
            no_key("%s holds more than %d bytes", name, MASTER_MAX);
        t->len = strlen(v);
        memcpy(t->s, v, t->len + 1);
    } else if (!str_empty(file)) {
        text_read_file(t, file, true);
    } else {
        no_key("set %s (64 hex digits), or AVIX_MASTER_KEY_FILE to a file of mode 0600", name);
    }
}

static void text_from_terminal(struct text *t)
{
    struct termios old, quiet;
    cleanup(closep) int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);

    if (tty < 0 || tcgetattr(tty, &old))
        no_key("no terminal to ask for the passphrase, and AVIX_PASSPHRASE_FD is not set");
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    dprintf(tty, "Avix passphrase: ");
    (void)tcsetattr(tty, TCSAFLUSH, &quiet);
    ssize_t n = read(tty, t->s, MASTER_MAX);

    (void)tcsetattr(tty, TCSAFLUSH, &old);
    dprintf(tty, "\n");
    t->len = n > 0 ? (size_t)n : 0;
    while (t->len && t->s[t->len - 1] == '\n')
        t->len--;
}

static void text_from_passphrase(struct text *t)
{
    const char *env = getenv("AVIX_PASSPHRASE_FD");
    int64_t fd;

    if (!env) {
        text_from_terminal(t);
        return;
    }
    if (!parse_i64(env, 0, 1 << 20, &fd))
        no_key("AVIX_PASSPHRASE_FD is no descriptor number");
    text_read_fd(t, (int)fd, "AVIX_PASSPHRASE_FD");
    close((int)fd);
    unsetenv("AVIX_PASSPHRASE_FD");
}

static void salt_read(uint8_t salt[SALT_LEN])
{
    char path[512];
    cleanup(freep) char *have = NULL;
    size_t len;

    (void)path_fmt(path, sizeof(path), "%s/etc/kdf.salt", init.root);
    int r = file_read(path, SALT_LEN, &have, &len);

    if (r == 0 && len == SALT_LEN) {
        memcpy(salt, have, SALT_LEN);
        return;
    }
    if (r != -ENOENT)
        no_key("%s: %s", path, r < 0 ? strerror(-r) : "is damaged");
    rnd_bytes(salt, SALT_LEN);
    r = file_write_atomic(path, salt, SALT_LEN, 0600);
    if (r)
        no_key("%s: %s", path, strerror(-r));
}

static void stretch(const struct text *t, uint8_t out[KEY_LEN])
{
    uint8_t salt[SALT_LEN];
    uint32_t mib = (uint32_t)json_int(init.config->master, "kdfMemoryMb", 64);
    uint32_t rounds = (uint32_t)json_int(init.config->master, "kdfIterations", 3);

    if (t->len < 32 && !str_eq(init.config->master_source, "passphrase"))
        no_key("shorter than 32 bytes; use 64 hex digits (openssl rand -hex 32)");
    if (t->len == 0)
        no_key("the passphrase is empty");
    salt_read(salt);
    int r = argon2id_hash_raw(rounds, mib * 1024, KDF_LANES, t->s, t->len, salt, sizeof(salt), out,
                              KEY_LEN);

    if (r != ARGON2_OK)
        no_key("argon2id: %s", argon2_error_message(r));
}

/* 64 hex digits, base64 of 32 bytes or more, or a passphrase. Length of the key in out. */
static size_t master_bytes(const struct text *t, uint8_t out[MASTER_MAX])
{
    size_t len = 0;

    if (t->len == 64 && hex_decode(t->s, t->len, out))
        return 32;
    void *raw = str_eq(init.config->master_source, "passphrase")
                    ? NULL
                    : b64_decode_new(t->s, t->len, &len);

    if (raw && len >= 32 && len <= MASTER_MAX)
        memcpy(out, raw, len);
    else
        len = 0;
    if (raw)
        explicit_bzero(raw, len);
    free(raw);
    if (len)
        return len;
    stretch(t, out);
    return KEY_LEN;
}

static void derive_all(const uint8_t *master, size_t len)
{
    for (int k = 0; k < KEY_COUNT; k++)
        key_derive(master, len, key_names[k], ring->key[k]);
}

static void text_by_source(struct text *t)
{
    const char *source = init.config->master_source, *file = init.config->master_file;

    if (str_eq(source, "env")) {
        text_from_env(t);
    } else if (str_eq(source, "key-file")) {
        if (!*file)
            no_key("secrets.masterKey.keyFile is not set in %s/etc/kernel.yaml", init.root);
        text_read_file(t, file, true);
    } else if (str_eq(source, "secret-file")) {
        text_read_file(t, access(SECRET_FILE, R_OK) == 0 || !*file ? SECRET_FILE : file, false);
    } else if (str_eq(source, "passphrase")) {
        text_from_passphrase(t);
    } else {
        no_key("source %s is not part of this build", source);
    }
}

/* After our own re-exec the sub-keys come on a memfd; the master key is long gone. */
static bool keys_inherited(void)
{
    const char *env = getenv(HANDOVER_ENV);
    int64_t fd;

    if (!env || !parse_i64(env, 3, 1 << 20, &fd))
        return false;
    bool ok = pread((int)fd, ring->key, sizeof(ring->key), 0) == (ssize_t)sizeof(ring->key);

    close((int)fd);
    unsetenv(HANDOVER_ENV);
    return ok;
}

void keys_load(void)
{
    struct text t = { .len = 0 };
    uint8_t master[MASTER_MAX];

    ring_new();
    (void)mlock(&t, sizeof(t));
    (void)mlock(master, sizeof(master));
    if (!keys_inherited()) {
        text_by_source(&t);
        derive_all(master, master_bytes(&t, master));
    }
    env_wipe(init.config->master_env);
    env_wipe("AVIX_MASTER_KEY");
    explicit_bzero(&t, sizeof(t));
    explicit_bzero(master, sizeof(master));
    (void)munlock(&t, sizeof(t));
    (void)munlock(master, sizeof(master));
    ring->have = true;
    svc_hmac = hmac_new(ring->key[KEY_SVC], KEY_LEN);
}

int keys_memfd(const struct unit_row *row)
{
    struct key_record rec[KEY_COUNT];
    char word[sizeof(rec[0].name)];
    const char *pos = row->keys;
    size_t n = 0;

    memset(rec, 0, sizeof(rec));
    while (word_next(&pos, word, sizeof(word)) && n < KEY_COUNT) {
        for (int k = 0; k < KEY_COUNT; k++) {
            if (str_eq(word, key_names[k])) {
                memcpy(rec[n].name, word, sizeof(rec[n].name));
                memcpy(rec[n++].key, ring->key[k], KEY_LEN);
            }
        }
    }
    int fd = n ? memfd_sealed("keys", rec, n * sizeof(rec[0])) : -1;

    explicit_bzero(rec, sizeof(rec));
    return fd;
}

static json_object *words(const char *list)
{
    json_object *a = json_new_arr();
    char word[128];

    while (word_next(&list, word, sizeof(word)))
        json_push_str(a, word);
    return a;
}

char *token_mint(const struct unit_row *row, pid_t pid, uint64_t start)
{
    char id[UUID_LEN], at[RFC3339_LEN];
    cleanup(json_putp) json_object *claims = json_make(
        "kind:s tokenId:s unit:s version:s hostPid:i hostStart:i ns:o grants:o issuedAt:s",
        "ServiceToken", uuid4(id), row->name, AVIX_VERSION, (int64_t)pid, (int64_t)start,
        words(row->ns), words(row->grants), rfc3339(now_ms(), at));

    if (init.opts
            .one_shot) /* there is no login in such a run: calls for its user carry no ATP token */
        json_add_bool(claims, "oneShot", true);
    const char *text = json_text(claims);

    return token_sign(svc_hmac, text, strlen(text));
}

bool token_of(const char *token, const char *unit, pid_t pid)
{
    cleanup(json_putp) json_object *claims = NULL;

    return token && token_verify(svc_hmac, token, strlen(token), &claims) == 0 &&
           str_eq(json_str(claims, "unit", ""), unit) && json_int(claims, "hostPid", 0) == pid;
}

int keys_handover(void)
{
    return memfd_sealed("keys", ring->key, sizeof(ring->key));
}

void keys_wipe(void)
{
    hmac_free(svc_hmac);
    svc_hmac = NULL;
    if (ring)
        explicit_bzero(ring, sizeof(*ring));
}
