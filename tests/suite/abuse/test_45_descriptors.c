/*
 * Security page, test 45 and section 1: what each process of the suite holds open is what its page
 * lists, all of it closes on exec, and each process is as closed to others as it should be: not
 * dumpable, no core, no new privileges, its filter on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/base/fsx.h"
#include "common/base/globpat.h"
#include "common/ipc/peer.h"
#include "common/svc/unit.h"
#include "tests/suite/agent_run.h"

#include "tests/suite/abuse/inject.h"

static struct arun *a;

static int setup(void **state)
{
    (void)state;
    a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arun_free(a);
    return 0;
}

/* --- descriptors ---------------------------------------------------------------------------------
 */

/* Where descriptor fd of a process leads; false if it has none. */
static bool leads(pid_t pid, int fd, char *to, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t n = readlink(path, to, size - 1);
    to[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool closes_on_exec(pid_t pid, int fd)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)pid, fd);
    if (file_read(path, 65536, &text, &len))
        return true; /* closed meanwhile */
    const char *flags = strstr(text, "flags:");
    return flags && (strtol(flags + 6, NULL, 8) & O_CLOEXEC);
}

/* The row of a socket in a table of /proc/net, "" if it is not there. */
static const char *socket_row(const char *table, const char *link, char *out, size_t size)
{
    char key[40];
    cleanup(freep) char *text = NULL;
    size_t len, n = strlen(link);

    out[0] = '\0';
    if (n < 10 || n > sizeof key || file_read(table, 16 << 20, &text, &len))
        return out;
    snprintf(key, sizeof key, " %.*s ", (int)(n - 9), link + 8);
    char *at = strstr(text, key);
    if (!at)
        return out;
    char *from = at, *to = strchr(at, '\n');
    while (from > text && from[-1] != '\n')
        from--;
    snprintf(out, size, "%.*s", (int)(to ? to - from : 0), from);
    return out;
}

/* The path a listening Unix socket of the host is bound to, NULL if it is no such socket. */
static const char *bound_to(const char *link, char *row, size_t size)
{
    char *slash;

    socket_row("/proc/net/unix", link, row, size);
    if (!strstr(row, " 00010000 "))
        return NULL;
    slash = strchr(row, '/');
    return slash ? slash : "";
}

static bool is_tcp(const char *link)
{
    char row[400];

    return *socket_row("/proc/net/tcp", link, row, sizeof row) ||
           *socket_row("/proc/net/tcp6", link, row, sizeof row);
}

/* Files a process may hold, besides pipes, sockets and what has no name: patterns below the root,
 * separated by blanks. A "+" in front: below the run dir. */
struct holder {
    const char *name, *files;
    bool tcp;
};
static const struct holder holders[] = {
    { "router", "data/router.state +router/*", false },
    { "authsvc", "logs/secrets-audit.log +authsvc/*", false },
    { "memfs", "self etc data data/**", false },
    { "kernel", "data/avix.lock data/*.db data/*.db-*", false },
    { "llmsvc", "+llmsvc/*", true },
    { "execsvc", "self", false },
    { "gateway", "/dev/urandom", true },
};

static bool file_listed(const struct holder *h, const char *to)
{
    const char *pos = h->files;
    char word[128], want[512];

    while (word_next(&pos, word, sizeof word)) {
        if (str_eq(word, "self"))
            snprintf(want, sizeof want, "%s", a->g->root);
        else if (*word == '/')
            str_copy(want, sizeof want, word);
        else if (*word == '+')
            snprintf(want, sizeof want, "%s/%s", a->g->run_dir, word + 1);
        else
            snprintf(want, sizeof want, "%s/%s", a->g->root, word);
        if (glob_match(want, to))
            return true;
    }
    return false;
}

/* NULL if this descriptor is one that the process should have, else what is wrong with it. */
static const char *wrong_with(const struct holder *h, pid_t pid, int fd, const char *to,
                              const char *own_sock)
{
    char row[400];

    if (fd == 0)
        return str_eq(to, "/dev/null") ? NULL : "stdin";
    if (fd == 1 || fd == 2)
        return str_starts(to, "pipe:[") ? NULL : "output";
    if (!closes_on_exec(pid, fd))
        return "stays open over exec";
    if (str_starts(to, "anon_inode:") || str_starts(to, "pipe:["))
        return NULL;
    if (str_starts(to, "socket:[")) {
        const char *at = bound_to(to, row, sizeof row);

        if (at && !str_eq(at, own_sock))
            return "listens for another";
        return is_tcp(to) && !h->tcp ? "a network socket" : NULL;
    }
    if (strstr(to, "memfd:"))
        return "a memory file that was to be closed";
    return file_listed(h, to) ? NULL : "a file that is not listed";
}

/* For anyone else there is nothing to see, which is tested further down. */
static void need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("SKIPPED: only root sees the descriptors of a process that is not dumpable\n");
    skip();
}

static void units_hold_what_is_listed(void **state)
{
    char to[4096];
    int bad = 0;

    (void)state;
    need_root();
    assert_int_equal(N_ELEMS(holders), UNIT_COUNT);
    for (size_t i = 0; i < N_ELEMS(holders); i++) {
        enum unit_id u = unit_by_name(holders[i].name);
        pid_t pid = rig_unit_pid(a->g, holders[i].name);
        char own[300];

        snprintf(own, sizeof own, "%s/%s", a->g->run_dir, unit_rows[u].socket);
        for (int fd = 0; fd < 1024; fd++) {
            const char *why =
                leads(pid, fd, to, sizeof to) ? wrong_with(&holders[i], pid, fd, to, own) : NULL;

            if (why) {
                print_message("%s: %d is %s: %s\n", holders[i].name, fd, to, why);
                bad++;
            }
        }
    }
    assert_int_equal(bad, 0);
}

/* Both ends are here: it was made here, for signals. */
static bool is_own_pipe(pid_t pid, const char *pipe)
{
    char to[4096];
    int n = 0;

    for (int fd = 5; fd < 1024; fd++)
        n += leads(pid, fd, to, sizeof to) && str_eq(to, pipe);
    return str_starts(pipe, "pipe:[") && n == 2;
}

/* The agents page, section 6, has 0 to 4; the memory files are read and closed before anyone else
 * is heard; beyond them its loop and its own connections. */
static void an_agent_holds_what_is_listed(void **state)
{
    pid_t pid = arun_host_pid(a);
    char to[4096], want[600], row[400];

    (void)state;
    need_root();
    assert_true(pid > 0);
    assert_true(leads(pid, 0, to, sizeof to));
    assert_string_equal(to, "/dev/null");
    for (int fd = 1; fd <= 2; fd++) {
        assert_true(leads(pid, fd, to, sizeof to));
        assert_true(str_starts(to, "pipe:["));
    }
    assert_true(leads(pid, 3, to, sizeof to));
    snprintf(want, sizeof want, "%s/agents/%lld.sock", a->g->run_dir, (long long)a->pid);
    const char *at = bound_to(to, row, sizeof row);
    assert_non_null(at);
    assert_string_equal(at, want);
    assert_true(leads(pid, 4, to, sizeof to));
    snprintf(want, sizeof want, "%s/data/users/admin/agents/researcher/%s.jsonl", a->g->root,
             a->inv);
    assert_string_equal(to, want);
    for (int fd = 5; fd < 1024; fd++)
        if (leads(pid, fd, to, sizeof to) && !str_starts(to, "anon_inode:") &&
            !is_own_pipe(pid, to) &&
            (!str_starts(to, "socket:[") || bound_to(to, row, sizeof row) || is_tcp(to)))
            fail_msg("an agent holds %d: %s", fd, to);
}

/* What runs in a sandbox has its three, whichever way it is started. */
static void a_sandbox_holds_three(void **state)
{
    static const char list[] = "import os\n"
                               "r = []\n"
                               "for f in sorted(os.listdir('/proc/self/fd'), key=int):\n"
                               "  try: r.append(f + '=' + os.readlink('/proc/self/fd/' + f))\n"
                               "  except OSError: pass\n"
                               "print('\\n'.join(r))\n";
    cleanup(freep) char *t = rig_token(a->g, "exec/python exec/runtimes", NULL);
    cleanup(json_putp) json_object *p = json_make("code:s", list);
    struct ipc_reply r;
    int err = rig_call(a->g, t, "exec/python", json_text(p), &r);

    (void)state;
    if (err == ERR_SANDBOX) {
        ipc_reply_done(&r);
        print_message("SKIPPED: no sandbox here\n");
        skip();
    }
    assert_int_equal(err, 0);
    cleanup(freep) char *out = xstrdup(json_str(r.result, "stdout", ""));
    ipc_reply_done(&r);
    int n = 0;
    for (char *save = NULL, *l = strtok_r(out, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        if (strtol(l, NULL, 10) > 2)
            fail_msg("a sandbox holds %s", l);
        n++;
    }
    assert_in_range(n, 2, 3);
}

static void slept(struct ipc_reply *r, void *arg)
{
    (void)r;
    (void)arg;
}

/* Processes below this one; at most max. */
static size_t below(pid_t top, pid_t *out, size_t max)
{
    size_t n = 0;
    DIR *d = opendir("/proc");

    for (struct dirent *e; d && (e = readdir(d));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10), up = pid;

        for (int i = 0; i < 20 && up > 1 && up != top; i++)
            up = proc_parent(up);
        if (pid > 1 && pid != top && up == top && n < max)
            out[n++] = pid;
    }
    if (d)
        closedir(d);
    return n;
}

/* A helper that a unit starts has its three and what makes the sandbox: nothing of the unit's. */
static int foreign(pid_t pid)
{
    char to[4096];
    int bad = 0;

    for (int fd = 3; fd < 1024; fd++)
        if (leads(pid, fd, to, sizeof to) &&
            (str_starts(to, "socket:[") || str_starts(to, a->g->root) ||
             str_starts(to, a->g->run_dir) || strstr(to, "memfd:keys") || strstr(to, "[pidfd]"))) {
            print_message("child %d holds %d: %s\n", (int)pid, fd, to);
            bad++;
        }
    return bad;
}

static bool is_running(const char *program, pid_t pid)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    return file_read(path, 1 << 20, &text, &len) == 0 && str_eq(text, program);
}

static void children_of_units_hold_nothing_of_theirs(void **state)
{
    cleanup(freep) char *t = rig_token(a->g, "exec/shell", NULL);
    cleanup(json_putp) json_object *p = json_make("code:s", "sleep 29.5");
    struct loop *l = loop_new();
    struct ipc_req q = {
        .sock = rig_sock(a->g, "router.sock"), .method = "exec/shell", .token = t, .params = p
    };
    pid_t pids[64];
    size_t n = 0;
    bool seen = false;
    int bad = 0;

    (void)state;
    need_root();
    struct ipc_call *c = ipc_start(l, &q, NULL, slept, NULL);
    for (int64_t end = mono_ms() + 10000; !seen && mono_ms() < end;) {
        loop_step(l, false);
        n = below(rig_unit_pid(a->g, "execsvc"), pids, N_ELEMS(pids));
        for (size_t i = 0; i < n; i++)
            seen |= is_running("sleep", pids[i]);
    }
    for (size_t i = 0; i < n; i++)
        bad += foreign(pids[i]);
    if (seen)
        ipc_cancel(c);
    loop_free(l);
    if (!seen) {
        print_message("SKIPPED: no sandbox here\n");
        skip();
    }
    assert_true(n >= 2);
    assert_int_equal(bad, 0);
}

/* --- what a process may and may not --------------------------------------------------------------
 */

/* A number behind a name in /proc/<pid>/status, -1 if it is not there. */
static int64_t status_of(pid_t pid, const char *name, int base)
{
    char path[64], key[40];
    cleanup(freep) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (file_read(path, 65536, &text, &len))
        return -1;
    snprintf(key, sizeof key, "\n%s:", name);
    char *at = strstr(text, key);
    return at ? strtoll(at + strlen(key), NULL, base) : -1;
}

static bool dumps_no_core(pid_t pid)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;
    long soft, hard;

    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    if (file_read(path, 65536, &text, &len))
        return false;
    char *at = strstr(text, "Max core file size"), *end;
    if (!at)
        return false;
    soft = strtol(at + 18, &end, 10);
    hard = strtol(end, NULL, 10);
    return soft == 0 && hard == 0;
}

/* Whether a process of the same user, with no power over others, may read another's memory: only
 * if that is dumpable. As root the user must be given another uid's eyes: all capabilities but the
 * one that overrides. */
static bool readable_by_its_user(pid_t pid)
{
    int st = -1;
    pid_t child = fork();

    if (child == 0) {
        struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct c[2];
        char path[64];
        const unsigned over = 1U << CAP_SYS_PTRACE;

        if (syscall(SYS_capget, &head, c))
            _exit(9);
        c[0].effective &= ~over;
        c[0].permitted &= ~over;
        if (syscall(SYS_capset, &head, c))
            _exit(9);
        snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
        _exit(open(path, O_RDONLY | O_CLOEXEC) >= 0);
    }
    assert_int_equal(waitpid(child, &st, 0), child);
    assert_int_not_equal(WEXITSTATUS(st), 9);
    return WEXITSTATUS(st) == 1;
}

/* Asked of the process itself where that can be done. */
static int64_t dumpable(pid_t pid)
{
    int64_t got = 0;
#if defined(__x86_64__)
    struct inj j = { 0 };

    if (INJECT_POSSIBLE && inj_attach(&j, pid)) {
        got = inj_call(&j, SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0, 0);
        inj_detach(&j);
    }
#endif
    return got;
}

static void every_process_is_closed_to_its_user(void **state)
{
    pid_t pid;

    (void)state;
    for (int i = -1; i <= UNIT_COUNT; i++) {
        const char *name = i < 0 ? "init" : i == UNIT_COUNT ? "agent" : unit_rows[i].name;

        pid = i < 0             ? a->g->init_pid
              : i == UNIT_COUNT ? arun_host_pid(a)
                                : rig_unit_pid(a->g, name);
        assert_true(pid > 0);
        if (!dumps_no_core(pid))
            fail_msg("%s may dump a core", name);
        if (readable_by_its_user(pid))
            fail_msg("%s can be read by its user", name);
        if (i < UNIT_COUNT && dumpable(pid)) /* an agent's filter would kill it */
            fail_msg("%s is dumpable", name);
    }
}

/* Sanitizer and coverage builds confine nothing: their runtimes need more calls. */
static void need_confined(void)
{
#if defined(AVIX_SAN) || defined(AVIX_COVERAGE)
    print_message("SKIPPED: this build confines nothing\n");
    skip();
#endif
}

static void filters_are_on(void **state)
{
    (void)state;
    need_confined();
    for (int i = 0; i <= UNIT_COUNT; i++) {
        const char *name = i == UNIT_COUNT ? "agent" : unit_rows[i].name;
        pid_t pid = i == UNIT_COUNT ? arun_host_pid(a) : rig_unit_pid(a->g, name);

        if (status_of(pid, "NoNewPrivs", 10) != 1)
            fail_msg("%s may gain privileges", name);
        if (status_of(pid, "Seccomp", 10) != 2)
            fail_msg("%s has no filter", name);
    }
}

static void an_agent_has_no_capability(void **state)
{
    static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapAmb" };

    (void)state;
    need_confined();
    for (size_t i = 0; i < N_ELEMS(sets); i++)
        assert_int_equal(status_of(arun_host_pid(a), sets[i], 16), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_hold_what_is_listed),
        cmocka_unit_test(an_agent_holds_what_is_listed),
        cmocka_unit_test(a_sandbox_holds_three),
        cmocka_unit_test(children_of_units_hold_nothing_of_theirs),
        cmocka_unit_test(every_process_is_closed_to_its_user),
        cmocka_unit_test(filters_are_on),
        cmocka_unit_test(an_agent_has_no_capability),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
