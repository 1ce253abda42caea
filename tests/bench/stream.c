/*
 * One streamed token, from the byte that a provider sends to the WebSocket frame that shows it:
 * provider, llmsvc, router, agent, gateway, client. Beside it a pipeline of as many processes that
 * only copy. Each token is 96 bytes long (an agent passes text on every 80 bytes, or after 50 ms)
 * and carries the time at which it was sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/ipc/client.h"
#include "tests/bench/bench.h"
#include "tests/rig/prov.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define TOKENS  1500
#define PACE_NS 1000000
#define TOKEN   96
#define HOPS    4

static int listen_tcp(int *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)&a, &len))
        abort();
    *port = ntohs(a.sin_port);
    return fd;
}

static void put_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

/* "T<19 digits> xxxx…", TOKEN bytes. */
static void token_text(char *out)
{
    int n = snprintf(out, TOKEN + 1, "T%019lld ", (long long)now_ns());

    memset(out + n, 'x', TOKEN - (size_t)n);
    out[TOKEN - 1] = ' ';
    out[TOKEN] = '\0';
}

static void pace(int64_t *at)
{
    struct timespec t = { .tv_sec = *at / 1000000000, .tv_nsec = *at % 1000000000 };

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    *at += PACE_NS;
}

/* --- the provider --------------------------------------------------------------------------------
 */

static void answer_stream(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Connection: close\r\n\r\n";
    static const char tail[] =
        "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"test-model\",\"choices\":[{"
        "\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,"
        "\"completion_tokens\":1500,\"total_tokens\":1501}}\n\ndata: [DONE]\n\n";
    int64_t at = now_ns() + 50000000;

    put_all(fd, head, sizeof(head) - 1);
    for (int i = 0; i < TOKENS; i++) {
        char text[TOKEN + 1], line[512];

        pace(&at);
        token_text(text);
        int n = snprintf(
            line, sizeof(line),
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"test-model\","
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}"
            "\n\n",
            text);

        put_all(fd, line, (size_t)n);
    }
    put_all(fd, tail, sizeof(tail) - 1);
}

static void provider(void *arg)
{
    int l = *(int *)arg;

    for (;;) {
        int c = accept4(l, NULL, NULL, SOCK_CLOEXEC), on = 1;
        static char buf[1 << 20];
        size_t n = 0, want = 1;

        if (c < 0)
            continue;
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        while (n < want) {
            ssize_t r = read(c, buf + n, sizeof(buf) - 1 - n);
            char *end, *len;

            if (r <= 0)
                break;
            n += (size_t)r;
            buf[n] = '\0';
            end = strstr(buf, "\r\n\r\n");
            len = strcasestr(buf, "content-length:");
            want = end ? (size_t)(end - buf) + 4 + (len ? strtoul(len + 15, NULL, 10) : 0) : n + 1;
            if (strcasestr(buf, "expect: 100"))
                put_all(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        }
        if (n)
            answer_stream(c);
        shutdown(c, SHUT_WR);
        while (read(c, buf, sizeof(buf)) > 0)
            ;
        close(c);
    }
}

/* --- what arrived --------------------------------------------------------------------------------
 */

struct arrived {
    double us[TOKENS];
    size_t n;
};

/* Every token in a text, now. */
static void note_tokens(struct arrived *a, const char *text)
{
    int64_t now = now_ns();

    for (const char *p = strchr(text, 'T'); p && a->n < TOKENS; p = strchr(p + 1, 'T')) {
        long long at;

        if (sscanf(p, "T%19lld", &at) == 1)
            a->us[a->n++] = (double)(now - at) / 1000;
    }
}

/* --- the pipeline that only copies
 * ---------------------------------------------------------------- */

struct copier {
    int listen_fd;
    const char *to; /* Unix socket, NULL: port */
    int port;
};

static int connect_tcp(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
        abort();
    return fd;
}

/* Reads from where it connects to, writes to who connected: the client pulls. */
static void copier(void *arg)
{
    const struct copier *k = arg;
    int down = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
    int up = k->to ? ipc_connect(k->to, false) : connect_tcp(k->port);
    char buf[65536];
    ssize_t n;

    setsockopt(down, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    while ((n = read(up, buf, sizeof(buf))) > 0)
        put_all(down, buf, (size_t)n);
    close(down);
    close(up);
    for (;;)
        pause();
}

static void source(void *arg)
{
    int l = *(int *)arg, c = accept4(l, NULL, NULL, SOCK_CLOEXEC), on = 1;
    int64_t at = now_ns() + 50000000;

    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    for (int i = 0; i < TOKENS; i++) {
        char text[TOKEN + 1];

        pace(&at);
        token_text(text);
        put_all(c, text, TOKEN);
    }
    close(c);
    for (;;)
        pause();
}

static double copy_run(const char *dir, struct arrived *a)
{
    static char paths[HOPS][300];
    struct copier k[HOPS];
    pid_t pids[HOPS], src;
    int src_port, out_port, l = listen_tcp(&src_port), out = listen_tcp(&out_port), fd;
    double cpu = 0;
    char buf[65536];
    ssize_t n;

    src = child_start(source, &l, false);
    for (int i = 0; i < HOPS; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/copy-%d.sock", dir, i);
        k[i] = (struct copier){ i == HOPS - 1 ? out : listen_unix(paths[i]),
                                i ? paths[i - 1] : NULL, src_port };
        pids[i] = child_start(copier, &k[i], true);
    }
    fd = connect_tcp(out_port);
    while ((n = read(fd, buf, sizeof(buf) - 1)) > 0) {
        buf[n] = '\0';
        note_tokens(a, buf);
    }
    close(fd);
    for (int i = 0; i < HOPS; i++) {
        cpu += cpu_ns(pids[i]) / 1000;
        child_stop(pids[i]);
        if (i < HOPS - 1)
            close(k[i].listen_fd);
    }
    child_stop(src);
    close(out);
    close(l);
    return cpu / TOKENS;
}

/* --- the suite
 * ------------------------------------------------------------------------------------ */

static struct prov prov_at;

static void before(struct rig *g)
{
    prov_configure(g, &prov_at, "openai");
}

static pid_t agent_host(struct rig *g, int64_t pid)
{
    json_object *o = rig_init_call(g, "init/list", json_new(), NULL), *list = json_arr(o, "agents");
    pid_t found = 0;

    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        if (json_int(json_object_array_get_idx(list, i), "avixPid", 0) == pid)
            found = (pid_t)json_int(json_object_array_get_idx(list, i), "hostPid", 0);
    json_put(o);
    return found;
}

static double suite_run(struct rig *g, struct arrived *a, double each[HOPS])
{
    static const char *const units[] = { "llmsvc", "router", "gateway" };
    pid_t pids[HOPS] = { 0 };
    struct ws *w = ws_admin(g);
    double sum = 0;
    json_object *r, *e;
    int64_t pid;
    size_t counted = 0;

    ws_send(w, json_make("type:s events:o", "subscribe",
                         json_tokener_parse("[\"agent.output.chunk\"]")));
    for (size_t i = 0; i < N_ELEMS(units); i++) {
        pids[i] = rig_unit_pid(g, units[i]);
        pin_to_last_cpu(pids[i]);
    }
    pin_to_last_cpu(g->init_pid); /* the agent inherits it */
    r = ws_cmd(w, "proc", "spawn", json_make("agent:s goal:s", "observer", "go"));
    pid = json_int(json_obj(r, "body"), "pid", 0);
    json_put(r);
    pids[3] = pid ? agent_host(g, pid) : 0;
    for (int i = 0; i < HOPS; i++)
        each[i] = -cpu_ns(pids[i]);
    while (a->n < TOKENS && (e = ws_event(w, "agent.output.chunk", 5000))) {
        note_tokens(a, json_str(json_obj(e, "body"), "text_delta", ""));
        if (!counted && a->n >= TOKENS - 20) { /* before the agent ends */
            counted = a->n;
            for (int i = 0; i < HOPS; i++)
                each[i] = (each[i] + cpu_ns(pids[i])) / 1000 / (double)counted;
        }
        json_put(e);
    }
    ws_close(w);
    for (int i = 0; i < HOPS; i++)
        sum += each[i];
    return counted ? sum : NAN;
}

void bench_stream(const char *bin)
{
    static struct arrived ours, copy;
    struct rig_opts o = { .before = before };
    int l = listen_tcp(&prov_at.port);
    pid_t p = child_start(provider, &l, false);
    struct rig *g = rig_new(&o);
    double cpu, base, each[HOPS];
    char note[160];

    (void)bin;
    pin_to_last_cpu(0);
    base = copy_run(g->dir, &copy);
    cpu = suite_run(g, &ours, each);
    unpin(0);
    if (ours.n < TOKENS || copy.n < TOKENS) {
        char why[96];

        snprintf(why, sizeof(why), "only %zu of %d tokens arrived (%zu copied)", ours.n, TOKENS,
                 copy.n);
        row_skip("stream.token", why);
    } else {
        double p99 = quantile(ours.us, TOKENS, 0.99), c50 = median(copy.us, TOKENS);

        row_ratio(
            "stream.token.latency", "us", median(ours.us, TOKENS), p99, c50, 1.2,
            "1000 tokens/s, provider byte to WebSocket frame, against four copying processes");
        snprintf(
            note, sizeof(note),
            "per token: llmsvc %.0f, router %.0f, gateway %.0f, agent %.0f; against the copiers",
            each[0], each[1], each[2], each[3]);
        row_ratio("stream.token.cpu", "us", cpu, NAN, base, 1.3, note);
    }
    child_stop(p);
    close(l);
    rig_stop(g);
}
