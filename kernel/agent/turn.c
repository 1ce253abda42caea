/*
 * Several calls of the model can be one turn: a text that ran into the output limit is continued, a
 * tool call that did is asked for again with a larger one, a context that is full is summarised
 * first. Each has an id of its own that follows from the place in the conversation.
 */
#include "kernel/agent/turn.h"

#include <stdio.h>

#include "common/base/log.h"
#include "kernel/agent/events.h"
#include "kernel/agent/ids.h"
#include "kernel/agent/llm.h"
#include "kernel/agent/prompt.h"
#include "kernel/agent/report.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/signals.h"
#include "kernel/agent/summary.h"
#include "kernel/agent/token.h"

#define CONTINUE_MAX 3
#define SQUEEZE_MAX  3

static const char go_on[] =
    "Your answer was cut off by the output limit. Continue exactly where it "
    "stopped, without repeating anything.";

void turn_init(struct turn *t)
{
    *t = (struct turn){ .text = xstrdup(""),
                        .calls = json_new_arr(),
                        .pending = json_new_arr(),
                        .refused = json_new_arr() };
}

static void empty(json_object **arr)
{
    json_put(*arr);
    *arr = json_new_arr();
}

void turn_forget(struct turn *t)
{
    empty(&t->pending);
    empty(&t->refused);
}

void turn_new_input(struct turn *t)
{
    empty(&t->refused);
}

/* --- tools --------------------------------------------------------------------------------------
 */

static void note_gone(struct turn *t, json_object *gone)
{
    for (size_t i = 0; i < json_object_array_length(gone); i++) {
        cleanup(freep) char *line =
            xasprintf("[System]: the tool %s is no longer there.",
                      json_object_get_string(json_object_array_get_idx(gone, i)));
        json_push_str(t->pending, line);
    }
}

bool turn_tools(struct turn *t)
{
    static const int64_t waits[] = { 200, 1000, 5000 };
    cleanup(json_putp) json_object *params = json_make("granted_only:b schemas:b", 1, 1);
    cleanup(json_putp) json_object *gone = json_new_arr();
    struct rt_call c = {
        .method = "sys/tools", .params = params, .repeatable = true, .brk = BRK_STOP
    };

    if (self.tools.version && !sig.tools_stale)
        json_add_int(params, "ifVersion", self.tools.version);
    for (size_t i = 0;; i++) {
        struct ipc_reply r;
        int err = rt_call(&c, &r);
        if (!err) {
            sig.tools_stale = false;
            tools_apply(&self.tools, r.result, token_offers, self.ctx.limit, gone);
            note_gone(t, gone);
        } else if (err > 0) {
            log_warn("sys/tools: %s", r.error.message);
        }
        ipc_reply_done(&r);
        if (!err)
            return true;
        if (err < 0)
            return false;
        if (err == ERR_EXPIRED && !i)
            (void)token_renew("expired");
        if (i >= N_ELEMS(waits) || rt_sleep(waits[i], BRK_STOP))
            return self.tools.n > 0 && !sig.stop;
    }
}

/* --- the call -----------------------------------------------------------------------------------
 */

static char *prompt_now(const struct turn *t, const char *goal)
{
    struct prompt p = { .name = self.st.name,
                        .session = self.st.session,
                        .user = self.st.user,
                        .goal = goal ? goal : self.st.goal,
                        .role = self.st.system_prompt,
                        .memory = self.st.memory_context,
                        .pid = self.st.pid,
                        .context_limit = self.ctx.limit,
                        .calls_per_turn = self.st.max_tool_chain,
                        .turns_left = self.st.max_turns - t->number + 1,
                        .tools = &self.tools,
                        .budgets = self.budgets,
                        .pending = t->pending,
                        .refused = t->refused,
                        .summary = self.ctx.summary };

    return prompt_text(&p);
}

/* State of one turn while it is being asked for. */
struct asking {
    struct turn *t;
    const char *goal;
    char *prompt;
    json_object *tools, *messages;
    struct buf text;
    int max_tokens, continued, squeezed;
};

static void take_call(json_object *calls, json_object *block)
{
    json_object *input = json_obj(block, "input");
    json_object *c =
        json_make("id:s name:s args:o", json_str(block, "id", ""), json_str(block, "name", ""),
                  input ? json_object_get(input) : json_new());
    json_object *bad = json_get(block, "input_error");

    if (bad) {
        const char *raw = json_object_is_type(bad, json_type_string) ? json_object_get_string(bad)
                                                                     : json_text(bad);
        cleanup(freep) char *cut = text_cut_middle(raw, strlen(raw), 1024);
        json_add_str(c, "inputError", cut);
    }
    json_push(calls, c);
}

/* The calls of an answer; *cut is how many of them are not whole. Yours. */
static json_object *calls_of(const struct llm_answer *a, size_t *cut)
{
    json_object *content = json_arr(a->reply, "content"), *calls = json_new_arr();

    *cut = 0;
    for (size_t i = 0; i < json_object_array_length(content); i++) {
        json_object *block = json_object_array_get_idx(content, i);
        if (!str_eq(json_str(block, "type", ""), "tool_use"))
            continue;
        *cut += json_get(block, "input_error") != NULL;
        take_call(calls, block);
    }
    return calls;
}

static json_object *whole_calls(json_object *calls)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(calls); i++) {
        json_object *c = json_object_array_get_idx(calls, i);
        if (!json_get(c, "inputError"))
            json_push(out, json_object_get(c));
    }
    json_put(calls);
    return out;
}

/* An answer that ran into the output limit. True: ask again. calls is changed to what counts. */
static bool cut_off(struct asking *q, const struct llm_answer *a, const char *text,
                    json_object **calls, size_t cut)
{
    size_t n = json_object_array_length(*calls);

    if (n && cut == n && q->max_tokens < self.st.max_output) {
        q->max_tokens =
            q->max_tokens * 2 < self.st.max_output ? q->max_tokens * 2 : self.st.max_output;
        events_stream_end(true);
        return true;
    }
    if (n) {
        if (cut < n)
            *calls = whole_calls(*calls);
        buf_adds(&q->text, text);
        return false;
    }
    buf_adds(&q->text, text);
    if (q->continued >= CONTINUE_MAX || !*text || (a->in + a->out) * 100 >= self.ctx.limit * 85)
        return false;
    q->continued++;
    json_object *block = json_new_arr();
    json_push(block, json_make("type:s text:s", "text", text));
    json_push(q->messages, json_make("role:s content:o", "assistant", block));
    json_push(q->messages, json_make("role:s content:s", "user", go_on));
    return true;
}

/* True: ask again. */
static bool take_answer(struct asking *q, const struct llm_answer *a)
{
    size_t cut = 0;
    cleanup(freep) char *text = llm_text(a);
    json_object *calls = calls_of(a, &cut);
    bool more = false;

    q->t->in = a->in;
    q->t->out += a->out;
    if (str_eq(a->stop, "max_tokens"))
        more = cut_off(q, a, text, &calls, cut);
    else
        buf_adds(&q->text, text);
    json_put(q->t->calls);
    q->t->calls = calls;
    if (more)
        empty(&q->t->calls);
    return more;
}

static int refused(struct turn *t, const char *reason)
{
    str_copy(t->failure, sizeof t->failure, reason);
    return 1;
}

/* Makes room and asks anew. 0, 1 failed, or broken off. */
static int squeeze(struct asking *q, bool by_force)
{
    int r = q->squeezed++ >= SQUEEZE_MAX ? 1 : summary_make_room(&q->t->n, q->prompt, by_force);

    if (r > 0)
        return refused(q->t, "context_exhausted");
    if (r < 0)
        return r;
    free(q->prompt);
    q->prompt = prompt_now(q->t, q->goal);
    json_put(q->messages);
    q->messages = context_messages(&self.ctx);
    q->continued = 0;
    buf_clear(&q->text);
    turn_id(self.st.invocation, self.journal.seq, q->t->n, q->t->id);
    return 0;
}

static int ask_all(struct asking *q)
{
    for (;;) {
        char id[UUID_LEN];
        struct llm_answer a;
        struct llm_ask ask = { .prompt = q->prompt,
                               .messages = q->messages,
                               .tools = q->tools,
                               .max_tokens = q->max_tokens,
                               .turn_id =
                                   turn_id(self.st.invocation, self.journal.seq, q->t->n, id),
                               .stream = q->t->id,
                               .so_far = q->text.data,
                               .fallback = report_low() };
        int r = llm_call(&ask, BRK_STOP | BRK_PAUSE, &a);
        if (r < 0) {
            q->t->n = 0; /* the turn begins again, with the ids it had */
            return r;
        }
        q->t->n++;
        if (r == LLM_FAILED)
            return refused(q->t, a.reason);
        if (r == LLM_TOO_LONG) {
            r = squeeze(q, true);
            if (r)
                return r;
            continue;
        }
        bool more = take_answer(q, &a);
        llm_answer_done(&a);
        if (!more)
            return 0;
    }
}

int turn_ask(struct turn *t, const char *goal)
{
    struct asking q = { .t = t, .goal = goal, .text = BUF_INIT(16 * 1024 * 1024) };
    int r = 0;

    t->out = 0;
    t->failure[0] = '\0';
    q.max_tokens = self.st.max_output < OUTPUT_TOKENS ? self.st.max_output : OUTPUT_TOKENS;
    turn_id(self.st.invocation, self.journal.seq, t->n, t->id);
    q.prompt = prompt_now(t, goal);
    q.tools = tools_wire(&self.tools, self.st.required_tools);
    q.messages = context_messages(&self.ctx);
    if (context_full(&self.ctx))
        r = squeeze(&q, false);
    if (!r)
        r = ask_all(&q);
    events_stream_end(r != 0);
    free(t->text);
    struct buf clean = BUF_INIT(SIZE_MAX / 2);
    if (q.text.data)
        mask_text(&self.mask, q.text.data, q.text.len, &clean);
    t->text = clean.data ? buf_take(&clean) : xstrdup("");
    buf_done(&q.text);
    json_put(q.tools);
    json_put(q.messages);
    free(q.prompt);
    return r;
}
