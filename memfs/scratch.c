/*
 * A sweep every ten minutes, armed only while there are folders. Whether an agent still is, the
 * kernel's view tells; when it was first missing is kept in memory, so a restart of memfs only
 * makes the hour begin again.
 */
#include "memfs/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/map.h"
#include "common/svc/svc.h"
#include "memfs/local.h"

#define SWEEP_MS (10 * 60 * 1000)

static struct {
    struct loop *loop;
    struct timer timer;
    struct map ended; /* pid text -> int64_t *, when it was first missing */
} sweep;

bool scratch_is_over(int64_t now, int64_t made, int64_t ended)
{
    return now - made > SCRATCH_MAX_MS || (ended && now - ended > SCRATCH_ENDED_MS);
}

static int scratch_fd(void)
{
    const char *path;
    int fd = -1;

    for (size_t i = 0; (path = ns_mount(i, &fd)); i++)
        if (str_eq(path, "/proc/<pid>/scratch"))
            return fd;
    return -1;
}

/* When it was made: its hidden owner file is never changed. */
static int64_t made_at(int dir, const char *name)
{
    char owner[300];
    struct stat st;

    snprintf(owner, sizeof(owner), "%s/" TMP_PREFIX "owner", name);
    if (fstatat(dir, owner, &st, AT_SYMLINK_NOFOLLOW) &&
        fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return now_ms();
    return stat_mtime_ms(&st);
}

static void drop(const char *name)
{
    int64_t n = 0;

    if (!remove_tree(scratch_fd(), name, &n))
        log_info("scratch of %s removed", name);
    free(map_del(&sweep.ended, name));
}

static void on_view(struct ipc_reply *r, void *arg)
{
    cleanup(freep) char *name = arg;
    int64_t *ended;

    if (!r->err) {
        free(map_del(&sweep.ended, name));
        return;
    }
    if (err_code(r->err) != err_code(ERR_NOTFOUND))
        return;
    ended = map_get(&sweep.ended, name);
    if (!ended) {
        ended = xmalloc(sizeof(*ended));
        *ended = now_ms();
        map_put(&sweep.ended, name, ended);
    }
    if (scratch_is_over(now_ms(), now_ms(), *ended))
        drop(name);
}

static void look_at(int dir, const char *name)
{
    char path[300];

    if (scratch_is_over(now_ms(), made_at(dir, name), 0)) {
        drop(name);
        return;
    }
    snprintf(path, sizeof(path), "/proc/%s", name);
    svc_call("kernel/proc/view",
             json_make("path:s op:s reader:o", path, "list",
                       json_make("kind:s service:s pid:i", "service", "kernel", (int64_t)0)),
             NULL, 0, on_view, xstrdup(name));
}

static void on_sweep(void *arg)
{
    int dir = scratch_fd(), fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(dirp_close) DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int64_t pid;
    bool any = false;

    (void)arg;
    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        if (parse_i64(e->d_name, 0, (1LL << 53) - 1, &pid)) {
            any = true;
            look_at(dir, e->d_name);
        }
    if (any)
        timer_set(&sweep.timer, SWEEP_MS);
}

void scratch_watch(struct loop *l)
{
    if (!sweep.loop) {
        sweep.loop = l;
        map_init(&sweep.ended);
        timer_init(&sweep.timer, l, on_sweep, NULL);
        timer_set(&sweep.timer, 5000); /* when the suite is up */
    } else if (!sweep.timer.armed) {
        timer_set(&sweep.timer, SWEEP_MS);
    }
}

void scratch_done(void)
{
    const char *key;
    void *value;
    size_t i = 0;

    if (!sweep.loop)
        return;
    while (map_each(&sweep.ended, &i, &key, &value))
        free(value);
    map_done(&sweep.ended);
    timer_done(&sweep.timer);
    sweep.loop = NULL;
}
