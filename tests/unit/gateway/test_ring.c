/* The event ring: order, eviction, recovery from every torn state, numbers never given twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "common/base/err.h"
#include "gateway/ring.h"

#define BOOT  77U
#define FIRST 1000U

static char path[300];

static int setup(void **state)
{
    const char *dir = getenv("TMPDIR");

    (void)state;
    snprintf(path, sizeof(path), "%s/ring-%d", dir ? dir : "/tmp", (int)getpid());
    unlink(path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static struct ring *open_with(size_t bytes, unsigned events)
{
    struct ring *r = NULL;

    assert_int_equal(ring_open(path, BOOT, FIRST, bytes, events, &r), 0);
    return r;
}

static uint64_t add(struct ring *r, const char *text, const char *id)
{
    struct ring_ev e = { .seq = ring_take_seq(r),
                         .pid = 157,
                         .role = 2,
                         .kind = "agent.output",
                         .user = "alice",
                         .id = id,
                         .text = text,
                         .len = strlen(text) };

    assert_int_equal(ring_append(r, &e), 0);
    return e.seq;
}

static unsigned walk(const struct ring *r, uint64_t after, uint64_t *last)
{
    struct ring_ev e;
    unsigned n = 0;

    for (uint64_t at = after; ring_after(r, at, &e); at = e.seq) {
        assert_true(e.seq > at);
        n++;
        *last = e.seq;
    }
    return n;
}

static void keeps_events_byte_for_byte(void **state)
{
    struct ring *r = open_with(65536, 64);
    struct ring_ev e;

    (void)state;
    assert_int_equal(add(r, "{\"a\":1}", "x-1"), FIRST);
    assert_int_equal(add(r, "{\"b\":2}", ""), FIRST + 1);
    assert_int_equal(ring_head(r), FIRST + 1);
    assert_int_equal(ring_floor(r), FIRST - 1);
    assert_true(ring_after(r, FIRST, &e));
    assert_int_equal(e.seq, FIRST + 1);
    assert_memory_equal(e.text, "{\"b\":2}", e.len);
    assert_string_equal(e.user, "alice");
    assert_string_equal(e.kind, "agent.output");
    assert_int_equal(e.pid, 157);
    assert_false(ring_after(r, FIRST + 1, &e));
    assert_int_equal(ring_find_id(r, "x-1"), FIRST);
    assert_int_equal(ring_find_id(r, "x-2"), 0);
    ring_close(r);
}

static void a_restart_goes_on_with_higher_numbers(void **state)
{
    struct ring *r = open_with(65536, 64);
    uint64_t last = 0, seq;

    (void)state;
    add(r, "one", "id-1");
    (void)ring_take_seq(r); /* a chunk: numbered, not kept */
    seq = ring_head(r);
    ring_close(r);
    r = open_with(65536, 64);
    assert_int_equal(walk(r, 0, &last), 1);
    assert_int_equal(last, FIRST);
    assert_true(ring_take_seq(r) > seq);
    assert_int_equal(ring_find_id(r, "id-1"), FIRST);
    ring_close(r);
}

static void another_boot_starts_empty_above_the_old_numbers(void **state)
{
    struct ring *r = open_with(65536, 64);
    struct ring_ev e;
    uint64_t old;

    (void)state;
    add(r, "one", "");
    old = ring_head(r);
    ring_close(r);
    assert_int_equal(ring_open(path, BOOT + 1, 5, 65536, 64, &r), 0);
    assert_false(ring_after(r, 0, &e));
    assert_true(ring_floor(r) >= old);
    assert_true(ring_take_seq(r) > old);
    ring_close(r);
}

static void the_oldest_go_when_it_is_full_by_number(void **state)
{
    struct ring *r = open_with(1 << 20, 8);
    uint64_t last = 0;

    (void)state;
    for (int i = 0; i < 20; i++)
        add(r, "event", "");
    assert_int_equal(ring_count(r), 8);
    assert_int_equal(ring_floor(r), FIRST + 11);
    assert_int_equal(walk(r, 0, &last), 8);
    assert_int_equal(last, FIRST + 19);
    assert_int_equal(ring_evicted(r), 12);
    ring_close(r);
}

static void an_evicted_id_is_forgotten(void **state)
{
    struct ring *r = open_with(1 << 20, 2);

    (void)state;
    add(r, "1", "a");
    add(r, "2", "b");
    add(r, "3", "c");
    assert_int_equal(ring_find_id(r, "a"), 0);
    assert_int_equal(ring_find_id(r, "b"), FIRST + 1);
    ring_close(r);
}

/* Lengths that leave every kind of rest at the end of the circle. */
static void it_wraps_and_recovers_at_every_step(void **state)
{
    char text[1500];
    unsigned lens[] = { 1, 900, 37, 1200, 8, 511, 64, 1499, 333 };
    uint64_t floor_before = 0;

    (void)state;
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 400; i++) {
        struct ring *r = open_with(8192, 64);
        uint64_t last = 0, head;
        unsigned n, kept;

        text[lens[(size_t)i % N_ELEMS(lens)]] = '\0';
        head = add(r, text, "");
        text[lens[(size_t)i % N_ELEMS(lens)]] = 'x';
        kept = ring_count(r);
        n = walk(r, 0, &last);
        assert_int_equal(n, kept);
        assert_int_equal(last, head);
        assert_true(ring_floor(r) >= floor_before);
        floor_before = ring_floor(r);
        ring_close(r);
        r = open_with(8192, 64);
        assert_int_equal(walk(r, 0, &last), kept);
        assert_int_equal(last, head);
        ring_close(r);
    }
}

/* One byte changed in the newest record: it is dropped, the rest stays. */
static void a_torn_tail_is_dropped(void **state)
{
    struct ring *r = open_with(65536, 64);
    uint64_t last = 0;
    int fd;
    off_t size;
    char page[65536 + 4096];

    (void)state;
    add(r, "first-first", "");
    add(r, "second-second", "");
    ring_close(r);
    fd = open(path, O_RDWR);
    size = pread(fd, page, sizeof(page), 0);
    char *hit = memmem(page, (size_t)size, "second-second", 13);
    assert_non_null(hit);
    assert_int_equal(pwrite(fd, "X", 1, hit - page), 1);
    close(fd);
    r = open_with(65536, 64);
    assert_int_equal(walk(r, 0, &last), 1);
    assert_int_equal(last, FIRST);
    assert_true(add(r, "third", "") > FIRST + 1);
    assert_int_equal(walk(r, 0, &last), 2);
    ring_close(r);
}

static void garbage_in_the_file_is_survived(void **state)
{
    static char junk[65536 + 4096];
    uint64_t last;

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct ring *r = open_with(65536, 64);
        int fd;

        for (int i = 0; i < 30; i++)
            add(r, "something that is long enough to be hit", "id");
        ring_close(r);
        srandom(round);
        for (size_t i = 0; i < sizeof(junk); i++)
            junk[i] = (char)random();
        fd = open(path, O_RDWR);
        assert_true(pwrite(fd, junk, 200, (off_t)(4096 + random() % 3000)) == 200);
        close(fd);
        r = open_with(65536, 64);
        (void)walk(r, 0, &last);
        add(r, "after", "");
        ring_close(r);
    }
}

static void an_event_over_a_quarter_is_refused(void **state)
{
    struct ring *r = open_with(8192, 64);
    static char big[4000];
    struct ring_ev e = { .kind = "k", .user = "", .id = "", .text = big, .len = sizeof(big) };

    (void)state;
    e.seq = ring_take_seq(r);
    assert_int_equal(ring_append(r, &e), ERR_TOOBIG);
    ring_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_events_byte_for_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restart_goes_on_with_higher_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(another_boot_starts_empty_above_the_old_numbers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_oldest_go_when_it_is_full_by_number, setup, teardown),
        cmocka_unit_test_setup_teardown(an_evicted_id_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(it_wraps_and_recovers_at_every_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_torn_tail_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_in_the_file_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(an_event_over_a_quarter_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
