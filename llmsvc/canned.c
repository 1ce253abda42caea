/*
 * Chunks that are already known, played into an answer as if a provider sent them: a word at a
 * time, some per turn of the loop, with pauses for a slow caller.
 */
#include "common/base/clock.h"
#include "llmsvc/core.h"

#define PER_TURN 64

struct canned {
    struct lcall *l;
    json_object *chunks, *result;
    size_t at, n;
    bool failed, paused;
    double timing;
    int64_t began;
    struct timer timer;
};

static void apply(struct answer *a, json_object *c)
{
    const char *type = json_str(c, "type", ""), *s = json_str(c, "text", "");
    const char *id = json_str(c, "call_id", "");

    if (str_eq(type, "text_delta")) {
        (void)answer_text(a, s, strlen(s));
    } else if (str_eq(type, "thinking_delta")) {
        (void)answer_thinking(a, s, strlen(s));
    } else if (str_eq(type, "tool_call_start")) {
        (void)answer_tool_start(a, (int)a->n, id, json_str(c, "name", ""));
    } else {
        for (size_t i = a->n; i-- > 0;) {
            if (a->blocks[i].type != BLOCK_TOOL || !str_eq(a->blocks[i].id, id))
                continue;
            s = json_str(c, "args_delta", "");
            if (str_eq(type, "tool_call_args_delta"))
                (void)answer_tool_args(a, a->blocks[i].index, s, strlen(s));
            else if (str_eq(type, "tool_call_complete"))
                answer_tool_end(a, a->blocks[i].index);
            break;
        }
    }
    answer_flush(a);
}

static void over(struct canned *c)
{
    struct lcall *l = c->l;
    bool failed = c->failed;

    l->canned_result = TAKE(c->result);
    l->canned = NULL;
    canned_free(c);
    if (failed)
        call_bad(l);
    else
        call_good(l);
}

static void step(void *arg)
{
    struct canned *c = arg;
    struct lcall *l = c->l;

    for (int k = 0; c->at < c->n && !c->paused; k++) {
        json_object *row = json_object_array_get_idx(c->chunks, c->at);
        int64_t due = c->began + (int64_t)((double)json_int(row, "ms", 0) * c->timing),
                now = mono_ms();

        if (due > now || k == PER_TURN) {
            timer_set(&c->timer, due > now ? due - now : 0);
            return;
        }
        c->at++;
        apply(&l->ans, json_obj(row, "chunk"));
        if (l->slow)
            call_flush(l);
    }
    if (c->at == c->n)
        over(c);
}

void canned_start(struct lcall *l, json_object *chunks, json_object *result, bool failed,
                  double timing)
{
    struct canned *c = xcalloc(1, sizeof *c);

    c->l = l;
    c->chunks = chunks;
    c->n = chunks ? json_object_array_length(chunks) : 0;
    c->result = result;
    c->failed = failed;
    c->timing = timing;
    c->began = mono_ms();
    timer_init(&c->timer, svc.loop, step, c);
    l->canned = c;
    timer_set(&c->timer, 0);
}

void canned_pause(struct canned *c, bool paused)
{
    c->paused = paused;
    if (paused)
        timer_stop(&c->timer);
    else
        timer_set(&c->timer, 0);
}

void canned_free(struct canned *c)
{
    timer_done(&c->timer);
    json_put(c->chunks);
    json_put(c->result);
    free(c);
}
