/*
 * Frames over a socket. Reading takes whatever the socket has, up to what the header promised, in
 * steps of 64 KiB: a false header costs nothing. Descriptors that nobody asked for never get in:
 * recvmsg without room for them makes the kernel drop them, and the frame is refused.
 */
#include "common/ipc/frame.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/base/err.h"

#define FIRST_READ 4096
#define STEP       65536
#define FDS_MAX    16

void frame_in_init(struct frame_in *in, size_t max)
{
    in->max = max > FRAME_MAX ? FRAME_MAX : max;
    in->consumed = 0;
    buf_init(&in->b, in->max + FRAME_HDR + STEP);
}

void frame_in_done(struct frame_in *in)
{
    buf_done(&in->b);
    in->consumed = 0;
}

static void drop_consumed(struct frame_in *in)
{
    if (!in->consumed)
        return;
    if (in->consumed == in->b.len)
        buf_clear(&in->b);
    else
        buf_shift(&in->b, in->consumed);
    in->consumed = 0;
}

enum frame_result frame_in_next(struct frame_in *in, const char **body, size_t *len)
{
    uint32_t n;

    drop_consumed(in);
    if (in->b.len < FRAME_HDR)
        return FRAME_MORE;
    n = frame_get_len(in->b.data);
    if (n < FRAME_MIN)
        return FRAME_BAD;
    if (n > in->max) {
        *len = n;
        return FRAME_TOOBIG;
    }
    if (in->b.len - FRAME_HDR < n)
        return FRAME_MORE;
    *body = in->b.data + FRAME_HDR;
    *len = n;
    in->consumed = FRAME_HDR + n;
    return FRAME_READY;
}

/* Makes room for the next read: enough for the frame under way, in steps. */
static int make_room(struct frame_in *in)
{
    size_t want = FIRST_READ;

    if (in->b.len >= FRAME_HDR) {
        size_t missing = FRAME_HDR + (size_t)frame_get_len(in->b.data) - in->b.len;

        want = missing < FIRST_READ ? FIRST_READ : missing;
        if (want > STEP)
            want = STEP;
    }
    return buf_reserve(&in->b, want);
}

/* What came beside the bytes. */
struct beside {
    int *fds;
    size_t max_fds, *n_fds;
    struct frame_cred *cred; /* NULL: not asked for */
};

/* False if descriptors came that nobody asked for. */
static bool take_beside(struct msghdr *m, const struct beside *b)
{
    bool fits = !(m->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = m->msg_controllen ? CMSG_FIRSTHDR(m) : NULL; c;
         c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS && b->cred) {
            struct ucred u;

            memcpy(&u, CMSG_DATA(c), sizeof(u));
            *b->cred = (struct frame_cred){ u.pid, u.uid, u.gid };
        }
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (*b->n_fds < b->max_fds) {
                b->fds[(*b->n_fds)++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

static enum frame_result recv_some(struct frame_in *in, int fd, const char **body, size_t *len,
                                   const struct beside *b)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } ctl;
    enum frame_result r = frame_in_next(in, body, len);
    struct iovec iov;
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (r != FRAME_MORE)
        return r;
    if (make_room(in)) {
        errno = ENOMEM;
        return FRAME_ERROR;
    }
    iov.iov_base = in->b.data + in->b.len;
    iov.iov_len = in->b.cap - in->b.len - 1;
    if (b->max_fds || b->cred) {
        m.msg_control = &ctl;
        m.msg_controllen = sizeof(ctl);
    }
    do
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? FRAME_MORE : FRAME_ERROR;
    if (!take_beside(&m, b))
        return FRAME_BAD;
    if (!n)
        return in->b.len ? FRAME_CUT : FRAME_EOF;
    in->b.len += (size_t)n;
    in->b.data[in->b.len] = '\0';
    return frame_in_next(in, body, len);
}

enum frame_result frame_in_recv(struct frame_in *in, int fd, const char **body, size_t *len,
                                int *fds, size_t max_fds, size_t *n_fds)
{
    return recv_some(in, fd, body, len, &(struct beside){ fds, max_fds, n_fds, NULL });
}

enum frame_result frame_in_recv_cred(struct frame_in *in, int fd, const char **body, size_t *len,
                                     struct frame_cred *cred)
{
    size_t none = 0;

    cred->pid = 0;
    return recv_some(in, fd, body, len, &(struct beside){ NULL, 0, &none, cred });
}

enum frame_result frame_in_read(struct frame_in *in, int fd, const char **body, size_t *len)
{
    size_t none = 0;

    return frame_in_recv(in, fd, body, len, NULL, 0, &none);
}

void frame_out_init(struct frame_out *o, size_t max)
{
    o->sent = 0;
    buf_init(&o->b, max);
}

void frame_out_done(struct frame_out *o)
{
    buf_done(&o->b);
    o->sent = 0;
}

static ssize_t send_iov(int fd, struct iovec *iov, size_t n)
{
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
    ssize_t r;

    do
        r = sendmsg(fd, &m, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == EAGAIN ? 0 : -errno;
    return r;
}

static int queue_rest(struct frame_out *o, const char *hdr, const char *body, size_t len,
                      size_t done)
{
    if (done < FRAME_HDR) {
        if (buf_add(&o->b, hdr + done, FRAME_HDR - done))
            return ERR_TOOBIG;
        done = FRAME_HDR;
    }
    return buf_add(&o->b, body + (done - FRAME_HDR), FRAME_HDR + len - done) ? ERR_TOOBIG : 1;
}

int frame_out_send(struct frame_out *o, int fd, const char *body, size_t len)
{
    char hdr[FRAME_HDR];
    struct iovec iov[2] = { { .iov_base = hdr, .iov_len = FRAME_HDR },
                            { .iov_base = (void *)(uintptr_t)body, .iov_len = len } };
    size_t waiting = o->b.len - o->sent;
    ssize_t n = 0;

    if (waiting + FRAME_HDR + len > o->b.max)
        return ERR_TOOBIG;
    frame_put_len(hdr, (uint32_t)len);
    if (!waiting) {
        n = send_iov(fd, iov, 2);
        if (n < 0)
            return (int)n;
        if ((size_t)n == FRAME_HDR + len)
            return 0;
        buf_clear(&o->b);
    } else if (o->sent) {
        buf_shift(&o->b, o->sent);
    }
    o->sent = 0;
    return queue_rest(o, hdr, body, len, (size_t)n);
}

int frame_out_flush(struct frame_out *o, int fd)
{
    while (o->sent < o->b.len) {
        struct iovec iov = { .iov_base = o->b.data + o->sent, .iov_len = o->b.len - o->sent };
        ssize_t n = send_iov(fd, &iov, 1);

        if (n < 0)
            return (int)n;
        if (!n)
            return 1;
        o->sent += (size_t)n;
    }
    buf_clear(&o->b);
    o->sent = 0;
    return 0;
}

int frame_write_fds(int fd, const char *body, size_t len, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } ctl;
    char hdr[FRAME_HDR];
    struct iovec iov[2] = { { .iov_base = hdr, .iov_len = FRAME_HDR },
                            { .iov_base = (void *)(uintptr_t)body, .iov_len = len } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
    size_t left = FRAME_HDR + len;

    if (n_fds > FDS_MAX)
        return -EINVAL;
    frame_put_len(hdr, (uint32_t)len);
    if (n_fds) {
        memset(&ctl, 0, sizeof(ctl));
        m.msg_control = &ctl;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);

        if (!c)
            return -EINVAL;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    while (left) {
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        left -= (size_t)n;
        m.msg_control = NULL;
        m.msg_controllen = 0;
        for (size_t i = 0; i < 2 && n; i++) {
            size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

            iov[i].iov_base = (char *)iov[i].iov_base + k;
            iov[i].iov_len -= k;
            n -= (ssize_t)k;
        }
    }
    return 0;
}
