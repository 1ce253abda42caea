/*
 * Tools with a turn of their own: those the executor answers itself, those it turns into a call of
 * the kernel, and waits, which a pause interrupts and which are taken up again with the time that
 * is left.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "kernel/agent/dispatch.h"
#include "kernel/agent/ids.h"
#include "kernel/agent/report.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/signals.h"
#include "kernel/agent/token.h"

#define SLICE_SEC 500 /* of a wait without end: below every deadline on the way */

static int64_t limit_or(const char *key, int64_t dflt)
{
    return json_int(json_obj(self.claims, "constraints"), key, dflt);
}

static void cap_list(const struct dispatch *d, struct toolcall *t)
{
    json_object *granted = json_arr(self.claims, "granted");
    json_object *limits = json_new();
    int64_t tokens = limit_or("maxTokensPerTurn", -1);
    char at[RFC3339_LEN];

    (void)d;
    json_add(limits, "maxTokensPerTurn", tokens < 0 ? NULL : json_object_new_int64(tokens));
    json_add_int(limits, "maxToolChainLength",
                 limit_or("maxToolChainLength", self.st.max_tool_chain));
    json_add(limits, "toolCallBudgets", self.budgets ? json_dup(self.budgets) : json_new());
    t->result = json_make("grantedTools:o constraints:o tokenExpiresAt:s",
                          granted ? json_dup(granted) : json_new_arr(), limits,
                          self.expires_ms ? rfc3339(self.expires_ms, at) : NULL);
    t->ready = true;
}

/* A call of the kernel that may be repeated until it is answered. */
static int until_answered(struct toolcall *t, const char *method, json_object *params,
                          int64_t timeout_ms, struct ipc_reply *r)
{
    struct rt_call c = { .method = method,
                         .params = params,
                         .timeout_ms = timeout_ms,
                         .repeatable = true,
                         .brk = BRK_STOP };
    int64_t wait = 200;

    for (;;) {
        int err = rt_call(&c, r);
        if (err != ERR_UNAVAIL && err != ERR_TIMEOUT && err != ERR_BUSY)
            return err;
        ipc_reply_done(r);
        unsigned why = rt_sleep(wait, BRK_STOP);
        wait = wait < 5000 ? wait * 2 : wait;
        if (why) {
            toolcall_fail(t, ERR_CANCELED, "not answered: stopping");
            return RT_BROKEN(why);
        }
    }
}

static json_object *tool_request(const struct toolcall *t, const char *tool)
{
    char id[UUID_LEN];
    const char *urgency = json_str(t->args, "urgency", "normal");
    json_object *list = json_new_arr();

    json_push(list, json_make("resource:s name:s reason:s urgency:s", "tool", tool,
                              json_str(t->args, "reason", ""),
                              str_eq(urgency, "medium") ? "normal" : urgency));
    cleanup(freep) char *rid = xasprintf("req-%s", call_uuid(t->turn, t->pos, id));
    return json_make("requestId:s requests:o", rid, list);
}

static void tool_answer(const struct dispatch *d, struct toolcall *t, const char *tool,
                        json_object *grant)
{
    const char *token = json_str(grant, "new_token", "");

    if (json_flag(grant, "granted", false)) {
        token_set(token, json_str(grant, "expiresAt", NULL));
        sig.tools_stale = true;
        t->result =
            json_make("granted:b scope:s tool:s", 1, json_str(grant, "scope", "session"), tool);
    } else {
        json_push_str(d->refused, tool);
        t->result = json_make("granted:b tool:s reason:s", 0, tool,
                              json_str(grant, "reason", "not granted"));
    }
    t->ready = true;
}

static void cap_request_tool(const struct dispatch *d, struct toolcall *t)
{
    const char *tool = json_str(t->args, "tool", "");
    struct ipc_reply r;

    if (json_arr_has(d->refused, tool)) {
        toolcall_fail(t, ERR_DENIED, "%s was denied already; it is not asked for again now", tool);
        return;
    }
    cleanup(json_putp) json_object *params = tool_request(t, tool);
    int err = until_answered(t, "kernel/resource/request", params, 0, &r);
    if (!err)
        tool_answer(d, t, tool, json_object_array_get_idx(json_arr(r.result, "grants"), 0));
    else if (err > 0)
        toolcall_fail_reply(t, &r);
    ipc_reply_done(&r);
}

static void cap_escalate(const struct dispatch *d, struct toolcall *t)
{
    json_object *options = json_arr(t->args, "options");
    json_object *payload = json_make(
        "reason:s context:s options:o", json_str(t->args, "reason", ""),
        json_str(t->args, "context", ""), options ? json_object_get(options) : json_new_arr());
    char id[UUID_LEN];
    cleanup(freep) char *rid = xasprintf("req-%s", call_uuid(t->turn, t->pos, id));
    cleanup(json_putp) json_object *params =
        json_make("signal:s payload:o requestId:s", "SIGESCALATE", payload, rid);
    struct ipc_reply r;
    int err = until_answered(t, "kernel/agent/signal", params, 0, &r);

    (void)d;
    if (!err) {
        t->result = TAKE(r.result);
        t->ready = true;
    } else if (err > 0) {
        toolcall_fail_reply(t, &r);
    }
    ipc_reply_done(&r);
}

struct wait {
    const char *method, *status_key; /* where the answer says how it ended */
    json_object *params;             /* without timeoutSec; borrowed */
    int64_t sec;                     /* 0: no limit */
};

/* One slice of a wait. True if it is over. */
static bool wait_slice(struct toolcall *t, const struct wait *w, int64_t sec)
{
    cleanup(json_putp) json_object *params = json_dup(w->params);
    struct ipc_reply r;

    json_add_int(params, "timeoutSec", sec);
    struct rt_call c = { .method = w->method,
                         .params = params,
                         .timeout_ms = (sec + 10) * 1000,
                         .repeatable = true,
                         .brk = BRK_STOP | BRK_PAUSE };
    int err = rt_call(&c, &r);
    bool over = false;
    if (!err) {
        json_put(t->result);
        t->result = TAKE(r.result);
        over = !str_eq(json_str(t->result, w->status_key, ""), "timeout");
    } else if (err == ERR_UNAVAIL || err == ERR_TIMEOUT || err == ERR_BUSY) {
        (void)rt_sleep(200, BRK_STOP | BRK_PAUSE);
    } else if (err > 0) {
        toolcall_fail_reply(t, &r);
        over = true;
    }
    ipc_reply_done(&r);
    return over;
}

static void wait_for(const struct dispatch *d, struct toolcall *t, const struct wait *w)
{
    int64_t began = mono_ms();

    report_state("waiting", "signal");
    for (;;) {
        int64_t left = w->sec ? w->sec - (mono_ms() - began) / 1000 : SLICE_SEC;
        if (rt_breaks(BRK_PAUSE | BRK_STOP)) {
            if (!d->boundary()) {
                toolcall_fail(t, ERR_CANCELED, "the wait was left: stopping");
                break;
            }
            report_state("waiting", "signal");
        }
        if (left <= 0 || wait_slice(t, w, left < SLICE_SEC ? left : SLICE_SEC))
            break;
    }
    report_state("running", NULL);
    if (t->ready)
        return;
    if (!t->result)
        t->result = json_make("finalStatus:s result:s", "timeout", NULL);
    if (json_get(w->params, "pid"))
        json_add(t->result, "pid", json_object_get(json_get(w->params, "pid")));
    json_add_int(t->result, "durationSec", (mono_ms() - began) / 1000);
    t->ready = true;
}

static void agent_wait(const struct dispatch *d, struct toolcall *t)
{
    cleanup(json_putp) json_object *params = json_make("pid:i", json_int(t->args, "pid", 0));
    struct wait w = { "agent/wait", "finalStatus", params, json_int(t->args, "timeoutSec", 300) };

    wait_for(d, t, &w);
}

static void job_watch(const struct dispatch *d, struct toolcall *t)
{
    cleanup(json_putp) json_object *params = json_make("jobId:s", json_str(t->args, "jobId", ""));
    struct wait w = { "job/watch", "finalStatus", params, json_int(t->args, "timeoutSec", 300) };

    wait_for(d, t, &w);
    if (t->result) /* an error has none */
        json_object_object_del(t->result, "durationSec");
}

/* The child's end as agent/spawn tells it. */
static void spawn_result(struct toolcall *t, int64_t pid)
{
    const char *status = json_str(t->result, "finalStatus", "running");
    json_object *text = json_get(t->result, "result");
    json_object *out =
        json_make("pid:i status:s result:o", pid, str_eq(status, "timeout") ? "running" : status,
                  text ? json_object_get(text) : NULL);

    json_put(t->result);
    t->result = out;
}

static void agent_spawn(const struct dispatch *d, struct toolcall *t)
{
    cleanup(json_putp) json_object *params = json_dup(t->args);
    char key[UUID_LEN];
    struct ipc_reply r;

    json_object_object_del(params, "waitForResult");
    json_object_object_del(params, "timeoutSec");
    json_add_str(params, "idempotency_key", call_uuid(t->turn, t->pos, key));
    int err = until_answered(t, "agent/spawn", params, 130000, &r);
    int64_t pid = json_int(r.result, "pid", 0);
    if (err > 0)
        toolcall_fail_reply(t, &r);
    ipc_reply_done(&r);
    if (err)
        return;
    if (json_flag(t->args, "waitForResult", false) && token_grants("agent/wait")) {
        cleanup(json_putp) json_object *child = json_make("pid:i", pid);
        struct wait w = { "agent/wait", "finalStatus", child,
                          json_int(t->args, "timeoutSec", 300) };
        wait_for(d, t, &w);
        if (t->err)
            return;
    }
    spawn_result(t, pid);
    t->ready = true;
}

static void sys_tools(const struct dispatch *d, struct toolcall *t)
{
    (void)d;
    toolcall_route(t, "sys/tools", t->args, 0, NULL, 0);
    if (!t->err && self.tools.index)
        tools_load(&self.tools, t->result);
}

static const struct {
    const char *name;
    void (*run)(const struct dispatch *d, struct toolcall *t);
} table[] = {
    { "agent/spawn", agent_spawn },
    { "agent/wait", agent_wait },
    { "cap/escalate", cap_escalate },
    { "cap/list", cap_list },
    { "job/watch", job_watch },
    { "sys/tools", sys_tools },
    { "cap/request-tool", cap_request_tool },
};

bool own_tool(const struct dispatch *d, struct toolcall *t)
{
    for (size_t i = 0; i < N_ELEMS(table); i++)
        if (!strcmp(table[i].name, t->name)) {
            table[i].run(d, t);
            return true;
        }
    return false;
}
