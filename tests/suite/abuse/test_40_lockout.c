/*
 * Security page, test 40: guessing. Failures lock the pair of identity and address, whatever the
 * credential; an identity that is attacked from everywhere still lets its owner in by key, or by
 * password on the loopback admin listener. No answer says why, nor does its time. However many
 * guess at once, two hashes are computed and memory stays bounded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <argon2.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define PASSWORD "correct horse battery"
#define PARALLEL 64

static struct rig *g;

static void identities(struct rig *x)
{
    cleanup(freep) char *text = rig_read(x, "etc/auth.conf");
    char hash[160];
    struct buf b = BUF_INIT(1 << 20);

    assert_int_equal(argon2id_hash_encoded(3, 65536, 4, PASSWORD, strlen(PASSWORD),
                                           "0123456789abcdef", 16, 32, hash, sizeof(hash)),
                     0);
    buf_adds(&b, text);
    for (int i = 0; i < 3; i++)
        buf_printf(&b,
                   "  - {name: pat%d, uid: %d, role: admin, credential: {type: password, "
                   "password_hash: \"%s\"}}\n",
                   i, 1100 + i, hash);
    buf_printf(&b,
               "  - {name: shut, uid: 1200, role: user, locked: true, credential: {type: password, "
               "password_hash: \"%s\"}}\n"
               "  - {name: far, uid: 1201, role: user, credential: {type: password, "
               "password_hash: \"%s\", ip_allowlist: [10.0.0.0/8]}}\n",
               hash, hash);
    rig_write(x, "etc/auth.conf", b.data);
    buf_done(&b);
}

static int setup(void **state)
{
    const struct rig_opts o = { .before = identities };

    (void)state;
    g = rig_new(&o);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

/* Sends a login from an address of this machine; the connected socket. */
static int ask(int port, const char *addr, const char *identity, const char *credential)
{
    struct sockaddr_in me = { .sin_family = AF_INET };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cleanup(freep) char *body =
        xasprintf("{\"identity\":\"%s\",\"credential\":\"%s\"}", identity, credential);
    cleanup(freep) char *req =
        xasprintf("POST /atp/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                  strlen(body), body);

    inet_pton(AF_INET, addr, &me.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof(me)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_true(send(fd, req, strlen(req), MSG_NOSIGNAL) == (ssize_t)strlen(req));
    return fd;
}

/* Reads the answer to its end; its status. */
static int answer(int fd, char *reply, size_t size)
{
    size_t have = 0;
    ssize_t n;

    while (have + 1 < size && (n = recv(fd, reply + have, size - 1 - have, 0)) > 0)
        have += (size_t)n;
    reply[have] = '\0';
    close(fd);
    return have > 12 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

static int login_at(int port, const char *addr, const char *identity, const char *credential)
{
    char reply[8192];

    return answer(ask(port, addr, identity, credential), reply, sizeof(reply));
}

static int login(const char *addr, const char *identity, const char *credential)
{
    return login_at(g->port, addr, identity, credential);
}

static void the_pair_is_locked(void **state)
{
    char reply[8192];

    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(login("127.4.0.1", "pat0", "wrong"), 401);
    assert_int_equal(answer(ask(g->port, "127.4.0.1", "pat0", PASSWORD), reply, sizeof(reply)),
                     429);
    assert_non_null(strstr(reply, "\r\nRetry-After: "));
    assert_non_null(strstr(reply, "\"retryAfter\":"));
    assert_null(strstr(reply, "pat0"));
    assert_int_equal(login("127.4.0.2", "pat0", PASSWORD), 200);
    rig_kill_unit(g, "authsvc"); /* the count outlives it */
    assert_int_equal(login("127.4.0.1", "pat0", PASSWORD), 429);
    assert_int_equal(login("127.4.0.2", "pat0", PASSWORD), 200);
    assert_int_equal(login("127.4.0.1", "admin", g->api_key), 429); /* the address's own rate */
}

static const struct {
    const char *identity, *credential;
} wrong[] = {
    { "nobody-here", PASSWORD },
    { "pat1", "wrong" },
    { "shut", PASSWORD },
    { "far", PASSWORD },
    { "shut", "wrong" },
    { "admin", "sk-avix-wrong" },
    { "nobody-here", "sk-avix-unknown" },
    { "admin", PASSWORD },
    { "", "sk-avix-unknown" },
};
#define ROUNDS 7

static int by_value(const void *a, const void *b)
{
    return (*(const int64_t *)a > *(const int64_t *)b) -
           (*(const int64_t *)a < *(const int64_t *)b);
}

/* One text, one price. Each request has an address of its own, so that no rate gets in the way. */
static void refusals_are_alike(void **state)
{
    int64_t times[N_ELEMS(wrong)][ROUNDS], least = INT64_MAX, most = 0;
    char first[8192] = "", reply[8192], addr[32];

    (void)state;
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < N_ELEMS(wrong); i++) {
            snprintf(addr, sizeof(addr), "127.5.%d.%zu", round, i + 1);
            int64_t t0 = mono_us();
            int status = answer(ask(g->port, addr, wrong[i].identity, wrong[i].credential), reply,
                                sizeof(reply));

            times[i][round] = mono_us() - t0;
            if (status != 401)
                fail_msg("'%s': %d\n%s", wrong[i].identity, status, reply);
            if (!*first)
                str_copy(first, sizeof(first), reply);
            assert_string_equal(reply, first); /* headers too */
        }
    for (size_t i = 0; i < N_ELEMS(wrong); i++) {
        qsort(times[i], ROUNDS, sizeof(times[i][0]), by_value);
        int64_t median = times[i][ROUNDS / 2];

        least = median < least ? median : least;
        most = median > most ? median : most;
    }
    /* one hash is tens of milliseconds: a path without one would be far below half */
    if (most > 2 * least)
        fail_msg("medians between %lld and %lld us", (long long)least, (long long)most);
}

/* Many addresses, one failure each: the password closes, the key and the admin listener do not. */
static void attacked_from_everywhere(void **state)
{
    char addr[32];

    (void)state;
    for (int i = 0; i < 50; i++) {
        snprintf(addr, sizeof(addr), "127.6.0.%d", i + 1);
        assert_int_equal(login(addr, "pat2", "wrong"), 401);
        assert_int_equal(login(addr, "admin", "sk-avix-wrong"), 401);
    }
    assert_int_equal(login("127.6.1.1", "pat2", PASSWORD), 429);
    assert_int_equal(login("127.6.1.1", "admin", g->api_key), 200);
    assert_int_equal(login_at(g->admin_port, "127.6.1.2", "pat2", PASSWORD), 200);
    assert_int_equal(login("127.6.1.3", "pat2", PASSWORD), 200); /* that cleared the count */
}

static int64_t __attribute__((unused)) peak_kib(void)
{
    char path[64];
    cleanup(freep) char *text = NULL;
    size_t len;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)rig_unit_pid(g, "authsvc"));
    assert_int_equal(file_read(path, 65536, &text, &len), 0);
    char *at = strstr(text, "VmHWM:");
    assert_non_null(at);
    return strtoll(at + 6, NULL, 10);
}

/* A hash takes 64 MiB, so the peak counts how many there were at once. */
static void many_at_once(void **state)
{
    int fds[PARALLEL], refused = 0, busy = 0;
    char addr[32], reply[8192];
    int64_t t0;

    (void)state;
    for (int i = 0; i < PARALLEL; i++) {
        snprintf(addr, sizeof(addr), "127.7.0.%d", i + 1);
        fds[i] = ask(g->port, addr, "pat1", "wrong");
    }
    t0 = mono_ms(); /* who has a key waits for nobody's hash */
    assert_int_equal(login("127.7.1.1", "admin", g->api_key), 200);
    assert_true(mono_ms() - t0 < 1000);
    for (int i = 0; i < PARALLEL; i++) {
        int status = answer(fds[i], reply, sizeof(reply));

        refused += status == 401;
        busy += status == 429;
    }
    assert_int_equal(refused + busy, PARALLEL);
    assert_true(refused >= 2 && busy > 0);
#ifndef AVIX_SAN
    if (peak_kib() >= (2 * 64 + 48) * 1024)
        fail_msg("VmHWM of authsvc: %lld KiB", (long long)peak_kib());
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(the_pair_is_locked),
        cmocka_unit_test(refusals_are_alike),
        cmocka_unit_test(attacked_from_everywhere),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
