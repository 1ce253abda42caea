/*
 * Log capture. Every child writes into a pipe of its own; whole lines go to its unit's file with a
 * time in front, JSON lines of built-in units as they are. Files rotate at 10 MiB. A disk that is
 * full costs lines, which are counted, never a blocked child or a dead init. Our own log takes the
 * same way: stderr is a pipe to ourselves that never blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/init/init.h"

#define ROTATE_BYTES (10 * 1024 * 1024)
#define ROTATE_KEEP  5
#define LINE_MAX_LEN 16384
#define READ_CHUNK   65536

struct follower {
    struct call *call;
    struct logfile *file;
    LIST_ENTRY(follower) link;
};
struct logfile {
    char rel[64], name[40];
    int fd, refs;
    off_t size;
    bool json;
    uint64_t dropped;
    char *tail[LOG_TAIL];
    int n_tail;
    LIST_HEAD(, follower) followers;
    LIST_ENTRY(logfile) link;
};
struct logpipe {
    int fd;
    size_t len;
    struct logfile *file;
    struct watch watch;
    LIST_ENTRY(logpipe) link;
    char line[LINE_MAX_LEN];
};
static LIST_HEAD(, logpipe) pipes = LIST_HEAD_INITIALIZER(pipes);
static LIST_HEAD(, logfile) files = LIST_HEAD_INITIALIZER(files);

static int path_of(const char *rel, int generation, char *out, size_t size)
{
    return generation ? path_fmt(out, size, "%s/logs/%s.%d", init.root, rel, generation)
                      : path_fmt(out, size, "%s/logs/%s", init.root, rel);
}

static void file_reopen(struct logfile *f)
{
    char path[512];
    struct stat st;

    closep(&f->fd);
    f->fd = -1;
    f->size = 0;
    if (path_of(f->rel, 0, path, sizeof(path)))
        return;
    f->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd >= 0 && fstat(f->fd, &st) == 0)
        f->size = st.st_size;
}

static void file_rotate(struct logfile *f)
{
    char from[512], to[512];

    for (int i = ROTATE_KEEP; i > 0; i--)
        if (path_of(f->rel, i - 1, from, sizeof(from)) == 0 &&
            path_of(f->rel, i, to, sizeof(to)) == 0)
            (void)rename(from, to);
    file_reopen(f);
}

struct logfile *logfile_open(const char *rel, const char *name, bool json)
{
    struct logfile *f;

    LIST_FOREACH(f, &files, link)
    {
        if (str_eq(f->rel, rel)) {
            f->refs++;
            return f;
        }
    }
    f = xcalloc(1, sizeof(*f));
    f->fd = -1;
    f->refs = 1;
    f->json = json;
    str_copy(f->rel, sizeof(f->rel), rel);
    str_copy(f->name, sizeof(f->name), name);
    LIST_INIT(&f->followers);
    LIST_INSERT_HEAD(&files, f, link);
    file_reopen(f);
    return f;
}

static void follower_end(struct follower *w)
{
    LIST_REMOVE(w, link);
    call_end(w->call);
    free(w);
}

void logfile_unref(struct logfile *f)
{
    if (!f || --f->refs > 0)
        return;
    while (!LIST_EMPTY(&f->followers))
        follower_end(LIST_FIRST(&f->followers));
    LIST_REMOVE(f, link);
    closep(&f->fd);
    for (int i = 0; i < LOG_TAIL; i++)
        free(f->tail[i]);
    free(f);
}

const char *logfile_path(const struct logfile *f)
{
    static char path[512];

    return path_of(f->rel, 0, path, sizeof(path)) ? "" : path;
}

const char *logfile_tail(struct logfile *f, int i)
{
    return f && i < f->n_tail ? f->tail[i] : NULL;
}

static void tail_add(struct logfile *f, const char *line, size_t len)
{
    if (f->n_tail == LOG_TAIL) {
        free(f->tail[0]);
        memmove(f->tail, f->tail + 1, sizeof(f->tail[0]) * (LOG_TAIL - 1));
        f->n_tail--;
    }
    f->tail[f->n_tail++] = xstrndup(line, len);
}

static void follow_line(struct logfile *f, const char *line, size_t len)
{
    struct follower *w, *next;

    for (w = LIST_FIRST(&f->followers); w; w = next) {
        next = LIST_NEXT(w, link);
        cleanup(freep) char *text = xstrndup(line, len);

        /* a reader that is too slow is cut off: init keeps no backlog for it */
        if (call_note(w->call, "log.line", json_make("unit:s line:s", f->name, text)))
            follower_end(w);
    }
}

static bool file_write(struct logfile *f, const char *time, const char *line, size_t len)
{
    struct iovec v[] = {
        { (void *)(uintptr_t)time, strlen(time) },
        { (void *)(uintptr_t)line, len },
        { (void *)(uintptr_t) "\n", 1 },
    };
    ssize_t want = (ssize_t)(v[0].iov_len + len + 1);

    if (f->size + want > ROTATE_BYTES && f->size > 0)
        file_rotate(f);
    if (f->fd < 0)
        file_reopen(f);
    ssize_t n = f->fd < 0 ? -1 : writev(f->fd, v, 3);

    if (n > 0)
        f->size += n;
    return n == want;
}

static void to_stdout(const struct logfile *f, const char *line, size_t len)
{
    char prefix[48];
    int n = snprintf(prefix, sizeof(prefix), "[%s] ", f->name);
    struct iovec v[] = {
        { prefix, (size_t)n },
        { (void *)(uintptr_t)line, len },
        { (void *)(uintptr_t) "\n", 1 },
    };

    (void)!writev(init.stdout_fd, v, 3);
}

static void line_out(struct logfile *f, const char *line, size_t len)
{
    char time[RFC3339_LEN], stamp[RFC3339_LEN + 1], lost[96];
    bool as_is = f->json && len > 1 && line[0] == '{' && json_check(line, len) == 0;

    snprintf(stamp, sizeof(stamp), "%s ", rfc3339(now_ms(), time));
    if (f->dropped) {
        int n = snprintf(lost, sizeof(lost), "%llu lines lost: the disk was full",
                         (unsigned long long)f->dropped);

        if (file_write(f, stamp, lost, (size_t)n))
            f->dropped = 0;
    }
    if (!file_write(f, as_is ? "" : stamp, line, len))
        f->dropped++;
    tail_add(f, line, len);
    follow_line(f, line, len);
    if (init.opts.log_stdout)
        to_stdout(f, line, len);
}

/* Hands out the whole lines of the buffer; a full buffer is a line of its own. */
static void pipe_lines(struct logpipe *p, bool end)
{
    size_t at = 0;
    char *nl;

    while ((nl = memchr(p->line + at, '\n', p->len - at))) {
        line_out(p->file, p->line + at, (size_t)(nl - p->line) - at);
        at = (size_t)(nl - p->line) + 1;
    }
    if (at == 0 && p->len == LINE_MAX_LEN) {
        at = utf8_floor(p->line, p->len);
        line_out(p->file, p->line, at);
    }
    if (end && at < p->len) {
        line_out(p->file, p->line + at, p->len - at);
        at = p->len;
    }
    memmove(p->line, p->line + at, p->len - at);
    p->len -= at;
}

static void pipe_free(struct logpipe *p)
{
    pipe_lines(p, true);
    LIST_REMOVE(p, link);
    watch_done(&p->watch);
    close(p->fd);
    logfile_unref(p->file);
    free(p);
}

/* False when the pipe ended and is gone. */
static bool pipe_read(struct logpipe *p, size_t budget)
{
    while (budget > 0) {
        ssize_t n = read(p->fd, p->line + p->len, LINE_MAX_LEN - p->len);

        if (n < 0)
            return true;
        if (n == 0) {
            pipe_free(p);
            return false;
        }
        p->len += (size_t)n;
        budget = (size_t)n < budget ? budget - (size_t)n : 0;
        pipe_lines(p, false);
    }
    return true;
}

static void on_pipe(int fd, unsigned events, void *arg)
{
    (void)fd;
    (void)events;
    (void)pipe_read(arg, READ_CHUNK); /* bounded: a child that floods its log starves nobody */
}

int logfile_pipe(struct logfile *f)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return -errno;
    struct logpipe *p = xcalloc(1, sizeof(*p));

    p->fd = fds[0];
    p->file = f;
    f->refs++;
    (void)fcntl(p->fd, F_SETFL, O_NONBLOCK);
    LIST_INSERT_HEAD(&pipes, p, link);
    watch_init(&p->watch, init.loop, p->fd, on_pipe, p);
    watch_set(&p->watch, LOOP_READ);
    return fds[1];
}

static void follower_gone(void *arg)
{
    follower_end(arg);
}

void logfile_follow(struct logfile *f, struct call *c)
{
    struct follower *w = xcalloc(1, sizeof(*w));

    w->call = c;
    w->file = f;
    LIST_INSERT_HEAD(&f->followers, w, link);
    call_on_gone(c, follower_gone, w);
}

void logs_flush(void)
{
    struct logpipe *p, *next;

    for (p = LIST_FIRST(&pipes); p; p = next) {
        next = LIST_NEXT(p, link);
        (void)pipe_read(p, 16 * READ_CHUNK);
    }
}

void logs_end(void)
{
    struct logfile *f;

    logs_flush();
    LIST_FOREACH(f, &files, link)
    {
        while (!LIST_EMPTY(&f->followers))
            follower_end(LIST_FIRST(&f->followers));
    }
}
