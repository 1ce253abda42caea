/* Executions through the booted suite: mounts, artifacts, streams, hang-up, a killed execsvc. */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

#include "tests/suite/fs_calls.h"

#define W "/users/admin/workspace"

static bool no_sandbox;

static int start_exec(void **state)
{
    int r = start(state);
    json_object *o = ok("exec/runtimes", "{}");

    no_sandbox = !str_eq(json_str(json_obj(o, "sandbox"), "tier", ""), "bwrap");
    if (no_sandbox)
        print_message("SKIPPED: no sandbox here: %s\n", json_text(json_obj(o, "sandbox")));
    json_put(o);
    return r;
}

#define NEEDS_SANDBOX() \
    do {                \
        (void)state;    \
        if (no_sandbox) \
            skip();     \
    } while (0)

static void runs(void **state)
{
    json_object *o;

    NEEDS_SANDBOX();
    o = ok("exec/shell", "{\"code\":\"echo hi\"}");
    assert_string_equal(json_str(o, "stdout", ""), "hi\n");
    json_put(o);
    o = ok("exec/python", "{\"code\":\"print(6*7)\"}");
    assert_string_equal(json_str(o, "stdout", ""), "42\n");
    json_put(o);
    assert_int_equal(refused("exec/shell", "{}"), ERR_INVAL);
    assert_int_equal(refused("exec/run", "{\"code\":\"\",\"runtime\":\"cobol\"}"), ERR_INVAL);
}

static void mounts_are_the_callers(void **state)
{
    json_object *o;

    NEEDS_SANDBOX();
    fine("fs/write", "{\"path\":\"" W "/m/in.txt\",\"content\":\"data\"}");
    o = ok("exec/shell", "{\"code\":\"cat /box/mnt/0/in.txt; echo x > /box/mnt/0/in.txt; echo y > "
                         "/box/out/new.txt\",\"mounts\":[{\"path\":\"" W "/m\"},{\"path\":\"" W
                         "/m\",\"at\":\"/box/out\",\"mode\":\"rw\"}]}");
    assert_string_equal(json_str(o, "stdout", ""), "data");
    assert_non_null(strstr(json_str(o, "stderr", ""), "Read-only"));
    json_put(o);
    assert_text(W "/m/in.txt", "data");
    assert_text(W "/m/new.txt", "y\n");
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"/users/bob\"}]}"), ERR_PERM);
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"/users/admin\"}]}"),
        ERR_PERM);
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"/users/admin/.uploads\"}]}"),
        ERR_PERM);
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"/bin\",\"mode\":\"rw\"}]}"),
        ERR_PERM);
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"" W "/none\"}]}"), ERR_NOENT);
    assert_int_equal(
        refused("exec/shell", "{\"code\":\"\",\"mounts\":[{\"path\":\"" W "/m/in.txt\"}]}"),
        ERR_NOTDIR);
}

static void artifacts_go_to_the_scratch(void **state)
{
    json_object *o, *a;

    NEEDS_SANDBOX();
    o = ok("exec/shell", "{\"code\":\"mkdir d; echo one > d/a.txt; head -c 5000000 /dev/zero > "
                         "big.bin; echo no > c.log; ln -s /etc/passwd l.txt\","
                         "\"artifacts\":[\"**/*.txt\",\"*.bin\"]}");
    a = json_arr(o, "artifacts");
    assert_int_equal(json_object_array_length(a), 2);
    for (size_t i = 0; i < 2; i++) {
        json_object *row = json_object_array_get_idx(a, i);
        const char *path = json_str(row, "path", "");

        assert_null(json_get(row, "error"));
        assert_true(str_starts(path, "/proc/5000/scratch/exec-"));
        if (str_ends(path, "a.txt"))
            assert_text(path, "one\n");
        else
            assert_int_equal(json_int(row, "size", 0), 5000000);
    }
    json_put(o);
}

struct heard {
    int n;
    char text[4096];
};

static void on_note(const char *method, json_object *params, void *arg)
{
    struct heard *h = arg;
    size_t n = strlen(h->text);

    assert_string_equal(method, "exec.output");
    h->n++;
    snprintf(h->text + n, sizeof(h->text) - n, "%s", json_str(params, "data", ""));
}

static void on_done(struct ipc_reply *r, void *arg)
{
    (void)r;
    *(bool *)arg = true;
}

struct both {
    struct heard h;
    bool done;
};
static void both_note(const char *method, json_object *params, void *arg)
{
    on_note(method, params, &((struct both *)arg)->h);
}
static void both_done(struct ipc_reply *r, void *arg)
{
    on_done(r, &((struct both *)arg)->done);
}

static struct ipc_call *begin(struct loop *l, const char *params, struct both *b)
{
    json_object *p = NULL;
    struct ipc_call *c;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    c = ipc_start(l,
                  &(struct ipc_req){ .sock = rig_sock(rig, "router.sock"),
                                     .method = "exec/shell",
                                     .params = p,
                                     .token = token,
                                     .timeout_ms = 60000 },
                  both_note, both_done, b);
    json_put(p);
    return c;
}

static void output_streams_as_it_comes(void **state)
{
    struct loop *l = loop_new();
    struct both b = { .done = false };

    NEEDS_SANDBOX();
    begin(l, "{\"code\":\"for i in 1 2 3; do echo $i; sleep 0.2; done\",\"stream\":true}", &b);
    while (!b.done)
        loop_step(l, true);
    assert_true(b.h.n >= 3);
    assert_string_equal(b.h.text, "1\n2\n3\n");
    loop_free(l);
}

/* Processes `sleep <text>` on the host. */
static int n_sleepers(const char *text)
{
    DIR *d = opendir("/proc");
    int n = 0;

    for (struct dirent *e; (e = readdir(d));) {
        cleanup(freep) char *line = NULL;
        char path[300];
        size_t len;

        snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && !file_read(path, 65536, &line, &len) &&
            len > 6 && str_eq(line, "sleep") && str_eq(line + 6, text))
            n++;
    }
    closedir(d);
    return n;
}

static bool gone(void *arg)
{
    return n_sleepers(arg) == 0;
}

static bool there(void *arg)
{
    return n_sleepers(arg) == 1;
}

static void hanging_up_ends_the_sandbox(void **state)
{
    static char name[] = "45671";
    struct loop *l = loop_new();
    struct both b = { .done = false };
    struct ipc_call *c;
    int64_t start_ms;

    NEEDS_SANDBOX();
    c = begin(l, "{\"code\":\"echo up; setsid -f sleep 45671; sleep 1000\",\"stream\":true}", &b);
    while (!b.h.n)
        loop_step(l, true);
    assert_true(rig_until(there, name));
    ipc_cancel(c);
    start_ms = mono_ms();
    assert_true(rig_until(gone, name));
    assert_true(mono_ms() - start_ms < 2000);
    loop_free(l);
}

static void a_killed_execsvc_takes_its_sandboxes_along(void **state)
{
    static char name[] = "45672";
    struct loop *l = loop_new();
    struct both b = { .done = false };

    NEEDS_SANDBOX();
    begin(l, "{\"code\":\"echo up; sleep 45672\",\"stream\":true}", &b);
    while (!b.h.n)
        loop_step(l, true);
    assert_true(rig_until(there, name));
    rig_kill_unit(rig, "execsvc");
    while (!b.done)
        loop_step(l, true);
    assert_true(rig_until(gone, name));
    loop_free(l);
    json_object *o = ok("exec/shell", "{\"code\":\"echo again\"}");

    assert_string_equal(json_str(o, "stdout", ""), "again\n");
    json_put(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs),
        cmocka_unit_test(mounts_are_the_callers),
        cmocka_unit_test(artifacts_go_to_the_scratch),
        cmocka_unit_test(output_streams_as_it_comes),
        cmocka_unit_test(hanging_up_ends_the_sandbox),
        cmocka_unit_test(a_killed_execsvc_takes_its_sandboxes_along),
    };

    return cmocka_run_group_tests(tests, start_exec, stop);
}
