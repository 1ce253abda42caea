/*
 * Registration (ipc page, section 10) and the other frames that are no tool calls: each is checked
 * by token or by peer, applied to the registry, on its log before the reply.
 */
#include <signal.h>
#include <stdio.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "router/router.h"

#define TOOLS_MAX 1024
#define DRAIN_MS  60000

/* Who registers: an owner's process, or the kernel for an agent. */
struct registrant {
    struct ident *id;
    struct peer peer;
    struct owner *owner;
    struct agent *agent; /* an agent's own tools */
};

struct drain {
    LIST_ENTRY(drain) link;
    struct rcall *c; /* NULL: the requester hung up */
    struct owner *owner;
    json_object *names; /* tools; NULL: the whole owner */
    json_object *reply;
    bool remove;
    struct timer timer;
};
static LIST_HEAD(, drain) drains = LIST_HEAD_INITIALIZER(drains);

/* --- draining -----------------------------------------------------------------------------------
 */

static bool drain_wants(const struct drain *d, const struct entry *e)
{
    return e->owner == d->owner && !e->scope && (!d->names || json_arr_has(d->names, e->name));
}

static unsigned drain_open(const struct drain *d)
{
    struct entry *e;
    size_t pos = 0;
    unsigned n = 0;

    while (registry_each(&pos, &e))
        if (drain_wants(d, e))
            n += e->in_flight;
    return n;
}

static void drain_end(struct drain *d)
{
    struct entry *e;
    size_t pos = 0;

    LIST_REMOVE(d, link);
    timer_done(&d->timer);
    while (d->remove && registry_each(&pos, &e))
        if (drain_wants(d, e)) {
            registry_del(e);
            pos = 0;
        }
    if (d->c) {
        struct rcall *c = d->c;

        c->drain = NULL;
        if (d->reply && json_get(d->reply, "registry_version"))
            json_add_int(d->reply, "registry_version", (int64_t)registry_version);
        rcall_reply(c, TAKE(d->reply));
    }
    json_put(d->names);
    json_put(d->reply);
    free(d);
}

static void on_drain_late(void *arg)
{
    struct drain *d = arg;
    struct entry *e;
    size_t pos = 0;
    json_object *names = json_new_arr();

    while (registry_each(&pos, &e))
        if (drain_wants(d, e))
            json_push_str(names, e->name);
    LIST_REMOVE(d, link); /* calls that end now must not end the drain */
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        const char *n = json_object_get_string(json_object_array_get_idx(names, i));

        for (pos = 0; registry_each(&pos, &e);)
            if (str_eq(e->name, n))
                break;
        calls_cut(NULL, e, "drained");
    }
    json_put(names);
    LIST_INSERT_HEAD(&drains, d, link);
    drain_end(d);
}

void drains_check(struct owner *o)
{
    struct drain *d, *next;

    for (d = LIST_FIRST(&drains); d; d = next) {
        next = LIST_NEXT(d, link);
        if (d->owner == o && !drain_open(d)) {
            drain_end(d);
            return; /* the list may have changed; others are looked at with the next call */
        }
    }
}

void drain_forget(struct rcall *c)
{
    if (c->drain)
        c->drain->c = NULL;
    c->drain = NULL;
}

/* names, reply: taken. */
static void drain_start(struct rcall *c, struct owner *o, json_object *names, json_object *reply,
                        bool remove)
{
    struct drain *d = xcalloc(1, sizeof(*d));
    struct entry *e;
    size_t pos = 0;

    d->c = c;
    c->drain = d;
    d->owner = o;
    d->names = names;
    d->reply = reply;
    d->remove = remove;
    timer_init(&d->timer, svc.loop, on_drain_late, d);
    timer_set(&d->timer, DRAIN_MS);
    LIST_INSERT_HEAD(&drains, d, link);
    c->phase = R_OWN;
    while (registry_each(&pos, &e))
        if (drain_wants(d, e))
            entry_set_state(e, TOOL_UNAVAILABLE, "draining");
    if (!drain_open(d))
        drain_end(d);
}

/* --- who registers ------------------------------------------------------------------------------
 */

static bool in_ns(const struct registrant *g, const char *tool)
{
    const char *pos = g->id->unit_id >= 0 ? unit_rows[g->id->unit_id].ns : "";
    char word[TOOL_MAX];
    json_object *ns = json_arr(g->id->claims, "ns");

    while (word_next(&pos, word, sizeof(word)))
        if (str_starts(tool, word) && tool[strlen(word)] == '/')
            return true;
    for (size_t i = 0; g->id->unit_id < 0 && ns && i < json_object_array_length(ns); i++) {
        const char *w = json_object_get_string(json_object_array_get_idx(ns, i));

        if (!str_empty(w) && str_starts(tool, w) && tool[strlen(w)] == '/')
            return true;
    }
    return false;
}

static void refuse(struct rcall *c, int err, const char *reason)
{
    rcall_fail(c, err, json_make("reason:s", reason), NULL);
}

/* 0 and *g (unref id), or the call has failed. */
static int registrant(struct rcall *c, struct registrant *g)
{
    const char *reason = "";
    int r = rcall_authenticate(c, &g->peer, &g->id, &reason);

    g->owner = NULL;
    g->agent = NULL;
    if (r) {
        refuse(c, r, reason);
        return r;
    }
    if (g->id->kind == CALLER_SERVICE) {
        g->owner = owner_get(g->id->unit);
        return 0;
    }
    /* An agent's names come by way of the kernel, which gives them their meaning. */
    g->agent = peer_same(&g->peer, c->peer.pid, c->peer.start)
                   ? NULL
                   : agent_get(g->id->pid, g->peer.pid, g->peer.start);
    g->owner = owner_get(unit_rows[UNIT_KERNEL].name);
    if (g->agent)
        return 0;
    ident_unref(g->id);
    refuse(c, ERR_PERM, "agents register at the kernel");
    return ERR_PERM;
}

/* The kernel registers for an agent with its own token: {pid, start} stand in _peer, the Avix pid
 * in the visibility. */
static struct agent *agent_named(const struct registrant *g, const struct rcall *c,
                                 const char *visibility)
{
    int64_t pid;

    if (g->agent)
        return g->agent;
    if (g->id->unit_id != UNIT_KERNEL || !visibility || !str_starts(visibility, "agent:") ||
        !parse_i64(visibility + 6, 1, INT64_MAX, &pid))
        return NULL;
    return c->env.res[RES_PEER].len ? agent_get(pid, c->agent_peer.pid, c->agent_peer.start)
                                    : agent_find(pid);
}

/* --- ipc.tool-add --------------------------------------------------------------------------------
 */

static void skip(json_object *skipped, const char *name, const char *reason)
{
    json_push(skipped, json_make("name:s reason:s", name, reason));
}

static bool granted_to_add(const struct registrant *g, const char *name)
{
    return !g->agent || str_starts(name, "cap/") || ident_granted(g->id, name);
}

static const char *check_owner(const struct registrant *g, const struct agent *scope,
                               const char *name)
{
    struct entry *old;

    if (scope)
        return granted_to_add(g, name) ? NULL : "not granted";
    if (!in_ns(g, name))
        return "namespace";
    old = registry_global(name);
    if (old && (old->owner != g->owner || old->fn))
        return "conflict";
    return NULL;
}

/* Where calls go: a built-in's own socket, an installed unit's folder, the kernel for agents. */
static const char *set_target(struct entry *e, const struct registrant *g, json_object *desc)
{
    const char *endpoint = json_str(json_obj(desc, "ipc"), "endpoint", "");
    char dir[192];

    if (g->owner->held) {
        if (!str_empty(endpoint) && !str_eq(endpoint, g->owner->endpoint) &&
            unit_by_name(endpoint) != g->owner->unit)
            return "endpoint";
        str_copy(e->sock, sizeof(e->sock), g->owner->endpoint);
        return NULL;
    }
    snprintf(dir, sizeof(dir), "%s/services/%s/", svc.run_dir, g->owner->name);
    if (str_empty(endpoint) || str_eq(endpoint, g->owner->name))
        endpoint = g->owner->endpoint;
    if (!str_starts(endpoint, dir) || strstr(endpoint, "/../") ||
        !str_copy(e->sock, sizeof(e->sock), endpoint))
        return "endpoint";
    entry_restrict(e);
    return NULL;
}

/* One tool: NULL, or why it was skipped. */
static const char *add_one(const struct registrant *g, const struct rcall *c, const char *name,
                           json_object *desc, json_object *vis)
{
    cleanup(json_putp) json_object *d = desc ? json_dup(desc) : json_new();
    const char *vis_text = json_object_is_type(vis, json_type_string)
                               ? json_object_get_string(vis)
                               : json_str(d, "visibility", NULL);
    struct agent *scope = agent_named(g, c, vis_text);
    const char *why = check_owner(g, scope, name);
    struct entry *e;

    if (why)
        return why;
    e = xcalloc(1, sizeof(*e));
    e->refs = 1;
    e->owner = g->owner;
    e->scope = scope;
    json_add_str(d, "name", name);
    if (vis && !scope)
        json_add(d, "visibility", json_object_get(vis));
    else if (scope) /* found in the agent's own table only */
        json_add(d, "visibility", json_object_new_string("all"));
    if (entry_parse(e, d, &why) || (why = set_target(e, g, d))) {
        entry_unref(e);
        return why;
    }
    registry_put(e);
    return NULL;
}

static void take_tools(struct rcall *c, const struct registrant *g, json_object *list,
                       json_object *added, json_object *skipped)
{
    size_t n = list ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n && i < TOOLS_MAX; i++) {
        json_object *t = json_object_array_get_idx(list, i);
        bool text = json_object_is_type(t, json_type_string);
        const char *name = text ? json_object_get_string(t) : json_str(t, "name", "");
        const char *why = tool_name_valid(name, strlen(name))
                              ? add_one(g, c, name, text ? NULL : json_obj(t, "descriptor"),
                                        text ? NULL : json_get(t, "visibility"))
                              : "name";

        if (why)
            skip(skipped, name, why);
        else
            json_push_str(added, name);
    }
}

static void tool_add(struct rcall *c, struct registrant *g, json_object *params)
{
    json_object *added = json_new_arr(), *skipped = json_new_arr();

    if (!g->agent && !(g->id->unit_id == UNIT_KERNEL && c->env.res[RES_PEER].len))
        owner_alive(g->owner, &g->peer);
    take_tools(c, g, json_arr(params, "tools"), added, skipped);
    if (g->id->unit_id == UNIT_AUTHSVC)
        revoked_fetch();
    rcall_reply(c, json_make("added:b tools:o skipped:o registry_version:i", 1, added, skipped,
                             (int64_t)registry_version));
}

static void do_register(struct rcall *c, struct registrant *g, json_object *params)
{
    const char *name = json_str(params, "name", "");
    size_t n = strlen(name);
    json_object *added, *skipped;
    const char *endpoint = json_str(params, "endpoint", "");

    n -= str_ends(name, ".svc") ? 4 : 0;
    if (g->agent || strlen(g->owner->name) != n || memcmp(name, g->owner->name, n) != 0) {
        refuse(c, ERR_AUTH, "name");
        return;
    }
    if (!g->owner->held && !str_empty(endpoint))
        str_copy(g->owner->endpoint, sizeof(g->owner->endpoint), endpoint);
    added = json_new_arr();
    skipped = json_new_arr();
    owner_alive(g->owner, &g->peer);
    take_tools(c, g, json_arr(params, "tools"), added, skipped);
    json_put(skipped);
    rcall_reply(c, json_make("registered:b ok:b pid:i registry_version:i tools:o", 1, 1,
                             g->owner->pid, (int64_t)registry_version, added));
}

/* The tool of that name, called by an administrator or a service for itself. */
void own_register(struct rcall *c, json_object *params)
{
    struct registrant g = { .id = c->id, .peer = c->peer };

    if (c->id->kind != CALLER_SERVICE) {
        refuse(c, ERR_PERM, "only a service registers itself");
        return;
    }
    g.owner = owner_get(c->id->unit);
    do_register(c, &g, params);
}

/* --- ipc.tool-remove, ipc.deregister -------------------------------------------------------------
 */

static struct entry *own_entry(const struct registrant *g, const char *name)
{
    struct entry *e = g->agent ? map_get(&g->agent->tools, name) : registry_global(name);

    return e && e->owner == g->owner && !e->fn ? e : NULL;
}

static void tool_remove(struct rcall *c, struct registrant *g, json_object *params)
{
    json_object *list = json_arr(params, "tools"), *removed = json_new_arr(),
                *skipped = json_new_arr(), *reply;
    bool drain = json_flag(params, "drain", false);

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(list, i));
        struct entry *e = name ? own_entry(g, name) : NULL;

        if (!e) {
            skip(skipped, name ? name : "", "not yours");
            continue;
        }
        json_push_str(removed, name);
        if (!drain || g->agent)
            registry_del(e);
    }
    reply = json_make("removed:b tools:o skipped:o registry_version:i", 1, removed, skipped,
                      (int64_t)registry_version);
    if (drain && !g->agent)
        drain_start(c, g->owner, json_object_get(removed), reply, true);
    else
        rcall_reply(c, reply);
}

void deregister_owner(struct rcall *c, struct owner *o, bool drain)
{
    json_object *reply = json_make("deregistered:b", 1);
    struct entry *e;
    size_t pos = 0;

    if (drain) {
        drain_start(c, o, NULL, reply, true);
        return;
    }
    while (registry_each(&pos, &e))
        if (e->owner == o && !e->fn) {
            registry_del(e);
            pos = 0;
        }
    rcall_reply(c, reply);
}

/* From init: our parent, recognised by its process. */
static bool from_init(const struct rcall *c)
{
    return c->peer.pid == svc.init_pid && peer_exact();
}

static void deregister(struct rcall *c, json_object *params)
{
    struct registrant g;
    struct owner *o;

    if (from_init(c)) {
        o = owner_find(json_str(params, "name", ""));
        if (!o)
            refuse(c, ERR_NOTFOUND, "name");
        else
            deregister_owner(c, o, json_flag(params, "drain", false));
        return;
    }
    if (registrant(c, &g))
        return;
    o = g.agent ? NULL : g.owner;
    ident_unref(g.id);
    if (o)
        deregister_owner(c, o, json_flag(params, "drain", false));
    else
        refuse(c, ERR_PERM, "agent");
}

/* --- frames --------------------------------------------------------------------------------------
 */

static void on_signal(struct rcall *c, json_object *params)
{
    enum unit_id u = svc_peer_unit(&c->peer);
    const char *name = json_str(params, "signal", "");

    if (u != UNIT_INIT && u != UNIT_KERNEL)
        return;
    if (str_eq(name, "SIGTERM"))
        raise(SIGTERM);
    else if (str_eq(name, "SIGHUP"))
        policy_drop(NULL);
}

static void on_revoked(struct rcall *c, json_object *params)
{
    if (svc_peer_unit(&c->peer) != UNIT_AUTHSVC) {
        refuse(c, ERR_PERM, "sender");
        return;
    }
    revoked_pushed(params);
    if (c->env.kind == RPC_REQUEST)
        rcall_reply(c, json_make("ok:b", 1));
}

static void with_registrant(struct rcall *c, json_object *params)
{
    struct registrant g;
    struct ident *id;

    if (registrant(c, &g))
        return;
    id = g.id;
    if (str_ends(c->env.method, "register"))
        do_register(c, &g, params);
    else if (str_ends(c->env.method, "tool-add"))
        tool_add(c, &g, params);
    else
        tool_remove(c, &g, params);
    ident_unref(id);
}

static const struct {
    const char *method;
    bool note; /* may come without an id */
    void (*fn)(struct rcall *c, json_object *params);
} frames[] = {
    { "ipc.tool-add", false, with_registrant },
    { "ipc.tool-remove", false, with_registrant },
    { "ipc.register", false, with_registrant },
    { "ipc.deregister", false, deregister },
    { "kernel/ipc/tool-add", false, with_registrant },
    { "kernel/ipc/tool-remove", false, with_registrant },
    { "auth.revoked", true, on_revoked },
    { "signal", true, on_signal },
};

bool is_registration(const char *method)
{
    /* Most calls are told apart by two letters. */
    if (strncmp(method, "ip", 2) != 0 && strncmp(method, "au", 2) != 0 &&
        strncmp(method, "si", 2) != 0 && strncmp(method, "kernel/ipc/tool-", 16) != 0)
        return false;
    for (size_t i = 0; i < N_ELEMS(frames); i++)
        if (str_eq(frames[i].method, method))
            return true;
    return false;
}

/* The real sender of a frame that the kernel hands on with its own token. */
static void read_agent_peer(struct rcall *c)
{
    cleanup(json_putp) json_object *p = NULL;
    struct json_slice s = c->env.res[RES_PEER];

    c->agent_peer = (struct peer)PEER_NONE;
    if (!s.len || json_parse(s.at, s.len, &p))
        return;
    c->agent_peer.pid = (pid_t)json_int(p, "pid", 0);
    c->agent_peer.start = (uint64_t)json_int(p, "start", 0);
}

void registration_frame(struct rcall *c)
{
    cleanup(json_putp) json_object *params = rcall_params(c);

    /* ipc.register may carry its token as `token`. */
    if (!c->env.res[RES_TOKEN].len && str_eq(c->env.method, "ipc.register"))
        env_member(&c->env, "token", &c->env.res[RES_TOKEN]);
    read_agent_peer(c);
    for (size_t i = 0; i < N_ELEMS(frames); i++) {
        if (!str_eq(frames[i].method, c->env.method))
            continue;
        if (c->env.kind == RPC_REQUEST || frames[i].note)
            frames[i].fn(c, params);
        else
            rcall_fail(c, ERR_REQUEST, NULL, NULL);
        return;
    }
}
