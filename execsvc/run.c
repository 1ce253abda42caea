/*
 * Steps: ask (may it use the network, are the mounts its own), start, fill /box, go, read output
 * until the program is gone, save artifacts, answer. A caller that hangs up ends it at any step.
 *
 * Ends: the program exits; its time is over (TERM, a second later KILL to the whole sandbox); a
 * watch every 50 ms finds more memory or processes than allowed. The host's limits are set too;
 * the watch is for what they cannot see: the sum over processes, and root, who has none on
 * processes.
 */
#include "execsvc/run.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/vpath.h"
#include "execsvc/artifacts.h"
#include "execsvc/collect.h"
#include "execsvc/request.h"
#include "execsvc/sandbox.h"

#define MOUNT_CHANGED "mounts: the folder changed while it was looked at"

#define WATCH_MS   50
#define GRACE_MS   1000
#define START_MS   10000
#define READ_CHUNK 65536
#define HELD_UTF8  4

struct stream {
    const char *name;
    struct watch watch;
    struct collect text;
    char held[HELD_UTF8]; /* start of a character that is not whole yet */
    size_t n_held;
    bool open;
};

struct run {
    struct call *c; /* NULL once the caller is gone */
    struct caller who;
    char *who_key;
    struct request q;
    struct runtime rt;
    char code_file[40], *to;
    struct box_mount mounts[MOUNTS_MAX];
    size_t n_mounts;
    struct ipc_call *asking;
    struct artifacts *saving;
    struct box box;
    struct stream streams[2];
    struct watch ready, exited;
    struct timer deadline, watchdog;
    int64_t started, ended;
    int status;
    struct rusage used;
    bool running, reaped, timed_out, over_limit;
    int seq;
    struct run *next;
};

static struct {
    const struct exec_conf *conf;
    struct run *list;
    unsigned n;
    uint64_t total;
    int sandbox_err;
    char sandbox_why[200];
} runs = { .sandbox_err = ERR_SANDBOX, .sandbox_why = "the sandbox has not been tested yet" };

void runs_set_sandbox(int err, const char *why)
{
    runs.sandbox_err = err;
    str_copy(runs.sandbox_why, sizeof(runs.sandbox_why), why);
}

void runs_set_conf(const struct exec_conf *c)
{
    runs.conf = c;
}

unsigned runs_n(void)
{
    return runs.n;
}

uint64_t runs_total(void)
{
    return runs.total;
}

static void run_free(struct run *r)
{
    for (struct run **p = &runs.list; *p; p = &(*p)->next)
        if (*p == r) {
            *p = r->next;
            runs.n--;
            break;
        }
    if (r->asking)
        ipc_cancel(r->asking);
    if (r->saving)
        artifacts_cancel(r->saving);
    for (size_t i = 0; i < N_ELEMS(r->streams); i++) {
        watch_done(&r->streams[i].watch);
        collect_done(&r->streams[i].text);
    }
    watch_done(&r->ready);
    watch_done(&r->exited);
    timer_done(&r->deadline);
    timer_done(&r->watchdog);
    box_done(&r->box);
    for (size_t i = 0; i < r->n_mounts; i++)
        closep(&r->mounts[i].fd);
    free(r->who_key);
    free(r->to);
    free(r);
}

static void run_fail(struct run *r, int err, const char *why)
{
    if (r->c)
        call_fail(r->c, err, "%s", why);
    run_free(r);
}

/* The caller has hung up: everything ends at once, and box_done reaps what was killed. */
static void on_gone(void *arg)
{
    struct run *r = arg;
    struct call *c = TAKE(r->c);

    run_free(r);
    call_end(c);
}

/* --- the answer ----------------------------------------------------------------------------- */

static const char *signal_name(int status)
{
    static const struct {
        int n;
        const char *name;
    } names[] = { { SIGHUP, "SIGHUP" },   { SIGINT, "SIGINT" },   { SIGQUIT, "SIGQUIT" },
                  { SIGILL, "SIGILL" },   { SIGABRT, "SIGABRT" }, { SIGBUS, "SIGBUS" },
                  { SIGFPE, "SIGFPE" },   { SIGKILL, "SIGKILL" }, { SIGSEGV, "SIGSEGV" },
                  { SIGPIPE, "SIGPIPE" }, { SIGTERM, "SIGTERM" }, { SIGSYS, "SIGSYS" },
                  { SIGXCPU, "SIGXCPU" }, { SIGXFSZ, "SIGXFSZ" }, { SIGTRAP, "SIGTRAP" } };
    int n = WIFSIGNALED(status)         ? WTERMSIG(status)
            : WEXITSTATUS(status) > 128 ? WEXITSTATUS(status) - 128
                                        : 0;

    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (names[i].n == n)
            return names[i].name;
    return NULL;
}

static int64_t cpu_ms(const struct rusage *u)
{
    return (int64_t)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000 +
           (u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1000;
}

static void answer(json_object *artifacts, void *arg)
{
    struct run *r = arg;
    struct buf b = BUF_INIT(15 << 20);
    const char *name = r->timed_out ? "SIGKILL" : signal_name(r->status);
    int code = WIFSIGNALED(r->status) ? 128 + WTERMSIG(r->status) : WEXITSTATUS(r->status);

    r->saving = NULL;
    buf_adds(&b, "{\"stdout\":");
    collect_write(&r->streams[0].text, &b);
    buf_adds(&b, ",\"stderr\":");
    collect_write(&r->streams[1].text, &b);
    buf_printf(&b, ",\"exit_code\":%d", r->timed_out ? -1 : r->over_limit ? 137 : code);
    if (name || r->over_limit)
        buf_printf(&b, ",\"signal\":\"%s\"", r->over_limit ? "SIGKILL" : name);
    buf_printf(&b,
               ",\"timed_out\":%s,\"truncated\":{\"stdout\":%s,\"stderr\":%s},\"duration_ms\":%lld,"
               "\"cpu_ms\":%lld,\"max_rss_kb\":%ld,\"artifacts\":",
               r->timed_out ? "true" : "false", collect_cut(&r->streams[0].text) ? "true" : "false",
               collect_cut(&r->streams[1].text) ? "true" : "false",
               (long long)(r->ended - r->started), (long long)cpu_ms(&r->used), r->used.ru_maxrss);
    buf_adds(&b, json_text(artifacts));
    buf_printf(&b, ",\"runtime\":{\"name\":\"%s\",\"version\":", r->rt.name);
    buf_add_json_str(&b, r->rt.version, strlen(r->rt.version));
    buf_adds(&b, "},\"sandbox\":\"bwrap\"}");
    json_put(artifacts);
    if (b.toobig)
        call_fail(r->c, ERR_TOOBIG, "the output is too large to be sent");
    else
        call_reply_text(r->c, b.data, b.len);
    buf_done(&b);
    run_free(r);
}

/* Artifacts of an agent go to its scratch, of a user to the workspace, written as that user. */
static void save_artifacts(struct run *r)
{
    bool agent = r->who.kind == CALLER_AGENT;
    char id[64];
    size_t n = 0;

    if (!r->q.artifacts || !json_object_array_length(r->q.artifacts) || r->box.dir < 0 ||
        r->who.kind == CALLER_SERVICE) {
        answer(json_new_arr(), r);
        return;
    }
    for (const char *s = r->who.call_id; *s && n < sizeof(id) - 1; s++)
        id[n++] = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *s)
                      ? *s
                      : '-';
    id[n] = '\0';
    r->to = agent ? xasprintf("/proc/%lld/scratch/exec-%s", (long long)r->who.pid, id)
                  : xasprintf("/users/%s/workspace/exec-%s", r->who.user, id);
    r->saving = artifacts_save(r->box.dir, r->q.artifacts, r->code_file, r->to,
                               agent ? NULL : r->who.token, answer, r);
}

static void maybe_done(struct run *r)
{
    if (!r->reaped || r->streams[0].open || r->streams[1].open)
        return;
    timer_stop(&r->deadline);
    timer_stop(&r->watchdog);
    if (r->running) {
        save_artifacts(r);
        return;
    }
    /* It never came to wait for us: bwrap itself failed, and said why. */
    cleanup(freep) char *why =
        xasprintf("the sandbox did not start: %.*s", (int)r->streams[1].text.head.len,
                  r->streams[1].text.head.data ? r->streams[1].text.head.data : "");

    why[strcspn(why, "\n")] = '\0';
    if (strstr(why, "binding dirfd")) /* bwrap compares again after it bound the folder */
        run_fail(r, ERR_PERM, MOUNT_CHANGED);
    else
        run_fail(r, ERR_SANDBOX, why);
}

/* --- while it runs --------------------------------------------------------------------------- */

static void on_drain(void *arg)
{
    struct run *r = arg;

    for (size_t i = 0; i < N_ELEMS(r->streams); i++)
        if (r->streams[i].open)
            watch_set(&r->streams[i].watch, LOOP_READ);
}

static void note(struct run *r, struct stream *s, const char *data, size_t n)
{
    json_object *p = json_make("stream_id:s stream:s data:o seq:i", call_id(r->c), s->name,
                               json_object_new_string_len(data, (int)n), (int64_t)r->seq++);

    if (call_note(r->c, "exec.output", p) <= 0)
        return;
    for (size_t i = 0; i < N_ELEMS(r->streams); i++)
        if (r->streams[i].open)
            watch_set(&r->streams[i].watch, 0);
    call_on_drain(r->c, on_drain, r);
}

/* Whole characters only; what is no UTF-8 is replaced. */
static void stream_out(struct run *r, struct stream *s, const char *data, size_t n, bool end)
{
    cleanup(freep) char *all = xmalloc(s->n_held + n + 1);
    struct buf text = BUF_INIT(8 * READ_CHUNK);
    cleanup(json_putp) json_object *clean = NULL;
    size_t len = s->n_held + n, whole;

    memcpy(all, s->held, s->n_held);
    memcpy(all + s->n_held, data, n);
    whole = end ? len : utf8_floor(all, len);
    s->n_held = len - whole < HELD_UTF8 ? len - whole : 0;
    memcpy(s->held, all + whole, s->n_held);
    if (whole && utf8_valid(all, whole)) {
        note(r, s, all, whole);
    } else if (whole) { /* as JSON text and back: that replaces what is malformed */
        buf_add_json_str(&text, all, whole);
        if (!json_parse(text.data, text.len, &clean))
            note(r, s, json_object_get_string(clean), (size_t)json_object_get_string_len(clean));
    }
    buf_done(&text);
}

static void on_output(int fd, unsigned events, void *arg)
{
    struct run *r = arg;
    struct stream *s = fd == r->box.out ? &r->streams[0] : &r->streams[1];
    char chunk[READ_CHUNK];
    ssize_t n = read(fd, chunk, sizeof(chunk));

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        bool shown = (int64_t)s->text.total < r->q.limits.output_bytes;

        collect_add(&s->text, chunk, (size_t)n);
        if (r->q.stream && shown)
            stream_out(r, s, chunk, (size_t)n, false);
        return;
    }
    watch_done(&s->watch);
    s->open = false;
    if (r->q.stream && s->n_held)
        stream_out(r, s, "", 0, true);
    maybe_done(r);
}

static void on_exited(int fd, unsigned events, void *arg)
{
    struct run *r = arg;

    (void)fd;
    (void)events;
    if (wait4(r->box.pid, &r->status, WNOHANG, &r->used) != r->box.pid)
        return;
    r->box.pid = 0;
    r->reaped = true;
    r->ended = mono_ms();
    watch_done(&r->exited);
    watch_done(&r->ready);
    maybe_done(r);
}

static void on_deadline(void *arg)
{
    struct run *r = arg;

    if (!r->running || r->timed_out) {
        box_kill(&r->box);
        return;
    }
    r->timed_out = true;
    box_signal(&r->box, SIGTERM);
    timer_set(&r->deadline, GRACE_MS);
}

static void on_watchdog(void *arg)
{
    struct run *r = arg;
    int64_t processes, kb;

    box_usage(&r->box, &processes, &kb);
    if (processes > r->q.limits.processes + 2 || kb > r->q.limits.memory_mb * 1024) {
        r->over_limit = true;
        box_kill(&r->box);
        return;
    }
    timer_set(&r->watchdog, WATCH_MS);
}

/* --- starting -------------------------------------------------------------------------------- */

static int fill_box(struct run *r)
{
    size_t n = r->q.files ? json_object_array_length(r->q.files) : 0;
    int e = box_put(&r->box, r->code_file, r->q.code, r->q.code_len);

    for (size_t i = 0; !e && i < n; i++) {
        json_object *f = json_object_array_get_idx(r->q.files, i), *text = json_get(f, "content");
        const char *data = json_object_get_string(text);
        size_t len = (size_t)json_object_get_string_len(text);
        cleanup(freep) char *bytes = NULL;
        char rel[VPATH_MAX + 1];

        if (str_eq(json_str(f, "encoding", "utf-8"), "base64")) {
            bytes = b64_decode_new(data, len, &len);
            if (!bytes)
                return -EILSEQ;
            data = bytes;
        }
        e = request_rel(json_str(f, "path", ""), rel) ? box_put(&r->box, rel, data, len) : -EINVAL;
    }
    return e;
}

static void on_ready(int fd, unsigned events, void *arg)
{
    struct run *r = arg;
    char byte;
    int e;

    (void)events;
    if (read(fd, &byte, 1) != 1) { /* gone before it waited: on_exited tells */
        watch_done(&r->ready);
        return;
    }
    watch_done(&r->ready);
    e = box_enter(&r->box);
    if (!e)
        e = fill_box(r);
    if (e) {
        bool input = e == -EILSEQ || e == -EEXIST || e == -EISDIR || e == -ENOTDIR;
        cleanup(freep) char *why =
            xasprintf("files: %s", e == -EILSEQ ? "an entry is not base64" : strerror(-e));

        run_fail(r, input ? ERR_INVAL : e == -ENOSPC ? ERR_NOSPC : ERR_SANDBOX, why);
        return;
    }
    r->running = true;
    r->started = mono_ms();
    timer_set(&r->deadline, r->q.limits.timeout_ms);
    timer_set(&r->watchdog, WATCH_MS);
    box_go(&r->box);
}

static int stdin_memfd(const struct run *r)
{
    return r->q.in ? memfd_sealed("stdin", r->q.in, r->q.in_len) : -1;
}

static void watch_box(struct run *r)
{
    static const char *const names[] = { "stdout", "stderr" };
    const int fds[] = { r->box.out, r->box.err };

    for (size_t i = 0; i < N_ELEMS(r->streams); i++) {
        struct stream *s = &r->streams[i];

        s->name = names[i];
        s->open = true;
        collect_init(&s->text, (size_t)r->q.limits.output_bytes);
        watch_init(&s->watch, svc.loop, fds[i], on_output, r);
        watch_set(&s->watch, LOOP_READ);
    }
    watch_init(&r->ready, svc.loop, r->box.ready, on_ready, r);
    watch_set(&r->ready, LOOP_READ);
    watch_init(&r->exited, svc.loop, r->box.pidfd, on_exited, r);
    watch_set(&r->exited, LOOP_READ);
    timer_set(&r->deadline, START_MS);
}

static void start(struct run *r)
{
    const char *argv[ARGS_MAX] = { r->rt.path };
    size_t n = 1, n_args = r->q.args ? json_object_array_length(r->q.args) : 0;
    cleanup(closep) int in = stdin_memfd(r);
    int e;

    if (r->rt.arg)
        argv[n++] = r->rt.arg;
    argv[n++] = r->code_file;
    for (size_t i = 0; i < n_args; i++)
        argv[n++] = json_object_get_string(json_object_array_get_idx(r->q.args, i));
    e = box_start(&(struct box_spec){ .rt = &r->rt,
                                      .limits = &r->q.limits,
                                      .share_net = r->q.network,
                                      .env = r->q.env,
                                      .mounts = r->mounts,
                                      .n_mounts = r->n_mounts,
                                      .argv = argv,
                                      .stdin_fd = in },
                  &r->box);
    if (e) {
        cleanup(freep) char *why = xasprintf("the sandbox did not start: %s", strerror(-e));

        run_fail(r, e == -E2BIG ? ERR_INVAL : ERR_SANDBOX, why);
        return;
    }
    r->started = mono_ms();
    watch_box(r);
}

/* --- what must be asked first ----------------------------------------------------------------- */

static void ask_mount(struct run *r);

/* The folder that memfs named, and only that one: no link on the way, same device and inode. */
static int open_export(json_object *o)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
                            .resolve = RESOLVE_NO_SYMLINKS };
    const char *path = json_str(o, "host_path", "");
    struct stat st;
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

    if (fd < 0)
        return -errno;
    if (!fstat(fd, &st) && (int64_t)st.st_dev == json_int(o, "dev", -1) &&
        (int64_t)st.st_ino == json_int(o, "ino", -1))
        return fd;
    close(fd);
    return -ESTALE;
}

static void on_export(struct ipc_reply *reply, void *arg)
{
    struct run *r = arg;
    json_object *m = json_object_array_get_idx(r->q.mounts, r->n_mounts);
    struct box_mount *to = &r->mounts[r->n_mounts];

    r->asking = NULL;
    if (reply->err) {
        call_fail_rpc(r->c, &reply->error);
        r->c = NULL;
        run_free(r);
        return;
    }
    to->fd = open_export(reply->result);
    if (to->fd < 0) {
        run_fail(r, ERR_PERM, MOUNT_CHANGED);
        return;
    }
    to->rw = str_eq(json_str(m, "mode", "ro"), "rw");
    request_mount_at(m, r->n_mounts, to->at, sizeof(to->at));
    r->n_mounts++;
    ask_mount(r);
}

static void ask_mount(struct run *r)
{
    json_object *m, *caller;

    if (!r->q.mounts || r->n_mounts == json_object_array_length(r->q.mounts)) {
        start(r);
        return;
    }
    m = json_object_array_get_idx(r->q.mounts, r->n_mounts);
    caller = json_dup(r->who.json);
    json_object_object_del(caller, "token");
    r->asking = svc_call("fs/export",
                         json_make("path:s mode:s caller:o", json_str(m, "path", ""),
                                   json_str(m, "mode", "ro"), caller),
                         NULL, 0, on_export, r);
}

static void on_network(struct ipc_reply *reply, void *arg)
{
    struct run *r = arg;

    r->asking = NULL;
    if (reply->err) {
        run_fail(r, ERR_PERM, "network: needs the grant exec/network");
        return;
    }
    ask_mount(r);
}

static void ask_network(struct run *r)
{
    if (!r->q.network) {
        ask_mount(r);
        return;
    }
    if (runs.conf->network == NET_NO) {
        run_fail(r, ERR_PERM, "network: exec.yaml does not allow it");
        return;
    }
    if (runs.conf->network == NET_PASTA) {
        run_fail(r, ERR_SANDBOX,
                 "network: pasta, which keeps the host's own ports out of reach, "
                 "is not available");
        return;
    }
    if (r->who.kind == CALLER_SERVICE) {
        ask_mount(r);
        return;
    }
    /* As the caller: the router knows whether the grant is there. */
    r->asking = svc_call("exec/network", json_make("_as:s", r->who.token), NULL, 0, on_network, r);
}

static char *key_of(const struct caller *who)
{
    return xasprintf("%d:%lld:%s%s", (int)who->kind,
                     (long long)(who->kind == CALLER_AGENT ? who->pid : 0), who->user,
                     who->service);
}

/* The code gets the runtime's usual name, or a hidden one if `files` has that. */
static void name_code(struct run *r)
{
    size_t n = r->q.files ? json_object_array_length(r->q.files) : 0;
    char rel[VPATH_MAX + 1];

    str_copy(r->code_file, sizeof(r->code_file), r->rt.file);
    for (size_t i = 0; i < n; i++)
        if (request_rel(json_str(json_object_array_get_idx(r->q.files, i), "path", ""), rel) &&
            str_eq(rel, r->rt.file))
            snprintf(r->code_file, sizeof(r->code_file), ".avix-%s", r->rt.file);
}

static bool room_for(const char *key)
{
    unsigned own = 0;

    for (const struct run *r = runs.list; r; r = r->next)
        own += str_eq(r->who_key, key);
    return own < RUNS_PER_CALLER && runs.n < RUNS_MAX;
}

void run_start(struct call *c, const struct caller *who, const char *runtime)
{
    struct args a = args_open(c->params);
    struct request q;
    const struct runtime *rt;
    cleanup(freep) char *key = key_of(who);

    request_read(&q, &a, runs.conf, runtime);
    rt = args_bad(&a) ? NULL : runtime_get(q.runtime);
    if (!args_bad(&a) && !rt)
        args_fail(&a, "runtime", "is unknown");
    if (!rt) {
        call_bad_args(c, &a);
        return;
    }
    if (runs.sandbox_err) {
        call_fail(c, runs.sandbox_err, "%s", runs.sandbox_why);
        return;
    }
    if (!rt->available) {
        call_fail(c, ERR_UNAVAIL, "runtime %s is not installed", rt->name);
        return;
    }
    if (!room_for(key)) {
        call_fail_data(c, ERR_BUSY, json_make("retry_after_ms:i", (int64_t)500),
                       "too many executions at once");
        return;
    }
    struct run *r = xcalloc(1, sizeof(*r));

    *r = (struct run){ .c = c,
                       .who = *who,
                       .who_key = TAKE(key),
                       .q = q,
                       .rt = *rt,
                       .box = BOX_NONE,
                       .next = runs.list };
    runs.list = r;
    runs.n++;
    runs.total++;
    name_code(r);
    timer_init(&r->deadline, svc.loop, on_deadline, r);
    timer_init(&r->watchdog, svc.loop, on_watchdog, r);
    call_on_gone(c, on_gone, r);
    ask_network(r);
}
