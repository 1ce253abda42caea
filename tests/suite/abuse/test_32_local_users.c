/*
 * Security page, test 32: another user of this machine. A cookie of a plain loopback login works
 * for the host uid that logged in and for no other; a listener of another uid gets no credential
 * from the client. Needs root, to be two users.
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

#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define STRANGER 65534

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

/* The status of a request that a process of this uid makes. */
static int as_uid(uid_t uid, const char *method, const char *path, const char *headers)
{
    int pipes[2], status = -1;
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    pid = fork();
    if (pid == 0) {
        int n = -2;

        if (setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0)
            n = http_request(g->port, method, path, headers, NULL, NULL);
        (void)!write(pipes[1], &n, sizeof(n));
        _exit(0);
    }
    close(pipes[1]);
    (void)!read(pipes[0], &status, sizeof(status));
    close(pipes[0]);
    waitpid(pid, NULL, 0);
    return status;
}

static bool may_be_two_users(void)
{
    if (geteuid() == 0)
        return true;
    print_message("SKIPPED: this test needs root\n");
    return false;
}

#define UPGRADE                                                                  \
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" \
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

static void a_stolen_cookie(void **state)
{
    cleanup(freep) char *body = NULL, *reply = NULL, *h = NULL, *up = NULL;
    char *cookie;

    (void)state;
    if (!may_be_two_users())
        return;
    body = xasprintf("{\"credential\":\"%s\",\"cookie\":true}", g->api_key);
    assert_int_equal(http_request(g->port, "POST", "/atp/auth/login",
                                  "Content-Type: application/json\r\n", body, &reply),
                     200);
    cookie = strstr(reply, "Set-Cookie: ");
    assert_non_null(cookie);
    cookie += strlen("Set-Cookie: ");
    cookie[strcspn(cookie, ";")] = '\0';
    h = xasprintf("Cookie: %s\r\nOrigin: http://localhost:%d\r\n", cookie, g->port);
    up = xasprintf("%s%s", h, UPGRADE);

    assert_int_equal(as_uid(STRANGER, "POST", "/atp/auth/refresh", h), 401);
    assert_int_equal(as_uid(STRANGER, "POST", "/atp/auth/logout", h), 401);
    assert_int_equal(as_uid(STRANGER, "GET", "/atp", up), 401);
    /* nor with the uid changed, which the MAC covers */
    char *uid = strstr(h, "~0~");
    assert_non_null(uid);
    cleanup(freep) char *forged = xasprintf("%.*s~%d~%s", (int)(uid - h), h, STRANGER, uid + 3);
    cleanup(freep) char *unbound = xasprintf("%.*s~-~%s", (int)(uid - h), h, uid + 3);
    assert_int_equal(as_uid(STRANGER, "POST", "/atp/auth/refresh", forged), 401);
    assert_int_equal(as_uid(STRANGER, "POST", "/atp/auth/refresh", unbound), 401);
    /* it was not used up by that, and works for its owner */
    assert_int_equal(as_uid(0, "GET", "/atp", up), 101);
    assert_int_equal(as_uid(0, "POST", "/atp/auth/refresh", h), 200);
}

/* A listener on a free loopback port under another uid. It says "hit" if anyone connects. */
static pid_t foreign_listener(int family, int *port, int *out)
{
    int pipes[2], p = 0;
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    pid = fork();
    if (pid == 0) {
        struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
        struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        bool v6 = family == AF_INET6;
        struct sockaddr *a = v6 ? (void *)&six : (void *)&four;
        socklen_t len = v6 ? sizeof(six) : sizeof(four);
        char c;
        int fd;

        if (setresgid(STRANGER, STRANGER, STRANGER) || setresuid(STRANGER, STRANGER, STRANGER) ||
            (fd = socket(family, SOCK_STREAM, 0)) < 0 || bind(fd, a, len) || listen(fd, 8) ||
            getsockname(fd, a, &len))
            _exit(1);
        p = ntohs(v6 ? six.sin6_port : four.sin_port);
        (void)!write(pipes[1], &p, sizeof(p));
        while ((fd = accept(fd, NULL, NULL)) >= 0 && recv(fd, &c, 1, 0) >= 0)
            (void)!write(pipes[1], "hit", 3);
        _exit(0);
    }
    close(pipes[1]);
    *port = read(pipes[0], &p, sizeof(p)) == sizeof(p) ? p : 0;
    *out = pipes[0];
    return pid;
}

static void no_credential_for(int family, const char *where)
{
    static const char *const commands[][3] = { { "client", "whoami", NULL },
                                               { "client", "connect", NULL },
                                               { "client", "status", "--json" } };
    int port, out;
    pid_t pid = foreign_listener(family, &port, &out);
    struct pollfd p = { .fd = out, .events = POLLIN };
    char url[64];

    if (!port && family == AF_INET6) {
        print_message("SKIPPED: no IPv6 loopback here\n");
        waitpid(pid, NULL, 0);
        close(out);
        return;
    }
    assert_true(port > 0);
    snprintf(url, sizeof(url), "%s:%d", where, port);
    for (size_t i = 0; i < N_ELEMS(commands); i++) {
        cleanup(freep) char *said = NULL, *err = NULL;
        int r = rig_avix(g, &said, &err, commands[i][0], commands[i][1], "--url", url,
                         commands[i][2], NULL);

        if (r != 3 || !strstr(err, "another local user"))
            fail_msg("%s: exit %d: %s%s", url, r, said, err);
        assert_null(strstr(err, g->api_key));
    }
    assert_int_equal(poll(&p, 1, 0), 0); /* nobody even connected */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(out);
}

static void a_foreign_listener(void **state)
{
    (void)state;
    if (!may_be_two_users())
        return;
    no_credential_for(AF_INET, "http://127.0.0.1");
    no_credential_for(AF_INET, "http://localhost");
    no_credential_for(AF_INET6, "http://[::1]");
    no_credential_for(AF_INET6, "http://localhost");
    no_credential_for(AF_INET, "ws://LOCALHOST");
    no_credential_for(AF_INET, "http://[::ffff:127.0.0.1]");
    no_credential_for(AF_INET, "http://127.1");
    no_credential_for(AF_INET, "http://2130706433");
    no_credential_for(AF_INET, "http://0.0.0.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stolen_cookie),
        cmocka_unit_test(a_foreign_listener),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
