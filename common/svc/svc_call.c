/*
 * A unit as caller: tools through the router, frames straight to another unit, events to the
 * gateway, and the registration of its own tools. A listener of ours is always init, which is
 * checked on every connection.
 */
#include <errno.h>

#include "common/base/err.h"
#include "common/svc/svc_internal.h"

#define RETRY_FIRST_MS 20
#define RETRY_MAX_MS   1000

static json_object *with_user(json_object *params, json_object *user)
{
    json_object *p = params ? params : json_new();

    if (user)
        json_add(p, "_user", json_object_get(user));
    return p;
}

static struct ipc_req routed(const char *method, json_object *params, int timeout_ms)
{
    return (struct ipc_req){ .sock = svc.router_sock,
                             .method = method,
                             .params = params,
                             .token = svc.token,
                             .timeout_ms = timeout_ms,
                             .send_timeout = timeout_ms > 0,
                             .listener = svc.init_pid };
}

struct ipc_call *svc_stream(const char *method, json_object *params, json_object *user,
                            int timeout_ms, ipc_note_fn note, ipc_done_fn done, void *arg)
{
    json_object *p = with_user(params, user);
    struct ipc_req q = routed(method, p, timeout_ms);
    struct ipc_call *c = ipc_start(svc.loop, &q, note, done, arg);

    json_put(p);
    return c;
}

struct ipc_call *svc_call(const char *method, json_object *params, json_object *user,
                          int timeout_ms, ipc_done_fn done, void *arg)
{
    return svc_stream(method, params, user, timeout_ms, NULL, done, arg);
}

int svc_call_sync(const char *method, json_object *params, int timeout_ms, struct ipc_reply *r)
{
    json_object *p = with_user(params, NULL);
    struct ipc_req q = routed(method, p, timeout_ms);
    int err = ipc_call(&q, r);

    json_put(p);
    return err;
}

static void frame_ignore(struct ipc_reply *r, void *arg)
{
    (void)r;
    (void)arg;
}

/* Only those who can verify our token see it. */
static bool verifies(enum unit_id to)
{
    return to == UNIT_ROUTER || to == UNIT_KERNEL;
}

struct ipc_call *svc_frame(enum unit_id to, const char *method, json_object *params, bool note,
                           ipc_done_fn done, void *arg)
{
    json_object *p = with_user(params, NULL);
    struct ipc_req q = { .sock = svc_sock(to),
                         .method = method,
                         .params = p,
                         .token = verifies(to) ? svc.token : NULL,
                         .repeatable = true,
                         .note = note,
                         .listener = svc.init_pid };
    struct ipc_call *c = ipc_start(svc.loop, &q, NULL, done ? done : frame_ignore, arg);

    json_put(p);
    return c;
}

void svc_publish(const char *event, json_object *body, const char *user, const char *atp_session,
                 enum role min_role)
{
    json_object *scope = json_new(), *params = json_new();

    if (user)
        json_add_str(scope, "user", user);
    if (atp_session)
        json_add_str(scope, "session", atp_session);
    if (min_role != ROLE_NONE)
        json_add_str(scope, "min_role", role_name(min_role));
    json_add_str(params, "event", event);
    json_add(params, "body", body ? body : json_new());
    json_add(params, "scope", scope);
    svc_frame(UNIT_GATEWAY, "event.publish", params, true, NULL, NULL);
}

static void add_flags(json_object *d, const struct method *m)
{
    static const struct {
        unsigned flag;
        const char *key;
    } flags[] = {
        { M_READONLY, "readOnly" }, { M_IDEMPOTENT, "idempotent" },   { M_STREAM, "streaming" },
        { M_BLOCKING, "blocking" }, { M_DESTRUCTIVE, "destructive" },
    };

    for (size_t i = 0; i < N_ELEMS(flags); i++)
        if (m->flags & flags[i].flag)
            json_add_bool(d, flags[i].key, true);
}

/* One element of ipc.tool-add. status: taken, may be NULL. */
static json_object *tool_entry(const struct method *m, json_object *status)
{
    json_object *d = json_new(), *input = NULL;

    json_add_str(d, "name", m->name);
    json_add_str(d, "description", m->desc ? m->desc : "");
    json_add_str(d, "owner", svc.unit->name);
    json_add(d, "ipc",
             json_make("transport:s endpoint:s method:s", "local-ipc", svc_sock(svc.spec->unit),
                       m->name));
    if (m->input && json_parse(m->input, strlen(m->input), &input))
        die(70, "%s: its input is not JSON", m->name);
    json_add(d, "input", input ? input : json_new());
    add_flags(d, m);
    if (m->timeout_s)
        json_add_int(d, "timeout", m->timeout_s);
    if (m->stream_idle_s)
        json_add_int(d, "stream_idle", m->stream_idle_s < 0 ? 0 : m->stream_idle_s);
    if (m->min_role != ROLE_NONE)
        json_add_str(d, "min_role", role_name(m->min_role));
    if (status)
        json_add(d, "status", status);
    json_object *e = json_make("name:s descriptor:o", m->name, d);

    if (m->flags & M_INTERNAL) {
        json_add_str(d, "visibility", "internal");
        json_add_str(e, "visibility", "internal");
    }
    return e;
}

static bool is_tool(const struct method *m)
{
    return !(m->flags & (M_FRAME | M_HIDDEN));
}

static json_object *own_tools(void)
{
    json_object *tools = json_new_arr();

    for (size_t i = 0; i < svc.spec->n_methods; i++)
        if (is_tool(&svc.spec->methods[i]))
            json_push(tools, tool_entry(&svc.spec->methods[i], NULL));
    return tools;
}

static void register_tools(void *arg);

static struct {
    struct timer retry;
    int delay_ms;
    bool asked, ready;
} reg;

static void say_ready(void)
{
    if (reg.ready)
        return;
    reg.ready = true;
    svc_notify("READY=1");
    log_info("ready");
    if (svc.spec->ready)
        svc.spec->ready();
}

static void registered(struct ipc_reply *r, void *arg)
{
    (void)arg;
    if (r->err) {
        if (r->err == ERR_AUTH)
            die(77, "registration refused: %s", r->error.message);
        log_warn("registration: %s; trying again", r->error.message);
        reg.delay_ms = reg.delay_ms ? reg.delay_ms * 2 : RETRY_FIRST_MS;
        if (reg.delay_ms > RETRY_MAX_MS)
            reg.delay_ms = RETRY_MAX_MS;
        timer_set(&reg.retry, reg.delay_ms);
        return;
    }
    json_object *skipped = json_arr(r->result, "skipped");

    for (size_t i = 0; skipped && i < json_object_array_length(skipped); i++)
        log_error("tool not registered: %s", json_text(json_object_array_get_idx(skipped, i)));
    say_ready();
}

static void register_tools(void *arg)
{
    (void)arg;
    if (svc.stopping)
        return;
    json_object *params = json_make("tools:o", own_tools());

    svc_frame(UNIT_ROUTER, "ipc.tool-add", params, false, registered, NULL);
}

void svc_ready(void)
{
    bool any = false;

    for (size_t i = 0; i < svc.spec->n_methods; i++)
        any |= is_tool(&svc.spec->methods[i]);
    if (!reg.asked) {
        reg.asked = true;
        timer_init(&reg.retry, svc.loop, register_tools, NULL);
    }
    if (svc.spec->no_router || !any)
        say_ready();
    else
        register_tools(NULL);
}

void svc_tool_state(const char *tool, const char *state, const char *reason)
{
    for (size_t i = 0; i < svc.spec->n_methods; i++) {
        const struct method *m = &svc.spec->methods[i];

        if (!is_tool(m) || !str_eq(m->name, tool))
            continue;
        json_object *tools = json_new_arr();
        json_object *status = json_make("state:s", state);

        if (reason)
            json_add_str(status, "reason", reason);
        json_push(tools, tool_entry(m, status));
        svc_frame(UNIT_ROUTER, "ipc.tool-add", json_make("tools:o", tools), false, NULL, NULL);
        return;
    }
}
