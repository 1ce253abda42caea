/*
 * The order in which every unit comes up and goes down. Coming up: harden, environment,
 * configuration, the room's init, sandbox, loop, socket, the room's start, registration, READY=1.
 * Going down (SIGTERM from init, as a frame or as a host signal): no new connections, the room's
 * stop, calls in flight end or DRAIN_MS pass, the room's fini, exit 0.
 */
#include "common/svc/svc.h"

#include <grp.h>
#include <signal.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/svc/sandbox.h"
#include "common/svc/svc_internal.h"

#define DRAIN_MS      4000
#define DRAIN_STEP_MS 5

struct svc svc = { .listen_fd = -1 };

static struct {
    struct timer timer;
    int64_t until;
} drain;
static gid_t socket_gid = (gid_t)-1;

static bool admit(const struct peer *p, void *arg)
{
    (void)arg;
    return p->uid == 0 || p->uid == getuid() || (socket_gid != (gid_t)-1 && p->gid == socket_gid);
}

static void config_read(void)
{
    struct yaml_err e;
    int r = kernel_config_load(svc.root, &svc.config, &e);

    if (r > 0)
        die(78, "%s/etc/kernel.yaml:%d: %s", svc.root, e.line, e.msg);
    if (r < 0)
        die(78, "%s/etc/kernel.yaml: %s", svc.root, strerror(-r));
    if (svc.config->socket_group[0]) {
        const struct group *g = getgrnam(svc.config->socket_group);

        if (g)
            socket_gid = g->gr_gid;
    }
}

static void drain_step(void *arg)
{
    (void)arg;
    unsigned open = svc.server ? server_n_calls(svc.server) : svc.spec->open_calls();

    if (open == 0 || mono_ms() >= drain.until)
        loop_stop(svc.loop);
    else
        timer_set(&drain.timer, DRAIN_STEP_MS);
}

void svc_stop(void)
{
    if (svc.stopping)
        return;
    svc.stopping = true;
    log_info("stopping");
    if (svc.server)
        server_pause(svc.server, true);
    if (svc.spec->stop)
        svc.spec->stop();
    drain.until = mono_ms() + DRAIN_MS;
    timer_init(&drain.timer, svc.loop, drain_step, NULL);
    timer_set(&drain.timer, 0);
}

static void on_term(void *arg)
{
    (void)arg;
    svc_stop();
}

static void shed(const struct svc_spec *spec)
{
    const char *missing = NULL;
    const struct sandbox_path *paths = spec->paths ? spec->paths() : NULL;
    unsigned flags = svc.unit->sandbox;

#ifdef AVIX_COVERAGE /* its counters are files */
    flags = 0;
#endif
    if (sandbox_enter(flags, paths, &missing))
        svc_degraded(missing);
}

static void serve(const struct svc_spec *spec)
{
    struct server_opts o = spec->server;

    if (!o.admit)
        o.admit = admit;
    if (!o.max_frame)
        o.max_frame = (size_t)svc.config->max_message_bytes;
    signal(SIGPIPE, SIG_IGN);
    svc.loop = spec->loop_new ? spec->loop_new() : loop_new();
    loop_signal(svc.loop, SIGTERM, on_term, NULL);
    loop_signal(svc.loop, SIGINT, on_term, NULL);
    svc_dispatch_init(spec);
    if (!spec->open_calls)
        svc.server = server_new(svc.loop, svc.listen_fd, &o, svc_dispatch, NULL);
}

int svc_main(const struct svc_spec *spec, int argc, char **argv)
{
    int r = 0;

    process_harden();
    if (argc == 2 && str_eq(argv[1], "--version")) {
        printf("%s %s\n", unit_rows[spec->unit].program, AVIX_VERSION);
        return 0;
    }
    if (argc > 1) {
        fprintf(stderr, "%s: takes no arguments; it is started by avix-init\n", argv[0]);
        return 64;
    }
    svc_env_read(spec);
    config_read();
    if (spec->init)
        r = spec->init();
    if (r)
        return r;
    shed(spec);
    serve(spec);
    if (spec->start)
        r = spec->start();
    if (r)
        return r;
    if (!spec->late_ready)
        svc_ready();
    loop_run(svc.loop);
    if (spec->fini)
        spec->fini();
    log_info("stopped");
    return 0;
}
