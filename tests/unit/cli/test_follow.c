/* Following an agent: text on stdout exactly once, whatever order, hole or repeat the events have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "cli/client/follow.h"
#include "common/base/fsx.h"

const struct command commands[] = { { "x", "", "", "", NULL } };
const size_t n_commands = 1;

static struct cli cli = { .quiet = true };
static struct follow *f;
static const struct follow_opts until_turn = { .until_exit = false },
                                until_exit = { .until_exit = true };
static char path[] = "/tmp/avix-test-follow.XXXXXX";
static int saved = -1;

/* stdout goes to a file until text_out. */
static void begin(const struct follow_opts *o)
{
    char *p = path + strlen(path) - 6;
    memcpy(p, "XXXXXX", 6);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    fflush(stdout);
    saved = dup(1);
    dup2(fd, 1);
    close(fd);
    f = follow_new(&cli, NULL, 157, o);
}

static char *text_out(void)
{
    char *text = NULL;
    size_t len = 0;
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    assert_int_equal(file_read(path, 1 << 20, &text, &len), 0);
    unlink(path);
    follow_free(f);
    return text;
}

static void expect_out(const char *want)
{
    char *got = text_out();
    assert_string_equal(got, want);
    free(got);
}

static void feed(const char *kind, const char *body)
{
    json_object *b = NULL;
    assert_int_equal(json_parse(body, strlen(body), &b), 0);
    cleanup(json_putp) json_object *frame = json_make("event:s body:o", kind, b);
    follow_event(f, frame);
}

static void chunk(const char *turn, int seq, int from, const char *text, bool final)
{
    char body[512], extra[32] = "";
    if (from >= 0)
        snprintf(extra, sizeof extra, ",\"seq_from\":%d", from);
    snprintf(
        body, sizeof body,
        "{\"pid\":\"157\",\"turn_id\":\"%s\",\"seq\":%d,\"text_delta\":\"%s\",\"is_final\":%s%s}",
        turn, seq, text, final ? "true" : "false", extra);
    feed("agent.output.chunk", body);
}

static void a_stream_is_printed_once(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "Hello ", false);
    chunk("t1", 1, -1, "world", false);
    chunk("t1", 2, -1, "", true);
    feed("agent.output", "{\"pid\":\"157\",\"turn_id\":\"t1\",\"text\":\"Hello world\"}");
    expect_out("Hello world\n");
}

static void other_agents_are_ignored(void **state)
{
    (void)state;
    begin(&until_turn);
    feed("agent.output", "{\"pid\":\"158\",\"turn_id\":\"t1\",\"text\":\"not mine\"}");
    expect_out("");
}

static void a_hole_is_filled_by_the_whole_text(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "one ", false);
    chunk("t1", 2, -1, "three", false); /* 1 is lost */
    feed("agent.output", "{\"pid\":\"157\",\"turn_id\":\"t1\",\"text\":\"one two three\"}");
    expect_out("one two three\n");
}

static void a_chunk_from_zero_replaces(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "one ", false);
    chunk("t1", 5, 0, "one two three ", false);
    chunk("t1", 6, -1, "four", false);
    chunk("t1", 7, -1, "", true);
    expect_out("one two three four\n");
}

static void merged_chunks_continue(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "a", false);
    chunk("t1", 3, 1, "bcd", false);
    chunk("t1", 4, -1, "", true);
    expect_out("abcd\n");
}

static void repeats_after_a_reconnect_are_dropped(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "a", false);
    chunk("t1", 1, -1, "b", false);
    chunk("t1", 0, -1, "a", false);
    chunk("t1", 1, -1, "b", false);
    chunk("t1", 2, -1, "", true);
    expect_out("ab\n");
}

static void a_discarded_turn_starts_anew(void **state)
{
    (void)state;
    begin(&until_turn);
    chunk("t1", 0, -1, "half", false);
    feed(
        "agent.output.chunk",
        "{\"pid\":\"157\",\"turn_id\":\"t1\",\"seq\":1,\"text_delta\":\"\",\"is_final\":true,\"discarded\":true}");
    chunk("t1", 0, -1, "whole", false);
    chunk("t1", 1, -1, "", true);
    expect_out("half\nwhole\n");
}

static void a_terminal_cannot_be_driven(void **state)
{
    (void)state;
    begin(&until_turn);
    feed("agent.output", "{\"pid\":\"157\",\"turn_id\":\"t1\",\"text\":\"\\u001b[2Jx\"}");
    expect_out("\\x1b[2Jx\n");
}

static void ends(const struct follow_opts *o, const char *kind, const char *body, bool ended,
                 int status)
{
    int exit = -1;
    begin(o);
    feed(kind, body);
    assert_int_equal(follow_ended(f, &exit), ended);
    if (ended)
        assert_int_equal(exit, status);
    free(text_out());
}

static void ends_have_exit_codes(void **state)
{
    (void)state;
    ends(&until_turn, "agent.status", "{\"pid\":\"157\",\"status\":\"waiting\",\"idle\":true}",
         true, 0);
    ends(&until_turn, "agent.status", "{\"pid\":\"157\",\"status\":\"running\"}", false, 0);
    ends(&until_exit, "agent.status", "{\"pid\":\"157\",\"status\":\"waiting\",\"idle\":true}",
         false, 0);
    ends(&until_exit, "agent.exit", "{\"pid\":\"157\",\"exitCode\":0,\"reason\":\"completed\"}",
         true, 0);
    ends(&until_turn, "agent.exit", "{\"pid\":\"157\",\"exitCode\":137,\"reason\":\"killed\"}",
         true, EX_AGENT_KILLED);
    ends(&until_turn, "agent.exit",
         "{\"pid\":\"157\",\"exitCode\":137,\"reason\":\"the caller's words\"}", true,
         EX_AGENT_KILLED);
    ends(&until_turn, "agent.exit",
         "{\"pid\":\"157\",\"exitCode\":1,\"reason\":\"llm_unavailable\"}", true, EX_AGENT_FAILED);
    ends(&until_turn, "agent.exit",
         "{\"pid\":\"157\",\"exitCode\":137,\"reason\":\"crashed: signal 9\"}", true,
         EX_AGENT_FAILED);
    ends(&until_turn, "agent.exit", "{\"pid\":\"157\",\"exitCode\":1,\"reason\":\"turn_limit\"}",
         true, EX_TURN_LIMIT);
    ends(&until_turn, "agent.exit", "{\"pid\":\"157\",\"exitCode\":1,\"reason\":\"timeout\"}", true,
         EX_TIME_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_is_printed_once),
        cmocka_unit_test(other_agents_are_ignored),
        cmocka_unit_test(a_hole_is_filled_by_the_whole_text),
        cmocka_unit_test(a_chunk_from_zero_replaces),
        cmocka_unit_test(merged_chunks_continue),
        cmocka_unit_test(repeats_after_a_reconnect_are_dropped),
        cmocka_unit_test(a_discarded_turn_starts_anew),
        cmocka_unit_test(a_terminal_cannot_be_driven),
        cmocka_unit_test(ends_have_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
