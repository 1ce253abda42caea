/* A routed call (client, router, echo service) beside relays that only move the bytes. */
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "common/base/json.h"
#include "common/ipc/client.h"
#include "common/ipc/frame.h"
#include "tests/bench/bench.h"

#define SMALL     450
#define LARGE     4096
#define CALLERS   64
#define RATE_MS   1200
#define RATE_RUNS 3
#define COUNTED   200

struct sent {
    char *frame;
    size_t len;
};

/* A request frame of `size` bytes of body if it can be that small. */
static struct sent request(const char *token, const char *method, size_t size)
{
    struct buf b = BUF_INIT(1 << 20);
    struct sent s;
    char hdr[4] = "";
    size_t head;

    buf_add(&b, hdr, 4);
    buf_printf(&b,
               "{\"jsonrpc\":\"2.0\",\"id\":\"r-1\",\"method\":\"%s\",\"params\":{\"_token\":\"",
               method);
    buf_adds(&b, token);
    buf_adds(&b, "\",\"text\":\"");
    head = b.len;
    while (b.len + 3 < size + 4)
        buf_addc(&b, 'a' + (char)((b.len - head) % 26));
    buf_adds(&b, "\"}}");
    frame_put_len(b.data, (uint32_t)(b.len - 4));
    s.len = b.len;
    s.frame = buf_take(&b);
    return s;
}

static struct sent reply_frame(const char *body)
{
    struct buf b = BUF_INIT(65536);
    struct sent s;
    char hdr[4];

    frame_put_len(hdr, (uint32_t)strlen(body));
    buf_add(&b, hdr, 4);
    buf_adds(&b, body);
    s.len = b.len;
    s.frame = buf_take(&b);
    return s;
}

struct floors {
    char dir[160], two[200], one[200], epoll[200], svc[200];
    struct sent reply;
    pid_t relay, erelay, service;
    struct floor_arg a_relay, a_erelay, a_service;
};

static struct floors *floors_start(const char *dir, bool pin)
{
    struct floors *f = xcalloc(1, sizeof(*f));

    snprintf(f->dir, sizeof(f->dir), "%s", dir);
    snprintf(f->two, sizeof(f->two), "%s/floor-two.sock", dir);
    snprintf(f->epoll, sizeof(f->epoll), "%s/floor-epoll.sock", dir);
    snprintf(f->svc, sizeof(f->svc), "%s/floor-svc.sock", dir);
    f->reply = reply_frame("{\"jsonrpc\":\"2.0\",\"id\":\"r-1\",\"result\":" BENCH_RESULT "}");
    f->a_service = (struct floor_arg){ listen_unix(f->svc), NULL, f->reply.frame, f->reply.len };
    f->a_relay = (struct floor_arg){ listen_unix(f->two), f->svc, NULL, 0 };
    f->a_erelay = (struct floor_arg){ listen_unix(f->epoll), f->svc, NULL, 0 };
    f->service = child_start(floor_service, &f->a_service, pin);
    f->relay = child_start(floor_relay, &f->a_relay, pin);
    f->erelay = child_start(floor_epoll_relay, &f->a_erelay, pin);
    return f;
}

static void floors_stop(struct floors *f)
{
    child_stop(f->relay);
    child_stop(f->erelay);
    child_stop(f->service);
    close(f->a_service.listen_fd);
    close(f->a_relay.listen_fd);
    close(f->a_erelay.listen_fd);
    free(f->reply.frame);
    free(f);
}

/* --- nginx --------------------------------------------------------------------------------------
 */

struct nginx {
    pid_t pid, service;
    char sock[200];
    struct floor_arg a;
    struct sent req;
};

static void nginx_exec(void *arg)
{
    execl("/usr/sbin/nginx", "nginx", "-c", (const char *)arg, "-p", "/tmp", (char *)NULL);
    _exit(127);
}

static struct nginx *nginx_start(const char *dir, size_t body)
{
    static char conf[300];
    struct nginx *n;
    struct buf b = BUF_INIT(65536);
    char svc_sock_path[200];
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 53\r\nConnection: close\r\n\r\n"
                                "{\"ok\":true,\"text\":\"the quick brown fox jumps over it\"}";

    if (access("/usr/sbin/nginx", X_OK))
        return NULL;
    n = xcalloc(1, sizeof(*n));
    snprintf(n->sock, sizeof(n->sock), "%s/nginx.sock", dir);
    snprintf(svc_sock_path, sizeof(svc_sock_path), "%s/http.sock", dir);
    snprintf(conf, sizeof(conf), "%s/nginx.conf", dir);
    buf_printf(&b,
               "daemon off; master_process off; worker_processes 1; pid %s/nginx.pid; error_log "
               "/dev/null crit;\nevents { worker_connections 1024; }\nhttp { access_log off; "
               "client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; "
               "uwsgi_temp_path %s/u; scgi_temp_path %s/s; "
               "server { listen unix:%s; location / { proxy_pass http://unix:%s:/; "
               "proxy_request_buffering on; proxy_http_version 1.1; proxy_set_header Connection "
               "close; } } }\n",
               dir, dir, dir, dir, dir, dir, n->sock, svc_sock_path);
    unlink(n->sock);
    file_write_rename(conf, b.data, b.len, 0600);
    buf_done(&b);
    n->a = (struct floor_arg){ listen_unix(svc_sock_path), NULL, reply, sizeof(reply) - 1 };
    n->service = child_start(http_service, &n->a, true);
    n->pid = child_start(nginx_exec, conf, true);
    for (int i = 0; i < 2000 && access(n->sock, F_OK); i++)
        usleep(1000);
    int fd = -1;

    for (int i = 0; i < 2000 && fd < 0; i++) {
        fd = ipc_connect(n->sock, false);
        if (fd < 0)
            usleep(1000);
    }
    if (fd < 0) {
        child_stop(n->pid);
        child_stop(n->service);
        free(n);
        return NULL;
    }
    close(fd);
    buf_printf(&b,
               "POST /call HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
               body);
    for (size_t i = 0; i < body; i++)
        buf_addc(&b, 'x');
    n->req.len = b.len;
    n->req.frame = buf_take(&b);
    return n;
}

static void nginx_stop(struct nginx *n)
{
    if (!n)
        return;
    child_stop(n->pid);
    child_stop(n->service);
    close(n->a.listen_fd);
    free(n->req.frame);
    free(n);
}

/* --- rows ----------------------------------------------------------------------------------------
 */

static void family(const struct mini *m, const struct floors *f, size_t size, double goal,
                   const char *tag)
{
    char sock[200], name[64], note[160];
    struct sent s = request(m->cap, "fs/echo", size);
    struct nginx *ng = nginx_start(m->dir, s.len);
    struct wire_call base = { f->two, s.frame, s.len, false };
    struct wire_call routed = { sock, s.frame, s.len, false };
    struct wire_call http = { ng ? ng->sock : "", ng ? ng->req.frame : "", ng ? ng->req.len : 0,
                              true };
    struct target t[3] = {
        { .name = "floor", .call = wire_call, .arg = &base, .pids = { f->relay, f->service } },
        { .name = "routed", .call = wire_call, .arg = &routed, .pids = { m->router, m->echo } },
        { .name = "nginx",
          .call = wire_call,
          .arg = &http,
          .pids = { ng ? ng->pid : 0, ng ? ng->service : 0 } },
    };

    snprintf(sock, sizeof(sock), "%s/router.sock", m->run);
    if (!wire_check(&base, "result") || !wire_check(&routed, "\"result\"") ||
        (ng && !wire_check(&http, "ok")))
        exit(1);
    interleave(t, ng ? 3 : 2, 1, goal);
    snprintf(name, sizeof(name), "call.routed.%s", tag);
    snprintf(note, sizeof(note), "frame %zu B, rounds %.2f..%.2f, p99 %.2fx of the floor's", s.len,
             t[1].lo, t[1].hi, t[1].p99 / t[0].p99);
    row_judge(name, "us", &t[1], t[0].p50, t[1].ratio, goal, note);
    snprintf(name, sizeof(name), "call.routed.%s.cpu", tag);
    snprintf(note, sizeof(note), "CPU of client, router and service per call");
    row_judge(name, "us", &(struct target){ .p50 = t[1].cpu, .p99 = NAN }, t[0].cpu, t[1].cpu_ratio,
              goal, note);
    snprintf(name, sizeof(name), "call.routed.%s.nginx", tag);
    if (!ng) {
        row_skip(name, "nginx is not installed");
    } else {
        snprintf(note, sizeof(note), "nginx, fresh connections: %.1f us, %.2fx of the floor",
                 t[2].p50, t[2].ratio);
        row_judge(name, "us", &t[1], t[2].p50, t[1].ratio / t[2].ratio, 1.0, note);
    }
    nginx_stop(ng);
    free(s.frame);
}

/* Refusals, against one hop to a blocking service. */
static void refused(const struct mini *m, const struct floors *f)
{
    char sock[200];
    struct sent bad = request("forged.token", "fs/echo", SMALL);
    struct sent none = request(m->cap, "fs/nothing", SMALL);
    struct wire_call base = { f->svc, none.frame, none.len, false };
    struct wire_call w[2] = { { sock, bad.frame, bad.len, false },
                              { sock, none.frame, none.len, false } };
    static const char *const names[] = { "call.refused.token", "call.refused.unknown" };
    struct target t[3] = {
        { .name = "one hop", .call = wire_call, .arg = &base, .pids = { f->service } },
        { .name = names[0], .call = wire_call, .arg = &w[0], .pids = { m->router } },
        { .name = names[1], .call = wire_call, .arg = &w[1], .pids = { m->router } },
    };

    snprintf(sock, sizeof(sock), "%s/router.sock", m->run);
    if (!wire_check(&w[0], "-32001") || !wire_check(&w[1], "-32601"))
        exit(1);
    interleave(t, 3, 1, 1.3);
    for (size_t i = 0; i < 2; i++)
        row_judge(names[i], "us", &t[i + 1], t[0].p50, t[i + 1].ratio, 1.3,
                  "against one hop; the service sees no connection");
    free(bad.frame);
    free(none.frame);
}

struct repeat {
    struct wire_call w;
    int n;
};

static void repeat_calls(void *arg)
{
    struct repeat *r = arg;

    for (int i = 0; i < r->n; i++)
        wire_call(&r->w);
}

static void syscalls(const struct mini *m)
{
    char sock[200];
    struct sent s = request(m->cap, "fs/echo", SMALL);
    struct repeat r = { { sock, s.frame, s.len, false }, COUNTED };
    static const struct {
        const char *name;
        double limit;
    } rows[] = { { "call.syscalls.router", 14 }, { "call.syscalls.service", 6 } };

    snprintf(sock, sizeof(sock), "%s/router.sock", m->run);
    pin_to_last_cpu(0);
    for (size_t i = 0; i < 2; i++) {
        long n = count_syscalls(i ? m->echo : m->router, repeat_calls, &r);
        /* the run before the last byte of the pipe is seen is counted, the rest is not */
        double per = (double)n / COUNTED;

        if (n < 0)
            row_skip(rows[i].name, "the process cannot be traced");
        else
            row_limit(rows[i].name, "calls", floor(per * 10) / 10, NAN, rows[i].limit,
                      "by ptrace over 200 calls, cut to 0.1; traced, nobody preempts");
    }
    unpin(0);
    free(s.frame);
}

/* --- throughput ----------------------------------------------------------------------------------
 */

struct load {
    struct wire_call w;
    volatile bool *stop;
    unsigned long n;
};

static void *load_run(void *arg)
{
    struct load *l = arg;

    while (!*l->stop) {
        wire_call(&l->w);
        l->n++;
    }
    return NULL;
}

static double rate(const struct wire_call *w)
{
    pthread_t th[CALLERS];
    static struct load l[CALLERS];
    volatile bool stop = false;
    unsigned long sum = 0;
    int64_t t0 = now_ns();

    for (int i = 0; i < CALLERS; i++) {
        l[i] = (struct load){ *w, &stop, 0 };
        pthread_create(&th[i], NULL, load_run, &l[i]);
    }
    usleep(RATE_MS * 1000);
    stop = true;
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(th[i], NULL);
        sum += l[i].n;
    }
    return (double)sum / ((double)(now_ns() - t0) / 1e9);
}

static void throughput(const struct mini *m, const struct floors *f)
{
    char sock[200];
    struct sent s = request(m->cap, "fs/echo", SMALL);
    struct wire_call base = { f->epoll, s.frame, s.len, false };
    struct wire_call routed = { sock, s.frame, s.len, false };
    double ratio[RATE_RUNS], ours[RATE_RUNS], theirs[RATE_RUNS];

    snprintf(sock, sizeof(sock), "%s/router.sock", m->run);
    const pid_t pids[] = { m->router, m->echo, f->erelay, f->service };
    for (size_t i = 0; i < N_ELEMS(pids); i++)
        unpin(pids[i]);
    for (int i = 0; i < RATE_RUNS; i++) {
        theirs[i] = rate(&base);
        ours[i] = rate(&routed);
        ratio[i] = ours[i] / theirs[i];
    }
    for (size_t i = 0; i < N_ELEMS(pids); i++)
        pin_to_last_cpu(pids[i]);
    struct row r = { .unit = "calls/s",
                     .p50 = median(ours, RATE_RUNS),
                     .p99 = NAN,
                     .floor = median(theirs, RATE_RUNS),
                     .target = 0.9,
                     .ratio = median(ratio, RATE_RUNS) };

    str_copy(r.name, sizeof(r.name), "call.rate.64");
    str_copy(r.note, sizeof(r.note),
             "64 callers, all cores, median of 3 against an epoll relay; at least");
    r.pass = r.ratio >= r.target;
    row_add(&r);
    free(s.frame);
}

void bench_routed(const char *bin)
{
    struct mini *m = mini_start(bin);
    struct floors *f = floors_start(m->dir, true);

    family(m, f, SMALL, 1.15, "450B");
    family(m, f, LARGE, 1.3, "4KB");
    refused(m, f);
    syscalls(m);
    throughput(m, f);
    floors_stop(f);
    mini_stop(m);
}
