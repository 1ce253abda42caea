/* The command line against a real daemon: what it prints, its exit codes, --json, and how it fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "tests/rig/rig.h"

#define DOC "/users/admin/workspace/doc.md"
#define TEXT \
    "# The bridge\n\nThe bridge at Orn was built in 1888. It carries 4,200 carts a day.\nIts keeper is Maud Lind.\n"

static struct rig *g;

static int setup(void **state)
{
    (void)state;
    g = rig_new(NULL);
    rig_write(g, "data/users/admin/workspace/doc.md", TEXT);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

/* Runs avix with arguments; asserts the exit status; prints both outputs if it differs. out, err
 * may be NULL. */
#define expect(status, out, err, ...)                                                           \
    do {                                                                                        \
        char *o_ = NULL, *e_ = NULL;                                                            \
        int r_ = rig_avix(g, &o_, &e_, __VA_ARGS__, NULL);                                      \
        if (r_ != (status))                                                                     \
            fprintf(stderr, "exit %d, expected %d\nstdout: %s\nstderr: %s\n", r_, (status), o_, \
                    e_);                                                                        \
        assert_int_equal(r_, (status));                                                         \
        if ((out) && !strstr(o_, (out) ? (const char *)(out) : ""))                             \
            fprintf(stderr, "stdout: %s\nstderr: %s\n", o_, e_), fail();                        \
        if ((err) && !strstr(e_, (err) ? (const char *)(err) : ""))                             \
            fprintf(stderr, "stderr: %s\n", e_), fail();                                        \
        free(o_);                                                                               \
        free(e_);                                                                               \
    } while (0)

/* The same with --json; the document, yours. */
static json_object *json_of(int status, const char *a, const char *b, const char *c, const char *d,
                            const char *e)
{
    char *out = NULL, *err = NULL;
    json_object *o = NULL;
    int r = rig_avix(g, &out, &err, "--json", a, b, c, d, e, NULL);
    if (r != status || json_parse(out, strlen(out), &o))
        fprintf(stderr, "exit %d\nstdout: %s\nstderr: %s\n", r, out, err);
    assert_int_equal(r, status);
    free(out);
    free(err);
    return o;
}

static void connect_and_whoami(void **state)
{
    (void)state;
    expect(0, "as admin (admin), Avix ", NULL, "client", "connect");
    expect(0, "identity: admin", NULL, "client", "whoami");
    expect(0, "version: ", NULL, "client", "status");
    cleanup(json_putp) json_object *o = json_of(0, "client", "connect", NULL, NULL, NULL);
    assert_string_equal(json_str(o, "identity", ""), "admin");
    assert_string_equal(json_str(o, "url", ""), g->url);
}

static void a_wrong_credential_is_refused(void **state)
{
    (void)state;
    char key[64];
    str_copy(key, sizeof key, g->api_key);
    memcpy(g->api_key, "sk-avix-00000000000000000000000000000000", 41);
    expect(4, NULL, "invalid credential", "client", "whoami");
    str_copy(g->api_key, sizeof g->api_key, key);
}

static void nobody_listening_is_exit_3(void **state)
{
    (void)state;
    expect(3, NULL, "cannot reach http://127.0.0.1:1: connection refused", "client", "whoami",
           "--url", "http://127.0.0.1:1");
    expect(3, NULL, "hint: start it with 'avix server start", "client", "whoami", "--url",
           "http://127.0.0.1:1");
}

static void files(void **state)
{
    (void)state;
    char local[400];
    expect(0, "doc.md", NULL, "client", "fs", "ls", "/users/admin/workspace");
    expect(0, TEXT, NULL, "client", "fs", "cat", DOC);
    snprintf(local, sizeof local, "%s/copy.md", g->dir);
    expect(0, "bytes to", NULL, "client", "fs", "get", DOC, local);
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(file_read(local, 4096, &text, &len), 0);
    assert_string_equal(text, TEXT);
    free(text);
    expect(0, "bytes to", NULL, "client", "fs", "put", local, "/users/admin/workspace/sub/copy.md");
    expect(0, TEXT, NULL, "client", "fs", "cat", "/users/admin/workspace/sub/copy.md");
    expect(7, NULL, "not empty", "client", "fs", "rm", "/users/admin/workspace/sub");
    expect(0, "Deleted", NULL, "client", "fs", "rm", "-r", "/users/admin/workspace/sub");
    expect(6, NULL, "fs.read", "client", "fs", "cat", "/users/admin/workspace/sub/copy.md");
    expect(5, NULL, NULL, "client", "fs", "cat", "/secrets/x");
    expect(1, NULL, "/nonexistent", "client", "fs", "put", "/nonexistent", DOC);
}

/* Bytes of every value, over several pieces. */
static void a_large_binary_file_comes_back_whole(void **state)
{
    (void)state;
    size_t n = (3 << 20) + 12345, len = 0;
    char *data = xmalloc(n), from[400], to[400], *back = NULL;
    for (size_t i = 0; i < n; i++)
        data[i] = (char)(i * 31 + (i >> 8));
    snprintf(from, sizeof from, "%s/large", g->dir);
    snprintf(to, sizeof to, "%s/large.back", g->dir);
    assert_int_equal(file_write_atomic(from, data, n, 0600), 0);
    expect(0, NULL, NULL, "client", "fs", "put", from, "/users/admin/workspace/large.bin");
    expect(0, NULL, NULL, "client", "fs", "get", "/users/admin/workspace/large.bin", to);
    assert_int_equal(file_read(to, n + 1, &back, &len), 0);
    assert_int_equal(len, n);
    assert_memory_equal(back, data, n);
    free(back);
    free(data);
}

static void an_agent_answers_and_its_records_are_there(void **state)
{
    (void)state;
    char *out = NULL, *err = NULL, pid[32];
    assert_int_equal(rig_avix(g, &out, &err, "client", "agent", "spawn", "researcher", "--follow",
                              "--goal", "Summarise " DOC, NULL),
                     0);
    assert_non_null(strstr(out, "1888"));
    assert_non_null(strstr(err, "→ fs/read"));
    assert_non_null(strstr(err, "done (pid "));
    snprintf(pid, sizeof pid, "%ld", strtol(strstr(err, "done (pid ") + 10, NULL, 10));
    free(out);
    free(err);
    expect(0, "researcher", NULL, "client", "agent", "list");
    expect(0, "fs/read", NULL, "client", "agent", "stat", pid);
    expect(0, "researcher", NULL, "client", "agent", "catalog");
    expect(0, "researcher", NULL, "client", "agent", "history", "--live");
    cleanup(json_putp) json_object *rows = json_of(0, "client", "agent", "history", "--live", NULL);
    const char *id = json_str(json_object_array_get_idx(rows, 0), "id", "");
    expect(0, "--- Conversation ---", NULL, "client", "agent", "show", id);
    expect(0, "→ fs/read", NULL, "client", "agent", "show", id, "--full");
    char prefix[9];
    str_copy(prefix, sizeof prefix, id);
    expect(0, "Agent: researcher", NULL, "client", "agent", "show", prefix);
    expect(6, NULL, "not found", "client", "agent", "show", "ffffffff");
    cleanup(json_putp) json_object *sessions = json_of(0, "client", "session", "list", NULL, NULL);
    const char *sid = json_str(json_object_array_get_idx(sessions, 0), "id", "");
    expect(0, "Participants: ", NULL, "client", "session", "show", sid);
    expect(0, "17", NULL, "client", "session", "resume", sid, "--follow", "--input",
           "calculate 8 + 9");
    expect(2, NULL, "--force", "client", "session", "delete", sid);
    expect(0, "Deleted", NULL, "client", "session", "delete", sid, "--force");
    expect(6, NULL, NULL, "client", "session", "show", sid);
}

static void an_agent_is_paused_resumed_messaged_and_killed(void **state)
{
    (void)state;
    char pid[32];
    cleanup(json_putp) json_object *o =
        json_of(0, "client", "agent", "spawn", "observer", "--goal=hello");
    snprintf(pid, sizeof pid, "%lld", (long long)json_int(o, "pid", 0));
    expect(0, "Sent 5 bytes", NULL, "client", "agent", "send", pid, "hello");
    expect(0, "Paused", NULL, "client", "agent", "pause", pid);
    expect(0, "Resumed", NULL, "client", "agent", "resume", pid);
    expect(0, "Killed", NULL, "client", "agent", "kill", pid);
    expect(21, NULL, NULL, "client", "agent", "wait", pid);
    expect(6, NULL, NULL, "client", "agent", "stat", "999999");
    expect(6, NULL, NULL, "client", "agent", "spawn", "no-such-agent", "--goal", "x");
    expect(2, NULL, "--goal", "client", "agent", "spawn", "observer");
    expect(2, NULL, "no pid", "client", "agent", "stat", "abc");
}

static void events_can_be_replayed(void **state)
{
    (void)state;
    expect(0, "agent.spawned", NULL, "client", "events", "agent.spawned", "--since-seq", "0",
           "--count", "1");
}

static void errors_as_json_go_to_stderr(void **state)
{
    (void)state;
    char *out = NULL, *err = NULL;
    assert_int_equal(
        rig_avix(g, &out, &err, "--json", "client", "fs", "cat", "/users/admin/nothing", NULL), 6);
    assert_string_equal(out, "");
    cleanup(json_putp) json_object *o = NULL;
    assert_int_equal(json_parse(err, strlen(err), &o), 0);
    assert_string_equal(json_str(json_obj(o, "error"), "code", ""), "ENOTFOUND");
    assert_int_equal(json_int(o, "exit", 0), 6);
    free(out);
    free(err);
}

static void the_daemon_from_outside(void **state)
{
    (void)state;
    expect(0, "router", NULL, "server", "status", "--root", g->root);
    expect(0, "ready", NULL, "server", "logs", "--root", g->root, "kernel");
    expect(75, NULL, "already running", "server", "start", "--root", g->root);
    cleanup(json_putp) json_object *o = json_of(0, "server", "status", "--root", g->root, NULL);
    assert_true(json_object_array_length(json_arr(o, "units")) >= 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connect_and_whoami),
        cmocka_unit_test(a_wrong_credential_is_refused),
        cmocka_unit_test(nobody_listening_is_exit_3),
        cmocka_unit_test(files),
        cmocka_unit_test(a_large_binary_file_comes_back_whole),
        cmocka_unit_test(an_agent_answers_and_its_records_are_there),
        cmocka_unit_test(an_agent_is_paused_resumed_messaged_and_killed),
        cmocka_unit_test(events_can_be_replayed),
        cmocka_unit_test(errors_as_json_go_to_stderr),
        cmocka_unit_test(the_daemon_from_outside),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
