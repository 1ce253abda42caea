/*
 * A goal runs turn after turn: refresh what is known, ask the model, write its answer down, carry
 * out its calls. What a goal needs to go on after a crash is read back from its lines: which goal
 * it was, how many turns it has had, whether it is finished.
 */
#include "kernel/agent/goal.h"

#include <malloc.h>
#include <stdio.h>

#include "common/base/log.h"
#include "kernel/agent/dispatch.h"
#include "kernel/agent/events.h"
#include "kernel/agent/ids.h"
#include "kernel/agent/life.h"
#include "kernel/agent/llm.h"
#include "kernel/agent/report.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/signals.h"
#include "kernel/agent/token.h"
#include "kernel/agent/turn.h"

/* How a goal ended for now. */
enum end { END_REACHED, END_LIMIT, END_STOP, END_FAILED };

static struct {
    char *text;         /* of the current goal */
    char *result;       /* last answer in text */
    json_object *known; /* ids of goals and messages that are in the conversation */
    bool open;          /* the current goal is not finished */
    bool any;           /* there is a goal in the conversation */
    int turn;           /* of this goal */
    struct turn t;
    const char *failure; /* exit reason after END_FAILED */
} g;

/* --- lines --------------------------------------------------------------------------------------
 */

/* What a line says about the goal, whether it was just written or read back. */
static void line_seen(json_object *line)
{
    const char *role = json_str(line, "role", "");
    const char *id = json_str(line, "goalId", "");

    if (str_eq(role, "user")) {
        if (!g.open || *id)
            g.turn = 0;
        g.open = g.any = true;
        if (*id || !g.text) {
            free(g.text);
            g.text = xstrdup(json_str(line, "content", ""));
        }
        if (*id)
            json_push_str(g.known, id);
        if (*json_str(line, "messageId", ""))
            json_push_str(g.known, json_str(line, "messageId", ""));
    } else if (str_eq(role, "assistant")) {
        g.turn = (int)json_int(line, "turn", g.turn + 1);
        g.open = json_arr(line, "toolCalls") != NULL;
        if (!g.open) {
            free(g.result);
            g.result = xstrdup(json_str(line, "content", ""));
        }
    }
}

/* Writes a line and puts it into the context; line is borrowed. A disk that takes no more ends the
 * process: nothing may happen that is not written down. */
static void write_line(json_object *line, void *arg)
{
    int r = journal_append(&self.journal, line);

    (void)arg;
    if (r) {
        log_error("conversation: %s", strerror(-r));
        exit(life_end(EXIT_INTERNAL, "failed", "internal", NULL));
    }
    line_seen(line);
    context_add(&self.ctx, line);
    g.t.n = 0;
}

static void write_user(const char *text, const char *goal_id, const char *message_id,
                       json_object *from)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);

    mask_text(&self.mask, text, strlen(text), &b);
    cleanup(json_putp) json_object *line =
        json_make("role:s content:s", "user", b.data ? b.data : "");
    buf_done(&b);
    if (!str_empty(goal_id))
        json_add_str(line, "goalId", goal_id);
    if (!str_empty(message_id))
        json_add_str(line, "messageId", message_id);
    if (from)
        json_add(line, "from", json_object_get(from));
    write_line(line, NULL);
    turn_new_input(&g.t);
}

void goal_replay(const char *text, size_t len, bool own)
{
    if (!g.known)
        g.known = json_new_arr();
    size_t bad = context_replay(&self.ctx, text, len, own);
    if (bad)
        log_warn("history: %zu lines left out", bad);
    if (!own)
        return;
    while (len) {
        const char *nl = memchr(text, '\n', len);
        size_t n = nl ? (size_t)(nl - text) : len;
        cleanup(json_putp) json_object *line = NULL;
        if (n && !json_parse(text, n, &line))
            line_seen(line);
        n += nl ? 1 : 0;
        text += n;
        len -= n;
    }
}

/* --- step 1: refresh ----------------------------------------------------------------------------
 */

/* Waits while paused. False: SIGSTOP. */
static bool boundary(void)
{
    const char *was = report.state;

    while (sig.pause && !sig.stop) {
        events_sync();
        report_state("paused", NULL);
        while (sig.pause && !sig.stop)
            loop_step(self.loop, true);
        if (!sig.stop)
            report_state(str_eq(was, "paused") ? "running" : was,
                         str_eq(was, "waiting") ? "signal" : NULL);
    }
    return !sig.stop;
}

/* Those that an earlier process of this agent wrote down are taken out; true if any is left. */
static bool messages_wait(void)
{
    for (size_t i = json_object_array_length(sig.messages); i-- > 0;) {
        const char *id = json_str(json_object_array_get_idx(sig.messages, i), "messageId", "");
        if (!*id || !json_arr_has(g.known, id))
            continue;
        report_taken(id);
        json_object_array_del_idx(sig.messages, i, 1);
    }
    return json_object_array_length(sig.messages) > 0;
}

static void take_messages(void)
{
    json_object *m;

    while (messages_wait() && (m = signals_shift(sig.messages))) {
        const char *id = json_str(m, "messageId", "");
        write_user(json_str(m, "text", ""), NULL, id, json_get(m, "from"));
        if (*id)
            report_taken(id);
        json_put(m);
    }
    while ((m = signals_shift(sig.guidance))) {
        json_push(g.t.pending, m);
    }
}

/* True to go on; false with g.failure set, or stopping. */
static bool refresh(void)
{
    if (!boundary())
        return false;
    if (token_due() && token_renew("expires soon") == ERR_AUTH) {
        g.failure = "token_revoked";
        return false;
    }
    if (!turn_tools(&g.t))
        return !sig.stop;
    take_messages();
    return !sig.stop;
}

/* --- the steps after the call -------------------------------------------------------------------
 */

static void write_answer(struct turn *t)
{
    cleanup(json_putp) json_object *line = json_make(
        "role:s turn:i turnId:s content:s", "assistant", (int64_t)t->number, t->id, t->text);

    if (json_object_array_length(t->calls))
        json_add(line, "toolCalls", mask_json(&self.mask, t->calls));
    json_add(line, "usage", json_make("in:i out:i", t->in, t->out));
    context_counted(&self.ctx, t->in);
    write_line(line, NULL);
    if (*t->text)
        events_output(t->id, t->text);
}

static void run_calls(size_t entry, bool resumed)
{
    struct dispatch d = { .turn = g.turn,
                          .refused = g.t.refused,
                          .resumed = resumed,
                          .record = write_line,
                          .boundary = boundary };

    report.calls_turn = 0;
    dispatch_calls(&d, entry);
    report_counters();
}

static enum end end_by_limit(void)
{
    cleanup(freep) char *text = xasprintf(
        "[Stopped: the limit of %d turns for one goal is reached. Send a message to go on "
        "or to give other instructions.]",
        self.st.max_turns);
    char id[UUID_LEN];

    turn_id(self.st.invocation, self.journal.seq, g.t.n, id);
    cleanup(json_putp) json_object *line =
        json_make("role:s turn:i turnId:s content:s", "assistant", (int64_t)g.turn, id, text);
    write_line(line, NULL);
    events_stream_begin(id);
    events_text(text, strlen(text));
    events_stream_end(false);
    events_output(id, text);
    return END_LIMIT;
}

/* One turn. True: another one follows; else *ret says how the goal ended. */
static bool one_turn(enum end *ret)
{
    if (!refresh()) {
        *ret = sig.stop ? END_STOP : END_FAILED;
        return false;
    }
    if (g.turn >= self.st.max_turns) {
        *ret = end_by_limit();
        return false;
    }
    g.t.number = g.turn + 1;
    report.turn = g.t.number;
    report.calls_turn = 0;
    int r = turn_ask(&g.t, g.text);
    if (r < 0) { /* stopped: the end; paused: this turn again */
        *ret = END_STOP;
        return !sig.stop;
    }
    if (r > 0) {
        g.failure = g.t.failure;
        *ret = END_FAILED;
        return false;
    }
    write_answer(&g.t);
    report_counters();
    if (!json_object_array_length(g.t.calls)) {
        events_turn_end();
        *ret = END_REACHED;
        return messages_wait() && !sig.stop;
    }
    run_calls(self.ctx.n - 1, false);
    events_turn_end();
    *ret = END_STOP;
    return !sig.stop;
}

/* Calls that were sent when this agent's last process died. */
static void finish_open_calls(void)
{
    ssize_t entry = context_open_calls(&self.ctx);

    if (entry < 0)
        return;
    if (!turn_tools(&g.t))
        return;
    run_calls((size_t)entry, true);
    events_turn_end();
}

static enum end run_goal(void)
{
    enum end end = END_STOP;

    report_state("running", NULL);
    if (boundary())
        finish_open_calls();
    while (!sig.stop && one_turn(&end))
        ;
    return sig.stop && end != END_REACHED ? END_STOP : end;
}

/* --- goals --------------------------------------------------------------------------------------
 */

/* Takes the next SIGSTART in. True if there is something to do. */
static bool next_goal(void)
{
    json_object *start = signals_shift(sig.starts);
    bool work = false;

    while (start && !work) {
        const char *id = json_str(start, "goalId", ""), *text = json_str(start, "goal", "");
        if (*id && json_arr_has(g.known, id)) {
            work = g.open; /* it was under way when the last process ended */
        } else if (*text) {
            write_user(text, id, NULL, NULL);
            work = true;
        }
        if (*id)
            report_taken(id);
        json_put(start);
        start = work ? NULL : signals_shift(sig.starts);
    }
    json_put(start);
    return work || messages_wait();
}

static void idle(void)
{
    events_sync();
    report_result(g.result ? g.result : "");
    report_state("waiting", "signal");
    turn_forget(&g.t);
    (void)report_flush(-1, BRK_STOP);
    tools_done(&self.tools); /* asked for again by the next goal: an idle agent is small */
    malloc_trim(0);
}

static bool wait_for_goal(void)
{
    while (!sig.stop) {
        if (!boundary())
            return false;
        if (next_goal())
            return true;
        loop_step(self.loop, true);
    }
    return false;
}

static int stopped(void)
{
    return life_end(EXIT_DONE, str_eq(sig.stop_reason, "hibernate") ? "hibernated" : "stopped",
                    sig.stop_reason, g.result);
}

static int end_goal(enum end end)
{
    switch (end) {
    case END_STOP:
        return stopped();
    case END_FAILED:
        return life_end(EXIT_FAILED, "failed", g.failure ? g.failure : "internal", g.result);
    case END_LIMIT:
        if (self.st.one_shot)
            return life_end(EXIT_FAILED, "failed", "turn_limit", g.result);
        break;
    case END_REACHED:
        if (self.st.one_shot)
            return life_end(EXIT_DONE, "completed", NULL, g.result);
        break;
    }
    idle();
    return -1;
}

int goal_loop(void)
{
    int code = -1;

    if (!g.known)
        g.known = json_new_arr();
    turn_init(&g.t);
    if (!next_goal() && g.any && !g.open) /* finished, but nobody was told */
        code = end_goal(END_REACHED);
    else if (g.open || messages_wait())
        code = end_goal(run_goal());
    while (code < 0) {
        if (!wait_for_goal())
            return stopped();
        code = end_goal(run_goal());
    }
    return code;
}
