/* The local driver: paths and links, etag, atomicity, append, edit, delete, move, copy. */
#include "tests/unit/memfs/common.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "memfs/beneath.h"
#include "memfs/local.h"
#include "memfs/scratch.h"

#define W      "/users/alice/workspace/"
#define HOST_W "data/users/alice/workspace/"

static struct fault f;

static int clean(void **state)
{
    (void)state;
    fault_done(&f);
    f = (struct fault){ .err = 0 };
    beneath_force_walk(false);
    host_mkdir("data/users/alice/workspace");
    return 0;
}

static int put_mode(const char *path, const char *text, enum write_mode mode, const char *etag,
                    struct write_res *res)
{
    struct write_req q = {
        .data = text, .len = strlen(text), .mode = mode, .if_match = etag, .parents = true
    };

    clean(NULL);
    return local_write(at(path), &q, res, &f);
}

static int put(const char *path, const char *text)
{
    struct write_res res;

    return put_mode(path, text, W_OVERWRITE, NULL, &res);
}

static int get(const char *path, struct read_req q, json_object **ret)
{
    struct buf out = BUF_INIT(16 << 20);
    struct stat st;
    int r;

    clean(NULL);
    *ret = NULL;
    r = local_read(at(path), &q, &out, &st, &f);
    if (!r)
        assert_int_equal(json_parse(out.data, out.len, ret), 0);
    buf_done(&out);
    return r;
}

static struct read_req whole(void)
{
    return (struct read_req){ .length = -1, .lines = -1 };
}

static void assert_content(const char *path, const char *text)
{
    json_object *o;

    assert_int_equal(get(path, whole(), &o), 0);
    assert_string_equal(json_str(o, "content", NULL), text);
    json_put(o);
}

static void write_then_read(void **state)
{
    struct write_res res;
    json_object *o;
    char etag[ETAG_LEN];

    (void)state;
    assert_int_equal(put_mode(W "a/b/c.txt", "hello\n", W_OVERWRITE, NULL, &res), 0);
    assert_true(res.created);
    assert_int_equal(get(W "a/b/c.txt", whole(), &o), 0);
    assert_string_equal(json_str(o, "content", ""), "hello\n");
    assert_string_equal(json_str(o, "encoding", ""), "utf-8");
    assert_string_equal(json_str(o, "etag", ""), etag_of(&res.st, etag));
    assert_int_equal(json_int(o, "size", 0), 6);
    assert_int_equal(json_int(o, "length", 0), 6);
    assert_true(json_flag(o, "eof", false));
    json_put(o);
    assert_int_equal(put_mode(W "a/b/c.txt", "again", W_OVERWRITE, NULL, &res), 0);
    assert_false(res.created);
    assert_content(W "a/b/c.txt", "again");
}

static void parents_are_made_only_if_asked(void **state)
{
    struct write_req q = { .data = "x", .len = 1 };
    struct write_res res;

    (void)state;
    assert_int_equal(local_write(at(W "no/such/file"), &q, &res, &f), ERR_NOENT);
}

static void mode_bits_are_kept(void **state)
{
    char path[512];
    struct stat st;

    (void)state;
    put(W "m", "1");
    host_path(path, HOST_W "m");
    assert_int_equal(chmod(path, 0750), 0);
    put(W "m", "22");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0750);
}

static void create_refuses_what_exists(void **state)
{
    struct write_res res;

    (void)state;
    assert_int_equal(put_mode(W "new", "1", W_CREATE, NULL, &res), 0);
    assert_int_equal(put_mode(W "new", "2", W_CREATE, NULL, &res), ERR_EXIST);
    assert_content(W "new", "1");
}

static void etag_guards_a_write(void **state)
{
    struct write_res res;
    char etag[ETAG_LEN];

    (void)state;
    put_mode(W "e", "1", W_OVERWRITE, NULL, &res);
    etag_of(&res.st, etag);
    assert_int_equal(put_mode(W "e", "2", W_OVERWRITE, etag, &res), 0);
    assert_int_equal(put_mode(W "e", "3", W_OVERWRITE, etag, &res), ERR_CONFLICT);
    assert_string_equal(json_str(f.data, "reason", ""), "etag");
    assert_non_null(json_get(f.data, "etag"));
    assert_content(W "e", "2");
    assert_int_equal(put_mode(W "absent", "3", W_OVERWRITE, etag, &res), ERR_CONFLICT);
    assert_null(json_get(f.data, "etag"));
}

/* The same etag, many writers: one wins. */
static void *race(void *arg)
{
    const char *etag = arg;
    struct write_req q = { .data = "won", .len = 3, .if_match = etag };
    struct write_res res;
    struct fault own = { .err = 0 };
    struct loc l;
    intptr_t won;

    ns_locate(W "race", strlen(W "race"), &l);
    won = !local_write(&l, &q, &res, &own);
    fault_done(&own);
    return (void *)won;
}

static void one_of_many_with_the_same_etag_wins(void **state)
{
    struct write_res res;
    char etag[ETAG_LEN];
    pthread_t t[8];
    intptr_t wins = 0;

    (void)state;
    put_mode(W "race", "start", W_OVERWRITE, NULL, &res);
    etag_of(&res.st, etag);
    for (size_t i = 0; i < N_ELEMS(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, race, etag), 0);
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        void *won;

        pthread_join(t[i], &won);
        wins += (intptr_t)won;
    }
    assert_int_equal(wins, 1);
}

static void append_adds_whole_lines(void **state)
{
    struct write_res res;

    (void)state;
    put_mode(W "log", "one\n", W_APPEND, NULL, &res);
    assert_true(res.created);
    put_mode(W "log", "two\n", W_APPEND, NULL, &res);
    assert_false(res.created);
    assert_int_equal(res.st.st_size, 8);
    assert_content(W "log", "one\ntwo\n");
}

static void a_file_has_its_limit(void **state)
{
    char path[512];
    struct write_res res;

    (void)state;
    put(W "big", "");
    host_path(path, HOST_W "big");
    assert_int_equal(truncate(path, FILE_MAX), 0);
    assert_int_equal(put_mode(W "big", "x", W_APPEND, NULL, &res), ERR_TOOBIG);
    assert_int_equal(json_int(f.data, "limit", 0), FILE_MAX);
    unlink(path);
}

static void kinds_are_told_apart(void **state)
{
    char path[512];
    json_object *o;

    (void)state;
    host_mkdir(HOST_W "dir");
    put(W "file", "x");
    host_path(path, HOST_W "fifo");
    mkfifo(path, 0600);
    assert_int_equal(get(W "dir", whole(), &o), ERR_ISDIR);
    assert_int_equal(put(W "dir", "x"), ERR_ISDIR);
    assert_int_equal(put(W "file/below", "x"), ERR_NOTDIR);
    assert_int_equal(get(W "fifo", whole(), &o), ERR_PERM);
    assert_int_equal(put(W "fifo", "x"), ERR_PERM);
    assert_int_equal(get(W "absent", whole(), &o), ERR_NOENT);
    assert_int_equal(get("/users/nobody/x", whole(), &o), ERR_NOENT);
    assert_int_equal(put("/users/alice", "x"), ERR_ISDIR);
}

static void check_links(void)
{
    json_object *o;

    get(W "out", whole(), &o);
    assert_true(f.err == ERR_XDEV || f.err == ERR_LOOP);
    get(W "abs", whole(), &o);
    assert_true(f.err == ERR_XDEV || f.err == ERR_LOOP);
    get(W "dirout/secret", whole(), &o);
    assert_true(f.err == ERR_XDEV || f.err == ERR_LOOP);
    get(W "loop1", whole(), &o);
    assert_int_equal(f.err, ERR_LOOP);
    assert_true(put(W "dirout/new", "x") == ERR_XDEV || f.err == ERR_LOOP);
    assert_int_equal(put(W "out", "x"), ERR_LOOP);
    assert_int_equal(put(W "in", "x"), ERR_LOOP);
}

static void links_lead_nowhere_else(void **state)
{
    char *bob;

    (void)state;
    host_write("data/users/bob/secret", "of bob");
    put(W "target", "inside");
    host_link("../../bob/secret", HOST_W "out");
    host_link("/etc/passwd", HOST_W "abs");
    host_link("../../bob", HOST_W "dirout");
    host_link("loop2", HOST_W "loop1");
    host_link("loop1", HOST_W "loop2");
    host_link("target", HOST_W "in");
    check_links();
    assert_content(W "in", "inside");
    bob = host_read("data/users/bob/secret");
    assert_string_equal(bob, "of bob");
    free(bob);
}

static void the_walk_refuses_every_link(void **state)
{
    struct read_req q = whole();
    struct buf out = BUF_INIT(1 << 20);
    struct stat st;

    (void)state;
    links_lead_nowhere_else(state);
    clean(NULL);
    beneath_force_walk(true);
    assert_int_equal(local_read(at(W "in"), &q, &out, &st, &f), ERR_LOOP);
    fault_done(&f);
    f.err = 0;
    assert_int_equal(local_read(at(W "dirout/secret"), &q, &out, &st, &f), ERR_LOOP);
    fault_done(&f);
    f.err = 0;
    assert_int_equal(local_read(at(W "target"), &q, &out, &st, &f), 0);
    buf_done(&out);
    beneath_force_walk(false);
}

/* The root is no exception: a user's folder that is itself a link is not there. */
static void an_ownership_root_is_no_link(void **state)
{
    json_object *o;

    (void)state;
    host_link("bob", "data/users/eve");
    assert_int_equal(get("/users/eve/secret", whole(), &o), ERR_NOENT);
}

static void reads_of_parts(void **state)
{
    json_object *o;
    struct read_req q = whole();

    (void)state;
    put(W "p", "line one\nzwei\ndrei ä\nvier\n");
    q.offset = 5;
    q.length = 3;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "one");
    assert_false(json_flag(o, "eof", true));
    assert_int_equal(json_int(o, "offset", 0), 5);
    json_put(o);
    q = whole();
    q.line = 2;
    q.lines = 2;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "zwei\ndrei ä\n");
    assert_int_equal(json_int(o, "offset", 0), 9);
    json_put(o);
    q.line = 4;
    q.lines = -1;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "vier\n");
    assert_true(json_flag(o, "eof", false));
    json_put(o);
    q.line = 9;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_string_equal(json_str(o, "content", "x"), "");
    json_put(o);
    q.line = 1;
    q.lines = 0;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_string_equal(json_str(o, "content", "x"), "");
    json_put(o);
    q = whole();
    q.offset = 1000;
    assert_int_equal(get(W "p", q, &o), 0);
    assert_int_equal(json_int(o, "length", -1), 0);
    assert_true(json_flag(o, "eof", false));
    json_put(o);
}

static void lines_are_never_split(void **state)
{
    json_object *o;
    struct read_req q = whole();

    (void)state;
    put(W "l", "aaaa\nbbbb\ncccc\n");
    q.line = 1;
    q.length = 12;
    assert_int_equal(get(W "l", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "aaaa\nbbbb\n");
    json_put(o);
    q.length = 3;
    assert_int_equal(get(W "l", q, &o), ERR_TOOBIG);
    put(W "l", "no newline at the end");
    q.length = -1;
    assert_int_equal(get(W "l", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "no newline at the end");
    json_put(o);
}

/* A megabyte of lines: the range crosses chunks of the scan. */
static void lines_across_chunks(void **state)
{
    struct buf b = BUF_INIT(4 << 20);
    struct read_req q = whole();
    json_object *o;

    (void)state;
    for (int i = 1; i <= 60000; i++)
        buf_printf(&b, "this is line %d\n", i);
    put(W "many", b.data);
    buf_done(&b);
    q.line = 50000;
    q.lines = 2;
    assert_int_equal(get(W "many", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "this is line 50000\nthis is line 50001\n");
    json_put(o);
    q.lines = -1;
    q.length = 40;
    assert_int_equal(get(W "many", q, &o), 0);
    assert_string_equal(json_str(o, "content", ""), "this is line 50000\nthis is line 50001\n");
    json_put(o);
}

static int edit(const char *path, const char *old, const char *new, bool all, int64_t *n)
{
    struct edit_req q = {
        .old = old, .new = new, .old_len = strlen(old), .new_len = strlen(new), .all = all
    };
    struct stat st;

    clean(NULL);
    return local_edit(at(path), &q, n, &st, &f);
}

static void edits(void **state)
{
    int64_t n = 0;

    (void)state;
    put(W "ed", "one two two");
    assert_int_equal(edit(W "ed", "one", "1", false, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(edit(W "ed", "two", "2", false, &n), ERR_CONFLICT);
    assert_int_equal(json_int(f.data, "count", 0), 2);
    assert_string_equal(json_str(f.data, "reason", ""), "ambiguous");
    assert_content(W "ed", "1 two two");
    assert_int_equal(edit(W "ed", "two", "", true, &n), 0);
    assert_int_equal(n, 2);
    assert_content(W "ed", "1  ");
    assert_int_equal(edit(W "ed", "absent", "x", false, &n), ERR_CONFLICT);
    assert_string_equal(json_str(f.data, "reason", ""), "no_match");
    assert_int_equal(edit(W "nofile", "a", "b", false, &n), ERR_NOENT);
    assert_int_equal(edit(W "", "a", "b", false, &n), ERR_ISDIR);
    put(W "ed", "aaa");
    assert_int_equal(edit(W "ed", "aa", "b", true, &n), 0);
    assert_content(W "ed", "ba");
}

static int del(const char *path, bool recursive, int64_t *n)
{
    clean(NULL);
    return local_delete(at(path), recursive, NULL, n, &f);
}

static void deletes(void **state)
{
    int64_t n;
    char *bob;

    (void)state;
    put(W "d/a", "1");
    put(W "d/sub/b", "2");
    host_link("../../../bob", HOST_W "d/out");
    assert_int_equal(del(W "d", false, &n), ERR_NOTEMPTY);
    assert_int_equal(del(W "d/a", false, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(del(W "d", true, &n), 0);
    assert_int_equal(n, 4);
    bob = host_read("data/users/bob/secret");
    assert_non_null(bob);
    free(bob);
    assert_int_equal(del(W "d", true, &n), ERR_NOENT);
    assert_int_equal(del("/users/alice", true, &n), ERR_PERM);
    put(W "tagged", "1");
    clean(NULL);
    assert_int_equal(local_delete(at(W "tagged"), false, "wrong", &n, &f), ERR_CONFLICT);
}

static void a_leftover_does_not_keep_a_folder(void **state)
{
    int64_t n;

    (void)state;
    host_write(HOST_W "left/.avix-tmp-0123", "torn");
    assert_int_equal(del(W "left", false, &n), 0);
    assert_int_equal(n, 1);
}

static void mkdirs(void **state)
{
    bool created;

    (void)state;
    assert_int_equal(local_mkdir(at(W "x/y/z"), true, &created, &f), 0);
    assert_true(created);
    assert_int_equal(local_mkdir(at(W "x/y/z"), true, &created, &f), 0);
    assert_false(created);
    assert_int_equal(local_mkdir(at(W "q/r"), false, &created, &f), ERR_NOENT);
    clean(NULL);
    put(W "plain", "x");
    assert_int_equal(local_mkdir(at(W "plain"), true, &created, &f), ERR_EXIST);
}

static int mv(const char *from, const char *to, bool overwrite)
{
    struct stat st;

    clean(NULL);
    return local_move(at(from), at(to), overwrite, &st, &f);
}

static void moves(void **state)
{
    (void)state;
    put(W "from", "moved");
    put(W "other", "other");
    assert_int_equal(mv(W "from", W "other", false), ERR_EXIST);
    assert_content(W "from", "moved");
    assert_int_equal(mv(W "from", W "deep/to", false), 0);
    assert_content(W "deep/to", "moved");
    assert_int_equal(mv(W "deep/to", W "other", true), 0);
    assert_content(W "other", "moved");
    assert_int_equal(mv(W "absent", W "y", false), ERR_NOENT);
    assert_int_equal(mv(W "deep", W "deep/below", false), ERR_INVAL);
    assert_int_equal(mv("/users/alice", W "y", false), ERR_PERM);
}

static void moves_across_roots_copy_and_delete(void **state)
{
    json_object *o;

    (void)state;
    put(W "tree/a", "A");
    put(W "tree/sub/b", "B");
    assert_int_equal(mv(W "tree", "/users/bob/tree", false), 0);
    assert_content("/users/bob/tree/sub/b", "B");
    assert_int_equal(get(W "tree/a", whole(), &o), ERR_NOENT);
    put(W "one", "1");
    assert_int_equal(mv(W "one", "/crews/lab/shared/one", false), 0);
    assert_content("/crews/lab/shared/one", "1");
    put(W "one", "2");
    assert_int_equal(mv(W "one", "/crews/lab/shared/one", false), ERR_EXIST);
    assert_content(W "one", "2");
}

static bool not_hidden(const char *path, void *arg)
{
    (void)arg;
    return !strstr(path, "secret");
}

static void copies(void **state)
{
    struct copy_res res;

    (void)state;
    put(W "src/a", "A");
    put(W "src/sub/b", "BB");
    put(W "src/secret", "no");
    host_link("/etc/passwd", HOST_W "src/link");
    clean(NULL);
    assert_int_equal(local_copy(at(W "src"), at(W "dst"), false, false, NULL, NULL, &res, &f),
                     ERR_ISDIR);
    clean(NULL);
    assert_int_equal(local_copy(at(W "src"), at(W "dst"), false, true, not_hidden, NULL, &res, &f),
                     0);
    assert_int_equal(res.files, 2);
    assert_int_equal(res.bytes, 3);
    assert_content(W "dst/sub/b", "BB");
    assert_int_equal(local_copy(at(W "src"), at(W "src/in"), false, true, NULL, NULL, &res, &f),
                     ERR_INVAL);
    clean(NULL);
    assert_int_equal(local_copy(at(W "src/a"), at(W "dst/a"), false, false, NULL, NULL, &res, &f),
                     ERR_EXIST);
    clean(NULL);
    assert_int_equal(local_copy(at(W "src/a"), at(W "dst/a"), true, false, NULL, NULL, &res, &f),
                     0);
}

/* A write that fails half-way leaves the old content and nothing visible. */
static void a_failed_write_leaves_the_old_bytes(void **state)
{
    struct rlimit old, small = { .rlim_cur = 4096, .rlim_max = RLIM_INFINITY };
    struct write_res res;
    char *text = xmalloc(65537);

    (void)state;
    memset(text, 'x', 65536);
    text[65536] = '\0';
    put(W "keep", "old");
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_not_equal(put_mode(W "keep", text, W_OVERWRITE, NULL, &res), 0);
    put_mode(W "grow", "12345", W_APPEND, NULL, &res);
    assert_int_not_equal(put_mode(W "grow", text, W_APPEND, NULL, &res), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_content(W "keep", "old");
    assert_content(W "grow", "12345"); /* the part that fitted was taken back */
    free(text);
}

static void hidden_names_cannot_be_used(void **state)
{
    struct loc l;

    (void)state;
    assert_int_equal(ns_locate(W ".avix-tmp-1", strlen(W ".avix-tmp-1"), &l), ERR_INVAL);
    assert_int_equal(ns_locate(W "../x", strlen(W "../x"), &l), ERR_INVAL);
    assert_int_equal(ns_locate("rel", 3, &l), ERR_INVAL);
}

static void places(void **state)
{
    static const struct {
        const char *path;
        enum area area;
        const char *name, *rest;
    } t[] = {
        { "/", AREA_ROOT, "", "" },
        { "/users", AREA_USERS, "", "" },
        { "/users/alice", AREA_USER, "alice", "" },
        { "/users/alice/", AREA_USER, "alice", "" },
        { "/users//alice/./a/b", AREA_USER, "alice", "a/b" },
        { "/usersx/alice", AREA_NONE, "", "" },
        { "/bin/x@1/p", AREA_BIN, "", "x@1/p" },
        { "/etc/avix/llm.yaml", AREA_ETC, "", "llm.yaml" },
        { "/etc/passwd", AREA_NONE, "", "" },
        { "/proc/157/scratch", AREA_SCRATCH, "157", "" },
        { "/proc/157/scratch/a/b", AREA_SCRATCH, "157", "a/b" },
        { "/proc/157/scratchy", AREA_PROC, "", "" },
        { "/proc/0157/scratch", AREA_PROC, "", "" },
        { "/proc/x/scratch", AREA_PROC, "", "" },
        { "/services/mail/workspace/a", AREA_SERVICE, "mail", "workspace/a" },
        { "/secrets/a", AREA_SECRETS, "", "a" },
        { "/kernel/defaults", AREA_KERNEL, "", "defaults" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        const struct loc *l = at(t[i].path);

        assert_int_equal(l->area, t[i].area);
        assert_string_equal(l->name, t[i].name);
        assert_string_equal(l->rest, t[i].rest);
    }
}

static void services_have_a_version_and_a_workspace(void **state)
{
    (void)state;
    host_write("data/services/.active/mail", "1.2.0\n");
    host_write("data/services/mail@1.2.0/manifest.yaml", "v1.2.0");
    host_mkdir("data/services/.state/mail/workspace");
    assert_content("/services/mail/manifest.yaml", "v1.2.0");
    assert_int_equal(put("/services/mail/workspace/x", "kept"), 0);
    char *text = host_read("data/services/.state/mail/workspace/x");

    assert_string_equal(text, "kept");
    free(text);
}

static void a_scratch_is_made_when_written_and_knows_its_owner(void **state)
{
    char owner[64];

    (void)state;
    assert_int_equal(put("/proc/157/scratch/a", "x"), 0);
    ns_scratch_owner(at("/proc/157/scratch/a"), owner, sizeof(owner));
    assert_string_equal(owner, "");
    ns_scratch_own(at("/proc/157/scratch/a"), "alice");
    ns_scratch_own(at("/proc/157/scratch/a"), "bob");
    ns_scratch_owner(at("/proc/157/scratch"), owner, sizeof(owner));
    assert_string_equal(owner, "alice");
}

static void a_scratch_has_its_day(void **state)
{
    const int64_t hour = 3600000, now = 100 * 24 * hour;

    (void)state;
    assert_false(scratch_is_over(now, now - 23 * hour, 0));
    assert_true(scratch_is_over(now, now - 25 * hour, 0));
    assert_false(scratch_is_over(now, now - 2 * hour, now - hour / 2));
    assert_true(scratch_is_over(now, now - 2 * hour, now - hour - 1));
}

#define T(fn) cmocka_unit_test_setup(fn, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(write_then_read),
        T(parents_are_made_only_if_asked),
        T(mode_bits_are_kept),
        T(create_refuses_what_exists),
        T(etag_guards_a_write),
        T(one_of_many_with_the_same_etag_wins),
        T(append_adds_whole_lines),
        T(a_file_has_its_limit),
        T(kinds_are_told_apart),
        T(links_lead_nowhere_else),
        T(the_walk_refuses_every_link),
        T(an_ownership_root_is_no_link),
        T(reads_of_parts),
        T(lines_are_never_split),
        T(lines_across_chunks),
        T(edits),
        T(deletes),
        T(a_leftover_does_not_keep_a_folder),
        T(mkdirs),
        T(moves),
        T(moves_across_roots_copy_and_delete),
        T(copies),
        T(a_failed_write_leaves_the_old_bytes),
        T(hidden_names_cannot_be_used),
        T(places),
        T(services_have_a_version_and_a_workspace),
        T(a_scratch_is_made_when_written_and_knows_its_owner),
        T(a_scratch_has_its_day),
    };

    return cmocka_run_group_tests(tests, root_setup, root_teardown);
}
