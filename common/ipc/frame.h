#pragma once
/*
 * Frames (ipc page, section 1): 4 bytes little-endian length, then one JSON object. This layer
 * knows sockets but no loop, so the same code serves blocking callers, event loops and fuzzers.
 */
#include <sys/types.h>

#include "common/base/buf.h"

#define FRAME_HDR 4
#define FRAME_MIN 2
#define FRAME_MAX 16777216

static inline void frame_put_len(char hdr[FRAME_HDR], uint32_t n)
{
    for (int i = 0; i < FRAME_HDR; i++)
        hdr[i] = (char)(n >> (8 * i));
}
static inline uint32_t frame_get_len(const char hdr[FRAME_HDR])
{
    const unsigned char *p = (const unsigned char *)hdr;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Incoming side of one connection. The buffer grows in 64 KiB steps as bytes arrive. */
struct frame_in {
    struct buf b;
    size_t max;      /* largest N accepted */
    size_t consumed; /* bytes of b that belong to a frame already handed out */
};
void frame_in_init(struct frame_in *in, size_t max);
void frame_in_done(struct frame_in *in);

enum frame_result {
    FRAME_MORE = 0, /* nothing whole yet, the socket has no more (EAGAIN) */
    FRAME_READY,    /* *body, *len: borrowed until the next call */
    FRAME_EOF,      /* orderly end between frames */
    FRAME_CUT,      /* end of file inside a frame */
    FRAME_TOOBIG,   /* N over max (*len = N); the body was not read */
    FRAME_BAD,      /* N < 2, or ancillary data that does not belong here */
    FRAME_ERROR,    /* errno says what */
};
/* A whole frame that is already buffered, without touching the socket. */
enum frame_result frame_in_next(struct frame_in *in, const char **body, size_t *len);
/* The same, reading from fd if needed; at most one read per call. MSG_DONTWAIT is not added: fd
 * decides. */
enum frame_result frame_in_read(struct frame_in *in, int fd, const char **body, size_t *len);
/* As frame_in_read, taking up to max_fds descriptors (close-on-exec) that arrive with the bytes;
 * *n_fds is raised by their number. Surplus descriptors are closed and the frame is FRAME_BAD. */
enum frame_result frame_in_recv(struct frame_in *in, int fd, const char **body, size_t *len,
                                int *fds, size_t max_fds, size_t *n_fds);
/* As frame_in_read on a socket with SO_PASSCRED: also who wrote these bytes. cred->pid is 0 if
 * nothing was read or the kernel did not say. */
struct frame_cred {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
enum frame_result frame_in_recv_cred(struct frame_in *in, int fd, const char **body, size_t *len,
                                     struct frame_cred *cred);

/* Outgoing side: bytes waiting for a socket that was not ready. */
struct frame_out {
    struct buf b;
    size_t sent;
};
void frame_out_init(struct frame_out *o, size_t max);
void frame_out_done(struct frame_out *o);
/* Writes header and body in one sendmsg (MSG_NOSIGNAL); what does not fit stays queued. 0 all
 * written, 1 some is waiting, ERR_TOOBIG over the ceiling (nothing queued), -errno. */
int frame_out_send(struct frame_out *o, int fd, const char *body, size_t len);
/* Continues: 0 empty, 1 still waiting, -errno. */
int frame_out_flush(struct frame_out *o, int fd);
/* One blocking frame with optional descriptors; fd must be blocking. 0 or -errno. */
int frame_write_fds(int fd, const char *body, size_t len, const int *fds, size_t n_fds);
