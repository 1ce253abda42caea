/* The frame layer over a socket pair: cuts, limits, descriptors, credentials, short writes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/ipc/frame.h"

static int sv[2];
static struct frame_in in;

static int up(void **state)
{
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
    frame_in_init(&in, 1000);
    return 0;
}

static int down(void **state)
{
    (void)state;
    frame_in_done(&in);
    close(sv[0]);
    close(sv[1]);
    return 0;
}

static void put(const void *data, size_t len)
{
    assert_int_equal(write(sv[0], data, len), (ssize_t)len);
}

static enum frame_result get(const char **body, size_t *len)
{
    return frame_in_read(&in, sv[1], body, len);
}

static void byte_by_byte(void **state)
{
    static const char bytes[] = "\x02\0\0\0{}\x04\0\0\0[12]";
    const char *body = NULL;
    size_t len = 0, frames = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        enum frame_result r;

        put(bytes + i, 1);
        r = get(&body, &len);
        if (r == FRAME_READY)
            frames++;
        else
            assert_int_equal(r, FRAME_MORE);
        if (i == 5)
            assert_memory_equal(body, "{}", 2);
    }
    assert_int_equal(frames, 2);
    assert_memory_equal(body, "[12]", 4);
    assert_int_equal(get(&body, &len), FRAME_MORE);
    close(sv[0]);
    sv[0] = -1;
    assert_int_equal(get(&body, &len), FRAME_EOF);
}

static void many_at_once(void **state)
{
    char bytes[600];
    const char *body;
    size_t len;

    (void)state;
    for (size_t i = 0; i < 100; i++)
        memcpy(bytes + i * 6, "\x02\0\0\0{}", 6);
    put(bytes, sizeof(bytes));
    for (size_t i = 0; i < 100; i++) {
        enum frame_result r = i ? frame_in_next(&in, &body, &len) : get(&body, &len);

        assert_int_equal(r, FRAME_READY);
        assert_int_equal(len, 2);
    }
    assert_int_equal(frame_in_next(&in, &body, &len), FRAME_MORE);
}

static void limits(void **state)
{
    const char *body;
    size_t len = 0;

    (void)state;
    put("\xe9\x03\0\0", 4); /* 1001 */
    assert_int_equal(get(&body, &len), FRAME_TOOBIG);
    assert_int_equal(len, 1001);
    frame_in_done(&in);
    put("\x01\0\0\0", 4);
    assert_int_equal(get(&body, &len), FRAME_BAD);
    frame_in_done(&in);
    put("\xe8\x03\0\0abc", 7);
    assert_int_equal(get(&body, &len), FRAME_MORE);
    close(sv[0]);
    sv[0] = -1;
    assert_int_equal(get(&body, &len), FRAME_CUT);
}

/* A header that promises much takes no memory for it. */
static void a_false_header_costs_nothing(void **state)
{
    struct frame_in big;
    const char *body;
    size_t len;

    (void)state;
    frame_in_init(&big, FRAME_MAX);
    put("\0\0\0\1ab", 6);
    assert_int_equal(frame_in_read(&big, sv[1], &body, &len), FRAME_MORE);
    assert_int_equal(frame_in_read(&big, sv[1], &body, &len), FRAME_MORE);
    assert_true(big.b.cap < 3 * 65536);
    frame_in_done(&big);
}

static void descriptors(void **state)
{
    int fds[4] = { 0, 1, 2, 0 }, got[2] = { -1, -1 };
    const char *body;
    size_t len, n = 0;

    (void)state;
    assert_int_equal(frame_write_fds(sv[0], "{}", 2, fds, 2), 0);
    assert_int_equal(frame_in_recv(&in, sv[1], &body, &len, got, 2, &n), FRAME_READY);
    assert_int_equal(n, 2);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    n = 0; /* more than expected: closed and refused */
    assert_int_equal(frame_write_fds(sv[0], "{}", 2, fds, 4), 0);
    assert_int_equal(frame_in_recv(&in, sv[1], &body, &len, got, 2, &n), FRAME_BAD);
    for (size_t i = 0; i < n; i++)
        close(got[i]);
    frame_in_done(&in); /* none expected */
    assert_int_equal(frame_write_fds(sv[0], "{}", 2, fds, 1), 0);
    assert_int_equal(get(&body, &len), FRAME_BAD);
}

static void credentials(void **state)
{
    struct frame_cred cred = { .pid = 0 };
    const char *body;
    size_t len;
    int on = 1, one = 1;

    (void)state;
    assert_int_equal(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    assert_int_equal(frame_write_fds(sv[0], "{}", 2, NULL, 0), 0);
    assert_int_equal(frame_in_recv_cred(&in, sv[1], &body, &len, &cred), FRAME_READY);
    assert_int_equal(cred.pid, getpid());
    assert_int_equal(cred.uid, geteuid());
    assert_int_equal(frame_in_recv_cred(&in, sv[1], &body, &len, &cred), FRAME_MORE);
    assert_int_equal(cred.pid, 0);
    assert_int_equal(frame_write_fds(sv[0], "{}", 2, &one, 1), 0);
    assert_int_equal(frame_in_recv_cred(&in, sv[1], &body, &len, &cred), FRAME_BAD);
}

static void short_writes_go_on(void **state)
{
    struct frame_out out;
    size_t n = 3 << 20, total = 0, len = 0;
    cleanup(freep) char *big = xmalloc(n);
    static char sink[65536];
    int r;

    (void)state;
    memset(big, 'z', n);
    frame_out_init(&out, n + 100);
    assert_int_equal(frame_out_send(&out, sv[0], big, n), 1);
    assert_int_equal(frame_out_send(&out, sv[0], big, n), ERR_TOOBIG);
    assert_int_equal(frame_out_send(&out, sv[0], "{}", 2), 1); /* waits behind */
    do {
        ssize_t k;

        while ((k = read(sv[1], sink, sizeof(sink))) > 0) {
            if (!total)
                len = frame_get_len(sink);
            total += (size_t)k;
        }
        r = frame_out_flush(&out, sv[0]);
        assert_true(r >= 0);
    } while (r == 1);
    while ((r = (int)read(sv[1], sink, sizeof(sink))) > 0)
        total += (size_t)r;
    assert_int_equal(len, n);
    assert_int_equal(total, n + 4 + 6);
    close(sv[1]);
    sv[1] = -1;
    assert_int_equal(frame_out_send(&out, sv[0], "{}", 2), -EPIPE); /* no signal */
    frame_out_done(&out);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up, down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(byte_by_byte),
        T(many_at_once),
        T(limits),
        T(a_false_header_costs_nothing),
        T(descriptors),
        T(credentials),
        T(short_writes_go_on),
    };

    return cmocka_run_group_tests_name("ipc frame", tests, NULL, NULL);
}
