#pragma once
/*
 * What waits for one connection (atp page, section 7): replies, events, chunks, in order. Pure: no
 * socket. Frames are shared between connections by reference; a chunk that merged has a text of its
 * own, written when it is sent.
 */
#include <sys/queue.h>

#include "common/base/buf.h"

#define OUT_PRE        16 /* room before the frame for the WebSocket header */
#define OUT_EVENTS_MAX 1024U
#define OUT_BYTES_MAX  (4U << 20)
#define OUT_MERGE_FROM 64U

struct out_msg {
    unsigned refs;
    size_t len;
    unsigned char data[]; /* OUT_PRE bytes, then the frame */
};
/* A frame of its own memory with one reference. */
struct out_msg *out_msg_new(const char *text, size_t len);
struct out_msg *out_msg_ref(struct out_msg *m);
void out_msg_unref(struct out_msg *m);

/* One piece of a model turn's text. */
struct chunk {
    int64_t pid;
    uint64_t turn; /* serial number of the turn inside the gateway */
    const char *session_id, *turn_id, *atp_session;
    const char *text;
    size_t len;
    uint64_t seq, seq_from; /* of the turn; equal unless merged */
    bool from;              /* seq_from is shown, also when it equals seq */
    bool final, discarded;
    uint64_t frame_seq;
    int64_t ts_ms;
};
/* The frame of a chunk. */
struct out_msg *chunk_msg(const struct chunk *c);

enum out_type { OUT_REPLY, OUT_LOCAL, OUT_EVENT, OUT_CHUNK };
struct out_item;
TAILQ_HEAD(out_list, out_item);

struct outq {
    struct out_list items;
    unsigned n_events; /* events and chunks */
    size_t event_bytes, reply_bytes;
};
void outq_init(struct outq *q);
void outq_done(struct outq *q);
bool outq_empty(const struct outq *q);
bool outq_full(const struct outq *q, size_t more);
/* Below a quarter of both ceilings. */
bool outq_low(const struct outq *q);

/* Queues a reference of its own. seq 0 for replies and local events. */
void outq_push(struct outq *q, enum out_type type, struct out_msg *m, uint64_t seq);
/* Queues a chunk, or merges it into the waiting one of its turn. m: its frame, borrowed. */
void outq_push_chunk(struct outq *q, const struct chunk *c, struct out_msg *m);
/* Drops the waiting chunks; dropped(pid, turn, arg) for each. */
void outq_drop_chunks(struct outq *q, void (*dropped)(int64_t pid, uint64_t turn, void *arg),
                      void *arg);
/* Drops events and chunks, keeps replies. */
void outq_drop_events(struct outq *q);
/* Takes the next frame: a reference of the caller's, or NULL; *seq as pushed. */
struct out_msg *outq_pop(struct outq *q, enum out_type *type, uint64_t *seq);
