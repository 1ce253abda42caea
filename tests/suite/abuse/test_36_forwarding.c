/*
 * Security page, test 36: what a forwarding header may do. From a peer that is no trusted proxy it
 * only takes away (no loopback privileges); from one that is, the address rules (allowlist,
 * lockout) go by the client's address, not by the proxy's, and nobody is a loopback peer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

static struct rig *g;

static void put(struct rig *x, const char *file, const char *from, const char *to)
{
    cleanup(freep) char *text = rig_read(x, file), *new = NULL;
    char *at = text ? strstr(text, from) : NULL;

    if (!at)
        fail_msg("%s has no '%s'", file, from);
    new = xasprintf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    rig_write(x, file, new);
}

/* The admin may come from 10.9.0.0/16 and 127.0.0.1 only. */
static void allowlist(struct rig *x)
{
    put(x, "etc/auth.conf", "ip_allowlist: []", "ip_allowlist: [10.9.0.0/16, 127.0.0.1]");
}

static void loopback_proxy(struct rig *x)
{
    allowlist(x);
    put(x, "etc/kernel.yaml", "  gateway:\n",
        "  gateway:\n    trusted_proxies: [127.0.0.2, 127.0.0.3]\n");
}

static void proxy_mode(struct rig *x)
{
    loopback_proxy(x);
    put(x, "etc/kernel.yaml", "tls: {mode: \"off\"}", "tls: {mode: proxy}");
}

static void begin(void (*before)(struct rig *x))
{
    struct rig_opts o = { .before = before };

    g = rig_new(&o);
}

/* A request from an address of this machine. Status; the whole answer in reply. */
static int from(const char *addr, const char *method, const char *path, const char *headers,
                const char *body, char *reply, size_t size)
{
    struct sockaddr_in me = { .sin_family = AF_INET };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)g->port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cleanup(freep) char *req =
        xasprintf("%s %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n%sContent-Length: "
                  "%zu\r\n\r\n%s",
                  method, path, g->port, headers, strlen(body), body);
    size_t have = 0;
    ssize_t n;

    inet_pton(AF_INET, addr, &me.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof(me)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    (void)!send(fd, req, strlen(req), MSG_NOSIGNAL);
    while (have + 1 < size && (n = recv(fd, reply + have, size - 1 - have, 0)) > 0)
        have += (size_t)n;
    reply[have] = '\0';
    close(fd);
    return have > 12 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

static int metrics(const char *addr, const char *headers)
{
    char reply[65536];

    return from(addr, "GET", "/metrics", headers, "", reply, sizeof(reply));
}

static int login(const char *addr, const char *headers, const char *credential)
{
    char reply[8192];
    cleanup(freep) char *h = xasprintf("Content-Type: application/json\r\n%s", headers);
    cleanup(freep) char *body =
        xasprintf("{\"identity\":\"admin\",\"credential\":\"%s\"}", credential);

    return from(addr, "POST", "/atp/auth/login", h, body, reply, sizeof(reply));
}

static const char *const marks[] = {
    "X-Forwarded-For: 10.9.0.1\r\n",
    "X-Forwarded-For: 127.0.0.1\r\n",
    "X-Forwarded-Proto: http\r\n",
    "X-Forwarded-Host: a\r\n",
    "X-Forwarded-Proto: a-very-long-protocol-name-here\r\n",
    "Forwarded: for=127.0.0.1\r\n",
    "X-Real-IP: 127.0.0.1\r\n",
    "Via: 1.1 proxy\r\n",
};

/* Nobody is trusted: a header can only close doors. */
static void an_untrusted_peer(void **state)
{
    (void)state;
    begin(allowlist);
    assert_int_equal(metrics("127.0.0.1", ""), 200);
    for (size_t i = 0; i < N_ELEMS(marks); i++)
        if (metrics("127.0.0.1", marks[i]) != 401)
            fail_msg("/metrics was open with %s", marks[i]);
    /* its own address counts: a name in a header opens nothing */
    assert_int_equal(login("127.0.0.7", "X-Forwarded-For: 10.9.0.1\r\n", g->api_key), 401);
    assert_int_equal(login("127.0.0.7", "X-Real-IP: 127.0.0.1\r\n", g->api_key), 401);
    assert_int_equal(login("127.0.0.1", "X-Forwarded-For: 6.6.6.6\r\n", g->api_key), 200);
    rig_stop(g);
}

/* A proxy on loopback, mode off: its clients are who it says they are. */
static void a_proxy_on_loopback(void **state)
{
    cleanup(freep) char *pad = xcalloc(1, 6001), *loud = NULL;

    (void)state;
    begin(loopback_proxy);
    for (size_t i = 0; i < N_ELEMS(marks); i++)
        if (metrics("127.0.0.2", marks[i]) != 401)
            fail_msg("/metrics was open through a proxy with %s", marks[i]);
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.3.4\r\n", g->api_key), 200);
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 6.6.6.6\r\n", g->api_key), 401);
    /* what stands left of the proxies' own words anyone could have written */
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.3.4, 6.6.6.6\r\n", g->api_key), 401);
    assert_int_equal(
        login("127.0.0.2", "X-Forwarded-For: 10.9.3.4\r\nX-Forwarded-For: 6.6.6.6\r\n", g->api_key),
        401);
    assert_int_equal(
        login("127.0.0.2", "X-Forwarded-For: 6.6.6.6, 10.9.3.4, 127.0.0.3\r\n", g->api_key), 200);
    /* a long one and a broken one stand for nobody: not for the proxy, whose address might do */
    memset(pad, ' ', 6000);
    for (size_t i = 0; i + 9 < 6000; i += 9)
        memcpy(pad + i, "10.9.3.4,", 9);
    loud = xasprintf("X-Forwarded-For: %s 6.6.6.6\r\n", pad);
    assert_int_equal(login("127.0.0.2", loud, g->api_key), 401);
    assert_int_equal(login("127.0.0.3", "X-Forwarded-For: 10.9.3.4, junk\r\n", g->api_key), 401);
    rig_stop(g);
}

/* Failures count for the client behind the proxy, and lock nobody else behind it. */
static void lockout_by_the_client(void **state)
{
    (void)state;
    begin(loopback_proxy);
    for (int i = 0; i < 5; i++)
        assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.0.6\r\n", "sk-avix-wrong"), 401);
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.0.6\r\n", g->api_key), 429);
    assert_int_equal(login("127.0.0.3", "X-Forwarded-For: 10.9.0.6\r\n", g->api_key), 429);
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.0.7\r\n", g->api_key), 200);
    rig_stop(g);
}

static void proxies_only(void **state)
{
    (void)state;
    begin(proxy_mode);
    assert_int_equal(metrics("127.0.0.1", ""), 403);
    assert_int_equal(login("127.0.0.1", "", g->api_key), 403);
    assert_int_equal(login("127.0.0.1", "X-Forwarded-For: 10.9.0.1\r\n", g->api_key), 403);
    assert_int_equal(metrics("127.0.0.2", ""), 401); /* nobody is a loopback peer here */
    assert_int_equal(metrics("127.0.0.2", "X-Forwarded-For: 127.0.0.1\r\n"), 401);
    assert_int_equal(login("127.0.0.2", "X-Forwarded-For: 10.9.0.1\r\n", g->api_key), 200);
    rig_stop(g);
}

/* policy.require_tls: what is not secure gets neither a login nor an upgrade. */
static void want_tls(struct rig *x)
{
    proxy_mode(x);
    put(x, "etc/auth.conf", "require_tls: false", "require_tls: true");
}

static int upgrade(const char *addr, const char *headers, const char *token)
{
    char reply[4096];
    struct sockaddr_in me = { .sin_family = AF_INET };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)g->port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cleanup(freep) char *req =
        xasprintf("GET /atp HTTP/1.1\r\nHost: localhost:%d\r\nConnection: Upgrade\r\nUpgrade: "
                  "websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                  "AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n%s\r\n",
                  g->port, token, headers);
    ssize_t n;

    inet_pton(AF_INET, addr, &me.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof(me)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    (void)!send(fd, req, strlen(req), MSG_NOSIGNAL);
    n = recv(fd, reply, sizeof(reply) - 1, 0);
    reply[n > 0 ? n : 0] = '\0';
    close(fd);
    return n > 12 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

static void nothing_insecure(void **state)
{
    static const char secure[] = "X-Forwarded-For: 10.9.0.1\r\nX-Forwarded-Proto: https\r\n",
                      plain[] = "X-Forwarded-For: 10.9.0.1\r\nX-Forwarded-Proto: http\r\n",
                      silent[] = "X-Forwarded-For: 10.9.0.1\r\n";
    cleanup(freep) char *h = xasprintf("Content-Type: application/json\r\n%s", secure);
    cleanup(freep) char *body = NULL, *token = NULL;
    char reply[8192], *at;

    (void)state;
    begin(want_tls);
    body = xasprintf("{\"identity\":\"admin\",\"credential\":\"%s\"}", g->api_key);
    assert_int_equal(login("127.0.0.2", plain, g->api_key), 426);
    assert_int_equal(login("127.0.0.2", silent, g->api_key), 426);
    assert_int_equal(from("127.0.0.2", "POST", "/atp/auth/login", h, body, reply, sizeof(reply)),
                     200);
    at = strstr(reply, "\"token\":\"");
    assert_non_null(at);
    token = xstrndup(at + 9, strcspn(at + 9, "\""));
    assert_int_equal(upgrade("127.0.0.2", plain, token), 426);
    assert_int_equal(upgrade("127.0.0.2", silent, token), 426);
    assert_int_equal(upgrade("127.0.0.2", secure, token), 101);
    /* a new gateway has heard nothing of the policy yet */
    rig_kill_unit(g, "gateway");
    assert_int_equal(upgrade("127.0.0.2", plain, token), 426);
    assert_int_equal(upgrade("127.0.0.2", secure, token), 101);
    rig_stop(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untrusted_peer),     cmocka_unit_test(a_proxy_on_loopback),
        cmocka_unit_test(lockout_by_the_client), cmocka_unit_test(proxies_only),
        cmocka_unit_test(nothing_insecure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
