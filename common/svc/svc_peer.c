/*
 * Who sends us frames, by the table that init keeps in units.json. The table is read again when a
 * peer is unknown and the file has changed, so a stranger costs one stat. The router sends nearly
 * everything; its process is remembered together with a pidfd, which says when the pid stops being
 * its own, so its calls cost one comparison.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/base/fsx.h"
#include "common/svc/svc_internal.h"

#define UNITS_MAX (256 * 1024)

static struct known {
    pid_t pid;
    uint64_t start;
} known[UNIT_COUNT + 1]; /* the last is init */
static struct timespec read_mtime;
static ino_t read_ino;

static struct {
    pid_t pid; /* 0: not known */
    int pidfd;
    struct watch watch;
} router = { .pidfd = -1 };

static void units_take(json_object *units)
{
    for (size_t i = 0; i < json_object_array_length(units); i++) {
        json_object *row = json_object_array_get_idx(units, i);
        const char *name = json_str(row, "name", "");
        int id = str_eq(name, "init") ? UNIT_COUNT : (int)unit_by_name(name);

        if (id >= 0)
            known[id] = (struct known){ .pid = (pid_t)json_int(row, "pid", 0),
                                        .start = (uint64_t)json_int(row, "start", 0) };
    }
}

/* True if the file changed since it was read last, and could be read. */
static bool units_read(void)
{
    char path[256];
    struct stat st;
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *doc = NULL;
    size_t len;

    if (path_fmt(path, sizeof(path), "%s/units.json", svc.run_dir) || stat(path, &st) ||
        (st.st_ino == read_ino && st.st_mtim.tv_sec == read_mtime.tv_sec &&
         st.st_mtim.tv_nsec == read_mtime.tv_nsec))
        return false;
    if (file_read(path, UNITS_MAX, &text, &len) || json_parse(text, len, &doc) ||
        !json_arr(doc, "units"))
        return false;
    read_ino = st.st_ino;
    read_mtime = st.st_mtim;
    memset(known, 0, sizeof(known));
    units_take(json_arr(doc, "units"));
    return true;
}

static enum unit_id known_find(const struct peer *p)
{
    for (int i = 0; i <= UNIT_COUNT; i++)
        if (known[i].pid == p->pid && known[i].start == p->start)
            return i == UNIT_COUNT ? UNIT_INIT : (enum unit_id)i;
    return UNIT_NONE;
}

enum unit_id svc_peer_unit(const struct peer *p)
{
    if (p->pid <= 0 || !p->start)
        return UNIT_NONE;
    enum unit_id u = known_find(p);

    if (u == UNIT_NONE && units_read())
        u = known_find(p);
    return u;
}

enum unit_id svc_call_unit(struct call *c)
{
    if (!c->peer.start)
        c->peer.start = proc_start_time(c->peer.pid);
    return svc_peer_unit(&c->peer);
}

static void router_forget(int fd, unsigned events, void *arg)
{
    (void)fd;
    (void)events;
    (void)arg;
    watch_done(&router.watch);
    closep(&router.pidfd);
    router.pidfd = -1;
    router.pid = 0;
}

/* The pidfd is opened first and the start time compared after, so it is of this very process. */
static void router_remember(const struct peer *p)
{
    if (router.pid)
        router_forget(-1, 0, NULL);
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);

    if (fd < 0)
        return;
    if (proc_start_time(p->pid) != p->start) {
        close(fd);
        return;
    }
    router.pid = p->pid;
    router.pidfd = fd;
    watch_init(&router.watch, svc.loop, fd, router_forget, NULL);
    watch_set(&router.watch, LOOP_READ);
}

bool svc_from_router(struct call *c)
{
    if (router.pid && c->peer.pid == router.pid)
        return true;
    if (svc_call_unit(c) != UNIT_ROUTER)
        return false;
    router_remember(&c->peer);
    return true;
}
