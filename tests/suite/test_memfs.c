/* Files through the booted suite: as an agent by its token, as a user by the gateway. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tests/suite/fs_calls.h"

#define W "/users/admin/workspace"

static void write_read_stat_list(void **state)
{
    json_object *o = ok("fs/write", "{\"path\":\"" W "/a/hello.md\",\"content\":\"# hi\\n\"}");
    char *etag = xstrdup(json_str(o, "etag", ""));
    cleanup(freep) char *p = NULL;

    (void)state;
    assert_true(json_flag(o, "ok", false));
    assert_true(json_flag(o, "created", false));
    assert_int_equal(json_int(o, "bytes_written", 0), 5);
    json_put(o);
    for (int i = 0; i < 3; i++) { /* long way, then from the cache */
        o = ok("fs/read", "{\"path\":\"" W "/a/hello.md\"}");
        assert_string_equal(json_str(o, "content", ""), "# hi\n");
        assert_string_equal(json_str(o, "etag", ""), etag);
        json_put(o);
        usleep(60000);
    }
    o = ok("fs/stat", "{\"path\":\"" W "/a/hello.md\"}");
    assert_string_equal(json_str(o, "kind", ""), "file");
    assert_string_equal(json_str(o, "owner", ""), "admin");
    assert_string_equal(json_str(o, "mode", ""), "rw");
    assert_string_equal(json_str(o, "mime", ""), "text/markdown");
    assert_string_equal(json_str(o, "etag", ""), etag);
    json_put(o);
    o = ok("kernel/fs/read", "{\"path\":\"" W "/a/hello.md\"}");
    assert_string_equal(json_str(o, "content", ""), "# hi\n");
    json_put(o);
    p = xasprintf("{\"path\":\"" W "/a/hello.md\",\"content\":\"2\",\"if_match\":\"%s\"}", etag);
    fine("fs/write", p);
    assert_int_equal(refused("fs/write", p), ERR_CONFLICT);
    assert_text(W "/a/hello.md", "2");
    free(etag);
}

static void edit_move_copy_delete(void **state)
{
    json_object *o;

    (void)state;
    fine("fs/write", "{\"path\":\"" W "/e/x\",\"content\":\"one two\"}");
    o = ok("fs/edit", "{\"path\":\"" W "/e/x\",\"old\":\"two\",\"new\":\"2\"}");
    assert_int_equal(json_int(o, "replaced", 0), 1);
    json_put(o);
    fine("fs/copy", "{\"from\":\"" W "/e\",\"to\":\"" W "/f\",\"recursive\":true}");
    fine("fs/move", "{\"from\":\"" W "/f/x\",\"to\":\"" W "/f/y\"}");
    assert_text(W "/f/y", "one 2");
    assert_int_equal(refused("fs/delete", "{\"path\":\"" W "/f\"}"), ERR_NOTEMPTY);
    o = ok("fs/delete", "{\"path\":\"" W "/f\",\"recursive\":true}");
    assert_int_equal(json_int(o, "count", 0), 2);
    json_put(o);
    o = ok("fs/exists", "{\"path\":\"" W "/f\"}");
    assert_false(json_flag(o, "exists", true));
    json_put(o);
    o = ok("fs/mkdir", "{\"path\":\"" W "/g/h\"}");
    assert_true(json_flag(o, "created", false));
    json_put(o);
}

static void find_and_search(void **state)
{
    json_object *o;

    (void)state;
    fine("fs/write", "{\"path\":\"" W "/s/one.txt\",\"content\":\"needle here\\n\"}");
    fine("fs/write", "{\"path\":\"" W "/s/two.md\",\"content\":\"hay\\nneedle 2\\n\"}");
    o = ok("fs/glob", "{\"pattern\":\"s/*.{txt,md}\"}");
    assert_int_equal(json_object_array_length(json_arr(o, "paths")), 2);
    json_put(o);
    o = ok("fs/search", "{\"query\":\"needle [0-9]\",\"regex\":true,\"path\":\"" W "\"}");
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1);
    assert_string_equal(json_str(json_object_array_get_idx(json_arr(o, "matches"), 0), "path", ""),
                        W "/s/two.md");
    json_put(o);
    assert_int_equal(refused("fs/search", "{\"query\":\"(\",\"regex\":true,\"path\":\"" W "\"}"),
                     ERR_INVAL);
}

static void errors_have_their_names(void **state)
{
    static const struct {
        const char *tool, *params;
        int err;
    } t[] = {
        { "fs/read", "{}", ERR_INVAL },
        { "fs/read", "{\"path\":\"relative\"}", ERR_INVAL },
        { "fs/read", "{\"path\":\"" W "/../x\"}", ERR_INVAL },
        { "fs/read", "{\"path\":\"" W "/none\"}", ERR_NOENT },
        { "fs/read", "{\"path\":\"" W "\"}", ERR_ISDIR },
        { "fs/list", "{\"path\":\"" W "/err.txt\"}", ERR_NOTDIR },
        { "fs/write", "{\"path\":\"" W "/err.txt\",\"content\":\"\",\"mode\":\"create\"}",
          ERR_EXIST },
        { "fs/write", "{\"path\":\"" W "/err.txt\",\"content\":\"\",\"if_none_match\":\"*\"}",
          ERR_EXIST },
        { "fs/write", "{\"path\":\"" W "/b\",\"content\":\"*\",\"encoding\":\"base64\"}",
          ERR_INVAL },
        { "fs/write", "{\"path\":\"" W "/b\"}", ERR_INVAL },
        { "fs/edit", "{\"path\":\"" W "/err.txt\",\"old\":\"zzz\",\"new\":\"\"}", ERR_CONFLICT },
        { "fs/delete", "{\"path\":\"/users/admin\",\"recursive\":true}", ERR_PERM },
        { "fs/move", "{\"from\":\"" W "/err.txt\",\"to\":\"" W "/err.txt/x\"}", ERR_NOTDIR },
        { "fs/read", "{\"path\":\"" W "/err.txt\",\"encoding\":\"latin1\"}", ERR_INVAL },
        { "fs/read", "{\"path\":\"" W "/err.txt\",\"length\":8388609}", ERR_INVAL },
    };

    (void)state;
    fine("fs/write", "{\"path\":\"" W "/err.txt\",\"content\":\"text\"}");
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        int err = refused(t[i].tool, t[i].params);

        if (err != t[i].err)
            fail_msg("%s %s: %s, not %s", t[i].tool, t[i].params, err_name(err),
                     err_name(t[i].err));
    }
}

static void synthetic_places_are_files(void **state)
{
    json_object *o = ok("fs/read", "{\"path\":\"/tools/index.yaml\"}");

    (void)state;
    assert_non_null(strstr(json_str(o, "content", ""), "fs/read"));
    json_put(o);
    o = ok("fs/read", "{\"path\":\"/tools/fs/read.yaml\"}");
    assert_non_null(strstr(json_str(o, "content", ""), "fs/read"));
    json_put(o);
    o = ok("fs/list", "{\"path\":\"/tools/fs\",\"details\":true}");
    assert_true(json_arr_has(json_arr(o, "entries"), "read.yaml"));
    json_put(o);
    o = ok("fs/stat", "{\"path\":\"/kernel/defaults\"}");
    assert_string_equal(json_str(o, "kind", ""), "dir");
    json_put(o);
    o = ok("fs/read", "{\"path\":\"/kernel/defaults/agent.yaml\"}");
    assert_true(json_int(o, "size", 0) > 0);
    json_put(o);
    o = ok("fs/exists", "{\"path\":\"/proc/999999/status.yaml\"}");
    assert_false(json_flag(o, "exists", true));
    json_put(o);
    assert_int_equal(refused("fs/read", "{\"path\":\"/kernel/defaults/nothing.yaml\"}"), ERR_NOENT);
}

static void a_user_reads_through_the_gateway(void **state)
{
    struct ws *w = ws_admin(rig);
    json_object *o;

    (void)state;
    fine("fs/write", "{\"path\":\"" W "/u\",\"content\":\"for you\"}");
    o = ws_cmd(w, "fs", "read", json_make("path:s", W "/u"));
    assert_non_null(strstr(json_text(o), "for you"));
    json_put(o);
    o = ws_cmd(w, "fs", "write", json_make("path:s content:s", "/users/admin/.uploads/f", "x"));
    assert_non_null(strstr(json_text(o), "bytes_written"));
    json_put(o);
    ws_close(w);
    /* the agent sees nothing of it */
    assert_int_equal(refused("fs/read", "{\"path\":\"/users/admin/.uploads/f\"}"), ERR_PERM);
}

/* A defaults file goes through the kernel's check, whole. */
static void defaults_are_checked(void **state)
{
    struct ws *w = ws_admin(rig);
    json_object *o;

    (void)state;
    o = ws_cmd(w, "fs", "write",
               json_make("path:s content:s", "/users/admin/defaults.yaml", "- not: [a, defaults"));
    assert_null(strstr(json_text(o), "bytes_written"));
    json_put(o);
    o = ws_cmd(w, "fs", "read", json_make("path:s", "/users/admin/defaults.yaml"));
    assert_null(strstr(json_text(o), "not:"));
    json_put(o);
    o = ws_cmd(w, "fs", "write",
               json_make("path:s content:s mode:s", "/users/admin/defaults.yaml", "x", "append"));
    assert_null(strstr(json_text(o), "bytes_written"));
    json_put(o);
    ws_close(w);
}

static void scratch_belongs_to_its_agent(void **state)
{
    cleanup(freep) char *other = rig_token(
        rig, FS_TOOLS,
        json_make("pid:i sub:s uid:i role:s", (int64_t)5001, "mallory", (int64_t)1009, "user"));
    struct ipc_reply r;

    (void)state;
    fine("fs/write", "{\"path\":\"/proc/5000/scratch/a\",\"content\":\"mine\"}");
    assert_text("/proc/5000/scratch/a", "mine");
    assert_int_equal(rig_call(rig, other, "fs/read", "{\"path\":\"/proc/5000/scratch/a\"}", &r),
                     ERR_PERM);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(rig, other, "fs/write",
                              "{\"path\":\"/proc/5000/scratch/a\",\"content\":\"\"}", &r),
                     ERR_PERM);
    ipc_reply_done(&r);
}

static void large_content_goes_in_pieces(void **state)
{
    struct buf b = BUF_INIT(10 << 20);
    json_object *o;

    (void)state;
    buf_adds(&b, "{\"path\":\"" W "/large\",\"content\":\"");
    for (int i = 0; i < 2 << 20; i++)
        buf_addc(&b, (char)('a' + i % 26));
    buf_adds(&b, "\"}");
    fine("fs/write", b.data);
    b.len--;
    buf_adds(&b, ",\"mode\":\"append\"}");
    fine("fs/write", b.data);
    buf_done(&b);
    o = ok("fs/read", "{\"path\":\"" W "/large\"}");
    assert_int_equal(json_int(o, "size", 0), 4 << 20);
    assert_int_equal(json_int(o, "length", 0), 1 << 20);
    assert_false(json_flag(o, "eof", true));
    json_put(o);
    o = ok("fs/read", "{\"path\":\"" W "/large\",\"length\":8388608}");
    assert_int_equal(json_int(o, "length", 0), 4 << 20);
    json_put(o);
}

struct writer {
    int n, failed;
    bool *stop;
};

/* Overwrites one file for ever; each content is one character repeated. */
static void *write_for_ever(void *arg)
{
    struct writer *w = arg;
    struct buf b = BUF_INIT(1 << 20);

    while (!__atomic_load_n(w->stop, __ATOMIC_SEQ_CST)) {
        struct ipc_reply r;

        buf_clear(&b);
        buf_adds(&b, "{\"path\":\"" W "/torn/file\",\"content\":\"");
        for (int i = 0; i < 200000; i++)
            buf_addc(&b, (char)('a' + w->n % 26));
        buf_adds(&b, "\"}");
        w->failed += rig_call(rig, token, "fs/write", b.data, &r) != 0;
        ipc_reply_done(&r);
        w->n++;
    }
    buf_done(&b);
    return NULL;
}

static void killed_in_a_write_it_leaves_old_or_new(void **state)
{
    bool end = false;
    struct writer w = { .stop = &end };
    pthread_t t;

    (void)state;
    fine("fs/write", "{\"path\":\"" W "/torn/file\",\"content\":\"aaa\"}");
    assert_int_equal(pthread_create(&t, NULL, write_for_ever, &w), 0);
    for (int i = 0; i < 8; i++) {
        int before = __atomic_load_n(&w.n, __ATOMIC_SEQ_CST);

        while (__atomic_load_n(&w.n, __ATOMIC_SEQ_CST) < before + 3)
            usleep(100);
        usleep((unsigned)(rand() % 2000));
        rig_kill_unit(rig, "memfs");

        cleanup(freep) char *text = text_at(W "/torn/file");

        for (size_t k = 1; text[k]; k++)
            if (text[k] != text[0])
                fail_msg("a mixture at %zu", k);
        json_object *o = ok("fs/list", "{\"path\":\"" W "/torn\"}");

        assert_int_equal(json_object_array_length(json_arr(o, "entries")), 1);
        json_put(o);
    }
    __atomic_store_n(&end, true, __ATOMIC_SEQ_CST);
    pthread_join(t, NULL);
    fine("fs/delete", "{\"path\":\"" W "/torn\",\"recursive\":true}");
}

/* A small tmpfs over a folder of the workspace. */
static void a_full_disk_is_told_and_undone(void **state)
{
    char path[512];
    struct buf b = BUF_INIT(4 << 20);

    (void)state;
    fine("fs/mkdir", "{\"path\":\"" W "/full\"}");
    snprintf(path, sizeof(path), "%s/data/users/admin/workspace/full", rig->root);
    if (geteuid() || mount("none", path, "tmpfs", 0, "size=256k")) {
        print_message("SKIPPED: a full disk needs root, to mount a small tmpfs\n");
        skip();
    }
    fine("fs/write", "{\"path\":\"" W "/full/keep\",\"content\":\"old\"}");
    buf_adds(&b, "{\"path\":\"" W "/full/keep\",\"content\":\"");
    for (int i = 0; i < 400000; i++)
        buf_addc(&b, 'x');
    buf_adds(&b, "\"}");
    int over = refused("fs/write", b.data);

    b.len--;
    buf_adds(&b, ",\"mode\":\"append\"}");
    int append = refused("fs/write", b.data);
    cleanup(freep) char *text = text_at(W "/full/keep");
    json_object *o = ok("fs/list", "{\"path\":\"" W "/full\"}");
    size_t n = json_object_array_length(json_arr(o, "entries"));

    json_put(o);
    buf_done(&b);
    fine("fs/write", "{\"path\":\"" W "/full/small\",\"content\":\"fits\"}");
    umount2(path, MNT_DETACH);
    assert_int_equal(over, ERR_NOSPC);
    assert_int_equal(append, ERR_NOSPC);
    assert_string_equal(text, "old");
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_read_stat_list),
        cmocka_unit_test(edit_move_copy_delete),
        cmocka_unit_test(find_and_search),
        cmocka_unit_test(errors_have_their_names),
        cmocka_unit_test(synthetic_places_are_files),
        cmocka_unit_test(a_user_reads_through_the_gateway),
        cmocka_unit_test(defaults_are_checked),
        cmocka_unit_test(scratch_belongs_to_its_agent),
        cmocka_unit_test(large_content_goes_in_pieces),
        cmocka_unit_test(killed_in_a_write_it_leaves_old_or_new),
        cmocka_unit_test(a_full_disk_is_told_and_undone),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
