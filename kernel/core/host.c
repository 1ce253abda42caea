/*
 * Steps 3 and 4 and every host signal. The kernel makes what an agent is born with: its
 * conversation file, its listening socket and two sealed memfds; init forks and execs. Nothing is
 * kept here: the files are found again by name, the memfds are made anew for each host process.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/core/conv.h"
#include "kernel/core/life.h"

#define FDS_MAX                 5
#define HISTORY_BYTES_PER_TOKEN 4

/* An answer finds its process by pid and life, or is dropped. */
struct ticket {
    int64_t pid;
    unsigned life;
};

static struct ticket *ticket_new(const struct proc *p)
{
    struct ticket *t = xcalloc(1, sizeof *t);
    t->pid = p->pid;
    t->life = p->life;
    return t;
}

static struct proc *ticket_end(struct ticket *t)
{
    struct proc *p = proc_find(t->pid);
    bool same = p && p->life == t->life;
    free(t);
    return same ? p : NULL;
}

static const char *init_sock(void)
{
    static char path[108];
    (void)path_fmt(path, sizeof path, "%s/init.sock", svc.run_dir);
    return path;
}

static struct ipc_call *ask_init(const char *method, json_object *params, const int *fds,
                                 size_t n_fds, ipc_done_fn done, void *arg)
{
    struct ipc_req q = { .sock = init_sock(),
                         .method = method,
                         .params = params,
                         .timeout_ms = 10000,
                         .listener = svc.init_pid,
                         .fds = fds,
                         .n_fds = n_fds };
    struct ipc_call *c = ipc_start(svc.loop, &q, NULL, done, arg);
    json_put(params);
    return c;
}

json_object *host_limits(void)
{
    const struct kernel_config *k = svc.config;
    return json_make("memoryMaxMiB:i cpuSec:i openFiles:i", (int64_t)k->memory_max_mib,
                     (int64_t)k->cpu_sec, (int64_t)k->open_files);
}

static int socket_path(const struct proc *p, char *out, size_t size)
{
    return path_fmt(out, size, "%s/agents/%lld.sock", svc.run_dir, (long long)p->pid);
}

static int bind_socket(const struct proc *p)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (socket_path(p, a.sun_path, sizeof a.sun_path))
        return -ENAMETOOLONG;
    cleanup(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    (void)unlink(a.sun_path);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 512) < 0)
        return -errno;
    int out = fd;
    fd = -1;
    return out;
}

void host_socket_gone(struct proc *p)
{
    char path[108];
    if (!socket_path(p, path, sizeof path))
        (void)unlink(path);
}

/* Lines for descriptor 6: this invocation's own after a restart, else those of the same agent's
 * earlier invocations in the session. */
static void history(const struct proc *p, const struct conv_tail *tail, struct buf *b)
{
    size_t max = (size_t)p->context_limit * HISTORY_BYTES_PER_TOKEN;
    if (max > b->max)
        max = b->max;
    if (tail->lines > 0) {
        (void)conv_lines(svc.root, p->user, p->name, p->invocation_id, max, b);
        return;
    }
    sqlite3_stmt *q =
        db_query(DB_NORMAL,
                 "SELECT id FROM invocations WHERE session_id=? AND agent_name=? AND id<>? "
                 "AND parent_pid IS ? ORDER BY spawned_at DESC LIMIT 16",
                 "sssI", p->session_id, p->name, p->invocation_id, p->parent_pid);
    char ids[16][40];
    size_t n = 0;
    while (n < N_ELEMS(ids) && db_row(q))
        str_copy(ids[n++], sizeof ids[0], db_text(q, 0));
    db_end(q);
    while (n-- > 0 && b->len < max)
        (void)conv_lines(svc.root, p->user, p->name, ids[n], max - b->len, b);
}

static json_object *limits_doc(void)
{
    const struct kernel_config *k = svc.config;
    return json_make("maxToolChainLength:i maxTokensPerTurn:i maxOutputTokens:i stopGraceSec:i "
                     "modelFallback:s seccomp:s jail:s",
                     (int64_t)k->max_tool_chain, (int64_t)8000, (int64_t)4096,
                     (int64_t)k->stop_grace_sec, k->model_fallback, k->seccomp, k->jail);
}

static json_object *hil_doc(void)
{
    const struct kernel_config *k = svc.config;
    json_object *tools = k->hil_required_tools ? json_dup(k->hil_required_tools) : json_new_arr();
    for (size_t i = 0; i < svc.spec->n_methods; i++)
        if (svc.spec->methods[i].flags & M_DESTRUCTIVE)
            json_push_str(tools, svc.spec->methods[i].name);
    json_object *chains =
        k->blocked_tool_chains ? json_dup(k->blocked_tool_chains) : json_new_arr();
    return json_make("requiredTools:o blockedChains:o taintPolicy:s", tools, chains,
                     k->taint_policy);
}

static json_object *start_doc(struct proc *p, int64_t last_seq, bool with_history)
{
    json_object *r = p->requested;
    cleanup(json_putp) json_object *start = input_start(p, false);
    json_object *fds = json_new_arr();
    if (with_history)
        json_push_str(fds, "history");
    json_object *agent =
        json_make("name:s version:s dir:s", p->name, p->version, json_str(r, "dir", ""));
    json_object *crews = json_arr(r, "crews");
    json_object *d = json_make(
        "pid:i invocationId:s sessionId:s parentPid:o depth:i user:s uid:i role:s crews:o agent:o",
        p->pid, p->invocation_id, p->session_id,
        p->parent_pid ? json_object_new_int64(p->parent_pid) : NULL, (int64_t)proc_depth(p),
        p->user, json_int(r, "uid", 0), json_str(r, "role", "user"),
        crews ? json_dup(crews) : json_new_arr(), agent);
    json_add_str(d, "goal", json_str(start, "goal", p->goal));
    json_add_str(d, "goalId", json_str(start, "goalId", ""));
    json_add_bool(d, "oneShot", p->one_shot);
    json_add_bool(d, "resume", p->resume);
    json_add_str(d, "systemPrompt", json_str(r, "systemPrompt", ""));
    json_add(d, "resolved", json_dup(p->resolved));
    json_add_str(d, "model", p->model);
    json_add_int(d, "contextLimit", p->context_limit);
    json_add(d, "denied", json_dup(p->denied));
    json_add(d, "hil", hil_doc());
    json_add(d, "limits", limits_doc());
    json_add_str(d, "signalKey", p->sig_key);
    json_add_str(d, "atpSession", p->atp_session ? p->atp_session : "");
    json_add_int(d, "lastSeq", last_seq);
    json_add(d, "answers", json_new_arr());
    json_add(d, "fds", fds);
    return d;
}

static json_object *agent_env(const struct proc *p)
{
    char pid[24];
    snprintf(pid, sizeof pid, "%lld", (long long)p->pid);
    const char *tz = getenv("TZ");
    json_object *e = json_make("AVIX_PID:s AVIX_RUN_DIR:s AVIX_KERNEL_SOCK:s AVIX_ROUTER_SOCK:s "
                               "AVIX_LOG_LEVEL:s LANG:s",
                               pid, svc.run_dir, svc_sock(UNIT_KERNEL), svc.router_sock,
                               svc.config->log_level, "C.UTF-8");
    if (tz)
        json_add_str(e, "TZ", tz);
    return e;
}

static void on_spawned(struct ipc_reply *r, void *arg)
{
    struct proc *p = ticket_end(arg);
    if (!p)
        return; /* its life is over: what came of it was or will be told by init/exited */
    p->op = NULL;
    if (!r->err) {
        struct life_info i = { .host_pid = (pid_t)json_int(r->result, "hostPid", 0),
                               .host_start = (uint64_t)json_int(r->result, "startTime", 0) };
        life_event(p, EV_FORKED, &i);
        return;
    }
    log_warn("pid %lld: init/spawn: %s", (long long)p->pid, r->error.message);
    bool unknown = r->err == ERR_TIMEOUT || r->err == ERR_UNAVAIL || r->err == ERR_CONFLICT;
    life_event(p, unknown ? EV_FORK_LOST : EV_FORK_FAIL,
               &(struct life_info){ .reason = r->error.message });
}

/* Step 3; the descriptors in order, their number or -errno. */
static int make_fds(struct proc *p, int fds[FDS_MAX])
{
    struct conv_tail tail = { 0 };
    int n = 0;
    fds[n] = bind_socket(p);
    if (fds[n] < 0)
        return fds[n];
    n++;
    fds[n] = conv_open(svc.root, p->user, p->name, p->invocation_id, &tail);
    if (fds[n] < 0)
        return fds[n];
    n++;
    cleanup(buf_done) struct buf h = BUF_INIT(16 * 1024 * 1024);
    history(p, &tail, &h);
    cleanup(json_putp) json_object *doc = start_doc(p, tail.last_seq, h.len > 0);
    const char *text = json_text(doc);
    fds[n] = memfd_sealed("start", text, strlen(text));
    if (fds[n] < 0)
        return fds[n];
    n++;
    if (h.len == 0)
        return n;
    fds[n] = memfd_sealed("history", h.data, h.len);
    return fds[n] < 0 ? fds[n] : n + 1;
}

void host_fork(struct proc *p)
{
    int fds[FDS_MAX] = { -1, -1, -1, -1, -1 };
    int n = make_fds(p, fds);
    if (n > 0) {
        char pid[24];
        snprintf(pid, sizeof pid, "%lld", (long long)p->pid);
        json_object *argv = json_new_arr();
        json_push_str(argv, "avix-agent");
        json_push_str(argv, "--pid");
        json_push_str(argv, pid);
        json_object *q = json_make("avixPid:i argv:o env:o limits:o name:s", p->pid, argv,
                                   agent_env(p), host_limits(), p->name);
        p->op = ask_init("init/spawn", q, fds, (size_t)n, on_spawned, ticket_new(p));
    }
    for (int k = 0; k < FDS_MAX; k++)
        closep(&fds[k]);
    if (n < 0) {
        log_error("pid %lld: %s", (long long)p->pid, strerror(-n));
        life_event(p, EV_FORK_FAIL, &(struct life_info){ .reason = strerror(-n) });
    }
}

static json_object *row_of(json_object *list, int64_t pid)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        if (json_int(o, "avixPid", -1) == pid)
            return o;
    }
    return NULL;
}

static void on_listed(struct ipc_reply *r, void *arg)
{
    struct proc *p = ticket_end(arg);
    if (!p)
        return;
    p->op = NULL;
    if (r->err)
        return; /* the phase's deadline asks again */
    json_object *row = row_of(json_arr(r->result, "agents"), p->pid);
    struct life_info i = { .lost = true };
    if (row) {
        i.host_pid = (pid_t)json_int(row, "hostPid", 0);
        i.host_start = (uint64_t)json_int(row, "startTime", 0);
        if (p->phase == PH_FORK || !p->host_pid)
            life_event(p, EV_FORKED, &i);
        return;
    }
    if (row_of(json_arr(r->result, "exits"), p->pid))
        return; /* init/exited is on its way */
    if (p->host_pid) {
        i.host_pid = p->host_pid;
        i.host_start = p->host_start;
        life_event(p, EV_EXITED, &i);
    } else {
        life_event(p, EV_GO, &i);
    }
}

void host_look(struct proc *p)
{
    if (p->op)
        ipc_cancel(TAKE(p->op));
    p->op = ask_init("init/list", json_new(), NULL, 0, on_listed, ticket_new(p));
}

static void on_killed(struct ipc_reply *r, void *arg)
{
    struct proc *p = ticket_end(arg);
    if (p && r->err && r->err != ERR_NOTFOUND)
        log_warn("pid %lld: init/kill: %s", (long long)p->pid, r->error.message);
}

void host_kill(struct proc *p, const char *signal)
{
    if (!p->host_pid)
        return;
    json_object *q = json_make("avixPid:i hostPid:i startTime:i signal:s", p->pid,
                               (int64_t)p->host_pid, (int64_t)p->host_start, signal);
    (void)ask_init("init/kill", q, NULL, 0, on_killed, ticket_new(p));
}

int64_t host_rss_kib(pid_t pid)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    if (pid <= 0 || path_fmt(path, sizeof path, "/proc/%d/statm", (int)pid) ||
        file_read(path, 4096, &text, &len))
        return 0;
    long long pages = 0;
    char *sp = strchr(text, ' ');
    if (sp)
        pages = strtoll(sp, NULL, 10);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

uint64_t host_cpu_ms(pid_t pid)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    if (pid <= 0 || path_fmt(path, sizeof path, "/proc/%d/stat", (int)pid) ||
        file_read(path, 4096, &text, &len))
        return 0;
    const char *s = strrchr(text, ')');
    for (int i = 0; s && i < 12; i++)
        s = strchr(s + 1, ' ');
    if (!s)
        return 0;
    char *end;
    unsigned long long user = strtoull(s, &end, 10), sys = strtoull(end, NULL, 10);
    return (user + sys) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK);
}
