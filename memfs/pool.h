#pragma once
/*
 * Worker threads for what may wait for a disk. A job runs in a worker, then its done function in
 * the loop. Long jobs (walks over trees) have a lane of their own, so a copy of a large tree never
 * holds up a small write.
 */
#include "common/ipc/loop.h"

struct job {
    void (*work)(struct job *j); /* in a worker */
    void (*done)(struct job *j); /* in the loop; the job is the owner's again */
    bool bulk;
    struct job *next; /* the pool's */
};

int pool_init(struct loop *l, unsigned n_threads);
void pool_add(struct job *j);
/* Waits for the jobs in hand and runs their done functions; then no more may be added. */
void pool_done(void);
/* Jobs not yet done. */
unsigned pool_n_jobs(void);
