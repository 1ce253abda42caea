#pragma once
/*
 * The event ring: a mapped file that outlives the process (atp page, section 6). Holds the newest
 * events as the exact bytes that clients got, hands out sequence numbers, and survives kill -9 at
 * every instruction: a record counts only once its checksum is right.
 */
#include "common/base/util.h"

#define RING_BYTES  (32U << 20)
#define RING_EVENTS 16384U
#define RING_AHEAD  4096U

struct ring;
struct ring_ev {
    uint64_t seq;
    int64_t pid;      /* Avix pid of the body, -1 if it has none */
    unsigned role;    /* enum role that may see it, at least */
    const char *kind; /* NUL-terminated, as the next two; borrowed from the map when read */
    const char *user; /* owner, "" for none */
    const char *id;   /* the publisher's id, "" for none */
    const char *text; /* the frame */
    size_t len;
};

/*
 * Opens or makes the file. boot: identity of this daemon boot; a file of another boot is emptied.
 * bytes, events: ceilings (a multiple of 4096; tests make them small). first_seq: where numbering
 * starts in a new boot. 0 or -errno.
 */
int ring_open(const char *path, uint64_t boot, uint64_t first_seq, size_t bytes, unsigned events,
              struct ring **ret);
void ring_close(struct ring *r);

/* The next number; never given twice, over crashes either. */
uint64_t ring_take_seq(struct ring *r);
/* Keeps an event whose seq came from ring_take_seq. 0, or ERR_TOOBIG. */
int ring_append(struct ring *r, const struct ring_ev *e);
/* Number of the event that a publisher gave this id, 0 if it is not in the ring. */
uint64_t ring_find_id(const struct ring *r, const char *id);

uint64_t ring_head(const struct ring *r);  /* highest number given out */
uint64_t ring_floor(const struct ring *r); /* highest number evicted */
unsigned ring_count(const struct ring *r);
size_t ring_used(const struct ring *r);
uint64_t ring_evicted(const struct ring *r);
/* The first kept event with a number above seq; false if there is none. */
bool ring_after(const struct ring *r, uint64_t seq, struct ring_ev *e);
