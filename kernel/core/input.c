/*
 * Goals and messages that were accepted and are not in the agent's conversation yet. Each is a row
 * until a report of the agent names it as taken: a queued frame dies with the host process, a row
 * does not. It goes out once in the life of a host process, and again in the next one; the agent
 * knows by its id what it has read already, so a repetition changes nothing.
 */
#include "common/base/rnd.h"
#include "kernel/core/life.h"

#define INPUTS_MAX 256

struct input {
    struct input *next;
    char id[UUID_LEN];
    bool goal;
    char *from;
    json_object *payload;
    unsigned sent; /* the life it was sent in, 0: not yet */
};

static void input_free(struct input *in)
{
    json_put(in->payload);
    free(in->from);
    free(in);
}

static void append(struct proc *p, const char *id, bool goal, const char *from, json_object *body)
{
    struct input *in = xcalloc(1, sizeof *in), **at = &p->inputs;
    str_copy(in->id, sizeof in->id, id);
    in->goal = goal;
    in->from = xstrdup(from);
    in->payload = body;
    while (*at)
        at = &(*at)->next;
    *at = in;
    p->n_inputs++;
}

static void drop(struct proc *p, const char *id)
{
    for (struct input **at = &p->inputs; *at; at = &(*at)->next)
        if (str_eq((*at)->id, id)) {
            struct input *in = *at;
            *at = in->next;
            p->n_inputs--;
            input_free(in);
            return;
        }
}

int input_add(struct proc *p, bool goal, const char *from, json_object *payload)
{
    char id[UUID_LEN];
    uuid4(id);
    json_add_str(payload, goal ? "goalId" : "messageId", id);
    int r = p->n_inputs >= INPUTS_MAX ? ERR_LIMIT
                                      : db_run(goal ? DB_FULL : DB_NORMAL,
                                               "INSERT INTO inputs(pid, id, goal, sender, body) "
                                               "VALUES(?,?,?,?,?)",
                                               "isisj", p->pid, id, (int64_t)goal, from, payload);
    if (r) {
        json_put(payload);
        return r;
    }
    append(p, id, goal, from, payload);
    return 0;
}

void input_load(struct proc *p)
{
    sqlite3_stmt *q =
        db_query(DB_NORMAL, "SELECT id, goal, sender, body FROM inputs WHERE pid=? ORDER BY seq",
                 "i", p->pid);
    while (db_row(q)) {
        json_object *body = db_json(q, 3);
        append(p, db_text(q, 0), db_int(q, 1), db_text(q, 2), body ? body : json_new());
    }
    db_end(q);
}

void input_drop_all(struct proc *p)
{
    while (p->inputs)
        drop(p, p->inputs->id);
}

void input_send(struct proc *p)
{
    if (p->phase != PH_LIVE)
        return;
    for (struct input *in = p->inputs; in; in = in->next) {
        if (in->sent == p->life)
            continue;
        if (sig_send(p, in->goal ? "SIGSTART" : "SIGPIPE", json_dup(in->payload), in->from))
            return; /* the queue is full: with the next report */
        in->sent = p->life;
    }
}

void input_again(struct proc *p)
{
    for (struct input *in = p->inputs; in; in = in->next)
        in->sent = 0;
    input_send(p);
}

json_object *input_start(struct proc *p, bool sent)
{
    struct input *in = p->resume ? NULL : p->inputs;
    while (in && !in->goal)
        in = in->next;
    if (!in)
        return json_make("goalId:s goal:s", p->goal_id, p->goal);
    if (sent)
        in->sent = p->life;
    return json_dup(in->payload);
}

int input_taken(struct proc *p, json_object *ids)
{
    size_t n = ids ? json_object_array_length(ids) : 0;
    const char *goal = NULL;
    if (n == 0 || !p->inputs)
        return 0;
    db_begin(DB_NORMAL);
    for (size_t i = 0; i < n; i++) {
        const char *id = json_object_get_string(json_object_array_get_idx(ids, i));
        (void)db_run(DB_NORMAL, "DELETE FROM inputs WHERE pid=? AND id=?", "is", p->pid, id);
        for (struct input *in = p->inputs; in; in = in->next)
            if (in->goal && str_eq(in->id, id))
                goal = id;
    }
    if (goal)
        (void)db_run(DB_NORMAL, "UPDATE processes SET goal_id=? WHERE pid=?", "si", goal, p->pid);
    int r = db_commit(DB_NORMAL);
    if (r)
        return r;
    if (goal) {
        free(p->goal_id);
        p->goal_id = xstrdup(goal);
    }
    for (size_t i = 0; i < n; i++)
        drop(p, json_object_get_string(json_object_array_get_idx(ids, i)));
    waiters_check(p);
    return 0;
}
