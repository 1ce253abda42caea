/*
 * The order matters: not dumpable before anything is read, the descriptors read while files can
 * still be opened, the jail before the filter.
 */
#include "kernel/agent/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "common/base/log.h"
#include "common/svc/sandbox.h"
#include "kernel/agent/events.h"
#include "kernel/agent/goal.h"
#include "kernel/agent/report.h"
#include "kernel/agent/seal.h"
#include "kernel/agent/signals.h"

#define HISTORY_MAX (64 * 1024 * 1024)
#define SECRETS_MAX (1024 * 1024)
/* The runtimes of sanitizers and of coverage open files of their own. */
#if defined(AVIX_SAN) || defined(AVIX_COVERAGE)
#define SEALABLE false
#else
#define SEALABLE true
#endif

struct agent self;

static int bad_start(const char *what)
{
    log_error("bad start: %s", what);
    return EXIT_BAD_START;
}

static bool sock_path(char out[108], const char *env, const char *run_dir, const char *name)
{
    const char *v = env ? getenv(env) : NULL;

    if (!str_empty(v))
        return str_copy(out, 108, v);
    return !path_fmt(out, 108, "%s/%s", run_dir, name);
}

static int read_env(void)
{
    const char *run = getenv("AVIX_RUN_DIR");
    enum log_level level;

    if (str_empty(run))
        return bad_start("AVIX_RUN_DIR is not set");
    if (log_level_parse(getenv("AVIX_LOG_LEVEL"), &level))
        log_set_level(level);
    if (!sock_path(self.router, "AVIX_ROUTER_SOCK", run, "router.sock") ||
        !sock_path(self.kernel, "AVIX_KERNEL_SOCK", run, "kernel.sock") ||
        !sock_path(self.gateway, NULL, run, "gateway.sock"))
        return bad_start("a socket path is too long");
    return 0;
}

static void degrade(const char *what, const char *step, int err)
{
    cleanup(freep) char *text =
        xasprintf("%s: %s%s%s", what, step, err ? ": " : "", err ? strerror(-err) : "");

    log_warn("%s", text);
    if (!self.degraded)
        self.degraded = json_new_arr();
    json_push_str(self.degraded, text);
}

/* 0, or an exit code: the jail was required and cannot be had. */
static int make_jail(void)
{
    const char *const sockets[] = { self.router, self.kernel, self.gateway };
    const char *step = "";

    if (!SEALABLE)
        return 0;
    if (str_eq(self.st.jail, "off")) {
        degrade("jail", "off", 0);
        return 0;
    }
    int r = jail_enter(sockets, N_ELEMS(sockets), &step);
    if (!r)
        return 0;
    degrade("jail", step, r);
    return str_eq(self.st.jail, "require") ? bad_start("agents.jail is \"require\"") : 0;
}

static void put_seal_on(void)
{
    int r;

    if (!SEALABLE)
        return;
    if (str_eq(self.st.seccomp, "off")) {
        degrade("seccomp", "off", 0);
        return;
    }
    bool only_log = str_eq(self.st.seccomp, "log");
    if (only_log)
        degrade("seccomp", "log only", 0);
    if ((r = seal_filter(only_log ? SEAL_LOG : SEAL_ENFORCE)))
        degrade("seccomp", "filter", r);
}

static int read_secrets(void)
{
    size_t len = 0;

    if (self.st.fd_secrets < 0)
        return 0;
    char *text = start_slurp(self.st.fd_secrets, SECRETS_MAX, &len);
    int r = text ? mask_load(&self.mask, text, len) : ERR_INVAL;
    if (text) {
        explicit_bzero(text, len);
        free(text);
    }
    close(self.st.fd_secrets);
    return r ? bad_start("the secrets cannot be read") : 0;
}

static int read_history(void)
{
    size_t len = 0;

    context_init(&self.ctx, self.st.context_limit);
    if (self.st.fd_history < 0)
        return 0;
    cleanup(freep) char *text = start_slurp(self.st.fd_history, HISTORY_MAX, &len);
    close(self.st.fd_history);
    if (!text)
        return bad_start("the history cannot be read");
    goal_replay(text, len, self.st.last_seq > 0); /* else of earlier invocations */
    return 0;
}

/* A sealed process cannot tell who connects; the frame's key does. */
static bool admit_any(const struct peer *p, void *arg)
{
    (void)p;
    (void)arg;
    return true;
}

static int open_loop(void)
{
    struct server_opts o = { .max_frame = 2 * 1024 * 1024, .max_conns = 16, .admit = admit_any };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write */
    self.loop = loop_new();
    if (!self.loop || fcntl(FD_LISTEN, F_SETFL, O_NONBLOCK))
        return bad_start("descriptor 3 is no socket");
    signals_init();
    report_init();
    events_init();
    loop_signal(self.loop, SIGTERM, signals_term, NULL);
    self.server = server_new(self.loop, FD_LISTEN, &o, signals_frame, NULL);
    return 0;
}

int boot(int argc, char **argv)
{
    char why[256];
    int64_t pid = start_argv(argc, argv);
    int r;

    process_harden();
    log_init("agent", false, LOG_INFO);
    self.init_pid = getppid();
    if (pid < 0)
        return bad_start("usage: avix-agent --pid N");
    if ((r = read_env()))
        return r;
    if (start_read(FD_START, pid, &self.st, why, sizeof why))
        return bad_start(why);
    close(FD_START);
    if (journal_open(&self.journal, FD_CONVERSATION, self.st.last_seq))
        return bad_start("descriptor 4 is not a file open for appending");
    if ((r = read_secrets()) || (r = read_history()) || (r = open_loop()) || (r = make_jail()))
        return r;
    put_seal_on();
    return 0;
}
