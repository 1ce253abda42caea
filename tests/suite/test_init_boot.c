/* What ends a boot, with the exact exit status and the words that tell a user what to do. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "common/svc/unit.h"
#include "tests/rig/rig.h"

static struct rig *fresh(void)
{
    return rig_new(&(struct rig_opts){ .no_start = true });
}

/* The daemon refuses with this status and a first line that holds `words` (%s: the root). */
static void refused(struct rig *g, int status, const char *words)
{
    char line[1024] = "", want[1024];

    /* words come from this file; the one conversion is the root */
    const char *at = strstr(words, "%s");

    if (at)
        snprintf(want, sizeof(want), "%.*s%s%s", (int)(at - words), words, g->root, at + 2);
    else
        snprintf(want, sizeof(want), "%s", words);
    int r = rig_boot(g, NULL, line, sizeof(line));

    if (!strstr(line, want) || r != status)
        print_error("exit %d, said: %s\n", r, line);
    assert_int_equal(r, status);
    assert_non_null(strstr(line, want));
    assert_true(str_starts(line, "AVIX_BOOT_ERROR: "));
}

static void remove_file(struct rig *g, const char *rel)
{
    char path[512];

    (void)path_fmt(path, sizeof(path), "%s/%s", g->root, rel);
    assert_int_equal(unlink(path), 0);
}

static void without_auth_conf(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char line[1024], want[1024];

    (void)state;
    remove_file(g, "etc/auth.conf");
    assert_int_equal(rig_boot(g, NULL, line, sizeof(line)), 78);
    snprintf(want, sizeof(want),
             "AVIX_BOOT_ERROR: %s/etc/auth.conf not found; run: avix server config init --root %s",
             g->root, g->root);
    assert_string_equal(line, want);
}

static void without_a_root(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    assert_int_equal(rm_rf(g->root), 0);
    refused(g, 78, "%s/etc/auth.conf not found; run: avix server config init --root ");
}

static void without_kernel_yaml(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    remove_file(g, "etc/kernel.yaml");
    refused(g, 78, "%s/etc/kernel.yaml not found");
}

static void an_unknown_key_names_file_line_and_key(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    rig_write(g, "etc/kernel.yaml",
              "apiVersion: avix/v1\nkind: KernelConfig\nspec:\n  agents:\n    memory: 5\n");
    refused(g, 78, "%s/etc/kernel.yaml:5: spec.agents.memory: unknown key");
}

static void files_that_are_no_yaml(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    rig_write(g, "etc/auth.conf", "a: [1,\nb\n");
    refused(g, 78, "%s/etc/auth.conf:");
}

#define KEY_FILE                                                                               \
    "apiVersion: avix/v1\nkind: KernelConfig\nspec: {secrets: {masterKey: {source: key-file, " \
    "keyFile: %s/master}}}\n"

static void without_a_master_key(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    cleanup(freep) char *yaml = xasprintf(KEY_FILE, g->root);
    char path[512];

    (void)state;
    rig_write(g, "etc/kernel.yaml", yaml);
    refused(g, 77, "no master key: %s/master: No such file");
    rig_write(g, "master", RIG_MASTER_KEY);
    (void)path_fmt(path, sizeof(path), "%s/master", g->root);
    assert_int_equal(chmod(path, 0644), 0);
    refused(g, 77, "no master key: %s/master has mode 0644");
    assert_int_equal(chmod(path, 0600), 0);
    rig_write(g, "master", "short");
    refused(g, 77, "no master key: shorter than 32 bytes");
}

static void a_second_daemon_on_one_root(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char path[512];

    (void)state;
    (void)path_fmt(path, sizeof(path), "%s/data/init.lock", g->root);
    cleanup(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(write(fd, "4711\n", 5), 5);
    refused(g, 75, "already running, pid 4711");
}

/* A run dir must be ours alone: no link, no other owner, no mode that lets others in. */
static void run_dirs_that_are_not_ours(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char target[400];

    (void)state;
    snprintf(target, sizeof(target), "%s/elsewhere", g->dir);
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(rmdir(g->run_dir), 0);
    assert_int_equal(symlink(target, g->run_dir), 0);
    refused(g, 78, "is a symbolic link");
    assert_int_equal(unlink(g->run_dir), 0);
    cleanup(closep) int fd = open(g->run_dir, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    (void)fd;
    refused(g, 78, "is no directory");
    assert_int_equal(unlink(g->run_dir), 0);
    assert_int_equal(mkdir(g->run_dir, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(g->run_dir, 12345, (gid_t)-1), 0);
        refused(g, 78, "belongs to another user");
        assert_int_equal(chown(g->run_dir, 0, (gid_t)-1), 0);
    }
}

static void socket_paths_over_107_bytes(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char keep[sizeof(g->run_dir)];

    (void)state;
    memcpy(keep, g->run_dir, sizeof(keep));
    snprintf(g->run_dir, sizeof(g->run_dir), "/tmp/avix-%080d", 7);
    refused(g, 78, "longer than 107 bytes");
    rm_rf(g->run_dir);
    memcpy(g->run_dir, keep, sizeof(keep));
}

static void a_socket_group_that_does_not_exist(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    rig_write(g, "etc/kernel.yaml",
              "apiVersion: avix/v1\nkind: KernelConfig\nspec: {ipc: {socketGroup: nobody-here}}\n");
    refused(g, 78, "%s/etc/kernel.yaml: spec.ipc.socketGroup: no group 'nobody-here'");
}

/* --- a suite whose router is broken in some way --------------------------------------------------
 */

static void put_program(struct rig *g, const char *name, const char *script)
{
    char path[512];

    (void)path_fmt(path, sizeof(path), "%s/bin/%s", g->dir, name);
    assert_int_equal(file_write_rename(path, script, strlen(script), 0700), 0);
}

/* Starts a copy of avix-init in a folder of its own, so that its programs are ours to choose.
 * Exit status; what it said in err. */
static int boot_alone(struct rig *g, char *err, size_t size)
{
    char bin[400], exe[500], err_path[400];
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    int status = -1;

    snprintf(bin, sizeof(bin), "%s/bin", g->dir);
    snprintf(exe, sizeof(exe), "%s/avix-init", bin);
    snprintf(err_path, sizeof(err_path), "%s/err", g->dir);
    (void)mkdir(bin, 0700);
    assert_int_equal(file_read(rig_bin("avix-init"), 64 << 20, &text, &len), 0);
    assert_int_equal(file_write_rename(exe, text, len, 0700), 0);
    pid_t pid = fork();

    if (pid == 0) {
        int fd = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        dup2(fd, 2);
        setenv("AVIX_RUN_DIR", g->run_dir, 1);
        setenv("AVIX_MASTER_KEY", RIG_MASTER_KEY, 1);
        execl(exe, exe, "--root", g->root, "--port", "0", "--admin-addr", "none", NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    freep(&text);
    text = NULL;
    assert_int_equal(file_read(err_path, 1 << 20, &text, &len), 0);
    snprintf(err, size, "%s", text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void a_program_that_is_missing(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char err[2048];

    (void)state;
    assert_int_equal(boot_alone(g, err, sizeof(err)), 1);
    assert_non_null(strstr(err, "AVIX_BOOT_ERROR: unit router ended with exit status 127"));
    assert_non_null(strstr(err, "avix-router: No such file or directory"));
}

static void a_unit_with_bad_configuration(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char err[2048], bin[400];

    (void)state;
    snprintf(bin, sizeof(bin), "%s/bin", g->dir);
    assert_int_equal(mkdir(bin, 0700), 0);
    put_program(g, "avix-router", "#!/bin/sh\necho etc/x.yaml:3: wrong >&2\nexit 78\n");
    assert_int_equal(boot_alone(g, err, sizeof(err)), 78);
    assert_non_null(strstr(err, "AVIX_BOOT_ERROR: unit router ended with exit status 78"));
    assert_non_null(strstr(err, "etc/x.yaml:3: wrong"));
}

static void a_unit_that_never_gets_ready(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char err[2048], bin[400];

    (void)state;
    snprintf(bin, sizeof(bin), "%s/bin", g->dir);
    assert_int_equal(mkdir(bin, 0700), 0);
    put_program(g, "avix-router",
                "#!/bin/sh\nfor i in 1 2 3 4 5 6 7; do echo line $i; done\nexec sleep 100\n");
    assert_int_equal(boot_alone(g, err, sizeof(err)), 1);
    assert_non_null(strstr(err, "AVIX_BOOT_ERROR: unit router not ready after 20 s"));
    assert_null(strstr(err, "line 2"));
    assert_non_null(strstr(err, "line 3")); /* the last five */
    assert_non_null(strstr(err, "line 7"));
    assert_int_equal(rig_count_processes(g), 0);
}

/* Back-off during boot: a router that always crashes is tried until the 20 s are over. */
static void a_unit_that_always_crashes(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    char err[2048], bin[400];
    int n = 0;

    (void)state;
    snprintf(bin, sizeof(bin), "%s/bin", g->dir);
    assert_int_equal(mkdir(bin, 0700), 0);
    put_program(g, "avix-router", "#!/bin/sh\nkill -SEGV $$\n");
    assert_int_equal(boot_alone(g, err, sizeof(err)), 1);
    assert_non_null(strstr(err, "AVIX_BOOT_ERROR: unit router was killed by signal 11"));
    cleanup(freep) char *log = rig_read(g, "logs/init.log");

    for (char *p = log; p && (p = strstr(p, "unit router: killed by signal 11")); p++)
        n++;
    /* at 0, 0, .2, .4, .8, 1.6, 3.2, 6.4 s: what comes next would be too late */
    assert_in_range(n, 6, 8);
}

/* --- ports ---------------------------------------------------------------------------------------
 */

static int listener(int *port)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

static void refused_with(struct rig *g, const char *const *args, int status, const char *words)
{
    char line[1024] = "";
    int r = rig_boot(g, &(struct rig_opts){ .args = args }, line, sizeof(line));

    if (!strstr(line, words))
        print_error("exit %d, said: %s\n", r, line);
    assert_int_equal(r, status);
    assert_non_null(strstr(line, words));
    assert_int_equal(rig_count_processes(g), 0);
}

static void a_port_in_use_is_named(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    int port;
    cleanup(closep) int fd = listener(&port);
    cleanup(freep) char *number = xasprintf("%d", port), *words = xasprintf("port %d in use", port);
    cleanup(freep) char *admin = xasprintf("127.0.0.1:%d", port);

    (void)state;
    (void)fd;
    refused_with(g, (const char *const[]){ "--port", number, NULL }, 1, words);
    refused_with(g, (const char *const[]){ "--admin-addr", admin, NULL }, 1, words);
    refused_with(g, (const char *const[]){ "--admin-addr", "here", NULL }, 78, "no address:port");
    refused_with(g, (const char *const[]){ "--bind", "192.0.2.7", NULL }, 1, "192.0.2.7");
}

static void units_are_shown_with_v(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();

    (void)state;
    assert_int_equal(
        rig_boot(g, &(struct rig_opts){ .args = (const char *const[]){ "-v", NULL } }, NULL, 0), 0);
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    assert_int_equal(file_read(g->err_path, 1 << 20, &text, &len), 0);
    for (int i = 0; i < UNIT_COUNT; i++) {
        cleanup(freep) char *words = xasprintf("avix: %s ", unit_rows[i].name);

        assert_non_null(strstr(text, words));
    }
}

/* A second daemon on the same root is told the pid of the first. */
static void the_lock_names_the_daemon(void **state)
{
    cleanup(rig_stopp) struct rig *g = rig_new(NULL);
    pid_t first = g->init_pid;
    char line[256] = "", want[64];

    (void)state;
    snprintf(want, sizeof(want), "AVIX_BOOT_ERROR: already running, pid %d", (int)first);
    assert_int_equal(rig_boot(g, NULL, line, sizeof(line)), 75);
    assert_string_equal(line, want);
    g->init_pid = first;
}

static int datagram_socket(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(str_copy(sa.sun_path, sizeof(sa.sun_path), path));
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void said(int fd, const char *want)
{
    char text[64] = "";
    ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    assert_true(n > 0);
    assert_string_equal(text, want);
}

/* systemd hears of init alone, once when all is ready and once when it ends. */
static void systemd_is_told(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    cleanup(freep) char *path = xasprintf("%s/sd.sock", g->run_dir);
    cleanup(freep) char *env = xasprintf("NOTIFY_SOCKET=%s", path);
    cleanup(closep) int fd = datagram_socket(path);
    char more[64];

    (void)state;
    assert_int_equal(
        rig_boot(g, &(struct rig_opts){ .env = (const char *const[]){ env, NULL } }, NULL, 0), 0);
    said(fd, "READY=1");
    assert_int_equal(rig_shutdown(g), 0);
    said(fd, "STOPPING=1");
    assert_int_equal(recv(fd, more, sizeof(more), MSG_DONTWAIT), -1);
}

static void a_socket_group_may_connect(void **state)
{
    cleanup(rig_stopp) struct rig *g = fresh();
    const struct group *group = getgrnam("daemon");
    struct stat st;

    (void)state;
    if (geteuid() != 0 || !group)
        skip();
    gid_t gid = group->gr_gid;

    rig_write(g, "etc/kernel.yaml",
              "apiVersion: avix/v1\nkind: KernelConfig\nspec: {ipc: {socketGroup: daemon}, models: "
              "{default: builtin/rules-1}}\n");
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
    for (int i = 0; i < UNIT_COUNT; i++) {
        assert_int_equal(stat(rig_sock(g, unit_rows[i].socket), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0660);
        assert_int_equal(st.st_gid, gid);
    }
    assert_int_equal(stat(rig_sock(g, "init.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600); /* never for the group */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_auth_conf),
        cmocka_unit_test(without_a_root),
        cmocka_unit_test(without_kernel_yaml),
        cmocka_unit_test(an_unknown_key_names_file_line_and_key),
        cmocka_unit_test(files_that_are_no_yaml),
        cmocka_unit_test(without_a_master_key),
        cmocka_unit_test(a_second_daemon_on_one_root),
        cmocka_unit_test(run_dirs_that_are_not_ours),
        cmocka_unit_test(socket_paths_over_107_bytes),
        cmocka_unit_test(a_socket_group_that_does_not_exist),
        cmocka_unit_test(a_program_that_is_missing),
        cmocka_unit_test(a_unit_with_bad_configuration),
        cmocka_unit_test(a_unit_that_never_gets_ready),
        cmocka_unit_test(a_unit_that_always_crashes),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(units_are_shown_with_v),
        cmocka_unit_test(the_lock_names_the_daemon),
        cmocka_unit_test(systemd_is_told),
        cmocka_unit_test(a_socket_group_may_connect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
