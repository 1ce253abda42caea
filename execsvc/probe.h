#pragma once
/* Whether a sandbox can be had at all: by running one the way executions run. */
#include "common/ipc/loop.h"

/* done(why, arg): why is NULL if it works, else what went wrong (borrowed). */
typedef void (*probe_fn)(const char *why, void *arg);
void probe_start(struct loop *l, probe_fn done, void *arg);
void probe_stop(void);
