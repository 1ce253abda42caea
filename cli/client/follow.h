#pragma once
/* Following one agent: its text to stdout, what it does to stderr, its end as the exit status
 * (clients page, section 6). */
#include "cli/client/atp.h"

struct follow_opts {
    bool until_exit; /* else a reached goal ends it */
    bool kill_on_interrupt;
};
struct follow;
/* The rendering alone, for events from elsewhere. a may be NULL. Owned by the caller. */
struct follow *follow_new(struct cli *c, struct atp *a, int64_t pid, const struct follow_opts *o);
void follow_free(struct follow *f);
/* One event frame (event, body), borrowed; events of other agents are ignored. */
void follow_event(struct follow *f, json_object *frame);
/* True once the agent reached what was waited for; *exit is then the exit status. */
bool follow_ended(const struct follow *f, int *exit);
/* Subscribes to all that follow needs; before the spawn, so that nothing is missed. */
int follow_subscribe(struct atp *a);
/* Follows pid to its end. With json: event frames, then {"result":{…}}. */
int follow_run(struct cli *c, struct atp *a, int64_t pid, const struct follow_opts *o);
