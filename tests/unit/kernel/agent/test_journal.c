/* The conversation file: form of a line, order, and what happens when the disk takes no more. */
#include "tests/unit/kernel/agent/common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/agent/journal.h"

static char path[64];

static int file_at(int flags)
{
    snprintf(path, sizeof path, "conv-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    fd = open(path, flags | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void appends_lines(void **state)
{
    struct journal j;
    int fd = file_at(O_WRONLY | O_APPEND);
    json_object *a = js("{'role':'user','content':'x\\ny'}"), *b = js("{'role':'tool'}");
    char *text = NULL;
    size_t len = 0;
    json_object *line = NULL;
    int64_t ms;

    (void)state;
    assert_int_equal(journal_open(&j, fd, 41), 0);
    assert_int_equal(journal_append(&j, a), 0);
    assert_int_equal(journal_append(&j, b), 0);
    assert_int_equal(j.seq, 43);
    assert_int_equal(json_int(a, "seq", 0), 42);
    assert_int_equal(file_read(path, 4096, &text, &len), 0);
    char *nl = strchr(text, '\n');
    assert_non_null(nl);
    assert_int_equal(json_parse(text, (size_t)(nl - text), &line), 0);
    assert_int_equal(json_int(line, "seq", 0), 42);
    assert_string_equal(json_str(line, "content", ""), "x\ny");
    assert_true(rfc3339_parse(json_str(line, "ts", ""), &ms));
    assert_int_equal(strncmp(text, "{\"seq\":42,\"ts\":\"", 16), 0);
    json_put(line);
    assert_int_equal(json_parse(nl + 1, strlen(nl + 1) - 1, &line), 0);
    assert_int_equal(json_int(line, "seq", 0), 43);
    json_put(line);
    json_put(a);
    json_put(b);
    free(text);
    close(fd);
    unlink(path);
}

static void wants_append_mode(void **state)
{
    struct journal j;
    static const int flags[] = { O_WRONLY, O_RDWR, O_RDONLY | O_APPEND };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(flags); i++) {
        int fd = file_at(flags[i]);
        assert_int_equal(journal_open(&j, fd, 0), -EINVAL);
        close(fd);
        unlink(path);
    }
    assert_int_equal(journal_open(&j, -1, 0), -EINVAL);
}

static void says_that_the_disk_is_full(void **state)
{
    struct journal j;
    int fd = file_at(O_WRONLY | O_APPEND);
    json_object *a = js("{'role':'user','content':'0123456789'}");
    struct rlimit was, small = { 100, RLIM_INFINITY };

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small.rlim_max = was.rlim_max;
    assert_int_equal(journal_open(&j, fd, 0), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(journal_append(&j, a), 0);
    assert_int_equal(journal_append(&j, a), -EFBIG);
    assert_int_equal(j.seq, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    json_put(a);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_lines),
        cmocka_unit_test(wants_append_mode),
        cmocka_unit_test(says_that_the_disk_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
