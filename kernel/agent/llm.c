/*
 * llmsvc has already repeated what is worth repeating at once; what is repeated here is what
 * outlives that: llmsvc itself gone, a provider down for a while, a broken stream. The same turn
 * keeps its turn id over all tries, so an answer that was complete but never arrived is not paid
 * twice.
 */
#include "kernel/agent/llm.h"

#include <stdio.h>

#include "common/base/log.h"
#include "common/base/rnd.h"
#include "kernel/agent/events.h"
#include "kernel/agent/rt.h"
#include "kernel/agent/token.h"

#define SLACK_MS      30000 /* llmsvc ends a call by its own deadline, this one is behind it */
#define WAIT_MOST_SEC 86400
#define WAITS_MOST    1000

void llm_answer_done(struct llm_answer *a)
{
    json_put(a->reply);
    *a = (struct llm_answer){ .reply = NULL };
}

int64_t llm_retry_ms(int tries)
{
    static const int64_t waits[] = { 2000, 8000, 30000 };
    uint16_t r;

    if (tries < 0 || (size_t)tries >= N_ELEMS(waits))
        return -1;
    rnd_bytes(&r, sizeof r);
    return waits[tries] * (80 + r % 41) / 100;
}

enum llm_retry llm_retry_kind(int err)
{
    static const int soon[] = { ERR_UNAVAIL,   ERR_PROVRATE, ERR_PROVTIMEOUT, ERR_PROVDOWN,
                                ERR_PROVPROTO, ERR_BUSY,     ERR_TIMEOUT,     ERR_INTERNAL };

    for (size_t i = 0; i < N_ELEMS(soon); i++)
        if (err == soon[i])
            return RETRY_SOON;
    if (err == ERR_QUOTA || err == ERR_LIMIT)
        return RETRY_WHEN_TOLD;
    if (err == ERR_EXPIRED || err == ERR_AUTH)
        return RETRY_RENEW;
    return RETRY_NEVER;
}

static json_object *request(const struct llm_ask *q)
{
    const struct start *s = &self.st;
    const char *model = q->fallback && *s->model_fallback ? s->model_fallback : s->model;
    json_object *p =
        json_make("model:s messages:o system:s", model, json_object_get(q->messages), q->prompt);

    if (q->tools)
        json_add(p, "tools", json_object_get(q->tools));
    json_add_int(p, "max_tokens", q->max_tokens);
    json_add_num(p, "temperature", s->temperature);
    json_add_num(p, "top_p", s->top_p);
    json_add_str(p, "turn_id", q->turn_id);
    json_add_int(p, "timeout_ms", (int64_t)s->timeout_sec * 1000);
    return p;
}

struct stream {
    bool show;
    bool any; /* text came */
};

static void on_note(const char *method, json_object *params, void *arg)
{
    struct stream *s = arg;
    json_object *chunk = json_obj(params, "chunk");
    const char *type = json_str(chunk, "type", "");

    if (!s->show || !str_eq(method, "llm.stream.chunk"))
        return;
    if (str_eq(type, "text_delta")) {
        const char *text = json_str(chunk, "text", "");
        s->any = s->any || *text;
        events_text(text, strlen(text));
    } else if (str_eq(type, "tool_call_start")) {
        events_flush();
    }
}

char *llm_text(const struct llm_answer *a)
{
    json_object *content = json_arr(a->reply, "content");
    struct buf b = BUF_INIT(16 * 1024 * 1024);

    for (size_t i = 0; content && i < json_object_array_length(content); i++) {
        json_object *block = json_object_array_get_idx(content, i);
        if (str_eq(json_str(block, "type", ""), "text"))
            buf_adds(&b, json_str(block, "text", ""));
    }
    return buf_take(&b);
}

/* One try. */
static int once(json_object *params, const struct llm_ask *q, unsigned brk, struct ipc_reply *r)
{
    struct stream s = { .show = q->stream != NULL };
    struct rt_call c = { .method = "llm/stream_complete",
                         .params = params,
                         .timeout_ms = (int64_t)self.st.timeout_sec * 1000 + SLACK_MS,
                         .brk = brk,
                         .note = on_note,
                         .arg = &s };
    int err = rt_call(&c, r);

    if (!err && (!json_flag(r->result, "done", true) || !json_arr(r->result, "content")))
        err = ERR_PROVPROTO;           /* a stream without an end: nothing of it is kept */
    if (!err && q->stream && !s.any) { /* a stored answer has no stream */
        struct llm_answer a = { .reply = r->result };
        cleanup(freep) char *text = llm_text(&a);
        events_text(text, strlen(text));
    }
    return err;
}

static int fail(struct llm_answer *a, const char *reason, const struct ipc_reply *r)
{
    str_copy(a->reason, sizeof a->reason, reason);
    snprintf(a->message, sizeof a->message, "%s: %s",
             err_name(r->error.err ? r->error.err : ERR_PROVPROTO), r->error.message);
    log_warn("model call failed: %s", a->message);
    return LLM_FAILED;
}

static int64_t told_ms(const struct ipc_reply *r)
{
    int64_t ms = json_int(r->error.data, "retry_after_ms", 0);
    double sec = json_num(r->error.data, "retry_after", 0);

    if (sec > 0 && sec < WAIT_MOST_SEC)
        ms = (int64_t)(sec * 1000);
    return ms > 0 && ms < (int64_t)WAIT_MOST_SEC * 1000 ? ms : 0;
}

struct tries {
    int n, waits;
    bool renewed;
};

/* What to do after a failed try: 0 again, else the end of the call. */
static int after_failure(int err, const struct ipc_reply *r, struct tries *t, unsigned brk,
                         struct llm_answer *a)
{
    const char *scope = json_str(r->error.data, "scope", "user");
    int64_t ms = told_ms(r), own;

    switch (llm_retry_kind(err)) {
    case RETRY_SOON:
        own = llm_retry_ms(t->n++);
        if (own < 0)
            return fail(a, "llm_unavailable", r);
        ms = ms > own ? ms : own;
        break;
    case RETRY_WHEN_TOLD:
        if (!ms || t->waits++ >= WAITS_MOST)
            return fail(a, str_eq(scope, "provider") ? "llm_unavailable" : "quota_exceeded", r);
        break;
    case RETRY_RENEW:
        if (t->renewed || token_renew("refused"))
            return fail(a, "token_revoked", r);
        t->renewed = true;
        return 0;
    case RETRY_NEVER:
        return fail(a, "llm_unavailable", r);
    }
    unsigned why = rt_sleep(ms, brk);
    return why ? RT_BROKEN(why) : 0;
}

/* Opens the stream, or opens it again after a try that failed: then with what was there before. */
static void begin_stream(const struct llm_ask *q)
{
    if (q->stream && events_stream_begin(q->stream) && q->so_far)
        events_text(q->so_far, strlen(q->so_far));
}

int llm_call(const struct llm_ask *q, unsigned brk, struct llm_answer *a)
{
    cleanup(json_putp) json_object *params = request(q);
    struct tries t = { .n = 0 };

    *a = (struct llm_answer){ .reply = NULL };
    for (;;) {
        struct ipc_reply r;
        begin_stream(q);
        int err = once(params, q, brk, &r);
        if (!err) {
            a->reply = TAKE(r.result);
            a->stop = json_str(a->reply, "stop_reason", "end_turn");
            a->in = json_int(a->reply, "input_tokens", 0);
            a->out = json_int(a->reply, "output_tokens", 0);
            ipc_reply_done(&r);
            return LLM_ANSWERED;
        }
        if (q->stream)
            events_stream_end(true);
        int end = err < 0              ? err
                  : err == ERR_CONTEXT ? LLM_TOO_LONG
                                       : after_failure(err, &r, &t, brk, a);
        ipc_reply_done(&r);
        if (end)
            return end;
    }
}
