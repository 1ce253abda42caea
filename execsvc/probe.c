/* The probe is an ordinary box whose program is `true`: the same arguments, filter and limits. */
#include "execsvc/probe.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "execsvc/sandbox.h"

#define PROBE_MS 10000

static struct {
    struct box box;
    struct watch ready, exited;
    struct timer late;
    bool entered;
    probe_fn done;
    void *arg;
} probe = { .box = BOX_NONE };

void probe_stop(void)
{
    watch_done(&probe.ready);
    watch_done(&probe.exited);
    timer_done(&probe.late);
    box_done(&probe.box);
}

static void finish(const char *why)
{
    probe_fn done = probe.done;

    probe_stop();
    done(why, probe.arg);
}

static void on_ready(int fd, unsigned events, void *arg)
{
    char byte;

    (void)events;
    (void)arg;
    watch_done(&probe.ready);
    if (read(fd, &byte, 1) != 1)
        return; /* on_exited tells */
    if (box_enter(&probe.box)) {
        finish("the inside of a sandbox cannot be reached from outside");
        return;
    }
    probe.entered = true;
    box_go(&probe.box);
}

static void on_exited(int fd, unsigned events, void *arg)
{
    char why[256] = "bubblewrap did not start";
    int status;
    ssize_t n;

    (void)fd;
    (void)events;
    (void)arg;
    if (waitpid(probe.box.pid, &status, WNOHANG) != probe.box.pid)
        return;
    probe.box.pid = 0;
    if (probe.entered && !status) {
        finish(NULL);
        return;
    }
    n = read(probe.box.err, why, sizeof(why) - 1);
    if (n > 0) {
        why[n] = '\0';
        why[strcspn(why, "\n")] = '\0';
    }
    finish(why);
}

static void on_late(void *arg)
{
    (void)arg;
    finish("a sandbox did not start in time");
}

void probe_start(struct loop *l, probe_fn done, void *arg)
{
    static const char *const argv[] = { "/bin/sh", "-c", ":", NULL };
    static const struct limits limits = {
        .timeout_ms = 10000, .memory_mb = 64, .file_mb = 16, .open_files = 64, .processes = 64
    };
    int r;

    probe.done = done;
    probe.arg = arg;
    probe.entered = false;
    probe.box = (struct box)BOX_NONE;
    if (access(BWRAP, X_OK)) {
        done(BWRAP " is not installed", arg);
        return;
    }
    r = box_start(&(struct box_spec){ .limits = &limits, .argv = argv, .stdin_fd = -1 },
                  &probe.box);
    if (r) {
        done(strerror(-r), arg);
        return;
    }
    watch_init(&probe.ready, l, probe.box.ready, on_ready, NULL);
    watch_set(&probe.ready, LOOP_READ);
    watch_init(&probe.exited, l, probe.box.pidfd, on_exited, NULL);
    watch_set(&probe.exited, LOOP_READ);
    timer_init(&probe.late, l, on_late, NULL);
    timer_set(&probe.late, PROBE_MS);
}
