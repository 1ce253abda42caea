/*
 * Open turns. An agent speaks one turn at a time, so there is one per agent: a new turn_id, or a
 * piece numbered 0, begins the next. The text is kept until the turn's agent.output or the agent's
 * exit, because until then a late or slow client may need it.
 */
#include "gateway/turns.h"

#include <inttypes.h>

#include "common/base/map.h"

static struct map agents;
static uint64_t serial;

static void key_of(int64_t pid, char key[24])
{
    snprintf(key, 24, "%" PRId64, pid);
}

struct agent *agent_find(int64_t pid)
{
    char key[24];

    key_of(pid, key);
    return map_get(&agents, key);
}

struct agent *agent_get(int64_t pid)
{
    struct agent *a = agent_find(pid);
    char key[24];

    if (a)
        return a;
    a = xcalloc(1, sizeof(*a));
    a->pid = pid;
    buf_init(&a->text, TURN_TEXT_MAX);
    buf_init(&a->held, TURN_TEXT_MAX);
    key_of(pid, key);
    map_put(&agents, key, a);
    return a;
}

static void agent_free(struct agent *a)
{
    buf_done(&a->text);
    buf_done(&a->held);
    free(a);
}

void agent_gone(int64_t pid)
{
    char key[24];
    struct agent *a;

    key_of(pid, key);
    a = map_del(&agents, key);
    if (a)
        agent_free(a);
}

void agents_fini(void)
{
    size_t pos = 0;
    const char *key;
    void *v;

    while (map_each(&agents, &pos, &key, &v))
        agent_free(v);
    map_done(&agents);
}

void agents_each(void (*fn)(struct agent *a, void *arg), void *arg)
{
    size_t pos = 0;
    const char *key;
    void *v;

    while (map_each(&agents, &pos, &key, &v)) {
        struct agent *a = v;

        if (a->turn && !a->final && a->text.len)
            fn(a, arg);
    }
}

bool turn_add(struct agent *a, struct chunk *c)
{
    bool same = a->turn && str_eq(a->turn_id, c->turn_id);

    if (same && c->seq_from) {
        if (c->seq < a->next)
            return false;
    } else {
        if (same && a->next)
            c->from = true; /* the agent began this turn again: clients replace what they have */
        a->turn = ++serial;
        str_copy(a->turn_id, sizeof(a->turn_id), c->turn_id);
        str_copy(a->session_id, sizeof(a->session_id), c->session_id);
        buf_clear(&a->text);
        a->text.toobig = false;
        a->whole = c->seq_from == 0;
        a->next = c->seq_from;
    }
    if (c->seq_from != a->next || buf_add(&a->text, c->text, c->len))
        a->whole = false;
    a->next = c->seq + 1;
    a->final = c->final;
    a->discarded = c->discarded;
    a->frame_seq = c->frame_seq;
    a->ts_ms = c->ts_ms;
    c->turn = a->turn;
    return true;
}

bool turn_whole(const struct agent *a, struct chunk *c)
{
    if (!a->turn || !a->whole || a->discarded || !a->next)
        return false;
    *c = (struct chunk){ .pid = a->pid,
                         .turn = a->turn,
                         .session_id = a->session_id,
                         .turn_id = a->turn_id,
                         .atp_session = a->atp_session,
                         .text = a->text.data ? a->text.data : "",
                         .len = a->text.len,
                         .seq = a->next - 1,
                         .seq_from = 0,
                         .from = true,
                         .final = a->final,
                         .frame_seq = a->frame_seq,
                         .ts_ms = a->ts_ms };
    return true;
}
