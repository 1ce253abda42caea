/*
 * The process around one search. Fork without exec: the child has memfs's open mounts and code and
 * nothing to lose; it never returns. First byte of its answer: 'r' and the result object, or 'e',
 * the error as a number and its text as JSON [code, why, data].
 */
#include "memfs/search.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fsx.h"

#define SEARCH_MEMORY (256UL << 20)
#define ANSWER_MAX    (12UL << 20)
#define SEARCH_MS     (WALK_MS + 500)

struct search {
    pid_t pid;
    int fd;
    struct watch watch;
    struct timer timer;
    struct buf answer;
    search_fn done;
    void *arg;
};

_Noreturn static void child(int fd, const struct caller *who, const struct loc *at,
                            const struct search_req *q, pid_t parent)
{
    struct rlimit cpu = { .rlim_cur = WALK_MS / 1000, .rlim_max = WALK_MS / 1000 };
    struct buf out = BUF_INIT(ANSWER_MAX);
    struct fault f = { .err = 0 };

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ns_close_others(fd); /* or the callers of others would not see them closed */
    if (getppid() != parent)
        _exit(1);
    setrlimit(RLIMIT_CPU, &cpu);
#ifndef AVIX_SAN
    struct rlimit memory = { .rlim_cur = SEARCH_MEMORY, .rlim_max = SEARCH_MEMORY };

    setrlimit(RLIMIT_DATA, &memory);
#endif
    buf_addc(&out, 'r');
    if (search_run(who, at, q, &out, &f)) {
        json_object *e = json_new_arr();

        json_push(e, json_object_new_int(f.err));
        json_push_str(e, f.why);
        json_push(e, f.data);
        buf_clear(&out);
        buf_addc(&out, 'e');
        buf_adds(&out, json_text(e));
    }
    _exit(write_all(fd, out.data, out.len) ? 1 : 0);
}

static void search_free(struct search *s)
{
    watch_done(&s->watch);
    timer_done(&s->timer);
    closep(&s->fd);
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    buf_done(&s->answer);
    free(s);
}

static void finish(struct search *s, int err)
{
    const char *text = s->answer.data;
    size_t n = s->answer.len;

    if (!err && (!n || (*text != 'r' && *text != 'e')))
        err = ERR_LIMIT; /* killed by its limits */
    if (err)
        s->done(err, "search ended by its limits of 10 s and 256 MiB", 0, s->arg);
    else
        s->done(*text == 'r' ? 0 : ERR_FAILED, text + 1, n - 1, s->arg);
    search_free(s);
}

static void on_readable(int fd, unsigned events, void *arg)
{
    struct search *s = arg;
    char chunk[65536];
    ssize_t n = read(fd, chunk, sizeof(chunk));

    (void)events;
    if (n > 0) {
        if (buf_add(&s->answer, chunk, (size_t)n))
            finish(s, ERR_TOOBIG);
        return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    finish(s, 0);
}

static void on_time(void *arg)
{
    finish(arg, ERR_TIMEOUT);
}

struct search *search_start(struct loop *l, const struct caller *who, const struct loc *at,
                            const struct search_req *q, search_fn done, void *arg)
{
    int p[2];
    pid_t parent = getpid(), pid;

    if (pipe2(p, O_CLOEXEC))
        return NULL;
    pid = fork();
    if (!pid)
        child(p[1], who, at, q, parent);
    close(p[1]);
    if (pid < 0) {
        close(p[0]);
        return NULL;
    }
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    struct search *s = xcalloc(1, sizeof(*s));

    *s = (struct search){ .pid = pid, .fd = p[0], .done = done, .arg = arg };
    buf_init(&s->answer, ANSWER_MAX);
    watch_init(&s->watch, l, s->fd, on_readable, s);
    watch_set(&s->watch, LOOP_READ);
    timer_init(&s->timer, l, on_time, s);
    timer_set(&s->timer, SEARCH_MS);
    return s;
}

void search_cancel(struct search *s)
{
    search_free(s);
}
