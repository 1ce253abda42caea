/* Each wait is one loop_step after the other; nothing here has a timer of its own unless it was
 * asked for one, so an agent that waits does not wake. */
#include "kernel/agent/rt.h"

#include "kernel/agent/signals.h"

unsigned rt_breaks(unsigned brk)
{
    unsigned now = 0;

    if (sig.stop)
        now |= BRK_STOP;
    if (sig.pause)
        now |= BRK_PAUSE;
    if (sig.restarted)
        now |= BRK_RESTARTED;
    if (sig.late)
        now |= BRK_LATE;
    return now & brk;
}

unsigned rt_until(const bool *done, unsigned brk)
{
    unsigned why;

    while (!*done) {
        why = rt_breaks(brk);
        if (why)
            return why;
        loop_step(self.loop, true);
    }
    return 0;
}

static void on_sleep(void *arg)
{
    *(bool *)arg = true;
}

unsigned rt_sleep(int64_t ms, unsigned brk)
{
    struct timer t;
    bool done = false;

    timer_init(&t, self.loop, on_sleep, &done);
    timer_set(&t, ms);
    unsigned why = rt_until(&done, brk);
    timer_done(&t);
    return why;
}

struct flight {
    struct ipc_call *call;
    struct ipc_reply *out;
    size_t *open;
    bool *done;
    ipc_note_fn note;
    void *arg;
    bool landed;
};

static void on_note(const char *method, json_object *params, void *arg)
{
    struct flight *f = arg;

    if (f->note)
        f->note(method, params, f->arg);
}

static void on_done(struct ipc_reply *r, void *arg)
{
    struct flight *f = arg;

    *f->out = *r; /* all of it is ours now */
    *r = (struct ipc_reply){ .fd = -1 };
    f->landed = true;
    if (!--*f->open)
        *f->done = true;
}

static void launch(struct flight *f, const struct rt_call *c)
{
    struct ipc_req q = {
        .sock = c->sock ? c->sock : self.router,
        .method = c->method,
        .params = c->params,
        .token = c->token ? c->token : self.token,
        .timeout_ms = (int)c->timeout_ms,
        .repeatable = c->repeatable,
        .listener = self.init_pid,
    };

    f->call = ipc_start(self.loop, &q, on_note, on_done, f);
}

#define FLIGHTS 8

void rt_calls(const struct rt_call *c, struct ipc_reply *r, int *results, size_t n, unsigned brk)
{
    struct flight f[FLIGHTS] = { { .call = NULL } };
    size_t open = n = n < FLIGHTS ? n : FLIGHTS;
    bool done = n == 0;

    for (size_t i = 0; i < n; i++) {
        r[i] = (struct ipc_reply){ .fd = -1 };
        f[i] = (struct flight){
            .out = &r[i], .open = &open, .done = &done, .note = c[i].note, .arg = c[i].arg
        };
        launch(&f[i], &c[i]);
    }
    unsigned why = rt_until(&done, brk);
    for (size_t i = 0; i < n; i++) {
        if (f[i].landed) {
            results[i] = r[i].err;
        } else {
            ipc_cancel(f[i].call);
            results[i] = RT_BROKEN(why);
        }
    }
}

int rt_call(const struct rt_call *c, struct ipc_reply *r)
{
    int result = 0;

    rt_calls(c, r, &result, 1, c->brk);
    return result;
}

bool rt_unsent(const struct ipc_reply *r)
{
    return !json_flag(r->error.data, "forwarded", true) || r->err == ERR_BUSY ||
           (r->err == ERR_TIMEOUT && str_eq(json_str(r->error.data, "phase", "call"), "queue"));
}
