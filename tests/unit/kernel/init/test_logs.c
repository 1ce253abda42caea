/* Log capture: times, JSON lines, long lines, rotation, a full disk, the tail. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/init/init.h"

static char dir[] = "/tmp/init-logs-XXXXXX";

static char *content(const char *name)
{
    char path[256];
    char *text = NULL;
    size_t len;

    (void)path_fmt(path, sizeof(path), "%s/logs/%s", dir, name);
    return file_read(path, 64 << 20, &text, &len) ? NULL : text;
}

static void feed(int fd, const char *text)
{
    assert_int_equal(write_all(fd, text, strlen(text)), 0);
    logs_flush();
}

static void lines_get_a_time_json_stays(void **state)
{
    struct logfile *f = logfile_open("a.log", "a", true);
    int fd = logfile_pipe(f);
    int64_t ms;

    (void)state;
    feed(fd, "plain\n{\"msg\":\"x\"}\n{not json}\nhal");
    feed(fd, "f\n");
    cleanup(freep) char *text = content("a.log");
    char *line = text;

    line[24] = '\0';
    assert_true(rfc3339_parse(line, &ms));
    assert_true(llabs(ms - now_ms()) < 5000);
    assert_memory_equal(line + 25, "plain\n", 6);
    line += 31;
    assert_memory_equal(line, "{\"msg\":\"x\"}\n", 12);
    assert_non_null(strstr(line + 12, "Z {not json}\n"));
    assert_non_null(strstr(line + 12, "Z half\n"));
    close(fd);
    logs_flush();
    logfile_unref(f);
}

static void json_of_agents_gets_a_time_too(void **state)
{
    struct logfile *f = logfile_open("b.log", "b", false);
    int fd = logfile_pipe(f);

    (void)state;
    feed(fd, "{\"msg\":\"x\"}\n");
    cleanup(freep) char *text = content("b.log");

    assert_int_equal(text[0], '2');
    close(fd);
    logs_flush();
    logfile_unref(f);
}

static void long_lines_are_split(void **state)
{
    struct logfile *f = logfile_open("c.log", "c", false);
    int fd = logfile_pipe(f);
    cleanup(freep) char *big = xmalloc(40001);
    int lines = 0;

    (void)state;
    memset(big, 'x', 40000);
    big[39999] = '\n';
    big[40000] = '\0';
    feed(fd, big);
    cleanup(freep) char *text = content("c.log");

    for (char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 3);
    assert_int_equal(strcspn(text, "\n"), 16384 + 25);
    close(fd);
    logs_flush();
    logfile_unref(f);
}

static void an_unfinished_line_is_kept_at_the_end(void **state)
{
    struct logfile *f = logfile_open("d.log", "d", false);
    int fd = logfile_pipe(f);

    (void)state;
    feed(fd, "one\ntwo");
    close(fd);
    logs_flush();
    cleanup(freep) char *text = content("d.log");

    assert_true(str_ends(text, "Z two\n"));
    assert_string_equal(logfile_tail(f, 0), "one");
    assert_string_equal(logfile_tail(f, 1), "two");
    assert_null(logfile_tail(f, 2));
    logfile_unref(f);
}

static void the_tail_keeps_five(void **state)
{
    struct logfile *f = logfile_open("e.log", "e", false);
    int fd = logfile_pipe(f);

    (void)state;
    feed(fd, "1\n2\n3\n4\n5\n6\n7\n");
    assert_string_equal(logfile_tail(f, 0), "3");
    assert_string_equal(logfile_tail(f, 4), "7");
    assert_null(logfile_tail(f, 5));
    close(fd);
    logs_flush();
    logfile_unref(f);
}

static off_t size_of(const char *name)
{
    char path[256];
    struct stat st;

    (void)path_fmt(path, sizeof(path), "%s/logs/%s", dir, name);
    return stat(path, &st) ? -1 : st.st_size;
}

static void rotation_at_ten_mib(void **state)
{
    struct logfile *f = logfile_open("f.log", "f", false);
    int fd = logfile_pipe(f);
    cleanup(freep) char *line = xmalloc(16002);

    (void)state;
    memset(line, 'y', 16000);
    memcpy(line + 16000, "\n", 2);
    for (int i = 0; i < 5000; i++)
        feed(fd, line); /* 80 MB: seven files and a bit, of which six stay */
    for (int i = 1; i <= 5; i++) {
        char name[32];

        snprintf(name, sizeof(name), "f.log.%d", i);
        assert_true(size_of(name) > 10 * 1024 * 1024 - 17000 && size_of(name) <= 10 * 1024 * 1024);
    }
    assert_int_equal(size_of("f.log.6"), -1);
    assert_true(size_of("f.log") > 0);
    close(fd);
    logs_flush();
    logfile_unref(f);
}

/* A file size limit makes write() fail as a full disk does. */
static void a_full_disk_costs_lines_which_are_counted(void **state)
{
    struct logfile *f = logfile_open("g.log", "g", false);
    int fd = logfile_pipe(f);
    struct rlimit old, tight = { 0, 0 };

    (void)state;
    feed(fd, "before\n");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    feed(fd, "lost 1\nlost 2\nlost 3\n");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    feed(fd, "after\n");
    cleanup(freep) char *text = content("g.log");

    assert_non_null(strstr(text, "Z before\n"));
    assert_null(strstr(text, "lost 1"));
    assert_non_null(strstr(text, "Z 3 lines lost: the disk was full\n"));
    assert_non_null(strstr(text, "Z after\n"));
    close(fd);
    logs_flush();
    logfile_unref(f);
}

static int setup(void **state)
{
    char path[256];

    (void)state;
    init.loop = loop_new();
    assert_non_null(mkdtemp(dir));
    str_copy(init.root, sizeof(init.root), dir);
    (void)path_fmt(path, sizeof(path), "%s/logs", dir);
    return mkdir_p(path, 0700);
}

static int teardown(void **state)
{
    (void)state;
    loop_free(init.loop);
    return rm_rf(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_get_a_time_json_stays),
        cmocka_unit_test(json_of_agents_gets_a_time_too),
        cmocka_unit_test(long_lines_are_split),
        cmocka_unit_test(an_unfinished_line_is_kept_at_the_end),
        cmocka_unit_test(the_tail_keeps_five),
        cmocka_unit_test(rotation_at_ten_mib),
        cmocka_unit_test(a_full_disk_costs_lines_which_are_counted),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
