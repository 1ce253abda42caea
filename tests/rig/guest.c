/* The guest is a fork of the test with its own loop; pipes carry its events out and calls in. */
#include "tests/rig/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "common/ipc/server.h"

#define WAIT_MS 5000

/* --- in the guest's process ---------------------------------------------------------------------
 */

static struct {
    struct loop *l;
    const struct guest *s;
    const struct guest_opts *o;
    char router[200], name[32];
    int events, control;
    struct watch watch;
    struct buf lines;
} me;

static void say(const char *word, const char *text)
{
    char line[65536];
    int n = snprintf(line, sizeof(line), "%s %s\n", word, text);

    if (write(me.events, line, (size_t)n) < 0)
        _exit(3);
}

static void on_gone(void *arg)
{
    struct call *c = arg;

    say("gone", c->method);
    call_end(c);
}

struct later {
    struct timer t;
    struct call *c;
    int64_t left, size, gap;
    bool full;
};

static void later_gone(void *arg)
{
    struct later *l = arg;

    say("gone", l->c->method);
    timer_done(&l->t);
    call_end(l->c);
    free(l);
}

static void later_reply(void *arg)
{
    struct later *l = arg;

    timer_done(&l->t);
    call_reply(l->c, json_make("ok:b", 1));
    free(l);
}

static void stream_more(void *arg)
{
    struct later *l = arg;

    l->full = false;
    while (l->left > 0 && !l->full) {
        char *text = xmalloc((size_t)l->size + 1);

        memset(text, 's', (size_t)l->size);
        text[l->size] = '\0';
        l->full = call_note(l->c, "echo.part", json_make("left:i text:s", l->left, text)) != 0;
        free(text);
        if (--l->left % 100 == 0) {
            char n[32];

            snprintf(n, sizeof(n), "%lld", (long long)l->left);
            say("left", n);
        }
        if (l->gap) {
            timer_set(&l->t, l->gap);
            return;
        }
    }
    if (!l->left)
        later_reply(l);
}

static struct later *later_new(struct call *c, loop_fn fn)
{
    struct later *l = xcalloc(1, sizeof(*l));

    l->c = c;
    timer_init(&l->t, me.l, fn, l);
    call_on_gone(c, later_gone, l);
    return l;
}

/* A reply frame of the test's own making. */
static void raw(struct call *c)
{
    const char *frame = json_str(c->params, "frame", ""), *at = strstr(frame, "$ID");
    struct buf b = BUF_INIT(1 << 20);

    buf_add(&b, frame, at ? (size_t)(at - frame) : strlen(frame));
    if (at) {
        buf_adds(&b, call_id(c));
        buf_adds(&b, at + 3);
    }
    call_note_text(c, b.data, b.len);
    buf_done(&b);
    call_end(c);
}

static void serve(struct call *c, void *arg)
{
    const char *tool = strrchr(c->method, '/');

    (void)arg;
    tool = tool ? tool + 1 : c->method;
    say("call", c->method);
    if (str_eq(tool, "echo") || str_eq(tool, "old")) {
        call_reply(c, json_object_get(c->params));
    } else if (str_eq(tool, "slow")) {
        struct later *l = later_new(c, later_reply);

        timer_set(&l->t, json_int(c->params, "ms", 100));
    } else if (str_eq(tool, "keep")) {
        if (json_flag(c->params, "tell", false))
            say("handle", json_str(json_obj(c->params, "_caller"), "token", ""));
        call_on_gone(c, on_gone, c);
    } else if (str_eq(tool, "stream")) {
        struct later *l = later_new(c, stream_more);

        l->left = json_int(c->params, "n", 3);
        l->size = json_int(c->params, "size", 10);
        l->gap = json_int(c->params, "gap", 0);
        call_on_drain(c, stream_more, l);
        timer_set(&l->t, 0);
    } else if (str_eq(tool, "raw")) {
        raw(c);
    } else if (str_eq(tool, "close")) {
        call_end(c);
    } else if (str_eq(tool, "exit")) {
        _exit(4);
    } else {
        call_fail(c, ERR_METHOD, NULL);
    }
}

static void replied(struct ipc_reply *r, void *arg)
{
    json_object *o = json_make("err:i data:o", (int64_t)r->err,
                               r->err      ? json_dup(r->error.data)
                               : r->result ? json_dup(r->result)
                                           : NULL);

    (void)arg;
    say("reply", json_text(o));
    json_put(o);
}

static void make_call(const char *line, size_t len)
{
    cleanup(json_putp) json_object *o = NULL;
    struct ipc_req q = { .sock = me.router, .token = me.s->token, .timeout_ms = 70000 };

    if (json_parse(line, len, &o))
        _exit(5);
    q.method = json_str(o, "method", "");
    q.params = json_obj(o, "params");
    ipc_start(me.l, &q, NULL, replied, NULL);
}

static void on_control(int fd, unsigned events, void *arg)
{
    char chunk[4096];
    ssize_t n = read(fd, chunk, sizeof(chunk));
    char *nl;

    (void)events;
    (void)arg;
    if (n <= 0)
        _exit(0);
    buf_add(&me.lines, chunk, (size_t)n);
    while ((nl = memchr(me.lines.data, '\n', me.lines.len))) {
        make_call(me.lines.data, (size_t)(nl - me.lines.data));
        buf_shift(&me.lines, (size_t)(nl - me.lines.data) + 1);
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (!str_copy(a.sun_path, sizeof(a.sun_path), path))
        _exit(6);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 512))
        _exit(7);
    return fd;
}

static json_object *descriptor(const char *tool, const char *name)
{
    json_object *d = json_make("name:s description:s", name, "a test tool"), *more = NULL;

    if (str_eq(tool, "old"))
        json_add(d, "ipc", json_make("method:s", "gone"));
    if (str_eq(tool, "stream"))
        json_add_bool(d, "streaming", true);
    if (me.o && me.o->descriptor &&
        !json_parse(me.o->descriptor, strlen(me.o->descriptor), &more)) {
        json_object_object_foreach (more, key, val) {
            json_add(d, key, json_object_get(val));
        }
    }
    json_put(more);
    return d;
}

static void do_register(void)
{
    static const char *const tools[] = { "echo", "slow", "keep",  "stream",
                                         "raw",  "old",  "close", "exit" };
    json_object *list = json_new_arr(), *p;
    struct ipc_req q = { .sock = me.router, .token = me.s->token };
    struct ipc_reply r;

    for (size_t i = 0; i < N_ELEMS(tools); i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s/%s", me.name, tools[i]);
        json_push(list, json_make("name:s descriptor:o", name, descriptor(tools[i], name)));
    }
    p = json_make("name:s endpoint:s tools:o", me.name, me.s->sock, list);
    q.params = p;
    q.method = "ipc.register";
    if (ipc_call(&q, &r)) {
        say("refused", r.error.message);
        _exit(8);
    }
    ipc_reply_done(&r);
    json_put(p);
    say("ready", "");
}

static _Noreturn void guest_main(void)
{
    int fd = listen_at(me.s->sock);

    signal(SIGPIPE, SIG_IGN);
    buf_init(&me.lines, 1 << 20);
    me.l = loop_new();
    server_new(me.l, fd, NULL, serve, NULL);
    watch_init(&me.watch, me.l, me.control, on_control, NULL);
    watch_set(&me.watch, LOOP_READ);
    if (!me.o || !me.o->no_register)
        do_register();
    else
        say("ready", "");
    loop_run(me.l);
    _exit(0);
}

/* --- in the test's process ----------------------------------------------------------------------
 */

char *guest_token(const char *name, pid_t pid)
{
    char id[UUID_LEN];
    json_object *ns = json_new_arr(), *grants = json_new_arr();

    json_push_str(ns, name);
    json_push_str(grants, "echo/*");
    json_push_str(grants, "fs/*");
    return rig_sign("svc",
                    json_make("kind:s tokenId:s unit:s version:s hostPid:i hostStart:i ns:o "
                              "grants:o issuedAt:s",
                              "ServiceToken", uuid4(id), name, "1.0.0", (int64_t)pid,
                              (int64_t)proc_start_time(pid), ns, grants, "2026-01-01T00:00:00Z"));
}

struct guest *guest_start(struct rig *g, const struct guest_opts *o)
{
    struct guest *s = xcalloc(1, sizeof(*s));
    int ev[2], ctl[2];
    char dir[160];

    str_copy(s->name, sizeof(s->name), o && o->name ? o->name : "echo");
    snprintf(dir, sizeof(dir), "%s/services/%s", g->run_dir, s->name);
    mkdir_p(dir, 0700);
    if (pipe2(ev, O_CLOEXEC) || pipe2(ctl, O_CLOEXEC))
        abort();
    fflush(NULL);
    pid_t parent = getpid();
    s->pid = fork();
    if (!s->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(ev[0]);
        close(ctl[1]);
        snprintf(s->sock, sizeof(s->sock), "%s/%d.sock", dir, (int)getpid());
        s->token = guest_token(s->name, getpid());
        me.s = s;
        me.o = o;
        str_copy(me.name, sizeof(me.name), s->name);
        str_copy(me.router, sizeof(me.router), rig_sock(g, "router.sock"));
        me.events = ev[1];
        me.control = ctl[0];
        guest_main();
    }
    close(ev[1]);
    close(ctl[0]);
    s->events = ev[0];
    s->control = ctl[1];
    snprintf(s->sock, sizeof(s->sock), "%s/%d.sock", dir, (int)s->pid);
    s->token = guest_token(s->name, s->pid);
    const char *first = guest_event(s, 20000);
    if (strcmp(first, "ready ") != 0) {
        fprintf(stderr, "guest %s: %s\n", s->name, first);
        abort();
    }
    return s;
}

void guest_stop(struct guest *s)
{
    if (!s)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    close(s->events);
    close(s->control);
    free(s->token);
    free(s);
}

void guest_stopp(struct guest **s)
{
    guest_stop(*s);
}

const char *guest_event(struct guest *s, int ms)
{
    static char *line;

    free(line);
    line = rig_read_line(s->events, ms);
    return line ? line : "";
}

int guest_call(struct guest *s, const char *method, const char *params, json_object **reply)
{
    json_object *p = NULL, *o;
    cleanup(json_putp) json_object *got = NULL;
    const char *line;
    int err;

    if (json_parse(params, strlen(params), &p))
        abort();
    o = json_make("method:s params:o", method, p);
    dprintf(s->control, "%s\n", json_text(o));
    json_put(o);
    do
        line = guest_event(s, 70000);
    while (*line && !str_starts(line, "reply "));
    if (!*line || json_parse(line + 6, strlen(line + 6), &got))
        abort();
    err = (int)json_int(got, "err", 0);
    if (reply)
        *reply = json_get(got, "data") ? json_object_get(json_get(got, "data")) : NULL;
    return err;
}
