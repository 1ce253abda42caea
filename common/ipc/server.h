#pragma once
/*
 * The serving side: one request per connection, its notifications, its response, close. Wakes,
 * accepts one connection, reads at once, hands a struct call to the handler. The handler answers
 * now or later, exactly once; answering frees the call.
 */
#include "common/ipc/loop.h"
#include "common/ipc/peer.h"
#include "common/ipc/rpc.h"

#define CALL_FDS_MAX 8

struct call {
    const char *method;    /* borrowed */
    json_object *params;   /* borrowed, an object */
    bool note;             /* a notification: answer with call_end, nothing is sent */
    struct peer peer;      /* its pidfd is borrowed, for the length of the handler's call */
    int fds[CALL_FDS_MAX]; /* descriptors that came with it; -1 taken. Closed with the call unless
                              taken */
    size_t n_fds;
    void *user; /* for the owner of the call */
};

struct server_opts {
    size_t max_frame;   /* 0: FRAME_MAX */
    unsigned max_conns; /* 0: 4096; beyond: EBUSY */
    bool accept_fds;    /* up to CALL_FDS_MAX descriptors; else a frame with any is refused */
    bool many_notes; /* notifications may follow each other on one connection (gateway, kernel) */
    bool peer_start; /* fill peer.start and peer.pidfd (costs a few system calls); else pid and uid
                        only */
    /* May refuse a peer before a byte is read: false closes the connection. NULL: own uid and root
     * pass. */
    bool (*admit)(const struct peer *p, void *arg);
};

struct server;
typedef void (*call_fn)(struct call *c, void *arg);
/* listen_fd stays the caller's; it must be non-blocking. Never calls listen(). */
struct server *server_new(struct loop *l, int listen_fd, const struct server_opts *o, call_fn fn,
                          void *arg);
void server_pause(struct server *s,
                  bool paused); /* stop accepting; what arrives waits in the backlog */
unsigned server_n_calls(const struct server *s); /* open calls */
void server_free(struct server *s);              /* closes every connection */

/* Answers; c is gone afterwards. result and data are taken. On a notification they only end it. */
void call_reply(struct call *c, json_object *result);
void call_reply_text(struct call *c, const char *result_json,
                     size_t len); /* the result as JSON text */
void call_fail(struct call *c, int err, const char *fmt, ...) printf_like(3, 4);
void call_fail_data(struct call *c, int err, json_object *data, const char *fmt, ...)
    printf_like(4, 5);
/* ERR_INVAL that names the field: for handlers that read with struct args. */
struct args;
void call_bad_args(struct call *c, const struct args *a);
/* Forwards an error as it came from elsewhere (borrowed). */
void call_fail_rpc(struct call *c, const struct rpc_error *e);
void call_end(struct call *c); /* closes without an answer */
/* Reply with descriptors (auth/secret/export only). */
void call_reply_fds(struct call *c, json_object *result, const int *fds, size_t n_fds);

/* A notification of a streaming call; params taken. 0, or 1 when the caller reads too slowly: stop
 * producing until on_drain. */
int call_note(struct call *c, const char *method, json_object *params);
int call_note_text(struct call *c, const char *frame_json,
                   size_t len); /* a whole notification as text */
void call_on_drain(struct call *c, loop_fn fn, void *arg);
/* fn(arg) once when the caller hangs up; c is still valid and must be ended by the owner
 * (call_end), within 2 s. */
void call_on_gone(struct call *c, loop_fn fn, void *arg);
bool call_is_gone(const struct call *c);
const char *call_id(const struct call *c); /* request id text; a stream's id */
