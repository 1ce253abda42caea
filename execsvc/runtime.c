/*
 * Candidates of one runtime are tried one after the other: the configured path, /usr/local/bin,
 * /usr/bin, PATH; the runtimes among each other at the same time. A probe that prints nothing
 * usable within its time is no runtime.
 */
#include "execsvc/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "execsvc/child.h"

#define PROBE_MS     5000
#define N_RUNTIMES   20
#define N_BUILTIN    4
#define N_CANDIDATES 12

static const struct {
    const char *name, *aliases[3], *programs[3], *probe[3], *file, *arg;
} builtin[N_BUILTIN] = {
    { "python",
      { "python3" },
      { "python3", "python" },
      { "-c", "import sys,os\nprint(sys.version.split()[0])\n"
              "print(os.path.realpath(sys.base_prefix))\n"
              "print(os.path.realpath(getattr(sys,'_base_executable',sys.executable)))" },
      "main.py",
      "-B" },
    { "node",
      { "nodejs", "js" },
      { "node", "nodejs" },
      { "-p", "[process.version,require('path').dirname(require('path').dirname(process.execPath)),"
              "process.execPath].join('\\n')" },
      "main.js",
      NULL },
    { "bash", { "shell" }, { "bash" }, { "-c", "echo \"$BASH_VERSION\"" }, "main.sh", NULL },
    { "sh", { NULL }, { "sh" }, { "-c", "echo sh" }, "main.sh", NULL },
};

struct probe {
    struct runtime *rt;
    const char *args[3];
    char candidates[N_CANDIDATES][512];
    size_t n, next;
    bool prefixed; /* prints its prefix and its program too */
    pid_t pid;
    int pidfd, out;
    struct watch watch;
    struct timer timer;
    struct buf text;
};

static struct {
    struct loop *loop;
    struct runtime rt[N_RUNTIMES];
    struct probe probes[N_RUNTIMES];
    size_t n, pending;
    loop_fn done;
    void *arg;
} all;

bool prefix_usable(const char *prefix)
{
    static const char *const never[] = { "/",     "/root", "/home", "/etc", "/var",
                                         "/proc", "/sys",  "/dev",  "/run", "/tmp" };
    const char *root = getenv("AVIX_ROOT"), *run = getenv("AVIX_RUN_DIR");
    size_t n = strlen(prefix);

    if (*prefix != '/' || strstr(prefix, "/../"))
        return false;
    for (size_t i = 0; i < N_ELEMS(never); i++)
        if (str_eq(prefix, never[i]))
            return false;
    if (str_starts(prefix, "/home/") && !strchr(prefix + 6, '/'))
        return false; /* a home itself */
    return !(root && !strncmp(root, prefix, n) && (!root[n] || root[n] == '/')) &&
           !(run && !strncmp(run, prefix, n) && (!run[n] || run[n] == '/'));
}

static void try_next(struct probe *p);

static void probe_end(struct probe *p)
{
    watch_done(&p->watch);
    timer_done(&p->timer);
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    closep(&p->pidfd);
    closep(&p->out);
    p->pid = 0;
    p->pidfd = p->out = -1;
}

static bool in_usr(const char *path)
{
    return str_starts(path, "/usr/") || str_starts(path, "/bin/") || str_starts(path, "/sbin/");
}

/* The n-th line of the text, cut out; NULL if there is none. */
static char *line_of(char *text, int n)
{
    while (n-- && text)
        text = (text = strchr(text, '\n')) ? text + 1 : NULL;
    if (text)
        text[strcspn(text, "\r\n")] = '\0';
    return text && *text ? text : NULL;
}

/* What a probe printed makes a runtime, or not. */
static bool accept_probe(struct probe *p)
{
    struct runtime *rt = p->rt;
    cleanup(freep) char *text = buf_take(&p->text);
    char *program = p->prefixed ? line_of(text, 2) : NULL;
    char *prefix = p->prefixed ? line_of(text, 1) : NULL;
    char *version = line_of(text, 0);

    if (!version || (p->prefixed && (!prefix || !program)))
        return false;
    if (p->prefixed) {
        if (!in_usr(program) && !prefix_usable(prefix))
            return false;
        str_copy(rt->path, sizeof(rt->path), program);
        str_copy(rt->prefix, sizeof(rt->prefix), in_usr(program) ? "" : prefix);
    } else {
        const char *path = p->candidates[p->next - 1];

        if (!in_usr(path))
            return false; /* nothing says which tree it needs */
        str_copy(rt->path, sizeof(rt->path), path);
    }
    str_copy(rt->version, sizeof(rt->version), *version == 'v' ? version + 1 : version);
    rt->available = true;
    return true;
}

static void on_output(int fd, unsigned events, void *arg)
{
    struct probe *p = arg;
    char chunk[1024];
    ssize_t n = read(fd, chunk, sizeof(chunk));

    (void)events;
    if (n > 0 && !buf_add(&p->text, chunk, (size_t)n))
        return;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    probe_end(p);
    if (n || !accept_probe(p))
        try_next(p);
    else if (!--all.pending)
        all.done(all.arg);
}

static void on_late(void *arg)
{
    struct probe *p = arg;

    probe_end(p);
    try_next(p);
}

static bool probe_start(struct probe *p, const char *path)
{
    static const char *const env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
                                       "HOME=/nonexistent", NULL };
    const char *argv[] = { path, p->args[0], p->args[1], p->args[2], NULL };
    int out[2];

    if (access(path, X_OK) || pipe2(out, O_CLOEXEC))
        return false;
    struct child_fd fd = { .fd = out[1], .at = 1 };
    struct child_spec s = { .argv = argv, .envp = env, .fds = &fd, .n_fds = 1, .nice = 10 };

    p->pid = child_start(&s, &p->pidfd);
    close(out[1]);
    if (p->pid < 0) {
        p->pid = 0;
        close(out[0]);
        return false;
    }
    p->out = out[0];
    fcntl(p->out, F_SETFL, O_NONBLOCK);
    buf_init(&p->text, 4096);
    watch_init(&p->watch, all.loop, p->out, on_output, p);
    watch_set(&p->watch, LOOP_READ);
    timer_init(&p->timer, all.loop, on_late, p);
    timer_set(&p->timer, PROBE_MS);
    return true;
}

static void try_next(struct probe *p)
{
    buf_done(&p->text);
    while (p->next < p->n)
        if (probe_start(p, p->candidates[p->next++]))
            return;
    log_info("no %s here", p->rt->name);
    if (!--all.pending)
        all.done(all.arg);
}

static void add_candidate(struct probe *p, const char *dir, size_t n, const char *program)
{
    char path[512];

    if (p->n == N_CANDIDATES || !n ||
        (size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)n, dir, program) >= sizeof(path))
        return;
    for (size_t i = 0; i < p->n; i++)
        if (str_eq(p->candidates[i], path))
            return;
    str_copy(p->candidates[p->n++], sizeof(p->candidates[0]), path);
}

static void add_programs(struct probe *p, const char *const *programs)
{
    static const char *const dirs[] = { "/usr/local/bin", "/usr/bin" };
    const char *path = getenv("PATH");

    for (size_t d = 0; d < N_ELEMS(dirs); d++)
        for (size_t i = 0; i < 3 && programs[i]; i++)
            add_candidate(p, dirs[d], strlen(dirs[d]), programs[i]);
    while (path && *path) {
        size_t n = strcspn(path, ":");

        for (size_t i = 0; i < 3 && programs[i]; i++)
            add_candidate(p, path, n, programs[i]);
        path += n + (path[n] == ':');
    }
}

static const char *configured(json_object *v)
{
    return json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                    : json_str(v, "path", "");
}

static void add_builtin(size_t i, const struct exec_conf *c)
{
    struct runtime *rt = &all.rt[all.n];
    struct probe *p = &all.probes[all.n++];
    const char *path = configured(json_get(c->runtimes, builtin[i].name));

    *rt = (struct runtime){ .file = builtin[i].file, .arg = builtin[i].arg };
    str_copy(rt->name, sizeof(rt->name), builtin[i].name);
    memcpy(rt->aliases, builtin[i].aliases, sizeof(rt->aliases));
    *p = (struct probe){ .rt = rt, .prefixed = i < 2, .pidfd = -1, .out = -1 };
    memcpy(p->args, builtin[i].probe, sizeof(p->args));
    if (*path == '/')
        str_copy(p->candidates[p->n++], sizeof(p->candidates[0]), path);
    add_programs(p, builtin[i].programs);
}

/* A runtime of exec.yaml that is none of ours: run as it is, with the file of the code. */
static void add_configured(const char *name, json_object *v)
{
    struct runtime *rt = &all.rt[all.n];
    struct probe *p = &all.probes[all.n];
    const char *path = configured(v);

    for (size_t i = 0; i < all.n; i++)
        if (str_eq(all.rt[i].name, name))
            return;
    if (all.n == N_RUNTIMES || *path != '/' || strlen(path) >= sizeof(rt->path) ||
        strlen(name) >= sizeof(rt->name))
        return;
    all.n++;
    *rt = (struct runtime){ .file = "main" };
    str_copy(rt->name, sizeof(rt->name), name);
    *p = (struct probe){ .rt = rt, .args = { "--version" }, .pidfd = -1, .out = -1 };
    str_copy(p->candidates[p->n++], sizeof(p->candidates[0]), path);
}

void runtimes_find(struct loop *l, const struct exec_conf *c, loop_fn done, void *arg)
{
    runtimes_done();
    all.loop = l;
    all.done = done;
    all.arg = arg;
    for (size_t i = 0; i < N_BUILTIN; i++)
        add_builtin(i, c);
    if (c->runtimes) {
        json_object_object_foreach (c->runtimes, key, val)
            add_configured(key, val);
    }
    all.pending = all.n + 1; /* one for this function, so that done is not early */
    for (size_t i = 0; i < all.n; i++)
        try_next(&all.probes[i]);
    if (!--all.pending)
        done(arg);
}

bool runtimes_ready(void)
{
    return all.loop && !all.pending;
}

const struct runtime *runtime_get(const char *name)
{
    for (size_t i = 0; i < all.n; i++) {
        const struct runtime *rt = &all.rt[i];

        if (str_eq(rt->name, name))
            return rt;
        for (size_t j = 0; j < 3 && rt->aliases[j]; j++)
            if (str_eq(rt->aliases[j], name))
                return rt;
    }
    return NULL;
}

json_object *runtimes_json(void)
{
    json_object *rows = json_new_arr();

    for (size_t i = 0; i < all.n; i++) {
        const struct runtime *rt = &all.rt[i];
        json_object *aliases = json_new_arr();

        for (size_t j = 0; j < 3 && rt->aliases[j]; j++)
            json_push_str(aliases, rt->aliases[j]);
        json_push(rows, json_make("name:s aliases:o version:s path:s available:b", rt->name,
                                  aliases, rt->version, rt->path, (int)rt->available));
    }
    return rows;
}

void runtimes_done(void)
{
    for (size_t i = 0; i < all.n; i++) {
        probe_end(&all.probes[i]);
        buf_done(&all.probes[i].text);
    }
    all.n = all.pending = 0;
    all.loop = NULL;
}
