/*
 * Executions from call to answer, through a real server and real sandboxes. Skipped loudly where
 * no sandbox can be had.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "execsvc/probe.h"
#include "execsvc/run.h"
#include "execsvc/runtime.h"

static char dir[128], sock[160];
static struct exec_conf conf;
static bool no_sandbox, found;
static unsigned n_open;

static void on_call(struct call *c, void *arg)
{
    struct caller who = { .kind = CALLER_AGENT,
                          .pid = 157,
                          .user = "alice",
                          .service = "",
                          .call_id = "r-1",
                          .token = "",
                          .agent = "",
                          .session_id = "",
                          .atp_session = "",
                          .tool = "" };

    (void)arg;
    who.json = c->params;
    run_start(c, &who, str_eq(c->method, "exec/run") ? NULL : c->method);
}

static void on_probed(const char *why, void *arg)
{
    (void)arg;
    no_sandbox = why != NULL;
    if (why)
        print_message("SKIPPED: no sandbox here: %s\n", why);
    runs_set_sandbox(why ? ERR_SANDBOX : 0, why ? why : "");
}

static void on_found(void *arg)
{
    (void)arg;
    found = true;
}

static int listen_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    str_copy(a.sun_path, sizeof(a.sun_path), path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static int setup(void **state)
{
    struct yaml_err e;
    struct server_opts o = { .max_conns = 64 };

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof(dir), "%s/exec-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(sock, sizeof(sock), "%s/s", dir);
    exec_conf_load("/nonexistent", &conf, &e);
    runs_set_conf(&conf);
    svc.loop = loop_new();
    svc.server = server_new(svc.loop, listen_at(sock), &o, on_call, NULL);
    no_sandbox = true;
    probe_start(svc.loop, on_probed, NULL);
    runtimes_find(svc.loop, &conf, on_found, NULL);
    while (!found)
        loop_step(svc.loop, true);
    for (int64_t end = mono_ms() + 10000; no_sandbox && mono_ms() < end;)
        loop_step(svc.loop, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_free(svc.server);
    runtimes_done();
    probe_stop();
    return rm_rf(dir);
}

struct asked {
    const char *method, *params;
    struct ipc_reply reply;
    struct buf streamed;
    int n_notes;
    bool done;
};

static void on_note(const char *method, json_object *params, void *arg)
{
    struct asked *a = arg;

    assert_string_equal(method, "exec.output");
    assert_int_equal(json_int(params, "seq", -1), a->n_notes++);
    buf_adds(&a->streamed, json_str(params, "data", ""));
}

static void on_done(struct ipc_reply *r, void *arg)
{
    struct asked *a = arg;

    a->reply = *r;
    *r = (struct ipc_reply){ .fd = -1 };
    a->done = true;
    n_open--;
}

static struct ipc_call *ask(struct asked *a, const char *method, const char *params)
{
    json_object *p = NULL;
    struct ipc_req q = { .sock = sock, .method = method, .timeout_ms = 60000 };
    struct ipc_call *c;

    *a = (struct asked){ .method = method, .params = params };
    buf_init(&a->streamed, 16 << 20);
    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    q.params = p;
    n_open++;
    c = ipc_start(svc.loop, &q, on_note, on_done, a);
    json_put(p);
    return c;
}

static void finish(struct asked *a)
{
    while (!a->done)
        loop_step(svc.loop, true);
    buf_done(&a->streamed);
}

static json_object *run(const char *method, const char *params)
{
    struct asked a;

    ask(&a, method, params);
    finish(&a);
    if (a.reply.err)
        fail_msg("%s %s: %s", method, params, a.reply.error.message);
    return a.reply.result; /* the error part is empty */
}

static int run_err(const char *method, const char *params)
{
    struct asked a;
    int err;

    ask(&a, method, params);
    finish(&a);
    err = a.reply.err;
    ipc_reply_done(&a.reply);
    return err;
}

#define NEEDS_SANDBOX()   \
    do {                  \
        (void)state;      \
        if (no_sandbox) { \
            skip();       \
        }                 \
    } while (0)

static void bash_runs(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("bash", "{\"code\":\"echo out; echo err >&2; cat; exit 3\","
                                 "\"stdin\":\"given\"}");

    assert_string_equal(json_str(o, "stdout", ""), "out\ngiven");
    assert_string_equal(json_str(o, "stderr", ""), "err\n");
    assert_int_equal(json_int(o, "exit_code", 0), 3);
    assert_false(json_flag(o, "timed_out", true));
    assert_string_equal(json_str(o, "sandbox", ""), "bwrap");
    assert_string_equal(json_str(json_obj(o, "runtime"), "name", ""), "bash");
    assert_null(json_get(o, "signal"));
    json_put(o);
}

static void every_runtime_runs(void **state)
{
    static const struct {
        const char *method, *code, *out;
    } t[] = {
        { "python", "import sys,ssl,sqlite3; print(sys.argv[1:], 6*7)", "['a b'] 42\n" },
        { "python3", "open('f','w').write('x'); print(open('f').read())", "x\n" },
        { "node", "console.log(process.argv.slice(2), 6*7, require('os').userInfo().username)",
          "[ 'a b' ] 42 box\n" },
        { "sh", "echo $1 $((6*7))", "a b 42\n" },
    };

    NEEDS_SANDBOX();
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        const struct runtime *rt = runtime_get(t[i].method);
        cleanup(freep) char *p = xasprintf(
            "{\"code\":\"%s\",\"args\":[\"a b\"],\"runtime\":\"%s\"}", t[i].code, t[i].method);

        if (!rt->available) {
            print_message("SKIPPED: no %s here\n", rt->name);
            continue;
        }
        json_object *o = run("exec/run", p);

        assert_string_equal(json_str(o, "stderr", ""), "");
        assert_string_equal(json_str(o, "stdout", ""), t[i].out);
        json_put(o);
    }
    assert_int_equal(run_err("exec/run", "{\"code\":\"\",\"runtime\":\"cobol\"}"), ERR_INVAL);
}

static void environment_and_files(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run(
        "bash", "{\"code\":\"env | grep -v '^_=' | grep -v SHLVL | sort; cat d/e.txt main.sh2;"
                " ls -A | sort | tr '\\\\n' ' '\","
                "\"env\":{\"X\":\"y z\"},"
                "\"files\":[{\"path\":\"d/e.txt\",\"content\":\"AAo=\",\"encoding\":\"base64\"},"
                "{\"path\":\"main.sh2\",\"content\":\"second\\n\"}]}");
    json_object *text = json_get(o, "stdout");

    assert_string_equal(json_str(o, "stderr", ""), "");
    assert_non_null(strstr(json_object_get_string(text), "HOME=/box\nLANG=C.UTF-8\n"));
    assert_non_null(strstr(json_object_get_string(text), "TMPDIR=/tmp\nX=y z\n"));
    assert_null(strstr(json_object_get_string(text), "AVIX"));
    json_put(o);
    /* a file of the runtime's own name does not collide with the code */
    o = run("bash", "{\"code\":\"cat main.sh\",\"files\":[{\"path\":\"main.sh\","
                    "\"content\":\"mine\"}]}");
    assert_string_equal(json_str(o, "stdout", ""), "mine");
    json_put(o);
    assert_int_equal(run_err("bash", "{\"code\":\":\",\"files\":[{\"path\":\"a\",\"content\":\"*\","
                                     "\"encoding\":\"base64\"}]}"),
                     ERR_INVAL);
    assert_int_equal(run_err("bash", "{\"code\":\":\",\"files\":[{\"path\":\"a\",\"content\":\"\"},"
                                     "{\"path\":\"a\",\"content\":\"\"}]}"),
                     ERR_INVAL);
}

static void time_is_limited(void **state)
{
    int64_t start = mono_ms();

    NEEDS_SANDBOX();
    json_object *o =
        run("bash", "{\"code\":\"trap 'echo asked' TERM; echo begun; while :; do sleep "
                    "0.1; done\",\"timeout_ms\":300}");

    assert_true(json_flag(o, "timed_out", false));
    assert_int_equal(json_int(o, "exit_code", 0), -1);
    assert_string_equal(json_str(o, "stdout", ""), "begun\nasked\n");
    assert_true(mono_ms() - start < 5000);
    json_put(o);
}

static void output_is_limited(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("bash", "{\"code\":\"echo first; head -c 3000000 /dev/zero | tr '\\\\0' x;"
                                 " echo last\"}");
    const char *text = json_str(o, "stdout", "");
    size_t n = strlen(text);

    assert_true(json_flag(json_obj(o, "truncated"), "stdout", false));
    assert_false(json_flag(json_obj(o, "truncated"), "stderr", true));
    assert_true(n < (1 << 20) + 100);
    assert_true(str_starts(text, "first\nxxx"));
    assert_true(str_ends(text, "xxxlast\n"));
    assert_non_null(strstr(text, "bytes cut ...]"));
    json_put(o);
}

static void output_streams(void **state)
{
    struct asked a;

    NEEDS_SANDBOX();
    ask(&a, "bash",
        "{\"code\":\"printf 'a\\\\xc3'; sleep 0.1; printf '\\\\xa4b'; sleep 0.1; "
        "printf '\\\\xff'\",\"stream\":true}");
    while (!a.done)
        loop_step(svc.loop, true);
    assert_string_equal(a.streamed.data, "aäb\xef\xbf\xbd");
    assert_true(a.n_notes >= 2);
    finish(&a);
    json_put(a.reply.result);
}

static void what_it_used_is_counted(void **state)
{
    NEEDS_SANDBOX();
    json_object *o =
        run("bash", "{\"code\":\"for i in $(seq 200000); do :; done; bash -c 'x=$(head -c "
                    "20000000 /dev/zero | tr \\\\0 x)'\"}");

    assert_true(json_int(o, "cpu_ms", 0) > 20);
    assert_true(json_int(o, "cpu_ms", 0) <= 2 * json_int(o, "duration_ms", 0) + 50);
    assert_true(json_int(o, "max_rss_kb", 0) > 15000);
    json_put(o);
}

static void signals_are_named(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("bash", "{\"code\":\"kill -SEGV $$\"}");

    assert_string_equal(json_str(o, "signal", ""), "SIGSEGV");
    assert_int_equal(json_int(o, "exit_code", 0), 128 + SIGSEGV);
    assert_string_equal(json_str(o, "stderr", "x"), "");
    json_put(o);
}

/* Nothing of the host, no privilege, nothing left open, no way to another namespace. */
static void the_inside_is_bare(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run(
        "bash",
        "{\"code\":\"ls / | tr '\\\\n' ' '; echo; ls /proc/self/fd | tr '\\\\n' ' '; echo; "
        "ls /root /home /sys /var /run 2>/dev/null; id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' "
        "/proc/self/status; cat /proc/1/environ 2>/dev/null | tr '\\\\0' '\\\\n'; ls /proc/net/dev "
        "&& tail -n +3 /proc/net/dev | cut -d: -f1; hostname; touch /usr/x 2>&1; unshare -U true "
        "2>&1; mount -t tmpfs x /tmp 2>&1; cat /etc/passwd | wc -l\"}");
    const char *text = json_str(o, "stdout", "");

    assert_non_null(strstr(text, "\n0 1 2 3 \n")); /* 3 is ls itself */
    assert_non_null(strstr(text, "65534"));
    assert_non_null(strstr(text, "CapEff:\t0000000000000000"));
    assert_non_null(strstr(text, "NoNewPrivs:\t1"));
    assert_non_null(strstr(text, "Seccomp:\t2"));
    assert_non_null(strstr(text, "\navix\n"));
    assert_non_null(strstr(text, "Read-only file system"));
    assert_non_null(strstr(text, "unshare: unshare failed: Operation not permitted"));
    assert_null(strstr(text, "eth"));
    assert_null(strstr(text, "AVIX"));
    assert_null(strstr(text, "srv"));
    json_put(o);
}

/* Processes `sleep <name>...` on the host. */
static int n_sleepers(const char *name)
{
    DIR *d = opendir("/proc");
    int n = 0;

    for (struct dirent *e; (e = readdir(d));) {
        cleanup(freep) char *text = NULL;
        char path[300];
        size_t len;

        snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && !file_read(path, 65536, &text, &len) &&
            str_eq(text, "sleep") && len > 6 && str_starts(text + 6, name))
            n++;
    }
    closedir(d);
    return n;
}

static void nothing_survives_the_caller(void **state)
{
    struct asked a;
    struct ipc_call *c;
    int64_t end;

    NEEDS_SANDBOX();
    c = ask(&a, "bash",
            "{\"code\":\"(setsid sleep 98761 & ) ; setsid -f sleep 98762; echo up; "
            "sleep 98763\",\"stream\":true}");
    while (!a.n_notes)
        loop_step(svc.loop, true);
    for (end = mono_ms() + 5000; n_sleepers("9876") < 3 && mono_ms() < end;)
        loop_step(svc.loop, false);
    assert_int_equal(n_sleepers("9876"), 3);
    ipc_cancel(c);
    n_open--;
    buf_done(&a.streamed);
    for (end = mono_ms() + 2000; n_sleepers("9876") && mono_ms() < end;)
        loop_step(svc.loop, false);
    assert_int_equal(n_sleepers("9876"), 0);
    assert_int_equal(runs_n(), 0);
}

static void a_background_process_ends_with_the_program(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("bash", "{\"code\":\"setsid -f sleep 98764 >/dev/null 2>&1; echo bye\"}");

    assert_string_equal(json_str(o, "stdout", ""), "bye\n");
    assert_int_equal(n_sleepers("98764"), 0);
    json_put(o);
}

static void a_fork_bomb_is_stopped(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("bash", "{\"code\":\"for i in $(seq 1000); do sleep 97531 & done; wait\","
                                 "\"timeout_ms\":5000}");

    assert_true(json_flag(o, "timed_out", false) || json_int(o, "exit_code", 0) != 0);
    assert_int_equal(n_sleepers("97531"), 0);
    json_put(o);
}

static void memory_is_limited(void **state)
{
    NEEDS_SANDBOX();
    json_object *o = run("python", "{\"code\":\"x=bytearray(200<<20)\",\"memory_mb\":100}");

    assert_non_null(strstr(json_str(o, "stderr", ""), "MemoryError"));
    json_put(o);
    /* the sum over processes */
    o = run("python", "{\"code\":\"import os,time\\nfor i in range(8):\\n  if not os.fork():\\n    "
                      "x=bytearray(50<<20)\\n    time.sleep(30)\\ntime.sleep(30)\","
                      "\"memory_mb\":100,\"timeout_ms\":20000}");
    assert_int_equal(json_int(o, "exit_code", 0), 137);
    assert_string_equal(json_str(o, "signal", ""), "SIGKILL");
    assert_false(json_flag(o, "timed_out", true));
    json_put(o);
}

static void files_are_limited(void **state)
{
    NEEDS_SANDBOX();
    json_object *o =
        run("bash",
            "{\"code\":\"for d in /tmp /dev/shm; do head -c 100M /dev/zero > $d/f; done; "
            "for i in 1 2 3; do head -c 200M /dev/zero > f$i; done; du -sm /box /tmp /dev/shm\"}");

    assert_non_null(strstr(json_str(o, "stderr", ""), "No space left"));
    json_put(o);
}

static void one_caller_has_its_share(void **state)
{
    struct asked a[RUNS_PER_CALLER + 1];
    struct ipc_call *c[RUNS_PER_CALLER + 1];

    NEEDS_SANDBOX();
    for (size_t i = 0; i < N_ELEMS(a); i++)
        c[i] = ask(&a[i], "bash", "{\"code\":\"sleep 60\"}");
    while (!a[RUNS_PER_CALLER].done)
        loop_step(svc.loop, true);
    assert_int_equal(a[RUNS_PER_CALLER].reply.err, ERR_BUSY);
    assert_true(json_int(a[RUNS_PER_CALLER].reply.error.data, "retry_after_ms", 0) > 0);
    ipc_reply_done(&a[RUNS_PER_CALLER].reply);
    buf_done(&a[RUNS_PER_CALLER].streamed);
    for (size_t i = 0; i < RUNS_PER_CALLER; i++) {
        ipc_cancel(c[i]);
        buf_done(&a[i].streamed);
    }
    for (int64_t end = mono_ms() + 2000; runs_n() && mono_ms() < end;)
        loop_step(svc.loop, false);
    assert_int_equal(runs_n(), 0);
}

static void without_a_sandbox_nothing_runs(void **state)
{
    (void)state;
    runs_set_sandbox(ERR_SANDBOX, "none here");
    assert_int_equal(run_err("bash", "{\"code\":\":\"}"), ERR_SANDBOX);
    if (!no_sandbox)
        runs_set_sandbox(0, "");
}

static void the_network_needs_to_be_allowed(void **state)
{
    NEEDS_SANDBOX();
    assert_int_equal(run_err("bash", "{\"code\":\":\",\"network\":true}"), ERR_PERM);
    conf.network = NET_PASTA;
    assert_int_equal(run_err("bash", "{\"code\":\":\",\"network\":true}"), ERR_SANDBOX);
    conf.network = NET_NO;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bash_runs),
        cmocka_unit_test(every_runtime_runs),
        cmocka_unit_test(environment_and_files),
        cmocka_unit_test(time_is_limited),
        cmocka_unit_test(output_is_limited),
        cmocka_unit_test(output_streams),
        cmocka_unit_test(what_it_used_is_counted),
        cmocka_unit_test(signals_are_named),
        cmocka_unit_test(the_inside_is_bare),
        cmocka_unit_test(nothing_survives_the_caller),
        cmocka_unit_test(a_background_process_ends_with_the_program),
        cmocka_unit_test(a_fork_bomb_is_stopped),
        cmocka_unit_test(memory_is_limited),
        cmocka_unit_test(files_are_limited),
        cmocka_unit_test(one_caller_has_its_share),
        cmocka_unit_test(without_a_sandbox_nothing_runs),
        cmocka_unit_test(the_network_needs_to_be_allowed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
