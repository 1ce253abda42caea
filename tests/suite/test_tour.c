/*
 * Runs docs/tour.md: each line that begins with "$ " in a console block is typed into one bash, and
 * what the page shows below it must be what comes out; "…" stands for anything. The page names the
 * default port, so the shell gets a network namespace of its own (loopback only) and a home of its
 * own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "tests/rig/rig.h"

#define MARK       "--end-of-command--"
#define COMMAND_MS 90000

struct shell {
    pid_t pid;
    int in, out;
};

static bool loopback_up(void)
{
    struct ifreq r = { .ifr_flags = IFF_UP | IFF_RUNNING };
    memcpy(r.ifr_name, "lo", 3);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    closep(&fd);
    return ok;
}

static bool own_network(void)
{
    char map[64];
    uid_t uid = getuid();
    if (uid == 0)
        return unshare(CLONE_NEWNET) == 0 && loopback_up();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    snprintf(map, sizeof map, "%u %u 1", (unsigned)uid, (unsigned)uid);
    int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, map, strlen(map)) > 0;
    closep(&fd);
    return ok && loopback_up();
}

static void shell_start(struct shell *s, const char *home, const char *run, const char *bin)
{
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!own_network())
            _exit(126);
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        char path[1024], home_env[400], run_env[400];
        snprintf(path, sizeof path, "PATH=%s:/usr/bin:/bin", bin);
        snprintf(home_env, sizeof home_env, "HOME=%s", home);
        snprintf(run_env, sizeof run_env, "AVIX_RUN_DIR=%s", run);
        char asan[256] = "X=1";
        if (getenv("ASAN_OPTIONS"))
            snprintf(asan, sizeof asan, "ASAN_OPTIONS=%s", getenv("ASAN_OPTIONS"));
        char *env[] = { path, home_env, run_env, (char[]){ "LANG=C.UTF-8" }, asan, NULL },
             *argv[] = { (char[]){ "bash" }, (char[]){ "--norc" }, NULL };
        if (chdir(home) == 0)
            execve("/bin/bash", argv, env);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    s->in = in[1];
    s->out = out[0];
}

/* Types a command; its output without the mark, yours. *status: what it returned. */
static char *type(struct shell *s, const char *cmd, int *status)
{
    struct buf b = BUF_INIT(16 << 20), line = BUF_INIT(65536);
    buf_printf(&line, "%s\nprintf '\\n" MARK "%%d\\n' $?\n", cmd);
    assert_int_equal(write_all(s->in, line.data, line.len), 0);
    buf_done(&line);
    int64_t end = mono_ms() + COMMAND_MS;
    for (;;) {
        char *mark = b.len ? strstr(b.data, "\n" MARK) : NULL;
        char *nl = mark ? strchr(mark + 1, '\n') : NULL;
        if (nl) {
            *status = (int)strtol(mark + 1 + strlen(MARK), NULL, 10);
            *mark = 0;
            return buf_take(&b);
        }
        struct pollfd p = { .fd = s->out, .events = POLLIN };
        char chunk[8192];
        int64_t left = end - mono_ms();
        ssize_t n =
            left > 0 && poll(&p, 1, (int)left) == 1 ? read(s->out, chunk, sizeof chunk) : -1;
        if (n <= 0) {
            fprintf(stderr, "tour: no end of '%s'; so far:\n%s\n", cmd, b.len ? b.data : "");
            fail();
        }
        buf_add(&b, chunk, (size_t)n);
    }
}

/* Matches text against a pattern in which "…" is any run of characters. */
static bool matches(const char *pat, const char *text)
{
    static const char any[] = "…";
    const char *p = strstr(pat, any);
    if (!p)
        return strcmp(pat, text) == 0;
    if (strncmp(pat, text, (size_t)(p - pat)) != 0)
        return false;
    text += p - pat;
    for (pat = p + strlen(any);; text++) {
        if (matches(pat, text))
            return true;
        if (!*text)
            return false;
    }
}

static void trim(char *s)
{
    size_t n = strlen(s);
    while (n && (s[n - 1] == '\n' || s[n - 1] == ' '))
        s[--n] = 0;
}

static void one_command(struct shell *s, const char *cmd, struct buf *want)
{
    int status = -1;
    char *got = type(s, cmd, &status), *expected = buf_take(want);
    trim(got);
    trim(expected);
    fprintf(stderr, "$ %s\n%s\n", cmd, got);
    if (!matches(expected, got)) {
        fprintf(stderr, "tour: '%s' printed (status %d)\n%s\n--- but the page shows\n%s\n", cmd,
                status, got, expected);
        free(got);
        free(expected);
        fail();
    }
    free(got);
    free(expected);
}

static void the_page_runs(void **state)
{
    (void)state;
    char home[] = "/tmp/avix-tour.XXXXXX", run[300], *bin = xstrdup(rig_bin("avix"));
    assert_non_null(mkdtemp(home));
    snprintf(run, sizeof run, "%s/run", home);
    *strrchr(bin, '/') = 0;
    size_t len = 0;
    char *page = rig_data("../../docs/tour.md", &len), *save = NULL;
    struct shell s;
    struct buf want = BUF_INIT(1 << 20), cmd = BUF_INIT(65536);
    bool block = false;
    int commands = 0;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    shell_start(&s, home, run, bin);
    /* strtok_r would drop empty lines, which matter to nobody here but the trim at the end of each
     * output */
    for (char *line = strtok_r(page, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        bool fence = str_starts(line, "```");
        if (block && (fence || str_starts(line, "$ ")) && cmd.len) {
            one_command(&s, cmd.data, &want);
            buf_clear(&cmd);
            commands++;
        }
        if (fence) {
            block = strcmp(line, "```console") == 0;
            continue;
        }
        if (block && str_starts(line, "$ ")) {
            buf_adds(&cmd, line + 2);
        } else if (block && str_starts(line, "> ") && cmd.len && !want.len) {
            buf_addc(&cmd, '\n');
            buf_adds(&cmd, line + 2);
        } else if (block) {
            buf_printf(&want, "%s\n", line);
        }
    }
    assert_true(commands > 10);
    close(s.in);
    int status = 0;
    waitpid(s.pid, &status, 0);
    close(s.out);
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR)
        ;
    buf_done(&cmd);
    buf_done(&want);
    free(page);
    free(bin);
    rm_rf(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_page_runs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
