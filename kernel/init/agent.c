/*
 * Agents: init forks them for the kernel, hands over the descriptors it was given, reports their
 * end. It starts nothing but avix-agent, with an environment of known names.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "kernel/init/cgroup.h"
#include "kernel/init/init.h"

#define ENV_VALUE_MAX 4096
#define PID_MAX_AVIX  4294967295LL

struct agent {
    int64_t avix_pid;
    pid_t pid;
    uint64_t start;
    int pidfd, sync_fd;
    char name[64];
    bool exec_failed;  /* the caller of init/spawn heard it */
    struct call *call; /* init/spawn that waits for the exec; NULL: answered */
    struct watch sync;
    TAILQ_ENTRY(agent) link;
};
static TAILQ_HEAD(, agent) agents = TAILQ_HEAD_INITIALIZER(agents);

static const char *const env_names[] = {
    "AVIX_PID", "AVIX_RUN_DIR", "AVIX_KERNEL_SOCK", "AVIX_ROUTER_SOCK", "AVIX_LOG_LEVEL",
    "TZ",       "LANG",
};

static bool env_name_known(const char *name)
{
    for (size_t i = 0; i < N_ELEMS(env_names); i++)
        if (str_eq(name, env_names[i]))
            return true;
    return false;
}

/* argv must be {"avix-agent", "--pid", avixPid}. */
static bool argv_ok(json_object *argv, const char *pid_text)
{
    static const char *const want[] = { "avix-agent", "--pid" };

    if (!argv || json_object_array_length(argv) != 3)
        return false;
    for (size_t i = 0; i < 3; i++) {
        json_object *w = json_object_array_get_idx(argv, i);

        if (!json_object_is_type(w, json_type_string) ||
            !str_eq(json_object_get_string(w), i < 2 ? want[i] : pid_text))
            return false;
    }
    return true;
}

static struct agent *agent_by_avix_pid(int64_t avix_pid)
{
    struct agent *a;

    TAILQ_FOREACH (a, &agents, link) {
        if (a->avix_pid == avix_pid)
            return a;
    }
    return NULL;
}

static void agent_free(struct agent *a)
{
    TAILQ_REMOVE(&agents, a, link);
    watch_done(&a->sync);
    closep(&a->sync_fd);
    closep(&a->pidfd);
    free(a);
}

/* End of file: the exec closed the pair. Bytes: errno of an exec that failed. */
static void on_sync(int fd, unsigned events, void *arg)
{
    struct agent *a = arg;
    int err = 0;
    ssize_t n = read(fd, &err, sizeof(err));
    struct call *c = TAKE(a->call);

    (void)events;
    watch_done(&a->sync);
    closep(&a->sync_fd);
    a->sync_fd = -1;
    a->exec_failed = n == (ssize_t)sizeof(err);
    if (!c)
        return;
    if (a->exec_failed)
        call_fail(c, ERR_FAILED, "avix-agent: %s", strerror(err));
    else
        call_reply(c, json_make("hostPid:i startTime:i", (int64_t)a->pid, (int64_t)a->start));
}

static void spawn_gone(void *arg)
{
    struct agent *a = arg;

    call_end(TAKE(a->call));
}

#define AGENT_ENV_MAX 24
/* Environment from the request plus what debug builds need; false if a name is not known. */
static bool agent_env(json_object *env, char **out)
{
    int n = 0;

    if (env) {
        json_object_object_foreach (env, name, v) {
            const char *text =
                json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;

            if (!text || strlen(text) > ENV_VALUE_MAX || !env_name_known(name))
                return false;
            out[n++] = xasprintf("%s=%s", name, text);
        }
    }
#if defined(AVIX_SAN) || defined(AVIX_COVERAGE) || defined(AVIX_TEST_CLOCK)
    static const char *const debug[] = { "ASAN_OPTIONS",      "UBSAN_OPTIONS",
                                         "LSAN_OPTIONS",      "GCOV_PREFIX",
                                         "GCOV_PREFIX_STRIP", "AVIX_TEST_CLOCK_OFFSET_MS" };

    for (size_t i = 0; i < N_ELEMS(debug); i++)
        if (getenv(debug[i]))
            out[n++] = xasprintf("%s=%s", debug[i], getenv(debug[i]));
#endif
    out[n] = NULL;
    return true;
}

static void agent_env_free(char **env)
{
    for (int i = 0; i < AGENT_ENV_MAX && env[i]; i++)
        free(env[i]);
}

/* "agent-157"; out holds 64. */
static const char *leaf_name(const struct agent *a, char *out)
{
    snprintf(out, 64, "agent-%lld", (long long)a->avix_pid);
    return out;
}

static int agent_start(struct spawn *s, struct agent *a)
{
    char rel[64], name[40];
    struct spawned child;

    snprintf(rel, sizeof(rel), "agents/%lld.log", (long long)a->avix_pid);
    snprintf(name, sizeof(name), "agent %lld", (long long)a->avix_pid);
    struct logfile *log = logfile_open(rel, name, false);
    cleanup(closep) int log_fd = logfile_pipe(log);

    logfile_unref(log); /* the pipe holds it */
    if (log_fd < 0)
        return log_fd;
    s->log_fd = log_fd;
    int r = spawn_prepare(s, &child);

    if (r)
        return r;
    a->pid = child.pid;
    a->start = child.start;
    a->sync_fd = child.sync_fd;
    a->pidfd = (int)syscall(SYS_pidfd_open, child.pid, 0);
    watch_init(&a->sync, init.loop, a->sync_fd, on_sync, a);
    watch_set(&a->sync, LOOP_READ);
    cgroup_enter(leaf_name(a, rel), child.pid, s->memory_mib, 1);
    spawn_go(&child, NULL);
    return 0;
}

static void read_limits(json_object *params, struct spawn *s, struct args *a)
{
    struct args l = args_open(args_obj_or(a, "limits"));

    (void)params;
    s->memory_mib = args_int_or(&l, "memoryMaxMiB", 0, 1 << 20, 0);
    s->cpu_sec = args_int_or(&l, "cpuSec", 0, INT32_MAX, 0);
    s->open_files = args_int_or(&l, "openFiles", 0, 1 << 20, 0);
    if (args_bad(&l))
        args_fail(a, "limits", l.why);
}

void agent_spawn(struct call *c)
{
    struct args a = args_open(c->params);
    int64_t avix_pid = args_int(&a, "avixPid", 1, PID_MAX_AVIX);
    json_object *argv = args_arr(&a, "argv"), *env = args_obj_or(&a, "env");
    const char *name = args_str_or(&a, "name", 63, "");
    char path[512], pid_text[24], *env_text[AGENT_ENV_MAX] = { NULL };
    struct spawn s = { .path = path,
                       .envp = env_text,
                       .pid_slot = -1,
                       .token_slot = -1,
                       .death_signal = SIGKILL,
                       .guest = true };

    read_limits(c->params, &s, &a);
    snprintf(pid_text, sizeof(pid_text), "%lld", (long long)avix_pid);
    if (!args_bad(&a) && !argv_ok(argv, pid_text))
        args_fail(&a, "argv", "must be avix-agent --pid <avixPid>");
    if (!args_bad(&a) && !agent_env(env, env_text))
        args_fail(&a, "env", "holds a name or value that is not allowed");
    if (args_bad(&a)) {
        agent_env_free(env_text);
        call_bad_args(c, &a);
        return;
    }
    if (agent_by_avix_pid(avix_pid) || init.stopping ||
        path_fmt(path, sizeof(path), "%s/avix-agent", init.libexec)) {
        agent_env_free(env_text);
        call_fail(c, ERR_CONFLICT, init.stopping ? "shutting down" : "agent %s is running",
                  pid_text);
        return;
    }
    char *argv_text[] = { (char[]){ "avix-agent" }, (char[]){ "--pid" }, pid_text, NULL };
    struct agent *ag = xcalloc(1, sizeof(*ag));

    s.argv = argv_text;
    for (size_t i = 0; i < c->n_fds; i++)
        s.fds[s.n_fds++] = c->fds[i];
    ag->avix_pid = avix_pid;
    ag->pidfd = ag->sync_fd = -1;
    str_copy(ag->name, sizeof(ag->name), name);
    TAILQ_INSERT_TAIL(&agents, ag, link);
    int r = agent_start(&s, ag);

    agent_env_free(env_text);
    if (r) {
        agent_free(ag);
        call_fail(c, ERR_FAILED, "cannot start an agent: %s", strerror(-r));
        return;
    }
    ag->call = c;
    call_on_gone(c, spawn_gone, ag);
}

static int agent_send(const struct agent *a, int signo)
{
#ifndef AVIX_COVERAGE /* there kill() lets the agent write its counters first */
    if (a->pidfd >= 0)
        return (int)syscall(SYS_pidfd_send_signal, a->pidfd, signo, NULL, 0);
#endif
    return kill(a->pid, signo); /* not reaped yet, so the pid is its own */
}

void agent_kill(struct call *c)
{
    static const char *const names[] = { "TERM", "KILL", "STOP", "CONT", NULL };
    static const int numbers[] = { SIGTERM, SIGKILL, SIGSTOP, SIGCONT };
    struct args a = args_open(c->params);
    int64_t avix_pid = args_int(&a, "avixPid", 1, PID_MAX_AVIX);
    int64_t host_pid = args_int(&a, "hostPid", 1, INT32_MAX);
    int64_t start = args_int(&a, "startTime", 0, INT64_MAX);
    int which = args_enum_or(&a, "signal", names, -1);

    if (!args_bad(&a) && which < 0)
        args_fail(&a, "signal", "missing");
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    struct agent *ag = agent_by_avix_pid(avix_pid);

    if (!ag || ag->pid != host_pid || ag->start != (uint64_t)start)
        call_fail(c, ERR_NOTFOUND, "agent %lld is not that process", (long long)avix_pid);
    else if (agent_send(ag, numbers[which]))
        call_fail(c, ERR_NOTFOUND, "agent %lld: %s", (long long)avix_pid, strerror(errno));
    else
        call_reply(c, json_make("ok:b", 1));
}

static int64_t tv_ms(struct timeval tv)
{
    return (int64_t)tv.tv_sec * 1000 + tv.tv_usec / 1000;
}

static json_object *int_or_null(bool have, int v)
{
    return have ? json_object_new_int(v) : NULL;
}

static void report_exit(const struct agent *a, int status, const struct rusage *ru, bool oom)
{
    json_object *usage = json_make("userMs:i systemMs:i maxRssKiB:i", tv_ms(ru->ru_utime),
                                   tv_ms(ru->ru_stime), (int64_t)ru->ru_maxrss);

    report("init/exited",
           json_make("kind:s avixPid:i hostPid:i startTime:i code:o signal:o oom:b rusage:o",
                     "agent", a->avix_pid, (int64_t)a->pid, (int64_t)a->start,
                     int_or_null(WIFEXITED(status), WEXITSTATUS(status)),
                     int_or_null(WIFSIGNALED(status), WTERMSIG(status)), oom, usage));
}

bool agent_exited(pid_t pid, int status, const struct rusage *ru)
{
    struct agent *a;
    char leaf[64];

    TAILQ_FOREACH (a, &agents, link) {
        if (a->pid == pid)
            break;
    }
    if (!a)
        return false;
    if (a->call) /* the exec's outcome may still be unread */
        on_sync(a->sync_fd, LOOP_READ, a);
    bool oom = cgroup_oom(leaf_name(a, leaf));

    if (!a->exec_failed)
        report_exit(a, status, ru, oom);
    cgroup_leave(leaf);
    agent_free(a);
    shutdown_progress();
    return true;
}

json_object *agents_json(void)
{
    json_object *list = json_new_arr();
    struct agent *a;

    TAILQ_FOREACH (a, &agents, link) {
        json_push(list, json_make("avixPid:i hostPid:i startTime:i name:s", a->avix_pid,
                                  (int64_t)a->pid, (int64_t)a->start, a->name));
    }
    return list;
}

size_t agents_signal(int signo)
{
    struct agent *a;
    size_t n = 0;

    TAILQ_FOREACH (a, &agents, link) {
        n++;
        if (signo)
            (void)agent_send(a, signo);
    }
    return n;
}
