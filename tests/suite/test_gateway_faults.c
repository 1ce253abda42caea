/*
 * The gateway when things go wrong: killed under load, readers that stand still, publishers that
 * may not, locked accounts, ports in use, TLS, and silence when nothing happens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/ipc/peer.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define JSON "Content-Type: application/json\r\n"

static struct rig *g;

static int setup(void **state)
{
    (void)state;
    g = rig_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

static json_object *parse(const char *text)
{
    json_object *o = NULL;

    if (json_parse(text, strlen(text), &o))
        fail_msg("not JSON: %s", text);
    return o;
}

static int64_t head_seq(struct ws *w)
{
    cleanup(json_putp) json_object *r = ws_cmd(w, "sys", "status", json_new());

    return json_int(json_obj(r, "body"), "headSeq", 0);
}

static void subscribe(struct ws *w, int64_t since)
{
    json_object *f = parse("{\"type\":\"subscribe\",\"events\":[\"*\",\"agent.output\"]}");

    if (since >= 0)
        json_add_int(f, "since_seq", since);
    ws_send(w, f);
}

/* --- killed under load ------------------------------------------------------------------------ */

struct tape {
    uint64_t seq[8192];
    uint64_t hash[8192];
    unsigned n;
    uint64_t last;
};

/* Ring events up to (and with) `until`, or what comes within the time. */
static void record(struct ws *w, struct tape *t, uint64_t until, int ms)
{
    int64_t end = mono_ms() + ms;

    while (mono_ms() < end && t->last < until) {
        json_object *e = ws_recv(w, (int)(end - mono_ms()));
        uint64_t seq = (uint64_t)json_int(e, "seq", 0);

        if (!e)
            return;
        if (seq && !str_eq(json_str(e, "event", ""), "agent.output.chunk")) {
            const char *text = json_text(e);

            if (seq <= t->last)
                fail_msg("%llu came after %llu", (unsigned long long)seq,
                         (unsigned long long)t->last);
            t->seq[t->n] = t->last = seq;
            t->hash[t->n++] = hash_bytes(text, strlen(text));
        }
        json_put(e);
    }
}

static struct ws *admin_again(void)
{
    struct ws *w = NULL;

    for (int64_t end = mono_ms() + 10000; !w && mono_ms() < end;)
        w = ws_admin(g);
    assert_non_null(w);
    return w;
}

static void spawn_some(struct ws *w, int n)
{
    for (int i = 0; i < n; i++)
        json_put(ws_cmd(w, "proc", "spawn",
                        json_make("agent:s goal:s oneShot:b", "researcher", "Say hello.", 1)));
}

/* The same login is used all the time: a token outlives the gateway. */
static void killed_under_load_loses_and_repeats_nothing(void **state)
{
    struct ws *w = ws_admin(g), *all;
    struct tape *seen = xcalloc(1, sizeof(*seen)), *truth = xcalloc(1, sizeof(*truth));
    int64_t from = head_seq(w), head;
    char *token = NULL;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    seen->last = truth->last = (uint64_t)from;
    subscribe(w, from);
    for (int round = 0; round < 4; round++) {
        spawn_some(w, 3);
        record(w, seen, UINT64_MAX, 20 + 15 * round);
        rig_kill_unit(g, "gateway");
        ws_close(w);
        w = ws_open(g->port, token, NULL, NULL);
        assert_non_null(w);
        subscribe(w, (int64_t)seen->last);
    }
    spawn_some(w, 1);
    /* quiet: the last agents have ended */
    record(w, seen, UINT64_MAX, 2000);
    head = head_seq(w);
    record(w, seen, UINT64_MAX, 300);
    all = admin_again();
    subscribe(all, from);
    record(all, truth, UINT64_MAX, 700);
    assert_true(truth->n > 50);
    assert_true(truth->last <= (uint64_t)head);
    for (unsigned i = 0; i < truth->n && i < seen->n; i++) {
        if (truth->seq[i] != seen->seq[i])
            fail_msg("event %u: %llu kept, %llu seen", i, (unsigned long long)truth->seq[i],
                     (unsigned long long)seen->seq[i]);
        assert_int_equal(truth->hash[i], seen->hash[i]);
    }
    assert_int_equal(truth->n, seen->n);
    ws_close(all);
    ws_close(w);
    free(token);
    free(seen);
    free(truth);
}

/* --- a publisher of our own ------------------------------------------------------------------- */

/* Makes this process a unit in the table that the others go by. */
static void become(const char *unit)
{
    char path[160];
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *doc = NULL;
    json_object *units;
    size_t len;

    snprintf(path, sizeof(path), "%s/units.json", g->run_dir);
    assert_int_equal(file_read(path, 1 << 20, &text, &len), 0);
    assert_int_equal(json_parse(text, len, &doc), 0);
    units = json_arr(doc, "units");
    for (size_t i = 0; i < json_object_array_length(units); i++) {
        json_object *row = json_object_array_get_idx(units, i);

        if (!str_eq(json_str(row, "name", ""), unit))
            continue;
        json_add_int(row, "pid", getpid());
        json_add_int(row, "start", (int64_t)proc_start_time(getpid()));
    }
    const char *out = json_text(doc);
    assert_int_equal(file_write_rename(path, out, strlen(out), 0600), 0);
}

static int publish(json_object *params, bool note)
{
    struct ipc_req q = { .sock = rig_sock(g, "gateway.sock"),
                         .method = "event.publish",
                         .params = params,
                         .note = note };
    struct ipc_reply r;
    int err = ipc_call(&q, &r);

    ipc_reply_done(&r);
    json_put(params);
    return err;
}

static int alert(const char *text)
{
    return publish(json_make("event:s body:o scope:o", "sys.alert",
                             json_make("level:s message:s source:s", "info", text, "forged"),
                             json_new()),
                   false);
}

static long anon_kib(void)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;
    const char *p;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)rig_unit_pid(g, "gateway"));
    assert_int_equal(file_read(path, 1 << 16, &text, &len), 0);
    p = strstr(text, "RssAnon:");
    return p ? strtol(p + 8, NULL, 10) : 0;
}

#define BIG 65000

static void a_standing_reader_catches_up_and_disturbs_nobody(void **state)
{
    struct ws *slow = ws_admin(g), *fast = ws_admin(g);
    char *big = xmalloc(BIG + 1);
    int n = 350, got = 0;
    long before = anon_kib();
    uint64_t last = 0;

    (void)state;
    become("execsvc");
    memset(big, 'x', BIG);
    big[BIG] = '\0';
    subscribe(slow, -1);
    subscribe(fast, -1);
    (void)head_seq(slow); /* both subscriptions are in */
    (void)head_seq(fast);
    for (int i = 0; i < n; i++) {
        int64_t t0 = mono_ms();
        json_object *e;

        snprintf(big, 16, "%d", i);
        big[strlen(big)] = 'x';
        assert_int_equal(alert(big), 0);
        e = ws_event(fast, "sys.alert", 5000);
        assert_non_null(e);
        assert_int_equal(strtol(json_str(json_obj(e, "body"), "message", "-1"), NULL, 10), i);
        assert_string_equal(json_str(json_obj(e, "body"), "source", ""), "execsvc");
        json_put(e);
        assert_true(mono_ms() - t0 < 3000);
    }
#ifdef AVIX_SAN
    (void)before; /* the sanitizer's own memory would be measured */
#else
    assert_true(anon_kib() - before < 16 * 1024);
#endif
    while (got < n) {
        json_object *e = ws_event(slow, "sys.alert", 10000);

        if (!e)
            fail_msg("%d of %d, close %d", got, n, ws_close_code(slow));
        assert_int_equal(strtol(json_str(json_obj(e, "body"), "message", "-1"), NULL, 10), got);
        assert_true((uint64_t)json_int(e, "seq", 0) > last);
        last = (uint64_t)json_int(e, "seq", 0);
        json_put(e);
        got++;
    }
    free(big);
    ws_close(slow);
    ws_close(fast);
}

static void what_the_ring_lost_closes_with_4008(void **state)
{
    struct ws *slow = ws_admin(g);
    char *big = xmalloc(BIG + 1);
    json_object *e;
    int64_t last = -1;
    bool closing = false;

    (void)state;
    become("execsvc");
    memset(big, 'x', BIG);
    big[BIG] = '\0';
    subscribe(slow, -1);
    (void)head_seq(slow);
    for (int i = 0; i < 900; i++)
        assert_int_equal(alert(big), 0);
    while ((e = ws_recv(slow, 10000))) {
        if (str_eq(json_str(e, "event", ""), "session.closing")) {
            closing = true;
            assert_string_equal(json_str(json_obj(e, "body"), "reason", ""), "slow_consumer");
            assert_int_equal(json_int(json_obj(e, "body"), "code", 0), 4008);
            last = json_int(json_obj(e, "body"), "lastSeq", -1);
        }
        json_put(e);
    }
    assert_true(closing);
    assert_int_equal(ws_close_code(slow), 4008);
    ws_close(slow);
    slow = ws_admin(g);
    e = json_make("type:s id:s events:o since_seq:i", "subscribe", "s", parse("[\"agent.exit\"]"),
                  last);
    ws_send(slow, e);
    e = ws_recv(slow, 5000);
    assert_true(json_flag(json_obj(e, "body"), "gap", false));
    json_put(e);
    ws_close(slow);
    free(big);
}

static void strangers_publish_nothing(void **state)
{
    struct ws *w = ws_admin(g);
    json_object *e;

    (void)state;
    subscribe(w, -1);
    (void)head_seq(w);
    /* another process of the same uid that is no unit and no agent */
    pid_t pid = fork();

    if (pid == 0) {
        int r = alert("from a stranger");

        r = r ? publish(
                    json_make("event:s body:o scope:o", "agent.exit",
                              json_make("pid:i exitCode:i reason:s", (int64_t)100, (int64_t)0, "x"),
                              json_make("user:s", "admin")),
                    false)
              : 0;
        _exit(r ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* a unit, but not with a kind of another */
    become("execsvc");
    assert_int_not_equal(
        publish(json_make("event:s body:o scope:o", "agent.exit",
                          json_make("pid:i exitCode:i reason:s", (int64_t)100, (int64_t)0, "x"),
                          json_make("user:s", "admin")),
                false),
        0);
    assert_int_not_equal(
        publish(json_make("event:s body:o scope:o", "no.kind", json_new(), json_new()), false), 0);
    assert_int_equal(alert("allowed"), 0);
    e = ws_recv(w, 5000);
    assert_string_equal(json_str(json_obj(e, "body"), "message", ""), "allowed");
    json_put(e);
    ws_close(w);
}

/* Killed at any moment of a one-turn answer, or before its process was identified: the text comes.
 */
static void an_answer_outlives_the_gateway(void **state)
{
    struct pollfd none = { .fd = -1 };
    char *token = NULL;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    /* init waits longer before each restart, an agent one second for its events to be taken */
    for (int round = 0; round < 3; round++) {
        struct ws *w = ws_open(g->port, token, NULL, NULL);
        int64_t from = head_seq(w), pid;
        json_object *r, *e;
        char text[24];
        bool output = false;

        r = ws_cmd(w, "proc", "spawn",
                   json_make("agent:s goal:s oneShot:b", "researcher", "Say hello.", 1));
        pid = json_int(json_obj(r, "body"), "pid", 0);
        if (pid <= 0)
            fail_msg("spawn: %s", json_text(r));
        json_put(r);
        snprintf(text, sizeof(text), "%lld", (long long)pid);
        if (round)
            (void)poll(&none, 1, 12 * round); /* another moment each time */
        rig_kill_unit(g, "gateway");
        ws_close(w);
        w = ws_open(g->port, token, NULL, NULL);
        assert_non_null(w);
        subscribe(w, from);
        while (!output && (e = ws_event(w, "agent.output", 10000))) {
            output = str_eq(json_str(json_obj(e, "body"), "pid", ""), text) &&
                     json_str(json_obj(e, "body"), "text", "")[0];
            json_put(e);
        }
        if (!output)
            fail_msg("round %d: no agent.output of %s", round, text);
        ws_close(w);
    }
    free(token);
}

/* init does not answer who the agent is until the turn is over: nothing is lost, nothing overtakes.
 */
static void frames_wait_for_identification_in_order(void **state)
{
    struct pollfd none = { .fd = -1 };
    struct ws *w = ws_admin(g);
    json_object *r, *e;
    int64_t next = 0;
    bool final = false, ended = false;
    char pid[24];

    (void)state;
    subscribe(w, -1);
    r = ws_cmd(w, "proc", "spawn",
               json_make("agent:s goal:s oneShot:b", "researcher", "Say hello.", 1));
    kill(g->init_pid, SIGSTOP);
    snprintf(pid, sizeof(pid), "%lld", (long long)json_int(json_obj(r, "body"), "pid", 0));
    json_put(r);
    (void)poll(&none, 1, 300);
    kill(g->init_pid, SIGCONT);
    while (!ended && (e = ws_recv(w, 10000))) {
        json_object *b = json_obj(e, "body");

        if (str_eq(json_str(b, "pid", ""), pid)) {
            if (str_eq(json_str(e, "event", ""), "agent.output.chunk")) {
                int64_t seq = json_int(b, "seq", -1), at = json_int(b, "seq_from", seq);

                assert_false(final);
                assert_true(at == next || at == 0);
                next = seq + 1;
                final = json_flag(b, "is_final", false);
            }
            ended = str_eq(json_str(e, "event", ""), "agent.exit");
        }
        json_put(e);
    }
    assert_true(ended);
    assert_true(final);
    ws_close(w);
}

/* The kernel sends an event again until it hears of it: it is in the ring once. */
static void an_acknowledged_event_is_kept_once(void **state)
{
    (void)state;
#ifdef AVIX_SAN
    skip(); /* the table of units that this test forges is written by init, too: slow programs lose
               that race */
#endif
    struct ws *w = ws_admin(g);
    int64_t seq[3];

    subscribe(w, -1);
    (void)head_seq(w);
    become("kernel");
    for (int i = 0; i < 3; i++) {
        json_object *p = json_make(
            "event:s id:s body:o scope:o", "agent.status", i < 2 ? "ev-1" : "ev-2",
            json_make("pid:i status:s", (int64_t)777, "running"), json_make("user:s", "admin"));
        struct ipc_req q = { .sock = rig_sock(g, "gateway.sock"),
                             .method = "event.publish",
                             .params = p };
        struct ipc_reply r;

        if (i == 1)
            rig_kill_unit(g, "gateway"); /* the ring remembers over a crash */
        /* init writes the table too, whenever a unit changes: then we were not the kernel */
        int e = ERR_METHOD;
        for (int n = 0; n < 50 && e == ERR_METHOD; n++) {
            if (n % 10 == 9) /* it keeps what it once learned of a process */
                rig_kill_unit(g, "gateway");
            if (n || i == 1)
                become("kernel");
            e = ipc_call(&q, &r);
            if (e == ERR_METHOD)
                ipc_reply_done(&r);
        }
        assert_int_equal(e, 0);
        seq[i] = json_int(r.result, "seq", -1);
        ipc_reply_done(&r);
        json_put(p);
    }
    assert_true(seq[0] > 0);
    assert_int_equal(seq[0], seq[1]);
    assert_true(seq[2] > seq[1]);
    ws_close(w);
}

/* --- login ------------------------------------------------------------------------------------ */

static int login_with(const char *identity, const char *credential, char **reply)
{
    char *body = xasprintf("{\"identity\":\"%s\",\"credential\":\"%s\"}", identity, credential);
    int status = http_request(g->port, "POST", "/atp/auth/login", JSON, body, reply);

    free(body);
    return status;
}

/* The text behind the head of a reply. */
static const char *body_of(const char *reply)
{
    const char *p = strstr(reply, "\r\n\r\n");

    return p ? p + 4 : "";
}

static void wrong_and_unknown_read_the_same_then_lock(void **state)
{
    char *wrong = NULL, *unknown = NULL, *r = NULL;

    (void)state;
    assert_int_equal(login_with("admin", "sk-avix-wrongwrongwrongwrongwrongwrong00", &wrong), 401);
    assert_int_equal(login_with("nobody", "sk-avix-wrongwrongwrongwrongwrongwrong00", &unknown),
                     401);
    assert_string_equal(body_of(wrong), body_of(unknown));
    assert_string_equal(body_of(wrong), "{\"error\":\"EAUTH\",\"message\":\"invalid credential\"}");
    free(wrong);
    free(unknown);
    for (int i = 0; i < 4; i++)
        (void)login_with("admin", "sk-avix-wrongwrongwrongwrongwrongwrong00", NULL);
    /* the right one too, and it says when to come back */
    assert_int_equal(login_with("admin", g->api_key, &r), 429);
    assert_non_null(strstr(r, "Retry-After: "));
    assert_non_null(strstr(r, "\"error\":\"ELIMIT\""));
    assert_non_null(strstr(r, "\"retryAfter\":"));
    free(r);
    rig_kill_unit(g, "authsvc");
    assert_int_equal(login_with("admin", g->api_key, NULL), 429);
}

static void nothing_secret_in_the_logs(void **state)
{
    static const char *const logs[] = { "logs/gateway.log", "logs/authsvc.log", "logs/router.log" };
    char *token = NULL;
    struct ws *w;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    w = ws_open(g->port, token, NULL, NULL);
    assert_non_null(w);
    ws_close(w);
    (void)login_with("admin", "sk-avix-SECRETSECRETSECRETSECRETSECRET12", NULL);
    for (size_t i = 0; i < N_ELEMS(logs); i++) {
        cleanup(freep) char *text = rig_read(g, logs[i]);

        if (!text)
            continue;
        assert_null(strstr(text, token));
        assert_null(strstr(text, g->api_key));
        assert_null(strstr(text, "SECRETSECRET"));
    }
    free(token);
}

/* --- start and stop --------------------------------------------------------------------------- */

static void a_port_in_use_is_named(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof(a);
    cleanup(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char port[16], err[512] = "";
    const char *args[] = { "--port", port, NULL };
    struct rig_opts o = { .args = args };
    struct rig_opts idle = { .no_start = true };
    struct rig *other = rig_new(&idle);

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    snprintf(port, sizeof(port), "%d", ntohs(a.sin_port));
    assert_int_equal(rig_boot(other, &o, err, sizeof(err)), 1);
    if (!strstr(err, port) || !strstr(err, "in use"))
        fail_msg("stderr: %s", err);
    rig_stop(other);
}

static void a_shutdown_says_goodbye(void **state)
{
    struct rig *other = rig_new(NULL);
    char *token = NULL;
    struct ws *w;
    json_object *e;

    (void)state;
    assert_int_equal(atp_login(other->port, "admin", other->api_key, &token), 0);
    w = ws_open(other->port, token, NULL, NULL);
    json_put(ws_recv(w, 5000));
    assert_int_equal(rig_shutdown(other), 0);
    e = ws_recv(w, 5000);
    assert_string_equal(json_str(json_obj(e, "body"), "reason", ""), "shutdown");
    json_put(e);
    assert_null(ws_recv(w, 5000));
    assert_int_equal(ws_close_code(w), 1001);
    ws_close(w);
    free(token);
    rig_stop(other);
}

static long wakeups(void)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;
    const char *p;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)rig_unit_pid(g, "gateway"));
    assert_int_equal(file_read(path, 1 << 16, &text, &len), 0);
    p = strstr(text, "\nvoluntary_ctxt_switches:");
    return p ? strtol(p + 25, NULL, 10) : -1;
}

/* The one test that has to let time pass: it shows that nothing happens in it. */
static void it_sleeps_when_nobody_is_there(void **state)
{
    struct pollfd none = { .fd = -1 };
    long a = 0, b = -1;

    (void)state;
    for (int i = 0; i < 6 && a != b; i++) { /* what came before may still be settling */
        a = wakeups();
        (void)poll(&none, 1, 2000);
        b = wakeups();
    }
    assert_int_equal(a, b);
}

/* --- TLS -------------------------------------------------------------------------------------- */

static void use_tls(struct rig *r)
{
    static const char off[] = "tls: {mode: \"off\"}";
    char *y = rig_read(r, "etc/kernel.yaml");
    const char *at = strstr(y, off);
    char *out;

    assert_non_null(at);
    out = xasprintf("%.*stls: {mode: self-signed}%s", (int)(at - y), y, at + strlen(off));
    rig_write(r, "etc/kernel.yaml", out);
    free(y);
    free(out);
}

/* By an ordinary client: login, files, upgrade. */
static void self_signed_tls(void **state)
{
    struct rig_opts o = { .before = use_tls };
    struct rig *r;
    char url[128], *out = NULL, *body, *token, auth[2048], *cert;

    (void)state;
    if (access("/usr/bin/curl", X_OK)) {
        print_message("curl is not here: TLS is not tried\n");
        skip();
    }
    r = rig_new(&o);
    cert = xasprintf("%s/etc/tls/cert.pem", r->root);
    snprintf(url, sizeof(url), "https://localhost:%d/atp/auth/login", r->port);
    body = xasprintf("{\"credential\":\"%s\"}", r->api_key);
    const char *login[] = { "/usr/bin/curl",
                            "-sS",
                            "--cacert",
                            cert,
                            "-H",
                            "Content-Type: application/json",
                            "-d",
                            body,
                            url,
                            NULL };
    assert_int_equal(rig_run(r, login, NULL, &out, NULL), 0);
    json_object *reply = parse(out);
    token = xstrdup(json_str(reply, "token", ""));
    assert_true(strlen(token) > 20);
    json_put(reply);
    free(out);
    snprintf(auth, sizeof(auth), "Authorization: Bearer %s", token);
    snprintf(url, sizeof(url), "https://localhost:%d/atp", r->port);
    const char *upgrade[] = { "/usr/bin/curl",
                              "-sS",
                              "-i",
                              "-N",
                              "--http1.1",
                              "--max-time",
                              "2",
                              "--cacert",
                              cert,
                              "-H",
                              auth,
                              "-H",
                              "Upgrade: websocket",
                              "-H",
                              "Connection: Upgrade",
                              "-H",
                              "Sec-WebSocket-Version: 13",
                              "-H",
                              "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                              url,
                              NULL };
    (void)rig_run(r, upgrade, NULL, &out, NULL); /* ends by its own time limit */
    assert_non_null(strstr(out, "101 Switching Protocols"));
    assert_non_null(strstr(out, "session.ready"));
    free(out);
    /* TLS 1.2 is not spoken unless it is asked for */
    snprintf(url, sizeof(url), "https://localhost:%d/healthz", r->port);
    const char *old[] = { "/usr/bin/curl", "-sS", "--tls-max", "1.2", "--cacert", cert, url, NULL };
    assert_int_not_equal(rig_run(r, old, NULL, NULL, NULL), 0);
    char *log = rig_read(r, "logs/gateway.log");
    assert_non_null(strstr(log, "certificate SHA-256 "));
    free(log);
    free(cert);
    free(body);
    free(token);
    rig_stop(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_under_load_loses_and_repeats_nothing),
        cmocka_unit_test(frames_wait_for_identification_in_order),
        cmocka_unit_test(strangers_publish_nothing),
        cmocka_unit_test(a_standing_reader_catches_up_and_disturbs_nobody),
        cmocka_unit_test(what_the_ring_lost_closes_with_4008),
        cmocka_unit_test(nothing_secret_in_the_logs),
        cmocka_unit_test(it_sleeps_when_nobody_is_there),
        cmocka_unit_test(wrong_and_unknown_read_the_same_then_lock),
    };
    /* where init has not restarted anything yet */
    const struct CMUnitTest fresh[] = {
        cmocka_unit_test(an_answer_outlives_the_gateway),
    };
    /* takes the kernel's name away from it */
    const struct CMUnitTest last[] = {
        cmocka_unit_test(an_acknowledged_event_is_kept_once),
    };
    /* each with a daemon of its own */
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(a_shutdown_says_goodbye),
        cmocka_unit_test(self_signed_tls),
    };

    return cmocka_run_group_tests(tests, setup, teardown) +
           cmocka_run_group_tests(fresh, setup, teardown) +
           cmocka_run_group_tests(last, setup, teardown) +
           cmocka_run_group_tests(alone, NULL, NULL);
}
