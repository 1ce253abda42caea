/*
 * What a built-in unit inherits: its sockets and keys by LISTEN_FDNAMES, a fixed environment, and a
 * token that is minted for its process between fork and exec. units.json names the process before
 * it may run, so that whoever it talks to first knows it already.
 */
#include "kernel/init/unit_start.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "kernel/init/cgroup.h"
#include "kernel/init/init.h"

#define ENV_MAX 64

struct env {
    char *v[ENV_MAX + 1];
    int n;
};

static void env_add(struct env *e, const char *name, const char *value)
{
    if (e->n < ENV_MAX && value)
        e->v[e->n++] = xasprintf("%s=%s", name, value);
}

/* A place that the child fills in. */
static int env_slot(struct env *e)
{
    e->v[e->n] = xstrdup("");
    return e->n++;
}

static void env_pass(struct env *e, const char *name)
{
    env_add(e, name, getenv(name));
}

static void env_free(struct env *e)
{
    for (int i = 0; i < e->n; i++)
        free(e->v[i]);
}

static void env_debug(struct env *e)
{
#ifdef AVIX_SAN
    env_pass(e, "ASAN_OPTIONS");
    env_pass(e, "UBSAN_OPTIONS");
    env_pass(e, "LSAN_OPTIONS");
#endif
#ifdef AVIX_COVERAGE
    env_pass(e, "GCOV_PREFIX");
    env_pass(e, "GCOV_PREFIX_STRIP");
#endif
#ifdef AVIX_TEST_CLOCK
    env_pass(e, "AVIX_TEST_CLOCK_OFFSET_MS");
#endif
    (void)e;
}

static void env_llm(struct env *e)
{
    const char *list = getenv("AVIX_PASS_ENV");
    char name[128];

    env_pass(e, "AVIX_LLM_REPLAY");
    while (list && word_next(&list, name, sizeof(name)))
        if (!str_starts(name, "AVIX_") && !str_starts(name, "LD_") && e->n < ENV_MAX - 8)
            env_pass(e, name);
}

static void env_sock(struct env *e, const char *name, const char *file)
{
    cleanup(freep) char *path = xasprintf("%s/%s", init.run_dir, file);

    env_add(e, name, path);
}

static void fd_add(struct spawn *s, char *names, size_t size, const char *name, int fd)
{
    size_t n = strlen(names);

    if (fd < 0 || s->n_fds == SPAWN_FDS)
        return;
    snprintf(names + n, size - n, "%s%s", n ? ":" : "", name);
    s->fds[s->n_fds++] = fd;
}

static void environment(const struct iunit *u, struct spawn *s, struct env *e, const char *names)
{
    char n_fds[16];

    snprintf(n_fds, sizeof(n_fds), "%zu", s->n_fds);
    env_add(e, "AVIX_ROOT", init.root);
    env_add(e, "AVIX_RUN_DIR", init.run_dir);
    env_add(e, "AVIX_SVC_NAME", u->row->name);
    env_add(e, "AVIX_SVC_VERSION", AVIX_VERSION);
    env_sock(e, "AVIX_KERNEL_SOCK", unit_rows[UNIT_KERNEL].socket);
    env_sock(e, "AVIX_ROUTER_SOCK", unit_rows[UNIT_ROUTER].socket);
    env_add(e, "NOTIFY_SOCKET", init.notify_sock);
    env_add(e, "LISTEN_FDS", n_fds);
    env_add(e, "LISTEN_FDNAMES", names);
    env_add(e, "AVIX_LOG_LEVEL", init.opts.log_level);
    env_add(e, "PATH", "/usr/local/bin:/usr/bin:/bin");
    env_add(e, "HOME", "/");
    env_add(e, "LANG", "C.UTF-8");
    env_pass(e, "TZ");
    env_add(e, "TMPDIR", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    env_debug(e);
    if (u->id == UNIT_LLMSVC)
        env_llm(e);
    s->token_slot = env_slot(e);
    s->pid_slot = env_slot(e);
    e->v[e->n] = NULL;
    s->envp = e->v;
}

int unit_start(struct iunit *u)
{
    char names[256] = "", path[512];
    struct env e = { .n = 0 };
    struct spawned child;

    if (u->id == UNIT_GATEWAY)
        tcp_bind();
    cleanup(closep) int keys = keys_memfd(u->row);
    cleanup(closep) int log = logfile_pipe(u->log);
    struct spawn s = { .path = path, .log_fd = log, .death_signal = SIGTERM };

    if (log < 0)
        return log;
    if (path_fmt(path, sizeof(path), "%s/%s", init.libexec, u->row->program))
        return -ENAMETOOLONG;
    char *argv[] = { path, NULL };

    s.argv = argv;
    fd_add(&s, names, sizeof(names), u->row->name, socket_of(u->id));
    if (u->id == UNIT_GATEWAY) {
        fd_add(&s, names, sizeof(names), "http", tcp_fd("http"));
        fd_add(&s, names, sizeof(names), "http6", tcp_fd("http6"));
        fd_add(&s, names, sizeof(names), "admin", tcp_fd("admin"));
    }
    fd_add(&s, names, sizeof(names), "keys", keys);
    environment(u, &s, &e, names);
    int r = spawn_prepare(&s, &child);

    env_free(&e);
    if (r)
        return r;
    u->pid = child.pid;
    u->start = child.start;
    units_json_write();
    cleanup(freep) char *token = token_mint(u->row, u->pid, u->start);

    cgroup_enter(u->row->name, u->pid, 0, 0);
    spawn_go(&child, token);
    explicit_bzero(token, strlen(token));
    close(child.sync_fd); /* an exec that fails shows as exit status 127 and in the unit's log */
    return 0;
}

static json_object *row_json(const char *name, pid_t pid, uint64_t start)
{
    return json_make("name:s kind:s pid:i start:i", name, "builtin", (int64_t)pid, (int64_t)start);
}

static json_object *unit_json(const struct iunit *u)
{
    const struct unit_row *row = u->row;
    /* in a one-shot run the command that started us is the gateway */
    pid_t pid = unit_uses(u) ? u->pid : getppid();
    uint64_t start = unit_uses(u) ? u->start : proc_start_time(pid);
    json_object *o = row_json(row->name, pid, start), *ns = json_new_arr();
    const char *pos = row->ns;
    char word[128];

    while (word_next(&pos, word, sizeof(word)))
        json_push_str(ns, word);
    json_add_int(o, "avixPid", row->pid);
    json_add(o, "limits",
             json_make("max_concurrent:i queue_max:i queue_timeout_ms:i",
                       (int64_t)row->max_concurrent, (int64_t)row->queue,
                       (int64_t)row->queue_timeout_ms));
    json_add(o, "ns", ns);
    json_add_str(o, "caller_info", "full");
    return o;
}

void units_json_write(void)
{
    char path[256];
    json_object *list = json_new_arr();

    json_push(list, row_json("init", getpid(), init.start));
    for (int i = 0; i < UNIT_COUNT; i++)
        json_push(list, unit_json(&units[i]));
    cleanup(json_putp) json_object *doc = json_make("units:o", list);
    const char *text = json_text(doc);

    (void)path_fmt(path, sizeof(path), "%s/units.json", init.run_dir);
    int r = file_write_rename(path, text, strlen(text), 0600);

    if (r)
        log_error("%s: %s", path, strerror(-r));
}
