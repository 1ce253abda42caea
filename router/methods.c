/*
 * The router's own tools: what there is to call, who owns it, how it does.
 */
#include <stdio.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "router/router.h"

/* --- sys/tools ----------------------------------------------------------------------------------
 */

struct listing {
    const struct ident *id;
    const char *ns, *keyword;
    bool granted_only, schemas;
    json_object *out;
};

static bool may_call(const struct ident *id, const struct entry *e)
{
    const struct policy *p;

    if (!entry_permits(e, id))
        return false;
    if (id->kind != CALLER_USER)
        return ident_granted(id, e->name);
    if (e->min_role != ROLE_NONE)
        return id->role >= e->min_role;
    p = policy_get(id->user);
    return p && policy_allows(p, e->name);
}

/* Its own tools, what it was granted and what everyone has; not what only its executor needs. */
static bool listed_as_granted(const struct ident *id, const struct entry *e)
{
    if (e->scope)
        return true;
    if (id->kind == CALLER_AGENT && tool_always(e->name))
        return true;
    return may_call(id, e) && !ident_runtime_only(id, e->name);
}

static void list_one(struct listing *l, const struct entry *e)
{
    json_object *d = e->descriptor, *o;
    size_t n = strlen(l->ns);

    if (!entry_visible(e, l->id) ||
        (n && (strncmp(e->name, l->ns, n) != 0 || (e->name[n] != '/' && l->ns[n - 1] != '/'))))
        return;
    if (*l->keyword && !strcasestr(e->name, l->keyword) &&
        !strcasestr(json_str(d, "description", ""), l->keyword))
        return;
    if (l->granted_only && !listed_as_granted(l->id, e))
        return;
    o = json_make("name:s description:s state:s", e->name, json_str(d, "description", ""),
                  tool_state_name(e->state));
    if (l->schemas)
        json_add(o, "input_schema", json_object_get(json_get(d, "input_schema")));
    if (e->read_only)
        json_add_bool(o, "readOnly", true);
    if (e->idempotent)
        json_add_bool(o, "idempotent", true);
    if (e->untrusted)
        json_add_bool(o, "untrusted", true);
    if (e->timeout_ms)
        json_add_int(o, "timeout", (e->timeout_ms + 999) / 1000);
    json_push(l->out, o);
}

static int by_name(const void *a, const void *b)
{
    json_object *const *x = a, *const *y = b;

    return strcmp(json_str(*x, "name", ""), json_str(*y, "name", ""));
}

/* Raised by changes of the registry and of the caller's own tools. */
static int64_t version_for(const struct ident *id)
{
    const struct agent *a = id->kind == CALLER_AGENT ? agent_find(id->pid) : NULL;

    return (int64_t)(registry_version + (a ? a->version << 32 : 0));
}

static void sys_tools(struct rcall *c, json_object *params)
{
    struct args a = args_open(params);
    struct listing l = { .id = c->id };
    struct entry *e;
    size_t pos = 0;
    int64_t version = version_for(c->id), have;

    l.ns = args_str_or(&a, "namespace", TOOL_MAX, "");
    l.keyword = args_str_or(&a, "keyword", 256, "");
    l.granted_only = args_bool_or(&a, "granted_only", false);
    l.schemas = args_bool_or(&a, "schemas", false);
    have = args_int_or(&a, "ifVersion", 0, INT64_MAX, -1);
    if (args_bad(&a)) {
        rcall_fail(c, ERR_INVAL, json_make("param:s", a.field), "%s %s", a.field, a.why);
        return;
    }
    if (have == version) {
        rcall_reply(c, json_make("version:i unchanged:b tools:o", version, 1, json_new_arr()));
        return;
    }
    l.out = json_new_arr();
    const struct agent *own = c->id->kind == CALLER_AGENT ? agent_find(c->id->pid) : NULL;

    while (agent_each_tool(own, &pos, &e))
        list_one(&l, e);
    for (pos = 0; registry_each(&pos, &e);)
        if (!own || !map_get(&own->tools, e->name))
            list_one(&l, e);
    json_object_array_sort(l.out, by_name);
    rcall_reply(c, json_make("version:i tools:o", version, l.out));
}

/* --- kernel/ipc/… --------------------------------------------------------------------------------
 */

static json_object *tools_of(const struct owner *o)
{
    json_object *a = json_new_arr();
    struct entry *e;
    size_t pos = 0;

    while (registry_each(&pos, &e))
        if (e->owner == o)
            json_push_str(a, e->name);
    return a;
}

static const char *owner_status(const struct owner *o)
{
    return o->up ? "running" : "stopped";
}

static json_object *owner_json(const struct owner *o)
{
    return json_make("name:s pid:i status:s endpoint:s tools:o inFlight:i queued:i", o->name,
                     o->pid, owner_status(o), o->endpoint, tools_of(o), (int64_t)o->in_flight,
                     (int64_t)o->queued);
}

static void ipc_list(struct rcall *c, json_object *params)
{
    const char *filter = json_str(params, "filter", "");
    json_object *a = json_new_arr();
    struct owner *o;
    size_t pos = 0;

    while (owner_each(&pos, &o))
        if (strstr(o->name, filter))
            json_push(a, owner_json(o));
    json_object_array_sort(a, by_name);
    rcall_reply(c, json_make("services:o", a));
}

static struct owner *owner_named(const char *name)
{
    size_t n = strlen(name);
    char plain[65];

    n -= str_ends(name, ".svc") ? 4 : 0;
    if (n >= sizeof(plain))
        return NULL;
    memcpy(plain, name, n);
    plain[n] = '\0';
    return owner_find(plain);
}

static void ipc_lookup(struct rcall *c, json_object *params)
{
    const char *name = json_str(params, "name", NULL), *tool = json_str(params, "tool", NULL);
    struct entry *e = tool ? registry_global(tool) : NULL;
    struct owner *o = e && entry_visible(e, c->id) ? e->owner : name ? owner_named(name) : NULL;

    if (!name && !tool)
        rcall_fail(c, ERR_INVAL, json_make("param:s", "name"), "name or tool is required");
    else if (!o)
        rcall_fail(c, ERR_NOTFOUND, NULL, "%s: no such service or tool", tool ? tool : name);
    else
        rcall_reply(c, json_make("name:s pid:i endpoint:s status:s tools:o", o->name, o->pid,
                                 o->endpoint, owner_status(o), tools_of(o)));
}

static void add_quantiles(json_object *o, const struct hist *h)
{
    json_add_num(o, "p50_ms", h ? hist_quantile(h, 0.5) / 1000 : 0);
    json_add_num(o, "p99_ms", h ? hist_quantile(h, 0.99) / 1000 : 0);
    json_add_num(o, "p999_ms", h ? hist_quantile(h, 0.999) / 1000 : 0);
}

static json_object *health_json(struct owner *o)
{
    json_object *j = json_make("name:s state:s latency_ms:d restarts:i inFlight:i queued:i calls:i "
                               "errors:i",
                               o->name, owner_status(o), hist_quantile(&o->hist, 0.5) / 1000,
                               (int64_t)o->restarts, (int64_t)o->in_flight, (int64_t)o->queued,
                               (int64_t)o->calls, (int64_t)o->errors);

    add_quantiles(j, &o->hist);
    json_add_str(j, "last_error", o->last_error[0] ? o->last_error : NULL);
    return j;
}

static void ipc_health(struct rcall *c, json_object *params)
{
    const char *name = json_str(params, "name", NULL);
    struct owner *o = name ? owner_named(name) : NULL;
    json_object *a;
    size_t pos = 0;

    if (name && !o) {
        rcall_fail(c, ERR_NOTFOUND, NULL, "%s: no such service", name);
        return;
    }
    a = json_new_arr();
    if (o)
        json_push(a, health_json(o));
    else
        while (owner_each(&pos, &o))
            json_push(a, health_json(o));
    json_object_array_sort(a, by_name);
    rcall_reply(c, json_make("services:o", a));
}

static void ipc_deregister(struct rcall *c, json_object *params)
{
    const char *name = json_str(params, "name", NULL);
    struct owner *o;

    if (!name && c->id->kind == CALLER_SERVICE)
        name = c->id->unit;
    o = name ? owner_named(name) : NULL;
    if (!o)
        rcall_fail(c, name ? ERR_NOTFOUND : ERR_INVAL, NULL, "no such service");
    else if (c->id->kind == CALLER_SERVICE && !str_eq(o->name, c->id->unit))
        rcall_fail(c, ERR_PERM, NULL, "not its own");
    else
        deregister_owner(c, o, false);
}

/* --- kernel/ipc/view
 * ------------------------------------------------------------------------------ */

/* The reader as far as memfs knows it; an agent's grants are those of its newest token. */
struct reader {
    struct ident *id;
    bool owned;
};

static struct reader reader_of(json_object *r)
{
    struct reader out = { .id = NULL };

    if (str_eq(json_str(r, "kind", ""), "agent"))
        out.id = auth_agent(json_int(r, "pid", 0));
    if (!out.id) {
        out.id = ident_of_reader(r);
        out.owned = true;
    }
    return out;
}

static void view_text(struct rcall *c, json_object *o)
{
    char *text = yaml_dump(o);

    json_put(o);
    rcall_reply(c, json_make("content:s", text));
    free(text);
}

static void view_tool(struct rcall *c, const struct entry *e, const struct ident *id)
{
    json_object *d = json_dup(e->descriptor);

    if (!may_call(id, e)) {
        json_add(d, "status", json_make("state:s", "unavailable"));
        json_add_str(d, "request_access", "cap/request-tool");
    } else {
        json_add(d, "status", json_make("state:s", tool_state_name(e->state)));
    }
    view_text(c, d);
}

static void view_index(struct rcall *c, const struct ident *id)
{
    json_object *list = json_new_arr();
    struct entry *e;
    size_t pos = 0;

    while (registry_each(&pos, &e))
        if (entry_visible(e, id))
            json_push(list, json_make("name:s description:s state:s", e->name,
                                      json_str(e->descriptor, "description", ""),
                                      may_call(id, e) ? tool_state_name(e->state) : "unavailable"));
    json_object_array_sort(list, by_name);
    view_text(c, json_make("version:i tools:o", (int64_t)registry_version, list));
}

/* Names directly below a folder of /tools; prefix is "" or ends with '/'. */
static void view_list(struct rcall *c, const char *prefix, const struct ident *id)
{
    struct map seen;
    json_object *list = json_new_arr();
    struct entry *e;
    size_t pos = 0, n = strlen(prefix);

    map_init(&seen);
    if (!n)
        json_push(list, json_make("name:s kind:s", "index.yaml", "file"));
    while (registry_each(&pos, &e)) {
        const char *rest = e->name + n, *slash;
        char name[TOOL_MAX + 8];

        if (strncmp(e->name, prefix, n) != 0 || !entry_visible(e, id))
            continue;
        slash = strchr(rest, '/');
        snprintf(name, sizeof(name), "%.*s%s", slash ? (int)(slash - rest) : TOOL_MAX, rest,
                 slash ? "" : ".yaml");
        if (!map_put(&seen, name, e))
            json_push(list, json_make("name:s kind:s", name, slash ? "dir" : "file"));
    }
    map_done(&seen);
    json_object_array_sort(list, by_name);
    if (n && !json_object_array_length(list)) {
        json_put(list);
        rcall_fail(c, ERR_NOENT, NULL, "/tools/%s: no such directory", prefix);
        return;
    }
    rcall_reply(c, json_make("entries:o", list));
}

/* Whether a tool that the reader may see lies below "fs/". */
static bool folder_there(const char *prefix, const struct ident *id)
{
    struct entry *e;
    size_t pos = 0, n = strlen(prefix);

    while (registry_each(&pos, &e))
        if (!strncmp(e->name, prefix, n) && entry_visible(e, id))
            return true;
    return false;
}

static void view_latency(struct rcall *c, int64_t pid)
{
    struct agent *a = agent_find(pid);
    json_object *o;

    if (!a) {
        rcall_fail(c, ERR_NOENT, NULL, "agent %lld is not running", (long long)pid);
        return;
    }
    o = json_make("pid:i calls:i", pid, (int64_t)(a->hist ? a->hist->n : 0));
    add_quantiles(o, a->hist);
    view_text(c, o);
}

static void view_at(struct rcall *c, const char *path, bool list, const struct ident *id)
{
    char name[TOOL_MAX + 8];
    size_t n;
    const struct entry *e;

    if (str_eq(path, "/tools") && list) {
        view_list(c, "", id);
        return;
    }
    if (!str_starts(path, "/tools/") || !str_copy(name, sizeof(name) - 1, path + 7)) {
        rcall_fail(c, ERR_NOENT, NULL, "%s: no such file", path);
        return;
    }
    n = strlen(name);
    if (!list && str_eq(name, "index.yaml")) {
        view_index(c, id);
        return;
    }
    if (n > 5 && str_ends(name, ".yaml")) {
        name[n - 5] = '\0';
        e = registry_global(name);
        if (e && entry_visible(e, id)) {
            if (list)
                rcall_fail(c, ERR_NOTDIR, NULL, "%s: not a directory", path);
            else
                view_tool(c, e, id);
            return;
        }
        name[n - 5] = '.';
    }
    name[n] = '/';
    name[n + 1] = '\0';
    if (list)
        view_list(c, name, id);
    else if (folder_there(name, id))
        rcall_fail(c, ERR_ISDIR, NULL, "%s: is a directory", path);
    else
        rcall_fail(c, ERR_NOENT, NULL, "%s: no such file", path);
}

/* "/proc/157/latency". */
static bool latency_path(const char *path, int64_t *pid)
{
    char number[24];
    size_t n = strspn(path + (str_starts(path, "/proc/") ? 6 : 0), "0123456789");

    if (!str_starts(path, "/proc/") || n == 0 || n >= sizeof(number) ||
        !str_eq(path + 6 + n, "/latency"))
        return false;
    (void)snprintf(number, sizeof(number), "%.*s", (int)n, path + 6);
    return parse_i64(number, 0, INT64_MAX, pid);
}

static void ipc_view(struct rcall *c, json_object *params)
{
    struct args a = args_open(params);
    const char *path = args_str(&a, "path", 4096);
    const char *op = args_str(&a, "op", 8);
    json_object *reader = args_obj_or(&a, "reader");
    int64_t pid;

    if (args_bad(&a)) {
        rcall_fail(c, ERR_INVAL, json_make("param:s", a.field), "%s %s", a.field, a.why);
        return;
    }
    if (latency_path(path, &pid)) {
        view_latency(c, pid);
        return;
    }
    struct reader r = reader_of(reader);

    view_at(c, path, str_eq(op, "list"), r.id);
    if (r.owned)
        ident_unref(r.id);
}

/* --- ipc/metrics
 * ---------------------------------------------------------------------------------- */

static void metrics(struct rcall *c, json_object *params)
{
    struct buf b = BUF_INIT(1 << 20);
    struct owner *o;
    size_t pos = 0;

    (void)params;
    buf_adds(&b, "# TYPE avix_calls_total counter\n# TYPE avix_call_errors_total counter\n"
                 "# TYPE avix_calls_in_flight gauge\n# TYPE avix_calls_queued gauge\n"
                 "# TYPE avix_call_seconds summary\n");
    while (owner_each(&pos, &o)) {
        static const double q[] = { 0.5, 0.99, 0.999 };

        buf_printf(&b, "avix_calls_total{owner=\"%s\"} %llu\n", o->name,
                   (unsigned long long)o->calls);
        buf_printf(&b, "avix_call_errors_total{owner=\"%s\"} %llu\n", o->name,
                   (unsigned long long)o->errors);
        buf_printf(&b, "avix_calls_in_flight{owner=\"%s\"} %u\n", o->name, o->in_flight);
        buf_printf(&b, "avix_calls_queued{owner=\"%s\"} %u\n", o->name, o->queued);
        for (size_t i = 0; i < N_ELEMS(q); i++)
            buf_printf(&b, "avix_call_seconds{owner=\"%s\",quantile=\"%g\"} %.6f\n", o->name, q[i],
                       hist_quantile(&o->hist, q[i]) / 1e6);
    }
    buf_printf(&b, "# TYPE avix_registry_version gauge\navix_registry_version %llu\n",
               (unsigned long long)registry_version);
    buf_printf(&b, "# TYPE avix_router_connections gauge\navix_router_connections %u\n",
               calls_open());
    rcall_reply(c, json_make("text:s", b.data));
    buf_done(&b);
}

/* --- the table
 * ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    unsigned flags;
    enum role min_role;
    const char *desc, *input;
    own_fn fn;
} own[] = {
    { "sys/tools", M_READONLY | M_IDEMPOTENT, ROLE_GUEST, "Lists the tools that can be called",
      "{\"namespace\":\"string\",\"keyword\":\"string\",\"granted_only\":\"bool\",\"schemas\":"
      "\"bool\",\"ifVersion\":\"int\"}",
      sys_tools },
    { "kernel/ipc/list", M_READONLY | M_IDEMPOTENT, ROLE_OPERATOR,
      "Lists the services and their tools", "{\"filter\":\"string\"}", ipc_list },
    { "kernel/ipc/lookup", M_READONLY | M_IDEMPOTENT, ROLE_OPERATOR,
      "Finds a service by its name or by a tool", "{\"name\":\"string\",\"tool\":\"string\"}",
      ipc_lookup },
    { "kernel/ipc/health", M_READONLY | M_IDEMPOTENT, ROLE_OPERATOR,
      "Shows how the services are doing", "{\"name\":\"string\"}", ipc_health },
    { "kernel/ipc/register", 0, ROLE_ADMIN, "Registers a service and its tools",
      "{\"name\":{\"type\":\"string\",\"required\":true},\"endpoint\":\"string\",\"tools\":"
      "\"array\"}",
      own_register },
    { "kernel/ipc/deregister", M_DESTRUCTIVE, ROLE_OPERATOR,
      "Takes a service's tools out of the registry", "{\"name\":\"string\",\"reason\":\"string\"}",
      ipc_deregister },
    { "kernel/ipc/view", M_READONLY | M_IDEMPOTENT | M_INTERNAL, ROLE_NONE,
      "Content of /tools and of /proc/<pid>/latency", "{}", ipc_view },
    { "ipc/metrics", M_READONLY | M_IDEMPOTENT | M_INTERNAL, ROLE_NONE, "Figures of the router",
      "{}", metrics },
};

void methods_register(void)
{
    struct owner *o = owner_get(unit_rows[UNIT_ROUTER].name);
    struct peer self = { .pid = getpid(), .start = proc_start_time(getpid()) };

    owner_alive(o, &self);
    o->max_concurrent = o->queue_max = 1;
    for (size_t i = 0; i < N_ELEMS(own); i++) {
        struct entry *e = xcalloc(1, sizeof(*e));
        json_object *input = NULL, *d;
        const char *why = "";

        if (json_parse(own[i].input, strlen(own[i].input), &input))
            die(70, "%s: its input is not JSON", own[i].name);
        d = json_make("name:s description:s owner:s input:o visibility:s readOnly:b idempotent:b "
                      "destructive:b",
                      own[i].name, own[i].desc, "router", input,
                      own[i].flags & M_INTERNAL ? "internal" : "all",
                      (int)!!(own[i].flags & M_READONLY), (int)!!(own[i].flags & M_IDEMPOTENT),
                      (int)!!(own[i].flags & M_DESTRUCTIVE));
        if (own[i].min_role != ROLE_NONE)
            json_add_str(d, "min_role", role_name(own[i].min_role));
        e->refs = 1;
        e->owner = o;
        if (entry_parse(e, d, &why))
            die(70, "%s: %s", own[i].name, why);
        e->fn = own[i].fn;
        json_put(d);
        registry_put(e);
    }
}
