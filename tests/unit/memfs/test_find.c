/* Encodings, patterns, listing and paging, glob, search, the read cache. */
#include "tests/unit/memfs/common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "common/base/globpat.h"
#include "common/base/mime.h"
#include "common/ipc/loop.h"
#include "memfs/cache.h"
#include "memfs/encode.h"
#include "memfs/listing.h"
#include "memfs/search.h"

#define W      "/users/alice/workspace"
#define HOST_W "data/users/alice/workspace/"

static struct caller alice;
static struct fault f;

static int setup(void **state)
{
    if (root_setup(state))
        return -1;
    alice = who_is(CALLER_AGENT, "alice", ROLE_USER, 157);
    host_write(HOST_W "a.txt", "alpha\nbeta\ngamma\n");
    host_write(HOST_W "b.md", "Alpha again\n");
    host_write(HOST_W "docs/c.txt", "gamma ray\nβeta\n");
    host_write(HOST_W "docs/deep/d.txt", "delta\n");
    host_write(HOST_W "docs-2/e.txt", "epsilon\n");
    host_write("data/users/alice/.uploads/u.txt", "alpha upload\n");
    host_write("data/users/alice/memory/m.txt", "alpha memory\n");
    host_write("data/users/bob/workspace/x.txt", "alpha of bob\n");
    host_link("../../bob/workspace", HOST_W "bob");
    return 0;
}

static int clean(void **state)
{
    (void)state;
    fault_done(&f);
    f = (struct fault){ .err = 0 };
    return 0;
}

static void auto_never_cuts_a_character(void **state)
{
    static const char text[] = "aä€😀";
    enum encoding e;

    (void)state;
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        size_t n = cut;

        assert_int_equal(encode_choose(text, &n, false, ENC_AUTO, &e), 0);
        assert_int_equal(e, ENC_UTF8);
        assert_true(n <= cut && utf8_valid(text, n) && (n || !cut));
    }
    size_t n = 2; /* the euro sign alone, cut: cannot be shown as text */

    assert_int_equal(encode_choose("\xe2\x82", &n, false, ENC_AUTO, &e), 0);
    assert_int_equal(e, ENC_BASE64);
    assert_int_equal(n, 2);
    n = 2; /* at the end of the file it is simply no UTF-8 */
    encode_choose("a\xe2", &n, true, ENC_AUTO, &e);
    assert_int_equal(e, ENC_BASE64);
    n = 3;
    assert_int_equal(encode_choose("\xff\xfe", &n, true, ENC_UTF8, &e), ERR_INVAL);
}

static void content_goes_both_ways(void **state)
{
    char *out;
    size_t n;
    struct buf b = BUF_INIT(100);

    (void)state;
    assert_int_equal(decode_content("AAH/", 4, ENC_BASE64, &out, &n), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(out, "\0\1\xff", 3);
    encode_add(&b, out, n, ENC_BASE64);
    assert_string_equal(b.data, "\"AAH/\"");
    free(out);
    buf_done(&b);
    assert_int_equal(decode_content("A===", 4, ENC_BASE64, &out, &n), ERR_INVAL);
    assert_string_equal(mime_of("a.PNG", "", 0), "image/png");
    assert_string_equal(mime_of("README", "text", 4), "text/plain");
    assert_string_equal(mime_of("blob", "\0\1", 2), "application/octet-stream");
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool match;
    } t[] = {
        { "*.txt", "a.txt", true },
        { "*.txt", "d/a.txt", false },
        { "**/*.txt", "a.txt", true },
        { "**/*.txt", "d/e/a.txt", true },
        { "**", "a/b/c", true },
        { "a/**", "a/b", true },
        { "a/**", "a", true },
        { "a/**/z", "a/z", true },
        { "a/**/z", "a/b/c/z", true },
        { "a/**/z", "a/b/c/y", false },
        { "{a,b}.md", "b.md", true },
        { "{a,b}.md", "c.md", false },
        { "x{,1{2,3}}y", "xy", true },
        { "x{,1{2,3}}y", "x13y", true },
        { "x{,1{2,3}}y", "x1y", false },
        { "[ab]?", "ax", true },
        { "[!ab]?", "ax", false },
        { "*", "", false },
        { "**/**/**/q", "a/b/c/d/e", false },
    };
    struct globpat g;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        assert_int_equal(globpat_init(&g, t[i].pattern), 0);
        if (globpat_match(&g, t[i].path) != t[i].match)
            fail_msg("%s on %s", t[i].pattern, t[i].path);
        globpat_done(&g);
    }
    assert_int_equal(globpat_init(&g, ""), ERR_INVAL);
    assert_int_equal(globpat_init(&g, "{a"), ERR_INVAL);
    assert_int_equal(globpat_init(&g, "a}"), ERR_INVAL);
    assert_int_equal(globpat_init(&g, "{0,1}{0,1}{0,1}{0,1}{0,1}{0,1}"), 0);
    globpat_done(&g);
    assert_int_equal(globpat_init(&g, "{0,1}{0,1}{0,1}{0,1}{0,1}{0,1}{0,1}"), ERR_INVAL);
    assert_int_equal(globpat_init(&g, "a/b"), 0);
    assert_int_equal(g.depth_max, 2);
    globpat_done(&g);
}

/* Many ** against a long path must not explode. */
static void patterns_stay_cheap(void **state)
{
    struct globpat g;
    char path[512] = "";

    (void)state;
    for (int i = 0; i < 100; i++)
        memcpy(path + 2 * i, "a/", 3);
    path[199] = 'b';
    assert_int_equal(globpat_init(&g, "**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/c"), 0);
    assert_false(globpat_match(&g, path));
    globpat_done(&g);
}

static json_object *list(const char *path, struct list_req q)
{
    struct buf out = BUF_INIT(1 << 20);
    json_object *o = NULL;

    if (!q.limit)
        q.limit = 1000;
    clean(NULL);
    if (!list_run(&alice, at(path), &q, NULL, &out, &f))
        assert_int_equal(json_parse(out.data, out.len, &o), 0);
    buf_done(&out);
    return o;
}

static void assert_names(json_object *o, const char *key, const char *names)
{
    json_object *a = json_arr(o, key);
    struct buf b = BUF_INIT(4096);

    assert_non_null(a);
    buf_adds(&b, "");
    for (size_t i = 0; i < json_object_array_length(a); i++)
        buf_printf(&b, "%s%s", i ? " " : "",
                   json_object_get_string(json_object_array_get_idx(a, i)));
    assert_string_equal(b.data ? b.data : "", names);
    buf_done(&b);
    json_put(o);
}

static void lists(void **state)
{
    json_object *o = list(W, (struct list_req){ .details = true });
    json_object *item = json_object_array_get_idx(json_arr(o, "items"), 0);

    (void)state;
    assert_string_equal(json_str(item, "name", ""), "a.txt");
    assert_string_equal(json_str(item, "kind", ""), "file");
    assert_int_equal(json_int(item, "size", 0), 17);
    assert_names(o, "entries", "a.txt b.md bob docs docs-2");
    assert_names(list(W, (struct list_req){ .recursive = true }), "entries",
                 "a.txt b.md bob docs docs/c.txt docs/deep docs/deep/d.txt docs-2 docs-2/e.txt");
    assert_names(list(W, (struct list_req){ .recursive = true, .glob = "*.txt" }), "entries",
                 "a.txt docs/c.txt docs/deep/d.txt docs-2/e.txt");
    assert_names(list(W, (struct list_req){ .recursive = true, .glob = "docs/*" }), "entries",
                 "docs/c.txt docs/deep");
    assert_null(list(W "/a.txt", (struct list_req){ .limit = 1 }));
    assert_int_equal(f.err, ERR_NOTDIR);
    assert_null(list(W "/none", (struct list_req){ .limit = 1 }));
    assert_int_equal(f.err, ERR_NOENT);
}

static void what_is_not_for_the_reader_is_not_listed(void **state)
{
    (void)state;
    assert_names(list("/users/alice", (struct list_req){ .limit = 0 }), "entries", "workspace");
    alice.kind = CALLER_USER;
    assert_names(list("/users/alice", (struct list_req){ .limit = 0 }), "entries",
                 ".uploads memory workspace");
    alice.kind = CALLER_AGENT;
}

/* Pages of every size put together are the whole. */
static void pages_join(void **state)
{
    (void)state;
    for (int64_t size = 1; size < 10; size++) {
        char cursor[VPATH_MAX + 1] = "";
        struct buf all = BUF_INIT(4096);
        const char *next;

        do {
            struct list_req q = { .recursive = true,
                                  .limit = size,
                                  .cursor = *cursor ? cursor : NULL };
            json_object *o = list(W, q), *a = json_arr(o, "entries");

            assert_true(json_object_array_length(a) <= (size_t)size);
            for (size_t i = 0; i < json_object_array_length(a); i++)
                buf_printf(&all, "%s ", json_object_get_string(json_object_array_get_idx(a, i)));
            next = json_str(o, "next_cursor", NULL);
            if (next)
                str_copy(cursor, sizeof(cursor), next);
            json_put(o);
        } while (next);
        assert_string_equal(all.data, "a.txt b.md bob docs docs/c.txt docs/deep docs/deep/d.txt "
                                      "docs-2 docs-2/e.txt ");
        buf_done(&all);
    }
}

static json_object *glob(const char *path, const char *pattern, int64_t limit)
{
    struct buf out = BUF_INIT(1 << 20);
    json_object *o = NULL;

    clean(NULL);
    if (!glob_run(&alice, at(path), pattern, limit, NULL, &out, &f))
        assert_int_equal(json_parse(out.data, out.len, &o), 0);
    buf_done(&out);
    return o;
}

static void globs(void **state)
{
    json_object *o;

    (void)state;
    assert_names(glob(W, "**/*.txt", 100), "paths",
                 W "/a.txt " W "/docs/c.txt " W "/docs/deep/d.txt " W "/docs-2/e.txt");
    assert_names(glob("/users/alice", "*/*.txt", 100), "paths", W "/a.txt");
    o = glob(W, "**", 2);
    assert_true(json_flag(o, "truncated", false));
    assert_names(o, "paths", W "/a.txt " W "/b.md");
    assert_null(glob(W, "{", 2));
    assert_int_equal(f.err, ERR_INVAL);
}

static json_object *search(const char *path, struct search_req q)
{
    struct buf out = BUF_INIT(1 << 20);
    json_object *o = NULL;

    if (!q.limit)
        q.limit = 200;
    clean(NULL);
    if (!search_run(&alice, at(path), &q, &out, &f))
        assert_int_equal(json_parse(out.data, out.len, &o), 0);
    buf_done(&out);
    return o;
}

static json_object *hit(json_object *o, size_t i)
{
    return json_object_array_get_idx(json_arr(o, "matches"), i);
}

static void searches(void **state)
{
    json_object *o = search("/users/alice", (struct search_req){ .query = "alpha" });

    (void)state;
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1); /* not upload, memory */
    assert_string_equal(json_str(hit(o, 0), "path", ""), W "/a.txt");
    assert_int_equal(json_int(hit(o, 0), "line", 0), 1);
    assert_int_equal(json_int(hit(o, 0), "column", 0), 1);
    assert_false(json_flag(o, "truncated", true));
    json_put(o);
    o = search(W, (struct search_req){ .query = "alpha", .ignore_case = true, .limit = 1 });
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1);
    assert_true(json_flag(o, "truncated", false));
    json_put(o);
    o = search(W, (struct search_req){ .query = "^.eta$", .regex = true, .context = 1 });
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1);
    assert_int_equal(json_int(hit(o, 0), "line", 0), 2);
    assert_string_equal(
        json_object_get_string(json_object_array_get_idx(json_arr(hit(o, 0), "before"), 0)),
        "alpha");
    assert_string_equal(
        json_object_get_string(json_object_array_get_idx(json_arr(hit(o, 0), "after"), 0)),
        "gamma");
    json_put(o);
    o = search(W, (struct search_req){ .query = "eta", .glob = "docs/*" });
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1);
    assert_int_equal(json_int(hit(o, 0), "column", 0), 2); /* characters, not bytes */
    json_put(o);
    o = search(W "/a.txt", (struct search_req){ .query = "a", .limit = 2 });
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 2);
    json_put(o);
}

static void bad_queries(void **state)
{
    (void)state;
    assert_null(search(W, (struct search_req){ .query = "(", .regex = true }));
    assert_int_equal(f.err, ERR_INVAL);
    assert_null(search(W, (struct search_req){ .query = "(a)\\1", .regex = true }));
    assert_int_equal(f.err, ERR_INVAL);
    json_put(search(W, (struct search_req){ .query = "\\\\1", .regex = true }));
    assert_int_equal(f.err, 0);
}

static void binary_files_are_passed_over(void **state)
{
    char path[512];
    json_object *o;

    (void)state;
    host_path(path, HOST_W "bin");
    assert_int_equal(file_write_atomic(path, "alpha\0alpha", 11, 0600), 0);
    o = search(W, (struct search_req){ .query = "alpha" });
    assert_int_equal(json_object_array_length(json_arr(o, "matches")), 1);
    json_put(o);
    unlink(path);
}

struct outcome {
    int err;
    bool done;
    char text[4096];
};

static void found(int err, const char *text, size_t len, void *arg)
{
    struct outcome *o = arg;

    o->err = err;
    o->done = true;
    snprintf(o->text, sizeof(o->text), "%.*s", (int)len, text);
}

static struct outcome search_in_process(const char *path, struct search_req q)
{
    struct loop *l = loop_new();
    struct outcome o = { .err = 0 };

    if (!q.limit)
        q.limit = 200;
    assert_non_null(search_start(l, &alice, at(path), &q, found, &o));
    while (!o.done)
        loop_step(l, true);
    loop_free(l);
    return o;
}

static void a_search_runs_in_a_process_of_its_own(void **state)
{
    struct outcome o = search_in_process(W, (struct search_req){ .query = "delta" });

    (void)state;
    assert_int_equal(o.err, 0);
    assert_non_null(strstr(o.text, "docs/deep/d.txt"));
    o = search_in_process(W, (struct search_req){ .query = "[", .regex = true });
    assert_int_equal(o.err, ERR_FAILED);
    assert_non_null(strstr(o.text, "query"));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* reaped */
    assert_int_equal(errno, ECHILD);
}

static void a_cancelled_search_is_gone(void **state)
{
    struct loop *l = loop_new();
    struct outcome o = { .err = 0 };
    struct search_req q = { .query = "x", .limit = 1 };

    (void)state;
    search_cancel(search_start(l, &alice, at(W), &q, found, &o));
    assert_false(o.done);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    loop_free(l);
}

#ifndef AVIX_SAN
static void a_greedy_search_hits_its_memory_limit(void **state)
{
    struct outcome o = search_in_process(
        W, (struct search_req){ .query = "((((.{1,255}){1,255}){1,255}){1,255})", .regex = true });

    (void)state;
    assert_int_not_equal(o.err, 0);
}
#endif

static void cached(const char *path, const char *text)
{
    struct buf b = BUF_INIT(1000);
    struct stat st;

    buf_adds(&b, text);
    assert_true(cache_stat(at(path), &st));
    cache_put(at(path), &st, &b);
    buf_done(&b);
}

static const char *lookup(const char *path)
{
    struct stat st;
    const struct buf *b = cache_stat(at(path), &st) ? cache_get(at(path), &st) : NULL;

    return b ? b->data : NULL;
}

/* The file's age decides; tests make it old. */
static void age(const char *rel, int64_t by)
{
    char path[512];
    struct timespec t[2] = { { .tv_sec = time(NULL) - by }, { .tv_sec = time(NULL) - by } };

    host_path(path, rel);
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void wait_quiet(const char *path)
{
    struct timespec t = { .tv_nsec = 60000000 };

    (void)path;
    nanosleep(&t, NULL);
}

static void the_cache_serves_only_what_is_still_there(void **state)
{
    char a[512], b[512];

    (void)state;
    cached(W "/a.txt", "answer");
    host_write(HOST_W "fresh", "1");
    cached(W "/fresh", "answer"); /* changed just now: not kept */
    assert_null(lookup(W "/fresh"));
    age(HOST_W "fresh", 100);
    wait_quiet(W "/fresh");
    cached(W "/fresh", "answer");
    assert_string_equal(lookup(W "/fresh"), "answer");
    host_write(HOST_W "fresh", "2");
    age(HOST_W "fresh", 100); /* same size, same time, another file */
    assert_null(lookup(W "/fresh"));
    wait_quiet(W "/fresh");
    cached(W "/fresh", "answer");
    host_path(a, HOST_W "fresh");
    host_path(b, HOST_W "moved");
    assert_int_equal(rename(a, b), 0);
    assert_null(lookup(W "/fresh"));
    host_link("moved", HOST_W "fresh");
    assert_null(lookup(W "/fresh"));
    cache_clear();
}

#define T(fn) cmocka_unit_test_setup(fn, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(auto_never_cuts_a_character),
        T(content_goes_both_ways),
        T(patterns),
        T(patterns_stay_cheap),
        T(lists),
        T(what_is_not_for_the_reader_is_not_listed),
        T(pages_join),
        T(globs),
        T(searches),
        T(bad_queries),
        T(binary_files_are_passed_over),
        T(a_search_runs_in_a_process_of_its_own),
        T(a_cancelled_search_is_gone),
#ifndef AVIX_SAN
        T(a_greedy_search_hits_its_memory_limit),
#endif
        T(the_cache_serves_only_what_is_still_there),
    };

    return cmocka_run_group_tests(tests, setup, root_teardown);
}
