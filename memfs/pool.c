/*
 * Two queues under one mutex: short and bulk. Every worker takes short jobs first; at most half of
 * them may be busy with bulk ones. What is finished goes to a list that the loop empties when the
 * eventfd wakes it.
 */
#include "memfs/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_MAX 16

struct fifo {
    struct job *head, **tail;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct fifo lanes[2], finished; /* lanes: short, bulk */
    pthread_t threads[THREADS_MAX];
    unsigned n_threads, n_bulk, n_jobs; /* n_jobs: added and not yet done, loop side only */
    bool stop;
    int event;
    struct watch watch;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .event = -1 };

static void push(struct fifo *q, struct job *j)
{
    j->next = NULL;
    *q->tail = j;
    q->tail = &j->next;
}

static struct job *pop(struct fifo *q)
{
    struct job *j = q->head;

    if (j && !(q->head = j->next))
        q->tail = &q->head;
    return j;
}

/* With the lock held; waits. NULL: the end. */
static struct job *take(void)
{
    for (;;) {
        struct job *j = pop(&pool.lanes[0]);

        if (!j && pool.n_bulk < (pool.n_threads + 1) / 2 && (j = pop(&pool.lanes[1])))
            pool.n_bulk++;
        if (j || pool.stop)
            return j;
        pthread_cond_wait(&pool.more, &pool.lock);
    }
}

static void *worker(void *arg)
{
    struct job *j;

    (void)arg;
    pthread_mutex_lock(&pool.lock);
    while ((j = take())) {
        pthread_mutex_unlock(&pool.lock);
        j->work(j);
        pthread_mutex_lock(&pool.lock);
        if (j->bulk) {
            pool.n_bulk--;
            pthread_cond_signal(&pool.more);
        }
        if (!pool.finished.head)
            (void)!eventfd_write(pool.event, 1);
        push(&pool.finished, j);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static void collect(int fd, unsigned events, void *arg)
{
    eventfd_t n;
    struct job *j;

    (void)events;
    (void)arg;
    (void)!eventfd_read(fd, &n);
    pthread_mutex_lock(&pool.lock);
    while ((j = pop(&pool.finished))) {
        pthread_mutex_unlock(&pool.lock);
        pool.n_jobs--;
        j->done(j);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
}

int pool_init(struct loop *l, unsigned n_threads)
{
    sigset_t all, old;
    int r = 0;

    for (size_t i = 0; i < N_ELEMS(pool.lanes); i++)
        pool.lanes[i].tail = &pool.lanes[i].head;
    pool.finished.tail = &pool.finished.head;
    pool.stop = false;
    pool.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool.event < 0)
        return -errno;
    watch_init(&pool.watch, l, pool.event, collect, NULL);
    watch_set(&pool.watch, LOOP_READ);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (pool.n_threads = 0; !r && pool.n_threads < n_threads && pool.n_threads < THREADS_MAX;)
        if (!(r = -pthread_create(&pool.threads[pool.n_threads], NULL, worker, NULL)))
            pool.n_threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return pool.n_threads ? 0 : r;
}

void pool_add(struct job *j)
{
    pool.n_jobs++;
    pthread_mutex_lock(&pool.lock);
    push(&pool.lanes[j->bulk], j);
    pthread_cond_signal(&pool.more);
    pthread_mutex_unlock(&pool.lock);
}

unsigned pool_n_jobs(void)
{
    return pool.n_jobs;
}

void pool_done(void)
{
    if (pool.event < 0)
        return;
    pthread_mutex_lock(&pool.lock);
    pool.stop = true; /* workers leave when the queues are empty */
    pthread_cond_broadcast(&pool.more);
    pthread_mutex_unlock(&pool.lock);
    for (unsigned i = 0; i < pool.n_threads; i++)
        pthread_join(pool.threads[i], NULL);
    collect(pool.event, 0, NULL);
    watch_done(&pool.watch);
    closep(&pool.event);
    pool.event = -1;
}
