/* The start document: what is required, what is refused, what the limits come to. */
#include "tests/unit/kernel/agent/common.h"

#include "common/base/fsx.h"
#include "kernel/agent/start.h"

#define INV "14160f7b-c6ce-4cd1-88ed-dc5270f9ebf0"
static const char good[] =
    "{\"pid\":157,\"invocationId\":\"" INV "\",\"sessionId\":\"s1\",\"signalKey\":\"k\","
    "\"agent\":{\"name\":\"researcher\",\"version\":\"1.0.0\",\"dir\":\"/bin/r\"},\"goal\":\"g\","
    "\"oneShot\":true,\"lastSeq\":7,\"contextLimit\":1000,"
    "\"resolved\":{\"entrypoint\":{\"maxToolChain\":9,\"maxTurnsPerGoal\":3},"
    "\"environment\":{\"temperature\":0.1,\"timeoutSec\":30}},"
    "\"limits\":{\"maxToolChainLength\":4,\"maxTokensPerTurn\":5000},\"fds\":[\"secrets\"]}";

static int parse(const char *text, struct start *s, char why[256])
{
    return start_parse(text, strlen(text), 157, s, why, 256);
}

static void reads_all(void **state)
{
    struct start s;
    char why[256];

    (void)state;
    assert_int_equal(parse(good, &s, why), 0);
    assert_string_equal(s.name, "researcher");
    assert_string_equal(s.invocation, INV);
    assert_true(s.one_shot);
    assert_int_equal(s.last_seq, 7);
    assert_int_equal(s.max_tool_chain, 4); /* the smaller of 9 and 4 */
    assert_int_equal(s.max_turns, 3);
    assert_int_equal(s.max_output, 5000);
    assert_int_equal(s.timeout_sec, 30);
    assert_int_equal(s.fd_history, -1);
    assert_int_equal(s.fd_secrets, FD_OPTIONAL); /* numbered without a gap */
    assert_string_equal(s.jail, "auto");
    assert_string_equal(s.seccomp, "enforce");
    start_done(&s);
}

static void refuses(void **state)
{
    static const struct {
        const char *from, *to, *why;
    } bad[] = {
        { "\"pid\":157", "\"pid\":158", "pid: 158, but started as 157" },
        { "\"pid\":157", "\"pid\":\"157\"", "pid" },
        { "\"sessionId\":\"s1\",", "", "sessionId" },
        { INV, "nonsense", "invocationId: not a UUID" },
        { "\"signalKey\":\"k\"", "\"signalKey\":\"\"", "signalKey: empty" },
        { "\"name\":\"researcher\",", "", "agent.name: missing" },
        { "[\"secrets\"]", "[\"socket\"]", "fds: unexpected \"socket\"" },
        { "[\"secrets\"]", "[\"secrets\",\"secrets\"]", "fds: unexpected" },
        { "{\"pid\"", "[\"pid\"", "not a JSON object" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        struct start s;
        char why[256] = "";
        const char *at = strstr(good, bad[i].from);
        assert_non_null(at);
        char *text =
            xasprintf("%.*s%s%s", (int)(at - good), good, bad[i].to, at + strlen(bad[i].from));
        assert_int_equal(parse(text, &s, why), ERR_INVAL);
        if (!strstr(why, bad[i].why))
            fail_msg("%s: %s", text, why);
        free(text);
    }
}

static void reads_a_memfd(void **state)
{
    struct start s;
    char why[256];
    int fd = memfd_sealed("start", good, strlen(good));

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(start_read(fd, 157, &s, why, sizeof why), 0);
    start_done(&s);
    close(fd);
    assert_int_equal(start_read(fd, 157, &s, why, sizeof why), ERR_INVAL);
}

static void takes_one_argument(void **state)
{
    char a0[] = "avix-agent", a1[] = "--pid", a2[] = "157", a3[] = "x", bad[] = "0x9";
    char *ok[] = { a0, a1, a2, NULL }, *more[] = { a0, a1, a2, a3, NULL };
    char *hex[] = { a0, a1, bad, NULL }, *order[] = { a0, a2, a1, NULL };

    (void)state;
    assert_int_equal(start_argv(3, ok), 157);
    assert_int_equal(start_argv(4, more), -1);
    assert_int_equal(start_argv(2, ok), -1);
    assert_int_equal(start_argv(3, hex), -1);
    assert_int_equal(start_argv(3, order), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_all),
        cmocka_unit_test(refuses),
        cmocka_unit_test(reads_a_memfd),
        cmocka_unit_test(takes_one_argument),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
