/* avix-init with the real suite: readiness, crashes, back-off, the control socket, logs, shutdown,
 * agents as its children. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "common/svc/unit.h"
#include "tests/rig/rig.h"

static struct rig *g; /* one suite for all tests of this program */

static int64_t unit_int(const char *unit, const char *key)
{
    cleanup(json_putp) json_object *u = rig_unit(g, unit);

    return json_int(u, key, -1);
}

static bool unit_is(const char *unit, const char *state)
{
    cleanup(json_putp) json_object *u = rig_unit(g, unit);

    return str_eq(json_str(u, "state", ""), state);
}

static bool up(const char *unit)
{
    return unit_is(unit, "running") || unit_is(unit, "degraded");
}

static bool unit_up(void *arg)
{
    return up(arg);
}

static json_object *init_call(const char *method, const char *params, int *err)
{
    json_object *p = NULL;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    return rig_init_call(g, method, p, err);
}

static int init_error(const char *method, const char *params)
{
    int err = 0;

    json_put(init_call(method, params, &err));
    return err;
}

/* --- boot ----------------------------------------------------------------------------------------
 */

static void every_unit_is_up_when_ready_is_said(void **state)
{
    cleanup(json_putp) json_object *list = rig_init_call(g, "init/list", NULL, NULL);
    json_object *units = json_arr(list, "units");

    (void)state;
    assert_int_equal(json_object_array_length(units), UNIT_COUNT);
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        json_object *u = json_object_array_get_idx(units, i);
        const char *name = json_str(u, "name", "");
        enum unit_id id = unit_by_name(name);
        pid_t pid = (pid_t)json_int(u, "hostPid", 0);

        assert_true(id >= 0);
        assert_true(up(name));
        assert_int_equal(json_int(u, "pid", -1), unit_rows[id].pid);
        assert_int_equal(json_flag(u, "required", false), unit_rows[id].required);
        assert_int_equal(json_int(u, "restarts", -1), 0);
        assert_int_equal((uint64_t)json_int(u, "startTime", 0), proc_start_time(pid));
        assert_int_equal(proc_parent(pid), g->init_pid);
        assert_string_equal(json_str(u, "kind", ""), "builtin");
    }
    assert_true(*json_str(list, "bootId", ""));
    assert_string_equal(json_str(list, "url", ""), g->url);
    assert_true(g->ready_ms > 0 && g->ready_ms < 20000);
}

/* No key, no token, no core: nothing secret can be read from outside. */
static void no_process_shows_a_secret(void **state)
{
    char path[64];

    (void)state;
    for (int i = -1; i < UNIT_COUNT; i++) {
        pid_t pid = i < 0 ? g->init_pid : rig_unit_pid(g, unit_rows[i].name);
        cleanup(freep) char *env = NULL, *limits = NULL;
        size_t len = 0;

        snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        if (file_read(path, 1 << 20, &env, &len) == 0) {
            assert_null(memmem(env, len, RIG_MASTER_KEY, strlen(RIG_MASTER_KEY)));
            assert_null(memmem(env, len, "AVIX_SVC_TOKEN=e", 16));
        }
        snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
        assert_int_equal(file_read(path, 1 << 20, &limits, &len), 0);
        char *core = strstr(limits, "Max core file size");

        assert_non_null(core);
        assert_true(strtol(core + 18, NULL, 10) == 0);
    }
}

/* Exactly the descriptors that are meant for a unit: sockets of others never leak in. */
static void units_hold_only_their_own_listeners(void **state)
{
    cleanup(freep) char *unix_table = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(file_read("/proc/net/unix", 8 << 20, &unix_table, &len), 0);
    for (int i = 0; i < UNIT_COUNT; i++) {
        char dir[64], link[96], to[128];

        snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)rig_unit_pid(g, unit_rows[i].name));
        for (int fd = 0; fd < 64; fd++) {
            snprintf(link, sizeof(link), "%s/%d", dir, fd);
            ssize_t n = readlink(link, to, sizeof(to) - 1);

            if (n < 0 || !str_starts(to, "socket:["))
                continue;
            to[n - 1] = '\0';
            for (int j = 0; j < UNIT_COUNT; j++) {
                cleanup(freep) char *row =
                    xasprintf(" %s %s/%s\n", to + 8, g->run_dir, unit_rows[j].socket);

                if (strstr(unix_table, row))
                    assert_int_equal(i, j);
            }
        }
    }
}

static void sockets_are_0600_in_a_dir_of_0700(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(stat(g->run_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int i = 0; i < UNIT_COUNT; i++) {
        assert_int_equal(stat(rig_sock(g, unit_rows[i].socket), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(stat(rig_sock(g, "init.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(rig_sock(g, "units.json"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* --- crashes -------------------------------------------------------------------------------------
 */

static void each_unit_comes_back_after_sigkill(void **state)
{
    pid_t before[UNIT_COUNT];

    (void)state;
    for (int i = 0; i < UNIT_COUNT; i++)
        before[i] = rig_unit_pid(g, unit_rows[i].name);
    for (int i = 0; i < UNIT_COUNT; i++) {
        char name[32];

        str_copy(name, sizeof(name), unit_rows[i].name);
        rig_kill_unit(g, name);
        assert_true(rig_until(unit_up, name));
        assert_int_equal(unit_int(name, "restarts"), 1);
        for (int j = i + 1; j < UNIT_COUNT; j++) /* nobody else is disturbed */
            assert_int_equal(rig_unit_pid(g, unit_rows[j].name), before[j]);
    }
}

static bool in_backoff(void *arg)
{
    return unit_is(arg, "backoff");
}

/* The first restart is immediate, later ones wait: visible as state backoff. */
static void repeated_crashes_back_off(void **state)
{
    char name[] = "execsvc";
    bool waited = false;

    (void)state;
    for (int i = 0; i < 4 && !waited; i++) {
        assert_true(rig_until(unit_up, name));
        pid_t pid = rig_unit_pid(g, name);

        if (pid > 0)
            kill(pid, SIGKILL);
        int64_t end = mono_ms() + 150;

        while (!waited && mono_ms() < end)
            waited = in_backoff(name);
    }
    assert_true(waited);
    assert_true(rig_until(unit_up, name));
    assert_true(unit_int(name, "restarts") >= 2);
}

/* --- control socket ------------------------------------------------------------------------------
 */

/* Connects to a unit's socket; true if the connection is closed at once. */
static bool closes_at_once(const char *sock)
{
    cleanup(closep) int fd = ipc_connect(rig_sock(g, sock), false);
    struct timeval tv = { .tv_sec = 3 };
    char c;

    if (fd < 0)
        return true;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    ssize_t n = read(fd, &c, 1);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void stop_start_restart(void **state)
{
    pid_t first = rig_unit_pid(g, "execsvc"), second;
    int err = 0;
    json_object *o = init_call("init/stop", "{\"name\":\"execsvc\"}", &err);

    (void)state;
    assert_int_equal(err, 0);
    assert_string_equal(json_str(o, "state", ""), "stopped");
    json_put(o);
    assert_int_equal(kill(first, 0), -1);
    assert_true(closes_at_once("exec.sock"));
    o = init_call("init/start", "{\"name\":\"exec.svc\"}", &err); /* an alias */
    assert_int_equal(err, 0);
    assert_string_equal(json_str(o, "name", ""), "execsvc");
    json_put(o);
    assert_true(up("execsvc"));
    second = rig_unit_pid(g, "execsvc");
    assert_int_not_equal(second, first);
    o = init_call("init/restart", "{\"name\":\"execsvc\",\"force\":true}", &err);
    assert_int_equal(err, 0);
    json_put(o);
    assert_true(up("execsvc"));
    assert_int_not_equal(rig_unit_pid(g, "execsvc"), second);
    /* starting what runs changes nothing */
    second = rig_unit_pid(g, "execsvc");
    assert_int_equal(init_error("init/start", "{\"name\":\"execsvc\"}"), 0);
    assert_int_equal(rig_unit_pid(g, "execsvc"), second);
}

static void a_required_unit_restarts_but_does_not_stop(void **state)
{
    pid_t before = rig_unit_pid(g, "memfs");

    (void)state;
    for (int i = 0; i < UNIT_COUNT; i++) {
        cleanup(freep) char *p = xasprintf("{\"name\":\"%s\"}", unit_rows[i].name);

        if (unit_rows[i].required)
            assert_int_equal(init_error("init/stop", p), ERR_PERM);
    }
    assert_int_equal(init_error("init/restart", "{\"name\":\"memfs\"}"), 0);
    assert_true(up("memfs"));
    assert_int_not_equal(rig_unit_pid(g, "memfs"), before);
}

static void errors_of_the_control_socket(void **state)
{
    (void)state;
    assert_int_equal(init_error("init/start", "{\"name\":\"nobody\"}"), ERR_NOTFOUND);
    assert_int_equal(init_error("init/status", "{\"name\":\"\"}"), ERR_NOTFOUND);
    assert_int_equal(init_error("init/status", "{}"), ERR_INVAL);
    assert_int_equal(init_error("init/logs", "{\"name\":\"../etc/auth.conf\"}"), ERR_NOTFOUND);
    assert_int_equal(init_error("init/logs", "{\"name\":\"agents/../init\"}"), ERR_NOTFOUND);
    assert_int_equal(init_error("init/logs", "{\"name\":\"memfs\",\"lines\":-1}"), ERR_INVAL);
    assert_int_equal(init_error("init/helper", "{\"name\":\"package-stage\"}"), ERR_METHOD);
    assert_int_equal(init_error("init/nothing", "{}"), ERR_METHOD);
    assert_int_equal(init_error("init/shutdown", "{\"grace_secs\":\"x\"}"), ERR_INVAL);
}

static void status_tells_more(void **state)
{
    int err = 0;
    cleanup(json_putp) json_object *o = init_call("init/status", "{\"name\":\"router\"}", &err);

    (void)state;
    assert_int_equal(err, 0);
    assert_true(json_int(o, "memory", 0) > 100000);
    assert_true(str_ends(json_str(o, "log", ""), "/logs/router.log"));
    assert_non_null(json_arr(o, "missing"));
    assert_int_equal(json_int(json_obj(o, "last_exit"), "signal", 0),
                     SIGKILL); /* of the test above */
}

static void reload_names_whom_it_told(void **state)
{
    int err = 0;
    cleanup(json_putp) json_object *o = init_call("init/reload", "{}", &err);
    cleanup(json_putp) json_object *one = init_call("init/reload", "{\"name\":\"memfs\"}", &err);

    (void)state;
    assert_int_equal(err, 0);
    assert_int_equal(json_object_array_length(json_arr(o, "reloaded")), UNIT_COUNT);
    assert_int_equal(json_object_array_length(json_arr(one, "reloaded")), 1);
    assert_int_equal(init_error("init/reload", "{\"name\":\"x\"}"), ERR_NOTFOUND);
}

static void logs_of_units(void **state)
{
    int err = 0;
    cleanup(json_putp) json_object *o =
        init_call("init/logs", "{\"name\":\"router\",\"lines\":1}", &err);
    cleanup(json_putp) json_object *all = init_call("init/logs", "{\"name\":\"init\"}", &err);
    json_object *lines = json_arr(o, "lines"), *line = NULL;

    (void)state;
    assert_int_equal(json_object_array_length(lines), 1);
    const char *text = json_object_get_string(json_object_array_get_idx(lines, 0));

    assert_int_equal(json_parse(text, strlen(text), &line), 0); /* JSON lines stay as they are */
    assert_string_equal(json_str(line, "unit", ""), "router");
    json_put(line);
    assert_true(json_object_array_length(json_arr(all, "lines")) > UNIT_COUNT);
}

/* Reads log.line notifications until one holds the text; false after ten seconds. */
static bool follow_until(int fd, struct frame_in *in, const char *text)
{
    int64_t end = mono_ms() + 10000;
    const char *body;
    size_t len;

    while (mono_ms() < end) {
        enum frame_result r = frame_in_read(in, fd, &body, &len);

        if (r != FRAME_READY && r != FRAME_MORE)
            return false;
        if (r == FRAME_READY && memmem(body, len, "\"log.line\"", 10) &&
            memmem(body, len, text, strlen(text)))
            return true;
    }
    return false;
}

static void logs_can_be_followed(void **state)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"method\":\"init/logs\","
                                  "\"params\":{\"name\":\"init\",\"lines\":1,\"follow\":true}}";
    cleanup(closep) int fd = ipc_connect(rig_sock(g, "init.sock"), false);
    struct timeval tv = { .tv_sec = 10 };
    struct frame_in in;

    (void)state;
    frame_in_init(&in, FRAME_MAX);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    assert_int_equal(frame_write_fds(fd, request, strlen(request), NULL, 0), 0);
    assert_true(follow_until(fd, &in, "\"unit\":\"init\"")); /* what was there */
    assert_int_equal(init_error("init/restart", "{\"name\":\"execsvc\"}"), 0);
    assert_true(follow_until(fd, &in, "unit execsvc: stopped")); /* what comes */
    frame_in_done(&in);
}

static bool log_has(void *arg)
{
    cleanup(freep) char *log = rig_read(g, "logs/init.log");

    return log && strstr(log, arg);
}

static void sigusr1_dumps_the_units(void **state)
{
    char want[64];

    (void)state;
    snprintf(want, sizeof(want), "unit router: running, host pid %d",
             (int)rig_unit_pid(g, "router"));
    kill(g->init_pid, SIGUSR1);
    assert_true(rig_until(log_has, want));
}

/* --- who may use it ------------------------------------------------------------------------------
 */

/* The answer a process with this uid gets; -1: closed without a reply. */
static int ask_sock_as(uid_t uid, const char *sock, const char *method)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct ipc_req q = { .sock = sock, .method = method, .timeout_ms = 5000 };
        struct ipc_reply r;

        if (setresuid(uid, uid, uid))
            _exit(100);
        _exit(ipc_call(&q, &r));
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static int ask_as(uid_t uid, const char *method)
{
    return ask_sock_as(uid, rig_sock(g, "init.sock"), method);
}

static void a_foreign_user_gets_no_answer(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    /* even if the modes did not hold */
    assert_int_equal(chmod(g->run_dir, 0755), 0);
    assert_int_equal(chmod(rig_sock(g, "init.sock"), 0666), 0);
    assert_int_equal(ask_as(65534, "init/list"), ERR_UNAVAIL);
    assert_int_equal(ask_as(65534, "init/shutdown"), ERR_UNAVAIL);
    assert_int_equal(chmod(rig_sock(g, "init.sock"), 0600), 0);
    for (int i = 0; i < UNIT_COUNT; i++) {
        const char *sock = rig_sock(g, unit_rows[i].socket);

        assert_int_equal(chmod(sock, 0666), 0);
        assert_int_equal(ask_sock_as(65534, sock, "fs/read"), ERR_UNAVAIL);
        assert_int_equal(chmod(sock, 0600), 0);
    }
    assert_int_equal(chmod(g->run_dir, 0700), 0);
    assert_int_equal(ask_as(0, "init/list"), 0);
}

static int setup(void **state)
{
    (void)state;
    g = rig_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

/* --- shutdown ------------------------------------------------------------------------------------
 */

static char *stopped_at(char *log, const char *unit)
{
    cleanup(freep) char *needle = xasprintf("unit %s: stopped", unit);

    return strstr(log, needle);
}

static void shutdown_in_reverse_order(void **state)
{
    (void)state;
    assert_int_equal(rig_shutdown(g), 0);
    cleanup(freep) char *whole = rig_read(g, "logs/init.log");
    char *log = strstr(whole, "shutting down");
    struct stat st;

    assert_non_null(log);
    for (int i = 0; i < UNIT_COUNT; i++) {
        const char *pos = unit_rows[i].needs;
        char need[32];

        assert_non_null(stopped_at(log, unit_rows[i].name));
        while (word_next(&pos, need, sizeof(need)))
            assert_true(stopped_at(log, need) > stopped_at(log, unit_rows[i].name));
        assert_int_not_equal(stat(rig_sock(g, unit_rows[i].socket), &st), 0);
    }
    assert_int_not_equal(stat(rig_sock(g, "init.sock"), &st), 0);
    assert_null(strstr(log, "time is up"));
    /* and it starts again on the same root */
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
}

static void shutdown_by_the_control_socket(void **state)
{
    int status = -1;

    (void)state;
    assert_int_equal(init_error("init/shutdown", "{\"reason\":\"test\"}"), 0);
    assert_int_equal(waitpid(g->init_pid, &status, 0), g->init_pid);
    assert_int_equal(status, 0);
    g->init_pid = 0;
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
}

static bool other_boot(void *arg)
{
    cleanup(json_putp) json_object *o = rig_init_call(g, "init/list", NULL, NULL);

    return o && !str_eq(json_str(o, "bootId", ""), arg) && up("gateway");
}

static bool has_logged(void *arg)
{
    cleanup(freep) char *log = rig_read(g, "logs/init.log");
    char *last = log, *p;

    while (last && (p = strstr(last + 1, "\"ready in ")))
        last = p;
    return last && strstr(last, arg);
}

static void the_second_sigterm_skips_waiting(void **state)
{
    int status = -1;
    int64_t before = mono_ms();

    (void)state;
    rig_signal_unit(g, "gateway", SIGSTOP); /* would be waited for */
    kill(g->init_pid, SIGTERM);
    assert_true(rig_until(has_logged, (char[]){ "unit gateway: stopping" }));
    kill(g->init_pid, SIGTERM);
    assert_int_equal(waitpid(g->init_pid, &status, 0), g->init_pid);
    assert_int_equal(status, 0);
    assert_true(mono_ms() - before < 4000);
    g->init_pid = 0;
    assert_int_equal(rig_boot(g, NULL, NULL, 0), 0);
}

/* Drain, signal frame, SIGTERM, SIGKILL: a unit that does not react is gone after five seconds. */
static void a_unit_that_hangs_is_killed(void **state)
{
    int64_t before = mono_ms();

    (void)state;
    rig_signal_unit(g, "execsvc", SIGSTOP);
    assert_int_equal(init_error("init/stop", "{\"name\":\"execsvc\"}"), 0);
    assert_true(unit_is("execsvc", "stopped"));
    assert_in_range(mono_ms() - before, 4500, 9000);
    assert_int_equal(init_error("init/start", "{\"name\":\"execsvc\"}"), 0);
}

/* A reboot is a new suite under the same pid; the master key was wiped long ago. */
static void reboot_in_place(void **state)
{
    cleanup(json_putp) json_object *o = rig_init_call(g, "init/list", NULL, NULL);
    char id[128];

    (void)state;
    str_copy(id, sizeof(id), json_str(o, "bootId", ""));
    assert_int_equal(init_error("init/shutdown", "{\"reboot\":true}"), 0);
    assert_true(rig_until(other_boot, id));
    assert_int_equal(kill(g->init_pid, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_is_up_when_ready_is_said),
        cmocka_unit_test(no_process_shows_a_secret),
        cmocka_unit_test(units_hold_only_their_own_listeners),
        cmocka_unit_test(sockets_are_0600_in_a_dir_of_0700),
        cmocka_unit_test(each_unit_comes_back_after_sigkill),
        cmocka_unit_test(status_tells_more),
        cmocka_unit_test(repeated_crashes_back_off),
        cmocka_unit_test(stop_start_restart),
        cmocka_unit_test(a_required_unit_restarts_but_does_not_stop),
        cmocka_unit_test(errors_of_the_control_socket),
        cmocka_unit_test(reload_names_whom_it_told),
        cmocka_unit_test(logs_of_units),
        cmocka_unit_test(logs_can_be_followed),
        cmocka_unit_test(sigusr1_dumps_the_units),
        cmocka_unit_test(a_foreign_user_gets_no_answer),
        cmocka_unit_test(shutdown_in_reverse_order),
        cmocka_unit_test(shutdown_by_the_control_socket),
        cmocka_unit_test(the_second_sigterm_skips_waiting),
        cmocka_unit_test(a_unit_that_hangs_is_killed),
        cmocka_unit_test(reboot_in_place),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
