/* The client of every target, and the floors: programs that move the same bytes over the same kind
 * of connections and do nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/ipc/client.h"
#include "common/ipc/frame.h"
#include "tests/bench/bench.h"

#define BUF 65536

int listen_unix(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (!str_copy(a.sun_path, sizeof(a.sun_path), path))
        abort();
    unlink(path);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 512)) {
        perror(path);
        exit(1);
    }
    return fd;
}

/* One frame into buf: its length with the header, 0 at the end. */
static size_t read_frame(int fd, char *buf)
{
    size_t n = 0;

    for (;;) {
        ssize_t r = read(fd, buf + n, BUF - n);

        if (r <= 0)
            return 0;
        n += (size_t)r;
        if (n >= FRAME_HDR && n >= FRAME_HDR + frame_get_len(buf))
            return n;
    }
}

static void put(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t r = send(fd, data, len, MSG_NOSIGNAL);

        if (r <= 0)
            return;
        data += r;
        len -= (size_t)r;
    }
}

static __thread char buf[BUF + 1];

void wire_call(void *arg)
{
    const struct wire_call *w = arg;
    int fd;

    do
        fd = ipc_connect(w->path, false);
    while (fd == -EAGAIN);
    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", w->path, strerror(-fd));
        exit(1);
    }
    put(fd, w->frame, w->len);
    if (w->http) {
        size_t n = 0;
        ssize_t r;

        while ((r = read(fd, buf, sizeof(buf))) > 0)
            n += (size_t)r;
        if (!n)
            fprintf(stderr, "%s: no answer\n", w->path);
    } else if (!read_frame(fd, buf)) {
        fprintf(stderr, "%s: no reply\n", w->path);
    }
    close(fd);
}

bool wire_check(struct wire_call *w, const char *text)
{
    memset(buf, ' ', sizeof(buf));
    wire_call(w);
    buf[BUF] = '\0';
    if (!memmem(buf, BUF, text, strlen(text))) {
        fprintf(stderr, "%s answered %.300s\n", w->path, buf + FRAME_HDR);
        return false;
    }
    return true;
}

void floor_service(void *arg)
{
    const struct floor_arg *f = arg;
    char *mem = xmalloc(BUF);

    for (;;) {
        int c = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (c < 0)
            continue;
        if (read_frame(c, mem))
            put(c, f->reply, f->reply_len);
        close(c);
    }
}

void floor_relay(void *arg)
{
    const struct floor_arg *f = arg;
    char *mem = xmalloc(BUF);

    for (;;) {
        int c = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC), u;
        size_t n;

        if (c < 0)
            continue;
        n = read_frame(c, mem);
        u = n ? ipc_connect(f->upstream, false) : -1;
        if (u >= 0) {
            put(u, mem, n);
            n = read_frame(u, mem);
            put(c, mem, n);
            close(u);
        }
        close(c);
    }
}

void http_service(void *arg)
{
    const struct floor_arg *f = arg;
    char *mem = xmalloc(BUF);

    for (;;) {
        int c = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        size_t n = 0, want = 0;

        if (c < 0)
            continue;
        while (n < BUF - 1) {
            ssize_t r = read(c, mem + n, BUF - 1 - n);
            char *end, *len;

            if (r <= 0)
                break;
            n += (size_t)r;
            mem[n] = '\0';
            end = strstr(mem, "\r\n\r\n");
            len = strcasestr(mem, "content-length:");
            if (end && len)
                want = (size_t)(end - mem) + 4 + strtoul(len + 15, NULL, 10);
            if (end && n >= want)
                break;
        }
        put(c, f->reply, f->reply_len);
        close(c);
    }
}

/* --- the relay on epoll -------------------------------------------------------------------------
 */

struct side {
    int fd, other;
    bool upstream;
    char *buf;
    size_t n;
};

static void watch(int ep, struct side *s)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };

    epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
}

static struct side *side_new(int fd, int other, bool upstream)
{
    struct side *s = xcalloc(1, sizeof(*s));

    s->fd = fd;
    s->other = other;
    s->upstream = upstream;
    s->buf = xmalloc(BUF);
    return s;
}

static void side_free(struct side *s)
{
    close(s->fd);
    free(s->buf);
    free(s);
}

static bool whole(struct side *s)
{
    ssize_t r = read(s->fd, s->buf + s->n, BUF - s->n);

    if (r > 0)
        s->n += (size_t)r;
    if (r < 0 && errno == EAGAIN)
        return false;
    return r <= 0 || (s->n >= FRAME_HDR && s->n >= FRAME_HDR + frame_get_len(s->buf));
}

static void relay_event(const struct floor_arg *f, int ep, struct side *s)
{
    int u;

    if (!whole(s))
        return;
    if (s->upstream) {
        put(s->other, s->buf, s->n);
        close(s->other);
        side_free(s);
        return;
    }
    do
        u = ipc_connect(f->upstream, true);
    while (u == -EAGAIN);
    if (u >= 0) {
        put(u, s->buf, s->n);
        watch(ep, side_new(u, s->fd, true));
        epoll_ctl(ep, EPOLL_CTL_DEL, s->fd, NULL);
        free(s->buf);
        free(s);
    } else {
        side_free(s);
    }
}

void floor_epoll_relay(void *arg)
{
    const struct floor_arg *f = arg;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL }, got[64];

    (void)fcntl(f->listen_fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(ep, EPOLL_CTL_ADD, f->listen_fd, &e);
    for (;;) {
        int n = epoll_wait(ep, got, 64, -1);

        for (int i = 0; i < n; i++) {
            struct side *s = got[i].data.ptr;

            if (!s) {
                int c = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (c < 0)
                    continue;
                s = side_new(c, -1, false);
                watch(ep, s);
            }
            relay_event(f, ep, s);
        }
    }
}
