/* Conversation files: made, opened, repaired, merged, never outside the user's tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "common/base/log.h"
#include "kernel/core/conv.h"

static char root[64];

static int setup(void **state)
{
    char p[96];
    (void)state;
    log_init("test", false, LOG_ERROR);
    snprintf(root, sizeof root, "/tmp/kernel-conv-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(p, sizeof p, "%s/data/users", root);
    return mkdir_p(p, 0700);
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(root);
}

static void put(int fd, const char *s)
{
    assert_int_equal(write_all(fd, s, strlen(s)), 0);
}

static void new_file_is_private_and_for_appending(void **state)
{
    struct conv_tail t;
    struct stat st;
    (void)state;
    cleanup(closep) int fd = conv_open(root, "alice", "researcher", "inv-1", &t);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(fcntl(fd, F_GETFL) & O_APPEND);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(t.lines, 0);
    assert_int_equal(t.last_seq, 0);
}

static void torn_line_is_cut(void **state)
{
    struct conv_tail t;
    (void)state;
    int fd = conv_open(root, "alice", "a", "i", NULL);
    put(fd, "{\"seq\":1,\"role\":\"user\",\"content\":\"x\"}\n{\"seq\":2,\"role\":\"assistant\","
            "\"content\":\"y\"}\n{\"seq\":3,\"ro");
    close(fd);
    fd = conv_open(root, "alice", "a", "i", &t);
    assert_int_equal(t.lines, 2);
    assert_int_equal(t.last_seq, 2);
    assert_false(t.stopped_note);
    put(fd, "{\"seq\":3,\"role\":\"user\",\"content\":\"z\"}\n");
    close(fd);
    size_t total = 0;
    cleanup(json_putp) json_object *e = conv_read(root, "alice", "a", "i", 0, 100, &total);
    assert_int_equal(total, 3);
    assert_string_equal(json_str(json_object_array_get_idx(e, 2), "content", ""), "z");
}

static void long_lines_across_chunks(void **state)
{
    struct conv_tail t;
    (void)state;
    int fd = conv_open(root, "alice", "a", "i", NULL);
    char *s = malloc(300000);
    memset(s, 'a', 299999);
    s[299999] = '\0';
    for (int i = 1; i <= 3; i++) {
        char head[64];
        snprintf(head, sizeof head, "{\"seq\":%d,\"role\":\"user\",\"content\":\"", i);
        put(fd, head);
        put(fd, s);
        put(fd, "\"}\n");
    }
    free(s);
    close(fd);
    fd = conv_open(root, "alice", "a", "i", &t);
    close(fd);
    assert_int_equal(t.lines, 3);
    assert_int_equal(t.last_seq, 3);
    struct buf b = BUF_INIT(10 << 20);
    assert_int_equal(conv_lines(root, "alice", "a", "i", 400000, &b), 0);
    assert_true(b.len > 290000 && b.len < 400000);
    assert_memory_equal(b.data, "{\"seq\":3", 8);
    buf_done(&b);
}

static void stopped_is_noted_once(void **state)
{
    (void)state;
    assert_int_equal(conv_stopped(root, "alice", "a", "i", "killed"), 0);
    assert_int_equal(conv_stopped(root, "alice", "a", "i", "killed"), 0);
    size_t total;
    cleanup(json_putp) json_object *e = conv_read(root, "alice", "a", "i", 0, 100, &total);
    assert_int_equal(total, 1);
    json_object *o = json_object_array_get_idx(e, 0);
    assert_string_equal(json_str(o, "role", ""), "system");
    assert_string_equal(json_str(o, "content", ""), "[Agent stopped: killed]");
}

static void results_join_their_calls(void **state)
{
    static const char text[] =
        "{\"seq\":1,\"role\":\"user\",\"content\":\"go\"}\n"
        "{\"seq\":2,\"role\":\"assistant\",\"content\":\"\",\"toolCalls\":[{\"id\":\"c1\",\"name\":"
        "\"fs/read\",\"args\":{}},{\"id\":\"c2\",\"name\":\"fs/list\",\"args\":{}}]}\n"
        "{\"seq\":3,\"role\":\"tool\",\"toolCallId\":\"c2\",\"content\":\"b\",\"result\":{\"n\":2}}\n"
        "not json\n"
        "{\"seq\":4,\"role\":\"tool\",\"toolCallId\":\"c1\",\"content\":\"oops\",\"error\":{\"code\":"
        "\"EPERM\"}}\n"
        "{\"seq\":5,\"role\":\"tool\",\"toolCallId\":\"c9\",\"content\":\"orphan\"}\n"
        "{\"seq\":6,\"role\":\"assistant\",\"content\":\"done\"}\n{\"torn";
    size_t total;
    (void)state;
    cleanup(json_putp) json_object *e = conv_merge(text, sizeof text - 1, 0, 100, &total);
    assert_int_equal(total, 4);
    json_object *calls = json_arr(json_object_array_get_idx(e, 1), "toolCalls");
    json_object *c1 = json_object_array_get_idx(calls, 0),
                *c2 = json_object_array_get_idx(calls, 1);
    assert_string_equal(json_str(c1, "result", ""), "oops");
    assert_string_equal(json_str(json_obj(c1, "error"), "code", ""), "EPERM");
    assert_int_equal(json_int(json_obj(c2, "result"), "n", 0), 2);
    cleanup(json_putp) json_object *page = conv_merge(text, sizeof text - 1, 3, 1, NULL);
    assert_int_equal(json_object_array_length(page), 1);
    assert_string_equal(json_str(json_object_array_get_idx(page, 0), "content", ""), "done");
}

static void missing_file_is_empty(void **state)
{
    size_t total = 7;
    (void)state;
    cleanup(json_putp) json_object *e = conv_read(root, "nobody", "a", "i", 0, 10, &total);
    assert_int_equal(json_object_array_length(e), 0);
    assert_int_equal(total, 0);
}

static void links_are_not_followed(void **state)
{
    char a[128], b[128];
    (void)state;
    snprintf(a, sizeof a, "%s/data/users/eve/agents", root);
    assert_int_equal(mkdir_p(a, 0700), 0);
    snprintf(b, sizeof b, "%s/data/users/eve/agents/a", root);
    assert_int_equal(symlink("/tmp", b), 0);
    assert_true(conv_open(root, "eve", "a", "i", NULL) < 0);
    assert_true(conv_open(root, "eve", "../../alice/agents/x", "i", NULL) < 0);
    snprintf(b, sizeof b, "%s/data/users/eve/agents/c", root);
    assert_int_equal(mkdir_p(b, 0700), 0);
    snprintf(b, sizeof b, "%s/data/users/eve/agents/c/i.jsonl", root);
    assert_int_equal(symlink("/tmp/kernel-conv-target", b), 0);
    assert_true(conv_open(root, "eve", "c", "i", NULL) < 0);
    assert_int_equal(access("/tmp/kernel-conv-target", F_OK), -1);
}

static void removal_takes_the_file(void **state)
{
    char p[160];
    (void)state;
    int fd = conv_open(root, "alice", "a", "i", NULL);
    close(fd);
    conv_remove(root, "alice", "a", "i");
    snprintf(p, sizeof p, "%s/data/users/alice/agents/a", root);
    assert_int_equal(access(p, F_OK), -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(new_file_is_private_and_for_appending),
        T(torn_line_is_cut),
        T(long_lines_across_chunks),
        T(stopped_is_noted_once),
        T(results_join_their_calls),
        T(missing_file_is_empty),
        T(links_are_not_followed),
        T(removal_takes_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
