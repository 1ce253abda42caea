/*
 * Two levels of virtual time: each user and each agent has a clock that advances by what was
 * granted to it, divided by its weight; the smallest clock goes first, ties by arrival. Clocks of
 * newcomers start at the current minimum, so nobody saves up.
 */
#include "llmsvc/queue.h"

#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/map.h"

#define WAIT_PER_USER 100
#define UNIT          1000.0
#define CLOCKS_MAX    8192

struct clock_of {
    double v;
    int weight, waiting;
};

struct ticket {
    struct queue *q;
    struct queue_limits lim;
    char user[80], agent[112];
    bool guest, granted;
    int64_t tokens;
    admit_fn fn;
    void *arg;
    TAILQ_ENTRY(ticket) link;
};
TAILQ_HEAD(ticket_list, ticket);

struct queue {
    struct loop *loop;
    struct timer timer;
    struct ticket_list waiting;
    size_t n_waiting;
    struct map users, agents; /* name to struct clock_of */
    double now_user;          /* clock of the last one served */
    int64_t in_flight;
    double req_tokens, tok_tokens; /* what the buckets hold */
    bool filled;
    int64_t filled_at, blocked_until;
};

static void pump(struct queue *q);

static void on_timer(void *arg)
{
    pump(arg);
}

struct queue *queue_new(struct loop *l)
{
    struct queue *q = xcalloc(1, sizeof *q);

    q->loop = l;
    TAILQ_INIT(&q->waiting);
    map_init(&q->users);
    map_init(&q->agents);
    timer_init(&q->timer, l, on_timer, q);
    return q;
}

static void clocks_free(struct map *m)
{
    const char *k = NULL;
    void *v = NULL;

    for (size_t i = 0; map_each(m, &i, &k, &v);)
        free(v);
    map_done(m);
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    timer_done(&q->timer);
    clocks_free(&q->users);
    clocks_free(&q->agents);
    free(q);
}

static struct clock_of *clock_for(struct map *m, const char *name, double start)
{
    struct clock_of *c = map_get(m, name);

    if (!c) {
        c = xcalloc(1, sizeof *c);
        c->weight = 1;
        c->v = start;
        map_put(m, name, c);
    }
    return c;
}

static void refill(struct queue *q, const struct queue_limits *lim)
{
    int64_t now = mono_ms();
    double sec = q->filled ? (double)(now - q->filled_at) / 60000.0 : 1.0;

    q->filled = true;
    q->filled_at = now;
    q->req_tokens += sec * (double)lim->rpm;
    q->tok_tokens += sec * (double)lim->tpm;
    if (q->req_tokens > (double)lim->rpm)
        q->req_tokens = (double)lim->rpm;
    if (q->tok_tokens > (double)lim->tpm)
        q->tok_tokens = (double)lim->tpm;
}

int64_t queue_wait_ms(struct queue *q, const struct queue_limits *lim, int64_t tokens)
{
    int64_t now = mono_ms(), wait = q->blocked_until > now ? q->blocked_until - now : 0;
    double want = lim->tpm && tokens > lim->tpm ? (double)lim->tpm : (double)tokens;

    refill(q, lim);
    if (lim->rpm && q->req_tokens < 1) {
        int64_t ms = (int64_t)((1 - q->req_tokens) * 60000.0 / (double)lim->rpm) + 1;
        wait = ms > wait ? ms : wait;
    }
    if (lim->tpm && q->tok_tokens < want) {
        int64_t ms = (int64_t)((want - q->tok_tokens) * 60000.0 / (double)lim->tpm) + 1;
        wait = ms > wait ? ms : wait;
    }
    return wait;
}

/* True if it may go now; else arms the timer, unless a finished call will wake the queue. */
static bool may_go(struct queue *q, const struct ticket *t)
{
    if (t->lim.max_concurrent && q->in_flight >= t->lim.max_concurrent)
        return false;
    int64_t wait = queue_wait_ms(q, &t->lim, t->tokens);
    if (wait) {
        timer_set(&q->timer, wait);
        return false;
    }
    return true;
}

static void grant(struct ticket *t)
{
    struct queue *q = t->q;
    struct clock_of *u = clock_for(&q->users, t->user, q->now_user);
    struct clock_of *a = clock_for(&q->agents, t->agent, u->v);

    t->granted = true;
    q->in_flight++;
    if (t->lim.rpm)
        q->req_tokens -= 1;
    if (t->lim.tpm)
        q->tok_tokens -= (double)t->tokens;
    if (u->v < q->now_user)
        u->v = q->now_user;
    q->now_user = u->v;
    u->v += UNIT / u->weight;
    a->v += UNIT;
}

/* Who is next: no guest before a member, then the smallest clocks, then who came first. */
static struct ticket *next(struct queue *q)
{
    struct ticket *t = NULL, *best = NULL;
    double best_u = 0, best_a = 0;

    TAILQ_FOREACH (t, &q->waiting, link) {
        double u = clock_for(&q->users, t->user, q->now_user)->v,
               a = clock_for(&q->agents, t->agent, 0)->v;

        if (u < q->now_user)
            u = q->now_user;
        if (!best || (best->guest && !t->guest) ||
            (best->guest == t->guest &&
             (u < best_u || (u <= best_u && str_eq(t->user, best->user) && a < best_a)))) {
            best = t;
            best_u = u;
            best_a = a;
        }
    }
    return best;
}

static void unwait(struct ticket *t)
{
    struct clock_of *u = clock_for(&t->q->users, t->user, t->q->now_user);

    TAILQ_REMOVE(&t->q->waiting, t, link);
    t->q->n_waiting--;
    u->waiting--;
}

static void pump(struct queue *q)
{
    struct ticket *t = NULL;

    while ((t = next(q)) && may_go(q, t)) {
        unwait(t);
        grant(t);
        t->fn(t->arg);
    }
}

struct ticket *queue_enter(struct queue *q, const struct queue_limits *lim,
                           const struct queue_ask *a, admit_fn fn, void *arg, bool *now, int *err)
{
    struct clock_of *u = NULL;

    if (!q->n_waiting &&
        q->users.n + q->agents.n > CLOCKS_MAX) { /* nobody waits: nothing to be fair about */
        clocks_free(&q->users);
        clocks_free(&q->agents);
        map_init(&q->users);
        map_init(&q->agents);
    }
    u = clock_for(&q->users, a->user, q->now_user);
    *now = false;
    *err = 0;
    if (u->waiting >= WAIT_PER_USER) {
        *err = ERR_BUSY;
        return NULL;
    }
    struct ticket *t = xcalloc(1, sizeof *t);
    t->q = q;
    t->lim = *lim;
    t->guest = a->guest;
    t->tokens = a->tokens;
    t->fn = fn;
    t->arg = arg;
    str_copy(t->user, sizeof t->user, a->user);
    snprintf(t->agent, sizeof t->agent, "%s\t%lld", a->user, (long long)a->agent);
    if (!q->n_waiting && may_go(q, t)) {
        grant(t);
        *now = true;
        return t;
    }
    TAILQ_INSERT_TAIL(&q->waiting, t, link);
    q->n_waiting++;
    u->waiting++;
    return t;
}

void queue_leave(struct ticket *t, int64_t used)
{
    struct queue *q = t->q;

    if (!t->granted) {
        unwait(t);
    } else {
        q->in_flight--;
        if (t->lim.tpm && used >= 0)
            q->tok_tokens += (double)(t->tokens - used);
    }
    free(t);
    if (q->n_waiting)
        timer_set(&q->timer, 0);
}

void queue_weight(struct ticket *t, int weight)
{
    clock_for(&t->q->users, t->user, t->q->now_user)->weight = weight > 0 ? weight : 1;
}

void queue_block(struct queue *q, int64_t ms)
{
    int64_t until = mono_ms() + ms;

    q->req_tokens = 0;
    if (until > q->blocked_until)
        q->blocked_until = until;
}

size_t queue_waiting(const struct queue *q)
{
    return q ? q->n_waiting : 0;
}

int64_t queue_in_flight(const struct queue *q)
{
    return q ? q->in_flight : 0;
}
