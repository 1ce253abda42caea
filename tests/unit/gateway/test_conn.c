/* Delivery: gates, queue, merging, slow readers, replay without hole or duplicate. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "gateway/atp.h"
#include "gateway/bus.h"
#include "gateway/conn.h"
#include "gateway/turns.h"

static char path[300];
static int closed_with;

static void wake(struct conn *c)
{
    (void)c;
}

static void close_it(struct conn *c, int code, const char *reason)
{
    (void)c;
    (void)reason;
    closed_with = code;
}

struct client {
    struct conn c;
    struct ident id;
    struct sess s;
};

static struct client *client(const char *user, enum role role)
{
    struct client *k = xcalloc(1, sizeof(*k));

    k->id.refs = 1000; /* never freed by the connection */
    k->id.valid = true;
    k->id.role = role;
    k->id.exp_ms = now_ms() + 3600000;
    str_copy(k->id.identity, sizeof(k->id.identity), user);
    k->id.sess = &k->s;
    k->c.id = &k->id;
    k->c.wake = wake;
    k->c.close = close_it;
    conn_init(&k->c);
    return k;
}

static void gone(struct client *k)
{
    conn_done(&k->c);
    free(k);
}

static int setup_with(unsigned events)
{
    const char *dir = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%s/conn-%d", dir ? dir : "/tmp", (int)getpid());
    unlink(path);
    closed_with = 0;
    return ring_open(path, 1, 1000, 8 << 20, events, &conn_ring);
}

static int setup(void **state)
{
    (void)state;
    return setup_with(4096);
}

static int setup_small(void **state)
{
    (void)state;
    return setup_with(1500);
}

static int teardown(void **state)
{
    (void)state;
    agents_fini();
    ring_close(conn_ring);
    unlink(path);
    return 0;
}

/* --- publishing as the bus does --------------------------------------------------------------- */

static uint64_t status(const char *user, int64_t pid, const char *text)
{
    json_object *b = json_make("pid:i status:s", pid, text);
    struct pub p = { .unit = UNIT_KERNEL, .pid = -1 };
    uint64_t seq;

    assert_null(kind_shape(KIND_STATUS, b, &p));
    seq = bus_publish(KIND_STATUS, b, user, "", ROLE_NONE, "");
    json_put(b);
    return seq;
}

static struct agent *speaker(int64_t pid, const char *user)
{
    struct agent *a = agent_get(pid);

    a->known = true;
    str_copy(a->user, sizeof(a->user), user);
    return a;
}

static void say(struct agent *a, const char *turn, uint64_t seq, const char *text, bool final)
{
    struct chunk c = { .pid = a->pid,
                       .session_id = "s",
                       .turn_id = turn,
                       .atp_session = "",
                       .text = text,
                       .len = strlen(text),
                       .seq = seq,
                       .seq_from = seq,
                       .final = final,
                       .frame_seq = ring_take_seq(conn_ring),
                       .ts_ms = now_ms() };
    struct ev e = { .kind = KIND_CHUNK, .min = ROLE_USER, .user = a->user, .pid = a->pid };

    if (!turn_add(a, &c))
        return;
    e.seq = c.frame_seq;
    e.chunk = &c;
    e.msg = chunk_msg(&c);
    conns_deliver(&e);
    out_msg_unref(e.msg);
}

static void output(struct agent *a, const char *turn, const char *text)
{
    json_object *b = json_make("pid:i text:s turn_id:s session_id:s", a->pid, text, turn, "s");
    struct pub p = { .unit = UNIT_NONE, .pid = a->pid };

    assert_null(kind_shape(KIND_OUTPUT, b, &p));
    bus_publish(KIND_OUTPUT, b, a->user, "", ROLE_NONE, "");
    json_put(b);
}

/* --- reading as a client does ----------------------------------------------------------------- */

struct seen {
    unsigned n, chunks, outputs;
    uint64_t first, last;
    bool rising;
    char text[65536]; /* of the turn, built by the client's rules */
    uint64_t next;
    bool hole;
};

static bool read_one(struct client *k, struct seen *s)
{
    struct out_msg *m = conn_next(&k->c);
    cleanup(json_putp) json_object *f = NULL;
    json_object *b;
    uint64_t seq;

    if (!m)
        return false;
    assert_int_equal(json_parse((char *)m->data + OUT_PRE, m->len, &f), 0);
    out_msg_unref(m);
    seq = (uint64_t)json_int(f, "seq", 0);
    b = json_obj(f, "body");
    s->n++;
    if (!s->first)
        s->first = seq;
    if (str_eq(json_str(f, "event", ""), "agent.output.chunk")) {
        uint64_t n = (uint64_t)json_int(b, "seq", 0);
        uint64_t from = (uint64_t)json_int(b, "seq_from", (int64_t)n);

        s->chunks++;
        if (from == 0)
            s->text[0] = '\0';
        else if (from != s->next)
            s->hole = true;
        s->next = n + 1;
        size_t len = strlen(s->text);
        snprintf(s->text + len, sizeof(s->text) - len, "%s", json_str(b, "text_delta", ""));
        return true;
    }
    s->rising = s->rising && seq > s->last;
    s->last = seq;
    s->outputs += str_eq(json_str(f, "event", ""), "agent.output");
    return true;
}

static struct seen drain(struct client *k)
{
    struct seen s = { .rising = true };

    while (read_one(k, &s))
        ;
    return s;
}

static void all(struct client *k, int64_t since)
{
    conn_subscribe(&k->c, true, 0, NULL, 0, since);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void gates(void **state)
{
    struct client *alice = client("alice", ROLE_USER), *bob = client("bob", ROLE_USER),
                  *op = client("op", ROLE_OPERATOR), *guest = client("alice", ROLE_GUEST);

    (void)state;
    status("alice", 157, "before anyone subscribed");
    all(alice, -1);
    all(bob, -1);
    all(op, -1);
    all(guest, -1);
    status("alice", 157, "running");
    status("", 158, "of nobody");
    assert_int_equal(drain(alice).n, 1);
    assert_int_equal(drain(bob).n, 0);
    assert_int_equal(drain(op).n, 2);
    assert_int_equal(drain(guest).n, 0);
    /* a raised role */
    json_object *b = json_make("tool:s change:s state:s", "fs/read", "added", "available");
    bus_publish(KIND_TOOL, b, "", "", ROLE_OPERATOR, "");
    bus_publish(KIND_TOOL, b, "", "", ROLE_NONE, "");
    json_put(b);
    assert_int_equal(drain(guest).n, 1);
    assert_int_equal(drain(op).n, 2);
    gone(alice);
    gone(bob);
    gone(op);
    gone(guest);
}

static void kinds_and_pids_narrow(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    int64_t pids[] = { 157 };

    (void)state;
    conn_subscribe(&k->c, false, 1U << KIND_EXIT, NULL, 0, -1);
    status("alice", 157, "x");
    assert_int_equal(drain(k).n, 0);
    conn_subscribe(&k->c, true, 0, pids, 1, -1);
    status("alice", 157, "x");
    status("alice", 158, "x");
    assert_int_equal(drain(k).n, 1);
    conn_subscribe(&k->c, false, 0, NULL, 0, -1);
    status("alice", 157, "x");
    assert_int_equal(drain(k).n, 0);
    gone(k);
}

static void a_signal_subscription_opens_one_pid(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    json_object *b = json_make("pid:i signal:s from:s", (int64_t)157, "SIGUSR1", "agent");
    struct ev e;

    (void)state;
    memset(&e, 0, sizeof(e));
    k->c.subs = xcalloc(1, sizeof(*k->c.subs));
    k->c.n_subs = 1;
    k->c.subs[0].pid = 157;
    bus_publish(KIND_PROC_SIGNAL, b, "alice", "", ROLE_NONE, "");
    assert_int_equal(drain(k).n, 1);
    json_add_int(b, "pid", 158);
    bus_publish(KIND_PROC_SIGNAL, b, "alice", "", ROLE_NONE, "");
    assert_int_equal(drain(k).n, 0);
    json_put(b);
    gone(k);
}

static void replay_then_live_without_hole_or_duplicate(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    uint64_t seqs[600], cursor;
    struct sub_result r;
    struct seen s = { .rising = true };

    (void)state;
    for (int i = 0; i < 500; i++)
        seqs[i] = status(i % 2 ? "alice" : "bob", 157, "x");
    cursor = seqs[99];
    r = conn_subscribe(&k->c, true, 0, NULL, 0, (int64_t)cursor);
    assert_false(r.gap);
    assert_int_equal(r.replayed, 200);
    for (int i = 0; i < 50; i++) /* events between the pieces of the replay */
        read_one(k, &s);
    for (int i = 500; i < 600; i++)
        seqs[i] = status("alice", 157, "x");
    while (read_one(k, &s))
        ;
    assert_int_equal(s.n, 300);
    assert_true(s.rising);
    assert_int_equal(s.last, seqs[599]);
    assert_false(k->c.behind);
    /* nothing new: nothing comes twice */
    r = conn_subscribe(&k->c, true, 0, NULL, 0, (int64_t)seqs[599]);
    assert_int_equal(r.replayed, 0);
    assert_int_equal(drain(k).n, 0);
    gone(k);
}

static void a_gap_is_told(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct sub_result r;

    (void)state;
    for (int i = 0; i < 1600; i++)
        status("alice", 157, "x");
    r = conn_subscribe(&k->c, true, 0, NULL, 0, 0);
    assert_true(r.gap);
    assert_int_equal(r.replayed, 1500);
    assert_int_equal(drain(k).n, 1500);
    r = conn_subscribe(&k->c, true, 0, NULL, 0, (int64_t)ring_floor(conn_ring));
    assert_false(r.gap);
    gone(k);
}

static void a_full_queue_reads_on_from_the_ring(void **state)
{
    struct client *slow = client("alice", ROLE_USER), *fast = client("alice", ROLE_USER);
    struct seen s;
    unsigned n_fast = 0;

    (void)state;
    all(slow, -1);
    all(fast, -1);
    for (int i = 0; i < 2000; i++) {
        status("alice", 157, "x");
        n_fast += drain(fast).n;
    }
    assert_int_equal(n_fast, 2000);
    assert_true(slow->c.behind);
    assert_true(slow->c.q.n_events <= OUT_EVENTS_MAX);
    s = drain(slow);
    assert_int_equal(s.n, 2000);
    assert_true(s.rising);
    assert_false(slow->c.behind);
    assert_int_equal(closed_with, 0);
    gone(slow);
    gone(fast);
}

static void what_the_ring_lost_ends_the_connection(void **state)
{
    struct client *slow = client("alice", ROLE_USER);

    (void)state;
    all(slow, -1);
    for (int i = 0; i < 4000; i++)
        status("alice", 157, "x");
    drain(slow);
    assert_int_equal(closed_with, 4008);
    assert_true(slow->c.last_seq >= 1000);
    gone(slow);
}

static void chunks_merge_when_many_wait(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct agent *a = speaker(157, "alice");
    struct seen s;
    char want[4096] = "";

    (void)state;
    all(k, -1);
    for (int i = 0; i < 70; i++)
        status("alice", 100, "x");
    for (uint64_t i = 0; i < 200; i++) {
        char t[8];

        snprintf(t, sizeof(t), "%llu,", (unsigned long long)i);
        snprintf(want + strlen(want), sizeof(want) - strlen(want), "%s", t);
        say(a, "t1", i, t, false);
    }
    say(a, "t1", 200, "", true);
    assert_int_equal(k->c.q.n_events, 71);
    s = drain(k);
    assert_int_equal(s.chunks, 1);
    assert_string_equal(s.text, want);
    assert_false(s.hole);
    assert_int_equal(s.next, 201);
    gone(k);
}

static void a_merged_chunk_keeps_the_place_of_its_oldest_part(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct agent *a = speaker(157, "alice");
    uint64_t last = 0;

    (void)state;
    all(k, -1);
    for (int i = 0; i < 70; i++)
        status("alice", 100, "x");
    say(a, "t1", 0, "a", false);
    status("alice", 100, "between");
    say(a, "t1", 1, "b", false);
    /* a cursor taken at any frame must not pass over a later one */
    for (;;) {
        struct out_msg *m = conn_next(&k->c);
        cleanup(json_putp) json_object *f = NULL;

        if (!m)
            break;
        assert_int_equal(json_parse((char *)m->data + OUT_PRE, m->len, &f), 0);
        out_msg_unref(m);
        assert_true((uint64_t)json_int(f, "seq", 0) > last);
        last = (uint64_t)json_int(f, "seq", 0);
    }
    gone(k);
}

static void a_full_queue_sends_the_turn_whole_later(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct agent *a = speaker(157, "alice");
    struct seen s;

    (void)state;
    all(k, -1);
    say(a, "t1", 0, "one ", false);
    for (int i = 0; i < 1100; i++)
        status("alice", 100, "x");
    say(a, "t1", 1, "two ", false);
    say(a, "t1", 2, "three ", false);
    s = drain(k);
    assert_string_equal(s.text, "one two three ");
    say(a, "t1", 3, "four", false);
    say(a, "t1", 4, "", true);
    struct seen more = { .rising = true, .next = s.next };
    snprintf(more.text, sizeof(more.text), "%s", s.text);
    while (read_one(k, &more))
        ;
    assert_string_equal(more.text, "one two three four");
    assert_false(more.hole);
    /* it has the turn complete now: the text is not sent again */
    output(a, "t1", "one two three four");
    assert_int_equal(drain(k).outputs, 0);
    gone(k);
}

static void output_is_sent_to_those_who_need_it(void **state)
{
    struct client *star = client("alice", ROLE_USER), *named = client("alice", ROLE_USER),
                  *late = client("alice", ROLE_USER), *replays = client("alice", ROLE_USER);
    struct agent *a = speaker(157, "alice");
    uint64_t before = ring_head(conn_ring);

    (void)state;
    all(star, -1);
    conn_subscribe(&named->c, true, 1U << KIND_OUTPUT, NULL, 0, -1);
    say(a, "t1", 0, "hello", false);
    say(a, "t1", 1, "", true);
    all(late, -1); /* the turn is over: nothing is offered, so its text must come */
    output(a, "t1", "hello");
    assert_int_equal(drain(star).outputs, 0);
    assert_int_equal(drain(named).outputs, 1);
    assert_int_equal(drain(late).outputs, 1);
    all(replays, (int64_t)before);
    assert_int_equal(drain(replays).outputs, 1);
    gone(star);
    gone(named);
    gone(late);
    gone(replays);
}

static void a_later_client_gets_the_open_turn(void **state)
{
    struct client *k = client("alice", ROLE_USER), *bob = client("bob", ROLE_USER);
    struct agent *a = speaker(157, "alice");
    struct seen s;

    (void)state;
    say(a, "t1", 0, "begun ", false);
    say(a, "t1", 1, "and ", false);
    all(k, -1);
    all(bob, -1);
    say(a, "t1", 2, "ended", false);
    say(a, "t1", 3, "", true);
    s = drain(k);
    assert_string_equal(s.text, "begun and ended");
    assert_false(s.hole);
    assert_int_equal(drain(bob).n, 0);
    output(a, "t1", "begun and ended");
    assert_int_equal(drain(k).outputs, 0);
    gone(k);
    gone(bob);
}

static void a_turn_begun_again_replaces(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct agent *a = speaker(157, "alice");

    (void)state;
    all(k, -1);
    say(a, "t1", 0, "first ", false);
    say(a, "t1", 1, "try", false);
    say(a, "t1", 0, "second ", false);
    say(a, "t1", 1, "try", true);
    assert_string_equal(drain(k).text, "second try");
    gone(k);
}

static void an_expired_token_stops_events_and_a_new_one_brings_them(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    struct seen s;

    (void)state;
    all(k, -1);
    status("alice", 1, "x");
    conn_mute(&k->c, true);
    status("alice", 1, "x");
    status("alice", 1, "x");
    assert_int_equal(drain(k).n, 1);
    conn_mute(&k->c, false);
    s = drain(k);
    assert_int_equal(s.n, 2);
    status("alice", 1, "x");
    assert_int_equal(drain(k).n, 1);
    gone(k);
}

static void replies_are_never_dropped(void **state)
{
    struct client *k = client("alice", ROLE_USER);
    unsigned replies = 0;
    struct out_msg *m;

    (void)state;
    all(k, -1);
    for (int i = 0; i < 3000; i++) {
        status("alice", 1, "x");
        if (i % 10 == 0)
            conn_reply(&k->c, "{\"type\":\"reply\"}", 16);
    }
    while ((m = conn_next(&k->c))) {
        replies += memcmp(m->data + OUT_PRE, "{\"type\":\"reply\"", 15) == 0;
        out_msg_unref(m);
    }
    assert_int_equal(replies, 300);
    gone(k);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(gates),
        T(kinds_and_pids_narrow),
        T(a_signal_subscription_opens_one_pid),
        T(replay_then_live_without_hole_or_duplicate),
        cmocka_unit_test_setup_teardown(a_gap_is_told, setup_small, teardown),
        T(a_full_queue_reads_on_from_the_ring),
        cmocka_unit_test_setup_teardown(what_the_ring_lost_ends_the_connection, setup_small,
                                        teardown),
        T(chunks_merge_when_many_wait),
        T(a_merged_chunk_keeps_the_place_of_its_oldest_part),
        T(a_full_queue_sends_the_turn_whole_later),
        T(output_is_sent_to_those_who_need_it),
        T(a_later_client_gets_the_open_turn),
        T(a_turn_begun_again_replaces),
        T(an_expired_token_stops_events_and_a_new_one_brings_them),
        T(replies_are_never_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
