/* What the system says about itself: sys/info, sys/status, metrics, and the stop of everything. */
#include <sys/utsname.h>

#include "common/base/clock.h"
#include "kernel/core/calls.h"

void sys_sys_info(struct call *c, const struct caller *w)
{
    struct utsname u = { 0 };
    (void)w;
    (void)uname(&u);
    call_reply(c, json_make("version:s platform:s arch:s uptime_secs:i boot_id:s", AVIX_VERSION,
                            "linux", u.machine, (now_ms() - K.started_at) / 1000, K.boot_id));
}

static void count_states(int64_t n[PS_COUNT])
{
    size_t pos = 0;
    struct proc *p;
    while (proc_each(&pos, &p))
        n[p->state]++;
}

static void on_units(struct ipc_reply *r, void *arg)
{
    struct call *c = arg;
    int64_t n[PS_COUNT] = { 0 }, total = 0, running = 0, failed = 0;
    char ts[RFC3339_LEN];
    json_object *units = json_arr(r->result, "units");
    for (size_t i = 0; units && i < json_object_array_length(units); i++) {
        const char *s = json_str(json_object_array_get_idx(units, i), "state", "");
        total++;
        running += str_eq(s, "running") || str_eq(s, "degraded");
        failed += str_eq(s, "failed");
    }
    count_states(n);
    json_object *o =
        json_make("version:s bootId:s startedAt:s uptimeSecs:i ready:b", AVIX_VERSION, K.boot_id,
                  rfc3339(K.started_at, ts), (now_ms() - K.started_at) / 1000, (int)K.recovered);
    json_add(o, "services", json_make("total:i running:i failed:i", total, running, failed));
    json_add(o, "agents",
             json_make("running:i waiting:i paused:i", n[PS_RUNNING] + n[PS_PENDING], n[PS_WAITING],
                       n[PS_PAUSED]));
    json_add_int(o, "sessions",
                 db_int_of("SELECT count(DISTINCT session_id) FROM invocations WHERE ended_at IS "
                           "NULL",
                           0, ""));
    json_add_int(o, "hilPending", 0);
    call_reply(c, o);
}

void sys_status(struct call *c, const struct caller *w)
{
    char sock[108];
    (void)w;
    snprintf(sock, sizeof sock, "%s/init.sock", svc.run_dir);
    struct ipc_req q = { .sock = sock,
                         .method = "init/list",
                         .timeout_ms = 3000,
                         .listener = svc.init_pid,
                         .repeatable = true };
    (void)ipc_start(svc.loop, &q, NULL, on_units, c);
}

void kernel_metrics(struct call *c, const struct caller *w)
{
    int64_t n[PS_COUNT] = { 0 };
    (void)w;
    count_states(n);
    json_object *o = json_new();
    for (int i = 0; i < PS_COUNT; i++)
        json_add_int(o, pstate_names[i], n[i]);
    call_reply(c, json_make("agents:o hostProcesses:i eventsWaiting:i uptimeSecs:i", o,
                            (int64_t)proc_count("", NULL), (int64_t)pub_waiting(),
                            (now_ms() - K.started_at) / 1000));
}

/* --- init/stopping ---------------------------------------------------------------------------- */

void status_check_stopped(void)
{
    if (!K.stop_call || proc_count("", NULL) > 0)
        return;
    log_info("all agents have stopped");
    call_reply(TAKE(K.stop_call), json_make("ok:b", 1));
}

static void stop_gone(void *arg)
{
    (void)arg;
    struct call *c = TAKE(K.stop_call);
    if (c)
        call_end(c);
}

void frame_init_stopping(struct call *c, const struct caller *w)
{
    size_t pos = 0;
    struct proc *p;
    (void)w;
    K.stopping = true;
    if (K.stop_call)
        call_end(TAKE(K.stop_call));
    if (c->note) {
        call_end(c);
    } else {
        K.stop_call = c;
        call_on_gone(c, stop_gone, NULL);
    }
    while (proc_each(&pos, &p))
        if (!proc_final(p) && proc_hosted(p))
            life_stop(p, "shutdown", "shutdown");
    status_check_stopped();
}

void frame_auth_revoked(struct call *c, const struct caller *w)
{
    (void)w; /* what it names is enforced by the router; the kernel asks authsvc before it mints */
    if (c->note)
        call_end(c);
    else
        call_reply(c, json_make("ok:b", 1));
}
