/* Where the master key comes from, what is refused (77), and what becomes of it. Each case runs in
 * a child, because a refusal ends the boot. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "common/svc/token.h"
#include "kernel/init/init.h"
#include "tests/rig/rig.h"

static char dir[] = "/tmp/init-keys-XXXXXX";
static char master[32];

static const char *path(const char *name)
{
    static char p[4][256];
    static int i;

    i = (i + 1) % 4;
    (void)path_fmt(p[i], sizeof(p[i]), "%s/%s", dir, name);
    return p[i];
}

static void put(const char *name, const char *text, mode_t mode)
{
    assert_int_equal(file_write_rename(path(name), text, strlen(text), mode), 0);
    assert_int_equal(chmod(path(name), mode), 0);
}

/* The svc sub-key that a master key must give, seen through a token. */
static bool token_is_of(const char *key, size_t len)
{
    uint8_t sub[32];
    cleanup(json_putp) json_object *claims = NULL;
    cleanup(freep) char *t = token_mint(&unit_rows[UNIT_MEMFS], 42, 7);

    key_derive((const uint8_t *)key, len, "svc", sub);
    struct hmac *h = hmac_new(sub, sizeof(sub));
    bool ok = token_verify(h, t, strlen(t), &claims) == 0 &&
              str_eq(json_str(claims, "kind", ""), "ServiceToken") &&
              str_eq(json_str(claims, "unit", ""), "memfs") &&
              json_int(claims, "hostPid", 0) == 42 && json_int(claims, "hostStart", 0) == 7 &&
              json_arr_has(json_arr(claims, "ns"), "fs");

    hmac_free(h);
    return ok && token_of(t, "memfs", 42) && !token_of(t, "memfs", 43) &&
           !token_of(t, "kernel", 42) && !token_of("x", "memfs", 42) &&
           !token_of(NULL, "memfs", 42);
}

static bool has_env(const char *needle)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    return file_read("/proc/self/environ", 1 << 20, &text, &len) == 0 &&
           memmem(text, len, needle, strlen(needle)) != NULL;
}

/* In a child: loads with this spec; 0 if the key was `master` and all traces are gone, 1 if not. */
static int load(const char *masterkey_yaml, const char *env_name, const char *env_value)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct yaml_err e;
        cleanup(freep) char *text = xasprintf(
            "apiVersion: avix/v1\nkind: KernelConfig\nspec: {secrets: {masterKey: {%s}}}\n",
            masterkey_yaml);

        unsetenv("AVIX_MASTER_KEY");
        unsetenv("AVIX_MASTER_KEY_FILE");
        if (env_name)
            setenv(env_name, env_value, 1);
        str_copy(init.root, sizeof(init.root), dir);
        if (kernel_config_parse(text, strlen(text), &init.config, &e))
            _exit(99);
        freep(&text); /* a refusal ends the process right here */
        text = NULL;
        keys_load();
        if (getenv("AVIX_MASTER_KEY") ||
            (env_name && str_eq(env_name, "AVIX_MASTER_KEY") && has_env(env_value)))
            _exit(2);
        _exit(token_is_of(master, sizeof(master)) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

#define BASE64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static void from_the_environment(void **state)
{
    (void)state;
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY", RIG_MASTER_KEY), 0);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY", BASE64), 0);
    assert_int_equal(load("source: env, envVar: OTHER", "OTHER", RIG_MASTER_KEY), 0);
    assert_int_equal(load("source: env", NULL, NULL), EXIT_NO_KEY);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY", ""), EXIT_NO_KEY);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY", "too short"), EXIT_NO_KEY);
}

static void from_a_file_named_by_the_environment(void **state)
{
    (void)state;
    put("key", RIG_MASTER_KEY "\n", 0600);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY_FILE", path("key")), 0);
    put("key", RIG_MASTER_KEY, 0640);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY_FILE", path("key")), EXIT_NO_KEY);
}

static int load_file(const char *source, const char *file)
{
    cleanup(freep) char *yaml = xasprintf("source: %s, keyFile: \"%s\"", source, file);

    return load(yaml, NULL, NULL);
}

static void key_files(void **state)
{
    (void)state;
    put("key", RIG_MASTER_KEY "\r\n", 0400);
    assert_int_equal(load_file("key-file", path("key")), 0);
    put("key", RIG_MASTER_KEY, 0604);
    assert_int_equal(load_file("key-file", path("key")), EXIT_NO_KEY);
    assert_int_equal(load_file("secret-file", path("key")), 0); /* mode not checked */
    assert_int_equal(load_file("key-file", path("none")), EXIT_NO_KEY);
    assert_int_equal(load_file("key-file", dir), EXIT_NO_KEY);
    assert_int_equal(load("source: key-file", NULL, NULL), EXIT_NO_KEY);
    if (geteuid() == 0) {
        put("key", RIG_MASTER_KEY, 0600);
        assert_int_equal(chown(path("key"), 12345, (gid_t)-1), 0);
        assert_int_equal(load_file("key-file", path("key")), EXIT_NO_KEY);
    }
}

static void a_fifo_does_not_hang_the_boot(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path("fifo"), 0600), 0);
    assert_int_equal(load_file("key-file", path("fifo")), EXIT_NO_KEY);
}

static void too_long(void **state)
{
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    put("key", text, 0600);
    assert_int_equal(load_file("key-file", path("key")), EXIT_NO_KEY);
    assert_int_equal(load("source: env", "AVIX_MASTER_KEY", text), EXIT_NO_KEY);
}

/* Other text is stretched; the same text and salt give the same key. */
static void passphrases(void **state)
{
    static const char kdf[] = "source: env, kdfMemoryMb: 8, kdfIterations: 1";
    struct stat st;

    (void)state;
    assert_int_equal(
        load(kdf, "AVIX_MASTER_KEY", "correct horse battery staple, and some more words"), 1);
    assert_int_equal(stat(path("etc/kdf.salt"), &st), 0);
    assert_int_equal(st.st_size, 16);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_passphrase_from_a_descriptor(void **state)
{
    int fds[2];
    char number[16];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "short\n", 6), 6);
    close(fds[1]);
    snprintf(number, sizeof(number), "%d", fds[0]);
    assert_int_equal(
        load("source: passphrase, kdfMemoryMb: 8, kdfIterations: 1", "AVIX_PASSPHRASE_FD", number),
        1);
    assert_int_equal(load("source: passphrase", "AVIX_PASSPHRASE_FD", "none"), EXIT_NO_KEY);
    close(fds[0]);
}

static void sources_that_are_not_there(void **state)
{
    (void)state;
    assert_int_equal(load("source: kms-vault", NULL, NULL), EXIT_NO_KEY);
}

static int in_child_memfds(void)
{
    struct key_record rec[KEY_COUNT];
    uint8_t want[32];
    int fd = keys_memfd(&unit_rows[UNIT_ROUTER]);
    ssize_t n = pread(fd, rec, sizeof(rec), 0);

    if (n != 3 * (ssize_t)sizeof(rec[0]) || keys_memfd(&unit_rows[UNIT_MEMFS]) != -1)
        return 1;
    for (int i = 0; i < 3; i++) {
        key_derive((const uint8_t *)master, sizeof(master), rec[i].name, want);
        if (memcmp(rec[i].key, want, 32) != 0)
            return 2;
    }
    if (!str_eq(rec[0].name, "cap") || !str_eq(rec[1].name, "atp") || !str_eq(rec[2].name, "svc"))
        return 3;
    return write(fd, "x", 1) == 1 ? 4 : 0; /* sealed */
}

static void each_unit_gets_its_own_keys(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        struct yaml_err e;
        static const char text[] = "apiVersion: avix/v1\nkind: KernelConfig\nspec: {}\n";

        setenv("AVIX_MASTER_KEY", RIG_MASTER_KEY, 1);
        if (kernel_config_parse(text, strlen(text), &init.config, &e))
            _exit(99);
        keys_load();
        _exit(in_child_memfds());
    }
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++)
        master[i] = (char)i;
    return !mkdtemp(dir) || mkdir_p(path("etc"), 0700);
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_the_environment),
        cmocka_unit_test(from_a_file_named_by_the_environment),
        cmocka_unit_test(key_files),
        cmocka_unit_test(a_fifo_does_not_hang_the_boot),
        cmocka_unit_test(too_long),
        cmocka_unit_test(passphrases),
        cmocka_unit_test(a_passphrase_from_a_descriptor),
        cmocka_unit_test(sources_that_are_not_there),
        cmocka_unit_test(each_unit_gets_its_own_keys),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
