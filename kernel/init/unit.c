/*
 * Built-in units as one table of state and event. An empty cell means that nothing happens. What a
 * unit needs is awaited before its first start only: a restart after a crash waits for nothing.
 */
#include "kernel/init/init.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "kernel/init/cgroup.h"
#include "kernel/init/unit_start.h"

#define DRAIN_MS   5000
#define SOFT_MS    500
#define HARD_MS    4500
#define AFTER_KILL 1000

struct iunit units[UNIT_COUNT];

enum stage { STAGE_DRAIN = 1, STAGE_ASK, STAGE_TERM, STAGE_KILL };

static void set_state(struct iunit *u, enum ustate st)
{
    if (u->state == st)
        return;
    u->state = st;
    u->since_ms = now_ms();
    if (u->id != UNIT_KERNEL)
        report("init/unit", json_make("name:s state:s pid:i hostPid:i", u->row->name,
                                      unit_state_name(u), (int64_t)u->row->pid, (int64_t)u->pid));
    log_info("unit %s: %s", u->row->name, unit_state_name(u));
    ctl_unit_changed(u);
}

const char *unit_state_name(const struct iunit *u)
{
    static const char *const names[ST_COUNT] = {
        [ST_STOPPED] = "stopped",   [ST_STARTING] = "starting", [ST_RUNNING] = "running",
        [ST_STOPPING] = "stopping", [ST_BACKOFF] = "backoff",   [ST_FAILED] = "failed",
    };

    return u->state == ST_RUNNING && u->n_missing ? "degraded" : names[u->state];
}

/* Callers of a unit that stays down fail at once instead of hanging in its backlog. */
static void refuse_one(int fd, unsigned events, void *arg)
{
    (void)events;
    (void)arg;
    int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

    if (c >= 0)
        close(c);
}

static void refuse(struct iunit *u, bool on)
{
    if (!on) {
        watch_done(&u->refuse);
    } else if (init.booted && !init.stopping) {
        watch_init(&u->refuse, init.loop, socket_of(u->id), refuse_one, u);
        watch_set(&u->refuse, LOOP_READ);
    }
}

static void act_spawn(struct iunit *u)
{
    refuse(u, false);
    while (u->n_missing)
        free(u->missing[--u->n_missing]);
    u->status_text[0] = '\0';
    u->stop_stage = 0;
    u->force = false;
    u->started_mono = mono_ms();
    if (!u->first_mono)
        u->first_mono = u->started_mono;
    int r = unit_start(u);

    if (r) {
        log_error("unit %s: cannot start: %s", u->row->name, strerror(-r));
        u->status = 127 << 8;
        unit_event(u, EV_EXIT);
        return;
    }
    timer_set(&u->timer, READY_MS);
}

static void act_ready(struct iunit *u)
{
    timer_stop(&u->timer);
    u->boot_ms = mono_ms() - u->started_mono;
    u->ready_once = true;
    if (!init.booted && (init.opts.verbose || isatty(init.stderr_fd)))
        dprintf(init.stderr_fd, "avix: %s %s in %lld ms\n", u->row->name, unit_state_name(u),
                (long long)u->boot_ms);
    if (u->id == UNIT_KERNEL)
        reports_flush();
    boot_check();
    units_kick();
}

static void act_late(struct iunit *u)
{
    log_error("unit %s: not ready after %d s", u->row->name, READY_MS / 1000);
    if (!init.booted && u->row->required)
        boot_unit_failed(u);
    (void)kill(-u->pid, SIGKILL);
}

/* Statuses that another try will not change: bad configuration, no key, no program. */
static bool hopeless(int status)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;

    return code == EXIT_CONFIG || code == EXIT_NO_KEY || code == 64 || code == 127;
}

static void act_crashed(struct iunit *u)
{
    int64_t now = mono_ms(), ran = now - u->started_mono;
    uint32_t r;

    rnd_bytes(&r, sizeof(r));
    int64_t delay = backoff_next(&u->backoff, ran, (int)(r % 201) - 100);

    if (!init.booted && u->row->required &&
        (hopeless(u->status) || now + delay - u->first_mono >= READY_MS))
        boot_unit_failed(u);

    u->restarts++;
    if (WIFSIGNALED(u->status))
        log_error("unit %s: killed by signal %d, again in %lld ms", u->row->name,
                  WTERMSIG(u->status), (long long)delay);
    else
        log_error("unit %s: exit status %d, again in %lld ms", u->row->name, WEXITSTATUS(u->status),
                  (long long)delay);
    timer_set(&u->timer, delay);
    boot_check();
}

static void act_down(struct iunit *u)
{
    timer_stop(&u->timer);
    if (init.stopping) {
        shutdown_progress();
    } else if (u->want_up) {
        u->restarts++;
        unit_event(u, EV_START);
    } else {
        refuse(u, true);
    }
}

static void stop_stage(struct iunit *u, enum stage stage);

static void drained(struct ipc_reply *r, void *arg)
{
    struct iunit *u = arg;

    (void)r;
    if (u->state == ST_STOPPING && u->stop_stage == STAGE_DRAIN)
        stop_stage(u, STAGE_ASK);
}

static void send_drain(struct iunit *u)
{
    char sock[108];
    cleanup(json_putp) json_object *p = json_make("name:s drain:b", u->row->name, 1);

    (void)path_fmt(sock, sizeof(sock), "%s/router.sock", init.run_dir);
    struct ipc_req q = { .sock = sock,
                         .method = "ipc.deregister",
                         .params = p,
                         .timeout_ms = DRAIN_MS,
                         .listener = getpid() };

    (void)ipc_start(init.loop, &q, NULL, drained, u);
}

static void noted(struct ipc_reply *r, void *arg)
{
    (void)r;
    (void)arg;
}

static void send_signal(struct iunit *u, const char *name)
{
    char sock[108], id[UUID_LEN], at[RFC3339_LEN];
    cleanup(json_putp) json_object *p =
        json_make("signal:s payload:o signalId:s from:s sentAt:s", name, json_new(), uuid4(id),
                  "init", rfc3339(now_ms(), at));

    (void)path_fmt(sock, sizeof(sock), "%s/%s", init.run_dir, u->row->socket);
    struct ipc_req q = { .sock = sock,
                         .method = "signal",
                         .params = p,
                         .note = true,
                         .timeout_ms = SOFT_MS,
                         .listener = getpid() };

    (void)ipc_start(init.loop, &q, NULL, noted, NULL);
}

void unit_reload(struct iunit *u)
{
    if (u->state == ST_RUNNING)
        send_signal(u, "SIGHUP");
}

static void stop_stage(struct iunit *u, enum stage stage)
{
    u->stop_stage = (int)stage;
    switch (stage) {
    case STAGE_DRAIN:
        timer_set(&u->timer, DRAIN_MS);
        send_drain(u);
        break;
    case STAGE_ASK:
        timer_set(&u->timer, SOFT_MS);
        send_signal(u, "SIGTERM");
        break;
    case STAGE_TERM:
        timer_set(&u->timer, HARD_MS);
        (void)kill(-u->pid, SIGTERM);
        break;
    case STAGE_KILL:
        timer_set(&u->timer, AFTER_KILL);
        (void)kill(-u->pid, SIGKILL);
        break;
    }
}

static bool can_drain(const struct iunit *u)
{
    return !init.stopping && u->id != UNIT_ROUTER && units[UNIT_ROUTER].state == ST_RUNNING &&
           u->ready_once;
}

static void act_stop(struct iunit *u)
{
    stop_stage(u, u->force ? STAGE_KILL : can_drain(u) ? STAGE_DRAIN : STAGE_ASK);
}

static void act_stop_next(struct iunit *u)
{
    stop_stage(u, u->stop_stage >= STAGE_KILL ? STAGE_KILL : (enum stage)(u->stop_stage + 1));
}

static void act_up_again(struct iunit *u)
{
    u->want_up = true;
}

static const struct {
    enum ustate next;
    void (*act)(struct iunit *);
} step[ST_COUNT][EV_COUNT] = {
    [ST_STOPPED] = { [EV_START] = { ST_STARTING, act_spawn } },
    [ST_STARTING] = { [EV_READY] = { ST_RUNNING, act_ready },
                      [EV_EXIT] = { ST_BACKOFF, act_crashed },
                      [EV_TIMEOUT] = { ST_STARTING, act_late },
                      [EV_STOP] = { ST_STOPPING, act_stop } },
    [ST_RUNNING] = { [EV_EXIT] = { ST_BACKOFF, act_crashed },
                     [EV_STOP] = { ST_STOPPING, act_stop } },
    [ST_STOPPING] = { [EV_EXIT] = { ST_STOPPED, act_down },
                      [EV_TIMEOUT] = { ST_STOPPING, act_stop_next },
                      [EV_STOP] = { ST_STOPPING, act_stop },
                      [EV_START] = { ST_STOPPING, act_up_again } },
    [ST_BACKOFF] = { [EV_TIMEOUT] = { ST_STARTING, act_spawn },
                     [EV_START] = { ST_STARTING, act_spawn },
                     [EV_STOP] = { ST_STOPPED, act_down } },
    [ST_FAILED] = { [EV_START] = { ST_STARTING, act_spawn }, [EV_STOP] = { ST_STOPPED, act_down } },
};

void unit_event(struct iunit *u, enum uevent ev)
{
    void (*act)(struct iunit *) = step[u->state][ev].act;

    if (!act)
        return;
    set_state(u, step[u->state][ev].next);
    act(u);
}

static void on_timer(void *arg)
{
    unit_event(arg, EV_TIMEOUT);
}

bool unit_uses(const struct iunit *u)
{
    return !(init.opts.one_shot && u->id == UNIT_GATEWAY);
}

void units_init(void)
{
    char rel[64];

    for (int i = 0; i < UNIT_COUNT; i++) {
        struct iunit *u = &units[i];

        u->id = (enum unit_id)i;
        u->row = &unit_rows[i];
        u->status = -1;
        u->since_ms = now_ms();
        u->want_up = unit_uses(u);
        (void)path_fmt(rel, sizeof(rel), "%s.log", u->row->name);
        u->log = logfile_open(rel, u->row->name, true);
        timer_init(&u->timer, init.loop, on_timer, u);
    }
}

static bool needs_met(const struct iunit *u)
{
    const char *pos = u->row->needs;
    char word[32];

    while (word_next(&pos, word, sizeof(word))) {
        enum unit_id need = unit_by_name(word);

        if (need >= 0 && units[need].state != ST_RUNNING && !units[need].ready_once)
            return false;
    }
    return true;
}

void units_kick(void)
{
    if (init.stopping)
        return;
    for (int i = 0; i < UNIT_COUNT; i++)
        if (units[i].want_up && units[i].state == ST_STOPPED && needs_met(&units[i]))
            unit_event(&units[i], EV_START);
}

struct iunit *unit_of_pid(pid_t pid)
{
    for (int i = 0; i < UNIT_COUNT; i++)
        if (units[i].pid == pid && pid > 0)
            return &units[i];
    return NULL;
}

void unit_exited(struct iunit *u, int status)
{
    cgroup_leave(u->row->name);
    u->status = status;
    u->pid = 0;
    u->start = 0;
#ifdef AVIX_SAN
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SANITIZER) {
        log_error("unit %s: ended by a sanitizer", u->row->name);
        init.unit_report = true;
    }
#endif
    units_json_write();
    unit_event(u, EV_EXIT);
}

void unit_missing(struct iunit *u, const char *what)
{
    for (size_t i = 0; i < u->n_missing; i++)
        if (str_eq(u->missing[i], what))
            return;
    if (u->n_missing < MISSING_MAX)
        u->missing[u->n_missing++] = xstrdup(what);
}

void unit_stop(struct iunit *u, bool force)
{
    u->force = force;
    unit_event(u, EV_STOP);
}
