#pragma once
/*
 * Agents as the gateway knows them: whose they are, and the text of the turn they are speaking.
 */
#include "common/svc/svc.h"
#include "gateway/outq.h"
#include "gateway/rate.h"

#define TURN_TEXT_MAX (256U * 1024)

struct agent {
    int64_t pid;
    char user[128], atp_session[64];
    bool known; /* user comes from the kernel */

    /* the open turn */
    uint64_t turn; /* serial number, 0: none yet */
    char turn_id[128], session_id[64];
    struct buf text; /* whole text so far */
    bool whole;      /* text holds all of it */
    bool final, discarded;
    uint64_t next;      /* seq that comes next */
    uint64_t frame_seq; /* number of the newest chunk's frame */
    int64_t ts_ms;

    /* publishing */
    struct bucket events, bytes;
    struct buf held; /* deltas held back by the rate */
    uint64_t held_from;
    bool holding;
};

struct agent *agent_find(int64_t pid);
struct agent *agent_get(int64_t pid); /* made if new */
void agent_gone(int64_t pid);
void agents_fini(void);
/* fn for each agent that has an open turn with text. */
void agents_each(void (*fn)(struct agent *a, void *arg), void *arg);

/* Takes a chunk in: fills in the turn's serial number. False if it repeats what is there. */
bool turn_add(struct agent *a, struct chunk *c);
/* The whole text so far as one chunk with seq_from 0; false if it is not there (any more). */
bool turn_whole(const struct agent *a, struct chunk *c);
