/* Reading, atomic writing, directories, memfd; log lines; YAML; argument objects. */
#include "tests/unit/common/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/log.h"
#include "common/base/yaml.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    memcpy(dir, "/tmp/avix-files-XXXXXX", 23);
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rm_rf(dir);
}

static const char *at(const char *name)
{
    static char path[256];

    assert_int_equal(path_fmt(path, sizeof(path), "%s/%s", dir, name), 0);
    return path;
}

static void whole_files(void **state)
{
    char *text;
    size_t len;
    struct stat st;

    (void)state;
    assert_int_equal(file_read(at("none"), 10, &text, &len), -ENOENT);
    assert_int_equal(file_read(dir, 10, &text, &len), -EISDIR);
    assert_int_equal(file_write_atomic(at("a"), "hello", 5, 0640), 0);
    assert_int_equal(stat(at("a"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(file_read(at("a"), 5, &text, &len), 0);
    assert_string_equal(text, "hello");
    assert_int_equal(len, 5);
    free(text);
    assert_int_equal(file_read(at("a"), 4, &text, &len), ERR_TOOBIG);
    assert_int_equal(file_write_rename(at("a"), "", 0, 0600), 0);
    assert_int_equal(file_read(at("a"), 0, &text, NULL), 0);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(file_read("/proc/self/status", 1 << 20, &text, &len), 0);
    assert_true(len > 100 && text[len] == '\0');
    free(text);
    assert_int_equal(file_write_atomic(at("no/such/dir"), "x", 1, 0600), -ENOENT);
    /* a failed write leaves nothing behind */
    assert_int_equal(mkdir(at("d"), 0700), 0);
    assert_int_equal(file_write_atomic(at("d"), "x", 1, 0600), -EISDIR);
    cleanup(dirp_close) DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        assert_false(str_starts(e->d_name, ".avix-tmp-"));
}

static void trees(void **state)
{
    char out[8];
    struct stat st;

    (void)state;
    assert_int_equal(mkdir_p(at("x/y/z"), 0700), 0);
    assert_int_equal(mkdir_p(at("x/y/z"), 0700), 0);
    assert_int_equal(mkdir_p(at("x/y/z/"), 0700), 0);
    assert_int_equal(file_write_rename(at("x/f"), "1", 1, 0600), 0);
    assert_int_equal(mkdir_p(at("x/f"), 0700), -ENOTDIR);
    assert_int_equal(mkdir_p(at("x/f/g"), 0700), -ENOTDIR);
    assert_int_equal(file_write_rename(at("keep"), "1", 1, 0600), 0);
    char keep[256];
    str_copy(keep, sizeof(keep), at("keep"));
    assert_int_equal(symlink(keep, at("x/y/link")), 0);
    assert_int_equal(rm_rf(at("x")), 0);
    assert_int_equal(rm_rf(at("x")), 0);
    assert_int_equal(stat(at("x"), &st), -1);
    assert_int_equal(stat(keep, &st), 0); /* links are not followed */
    assert_int_equal(path_fmt(out, sizeof(out), "%s", "1234567"), 0);
    assert_int_equal(path_fmt(out, sizeof(out), "%s", "12345678"), -ENAMETOOLONG);
}

static void sealed_memory(void **state)
{
    char text[8] = "";

    (void)state;
    cleanup(closep) int fd = memfd_sealed("test", "secret", 6);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, text, sizeof(text)), 6);
    assert_string_equal(text, "secret");
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

/* What fn writes to stderr; yours. */
static char *stderr_of(void (*fn)(void))
{
    int p[2], saved = dup(2);
    char *out = xcalloc(1, 32768);

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    dup2(p[1], 2);
    fn();
    dup2(saved, 2);
    close(saved);
    close(p[1]);
    ssize_t n = read(p[0], out, 32767);
    close(p[0]);
    assert_true(n >= 0);
    return out;
}

static void say_json(void)
{
    log_init("unit", true, LOG_INFO);
    log_debug("hidden");
    log_fields(LOG_WARN, "{\"pid\":157}", "a \"%s\"\n", "line");
}

static void say_text(void)
{
    log_init("avix", false, LOG_DEBUG);
    log_error("no\nsuch\x1b thing");
}

static void log_lines(void **state)
{
    enum log_level l = LOG_INFO;
    json_object *o = NULL;

    (void)state;
    cleanup(freep) char *text = stderr_of(say_json);
    size_t n = strlen(text);
    assert_true(n && text[n - 1] == '\n' && strchr(text, '\n') == text + n - 1);
    assert_int_equal(json_parse(text, n, &o), 0);
    assert_string_equal(json_str(o, "level", ""), "warn");
    assert_string_equal(json_str(o, "unit", ""), "unit");
    assert_string_equal(json_str(o, "msg", ""), "a \"line\"\n");
    assert_int_equal(json_int(json_obj(o, "fields"), "pid", 0), 157);
    json_put(o);
    cleanup(freep) char *plain = stderr_of(say_text);
    assert_string_equal(plain, "avix: no such  thing\n");
    assert_true(log_level_parse("debug", &l) && l == LOG_DEBUG);
    assert_false(log_level_parse("loud", &l));
    assert_false(log_level_parse(NULL, &l));
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        die(7, "the end");
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 7);
}

/* --- YAML ----------------------------------------------------------------------------------------
 */

static json_object *yaml(const char *text, int want, int line, const char *msg)
{
    json_object *o = NULL;
    struct yaml_err e;
    int r = yaml_parse(text, strlen(text), &o, &e);

    if (r != want)
        fail_msg("%s: %d, %d: %s", text, r, e.line, e.msg);
    if (want) {
        if (e.line != line || !strstr(e.msg, msg))
            fail_msg("%s: line %d: %s", text, e.line, e.msg);
        assert_null(o);
    }
    return o;
}

static void yaml_values(void **state)
{
    cleanup(json_putp) json_object *o =
        yaml("a: 1\nb: -2.5\nc: true\nd: null\ne:\nf: yes\ng: \"1\"\nh: 0x10\ni: 01\n"
             "j: [1, 'two', {k: v}]\nl: 1e3\nm: 9223372036854775808\nn: |\n  text\n  more\no: ~\n"
             "p: 2026-01-01\n",
             0, 0, "");

    (void)state;
    assert_string_equal(json_text(o),
                        "{\"a\":1,\"b\":-2.5,\"c\":true,\"d\":null,\"e\":null,\"f\":\"yes\","
                        "\"g\":\"1\",\"h\":\"0x10\",\"i\":\"01\",\"j\":[1,\"two\",{\"k\":\"v\"}],"
                        "\"l\":1000.0,\"m\":9.223372036854776e+18,\"n\":\"text\\nmore\\n\","
                        "\"o\":\"~\",\"p\":\"2026-01-01\"}");
    assert_int_equal(yaml_line(o), 1);
    assert_int_equal(yaml_line(json_get(o, "b")), 2);
    assert_int_equal(yaml_line(json_get(o, "j")), 10);
    assert_int_equal(yaml_line(json_get(o, "m")), 12);
    assert_int_equal(yaml_line(NULL), 0);
    cleanup(json_putp) json_object *c = json_dup(o);
    assert_int_equal(yaml_line(json_get(c, "m")), 12);
    assert_string_equal(json_text(c), json_text(o));
    json_object *parsed = NULL;
    assert_int_equal(json_parse("0.5", 3, &parsed), 0);
    assert_int_equal(yaml_line(parsed), 0);
    json_put(parsed);
}

static void yaml_refusals(void **state)
{
    static const struct {
        const char *text;
        int line;
        const char *msg;
    } rows[] = {
        { "", 0, "empty" },
        { "# only a comment\n", 0, "empty" },
        { "a: 1\na: 2\n", 2, "duplicate key 'a'" },
        { "x:\n  b: 1\n  \"b\": 2\n", 3, "duplicate key 'b'" },
        { "a: &x 1\n", 1, "anchors" },
        { "a: 1\nb: *x\n", 2, "alias" },
        { "a: !!str 1\n", 1, "tags" },
        { "a: !mine {b: 1}\n", 1, "tags" },
        { "a: 1\n---\nb: 2\n", 2, "more than one document" },
        { "%TAG ! tag:x,2000:\n---\na: 1\n", 1, "tags" },
        { "? [a]\n: 1\n", 1, "key" },
        { "a: [1\n", 2, "" },
        { "a: b: c\n", 1, "" },
        { "\t- a\n", 1, "" },
        { "a: \"\\xFF\n", 2, "" },
        { "\xFF", 0, "UTF-8" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        yaml(rows[i].text, ERR_CONFIG, rows[i].line, rows[i].msg);
}

static void yaml_limits(void **state)
{
    struct buf b = BUF_INIT(4 * YAML_MAX);

    (void)state;
    for (int depth = 32; depth <= 33; depth++) {
        buf_clear(&b);
        for (int i = 0; i < depth; i++)
            buf_addc(&b, '[');
        for (int i = 0; i < depth; i++)
            buf_addc(&b, ']');
        json_put(yaml(b.data, depth > 32 ? ERR_CONFIG : 0, 1, "deeper"));
    }
    buf_clear(&b);
    buf_addc(&b, '[');
    for (int i = 0; i < 100000; i++)
        buf_adds(&b, "1,");
    buf_addc(&b, ']');
    yaml(b.data, ERR_CONFIG, 1, "more than 100000");
    buf_clear(&b);
    for (size_t i = 0; i <= YAML_MAX; i++)
        buf_addc(&b, '#');
    yaml(b.data, ERR_CONFIG, 0, "larger");
    buf_done(&b);
    json_object *o = NULL;
    struct yaml_err e;
    assert_int_equal(yaml_load(at("none.yaml"), &o, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "No such file"));
}

static void yaml_round_trip(void **state)
{
    static const char text[] =
        "{\"plain\":\"word\",\"empty\":\"\",\"number\":\"12\",\"yes\":\"yes\",\"null\":\"null\","
        "\"colon\":\"a: b\",\"hash\":\"a #b\",\"quote\":\"say \\\"x\\\"\",\"lines\":\"a\\nb\","
        "\"odd\":\"\xC2\x85\xE2\x80\xA8\xEF\xBB\xBF\xEF\xBF\xBE\x7F\",\"space\":\"x \","
        "\"list\":[1,2.5,true,null,[],{},[1,[2]],{\"a\":1,\"b\":[{\"c\":2}]}],\"0\":{\"x y\":-1}}";
    json_object *o = NULL, *back = NULL;
    struct yaml_err e;

    (void)state;
    assert_int_equal(json_parse(text, sizeof(text) - 1, &o), 0);
    cleanup(freep) char *dump = yaml_dump(o);
    if (yaml_parse(dump, strlen(dump), &back, &e))
        fail_msg("%d: %s\n%s", e.line, e.msg, dump);
    assert_string_equal(json_text(back), json_text(o));
    json_put(o);
    json_put(back);
    cleanup(freep) char *word = yaml_dump(NULL);
    assert_string_equal(word, "null\n");
}

/* --- arguments
 * ------------------------------------------------------------------------------------ */

static json_object *params;

static struct args opened(const char *text)
{
    json_put(params);
    params = NULL;
    assert_int_equal(json_parse(text, strlen(text), &params), 0);
    return args_open(params);
}

static void args_give_values(void **state)
{
    static const char *const names[] = { "red", "green", NULL };
    struct args a = opened("{\"s\":\"x\",\"i\":5,\"b\":true,\"n\":1.5,\"o\":{},\"a\":[\"p\"],"
                           "\"t\":\"2s\",\"e\":\"green\",\"nil\":null,\"t2\":3}");

    (void)state;
    assert_string_equal(args_str(&a, "s", 1), "x");
    assert_int_equal(args_int(&a, "i", 5, 5), 5);
    assert_true(args_bool_or(&a, "b", false));
    assert_true(args_num_or(&a, "n", 0, 2, 0) == 1.5 && args_num_or(&a, "i", 0, 9, 0) == 5);
    assert_non_null(args_obj(&a, "o"));
    assert_non_null(args_strs_or(&a, "a", 1));
    assert_int_equal(args_ms_or(&a, "t", 0, 9999, 0), 2000);
    assert_int_equal(args_ms_or(&a, "t2", 0, 9999, 0), 3000);
    assert_int_equal(args_enum_or(&a, "e", names, 0), 1);
    assert_string_equal(args_str_or(&a, "nil", 9, "d"), "d");
    assert_int_equal(args_int_or(&a, "absent", 0, 9, 4), 4);
    assert_null(args_obj_or(&a, "absent"));
    assert_null(args_any_or(&a, "nil"));
    assert_int_equal(args_enum_or(&a, "absent", names, -1), -1);
    assert_false(args_strict(&a));
    struct args none = args_open(NULL);
    assert_string_equal(args_str_or(&none, "s", 9, "d"), "d");
    assert_false(args_strict(&none));
}

static void args_name_the_fault(void **state)
{
    static const char *const names[] = { "red", "green", NULL };
    struct args a;

    (void)state;
#define FAULT(text, read, name, words)          \
    do {                                        \
        a = opened(text);                       \
        (void)(read);                           \
        assert_true(args_bad(&a));              \
        assert_int_equal(a.err, ERR_INVAL);     \
        assert_string_equal(a.field, name);     \
        if (!strstr(a.why, words))              \
            fail_msg("%s: %s", a.field, a.why); \
    } while (0)
    FAULT("{}", args_str(&a, "s", 9), "s", "missing");
    FAULT("{\"s\":null}", args_str(&a, "s", 9), "s", "missing");
    FAULT("{\"s\":1}", args_str(&a, "s", 9), "s", "must be a string");
    FAULT("{\"s\":\"abc\"}", args_str(&a, "s", 2), "s", "longer than 2");
    FAULT("{\"s\":\"a\\u0000\"}", args_str(&a, "s", 9), "s", "NUL");
    FAULT("{\"i\":1.0}", args_int(&a, "i", 0, 9), "i", "integer");
    FAULT("{\"i\":10}", args_int_or(&a, "i", 0, 9, 1), "i", "within 0..9");
    FAULT("{\"i\":9223372036854775808}", args_int(&a, "i", 0, INT64_MAX), "i", "integer");
    FAULT("{\"b\":1}", args_bool_or(&a, "b", false), "b", "true or false");
    FAULT("{\"n\":\"1\"}", args_num_or(&a, "n", 0, 1, 0), "n", "number");
    FAULT("{\"n\":2}", args_num_or(&a, "n", 0, 1, 0), "n", "within");
    FAULT("{\"o\":[]}", args_obj(&a, "o"), "o", "object");
    FAULT("{\"a\":{}}", args_arr(&a, "a"), "a", "array");
    FAULT("{\"a\":[1]}", args_strs_or(&a, "a", 9), "a", "array of strings");
    FAULT("{\"a\":[null]}", args_strs_or(&a, "a", 9), "a", "array of strings");
    FAULT("{\"a\":[\"long\"]}", args_strs_or(&a, "a", 2), "a", "longer");
    FAULT("{\"t\":\"soon\"}", args_ms_or(&a, "t", 0, 9, 0), "t", "duration");
    FAULT("{\"t\":-1}", args_ms_or(&a, "t", 0, 9, 0), "t", "duration");
    FAULT("{\"t\":\"1h\"}", args_ms_or(&a, "t", 0, 9, 0), "t", "within");
    FAULT("{\"e\":\"blue\"}", args_enum_or(&a, "e", names, 0), "e", "red green");
    FAULT("[]", args_str_or(&a, "s", 9, ""), "params", "object");
    FAULT("{\"x\":1}", args_strict(&a), "x", "unknown key");
#undef FAULT
    a = opened("{\"i\":\"no\"}");
    (void)args_int(&a, "i", 0, 9);
    (void)args_str(&a, "s", 9); /* the first fault stays */
    args_fail(&a, "other", "whatever");
    assert_string_equal(a.field, "i");
    json_put(params);
    params = yaml("a: 1\nb:\n  c: x\n", 0, 0, "");
    a = args_open(json_obj(params, "b"));
    (void)args_int(&a, "c", 0, 1);
    assert_int_equal(a.line, 3);
    json_put(params);
    params = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files),      cmocka_unit_test(trees),
        cmocka_unit_test(sealed_memory),    cmocka_unit_test(log_lines),
        cmocka_unit_test(yaml_values),      cmocka_unit_test(yaml_refusals),
        cmocka_unit_test(yaml_limits),      cmocka_unit_test(yaml_round_trip),
        cmocka_unit_test(args_give_values), cmocka_unit_test(args_name_the_fault),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
