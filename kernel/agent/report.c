/*
 * Only the newest state matters to the kernel, so while one report is under way later ones fold
 * into the next. The kernel's socket is held by init: while the kernel restarts a report simply
 * waits.
 */
#include "kernel/agent/report.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/signals.h"

#define RESULT_MAX     (256 * 1024)
#define COUNTERS_MS    250
#define RETRY_FIRST_MS 200
#define RETRY_MOST_MS  5000
#define REPORT_TIMEOUT 30000

struct report report = { .state = "pending" };

static struct {
    struct ipc_call *call;
    struct timer timer;
    int64_t seq, sent_at;
    int retry_ms;
    bool dirty;   /* a state the kernel does not know */
    bool counted; /* counters it does not know */
    bool low, idle;
    char *result;
    json_object *exit;
    json_object *taken; /* ids the kernel may forget, in order */
    size_t n_taken;     /* of these in the call under way */
} st;

static void send_now(void);

static bool nothing_open(void)
{
    return !st.call && !st.dirty;
}

static json_object *body(void)
{
    json_object *o = json_make("seq:i state:s waitingOn:s turn:i toolCallsThisTurn:i "
                               "toolCallsTotal:i contextUsed:i lastSignal:s pendingSignals:i",
                               ++st.seq, report.state, report.waiting_on, report.turn,
                               report.calls_turn, report.calls_total, context_used(&self.ctx),
                               *sig.last ? sig.last : NULL, (int64_t)signals_pending());

    if (self.degraded && json_object_array_length(self.degraded))
        json_add(o, "degraded", json_object_get(self.degraded));
    st.n_taken = st.taken ? json_object_array_length(st.taken) : 0;
    if (st.n_taken)
        json_add(o, "taken", json_dup(st.taken));
    if (st.result)
        json_add_str(o, "result", st.result);
    if (st.exit)
        json_add(o, "exit", json_object_get(st.exit));
    return o;
}

static void on_answer(json_object *result)
{
    int64_t limit = json_int(result, "contextLimit", 0);

    if (st.n_taken)
        json_object_array_del_idx(st.taken, 0, st.n_taken);
    st.low = json_flag(json_obj(result, "quota"), "low", false);
    if (limit > 0)
        self.ctx.limit = limit;
}

static bool retriable(int err)
{
    return err == ERR_UNAVAIL || err == ERR_TIMEOUT || err == ERR_BUSY;
}

static void on_done(struct ipc_reply *r, void *arg)
{
    (void)arg;
    st.call = NULL;
    if (retriable(r->err)) {
        st.dirty = true;
        timer_set(&st.timer, st.retry_ms);
        st.retry_ms = st.retry_ms * 2 < RETRY_MOST_MS ? st.retry_ms * 2 : RETRY_MOST_MS;
        return;
    }
    st.retry_ms = RETRY_FIRST_MS;
    if (r->err)
        log_warn("report refused: %s", r->error.message);
    else
        on_answer(r->result);
    if (st.dirty)
        send_now();
    st.idle = nothing_open();
}

static void send_now(void)
{
    cleanup(json_putp) json_object *params = body();
    struct ipc_req q = { .sock = self.router,
                         .method = "kernel/agent/report",
                         .params = params,
                         .token = self.token,
                         .timeout_ms = REPORT_TIMEOUT,
                         .repeatable = true,
                         .listener = self.init_pid };

    timer_stop(&st.timer);
    st.dirty = st.counted = st.idle = false;
    st.sent_at = mono_ms();
    st.call = ipc_start(self.loop, &q, NULL, on_done, NULL);
}

static void on_timer(void *arg)
{
    (void)arg;
    if (!st.call && (st.dirty || st.counted))
        send_now();
}

void report_init(void)
{
    timer_init(&st.timer, self.loop, on_timer, NULL);
    st.retry_ms = RETRY_FIRST_MS;
    st.idle = true;
    st.seq = mono_ms(); /* above all numbers of the process that was this agent before */
}

static void changed(void)
{
    st.dirty = true;
    st.idle = false;
    if (!st.call)
        send_now();
}

void report_state(const char *state, const char *waiting_on)
{
    if (str_eq(report.state, state) && str_eq(report.waiting_on, waiting_on) && !st.result)
        return;
    if (!str_eq(state, "waiting") && st.result && !st.dirty) {
        free(st.result); /* belongs to the goal that ended */
        st.result = NULL;
    }
    report.state = state;
    report.waiting_on = waiting_on;
    changed();
}

void report_result(const char *text)
{
    free(st.result);
    st.result = text ? xstrndup(text, utf8_floor(text, strnlen(text, RESULT_MAX))) : NULL;
}

void report_counters(void)
{
    int64_t wait = st.sent_at + COUNTERS_MS - mono_ms();

    st.counted = true;
    if (st.call || st.timer.armed)
        return;
    timer_set(&st.timer, wait > 0 ? wait : 0);
}

void report_taken(const char *id)
{
    if (!st.taken)
        st.taken = json_new_arr();
    json_push_str(st.taken, id);
    report_counters();
}

void report_full(void)
{
    if (self.token)
        changed();
}

static void on_late(void *arg)
{
    *(bool *)arg = true;
}

bool report_flush(int64_t timeout_ms, unsigned brk)
{
    struct timer limit;
    bool late = false;

    if (timeout_ms < 0)
        return !rt_until(&st.idle, brk);
    timer_init(&limit, self.loop, on_late, &late);
    timer_set(&limit, timeout_ms);
    while (!st.idle && !late && !rt_breaks(brk))
        loop_step(self.loop, true);
    timer_done(&limit);
    return st.idle;
}

void report_exit(const char *status, const char *reason, const char *result, int64_t timeout_ms)
{
    json_put(st.exit);
    report_result(result);
    st.exit = json_make("status:s reason:s result:s", status, reason, st.result);
    report_result(NULL); /* no goal is reached by this: the state stays what it was */
    if (!self.token)
        return;
    changed();
    (void)report_flush(timeout_ms, 0);
}

bool report_low(void)
{
    return st.low;
}
