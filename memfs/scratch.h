#pragma once
/* Scratch folders go an hour after their agent has ended, or a day after they were made. */
#include "common/ipc/loop.h"

#define SCRATCH_ENDED_MS (60LL * 60 * 1000)
#define SCRATCH_MAX_MS   (24LL * 60 * 60 * 1000)

/* Arms the sweep if there is any scratch folder; call after one was made, too. */
void scratch_watch(struct loop *l);
void scratch_done(void);

/* One folder at this time: made at, its agent known to have ended at (0: it has not). */
bool scratch_is_over(int64_t now, int64_t made, int64_t ended);
