/*
 * Going down: the kernel first gets half of the time to stop its agents at a good point, then
 * agents that are left get SIGTERM and SIGKILL, then units stop in the reverse of their needs, and
 * what is alive at the end of the grace is killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/init/init.h"

#define GRACE_MS     30000
#define GRACE_1_MS   8000 /* as PID 1: container runtimes kill after 10 s */
#define KERNEL_MS    15000
#define KERNEL_1_MS  3000
#define AGENT_END_MS 1000

enum phase { PHASE_NONE, PHASE_KERNEL, PHASE_AGENTS, PHASE_UNITS, PHASE_KILL };
static enum phase phase;
static struct timer timer;
static int64_t deadline;
static bool again, hurry;

static void phase_enter(enum phase p);

static int64_t left_ms(void)
{
    int64_t ms = deadline - mono_ms();

    return ms > 0 ? ms : 0;
}

static void on_timer(void *arg)
{
    (void)arg;
    if (left_ms() == 0)
        phase_enter(PHASE_KILL);
    else
        phase_enter(phase + 1);
}

static void kernel_answered(struct ipc_reply *r, void *arg)
{
    (void)r;
    (void)arg;
    if (phase == PHASE_KERNEL)
        phase_enter(PHASE_AGENTS);
}

static void ask_kernel(int64_t ms)
{
    char sock[108];

    if (units[UNIT_KERNEL].state != ST_RUNNING) {
        phase_enter(PHASE_AGENTS);
        return;
    }
    cleanup(json_putp) json_object *p = json_make("deadline_ms:i", ms);

    (void)path_fmt(sock, sizeof(sock), "%s/%s", init.run_dir, unit_rows[UNIT_KERNEL].socket);
    struct ipc_req q = { .sock = sock,
                         .method = "init/stopping",
                         .params = p,
                         .timeout_ms = (int)ms,
                         .listener = getpid() };

    timer_set(&timer, ms);
    (void)ipc_start(init.loop, &q, NULL, kernel_answered, NULL);
}

/* True if a unit that needs u is still there. */
static bool needed(const struct iunit *u)
{
    for (int i = 0; i < UNIT_COUNT; i++) {
        const char *pos = units[i].row->needs;
        char word[32];

        if (units[i].state == ST_STOPPED)
            continue;
        while (word_next(&pos, word, sizeof(word)))
            if (str_eq(word, u->row->name))
                return true;
    }
    return false;
}

/* Stops every unit that nobody needs any more; true when all are down. */
static bool units_unwind(void)
{
    bool down = true;

    for (int i = UNIT_COUNT - 1; i >= 0; i--) {
        struct iunit *u = &units[i];

        u->want_up = false;
        if (u->state == ST_STOPPED)
            continue;
        if (u->state != ST_STOPPING && !needed(u))
            unit_stop(u, false);
        down &= u->state == ST_STOPPED;
    }
    return down;
}

static void finish(void)
{
    timer_stop(&timer);
    phase = PHASE_NONE;
    loop_stop(init.loop);
}

static void kill_all(void)
{
    (void)agents_signal(SIGKILL);
    for (int i = 0; i < UNIT_COUNT; i++)
        if (units[i].pid)
            (void)kill(-units[i].pid, SIGKILL);
}

static void phase_enter(enum phase p)
{
    bool pid1 = getpid() == 1;

    phase = p;
    switch (p) {
    case PHASE_NONE:
        break;
    case PHASE_KERNEL: {
        int64_t ms = pid1 ? KERNEL_1_MS : KERNEL_MS;

        ask_kernel(ms < left_ms() / 2 ? ms : left_ms() / 2);
        break;
    }
    case PHASE_AGENTS:
        if (agents_signal(SIGTERM) == 0) {
            phase_enter(PHASE_UNITS);
            break;
        }
        timer_set(&timer, AGENT_END_MS < left_ms() ? AGENT_END_MS : left_ms());
        break;
    case PHASE_UNITS:
        (void)agents_signal(SIGKILL);
        timer_set(&timer, left_ms());
        shutdown_progress();
        break;
    case PHASE_KILL:
        log_warn("shutdown: time is up, killing what is left");
        kill_all();
        timer_set(&timer, AGENT_END_MS);
        shutdown_progress();
        break;
    }
}

void shutdown_progress(void)
{
    if (phase == PHASE_AGENTS && agents_signal(0) == 0)
        phase_enter(PHASE_UNITS);
    else if ((phase == PHASE_UNITS || phase == PHASE_KILL) && units_unwind() &&
             agents_signal(0) == 0 && phase != PHASE_NONE)
        finish();
}

void shutdown_begin(const char *reason, int grace_s, bool reboot)
{
    if (init.stopping)
        return;
    log_info("shutting down%s%s", *reason ? ": " : "", reason);
    init.stopping = true;
    again = reboot;
    deadline = mono_ms() + (grace_s >= 0    ? (int64_t)grace_s * 1000
                            : getpid() == 1 ? GRACE_1_MS
                                            : GRACE_MS);
    systemd_notify("STOPPING=1");
    timer_init(&timer, init.loop, on_timer, NULL);
    phase_enter(PHASE_KERNEL);
}

bool shutdown_again(void)
{
    return again;
}

/* A second signal, or a boot that failed: nobody is waited for. */
void shutdown_hurry(void)
{
    hurry = true;
    init.stopping = true;
    if (phase == PHASE_NONE)
        kill_all();
    else
        phase_enter(PHASE_KILL);
}

/* Orphans that were handed to us as their reaper: nothing of the suite outlives it. */
static void kill_orphans(void)
{
    char path[64], *text = NULL;
    size_t len;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    if (file_read(path, 65536, &text, &len))
        return;
    for (char *p = text, *end; *p; p = end) {
        long pid = strtol(p, &end, 10);

        if (end == p)
            break;
        if (pid > 1)
            (void)kill((pid_t)pid, SIGKILL);
        while (*end == ' ')
            end++;
    }
    free(text);
}

/* Kills and reaps what is left, for a second at most: a process may hang in the host kernel. */
void shutdown_reap(void)
{
    int64_t end = mono_ms() + AGENT_END_MS;
    pid_t pid;

    if (getpid() == 1)
        (void)kill(-1, SIGKILL);
    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && mono_ms() < end) {
        if (pid == 0) {
            kill_orphans();
            usleep(1000);
        }
    }
}
