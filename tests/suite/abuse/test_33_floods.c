/* Abuse test 33: half-open sockets, slow frames, too many connections, failed logins without end.
 * Whoever is there by right is served within a second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define HALF_OPEN 400
#define LOGINS    1000

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

/* From another address of this machine, so that the flood is not counted on ours. */
static int dial(const char *from)
{
    struct sockaddr_in me = { .sin_family = AF_INET };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)g->port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, from, &me.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof(me)), 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to))) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A command on a connection that exists, and a new login, each within a second. */
static void served(struct ws *w)
{
    int64_t t0 = mono_ms();
    json_object *r = ws_cmd(w, "proc", "list", json_new());

    if (!json_flag(r, "ok", false) || mono_ms() - t0 >= 1000)
        fail_msg("%s after %lld ms, close %d", r ? json_text(r) : "no reply",
                 (long long)(mono_ms() - t0), ws_close_code(w));
    json_put(r);
    t0 = mono_ms();
    assert_int_equal(http_request(g->port, "GET", "/healthz", NULL, NULL, NULL), 200);
    assert_true(mono_ms() - t0 < 1000);
}

static bool closed_by_peer(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char c;

    return poll(&p, 1, 2000) == 1 && recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
}

static void half_open_sockets(void **state)
{
    struct ws *w = ws_admin(g);
    int fds[HALF_OPEN], open_ones = 0;

    (void)state;
    for (int i = 0; i < HALF_OPEN; i++) {
        fds[i] = dial("127.0.0.7");
        if (fds[i] >= 0 && i % 2)
            (void)!send(fds[i], "GET /atp HTTP/1.1\r\nHost:", 24, MSG_NOSIGNAL);
    }
    served(w);
    /* at most 32 of them are kept */
    for (int i = 0; i < HALF_OPEN; i++) {
        struct pollfd p = { .fd = fds[i], .events = POLLIN };
        char c;

        if (fds[i] >= 0 && !(poll(&p, 1, 0) == 1 && recv(fds[i], &c, 1, MSG_DONTWAIT) <= 0))
            open_ones++;
    }
    assert_true(open_ones <= 32);
    for (int i = 0; i < HALF_OPEN; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    served(w);
    ws_close(w);
}

/* One byte at a time: cut after ten seconds, and nobody waits for it. */
static void a_slow_head(void **state)
{
    static const char head[] =
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaa";
    struct ws *w = ws_admin(g);
    int fd = dial("127.0.0.8");
    int64_t t0 = mono_ms();
    bool cut = false;

    (void)state;
    for (size_t i = 0; !cut && mono_ms() - t0 < 14000; i++) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        char c;

        if (i < sizeof(head) - 1)
            (void)!send(fd, head + i, 1, MSG_NOSIGNAL);
        cut = poll(&p, 1, 200) == 1 && recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
        if (i % 16 == 0)
            served(w);
    }
    assert_true(cut);
    assert_in_range(mono_ms() - t0, 8000, 13500);
    close(fd);
    ws_close(w);
}

/* A WebSocket frame that never ends holds nobody up. */
static void slow_frames(void **state)
{
    struct ws *w = ws_admin(g), *slow = ws_admin(g);
    static const uint8_t begin[] = { 0x81, 0xfe, 0xff, 0xff, 1, 2, 3, 4, 'x', 'y' };

    (void)state;
    for (size_t i = 0; i < sizeof(begin); i++)
        (void)!send(ws_fd(slow), begin + i, 1, MSG_NOSIGNAL);
    served(w);
    ws_close(slow);
    ws_close(w);
}

static void connections_of_one_user(void **state)
{
    struct ws *all[40] = { NULL }, *w;
    char *token = NULL;
    int status = 0, ok = 0;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    for (int i = 0; i < 40; i++) {
        all[i] = ws_open(g->port, token, NULL, &status);
        if (all[i])
            ok++;
        else
            assert_int_equal(status, 429);
    }
    assert_int_equal(ok, 32);
    w = all[0];
    json_put(ws_recv(w, 5000));
    served(w);
    for (int i = 0; i < 40; i++)
        ws_close(all[i]);
    free(token);
}

/* Most from an address that is locked soon, some from ever new ones. */
static void failed_logins(void **state)
{
    static const char body[] = "{\"identity\":\"admin\",\"credential\":\"sk-avix-wrong\"}";
    struct ws *w = ws_admin(g);
    char req[512], ip[32];
    int n = snprintf(req, sizeof(req),
                     "POST /atp/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof(body) - 1, body);
    int refused = 0;

    (void)state;
    for (int i = 0; i < LOGINS; i++) {
        char reply[64] = "";
        int fd;

        if (i % 50 == 0) /* each of these costs authsvc a hash */
            snprintf(ip, sizeof(ip), "127.1.1.%d", 1 + i / 50);
        else
            snprintf(ip, sizeof(ip), "127.1.0.9");
        fd = dial(ip);
        assert_true(fd >= 0);
        (void)!send(fd, req, (size_t)n, MSG_NOSIGNAL);
        (void)!recv(fd, reply, sizeof(reply) - 1, 0);
        refused += strstr(reply, " 401 ") || strstr(reply, " 429 ");
        close(fd);
        if (i % 250 == 0)
            served(w);
    }
    assert_int_equal(refused, LOGINS);
    served(w);
    ws_close(w);
}

/* The gateway's own ceiling: the oldest that said nothing makes room, what works goes on. */
static void more_sockets_than_it_holds(void **state)
{
    struct ws *w = ws_admin(g);
    struct rlimit rl = { .rlim_cur = 8192, .rlim_max = 8192 };
    static int fds[5400];
    char ip[32];
    int n = 0;

    (void)state;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < 6000) {
        rl.rlim_cur = rl.rlim_max < 8192 ? rl.rlim_max : 8192;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
    for (int i = 0; i < (int)N_ELEMS(fds) && (rlim_t)i + 64 < rl.rlim_cur; i++, n++) {
        snprintf(ip, sizeof(ip), "127.2.%d.%d", i / 30 / 200, 1 + i / 30 % 200);
        fds[i] = dial(ip);
        if (fds[i] < 0)
            break;
    }
    served(w);
    if (n > 5200)
        assert_true(closed_by_peer(fds[0]));
    for (int i = 0; i < n; i++)
        close(fds[i]);
    served(w);
    ws_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_open_sockets),          cmocka_unit_test(slow_frames),
        cmocka_unit_test(connections_of_one_user),    cmocka_unit_test(failed_logins),
        cmocka_unit_test(more_sockets_than_it_holds), cmocka_unit_test(a_slow_head),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
