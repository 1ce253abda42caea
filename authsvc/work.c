/* Two lists under one lock; finished jobs come back through an eventfd that the loop watches. */
#include "authsvc/work.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "common/base/err.h"
#include "common/base/log.h"

#define THREADS_MAX 8

struct list {
    struct work *first, **last;
};

struct work_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[THREADS_MAX];
    unsigned n_threads, idle, n_waiting, max_waiting;
    bool stopping;
    struct list todo, finished;
    int event_fd;
    struct watch watch;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_add(struct list *l, struct work *w)
{
    w->next = NULL;
    *l->last = w;
    l->last = &w->next;
}

static struct work *list_take(struct list *l)
{
    struct work *w = l->first;

    if (w) {
        l->first = w->next;
        if (!l->first)
            l->last = &l->first;
    }
    return w;
}

static void *worker(void *arg)
{
    struct work_pool *p = arg;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct work *w = list_take(&p->todo);

        if (!w && p->stopping)
            break;
        if (!w) {
            p->idle++;
            pthread_cond_wait(&p->wake, &p->lock);
            p->idle--;
            continue;
        }
        p->n_waiting--;
        pthread_mutex_unlock(&p->lock);
        w->run(w);
        pthread_mutex_lock(&p->lock);
        list_add(&p->finished, w);
        uint64_t one = 1;
        ssize_t n = write(p->event_fd, &one, sizeof(one));
        (void)n;
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void collect(struct work_pool *p)
{
    pthread_mutex_lock(&p->lock);
    struct work *w = p->finished.first;
    list_init(&p->finished);
    pthread_mutex_unlock(&p->lock);
    while (w) {
        struct work *next = w->next;

        w->done(w);
        w = next;
    }
}

static void on_event(int fd, unsigned events, void *arg)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));

    (void)n;
    (void)events;
    collect(arg);
}

struct work_pool *work_pool_new(struct loop *l, unsigned threads, unsigned max_waiting)
{
    struct work_pool *p = xcalloc(1, sizeof(*p));
    sigset_t all, old;

    list_init(&p->todo);
    list_init(&p->finished);
    p->max_waiting = max_waiting;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd < 0)
        die(71, "eventfd: %s", strerror(errno));
    watch_init(&p->watch, l, p->event_fd, on_event, p);
    watch_set(&p->watch, LOOP_READ);
    /* signals are the loop's business */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (; p->n_threads < threads && p->n_threads < THREADS_MAX; p->n_threads++) {
        int r = pthread_create(&p->threads[p->n_threads], NULL, worker, p);

        if (r)
            die(71, "thread: %s", strerror(r));
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return p;
}

int work_submit(struct work_pool *p, struct work *w)
{
    int r = 0;

    pthread_mutex_lock(&p->lock);
    if (p->n_waiting >= p->max_waiting + p->idle) {
        r = ERR_BUSY;
    } else {
        list_add(&p->todo, w);
        p->n_waiting++;
        pthread_cond_signal(&p->wake);
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

unsigned work_waiting(struct work_pool *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->n_waiting;
    pthread_mutex_unlock(&p->lock);
    return n;
}

void work_pool_free(struct work_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    /* what a done() submits now runs here */
    for (struct work *w;;) {
        collect(p);
        if (!(w = list_take(&p->todo)))
            break;
        p->n_waiting--;
        w->run(w);
        w->done(w);
    }
    watch_done(&p->watch);
    close(p->event_fd);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
