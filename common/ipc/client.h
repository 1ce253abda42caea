#pragma once
/*
 * The calling side: a fresh connection per call, blocking (ipc_call) or on a loop (ipc_start).
 * Hanging up is the only cancel.
 */
#include "common/ipc/loop.h"
#include "common/ipc/rpc.h"

#define IPC_TIMEOUT_MS 30000

struct ipc_req {
    const char *sock; /* socket path */
    const char *method;
    json_object
        *params; /* borrowed, NULL is {}; _token and _timeout_ms are added on the wire, not to it */
    const char *token; /* NULL: none */
    int timeout_ms;    /* 0: IPC_TIMEOUT_MS; -1: none */
    bool send_timeout; /* put _timeout_ms on the wire */
    bool repeatable;   /* readOnly or idempotent: repeated once on a broken connection */
    bool note; /* a notification: done when written and, for ipc_call, when the peer closed */
    bool await_close; /* a notification is done when the peer has closed: its acknowledgement */
    pid_t listener;   /* > 0: the listener must be this process (SO_PEERCRED), else ERR_UNAVAIL */
    const int *fds;   /* descriptors to send along (init.sock), borrowed */
    size_t n_fds;
    int reply_fd; /* ipc_call only, 1: expect one descriptor with the reply, put into ipc_reply.fd
                   */
};

struct ipc_reply {
    int err;             /* 0, enum err, or -errno turned into ERR_UNAVAIL / ERR_TIMEOUT */
    json_object *result; /* owned */
    struct rpc_error
        error; /* filled in when err != 0; data.forwarded tells whether the owner may have run */
    int fd;    /* -1, or the descriptor that came */
};
void ipc_reply_done(struct ipc_reply *r);

/* Blocking. Returns r->err. */
int ipc_call(const struct ipc_req *q, struct ipc_reply *r);

struct ipc_call;
/* Notification frame of a stream; params borrowed. */
typedef void (*ipc_note_fn)(const char *method, json_object *params, void *arg);
/* Exactly once, unless cancelled; r is borrowed (take members by setting them NULL / -1). */
typedef void (*ipc_done_fn)(struct ipc_reply *r, void *arg);
/* Starts a call; q and what it points to may go after the return. Never NULL; done never runs
 * inside it. */
struct ipc_call *ipc_start(struct loop *l, const struct ipc_req *q, ipc_note_fn note,
                           ipc_done_fn done, void *arg);
/* Hangs up; done will not be called. */
void ipc_cancel(struct ipc_call *c);
/* Stops (true) and resumes reading the stream: back-pressure to the owner. */
void ipc_pause(struct ipc_call *c, bool paused);

/* A connection that carries several notifications in a row (event.publish of a turn, jobs.emit). */
struct ipc_feed;
struct ipc_feed *ipc_feed_open(struct loop *l, const char *sock, size_t max_queued);
/* 0, or ERR_BUSY when queued bytes would pass the ceiling, or ERR_UNAVAIL: dropped. */
int ipc_feed_send(struct ipc_feed *f, const char *method, json_object *params);
/* Half-closes after what is queued and waits for the peer to close, timeout_ms at most; then
 * done(arg), frees f. */
void ipc_feed_close(struct ipc_feed *f, int timeout_ms, loop_fn done, void *arg);
void ipc_feed_abort(struct ipc_feed *f);
/* fn(arg) once if the connection broke with frames that the peer may not have read: before it was
 * closed from here, or with unread bytes at the other end. f stays valid; fn must not free it. */
void ipc_feed_on_break(struct ipc_feed *f, loop_fn fn, void *arg);

/* Connects to a Unix socket: a blocking or non-blocking close-on-exec descriptor, or -errno. */
int ipc_connect(const char *path, bool nonblock);
