/*
 * Agents as processes of init: what they are started with, how they are signalled, how their end
 * gets to the kernel, also to one that is dead or hangs. The agent program is a script that shows
 * what it was given, everything else is the real suite. And init as PID 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/ipc/peer.h"
#include "tests/rig/rig.h"

/* Shell builtins only: an agent may not fork. */
#define SHOW                                                                                               \
    "#!/bin/sh\necho \"args $*\"\nexport -p\nulimit -n\nfor f in /proc/$$/fd/*; do echo \"fd ${f##*/}\"; " \
    "done\nwhile read l; do echo \"$l\"; done </proc/self/status\necho end\nexec sleep 1000\n"

static struct rig *g;
static char lab[] = "/tmp/init-lab-XXXXXX";

static void put_program(const char *name, const char *script)
{
    char path[256];

    (void)path_fmt(path, sizeof(path), "%s/%s", lab, name);
    (void)unlink(path);
    if (script)
        assert_int_equal(file_write_rename(path, script, strlen(script), 0755), 0);
}

static void copy_program(const char *name)
{
    cleanup(freep) char *text = NULL;
    char path[256];
    size_t len = 0;

    (void)path_fmt(path, sizeof(path), "%s/%s", lab, name);
    assert_int_equal(file_read(rig_bin(name), 256 << 20, &text, &len), 0);
    assert_int_equal(file_write_rename(path, text, len, 0755), 0);
}

/* A folder that looks like an installation, with an agent program of ours. */
static void lab_make(void)
{
    static const char *const links[] = { "avix-router", "avix-authsvc", "avix-memfs",
                                         "avix-kernel", "avix-llmsvc",  "avix-execsvc",
                                         "avix-gateway" };

    assert_non_null(mkdtemp(lab));
    assert_int_equal(chmod(lab, 0755), 0);
    copy_program("avix");
    copy_program("avix-init");
    for (size_t i = 0; i < N_ELEMS(links); i++) {
        char path[256];

        (void)path_fmt(path, sizeof(path), "%s/%s", lab, links[i]);
        assert_int_equal(symlink(rig_bin(links[i]), path), 0);
    }
    put_program("avix-agent", SHOW);
}

static json_object *init_list(const char *key)
{
    cleanup(json_putp) json_object *o = rig_init_call(g, "init/list", NULL, NULL);

    return json_object_get(json_arr(o, key));
}

/* init/spawn with n_fds descriptors; the reply as in ipc_call. */
static int spawn(const char *params, size_t n_fds, struct ipc_reply *r)
{
    json_object *p = NULL;
    int fds[8];

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = memfd_create("x", MFD_CLOEXEC);
    struct ipc_req q = { .sock = rig_sock(g, "init.sock"),
                         .method = "init/spawn",
                         .params = p,
                         .timeout_ms = 10000,
                         .fds = fds,
                         .n_fds = n_fds };
    int err = ipc_call(&q, r);

    for (size_t i = 0; i < n_fds; i++)
        close(fds[i]);
    json_put(p);
    return err;
}

static int spawn_error(const char *params)
{
    struct ipc_reply r;
    int err = spawn(params, 0, &r);

    ipc_reply_done(&r);
    return err;
}

struct proc {
    int64_t pid, start;
};

#define PLAIN(n) "{\"avixPid\":" #n ",\"argv\":[\"avix-agent\",\"--pid\",\"" #n "\"]}"

static struct proc spawn_ok(const char *params, size_t n_fds)
{
    struct ipc_reply r;
    int err = spawn(params, n_fds, &r);

    if (err)
        print_error("init/spawn: %s\n", r.error.message);
    assert_int_equal(err, 0);
    struct proc p = { json_int(r.result, "hostPid", 0), json_int(r.result, "startTime", 0) };

    ipc_reply_done(&r);
    assert_int_equal(proc_start_time((pid_t)p.pid), p.start);
    return p;
}

static int kill_agent(int64_t avix_pid, struct proc p, const char *signal)
{
    int err = 0;

    json_put(rig_init_call(
        g, "init/kill",
        json_make("avixPid:i hostPid:i startTime:i signal:s", avix_pid, p.pid, p.start, signal),
        &err));
    return err;
}

static bool is_gone(void *arg)
{
    struct proc *p = arg;

    return proc_start_time((pid_t)p->pid) != (uint64_t)p->start;
}

static bool has_log_end(void *arg)
{
    cleanup(freep) char *text = rig_read(g, arg);

    return text && strstr(text, " end\n");
}

/* --- what an agent gets --------------------------------------------------------------------------
 */

static void exactly_what_was_meant(void **state)
{
    struct proc p =
        spawn_ok("{\"avixPid\":157,\"argv\":[\"avix-agent\",\"--pid\",\"157\"],"
                 "\"env\":{\"AVIX_PID\":\"157\",\"TZ\":\"UTC\"},\"name\":\"researcher\","
                 "\"limits\":{\"openFiles\":48,\"memoryMaxMiB\":300}}",
                 5);
    char log[] = "logs/agents/157.log";

    (void)state;
    assert_true(rig_until(has_log_end, log));
    cleanup(freep) char *text = rig_read(g, log);

    assert_non_null(strstr(text, " args --pid 157\n"));
    assert_non_null(strstr(text, "AVIX_PID='157'"));
    assert_non_null(strstr(text, "TZ='UTC'"));
    assert_null(strstr(text, "MASTER"));
    assert_null(strstr(text, "TOKEN"));
    assert_null(strstr(text, "HOME"));
    assert_non_null(strstr(text, " 48\n"));
    assert_non_null(strstr(text, "fd 0\n"));
    assert_non_null(strstr(text, "fd 7\n")); /* 8 is the open directory, 10 the script */
    assert_null(strstr(text, "fd 9\n"));
    assert_non_null(strstr(text, "NoNewPrivs:\t1"));
    assert_non_null(strstr(text, "SigBlk:\t0000000000000000"));
    assert_non_null(strstr(text, geteuid() ? "CapEff:\t0000000000000000"
                                           : "CapEff:\t0000000000200000")); /* the jail's */
    assert_int_equal(getpgid((pid_t)p.pid), p.pid);
    cleanup(json_putp) json_object *agents = init_list("agents");
    json_object *row = json_object_array_get_idx(agents, 0);

    assert_int_equal(json_int(row, "avixPid", 0), 157);
    assert_int_equal(json_int(row, "hostPid", 0), p.pid);
    assert_int_equal(json_int(row, "startTime", 0), p.start);
    assert_string_equal(json_str(row, "name", ""), "researcher");
    assert_int_equal(kill_agent(157, p, "KILL"), 0);
    assert_true(rig_until(is_gone, &p));
}

static void nothing_else_is_started(void **state)
{
    static const char *const bad[] = {
        "{\"avixPid\":1,\"argv\":[\"/bin/sh\",\"--pid\",\"1\"]}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",\"2\"]}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",\"1\",\"-x\"]}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",1]}",
        "{\"avixPid\":1,\"argv\":[]}",
        "{\"avixPid\":1}",
        "{\"avixPid\":0,\"argv\":[\"avix-agent\",\"--pid\",\"0\"]}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",\"1\"],\"env\":{\"LD_PRELOAD\":\"x\"}}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",\"1\"],\"env\":{\"TZ\":5}}",
        "{\"avixPid\":1,\"argv\":[\"avix-agent\",\"--pid\",\"1\"],\"limits\":{\"cpuSec\":-1}}",
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        assert_int_equal(spawn_error(bad[i]), ERR_INVAL);
    cleanup(json_putp) json_object *agents = init_list("agents");

    assert_int_equal(json_object_array_length(agents), 0);
}

static void one_process_per_avix_pid(void **state)
{
    struct proc p = spawn_ok(PLAIN(160), 0);

    (void)state;
    assert_int_equal(spawn_error(PLAIN(160)), ERR_CONFLICT);
    assert_int_equal(kill_agent(160, p, "KILL"), 0);
    assert_true(rig_until(is_gone, &p));
}

static void an_exec_that_fails_comes_back(void **state)
{
    struct ipc_reply r;

    (void)state;
    put_program("avix-agent", NULL);
    assert_int_equal(spawn(PLAIN(161), 0, &r), ERR_FAILED);
    assert_non_null(strstr(r.error.message, "No such file"));
    ipc_reply_done(&r);
    put_program("avix-agent", SHOW);
}

/* --- signals -------------------------------------------------------------------------------------
 */

static bool is_stopped(void *arg)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)((struct proc *)arg)->pid);
    return file_read(path, 4096, &text, &len) == 0 && strstr(text, ") T ");
}

static bool is_running(void *arg)
{
    return !is_stopped(arg);
}

static void signals_reach_the_process_that_was_meant(void **state)
{
    struct proc p = spawn_ok(PLAIN(162), 0), stale = p, other = p;

    (void)state;
    stale.start++;
    other.pid = g->init_pid;
    assert_int_equal(kill_agent(162, stale, "KILL"), ERR_NOTFOUND);
    assert_int_equal(kill_agent(162, other, "KILL"), ERR_NOTFOUND);
    assert_int_equal(kill_agent(163, p, "KILL"), ERR_NOTFOUND);
    assert_int_equal(kill_agent(162, p, "HUP"), ERR_INVAL);
    assert_int_equal(kill_agent(162, p, "STOP"), 0);
    assert_true(rig_until(is_stopped, &p));
    assert_int_equal(kill_agent(162, p, "CONT"), 0);
    assert_true(rig_until(is_running, &p));
    assert_int_equal(kill_agent(162, p, "TERM"), 0);
    assert_true(rig_until(is_gone, &p));
    assert_int_equal(kill_agent(162, p, "KILL"), ERR_NOTFOUND);
}

/* --- reports -------------------------------------------------------------------------------------
 */

static bool no_exits(void *arg)
{
    cleanup(json_putp) json_object *exits = init_list("exits");

    (void)arg;
    return exits && json_object_array_length(exits) == 0;
}

static bool has_exit(void *arg)
{
    cleanup(json_putp) json_object *exits = init_list("exits");
    struct proc *p = arg;

    for (size_t i = 0; exits && i < json_object_array_length(exits); i++) {
        json_object *e = json_object_array_get_idx(exits, i);

        if (json_int(e, "hostPid", 0) == p->pid && json_int(e, "signal", 0) == SIGKILL &&
            json_int(e, "startTime", 0) == p->start && str_eq(json_str(e, "kind", ""), "agent") &&
            !json_get(e, "code") && json_obj(e, "rusage"))
            return true;
    }
    return false;
}

static void an_end_waits_for_a_kernel_that_hangs(void **state)
{
    struct proc p = spawn_ok(PLAIN(164), 0);

    (void)state;
    rig_signal_unit(g, "kernel", SIGSTOP);
    assert_int_equal(kill_agent(164, p, "KILL"), 0);
    assert_true(rig_until(has_exit, &p));
    rig_signal_unit(g, "kernel", SIGCONT);
    assert_true(rig_until(no_exits, NULL));
}

static void an_end_survives_the_kernel(void **state)
{
    struct proc p = spawn_ok(PLAIN(165), 0);

    (void)state;
    rig_signal_unit(g, "kernel", SIGSTOP);
    assert_int_equal(kill_agent(165, p, "KILL"), 0);
    assert_true(rig_until(has_exit, &p));
    rig_kill_unit(g, "kernel"); /* the new one gets it */
    assert_true(rig_until(no_exits, NULL));
}

static bool kernel_up(void *arg)
{
    cleanup(json_putp) json_object *u = rig_unit(g, arg);

    return str_eq(json_str(u, "state", ""), "running") ||
           str_eq(json_str(u, "state", ""), "degraded");
}

static void agents_outlive_the_kernel(void **state)
{
    struct proc p = spawn_ok(PLAIN(166), 0);
    char name[] = "kernel";

    (void)state;
    rig_kill_unit(g, name);
    assert_true(rig_until(kernel_up, name));
    /* what the new kernel does with an agent that it does not know is its own affair; init has not
     * lost it */
    if (!is_gone(&p))
        assert_int_equal(kill_agent(166, p, "KILL"), 0);
    assert_true(rig_until(is_gone, &p));
    assert_true(rig_until(no_exits, NULL));
}

/* --- who may not ---------------------------------------------------------------------------------
 */

static bool has_log_text(void *arg)
{
    cleanup(freep) char *text = rig_read(g, "logs/agents/167.log");

    return text && strchr(text, '\n') && (!arg || strstr(text, arg));
}

/* A process that init started may not shut init down, whoever its user is. */
static void descendants_are_refused(void **state)
{
    cleanup(freep) char *script = xasprintf(
        "#!/bin/sh\nexport HOME=/nonexistent AVIX_RUN_DIR=%s\nexec %s/avix server stop --root %s\n",
        g->run_dir, lab, g->root);
    pid_t init_pid = g->init_pid;

    (void)state;
    put_program("avix-agent", script);
    struct proc p = spawn_ok(PLAIN(167), 0);

    assert_true(rig_until(is_gone, &p));
    assert_true(rig_until(has_log_text, NULL));
    if (!has_log_text((char[]){ "not for this process" }))
        print_error("said: %s\n", rig_read(g, "logs/agents/167.log"));
    assert_true(has_log_text((char[]){ "not for this process" }));
    assert_int_equal(kill(init_pid, 0), 0);
    put_program("avix-agent", SHOW);
}

static void agents_die_with_init(void **state)
{
    struct proc p = spawn_ok(PLAIN(168), 0);

    (void)state;
    rig_crash(g); /* fails if anything stays */
    assert_true(is_gone(&p));
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0); /* stale sockets and locks do not matter */
}

static void shutdown_ends_agents(void **state)
{
    struct proc p = spawn_ok(PLAIN(169), 0);

    (void)state;
    assert_int_equal(rig_shutdown(g), 0);
    assert_true(is_gone(&p));
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
}

/* --- PID 1 ---------------------------------------------------------------------------------------
 */

static pid_t first_child(pid_t of)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)of, (int)of);
    return file_read(path, 4096, &text, &len) ? 0 : (pid_t)strtol(text, NULL, 10);
}

static void as_pid_1(void **state)
{
    cleanup(rig_stopp) struct rig *own = rig_new(&(struct rig_opts){ .no_start = true });
    cleanup(freep) char *init = xasprintf("%s/avix-init", lab);
    int out[2], status = -1;

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();

    if (pid == 0) {
        dup2(out[1], 1);
        setenv("AVIX_RUN_DIR", own->run_dir, 1);
        setenv("AVIX_MASTER_KEY", RIG_MASTER_KEY, 1);
        execlp("unshare", "unshare", "--fork", "--pid", "--mount-proc", "--kill-child", init,
               "--root", own->root, "--port", "0", "--admin-addr", "none", "--json", NULL);
        _exit(127);
    }
    close(out[1]);
    json_object *ready = NULL;
    bool logged = false;

    for (int i = 0; i < 2000 && !ready; i++) { /* as PID 1 the log goes to stdout too */
        cleanup(freep) char *line = rig_read_line(out[0], 30000);

        assert_non_null(line);
        logged |= line[0] == '[';
        if (line[0] == '{')
            assert_int_equal(json_parse(line, strlen(line), &ready), 0);
    }
    assert_true(logged);
    assert_int_equal(json_int(ready, "pid", 0), 1);
    json_put(ready);
    int64_t before = mono_ms();

    assert_int_equal(kill(first_child(pid), SIGTERM), 0);
    cleanup(freep) char *rest = NULL;

    while ((rest = rig_read_line(out[0], 15000)))
        freep(&rest);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(mono_ms() - before < 8500);
    close(out[0]);
}

static int setup(void **state)
{
    (void)state;
    lab_make();
    setenv("AVIX_TEST_BIN", lab, 1);
    g = rig_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return rm_rf(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exactly_what_was_meant),
        cmocka_unit_test(nothing_else_is_started),
        cmocka_unit_test(one_process_per_avix_pid),
        cmocka_unit_test(an_exec_that_fails_comes_back),
        cmocka_unit_test(signals_reach_the_process_that_was_meant),
        cmocka_unit_test(an_end_waits_for_a_kernel_that_hangs),
        cmocka_unit_test(an_end_survives_the_kernel),
        cmocka_unit_test(agents_outlive_the_kernel),
        cmocka_unit_test(descendants_are_refused),
        cmocka_unit_test(agents_die_with_init),
        cmocka_unit_test(shutdown_ends_agents),
        cmocka_unit_test(as_pid_1),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
