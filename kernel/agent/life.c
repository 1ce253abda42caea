/*
 * Until the first SIGSTART the kernel may be restarted at any point and begins again at
 * agent.ready, so this part is a loop: ready, tools, wait.
 */
#include "kernel/agent/life.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernel/agent/events.h"
#include "kernel/agent/report.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/signals.h"
#include "kernel/agent/token.h"

#define AGAIN_MS 100

int life_ready(unsigned brk)
{
    struct rt_call c = { .sock = self.kernel,
                         .method = "agent.ready",
                         .token = self.st.signal_key,
                         .repeatable = true,
                         .brk = brk };
    struct ipc_reply r;
    int err = rt_call(&c, &r);

    if (!err) {
        token_set(json_str(r.result, "token", ""), json_str(r.result, "expiresAt", NULL));
        if (!self.token)
            err = ERR_AUTH;
    } else if (err > 0) {
        log_warn("agent.ready: %s", r.error.message);
    }
    ipc_reply_done(&r);
    return err;
}

/* The names of our own tools: cap/ always, the rest as granted. */
static json_object *own_tools(bool named)
{
    static const char *const names[] = { "cap/request-tool", "cap/escalate",       "cap/list",
                                         "agent/spawn",      "agent/kill",         "agent/list",
                                         "agent/wait",       "agent/send-message", "pipe/open",
                                         "pipe/write",       "pipe/read",          "pipe/close" };
    json_object *list = json_new_arr();

    for (size_t i = 0; i < N_ELEMS(names); i++) {
        if (!tool_always(names[i]) && !token_grants(names[i]))
            continue;
        if (named)
            json_push(list, json_make("name:s", names[i]));
        else
            json_push_str(list, names[i]);
    }
    return list;
}

static int add_tools(unsigned brk)
{
    cleanup(json_putp) json_object *params = json_make("tools:o", own_tools(true));
    struct rt_call c = { .sock = self.kernel,
                         .method = "ipc.tool-add",
                         .params = params,
                         .repeatable = true,
                         .brk = brk };
    struct ipc_reply r;
    int err = rt_call(&c, &r);

    if (err > 0)
        log_warn("ipc.tool-add: %s", r.error.message);
    ipc_reply_done(&r);
    return err;
}

static bool try_later(int err)
{
    return err == ERR_UNAVAIL || err == ERR_TIMEOUT || err == ERR_BUSY;
}

/* Repeats a step until it is done, refused for good, or nobody was there for 10 s. */
static int reach(int (*step)(unsigned), unsigned brk, int refused)
{
    int64_t until = mono_ms() + REACH_MS;

    for (;;) {
        int err = step(brk);
        if (err <= 0)
            return err;
        if (!try_later(err))
            return refused;
        if (mono_ms() >= until)
            return EXIT_UNREACHABLE;
        unsigned why = rt_sleep(AGAIN_MS, brk);
        if (why)
            return RT_BROKEN(why);
    }
}

static int begin_once(unsigned brk)
{
    int r = reach(life_ready, brk, EXIT_BAD_START);

    if (r)
        return r;
    r = reach(add_tools, brk, EXIT_BAD_START);
    if (r)
        return r;
    while (!json_object_array_length(sig.starts) && !rt_breaks(brk))
        loop_step(self.loop, true);
    unsigned why = rt_breaks(brk);
    return why ? RT_BROKEN(why) : 0;
}

int life_begin(void)
{
    for (;;) {
        sig.restarted = false;
        int r = begin_once(BRK_STOP | BRK_RESTARTED);
        sig.live = !r;
        if (r >= 0)
            return r;
        if (-r & BRK_STOP)
            return 0;
    }
}

static void remove_tools(void)
{
    cleanup(json_putp) json_object *params =
        json_make("tools:o reason:s", own_tools(false), "exit");
    struct rt_call c = {
        .sock = self.kernel, .method = "ipc.tool-remove", .params = params, .timeout_ms = 500
    };
    struct ipc_reply r;

    if (!self.token)
        return;
    (void)rt_call(&c, &r);
    ipc_reply_done(&r);
}

int life_end(int code, const char *status, const char *reason, const char *result)
{
    events_sync();
    report_exit(status, reason, result, 2000);
    remove_tools();
    token_wipe();
    mask_done(&self.mask);
    return code;
}
