/*
 * The tool table of execsvc. After the unit is ready it looks, in the background, whether a sandbox
 * can be had and which runtimes there are; calls that come before wait for that. Without a sandbox
 * the tools become unavailable, and a call that comes all the same is refused.
 */
#include "execsvc/execsvc.h"

#include <stdio.h>
#include <sysexits.h>

#include "common/base/fsx.h"
#include "execsvc/probe.h"
#include "execsvc/run.h"
#include "execsvc/runtime.h"

#define WAITING_MAX 64

struct waiting {
    struct call *c;
    struct caller who;
    void (*fn)(struct call *c, const struct caller *who);
    struct waiting *next;
};

static struct {
    struct exec_conf conf;
    bool looked; /* both questions are answered */
    bool probed;
    char why[200]; /* "" : there is a sandbox */
    struct waiting *first, **last;
    unsigned n_waiting;
} state = { .last = &state.first };

static const char *const run_tools[] = { "exec/run", "exec/python", "exec/js", "exec/shell" };

static void drop_waiting(void *arg)
{
    struct waiting *w = arg;

    for (struct waiting **p = &state.first; *p; p = &(*p)->next)
        if (*p == w) {
            *p = w->next;
            if (state.last == &w->next)
                state.last = p;
            state.n_waiting--;
            break;
        }
    call_end(w->c);
    free(w);
}

/* True if the call was put aside until the look is over. */
static bool wait_for_look(struct call *c, const struct caller *who,
                          void (*fn)(struct call *, const struct caller *))
{
    struct waiting *w;

    if (state.looked)
        return false;
    if (state.n_waiting == WAITING_MAX) {
        call_fail(c, ERR_BUSY, "starting");
        return true;
    }
    w = xcalloc(1, sizeof(*w));
    *w = (struct waiting){ .c = c, .who = *who, .fn = fn };
    *state.last = w;
    state.last = &w->next;
    state.n_waiting++;
    call_on_gone(c, drop_waiting, w);
    return true;
}

static void looked(void)
{
    if (!state.probed || !runtimes_ready() || state.looked)
        return;
    state.looked = true;
    for (struct waiting *w; (w = state.first);) {
        state.first = w->next;
        state.n_waiting--;
        call_on_gone(w->c, NULL, NULL);
        w->fn(w->c, &w->who);
        free(w);
    }
    state.last = &state.first;
}

static void on_probed(const char *why, void *arg)
{
    char text[240] = "";

    (void)arg;
    str_copy(state.why, sizeof(state.why), why ? why : "");
    if (why) {
        snprintf(text, sizeof(text), "ESANDBOX: no sandbox: %s", why);
        svc_degraded(text);
    } else {
        log_info("sandbox: bwrap");
    }
    runs_set_sandbox(why ? ERR_SANDBOX : 0, text);
    for (size_t i = 0; i < N_ELEMS(run_tools); i++)
        if (why)
            svc_tool_state(run_tools[i], "unavailable", text);
    state.probed = true;
    looked();
}

static void on_runtimes(void *arg)
{
    (void)arg;
    looked();
}

static void tool_run(struct call *c, const struct caller *who)
{
    if (!wait_for_look(c, who, tool_run))
        run_start(c, who, NULL);
}

static void tool_python(struct call *c, const struct caller *who)
{
    if (!wait_for_look(c, who, tool_python))
        run_start(c, who, "python");
}

static void tool_js(struct call *c, const struct caller *who)
{
    if (!wait_for_look(c, who, tool_js))
        run_start(c, who, "node");
}

static void tool_shell(struct call *c, const struct caller *who)
{
    if (!wait_for_look(c, who, tool_shell))
        run_start(c, who, "bash");
}

static void tool_runtimes(struct call *c, const struct caller *who)
{
    if (wait_for_look(c, who, tool_runtimes))
        return;
    call_reply(c, json_make("runtimes:o sandbox:o", runtimes_json(),
                            json_make("tier:s detail:s", state.why[0] ? "none" : "bwrap",
                                      state.why[0] ? state.why
                                                   : "no cgroup: memory and processes of a sandbox "
                                                     "are counted every 50 ms")));
}

static void tool_network(struct call *c, const struct caller *who)
{
    (void)who;
    call_reply(c, json_make("enabled:b", state.conf.network == NET_HOST));
}

static void tool_metrics(struct call *c, const struct caller *who)
{
    char text[256];

    (void)who;
    snprintf(text, sizeof(text),
             "# TYPE avix_exec_runs_total counter\navix_exec_runs_total %llu\n"
             "# TYPE avix_exec_running gauge\navix_exec_running %u\n",
             (unsigned long long)runs_total(), runs_n());
    call_reply(c, json_make("text:s", text));
}

#define IN_COMMON                                                                 \
    "\"code\":{\"type\":\"string\",\"required\":true,\"desc\":\"the program\"},"  \
    "\"args\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"              \
    "\"stdin\":{\"type\":\"string\"},\"env\":{\"type\":\"object\"},"              \
    "\"files\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},"              \
    "\"desc\":\"{path, content, encoding?} put into the working folder\"},"       \
    "\"mounts\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},"             \
    "\"desc\":\"{path, at?, mode: ro|rw} folders of the VFS, at /box/mnt/<n>\"}," \
    "\"timeout_ms\":{\"type\":\"int\",\"desc\":\"default 30000\"},"               \
    "\"memory_mb\":{\"type\":\"int\",\"desc\":\"default 512\"},"                  \
    "\"network\":{\"type\":\"bool\"},"                                            \
    "\"artifacts\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},"          \
    "\"desc\":\"patterns of files to keep\"},\"stream\":{\"type\":\"bool\"}}"

#define EXEC(tool, text, in, f)                                                   \
    {                                                                             \
        .name = (tool), .flags = M_STREAM, .timeout_s = 600, .stream_idle_s = -1, \
        .min_role = ROLE_USER, .desc = (text), .input = (in), .fn = (f)           \
    }

static const struct method methods[] = {
    EXEC("exec/run", "Run a program in a sandbox.",
         "{\"runtime\":{\"type\":\"string\",\"desc\":\"bash, sh, python or node\"}," IN_COMMON,
         tool_run),
    EXEC("exec/python", "Run a Python program in a sandbox.", "{" IN_COMMON, tool_python),
    EXEC("exec/js", "Run a JavaScript program with node in a sandbox.", "{" IN_COMMON, tool_js),
    EXEC("exec/shell", "Run a shell script with bash in a sandbox.", "{" IN_COMMON, tool_shell),
    { .name = "exec/runtimes",
      .flags = M_READONLY | M_IDEMPOTENT,
      .min_role = ROLE_USER,
      .desc = "The runtimes and the sandbox that executions have.",
      .fn = tool_runtimes },
    { .name = "exec/network",
      .flags = M_READONLY | M_IDEMPOTENT,
      .min_role = ROLE_USER,
      .desc = "Whether executions may use the network; its grant is what network: true needs.",
      .fn = tool_network },
    { .name = "exec/metrics",
      .flags = M_READONLY | M_IDEMPOTENT | M_INTERNAL,
      .desc = "Counters as Prometheus text.",
      .fn = tool_metrics },
};

/* 0, or the error told in the log. */
static int read_conf(struct exec_conf *c)
{
    char path[512];
    struct yaml_err e = { .line = 0 };
    int r = path_fmt(path, sizeof(path), "%s/etc/exec.yaml", svc.root);

    if (!r)
        r = exec_conf_load(path, c, &e);
    if (r)
        log_error("%s:%d: %s", path, e.line, r > 0 ? e.msg : strerror(-r));
    return r;
}

static int execsvc_init(void)
{
    if (read_conf(&state.conf))
        return EX_CONFIG;
    runs_set_conf(&state.conf);
    return 0;
}

static void execsvc_ready(void)
{
    runtimes_find(svc.loop, &state.conf, on_runtimes, NULL);
    if (state.conf.bwrap)
        probe_start(svc.loop, on_probed, NULL);
    else
        on_probed("exec.yaml allows no tier that is available", NULL);
}

static void execsvc_reload(void)
{
    struct exec_conf c;

    if (!state.looked || read_conf(&c)) /* a bad file leaves the old one in force */
        return;
    runtimes_done();
    exec_conf_done(&state.conf);
    state.conf = c;
    state.looked = state.probed = false;
    execsvc_ready();
}

static void execsvc_fini(void)
{
    probe_stop();
    runtimes_done();
    exec_conf_done(&state.conf);
}

const struct svc_spec execsvc_spec = {
    .unit = UNIT_EXECSVC,
    .methods = methods,
    .n_methods = N_ELEMS(methods),
    .init = execsvc_init,
    .ready = execsvc_ready,
    .reload = execsvc_reload,
    .fini = execsvc_fini,
};
