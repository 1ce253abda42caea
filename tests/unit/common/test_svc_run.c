/*
 * svc_main as init starts it: this program executes itself as a unit with real descriptors, keys
 * and environment, and is init and router of that unit.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/svc/svc.h"
#include "tests/rig/rig.h"

#define WAIT_MS 10000

/* --- the unit -------------------------------------------------------------------------------- */

static struct call *kept;

static void tool_whoami(struct call *c, const struct caller *who)
{
    call_reply(c, json_make("user:s pid:i", who->user, who->pid));
}

static void tool_env(struct call *c, const struct caller *who)
{
    cleanup(freep) char *text = NULL;
    const uint8_t *key = svc_key(KEY_KERN);
    size_t len = 0;

    (void)who;
    int r = file_read("/proc/self/environ", 65536, &text, &len);

    call_reply(c, json_make("token:s in_env:b leaked:b key:i other:b keys_fd:i router:s",
                            svc.token ? svc.token : "", getenv("AVIX_SVC_TOKEN") != NULL,
                            r == 0 && memmem(text, len, "secret-token", 12) != NULL,
                            (int64_t)(key ? key[0] : -1), svc_key(KEY_CAP) != NULL,
                            (int64_t)svc_fd("keys"), svc_sock(UNIT_ROUTER)));
}

static void tool_try(struct call *c, const struct caller *who)
{
    char *argv[] = { (char[]){ "/bin/true" }, NULL };
    int inet = socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
    int unx = socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? errno : 0;
    pid_t pid = fork();
    int status = 0;

    (void)who;
    if (pid == 0) {
        execv(argv[0], argv);
        _exit(errno);
    }
    waitpid(pid, &status, 0);
    call_reply(c, json_make("inet:i unix:i exec:i", (int64_t)inet, (int64_t)unx,
                            (int64_t)WEXITSTATUS(status)));
}

static void tool_keep(struct call *c, const struct caller *who)
{
    (void)who;
    kept = c;
    svc_status("kept");
}

static void unit_stop(void)
{
    if (kept)
        call_reply(kept, json_make("drained:b", 1));
    kept = NULL;
}

static void frame_from_kernel(struct call *c, const struct caller *who)
{
    call_reply(c, json_make("frame:b", who == NULL));
}

static void frame_from_agent(struct call *c, const struct caller *who)
{
    (void)who;
    call_reply(c, json_make("agent:b", 1));
}

static void unit_reload(void)
{
    svc_status("reloaded");
    svc_tool_state("fs/keep", "degraded", "told to");
}

static const struct method rows[] = {
    { .name = "fs/whoami",
      .flags = M_READONLY,
      .min_role = ROLE_USER,
      .timeout_s = 7,
      .desc = "who",
      .input = "{\"x\":{\"type\":\"string\"}}",
      .fn = tool_whoami },
    { .name = "fs/env", .flags = M_INTERNAL, .fn = tool_env },
    { .name = "fs/try", .flags = M_HIDDEN, .fn = tool_try },
    { .name = "fs/keep", .flags = M_STREAM, .stream_idle_s = -1, .fn = tool_keep },
    { .name = "kernel.says", .flags = M_FRAME, .from = FROM(UNIT_KERNEL), .fn = frame_from_kernel },
    { .name = "agent.says", .flags = M_FRAME, .from = FROM_AGENT, .fn = frame_from_agent },
};
static const struct svc_spec spec = {
    .unit = UNIT_MEMFS,
    .methods = rows,
    .n_methods = N_ELEMS(rows),
    .stop = unit_stop,
    .reload = unit_reload,
};

/* --- init and router of the unit ---------------------------------------------------------------
 */

static struct {
    char dir[64], root[80], run[80];
    struct loop *loop;
    int unit_fd, router_fd, notify_fd;
    struct server *router;
    int n_adds, refuse_adds;
    json_object *tools; /* of the last tool-add */
    pid_t unit;
    bool ready;
    char status[64];
    struct watch notify;
} t;

static int listen_at(const char *name)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };

    assert_int_equal(path_fmt(sa.sun_path, sizeof(sa.sun_path), "%s/%s", t.run, name), 0);
    unlink(sa.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static void on_router(struct call *c, void *arg)
{
    (void)arg;
    assert_string_equal(c->method, "ipc.tool-add");
    assert_string_equal(json_str(c->params, "_token", ""), "secret-token");
    assert_false(t.ready && t.n_adds == t.refuse_adds); /* READY=1 only after it was accepted */
    t.n_adds++;
    if (t.n_adds <= t.refuse_adds) {
        call_fail(c, ERR_UNAVAIL, "not yet");
        return;
    }
    json_put(t.tools);
    t.tools = json_object_get(json_arr(c->params, "tools"));
    call_reply(c, json_make("added:b skipped:o", 1, json_new_arr()));
}

static void on_notify(int fd, unsigned events, void *arg)
{
    char text[256];
    ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    (void)events;
    (void)arg;
    if (n < 0)
        return;
    text[n] = '\0';
    if (str_eq(text, "READY=1"))
        t.ready = true;
    if (str_starts(text, "STATUS="))
        str_copy(t.status, sizeof(t.status), text + 7);
}

/* Who the unit believes that we are: any subset of init, router, kernel. */
static void we_are(bool as_init, const char *unit)
{
    char path[128];
    json_object *list = json_new_arr();
    int64_t start = (int64_t)proc_start_time(getpid());

    if (as_init)
        json_push(list, json_make("name:s pid:i start:i", "init", (int64_t)getpid(), start));
    if (unit)
        json_push(list, json_make("name:s pid:i start:i", unit, (int64_t)getpid(), start));
    cleanup(json_putp) json_object *doc = json_make("units:o", list);

    (void)path_fmt(path, sizeof(path), "%s/units.json", t.run);
    assert_int_equal(file_write_rename(path, json_text(doc), strlen(json_text(doc)), 0600), 0);
}

static int keys_fd(void)
{
    struct key_record rec[1] = { { .name = "kern" } };

    memset(rec[0].key, 0x5a, KEY_LEN);
    return memfd_sealed("keys", rec, sizeof(rec));
}

static void child(const char *config)
{
    char path[160], sock[160];
    char *argv[] = { (char[]){ "/proc/self/exe" }, NULL };
    int keys = fcntl(keys_fd(), F_DUPFD, 50), unit = fcntl(t.unit_fd, F_DUPFD, 50);

    (void)config;
    dup2(unit, 3);
    dup2(keys, 4);
    close_range(5, ~0U, 0);
    clearenv();
    (void)path_fmt(path, sizeof(path), "%d", (int)getpid());
    (void)path_fmt(sock, sizeof(sock), "%s/notify.sock", t.run);
    setenv("AVIX_ROOT", t.root, 1);
    setenv("AVIX_RUN_DIR", t.run, 1);
    setenv("AVIX_SVC_TOKEN", "secret-token", 1);
    setenv("NOTIFY_SOCKET", sock, 1);
    setenv("LISTEN_PID", path, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "memfs:keys", 1);
    setenv("AVIX_TEST_UNIT", "1", 1);
    execve("/proc/self/exe", argv, environ);
    _exit(111);
}

static void unit_start(void)
{
    t.ready = false;
    t.n_adds = 0;
    t.status[0] = '\0';
    t.unit = fork();
    if (t.unit == 0)
        child(NULL);
}

static bool step_until(bool (*cond)(void))
{
    int64_t end = mono_ms() + WAIT_MS;
    struct timer tick;

    timer_init(&tick, t.loop, (loop_fn)timer_stop, &tick);
    while (!cond() && mono_ms() < end) {
        timer_set(&tick, 50);
        loop_step(t.loop, true);
    }
    timer_done(&tick);
    return cond();
}

static bool is_ready(void)
{
    return t.ready;
}

static struct {
    bool done;
    int err;
    json_object *result;
} answer;

static bool is_answered(void)
{
    return answer.done;
}

static void on_answer(struct ipc_reply *r, void *arg)
{
    (void)arg;
    answer.done = true;
    answer.err = r->err;
    answer.result = TAKE(r->result);
}

/* A request to the unit; the result is borrowed until the next one. */
static int ask(const char *method, const char *params)
{
    char sock[128];
    cleanup(json_putp) json_object *p = NULL;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    (void)path_fmt(sock, sizeof(sock), "%s/memfs.sock", t.run);
    json_put(answer.result);
    memset(&answer, 0, sizeof(answer));
    struct ipc_req q = { .sock = sock, .method = method, .params = p, .timeout_ms = WAIT_MS };

    (void)ipc_start(t.loop, &q, NULL, on_answer, NULL);
    assert_true(step_until(is_answered));
    return answer.err;
}

static void tell(const char *method, const char *params)
{
    char sock[128];
    struct ipc_reply r;
    cleanup(json_putp) json_object *p = NULL;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    (void)path_fmt(sock, sizeof(sock), "%s/memfs.sock", t.run);
    struct ipc_req q = { .sock = sock, .method = method, .params = p, .note = true };

    assert_int_equal(ipc_call(&q, &r), 0);
    ipc_reply_done(&r);
}

static int unit_end(void)
{
    int status = 0;
    int64_t end = mono_ms() + WAIT_MS;

    while (waitpid(t.unit, &status, WNOHANG) == 0 && mono_ms() < end)
        loop_step(t.loop, false);
    t.unit = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int setup(void **state)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    char path[160];
    static const char yaml[] = "apiVersion: avix/v1\nkind: KernelConfig\nspec: {}\n";

    (void)state;
    memset(&t, 0, sizeof(t));
    snprintf(t.dir, sizeof(t.dir), "/tmp/svc-run-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.root, sizeof(t.root), "%s/root", t.dir);
    snprintf(t.run, sizeof(t.run), "%s/run", t.dir);
    snprintf(path, sizeof(path), "%s/etc", t.root);
    assert_int_equal(mkdir_p(path, 0700), 0);
    assert_int_equal(mkdir_p(t.run, 0700), 0);
    snprintf(path, sizeof(path), "%s/etc/kernel.yaml", t.root);
    assert_int_equal(file_write_rename(path, yaml, strlen(yaml), 0600), 0);
    t.loop = loop_new();
    t.unit_fd = listen_at("memfs.sock");
    t.router_fd = listen_at("router.sock");
    t.router = server_new(t.loop, t.router_fd, &(struct server_opts){ 0 }, on_router, NULL);
    (void)path_fmt(sa.sun_path, sizeof(sa.sun_path), "%s/notify.sock", t.run);
    t.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(t.notify_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    watch_init(&t.notify, t.loop, t.notify_fd, on_notify, NULL);
    watch_set(&t.notify, LOOP_READ);
    we_are(false, "router");
    unit_start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (t.unit > 0) {
        kill(t.unit, SIGKILL);
        waitpid(t.unit, NULL, 0);
    }
    json_put(answer.result);
    memset(&answer, 0, sizeof(answer));
    json_put(t.tools);
    watch_done(&t.notify);
    server_free(t.router);
    loop_free(t.loop);
    close(t.notify_fd);
    close(t.router_fd);
    close(t.unit_fd);
    rm_rf(t.dir);
    return 0;
}

#define CALLER "{\"_caller\":{\"kind\":\"user\",\"pid\":0,\"user\":\"alice\",\"role\":\"user\"}}"

/* --- tests -------------------------------------------------------------------------------------
 */

static json_object *tool(const char *name)
{
    for (size_t i = 0; i < json_object_array_length(t.tools); i++) {
        json_object *o = json_object_array_get_idx(t.tools, i);

        if (str_eq(json_str(o, "name", ""), name))
            return o;
    }
    return NULL;
}

static void registers_whole_descriptors_then_ready(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    assert_int_equal(json_object_array_length(t.tools), 3); /* no frames, no hidden ones */
    json_object *d = json_obj(tool("fs/whoami"), "descriptor");

    assert_string_equal(json_str(d, "name", ""), "fs/whoami");
    assert_string_equal(json_str(d, "description", ""), "who");
    assert_true(json_flag(d, "readOnly", false));
    assert_int_equal(json_int(d, "timeout", 0), 7);
    assert_string_equal(json_str(d, "min_role", ""), "user");
    assert_non_null(json_obj(json_obj(d, "input"), "x"));
    assert_string_equal(json_str(json_obj(d, "ipc"), "method", ""), "fs/whoami");
    assert_true(str_ends(json_str(json_obj(d, "ipc"), "endpoint", ""), "/memfs.sock"));
    assert_string_equal(json_str(tool("fs/env"), "visibility", ""), "internal");
    d = json_obj(tool("fs/keep"), "descriptor");
    assert_true(json_flag(d, "streaming", false));
    assert_int_equal(json_int(d, "stream_idle", -5), 0);
}

static void registration_is_repeated_until_accepted(void **state)
{
    (void)state;
    t.refuse_adds = 3;
    assert_true(step_until(is_ready));
    assert_int_equal(t.n_adds, 4);
}

static void tools_come_from_the_router_only(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    assert_int_equal(ask("fs/whoami", CALLER), 0);
    assert_string_equal(json_str(answer.result, "user", ""), "alice");
    assert_int_equal(ask("fs/whoami", "{}"), ERR_REQUEST); /* the router always stamps */
    assert_int_equal(ask("fs/nothing", CALLER), ERR_METHOD);
}

static void a_stranger_reaches_no_tool(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    we_are(false, NULL);
    assert_int_equal(ask("fs/whoami", CALLER), ERR_PERM);
    assert_int_equal(ask("agent.says", "{}"), 0);
    we_are(false, "gateway");
    assert_int_equal(ask("fs/whoami", CALLER), ERR_PERM);
    assert_int_equal(ask("kernel.says", "{}"), ERR_PERM);
}

static void frames_come_from_their_peers(void **state)
{
    (void)state;
    we_are(false, NULL);
    assert_true(step_until(is_ready));
    assert_int_equal(ask("kernel.says", "{}"), ERR_PERM);
    we_are(false, "kernel"); /* the table is read again for a peer that is unknown */
    assert_int_equal(ask("kernel.says", "{}"), 0);
    assert_true(json_flag(answer.result, "frame", false));
    assert_int_equal(ask("agent.says", "{}"), ERR_PERM); /* a unit is no agent */
}

static void secrets_leave_the_environment(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    assert_int_equal(ask("fs/env", CALLER), 0);
    assert_string_equal(json_str(answer.result, "token", ""), "secret-token");
    assert_false(json_flag(answer.result, "in_env", true));
    assert_false(json_flag(answer.result, "leaked", true));
    assert_int_equal(json_int(answer.result, "key", 0), 0x5a);
    assert_false(json_flag(answer.result, "other", true));
    assert_int_equal(json_int(answer.result, "keys_fd", 0), -1);
}

static void the_sandbox_holds(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    assert_int_equal(ask("fs/try", CALLER), 0);
    assert_int_equal(json_int(answer.result, "unix", -1), 0);
#if !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)
    assert_int_equal(json_int(answer.result, "inet", -1), EAFNOSUPPORT);
    assert_int_equal(json_int(answer.result, "exec", -1), EPERM);
#endif
}

static bool is_kept(void)
{
    return str_eq(t.status, "kept");
}

static void sigterm_drains_calls_in_flight(void **state)
{
    char sock[128];
    cleanup(json_putp) json_object *p = NULL;

    (void)state;
    assert_true(step_until(is_ready));
    json_parse(CALLER, strlen(CALLER), &p);
    (void)path_fmt(sock, sizeof(sock), "%s/memfs.sock", t.run);
    struct ipc_req q = { .sock = sock, .method = "fs/keep", .params = p };

    (void)ipc_start(t.loop, &q, NULL, on_answer, NULL);
    assert_true(step_until(is_kept));
    kill(t.unit, SIGTERM);
    assert_true(step_until(is_answered));
    assert_int_equal(answer.err, 0);
    assert_true(json_flag(answer.result, "drained", false));
    assert_int_equal(unit_end(), 0);
}

static bool is_reloaded(void)
{
    return str_eq(t.status, "reloaded") && t.n_adds == 2;
}

static void signal_frames_from_init_are_believed(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    we_are(false, NULL);
    tell("signal", "{\"signal\":\"SIGTERM\"}"); /* from a stranger: ignored */
    we_are(true, NULL);
    tell("signal", "{\"signal\":\"SIGHUP\"}");
    assert_true(step_until(is_reloaded));
    json_object *status = json_obj(json_obj(tool("fs/keep"), "descriptor"), "status");

    assert_string_equal(json_str(status, "state", ""), "degraded");
    assert_string_equal(json_str(status, "reason", ""), "told to");
    tell("signal", "{\"signal\":\"SIGTERM\"}");
    assert_int_equal(unit_end(), 0);
}

static void init_dying_ends_the_unit(void **state)
{
    (void)state;
    assert_true(step_until(is_ready));
    kill(t.unit, SIGINT); /* the same road as the parent death signal */
    assert_int_equal(unit_end(), 0);
}

int main(int argc, char **argv)
{
    if (getenv("AVIX_TEST_UNIT"))
        return svc_main(&spec, argc, argv);
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(registers_whole_descriptors_then_ready),
        T(registration_is_repeated_until_accepted),
        T(tools_come_from_the_router_only),
        T(a_stranger_reaches_no_tool),
        T(frames_come_from_their_peers),
        T(secrets_leave_the_environment),
        T(the_sandbox_holds),
        T(sigterm_drains_calls_in_flight),
        T(signal_frames_from_init_are_believed),
        T(init_dying_ends_the_unit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
