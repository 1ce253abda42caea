/*
 * A bounded table of struct peer with a watch on each pidfd. When it is full the entry that was not
 * used for longest makes room.
 */
#include "common/ipc/peers.h"

struct known {
    struct peers *owner;
    struct known *next; /* hash chain */
    struct peer peer;
    struct watch watch;
    uint64_t used;
};
struct peers {
    struct loop *loop;
    struct known **slots;
    size_t n_slots, n, max;
    uint64_t tick;
    bool check; /* the loop cannot promise the order: ask the pidfd on every use */
};

struct peers *peers_new(struct loop *l, size_t max)
{
    struct peers *p = xcalloc(1, sizeof(*p));

    p->loop = l;
    p->max = max;
    p->n_slots = 64;
    while (p->n_slots < max)
        p->n_slots *= 2;
    p->slots = xcalloc(p->n_slots, sizeof(struct known *));
    p->check = !loop_keeps_urgent(l);
    return p;
}

static struct known **slot_of(struct peers *p, pid_t pid)
{
    struct known **k = &p->slots[(size_t)pid & (p->n_slots - 1)];

    while (*k && (*k)->peer.pid != pid)
        k = &(*k)->next;
    return k;
}

static void forget(struct known **at)
{
    struct known *k = *at;

    *at = k->next;
    k->owner->n--;
    watch_done(&k->watch);
    peer_done(&k->peer);
    free(k);
}

static void on_death(int fd, unsigned events, void *arg)
{
    struct known *k = arg;

    (void)fd;
    (void)events;
    forget(slot_of(k->owner, k->peer.pid));
}

static void make_room(struct peers *p)
{
    struct known **oldest = NULL;

    for (size_t i = 0; i < p->n_slots; i++)
        for (struct known **k = &p->slots[i]; *k; k = &(*k)->next)
            if (!oldest || (*k)->used < (*oldest)->used)
                oldest = k;
    if (oldest)
        forget(oldest);
}

const struct peer *peers_get(struct peers *p, int fd, const struct peer *cred)
{
    struct known **at = slot_of(p, cred->pid), *k = *at;
    struct peer fresh;

    if (k && (k->peer.uid != cred->uid || (p->check && !pidfd_alive(k->peer.pidfd)))) {
        forget(at);
        k = NULL;
    }
    if (!k) {
        if (peer_get(fd, &fresh))
            return NULL;
        if (fresh.pid != cred->pid || fresh.uid != cred->uid) {
            peer_done(&fresh);
            return NULL;
        }
        if (p->n >= p->max)
            make_room(p);
        k = xcalloc(1, sizeof(*k));
        k->owner = p;
        k->peer = fresh;
        at = &p->slots[(size_t)cred->pid & (p->n_slots - 1)];
        k->next = *at;
        *at = k;
        p->n++;
        watch_init(&k->watch, p->loop, fresh.pidfd, on_death, k);
        k->watch.urgent = true;
        watch_set(&k->watch, LOOP_READ);
    }
    k->used = ++p->tick;
    return &k->peer;
}

void peers_free(struct peers *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_slots; i++)
        while (p->slots[i])
            forget(&p->slots[i]);
    free(p->slots);
    free(p);
}
