/* Finding the delegated subtree, and what is written into a leaf (in a folder that looks like one).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "kernel/init/cgroup.h"

static void own_path(void **state)
{
    char out[64];

    (void)state;
    assert_true(cgroup_own_path("0::/user.slice/a.service\n", out, sizeof(out)));
    assert_string_equal(out, "/user.slice/a.service");
    assert_true(cgroup_own_path("12:memory:/x\n1:name=systemd:/y\n0::/\n", out, sizeof(out)));
    assert_string_equal(out, "/");
    assert_false(cgroup_own_path("12:memory:/x\n", out, sizeof(out)));
    assert_false(cgroup_own_path("", out, sizeof(out)));
    assert_false(cgroup_own_path("0::/longer-than-the-buffer\n", out, 8));
    assert_false(cgroup_own_path("0::", out, sizeof(out)));
}

static void mount_point(void **state)
{
    static const char text[] =
        "24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw\n"
        "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 24 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw\n";
    char out[64];

    (void)state;
    assert_true(cgroup_mount_point(text, out, sizeof(out)));
    assert_string_equal(out, "/sys/fs/cgroup/unified");
    assert_false(cgroup_mount_point("24 30 0:22 / /proc rw - proc proc rw\n", out, sizeof(out)));
    assert_false(cgroup_mount_point("", out, sizeof(out)));
    assert_false(cgroup_mount_point(" - cgroup2 ", out, sizeof(out)));
    assert_false(cgroup_mount_point(text, out, 5));
}

static char dir[] = "/tmp/init-cgroup-XXXXXX";

static char *content(const char *rel)
{
    char path[256], *text = NULL;
    size_t len;

    (void)path_fmt(path, sizeof(path), "%s/%s", dir, rel);
    return file_read(path, 4096, &text, &len) ? xstrdup("") : text;
}

static void put(const char *rel, const char *text)
{
    char path[256];

    (void)path_fmt(path, sizeof(path), "%s/%s", dir, rel);
    assert_int_equal(file_write_rename(path, text, strlen(text), 0600), 0);
}

static void a_leaf(void **state)
{
    char path[256];

    (void)state;
    (void)path_fmt(path, sizeof(path), "%s/agent-157", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    put("agent-157/memory.max", "");
    put("agent-157/pids.max", "");
    put("agent-157/cgroup.procs", "");
    put("agent-157/cgroup.kill", "");
    put("agent-157/memory.events", "low 0\nhigh 0\noom 1\noom_kill 0\n");
    cgroup_use(dir);
    assert_true(cgroup_available());
    cgroup_enter("agent-157", 4711, 256, 1);
    cleanup(freep) char *memory = content("agent-157/memory.max");
    cleanup(freep) char *pids = content("agent-157/pids.max");
    cleanup(freep) char *procs = content("agent-157/cgroup.procs");

    assert_string_equal(memory, "268435456");
    assert_string_equal(pids, "1");
    assert_string_equal(procs, "4711");
    assert_false(cgroup_oom("agent-157"));
    put("agent-157/memory.events", "oom_kill 1\n");
    assert_true(cgroup_oom("agent-157"));
    cgroup_leave("agent-157");
    cleanup(freep) char *killed = content("agent-157/cgroup.kill");

    assert_string_equal(killed, "1");
    assert_false(cgroup_oom("agent-158"));
}

static void without_one_nothing_happens(void **state)
{
    (void)state;
    cgroup_use("");
    assert_false(cgroup_available());
    cgroup_enter("x", 1, 1, 1);
    assert_false(cgroup_oom("x"));
    cgroup_leave("x");
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_path),
        cmocka_unit_test(mount_point),
        cmocka_unit_test(a_leaf),
        cmocka_unit_test(without_one_nothing_happens),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
