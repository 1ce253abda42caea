/*
 * What can be called: one table of global tools, one per agent, and one of owners. Entries that are
 * replaced or removed while calls are in flight stay until the last of them ends. Look-up allocates
 * nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "router/router.h"

#define AGENT_SLOTS  1024
#define FEED_QUEUE   (256 * 1024)
#define FEED_IDLE_MS 1000

uint64_t registry_version;
static struct map tools, owners;
static LIST_HEAD(agents, agent) agents[AGENT_SLOTS];
static struct {
    struct ipc_feed *feed;
    struct timer idle;
    bool ready;
} events;

/* --- events -------------------------------------------------------------------------------------
 */

static void events_idle(void *arg)
{
    (void)arg;
    ipc_feed_close(TAKE(events.feed), 2000, NULL, NULL);
}

/* Best effort, on one connection for a burst of changes. */
static void publish(const struct entry *e, const char *change)
{
    cleanup(json_putp) json_object *p = NULL;

    if (e->internal || !events.ready)
        return;
    p = json_make("event:s body:o scope:o", "tool.changed",
                  json_make("tool:s change:s state:s", e->name, change, tool_state_name(e->state)),
                  json_new());
    if (!events.feed)
        events.feed = ipc_feed_open(svc.loop, svc_sock(UNIT_GATEWAY), FEED_QUEUE);
    if (ipc_feed_send(events.feed, "event.publish", p) == ERR_UNAVAIL)
        ipc_feed_abort(TAKE(events.feed));
    else
        timer_set(&events.idle, FEED_IDLE_MS);
}

/* --- agents -------------------------------------------------------------------------------------
 */

struct agent *agent_find(int64_t pid)
{
    struct agent *a;

    LIST_FOREACH(a, &agents[(size_t)pid % AGENT_SLOTS], link)
    if (a->pid == pid)
        return a;
    return NULL;
}

bool agent_each_tool(const struct agent *a, size_t *pos, struct entry **e)
{
    const char *key;
    void *v;

    if (!a || !map_each(&a->tools, pos, &key, &v))
        return false;
    *e = v;
    return true;
}

static void agent_free(struct agent *a)
{
    struct entry *e;
    size_t pos = 0;

    while (agent_each_tool(a, &pos, &e)) {
        registry_del(e);
        pos = 0;
    }
    LIST_REMOVE(a, link);
    watch_done(&a->death);
    closep(&a->pidfd);
    map_done(&a->tools);
    free(a->hist);
    free(a);
}

static void on_agent_death(int fd, unsigned events_, void *arg)
{
    (void)fd;
    (void)events_;
    agent_free(arg);
}

/* A pidfd of this very process, or -1. */
static int pin(pid_t pid, uint64_t start)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0U);

    if (fd >= 0 && (proc_start_time(pid) != start || !pidfd_alive(fd)))
        closep(&fd), fd = -1;
    return fd;
}

struct agent *agent_get(int64_t pid, pid_t host_pid, uint64_t host_start)
{
    struct agent *a = agent_find(pid);
    int fd;

    if (a && a->host_pid == host_pid && a->host_start == host_start)
        return a;
    fd = pin(host_pid, host_start);
    if (fd < 0)
        return NULL;
    if (a)
        agent_free(a); /* an earlier process of this agent */
    a = xcalloc(1, sizeof(*a));
    a->pid = pid;
    a->host_pid = host_pid;
    a->host_start = host_start;
    a->version = registry_version + 1;
    map_init(&a->tools);
    a->pidfd = fd;
    watch_init(&a->death, svc.loop, fd, on_agent_death, a);
    a->death.urgent = true;
    watch_set(&a->death, LOOP_READ);
    LIST_INSERT_HEAD(&agents[(size_t)pid % AGENT_SLOTS], a, link);
    return a;
}

/* --- owners -------------------------------------------------------------------------------------
 */

struct owner *owner_find(const char *name)
{
    return map_get(&owners, name);
}

bool owner_each(size_t *pos, struct owner **o)
{
    const char *key;
    void *v;

    if (!map_each(&owners, pos, &key, &v))
        return false;
    *o = v;
    return true;
}

/* Every tool of an owner: unavailable, or gone. */
static void owner_lost(struct owner *o, bool remove)
{
    struct entry *e;
    size_t pos = 0;

    while (registry_each(&pos, &e)) {
        if (e->owner != o || (!remove && e->state == TOOL_UNAVAILABLE))
            continue;
        if (remove) {
            registry_del(e);
            pos = 0;
        } else {
            entry_set_state(e, TOOL_UNAVAILABLE, "owner is not running");
        }
    }
}

static void on_expire(void *arg)
{
    struct owner *o = arg;

    if (!o->up)
        owner_lost(o, false);
}

static void on_owner_death(int fd, unsigned events_, void *arg)
{
    struct owner *o = arg;

    (void)fd;
    (void)events_;
    watch_done(&o->death);
    closep(&o->pidfd);
    o->pidfd = -1;
    o->up = false;
    log_info("%s (pid %d) is gone", o->name, (int)o->host_pid);
    if (o->held) {
        timer_set(&o->expire, OWNER_GONE_MS);
    } else {
        calls_cut(o, NULL, "owner died");
        owner_lost(o, true);
    }
}

struct owner *owner_get(const char *name)
{
    struct owner *o = map_get(&owners, name);
    const struct unit_row *row;

    if (o)
        return o;
    o = xcalloc(1, sizeof(*o));
    str_copy(o->name, sizeof(o->name), name);
    o->unit = unit_by_name(name);
    o->pidfd = -1;
    o->max_concurrent = 20;
    o->queue_max = 100;
    o->queue_timeout_ms = 5000;
    TAILQ_INIT(&o->turns);
    timer_init(&o->expire, svc.loop, on_expire, o);
    if (o->unit >= 0) {
        row = &unit_rows[o->unit];
        o->pid = row->pid;
        o->held = true;
        o->max_concurrent = row->max_concurrent;
        o->queue_max = row->queue;
        o->queue_timeout_ms = row->queue_timeout_ms;
        str_copy(o->endpoint, sizeof(o->endpoint), svc_sock(o->unit));
    }
    map_put(&owners, o->name, o);
    return o;
}

void owner_alive(struct owner *o, const struct peer *p)
{
    int fd = pin(p->pid, p->start);

    o->registered_at = mono_ms();
    if (o->up && o->host_pid == p->pid && o->host_start == p->start) {
        closep(&fd);
        return;
    }
    if (fd < 0)
        return;
    o->restarts += o->host_pid > 0;
    watch_done(&o->death);
    closep(&o->pidfd);
    o->host_pid = p->pid;
    o->host_start = p->start;
    o->pidfd = fd;
    o->up = true;
    timer_stop(&o->expire);
    watch_init(&o->death, svc.loop, fd, on_owner_death, o);
    watch_set(&o->death, LOOP_READ);
    snapshot_owner(o);
}

/* --- entries ------------------------------------------------------------------------------------
 */

const char *tool_state_name(enum tool_state s)
{
    static const char *const names[] = { "available", "degraded", "unavailable" };

    return names[s];
}

struct entry *registry_find(const struct ident *id, const char *tool, size_t len)
{
    if (id->kind == CALLER_AGENT) {
        const struct agent *a = agent_find(id->pid);
        struct entry *e =
            a && a->tools.n && a->host_pid == id->host_pid && a->host_start == id->host_start
                ? map_getn(&a->tools, tool, len)
                : NULL;

        if (e)
            return e;
    }
    return map_getn(&tools, tool, len);
}

struct entry *registry_global(const char *name)
{
    return map_get(&tools, name);
}

struct agent *agent_next(struct agent *a)
{
    size_t i = a ? (size_t)a->pid % AGENT_SLOTS + 1 : 0;

    if (a && LIST_NEXT(a, link))
        return LIST_NEXT(a, link);
    for (; i < AGENT_SLOTS; i++)
        if (!LIST_EMPTY(&agents[i]))
            return LIST_FIRST(&agents[i]);
    return NULL;
}

bool registry_each(size_t *pos, struct entry **e)
{
    const char *key;
    void *v;

    if (!map_each(&tools, pos, &key, &v))
        return false;
    *e = v;
    return true;
}

void entry_unref(struct entry *e)
{
    if (!e || --e->refs)
        return;
    json_put(e->descriptor);
    free(e->hist);
    free(e);
}

static struct map *table_of(struct entry *e)
{
    return e->scope ? &e->scope->tools : &tools;
}

void registry_touch(struct entry *e)
{
    registry_version++;
    snapshot_entry(e, true);
    publish(e, "updated");
}

void registry_put(struct entry *e)
{
    struct entry *old = map_get(table_of(e), e->name);

    e->refs = 1;
    if (old) {
        e->hist = TAKE(old->hist);
        e->by_name = old->by_name;
        map_del(table_of(e), old->name);
    }
    map_put(table_of(e), e->name, e);
    if (e->scope) {
        e->scope->version++;
        snapshot_entry(e, true);
    } else {
        registry_version++;
        snapshot_entry(e, true);
        publish(e, old ? "updated" : "added");
    }
    if (old) {
        old->gone = true;
        old->scope = NULL;
        entry_unref(old);
    }
}

void registry_del(struct entry *e)
{
    map_del(table_of(e), e->name);
    e->gone = true;
    snapshot_entry(e, false);
    if (e->scope) {
        e->scope->version++;
    } else {
        registry_version++;
        e->state = TOOL_UNAVAILABLE;
        publish(e, "removed");
    }
    e->scope = NULL;
    entry_unref(e);
}

void entry_set_state(struct entry *e, enum tool_state s, const char *reason)
{
    json_object *st;

    if (e->state == s && str_eq(e->reason, reason ? reason : ""))
        return;
    e->state = s;
    str_copy(e->reason, sizeof(e->reason), reason ? reason : "");
    st = json_make("state:s", tool_state_name(s));
    if (reason)
        json_add_str(st, "reason", reason);
    json_add(e->descriptor, "status", st);
    if (!e->scope)
        registry_touch(e);
}

static bool crew_of(const struct ident *id, const char *crew)
{
    return id->crews && json_arr_has(id->crews, crew);
}

bool entry_visible(const struct entry *e, const struct ident *id)
{
    bool hit;

    switch (e->vis) {
    case VIS_ALL:
        return true;
    case VIS_USER:
        hit = str_eq(e->vis_name, id->user);
        break;
    case VIS_CREW:
        hit = crew_of(id, e->vis_name);
        break;
    case VIS_AGENT: /* only found in the agent's own table */
        return id->kind == CALLER_AGENT;
    case VIS_INTERNAL:
    default: /* a user reaches one through the gateway where it names the role that may */
        return (id->kind == CALLER_SERVICE && id->unit_id != UNIT_NONE) ||
               (id->kind == CALLER_USER && e->min_role != ROLE_NONE);
    }
    return hit != e->vis_not;
}

bool entry_permits(const struct entry *e, const struct ident *id)
{
    if (!e->has_perms || id->uid == 0 || str_eq(id->user, "root"))
        return true;
    return e->perm_all_x || str_eq(e->perm_owner, id->user) ||
           (id->kind == CALLER_SERVICE && str_eq(e->perm_owner, id->unit)) ||
           (e->perm_crew[0] && crew_of(id, e->perm_crew));
}

void registry_init(void)
{
    map_init(&tools);
    map_init(&owners);
    for (size_t i = 0; i < AGENT_SLOTS; i++)
        LIST_INIT(&agents[i]);
    timer_init(&events.idle, svc.loop, events_idle, NULL);
}

void registry_serving(void)
{
    events.ready = true;
}

void registry_fini(void)
{
    struct entry *e;
    struct owner *o;
    size_t pos = 0;
    const char *key;
    void *v;

    events.ready = false;
    if (events.feed)
        ipc_feed_abort(TAKE(events.feed));
    timer_done(&events.idle);
    for (size_t i = 0; i < AGENT_SLOTS; i++)
        while (!LIST_EMPTY(&agents[i]))
            agent_free(LIST_FIRST(&agents[i]));
    while (registry_each(&pos, &e))
        entry_unref(e);
    map_done(&tools);
    for (pos = 0; map_each(&owners, &pos, &key, &v);) {
        o = v;
        watch_done(&o->death);
        timer_done(&o->expire);
        closep(&o->pidfd);
        free(o);
    }
    map_done(&owners);
}
