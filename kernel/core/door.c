/*
 * kernel.sock as a front door (ipc page, section 4). What is not ours goes to the router with the
 * identity of whoever sent it, which the router believes from this process only. Agents name tools;
 * what the names mean is added here from the compiled table.
 */
#include "kernel/core/calls.h"
#include "kernel/core/tools.h"

#include <unistd.h>

#define RELAY_MS 610000

static json_object *peer_doc(const struct call *c)
{
    uint64_t start = c->peer.start ? c->peer.start : proc_start_time(c->peer.pid);
    return json_make("pid:i start:i", (int64_t)c->peer.pid, (int64_t)start);
}

struct relay {
    struct call *call;
    struct ipc_call *out;
    int64_t tools_of; /* Avix pid of an agent whose tools these are, 0 else */
    unsigned life;
};

static void relay_note(const char *method, json_object *params, void *arg)
{
    struct relay *r = arg;
    if (r->call)
        (void)call_note(r->call, method, json_object_get(params));
}

static void relay_done(struct ipc_reply *rep, void *arg)
{
    cleanup(freep) struct relay *r = arg;
    struct proc *p = r->tools_of ? proc_find(r->tools_of) : NULL;
    if (rep->err)
        call_fail_rpc(r->call, &rep->error);
    else
        call_reply(r->call, TAKE(rep->result));
    /* the agent hears first, then gets its SIGSTART */
    if (p && p->life == r->life && !rep->err)
        life_event(p, EV_TOOLS, &(struct life_info){ 0 });
}

static void relay_gone(void *arg)
{
    struct relay *r = arg;
    ipc_cancel(r->out);
    call_end(r->call);
    free(r);
}

/* params taken. */
static void relay(struct call *c, json_object *params, struct proc *tools_of)
{
    struct relay *r = xcalloc(1, sizeof *r);
    r->call = c;
    r->tools_of = tools_of ? tools_of->pid : 0;
    r->life = tools_of ? tools_of->life : 0;
    json_add(params, "_peer", peer_doc(c));
    struct ipc_req q = { .sock = svc.router_sock,
                         .method = c->method,
                         .params = params,
                         .timeout_ms = tools_of ? 10000 : RELAY_MS,
                         .listener = svc.init_pid,
                         .repeatable = tools_of != NULL };
    r->out = ipc_start(svc.loop, &q, relay_note, relay_done, r);
    json_put(params);
    call_on_gone(c, relay_gone, r);
}

void door_other(struct call *c)
{
    if (c->note) {
        call_end(c);
        return;
    }
    json_object *params = json_dup(c->params);
    json_object_object_del(params, "_peer");
    relay(c, params, NULL);
}

static struct proc *agent_of_peer(const struct call *c)
{
    size_t pos = 0;
    struct proc *p;
    uint64_t start = c->peer.start ? c->peer.start : proc_start_time(c->peer.pid);
    while (proc_each(&pos, &p))
        if (p->host_pid == c->peer.pid && p->host_start == start && proc_hosted(p))
            return p;
    return NULL;
}

static bool may_have(const struct proc *p, const char *tool)
{
    return str_starts(tool, "cap/") || json_arr_has(p->grants, tool);
}

void frame_tool_add(struct call *c, const struct caller *w)
{
    struct proc *p = agent_of_peer(c);
    (void)w;
    if (!p) {
        door_other(c);
        return;
    }
    struct args a = args_open(c->params);
    json_object *tools = args_arr(&a, "tools");
    char visible[40];
    if (args_bad(&a) || c->note) {
        call_bad_args(c, &a);
        return;
    }
    snprintf(visible, sizeof visible, "agent:%lld", (long long)p->pid);
    json_object *out = json_new_arr();
    for (size_t i = 0; i < json_object_array_length(tools) && i < 64; i++) {
        json_object *t = json_object_array_get_idx(tools, i);
        const char *name = json_object_is_type(t, json_type_string) ? json_object_get_string(t)
                                                                    : json_str(t, "name", "");
        const struct agent_tool *row = agent_tool_find(name);
        if (!row || !may_have(p, name)) {
            call_fail_data(c, ERR_PERM, json_make("tool:s", name),
                           "%s is not a tool this agent may add", name);
            json_put(out);
            return;
        }
        json_object *d = agent_tool_descriptor(row, svc_sock(UNIT_KERNEL));
        json_add_str(d, "visibility", visible);
        json_push(out, json_make("name:s descriptor:o visibility:s", name, d, visible));
    }
    json_object *params = json_make("tools:o", out);
    const char *token = json_str(c->params, "_token", p->token);
    if (token)
        json_add_str(params, "_token", token);
    relay(c, params, p);
}

void frame_agent_ready(struct call *c, const struct caller *w)
{
    (void)w;
    struct proc *p = proc_by_key(json_str(c->params, "_token", ""));
    if (!p || c->note) {
        call_fail(c, ERR_AUTH, "no such signal key");
        return;
    }
    if (!c->peer.start)
        c->peer.start = proc_start_time(c->peer.pid);
    life_event(p, EV_READY, &(struct life_info){ .call = c });
}

void frame_init_exited(struct call *c, const struct caller *w)
{
    json_object *q = c->params;
    struct proc *p = proc_find(json_int(q, "avixPid", -1));
    struct life_info i = { .host_pid = (pid_t)json_int(q, "hostPid", 0),
                           .host_start = (uint64_t)json_int(q, "startTime", 0),
                           .code = (int)json_int(q, "code", 0),
                           .signal = (int)json_int(q, "signal", 0),
                           .oom = json_flag(q, "oom", false) };
    (void)w;
    if (p && str_eq(json_str(q, "kind", "agent"), "agent"))
        life_event(p, EV_EXITED, &i);
    if (c->note)
        call_end(c);
    else if (i.err)
        call_fail(c, ERR_INTERNAL, "not recorded");
    else
        call_reply(c, json_make("ok:b", 1));
}

void frame_init_unit(struct call *c, const struct caller *w)
{
    json_object *q = c->params;
    (void)w;
    json_object *b =
        json_make("service:s status:s", json_str(q, "name", ""), json_str(q, "state", ""));
    if (json_get(q, "pid"))
        json_add_int(b, "pid", json_int(q, "pid", 0));
    if (json_get(q, "exitCode"))
        json_add_int(b, "exitCode", json_int(q, "exitCode", 0));
    pub("sys.service", b, NULL, NULL, ROLE_ADMIN);
    if (c->note)
        call_end(c);
    else
        call_reply(c, json_make("ok:b", 1));
}
