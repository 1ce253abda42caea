/*
 * The gateway as a unit: start, reload, stop.
 *
 * Everything that needs files or loads libraries (the ring, certificates, web files, lws with its
 * plug-in) happens before the sandbox, on a loop that exists already. The port is open as soon as
 * we accept; readiness is said then, and not when the tools are registered: there are none.
 */
#include "gateway/gateway.h"

#include <errno.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/ipc/peer.h"
#include "gateway/bus.h"
#include "gateway/cmd.h"
#include "gateway/http.h"
#include "gateway/loop_uv.h"
#include "gateway/metrics.h"

#define STOP_MS 2500

static struct loop *loop;
static char dir[128], web_root[512];

struct loop *gateway_loop(void)
{
    return loop;
}

/* <prefix>/share/avix/web, or the source tree beside a build folder. */
static void find_web(void)
{
    char exe[400];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    if (svc.config->web_root[0]) {
        str_copy(web_root, sizeof(web_root), svc.config->web_root);
        return;
    }
    if (n <= 0)
        return;
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    snprintf(web_root, sizeof(web_root), "%s/../../share/avix/web", exe);
    if (access(web_root, R_OK))
        snprintf(web_root, sizeof(web_root), "%s/../../gateway/web", exe);
}

static int open_ring(void)
{
    char path[160];
    /* Numbers of a new boot are above those of every earlier one. */
    uint64_t boot = proc_start_time(svc.init_pid) << 24 ^ (uint64_t)svc.init_pid;
    uint64_t first = (uint64_t)(now_ms() / 1000) << 20;
    int r = path_fmt(path, sizeof(path), "%s/events.ring", dir);

    r = r ? r : ring_open(path, boot, first, RING_BYTES, RING_EVENTS, &conn_ring);
    if (r)
        log_error("%s/events.ring: %s", dir, strerror(-r));
    return r ? 74 : 0;
}

int gateway_init(void)
{
    int r;

    if (path_fmt(dir, sizeof(dir), "%s/gateway", svc.run_dir))
        return 64;
    r = mkdir_p(dir, 0700);
    r = r ? r : cookie_init(dir);
    if (r) {
        log_error("%s: %s", dir, strerror(-r));
        return 74;
    }
    ident_init();
    loop = loop_uv_new();
    if (!loop)
        return 71;
    r = open_ring();
    if (r)
        return r;
    bus_start();
    find_web();
    if (svc.config->web_enabled && web_root[0] && (r = files_load(web_root)))
        log_warn("%s: %s", web_root, r < 0 ? strerror(-r) : "over 32 MiB");
    return web_init(loop);
}

const struct sandbox_path *gateway_paths(void)
{
    static char tls[300];
    static const char *const certs[] = { "/etc/ssl", "/usr/lib/ssl" };
    static struct sandbox_path paths[10];
    size_t n = 0;

    snprintf(tls, sizeof(tls), "%s/etc/tls", svc.root);
    paths[n++] = (struct sandbox_path){ svc.run_dir, false };
    paths[n++] = (struct sandbox_path){ dir, true };
    paths[n++] = (struct sandbox_path){ tls, false };
    paths[n++] = (struct sandbox_path){ "/proc", false };
    if (svc.config->tls_cert[0])
        paths[n++] = (struct sandbox_path){ svc.config->tls_cert, false };
    if (svc.config->tls_key[0])
        paths[n++] = (struct sandbox_path){ svc.config->tls_key, false };
    for (size_t i = 0; i < N_ELEMS(certs); i++)
        paths[n++] = (struct sandbox_path){ certs[i], false };
    paths[n] = (struct sandbox_path){ NULL, false };
    return paths;
}

int gateway_start(void)
{
    web_start();
    svc_ready();
    return 0;
}

void gateway_reload(void)
{
    web_reload();
}

void gateway_stop(void)
{
    web_stop();
}

static void nothing(void *arg)
{
    (void)arg;
}

/* The loop has ended; the WebSockets' last frames still go out. */
void gateway_fini(void)
{
    struct timer t;
    int64_t until = mono_ms() + STOP_MS;

    timer_init(&t, loop, nothing, NULL);
    while (!web_idle() && mono_ms() < until) {
        timer_set(&t, 50);
        loop_step(loop, true);
    }
    timer_done(&t);
    server_free(svc.server);
    svc.server = NULL;
    web_fini();
    bus_fini();
    ident_fini();
    http_ops_fini();
    files_fini();
    metrics_fini();
    ring_close(conn_ring);
}

/* --- frames that come to gateway.sock --------------------------------------------------------- */

static void revoked(struct sess *s, void *arg)
{
    (void)arg;
    ws_close_session(s, 4003, "token_revoked");
}

static void on_revoked(struct call *c, const struct caller *who)
{
    (void)who;
    ident_revoke(c->params, revoked, NULL);
    if (c->note)
        call_end(c);
    else
        call_reply(c, json_make("ok:b", 1));
}

#define FROM_ALL (~0U)
const struct method gateway_methods[] = {
    { .name = "event.publish", .flags = M_FRAME, .from = FROM_ALL, .fn = bus_on_publish },
    { .name = "auth.revoked", .flags = M_FRAME, .from = FROM(UNIT_AUTHSVC), .fn = on_revoked },
};
const size_t gateway_n_methods = N_ELEMS(gateway_methods);
