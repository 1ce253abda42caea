/* See rig.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/ipc/peer.h"
#include "common/svc/token.h"
#include "tests/rig/rig.h"

extern char **environ;

static _Noreturn void give_up(const struct rig *g, const char *what)
{
    fprintf(stderr, "rig: %s\n", what);
    char *err = NULL;
    size_t n = 0;
    if (g && *g->err_path && file_read(g->err_path, 1 << 20, &err, &n) == 0)
        fprintf(stderr, "--- stderr of the daemon ---\n%s\n", err);
    free(err);
    if (g && g->init_pid > 0)
        kill(g->init_pid, SIGKILL);
    exit(1);
}

const char *rig_bin(const char *name)
{
    static char ring[8][512];
    static unsigned at;
    const char *dir = getenv("AVIX_TEST_BIN");
    if (str_empty(dir))
        give_up(NULL, "AVIX_TEST_BIN is not set; run through tests/run");
    char *p = ring[at++ % N_ELEMS(ring)];
    snprintf(p, sizeof ring[0], "%s/%s", dir, name);
    return p;
}

char *rig_read_line(int fd, int timeout_ms)
{
    struct buf b = BUF_INIT(1 << 20);
    int64_t end = mono_ms() + timeout_ms;
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int64_t left = end - mono_ms();
        char c;
        if (left <= 0 || poll(&p, 1, (int)left) != 1 || read(fd, &c, 1) != 1) {
            buf_done(&b);
            return NULL;
        }
        if (c == '\n')
            return buf_take(&b);
        buf_addc(&b, c);
    }
}

/* The environment of every program a rig starts: nothing of the developer's own. */
static char **make_env(const struct rig *g, const char *const *more)
{
    static const char *const keep[] = {
        "PATH",   "ASAN_OPTIONS",   "UBSAN_OPTIONS", "LSAN_OPTIONS",
        "TMPDIR", "AVIX_TEST_DATA", "AVIX_TEST_BIN", "GCOV_PREFIX"
    };
    size_t n = 0, cap = 64;
    char **env = xcalloc(cap, sizeof *env);
    for (size_t i = 0; i < N_ELEMS(keep); i++)
        if (getenv(keep[i]))
            env[n++] = xasprintf("%s=%s", keep[i], getenv(keep[i]));
    env[n++] = xasprintf("HOME=%s", g->dir);
    env[n++] = xasprintf("XDG_CONFIG_HOME=%s/config", g->dir);
    env[n++] = xasprintf("XDG_STATE_HOME=%s/state", g->dir);
    env[n++] = xasprintf("AVIX_RUN_DIR=%s", g->run_dir);
    env[n++] = xasprintf("AVIX_ROOT=%s", g->root);
    env[n++] = xasprintf("AVIX_MASTER_KEY=%s", RIG_MASTER_KEY);
    env[n++] = xasprintf("LANG=C.UTF-8");
    if (*g->url)
        env[n++] = xasprintf("AVIX_URL=%s", g->url);
    if (*g->admin_url)
        env[n++] = xasprintf("AVIX_ADMIN_URL=%s", g->admin_url);
    if (*g->api_key)
        env[n++] = xasprintf("AVIX_API_KEY=%s", g->api_key);
    for (; more && *more && n + 1 < cap; more++)
        env[n++] = xstrdup(*more);
    return env;
}

static void free_env(char **env)
{
    for (char **e = env; *e; e++)
        free(*e);
    free(env);
}

/* Starts a program; in, out, err: descriptors for it or -1 for /dev/null. */
static pid_t start(const struct rig *g, const char *const *argv, const char *const *more, int in,
                   int out, int err)
{
    char **env = make_env(g, more);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(in >= 0 ? in : null, 0);
        dup2(out >= 0 ? out : null, 1);
        dup2(err >= 0 ? err : null, 2);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(argv[0], (char *const *)(uintptr_t)argv, env);
        _exit(127);
    }
    free_env(env);
    return pid;
}

/* Exit status (128 + signal), or -1 after the deadline with the process killed. */
static int wait_exit(pid_t pid, int timeout_ms)
{
    int64_t end = mono_ms() + timeout_ms;
    int status;
    for (;;) {
        pid_t r = waitpid(pid, &status, WNOHANG);
        if (r == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (r < 0)
            return -1;
        if (mono_ms() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        poll(NULL, 0, 2);
    }
}

int rig_run(struct rig *g, const char *const *argv, const char *stdin_text, char **out, char **err)
{
    int in[2], fds[2][2];
    if (pipe2(in, O_CLOEXEC) || pipe2(fds[0], O_CLOEXEC) || pipe2(fds[1], O_CLOEXEC))
        give_up(g, "pipe");
    pid_t pid = start(g, argv, NULL, in[0], fds[0][1], fds[1][1]);
    close(in[0]);
    close(fds[0][1]);
    close(fds[1][1]);
    if (stdin_text && write(in[1], stdin_text, strlen(stdin_text)) < 0)
        give_up(g, "write to a child");
    close(in[1]);
    struct buf b[2] = { BUF_INIT(64 << 20), BUF_INIT(64 << 20) };
    bool open_[2] = { true, true };
    int64_t end = mono_ms() + 120000;
    while ((open_[0] || open_[1]) && mono_ms() < end) {
        struct pollfd p[2] = { { .fd = open_[0] ? fds[0][0] : -1, .events = POLLIN },
                               { .fd = open_[1] ? fds[1][0] : -1, .events = POLLIN } };
        poll(p, 2, 1000);
        for (int i = 0; i < 2; i++) {
            if (!open_[i] || !p[i].revents)
                continue;
            char chunk[8192];
            ssize_t n = read(fds[i][0], chunk, sizeof chunk);
            if (n <= 0)
                open_[i] = false;
            else
                buf_add(&b[i], chunk, (size_t)n);
        }
    }
    close(fds[0][0]);
    close(fds[1][0]);
    int r = wait_exit(pid, 10000);
    if (out)
        *out = buf_take(&b[0]);
    if (err)
        *err = buf_take(&b[1]);
    buf_done(&b[0]);
    buf_done(&b[1]);
    return r;
}

int rig_avix(struct rig *g, char **out, char **err, ...)
{
    const char *argv[40] = { rig_bin("avix") };
    size_t n = 1;
    va_list ap;
    va_start(ap, err);
    while (n + 1 < N_ELEMS(argv) && (argv[n] = va_arg(ap, const char *)))
        n++;
    va_end(ap);
    return rig_run(g, argv, NULL, out, err);
}

static void config_init(struct rig *g)
{
    char *out = NULL, *err = NULL;
    const char *argv[] = { rig_bin("avix"),     "server",      "config", "init", "--root", g->root,
                           "--non-interactive", "--no-detect", "--json", NULL };
    json_object *o = NULL;
    int r = rig_run(g, argv, NULL, &out, &err);
    if (r != 0 || json_parse(out, strlen(out), &o) != 0 ||
        !str_copy(g->api_key, sizeof g->api_key, json_str(o, "api_key", ""))) {
        fprintf(stderr, "config init: exit %d\n%s%s\n", r, out, err);
        give_up(g, "config init failed");
    }
    json_put(o);
    free(out);
    free(err);
}

static int port_of(const char *url)
{
    const char *colon = url ? strrchr(url, ':') : NULL;
    return colon ? (int)strtol(colon + 1, NULL, 10) : 0;
}

int rig_boot(struct rig *g, const struct rig_opts *o, char *err_line, size_t size)
{
    const char *argv[32] = { rig_bin("avix"), "server", "start",        "--root",      g->root,
                             "--port",        "0",      "--admin-addr", "127.0.0.1:0", "--json" };
    size_t n = 10;
    for (const char *const *a = o ? o->args : NULL; a && *a && n + 1 < N_ELEMS(argv); a++)
        argv[n++] = *a;
    int out[2];
    snprintf(g->err_path, sizeof g->err_path, "%s/stderr", g->dir);
    int err = open(g->err_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (err < 0 || pipe2(out, O_CLOEXEC) < 0)
        give_up(g, "cannot open files for the daemon");
    g->url[0] = g->admin_url[0] = 0;
    g->init_pid = start(g, argv, o ? o->env : NULL, -1, out[1], err);
    close(out[1]);
    close(err);
    char *line = rig_read_line(out[0], 60000);
    json_object *ready = NULL;
    if (!line || json_parse(line, strlen(line), &ready) != 0) {
        close(out[0]);
        int r = wait_exit(g->init_pid, 30000);
        g->init_pid = 0;
        char *text = NULL;
        size_t len = 0;
        if (err_line && file_read(g->err_path, 1 << 20, &text, &len) == 0)
            snprintf(err_line, size, "%.*s", (int)strcspn(text, "\n"), text);
        free(text);
        free(line);
        return r ? r : -1;
    }
    str_copy(g->url, sizeof g->url, json_str(ready, "url", ""));
    str_copy(g->admin_url, sizeof g->admin_url, json_str(ready, "admin_url", ""));
    g->port = port_of(g->url);
    g->admin_port = port_of(g->admin_url);
    g->ready_ms = (int)json_int(ready, "ready_ms", -1);
    if (g->out_fd > 0)
        close(g->out_fd);
    g->out_fd = out[0];
    json_put(ready);
    free(line);
    return 0;
}

struct rig *rig_new(const struct rig_opts *o)
{
    struct rig *g = xcalloc(1, sizeof *g);
    const char *tmp = getenv("TMPDIR");
    snprintf(g->dir, sizeof g->dir, "%s/rig.XXXXXX", str_empty(tmp) ? "/tmp" : tmp);
    /* socket paths are short: the run dir lies in /tmp itself */
    snprintf(g->run_dir, sizeof g->run_dir, "/tmp/avix-rig.XXXXXX");
    if (!mkdtemp(g->dir) || !mkdtemp(g->run_dir))
        give_up(g, "cannot make a folder");
    snprintf(g->root, sizeof g->root, "%s/root", g->dir);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what outlives init is ours to see and to end */
    config_init(g);
    if (o && o->before)
        o->before(g);
    if (o && o->no_start)
        return g;
    char line[512] = "";
    int r = rig_boot(g, o, line, sizeof line);
    if (r) {
        fprintf(stderr, "rig: server start: exit %d: %s\n", r, line);
        give_up(g, "the daemon did not start");
    }
    return g;
}

/* A double that the test itself started is no part of the suite. */
static bool is_double(pid_t pid)
{
    char path[64];
    cleanup(freep) char *comm = NULL;
    size_t len = 0;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    return file_read(path, 4096, &comm, &len) == 0 && str_starts(comm, "test-");
}

/* pids of all processes below ancestor, ancestor not included; returns their number. */
static int descendants(pid_t ancestor, pid_t *out, int max)
{
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t pid;
        if (!parse_i64(e->d_name, 2, INT32_MAX, &pid))
            continue;
        pid_t p = (pid_t)pid;
        for (int depth = 0; p > 1 && depth < 64; depth++) {
            p = proc_parent(p);
            if (p == ancestor) {
                if (is_double((pid_t)pid))
                    break;
                if (n < max)
                    out[n] = (pid_t)pid;
                n++;
                break;
            }
        }
    }
    closedir(d);
    return n;
}

int rig_count_processes(struct rig *g)
{
    pid_t list[256];
    return g->init_pid > 0 ? descendants(g->init_pid, list, N_ELEMS(list))
                           : descendants(getpid(), list, N_ELEMS(list));
}

static bool no_children(void *arg)
{
    (void)arg;
    pid_t list[256];
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return descendants(getpid(), list, N_ELEMS(list)) == 0;
}

/* After init is gone: what it left behind ends by its own rules (PDEATHSIG); anything that stays is
 * a defect. */
static void expect_empty(struct rig *g)
{
    pid_t list[64];
    if (rig_until(no_children, NULL))
        return;
    int n = descendants(getpid(), list, N_ELEMS(list));
    for (int i = 0; i < n && i < (int)N_ELEMS(list); i++) {
        char path[64], *cmd = NULL;
        size_t len = 0;
        snprintf(path, sizeof path, "/proc/%d/comm", (int)list[i]);
        if (file_read(path, 4096, &cmd, &len) == 0)
            fprintf(stderr, "left behind: pid %d %s", (int)list[i], cmd);
        free(cmd);
        kill(list[i], SIGKILL);
    }
    give_up(g, "processes outlived the daemon");
}

void rig_crash(struct rig *g)
{
    kill(g->init_pid, SIGKILL);
    wait_exit(g->init_pid, 10000);
    g->init_pid = 0;
    expect_empty(g);
}

int rig_shutdown(struct rig *g)
{
    kill(g->init_pid, SIGTERM);
    int r = wait_exit(g->init_pid, 45000);
    g->init_pid = 0;
    if (r < 0)
        give_up(g, "the daemon did not stop");
    expect_empty(g);
    return r;
}

void rig_stop(struct rig *g)
{
    if (!g)
        return;
    if (g->init_pid > 0)
        rig_shutdown(g);
    if (g->out_fd > 0)
        close(g->out_fd);
    rm_rf(g->dir);
    rm_rf(g->run_dir);
    free(g);
}

void rig_stopp(struct rig **g)
{
    rig_stop(*g);
    *g = NULL;
}

const char *rig_sock(struct rig *g, const char *name)
{
    static char ring[8][256];
    static unsigned at;
    char *p = ring[at++ % N_ELEMS(ring)];
    snprintf(p, sizeof ring[0], "%s/%s", g->run_dir, name);
    return p;
}

json_object *rig_init_call(struct rig *g, const char *method, json_object *params, int *err)
{
    struct ipc_req q = {
        .sock = rig_sock(g, "init.sock"), .method = method, .params = params, .timeout_ms = 40000
    };
    struct ipc_reply r;
    int e = ipc_call(&q, &r);
    json_object *o = e ? NULL : TAKE(r.result);
    if (err)
        *err = e;
    ipc_reply_done(&r);
    json_put(params);
    return o;
}

json_object *rig_unit(struct rig *g, const char *unit)
{
    json_object *o = rig_init_call(g, "init/list", NULL, NULL), *hit = NULL;
    json_object *units = json_arr(o, "units");
    for (size_t i = 0; units && i < json_object_array_length(units); i++) {
        json_object *u = json_object_array_get_idx(units, i);
        if (str_eq(json_str(u, "name", ""), unit))
            hit = json_object_get(u);
    }
    json_put(o);
    return hit;
}

pid_t rig_unit_pid(struct rig *g, const char *unit)
{
    json_object *u = rig_unit(g, unit);
    pid_t pid =
        str_eq(json_str(u, "state", ""), "running") || str_eq(json_str(u, "state", ""), "degraded")
            ? (pid_t)json_int(u, "hostPid", 0)
            : 0;
    json_put(u);
    return pid;
}

void rig_signal_unit(struct rig *g, const char *unit, int signo)
{
    pid_t pid = rig_unit_pid(g, unit);
    if (pid <= 0)
        give_up(g, "the unit to signal is not running");
    kill(pid, signo);
}

struct restarted {
    struct rig *g;
    const char *unit;
    pid_t old;
};
static bool is_restarted(void *arg)
{
    struct restarted *x = arg;
    pid_t pid = rig_unit_pid(x->g, x->unit);
    return pid > 0 && pid != x->old;
}

void rig_kill_unit(struct rig *g, const char *unit)
{
    struct restarted x = { g, unit, rig_unit_pid(g, unit) };
    if (x.old <= 0)
        give_up(g, "the unit to kill is not running");
    kill(x.old, SIGKILL);
    if (!rig_until(is_restarted, &x))
        give_up(g, "a killed unit did not come back");
}

char *rig_sign(const char *key, json_object *claims)
{
    uint8_t master[32], sub[32];
    hex_decode(RIG_MASTER_KEY, 64, master);
    key_derive(master, sizeof master, key, sub);
    struct hmac *h = hmac_new(sub, sizeof sub);
    const char *text = json_text(claims);
    char *token = token_sign(h, text, strlen(text));
    hmac_free(h);
    json_put(claims);
    return token;
}

char *rig_token(struct rig *g, const char *granted, json_object *extra)
{
    (void)g;
    char id[UUID_LEN], now[RFC3339_LEN], end[RFC3339_LEN];
    json_object *list = json_new_arr();
    for (const char *p = granted; *p;) {
        size_t n = strcspn(p, " ");
        json_push(list, json_object_new_string_len(p, (int)n));
        p += n;
        p += strspn(p, " ");
    }
    json_object *c = json_make(
        "kind:s tokenId:s lineage:s pid:i hostPid:i hostStart:i agent:s sub:s uid:i role:s crews:o sessionId:s atpSession:s "
        "granted:o runtime:o constraints:o budgets:o issuedAt:s expiresAt:s",
        "CapabilityToken", uuid4(id), id, (int64_t)5000, (int64_t)getpid(),
        (int64_t)proc_start_time(getpid()), "test", "admin", (int64_t)1001, "admin", json_new_arr(),
        "", "", list, json_new_arr(), json_new(), json_new(), rfc3339(now_ms(), now),
        rfc3339(now_ms() + 3600000, end));
    if (extra) {
        json_object_object_foreach (extra, key, val) {
            json_add(c, key, json_object_get(val));
        }
        json_put(extra);
    }
    return rig_sign("cap", c);
}

int rig_call(struct rig *g, const char *token, const char *method, const char *params,
             struct ipc_reply *r)
{
    json_object *o = NULL;
    if (params && json_parse(params, strlen(params), &o) != 0)
        give_up(g, "a test passed params that are no JSON");
    struct ipc_req q = { .sock = rig_sock(g, "router.sock"),
                         .method = method,
                         .params = o,
                         .token = token,
                         .timeout_ms = 40000 };
    int e = ipc_call(&q, r);
    json_put(o);
    return e;
}

bool rig_until(bool (*cond)(void *), void *arg)
{
    int64_t end = mono_ms() + RIG_WAIT_MS;
    do {
        if (cond(arg))
            return true;
        poll(NULL, 0, 5);
    } while (mono_ms() < end);
    return cond(arg);
}

char *rig_read(struct rig *g, const char *rel)
{
    char path[512], *text = NULL;
    size_t len = 0;
    snprintf(path, sizeof path, "%s/%s", g->root, rel);
    return file_read(path, 64 << 20, &text, &len) == 0 ? text : NULL;
}

void rig_write(struct rig *g, const char *rel, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", g->root, rel);
    char *slash = strrchr(path, '/');
    *slash = 0;
    mkdir_p(path, 0700);
    *slash = '/';
    if (file_write_atomic(path, text, strlen(text), 0600))
        give_up(g, "cannot write a file of the root");
}

char *rig_data(const char *rel, size_t *len)
{
    char path[512], *text = NULL;
    size_t n = 0;
    const char *dir = getenv("AVIX_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "tests/data", rel);
    if (file_read(path, 64 << 20, &text, &n) != 0) {
        fprintf(stderr, "rig: %s: cannot read\n", path);
        exit(1);
    }
    if (len)
        *len = n;
    return text;
}
