/* Abuse test 34: a web page in the operator's browser. Whatever its origin, it gets nothing: no
 * login, refresh, logout, upgrade, not even a file. */
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

/* A request with a Host of one's own; status, 0 if nothing came. */
static int raw(const char *method, const char *path, const char *host, const char *headers,
               const char *body)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)g->port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *req = xasprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n%sContent-Length: "
                          "%zu\r\n\r\n%s",
                          method, path, host, strstr(headers, "Upgrade") ? "Upgrade" : "close",
                          headers, strlen(body), body);
    char reply[256] = "";
    int status = 0;

    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    (void)!send(fd, req, strlen(req), MSG_NOSIGNAL);
    if (recv(fd, reply, sizeof(reply) - 1, 0) > 12)
        status = (int)strtol(reply + 9, NULL, 10);
    close(fd);
    free(req);
    return status;
}

static const struct {
    const char *method, *path;
} doors[] = {
    { "POST", "/atp/auth/login" },
    { "POST", "/atp/auth/refresh" },
    { "POST", "/atp/auth/logout" },
    { "GET", "/atp" },
    { "GET", "/" },
    { "GET", "/style.css" },
    { "GET", "/metrics" },
    { "GET", "/healthz" },
    { "GET", "/readyz" },
};
#define WS                                                                                \
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAA" \
    "AAAAAAAAA==\r\n"

/* Every door with this Origin and Host, and with all that a good request has. */
static void all_doors(const char *host, const char *origin, const char *token, int status)
{
    for (size_t i = 0; i < N_ELEMS(doors); i++) {
        char *h =
            xasprintf("Content-Type: application/json\r\n%s%s%sAuthorization: Bearer %s\r\n%s",
                      origin ? "Origin: " : "", origin ? origin : "", origin ? "\r\n" : "", token,
                      str_eq(doors[i].path, "/atp") ? WS : "");
        char *body = xasprintf("{\"credential\":\"%s\"}", g->api_key);
        int got = raw(doors[i].method, doors[i].path, host, h,
                      str_eq(doors[i].path, "/atp/auth/login") ? body : "");

        if (got != status)
            fail_msg("%s %s host %s origin %s: %d instead of %d", doors[i].method, doors[i].path,
                     host, origin ? origin : "-", got, status);
        free(h);
        free(body);
    }
}

static void foreign_origins(void **state)
{
    char host[64], port[64], scheme[64], name[64], *token = NULL;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    snprintf(host, sizeof(host), "localhost:%d", g->port);
    snprintf(port, sizeof(port), "http://localhost:%d", g->port + 1);
    snprintf(scheme, sizeof(scheme), "https://localhost:%d", g->port);
    snprintf(name, sizeof(name), "http://127.0.0.1:%d", g->port);
    all_doors(host, "http://evil.example", token, 403);
    all_doors(host, "null", token, 403);
    all_doors(host, port, token, 403);
    all_doors(host, scheme, token, 403);
    all_doors(host, name, token, 403);
    all_doors(host, "http://localhost", token, 403);
    free(token);
}

static void rebinding_hosts(void **state)
{
    char evil[64], *token = NULL;

    (void)state;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0);
    snprintf(evil, sizeof(evil), "evil.example:%d", g->port);
    all_doors(evil, NULL, token, 421);
    all_doors("evil.example", "http://evil.example", token, 421);
    all_doors("localhost.evil.example", NULL, token, 421);
    all_doors("127.0.0.1.evil.example", NULL, token, 421);
    all_doors("169.254.169.254", NULL, token, 421);
    free(token);
}

/* A page that was rebound is of its own origin, so it may add headers. */
static void rebinding_with_forwarding_headers(void **state)
{
    char evil[64], *h;

    (void)state;
    snprintf(evil, sizeof(evil), "evil.example:%d", g->port);
    assert_int_equal(raw("GET", "/", evil, "X-Forwarded-For: 10.0.0.1\r\n", ""), 421);
    assert_int_equal(raw("GET", "/", evil, "X-Forwarded-Proto: https\r\n", ""), 421);
    h = xasprintf("X-Forwarded-Host: localhost:%d\r\n", g->port);
    assert_int_equal(raw("GET", "/", evil, h, ""), 421);
    free(h);
    h = xasprintf("X-Forwarded-Host: evil.example\r\nOrigin: http://evil.example\r\n");
    snprintf(evil, sizeof(evil), "localhost:%d", g->port);
    assert_int_equal(raw("GET", "/", evil, h, ""), 403);
    free(h);
}

/* What a form or a "simple" cross-site request can send. */
static void simple_requests(void **state)
{
    static const char *const types[] = { "application/x-www-form-urlencoded", "text/plain",
                                         "multipart/form-data; boundary=x" };
    char host[64], *body = xasprintf("{\"credential\":\"%s\"}", g->api_key);

    (void)state;
    snprintf(host, sizeof(host), "localhost:%d", g->port);
    for (size_t i = 0; i < N_ELEMS(types); i++) {
        char *h = xasprintf("Content-Type: %s\r\n", types[i]);

        assert_int_equal(raw("POST", "/atp/auth/login", host, h, body), 415);
        free(h);
    }
    assert_int_equal(raw("POST", "/atp/auth/login", host, "", body), 415);
    free(body);
}

static void cross_site_cookies(void **state)
{
    char *body = xasprintf("{\"credential\":\"%s\",\"cookie\":true}", g->api_key), *reply = NULL,
         *set, *h, host[64];

    (void)state;
    snprintf(host, sizeof(host), "localhost:%d", g->port);
    assert_int_equal(http_request(g->port, "POST", "/atp/auth/login",
                                  "Content-Type: application/json\r\n", body, &reply),
                     200);
    set = strstr(reply, "Set-Cookie: ");
    assert_non_null(set);
    set += strlen("Set-Cookie: ");
    set[strcspn(set, ";")] = '\0';
    h = xasprintf("Cookie: %s\r\nOrigin: http://evil.example\r\n", set);
    assert_int_equal(raw("POST", "/atp/auth/refresh", host, h, ""), 403);
    assert_int_equal(raw("POST", "/atp/auth/logout", host, h, ""), 403);
    free(h);
    h = xasprintf("Cookie: %s\r\n", set); /* without an Origin it is not used */
    assert_int_equal(raw("POST", "/atp/auth/refresh", host, h, ""), 403);
    free(h);
    h = xasprintf("Cookie: %s\r\n%s", set, WS);
    assert_int_equal(raw("GET", "/atp", host, h, ""), 403);
    free(h);
    free(body);
    free(reply);
}

/* No answer invites another origin. */
static void no_cors_anywhere(void **state)
{
    char *reply = NULL;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(doors); i++) {
        (void)http_request(g->port, doors[i].method, doors[i].path, NULL, "", &reply);
        assert_null(strcasestr(reply, "access-control-"));
        free(reply);
        reply = NULL;
    }
    assert_int_equal(http_request(g->port, "OPTIONS", "/atp/auth/login",
                                  "Access-Control-Request-Method: POST\r\n", NULL, &reply),
                     405);
    assert_null(strcasestr(reply, "access-control-"));
    free(reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_origins),
        cmocka_unit_test(rebinding_hosts),
        cmocka_unit_test(rebinding_with_forwarding_headers),
        cmocka_unit_test(simple_requests),
        cmocka_unit_test(cross_site_cookies),
        cmocka_unit_test(no_cors_anywhere),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
