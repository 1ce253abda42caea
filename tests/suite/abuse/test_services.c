/*
 * Security page, section 7, items 17 to 20 and 44: a service that reaches for names, sockets and
 * callers of others, planted sockets, and state files with lines that are not the router's.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "tests/rig/guest.h"

static struct rig *g;

static int up(void **state)
{
    (void)state;
    g = rig_new(NULL);
    return 0;
}

static int down(void **state)
{
    (void)state;
    rig_stop(g);
    return 0;
}

static int outcome(const char *token, const char *method, const char *params)
{
    struct ipc_reply r;
    int e = rig_call(g, token, method, params, &r);

    ipc_reply_done(&r);
    return e;
}

/* How many of these tools a service got. */
static size_t added(struct guest *s, const char *tools)
{
    cleanup(freep) char *p = xasprintf("{\"tools\":%s}", tools);
    json_object *o = NULL;
    size_t n;

    assert_int_equal(guest_call(s, "ipc.tool-add", p, &o), 0);
    n = json_object_array_length(json_arr(o, "tools"));
    json_put(o);
    return n;
}

static void names_of_others(void **state)
{
    struct guest *s = guest_start(g, NULL),
                 *other = guest_start(g, &(struct guest_opts){ .name = "first" });
    cleanup(freep) char *t = rig_token(g, "first/echo fs/stat", NULL);

    (void)state;
    assert_int_equal(
        added(s, "[{\"name\":\"first/echo\"},{\"name\":\"fs/stat\"},{\"name\":\"sys/tools\"},"
                 "{\"name\":\"secret/get\"},{\"name\":\"echo/a__b\"},{\"name\":\"Echo/echo\"},"
                 "{\"name\":\"echo\"},{\"name\":\"/echo\"},{\"name\":7},7,null]"),
        0);
    assert_int_equal(outcome(t, "first/echo", "{}"), 0);
    assert_int_equal(outcome(t, "fs/stat", "{\"path\":\"/\"}"), ERR_PERM);
    guest_stop(other); /* a stopped owner's names are not free for all */
    assert_int_equal(added(s, "[{\"name\":\"first/echo\"}]"), 0);
    guest_stop(s);
}

/* Nothing is forwarded to where a descriptor of one service points in another. */
static void sockets_of_others(void **state)
{
    struct guest *s = guest_start(g, NULL),
                 *other = guest_start(g, &(struct guest_opts){ .name = "first" });
    const char *targets[] = { "kernel",
                              "authsvc",
                              other->sock,
                              rig_sock(g, "auth.sock"),
                              rig_sock(g, "init.sock"),
                              rig_sock(g, "kernel.sock") };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(targets); i++) {
        cleanup(freep) char *tools = xasprintf(
            "[{\"name\":\"echo/x\",\"descriptor\":{\"name\":\"echo/x\",\"ipc\":{\"endpoint\":\"%s\","
            "\"method\":\"auth/mint\"}}}]",
            targets[i]);

        assert_int_equal(added(s, tools), 0);
    }
    cleanup(freep) char *p = xasprintf(
        "{\"name\":\"echo\",\"endpoint\":\"%s\",\"tools\":[\"echo/y\"]}", rig_sock(g, "auth.sock"));
    json_object *o = NULL;

    guest_call(s, "ipc.register", p, &o);
    assert_int_equal(json_object_array_length(json_arr(o, "tools")), 0);
    json_put(o);
    cleanup(freep) char *t = rig_token(g, "echo/x echo/y", NULL);

    assert_int_equal(outcome(t, "echo/x", "{}"), ERR_METHOD);
    assert_int_equal(outcome(t, "echo/y", "{}"), ERR_METHOD);
    guest_stop(other);
    guest_stop(s);
}

static int bind_at(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(str_copy(a.sun_path, sizeof(a.sun_path), path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* A socket in another's place: the router and the units see whose it is, and say nothing to it. */
static void planted_sockets(void **state)
{
    cleanup(freep) char *t = rig_token(g, "fs/stat fs/exists", NULL);
    char moved[300];
    struct ipc_reply r;
    int fd;

    (void)state;
    assert_int_equal(outcome(t, "fs/exists", "{\"path\":\"/tools\"}"), 0);
    snprintf(moved, sizeof(moved), "%s.away", rig_sock(g, "memfs.sock"));
    assert_int_equal(rename(rig_sock(g, "memfs.sock"), moved), 0);
    fd = bind_at(rig_sock(g, "memfs.sock"));
    assert_int_equal(rig_call(g, t, "fs/exists", "{\"path\":\"/tools\"}", &r), ERR_UNAVAIL);
    assert_string_equal(json_str(r.error.data, "reason", ""), "listener");
    ipc_reply_done(&r);
    int c = accept(fd, NULL, NULL);
    char byte;

    assert_true(c < 0 || read(c, &byte, 1) <= 0); /* not one byte was sent */
    close(c);
    close(fd);
    assert_int_equal(rename(moved, rig_sock(g, "memfs.sock")), 0);
    assert_int_equal(outcome(t, "fs/exists", "{\"path\":\"/tools\"}"), 0);
}

static void handles_of_others(void **state)
{
    struct guest *s = guest_start(g, NULL);
    static const char *const guesses[] = {
        "\"ct_00000000000000000000000000000000\"", "\"ct_\"", "\"\"", "\"x\"", "7", "null", "{}"
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(guesses); i++) {
        cleanup(freep) char *p = xasprintf("{\"_as\":%s}", guesses[i]);

        assert_int_equal(guest_call(s, "echo/echo", p, NULL), ERR_AUTH);
    }
    /* a service's own grants end where its token says */
    assert_int_equal(guest_call(s, "kernel/proc/list", "{}", NULL), ERR_PERM);
    assert_int_equal(guest_call(s, "auth/policy", "{\"user\":\"admin\"}", NULL), ERR_METHOD);
    guest_stop(s);
}

/* Uses of a budget: lines added, changed, played again. */
static void router_state(void **state)
{
    json_object *b = json_make("sys/tools:i", (int64_t)3);
    cleanup(freep) char *t = rig_token(g, "", json_make("budgets:o lineage:s", b, "abuse-lineage"));
    cleanup(freep) char *path = xasprintf("%s/data/router.state", g->root);
    cleanup(freep) char *text = NULL, *bad = NULL;
    size_t len;
    struct stat st;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(outcome(t, "sys/tools", "{}"), 0);
    assert_int_equal(file_read(path, 1 << 20, &text, &len), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    /* the first line once more, and a line that gives back */
    bad =
        xasprintf("%s%.*s\n%.43s {\"lineage\":\"abuse-lineage\",\"tool\":\"sys/tools\",\"n\":-2}\n",
                  text, (int)strcspn(text, "\n"), text, text);
    rig_signal_unit(g, "router", SIGSTOP);
    assert_int_equal(file_write_atomic(path, bad, strlen(bad), 0600), 0);
    rig_kill_unit(g, "router");
    assert_int_equal(outcome(t, "sys/tools", "{}"), 0); /* the third and last */
    assert_int_equal(outcome(t, "sys/tools", "{}"), ERR_BUDGET);
    /* a count changed in place */
    free(TAKE(text));
    assert_int_equal(file_read(path, 1 << 20, &text, &len), 0);
    char *n = strstr(text, "\"n\":1");

    assert_non_null(n);
    n[4] = '0';
    rig_signal_unit(g, "router", SIGSTOP);
    assert_int_equal(file_write_atomic(path, text, len, 0600), 0);
    rig_kill_unit(g, "router");
    cleanup(freep) char *line = rig_read(g, "logs/router.log");

    assert_non_null(strstr(line, "not sealed by us"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_others), cmocka_unit_test(sockets_of_others),
        cmocka_unit_test(planted_sockets), cmocka_unit_test(handles_of_others),
        cmocka_unit_test(router_state),
    };

    return cmocka_run_group_tests_name("abuse: services", tests, up, down);
}
