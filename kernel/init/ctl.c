/*
 * init.sock. Reading is for any process of our user; everything else needs the kernel's main
 * process or a process of our user (or root) that is no descendant of ours and in our pid
 * namespace, so that the command line gets through and no agent, service or sandbox does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/base/args.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "kernel/init/cgroup.h"
#include "kernel/init/init.h"

#define LOG_READ_MAX (1024 * 1024)
#define LINES_MAX    10000

static int ctl_fd = -1;
static struct server *server;

struct waiter {
    struct call *call;
    struct iunit *unit;
    bool want_up;
    LIST_ENTRY(waiter) link;
};
static LIST_HEAD(, waiter) waiters = LIST_HEAD_INITIALIZER(waiters);

/* --- who may ask ---------------------------------------------------------------------------------
 */

/* True if p is certainly no descendant of ours: its chain of parents ends outside, without a gap.
 */
static bool is_outside(const struct peer *p)
{
    pid_t self = getpid(), pid = p->pid;

    for (int i = 0; i < 4096; i++) {
        if (pid == self || pid < 0)
            return false;
        if (pid == 0)
            return proc_start_time(p->pid) == p->start;
        pid = proc_parent(pid);
    }
    return false;
}

/* How many pid namespaces deep a process is as we see it, 0 if it is gone. */
static int ns_depth(pid_t pid)
{
    char path[40];
    cleanup(freep) char *text = NULL;
    size_t len;
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    char *p = file_read(path, 16384, &text, &len) ? NULL : strstr(text, "\nNSpid:");

    if (!p)
        return 0;
    for (p += 7; *p && *p != '\n'; p++)
        n += *p == '\t';
    return n;
}

/* Whoever was put into a pid namespace of his own is shut in, be he our descendant or not. */
static bool is_shut_in(const struct peer *p)
{
    static int own;

    if (!own)
        own = ns_depth(getpid());
    return ns_depth(p->pid) != own || proc_start_time(p->pid) != p->start;
}

static bool is_kernel(const struct call *c)
{
    const struct iunit *k = &units[UNIT_KERNEL];

    if (!k->pid || !peer_same(&c->peer, k->pid, k->start))
        return false;
    /* without a pidfd the peer alone is no proof */
    return c->peer.pidfd >= 0 || token_of(json_str(c->params, "_token", NULL), "kernel", k->pid);
}

static bool may_change(const struct call *c)
{
    if (c->peer.pid <= 0 || !c->peer.start)
        return false;
    if (is_kernel(c))
        return true;
    return (c->peer.uid == geteuid() || c->peer.uid == 0) && is_outside(&c->peer) &&
           !is_shut_in(&c->peer);
}

/* --- units as JSON -------------------------------------------------------------------------------
 */

/* Protections that do not hold for this unit. */
static json_object *missing_json(const struct iunit *u)
{
    json_object *list = json_new_arr();

    for (size_t i = 0; i < u->n_missing; i++)
        json_push_str(list, u->missing[i]);
    if (!cgroup_available())
        json_push_str(list, "cgroup");
    return list;
}

static json_object *unit_json(const struct iunit *u)
{
    char since[RFC3339_LEN];

    return json_make(
        "name:s kind:s state:s pid:i hostPid:i startTime:i restarts:i required:b since:s missing:o",
        u->row->name, "builtin", unit_state_name(u), (int64_t)u->row->pid, (int64_t)u->pid,
        (int64_t)u->start, (int64_t)u->restarts, (int)u->row->required, rfc3339(u->since_ms, since),
        missing_json(u));
}

static json_object *last_exit(int status)
{
    if (status < 0)
        return NULL;
    if (WIFSIGNALED(status))
        return json_make("signal:i", (int64_t)WTERMSIG(status));
    return json_make("code:i", (int64_t)WEXITSTATUS(status));
}

/* Resident bytes of a process, 0 if unknown. */
static int64_t resident(pid_t pid)
{
    char path[64], *end;
    cleanup(freep) char *text = NULL;
    size_t len;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    if (pid <= 0 || file_read(path, 4096, &text, &len))
        return 0;
    (void)strtoll(text, &end, 10);
    return strtoll(end, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static void do_list(struct call *c)
{
    json_object *list = json_new_arr(), *o;

    for (int i = 0; i < UNIT_COUNT; i++)
        if (unit_uses(&units[i]))
            json_push(list, unit_json(&units[i]));
    o = json_make("bootId:s units:o agents:o exits:o url:s admin_url:s", init.boot_id, list,
                  agents_json(), reports_exits(), init.url,
                  init.admin_url[0] ? init.admin_url : NULL);
    json_add_str(o, "root", init.root);
    json_add_str(o, "level", (char[]){ init.level, '\0' });
    json_add_int(o, "pid", getpid());
    json_add_bool(o, "stopping", init.stopping);
    call_reply(c, o);
}

static struct iunit *unit_arg(struct call *c)
{
    struct args a = args_open(c->params);
    const char *name = args_str(&a, "name", 128);
    enum unit_id id = args_bad(&a) ? UNIT_NONE : unit_by_name(name);

    if (args_bad(&a))
        call_bad_args(c, &a);
    else if (id < 0 || !unit_uses(&units[id]))
        call_fail(c, ERR_NOTFOUND, "no unit named '%s'", name);
    else
        return &units[id];
    return NULL;
}

static void do_status(struct call *c)
{
    struct iunit *u = unit_arg(c);

    if (!u)
        return;
    json_object *o = unit_json(u);

    json_add(o, "last_exit", last_exit(u->status));
    json_add_int(o, "memory", resident(u->pid));
    json_add_str(o, "log", logfile_path(u->log));
    json_add_str(o, "status", u->status_text);
    json_add_int(o, "ready_ms", u->boot_ms);
    call_reply(c, o);
}

/* --- start, stop, restart ------------------------------------------------------------------------
 */

static void reply_unit(struct call *c, const struct iunit *u)
{
    call_reply(c, json_make("name:s state:s pid:i hostPid:i", u->row->name, unit_state_name(u),
                            (int64_t)u->row->pid, (int64_t)u->pid));
}

static bool settled(const struct iunit *u, bool want_up)
{
    if (want_up)
        return u->state == ST_RUNNING || u->state == ST_FAILED || u->state == ST_BACKOFF;
    return u->state == ST_STOPPED || u->state == ST_FAILED;
}

static void waiter_free(struct waiter *w)
{
    LIST_REMOVE(w, link);
    free(w);
}

static void waiter_gone(void *arg)
{
    struct waiter *w = arg;

    call_end(w->call);
    waiter_free(w);
}

static void reply_or_wait(struct call *c, struct iunit *u, bool want_up)
{
    if (!json_flag(c->params, "wait", true) || settled(u, want_up)) {
        reply_unit(c, u);
        return;
    }
    struct waiter *w = xcalloc(1, sizeof(*w));

    *w = (struct waiter){ .call = c, .unit = u, .want_up = want_up };
    LIST_INSERT_HEAD(&waiters, w, link);
    call_on_gone(c, waiter_gone, w);
}

void ctl_unit_changed(struct iunit *u)
{
    struct waiter *w, *next;

    for (w = LIST_FIRST(&waiters); w; w = next) {
        next = LIST_NEXT(w, link);
        if (w->unit == u && settled(u, w->want_up)) {
            reply_unit(w->call, u);
            waiter_free(w);
        }
    }
}

static bool while_stopping(struct call *c)
{
    if (init.stopping)
        call_fail(c, ERR_CONFLICT, "shutting down");
    return init.stopping;
}

static void do_start(struct call *c)
{
    struct iunit *u = unit_arg(c);

    if (!u || while_stopping(c))
        return;
    u->want_up = true;
    unit_event(u, EV_START);
    reply_or_wait(c, u, true);
}

static void do_stop(struct call *c)
{
    struct iunit *u = unit_arg(c);

    if (!u || while_stopping(c))
        return;
    if (u->row->required) {
        call_fail(c, ERR_PERM, "%s is required; use shutdown", u->row->name);
        return;
    }
    u->want_up = false;
    unit_stop(u, json_flag(c->params, "force", false));
    reply_or_wait(c, u, false);
}

static void do_restart(struct call *c)
{
    struct iunit *u = unit_arg(c);

    if (!u || while_stopping(c))
        return;
    u->want_up = true;
    if (u->state == ST_RUNNING || u->state == ST_STARTING)
        unit_stop(u, json_flag(c->params, "force", false));
    else
        unit_event(u, EV_START);
    reply_or_wait(c, u, true);
}

static void log_level_reload(void)
{
    struct kernel_config *fresh = NULL;
    struct yaml_err e;
    enum log_level l;

    if (kernel_config_load(init.root, &fresh, &e) == 0 && log_level_parse(fresh->log_level, &l))
        log_set_level(l);
    kernel_config_free(fresh);
}

static void do_reload(struct call *c)
{
    json_object *done = json_new_arr();
    bool all = !json_get(c->params, "name");
    struct iunit *one = all ? NULL : unit_arg(c);

    if (!all && !one) {
        json_put(done);
        return;
    }
    log_level_reload();
    for (int i = 0; i < UNIT_COUNT; i++) {
        if ((all || one == &units[i]) && units[i].state == ST_RUNNING) {
            unit_reload(&units[i]);
            json_push_str(done, units[i].row->name);
        }
    }
    call_reply(c, json_make("reloaded:o added:o removed:o", done, json_new_arr(), json_new_arr()));
}

/* --- logs ----------------------------------------------------------------------------------------
 */

/* "memfs", "init", or an agent's Avix pid; false if there is no such log. */
static bool log_name(const char *name, char *rel, size_t size, bool *json)
{
    enum unit_id id = unit_by_name(name);
    int64_t pid;

    *json = true;
    if (id >= 0 || str_eq(name, "init"))
        return path_fmt(rel, size, "%s.log", id >= 0 ? unit_rows[id].name : name) == 0;
    if (str_starts(name, "agents/"))
        name += 7;
    *json = false;
    return parse_i64(name, 1, 4294967295LL, &pid) &&
           path_fmt(rel, size, "agents/%lld.log", (long long)pid) == 0;
}

/* The last n lines of a file; NULL if it cannot be read. */
static json_object *last_lines(const char *path, int64_t n)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return NULL;
    off_t from = st.st_size > LOG_READ_MAX ? st.st_size - LOG_READ_MAX : 0;
    cleanup(freep) char *text = xmalloc(LOG_READ_MAX + 1);
    ssize_t len = pread(fd, text, LOG_READ_MAX, from), at = len;

    while (at > 0 && n >= 0) {
        if (text[at - 1] == '\n' && at < len && n-- == 0)
            break;
        if (text[at - 1] == '\n' && at == len && n-- == 0)
            break;
        at--;
    }
    json_object *lines = json_new_arr();

    for (char *p = text + at, *end = text + (len > 0 ? len : 0); p < end;) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t m = (size_t)((nl ? nl : end) - p);

        if (utf8_valid(p, m))
            json_push(lines, json_object_new_string_len(p, (int)m));
        p += m + 1;
    }
    return lines;
}

static void do_logs(struct call *c)
{
    struct args a = args_open(c->params);
    const char *name = args_str(&a, "name", 128);
    int64_t n = args_int_or(&a, "lines", 0, LINES_MAX, 200);
    bool follow = args_bool_or(&a, "follow", false), json;
    char rel[64], path[512];

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    bool known = log_name(name, rel, sizeof(rel), &json) &&
                 path_fmt(path, sizeof(path), "%s/logs/%s", init.root, rel) == 0;
    json_object *lines = known ? last_lines(path, n) : NULL;

    if (!lines) {
        call_fail(c, ERR_NOTFOUND, "no log of '%s'", name);
        return;
    }
    if (!follow) {
        call_reply(c, json_make("lines:o", lines));
        return;
    }
    for (size_t i = 0; i < json_object_array_length(lines); i++)
        (void)call_note(c, "log.line",
                        json_make("unit:s line:s", name,
                                  json_object_get_string(json_object_array_get_idx(lines, i))));
    json_put(lines);
    struct logfile *f = logfile_open(rel, name, json);

    logfile_follow(f, c);
}

/* --- table ---------------------------------------------------------------------------------------
 */

static void do_shutdown(struct call *c)
{
    struct args a = args_open(c->params);
    const char *reason = args_str_or(&a, "reason", 256, "");
    bool reboot = args_bool_or(&a, "reboot", false);
    int64_t grace = args_int_or(&a, "grace_secs", 0, 3600, -1);

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    shutdown_begin(reason, (int)grace, reboot);
    call_reply(c, json_make("ok:b", 1));
}

static const struct {
    const char *name;
    bool open; /* for every process of our user */
    void (*fn)(struct call *c);
} methods[] = {
    { "init/list", true, do_list },        { "init/status", true, do_status },
    { "init/start", false, do_start },     { "init/stop", false, do_stop },
    { "init/restart", false, do_restart }, { "init/reload", false, do_reload },
    { "init/logs", false, do_logs },       { "init/shutdown", false, do_shutdown },
    { "init/spawn", false, agent_spawn },  { "init/kill", false, agent_kill },
};

static void on_call(struct call *c, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < N_ELEMS(methods); i++) {
        if (!str_eq(methods[i].name, c->method))
            continue;
        if (c->note)
            call_end(c);
        else if (!methods[i].open && !may_change(c))
            call_fail(c, ERR_PERM, "%s: not for this process", c->method);
        else
            methods[i].fn(c);
        return;
    }
    call_fail(c, ERR_METHOD, "%s: no such method", c->method);
}

void ctl_open(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct server_opts o = { .accept_fds = true, .peer_start = true };

    if (path_fmt(sa.sun_path, sizeof(sa.sun_path), "%s/init.sock", init.run_dir))
        boot_fail(EXIT_CONFIG, "socket path is longer than 107 bytes: %s/init.sock", init.run_dir);
    (void)unlink(sa.sun_path);
    ctl_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (ctl_fd < 0 || bind(ctl_fd, (struct sockaddr *)&sa, sizeof(sa)) ||
        chmod(sa.sun_path, 0600) || listen(ctl_fd, BACKLOG))
        boot_fail(EXIT_CONFIG, "%s: %s", sa.sun_path, strerror(errno));
    server = server_new(init.loop, ctl_fd, &o, on_call, NULL);
}

void ctl_close(void)
{
    while (!LIST_EMPTY(&waiters))
        waiter_gone(LIST_FIRST(&waiters));
    server_free(server);
    closep(&ctl_fd);
}
