/*
 * What an agent's process looks like from outside: sealed, without privileges, small, with no
 * descriptor too many; and what is said when it is not sealed.
 */
#include <dirent.h>

#include "common/base/fsx.h"
#include "tests/suite/agent_run.h"

#if defined(AVIX_SAN) || defined(AVIX_COVERAGE)
#define UNSEALED() skip()
#else
#define UNSEALED() ((void)0)
#endif

static char *proc_file(pid_t pid, const char *name)
{
    char path[64];
    struct buf b = BUF_INIT(1 << 20);
    char chunk[4096];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return NULL;
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_add(&b, chunk, n);
    (void)fclose(f);
    return b.data ? buf_take(&b) : NULL;
}

static void expect_line(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("no \"%s\" in %s", line, text);
}

static long private_kb(pid_t pid)
{
    cleanup(freep) char *text = proc_file(pid, "smaps_rollup");
    static const char *const keys[] = { "Private_Clean:", "Private_Dirty:" };
    long sum = 0;

    for (size_t i = 0; text && i < N_ELEMS(keys); i++) {
        const char *at = strstr(text, keys[i]);
        sum += at ? strtol(at + strlen(keys[i]), NULL, 10) : 0;
    }
    return text ? sum : -1;
}

static int n_descriptors(pid_t pid)
{
    char path[64];
    int n = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    cleanup(dirp_close) DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    return d ? n : -1;
}

static void sealed_and_small(void **state)
{
    UNSEALED();
    struct arun *a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);

    (void)state;
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    struct arun b = *a; /* a second one beside it: what both share is not private */
    arun_spawn(&b, "researcher", "y", false);
    arun_wait_idle(&b);
    pid_t pid = arun_host_pid(a);
    cleanup(freep) char *text = proc_file(pid, "status");
    expect_line(text, "Seccomp:\t2\n");
    expect_line(text, "NoNewPrivs:\t1\n");
    expect_line(text, "CapEff:\t0000000000000000\n");
    expect_line(text, "CapPrm:\t0000000000000000\n");
    expect_line(text, "Threads:\t1\n");
    expect_line(text, "Umask:\t0077\n");
    if (geteuid() == 0) { /* the process is not dumpable: nobody else may look */
        long kb = private_kb(pid);
        print_message("idle agent: %ld kB private, %d descriptors\n", kb, n_descriptors(pid));
        assert_in_range(kb, 1, 300);
        /* 0 1 2, socket, conversation, loop, its two wake-up ends */
        assert_in_range(n_descriptors(pid), 5, 9);
    } else {
        assert_int_equal(n_descriptors(pid), -1);
    }
    arun_free(a);
}

static void open_house(struct rig *g)
{
    cleanup(freep) char *k = rig_read(g, "etc/kernel.yaml");
    struct buf b = BUF_INIT(65536);
    char *at = strstr(k, "spec:\n");

    assert_non_null(at);
    assert_null(strstr(k, "\n  agents:"));
    at += strlen("spec:\n");
    buf_add(&b, k, (size_t)(at - k));
    buf_adds(&b, "  agents: {seccomp: log, jail: 'off'}\n");
    buf_adds(&b, at);
    rig_write(g, "etc/kernel.yaml", b.data);
    buf_done(&b);
}

static void says_what_is_missing(void **state)
{
    char path[64];

    UNSEALED();
    struct arun *a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", open_house);
    (void)state;
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    snprintf(path, sizeof path, "/proc/%lld/status.yaml", (long long)a->pid);
    json_object *r = arun_cmd(a, "fs", "read", json_make("path:s", path));
    const char *text = json_str(json_obj(r, "body"), "content", "");
    expect_line(text, "jail: off");
    expect_line(text, "seccomp: log only");
    json_put(r);
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_and_small),
        cmocka_unit_test(says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
