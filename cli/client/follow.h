#pragma once
/* Following one agent: its text to stdout, what it does to stderr, its end as the exit status
 * (clients page, section 6). */
#include "cli/client/atp.h"

struct follow_opts {
    bool until_exit; /* else a reached goal ends it */
    bool kill_on_interrupt;
};
/* Subscribes to all that follow needs; before the spawn, so that nothing is missed. */
int follow_subscribe(struct atp *a);
/* Follows pid to its end. With json: event frames, then {"result":{…}}. */
int follow_run(struct cli *c, struct atp *a, int64_t pid, const struct follow_opts *o);
