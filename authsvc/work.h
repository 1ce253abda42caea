#pragma once
/*
 * Work that must not run on the event loop: password hashes and writes that wait for a disk. A pool
 * has a fixed number of threads and a bounded queue, first in first out; done runs on the loop.
 */
#include "common/ipc/loop.h"

struct work {
    void (*run)(struct work *w);  /* in a thread; touches nothing but its own job */
    void (*done)(struct work *w); /* on the loop; may free w */
    struct work *next;
};
struct work_pool;

/* max_waiting: jobs that wait for a thread, beyond those that run. */
struct work_pool *work_pool_new(struct loop *l, unsigned threads, unsigned max_waiting);
/* 0, or ERR_BUSY: the queue is full, w is still yours. */
int work_submit(struct work_pool *p, struct work *w);
unsigned work_waiting(struct work_pool *p);
/* Runs what is queued, stops the threads, calls every done. */
void work_pool_free(struct work_pool *p);
