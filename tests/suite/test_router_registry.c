/* The registry: who may put what into it, what survives a router that dies right after it said yes,
 * draining, visibility, limits and queues. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
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

static int outcome(const char *token, const char *method, const char *params, char *name)
{
    struct ipc_reply r;
    int e = rig_call(g, token, method, params, &r);

    if (name)
        str_copy(name, 32, json_str(r.error.data, "errno", ""));
    ipc_reply_done(&r);
    return e;
}

/* Names that the router skipped, "name:reason " each. */
static const char *skipped(struct guest *s, const char *params)
{
    static char text[1024];
    json_object *o = NULL, *list;
    size_t n = 0;

    text[0] = '\0';
    assert_int_equal(guest_call(s, "ipc.tool-add", params, &o), 0);
    list = json_arr(o, "skipped");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *row = json_object_array_get_idx(list, i);

        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s:%s ", json_str(row, "name", ""),
                              json_str(row, "reason", ""));
    }
    json_put(o);
    return text;
}

static void names_are_guarded(void **state)
{
    struct guest *s = guest_start(g, NULL),
                 *other = guest_start(g, &(struct guest_opts){ .name = "echo2" });
    static const struct {
        const char *tool, *why;
    } rows[] = {
        { "fs/read", "fs/read:namespace " },
        { "kernel/proc/evil", "kernel/proc/evil:namespace " },
        { "echo2/echo", "echo2/echo:namespace " },
        { "echo", "echo:name " },
        { "echo/a__b", "echo/a__b:name " },
        { "echo/_x", "echo/_x:name " },
        { "echo//x", "echo//x:name " },
        { "echo/fine-1.x", "" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        cleanup(freep) char *p = xasprintf("{\"tools\":[{\"name\":\"%s\"}]}", rows[i].tool);

        assert_string_equal(skipped(s, p), rows[i].why);
    }
    /* another's socket, another unit, a path that leaves the own folder */
    static const char *const ends[] = { "auth.sock", "kernel", "services/echo2/x.sock",
                                        "services/echo/../echo2/x.sock" };
    for (size_t i = 0; i < N_ELEMS(ends); i++) {
        cleanup(freep) char *p = xasprintf(
            "{\"tools\":[{\"name\":\"echo/far\",\"descriptor\":{\"name\":\"echo/far\","
            "\"ipc\":{\"endpoint\":\"%s%s%s\"}}}]}",
            strchr(ends[i], '.') ? g->run_dir : "", strchr(ends[i], '.') ? "/" : "", ends[i]);

        assert_string_equal(skipped(s, p), "echo/far:endpoint ");
    }
    assert_int_equal(guest_call(s, "ipc.register", "{\"name\":\"authsvc\"}", NULL), ERR_AUTH);
    assert_int_equal(guest_call(s, "ipc.register", "{\"name\":\"echo.svc\"}", NULL), 0);
    guest_stop(other);
    guest_stop(s);
}

static void a_token_of_another_process_registers_nothing(void **state)
{
    struct guest *s = guest_start(g, NULL);
    char name[32];

    (void)state;
    outcome(s->token, "ipc.tool-add", "{\"tools\":[{\"name\":\"echo/x\"}]}", name);
    assert_string_equal(name, "EAUTH");
    outcome(NULL, "ipc.tool-add", "{\"tools\":[{\"name\":\"echo/x\"}]}", name);
    assert_string_equal(name, "EAUTH");
    outcome(NULL, "ipc.deregister", "{\"name\":\"memfs\"}", name);
    assert_string_equal(name, "EAUTH");
    cleanup(freep) char *agent = rig_token(g, "agent/spawn", NULL);

    outcome(agent, "ipc.tool-add", "{\"tools\":[{\"name\":\"agent/spawn\"}]}", name);
    assert_string_equal(name, "EPERM"); /* agents come by way of the kernel */
    outcome(agent, "auth.revoked", "{\"tokens\":[]}", name);
    assert_string_equal(name, "EPERM");
    guest_stop(s);
}

/* Killed the moment its yes arrived: what it said yes to is there afterwards. */
static void an_acknowledged_change_survives_a_kill(void **state)
{
    struct guest *s = guest_start(g, NULL);
    cleanup(freep) char *t = rig_token(g, "echo/k0 echo/k1 echo/k2 echo/k3 echo/echo", NULL);

    (void)state;
    for (int i = 0; i < 4; i++) {
        char tool[16];
        cleanup(freep) char *p = xasprintf(
            "{\"tools\":[{\"name\":\"echo/k%d\",\"descriptor\":{\"name\":\"echo/k%d\",\"ipc\":{"
            "\"method\":\"echo/echo\"}}}]}",
            i, i);

        snprintf(tool, sizeof(tool), "echo/k%d", i);
        assert_int_equal(guest_call(s, "ipc.tool-add", p, NULL), 0);
        rig_kill_unit(g, "router");
        assert_int_equal(outcome(t, tool, "{}", NULL), 0);
        if (i % 2) {
            cleanup(freep) char *rm = xasprintf("{\"tools\":[\"%s\"]}", tool);

            assert_int_equal(guest_call(s, "ipc.tool-remove", rm, NULL), 0);
            rig_kill_unit(g, "router");
            assert_int_equal(outcome(t, tool, "{}", NULL), ERR_METHOD);
        }
    }
    guest_stop(s);
    rig_kill_unit(g, "router");
    assert_int_equal(outcome(t, "echo/echo", "{}", NULL), ERR_METHOD); /* that process is gone */
    cleanup(freep) char *reader = rig_token(g, "fs/read", NULL);

    assert_int_equal(outcome(reader, "fs/exists", "{\"path\":\"/\"}", NULL), ERR_PERM);
}

static char *state_file(const char *name)
{
    char path[300];
    char *text = NULL;
    size_t len;

    snprintf(path, sizeof(path), "%s/router/%s", g->run_dir, name);
    return file_read(path, 64 << 20, &text, &len) ? xstrdup("") : text;
}

/* A line or a row of someone else's makes no tool. */
static void forged_state_is_ignored(void **state)
{
    struct guest *s = guest_start(g, NULL);
    cleanup(freep) char *json = state_file("registry.json");
    cleanup(freep) char *t = rig_token(g, "echo/echo echo/evil", NULL);
    char path[300];
    struct stat st;

    (void)state;
    assert_non_null(strstr(json, "\"mac\""));
    snprintf(path, sizeof(path), "%s/router/registry.json", g->run_dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof(path), "%s/router/registry.log", g->run_dir);
    FILE *f = fopen(path, "a");

    fprintf(f,
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA {\"tool\":{\"owner\":\"echo\",\"sock\":"
            "\"%s\",\"descriptor\":{\"name\":\"echo/evil\"}},\"version\":99999}\n",
            s->sock);
    fclose(f);
    rig_kill_unit(g, "router");
    assert_int_equal(outcome(t, "echo/evil", "{}", NULL), ERR_METHOD);
    assert_int_equal(outcome(t, "echo/echo", "{}", NULL), 0);
    /* the snapshot itself, changed by one letter */
    cleanup(freep) char *now = state_file("registry.json");
    char *at = strstr(now, "echo/echo");

    assert_non_null(at);
    memcpy(at, "echo/evil", 9);
    snprintf(path, sizeof(path), "%s/router/registry.json", g->run_dir);
    rig_signal_unit(g, "router", SIGSTOP);
    assert_int_equal(file_write_rename(path, now, strlen(now), 0600), 0);
    rig_kill_unit(g, "router");
    assert_int_equal(outcome(t, "echo/evil", "{}", NULL), ERR_METHOD);
    guest_stop(s);
}

static void visibility_and_permissions(void **state)
{
    static const struct {
        const char *descriptor, *extra; /* claims of the caller */
        int err;
    } rows[] = {
        { "{\"visibility\":\"user:alice\"}", "{\"sub\":\"alice\"}", 0 },
        { "{\"visibility\":\"user:alice\"}", "{\"sub\":\"bob\"}", ERR_METHOD },
        { "{\"visibility\":{\"user\":\"alice\"}}", "{\"sub\":\"alice\"}", 0 },
        { "{\"visibility\":\"!user alice\"}", "{\"sub\":\"alice\"}", ERR_METHOD },
        { "{\"visibility\":\"!user alice\"}", "{\"sub\":\"bob\"}", 0 },
        { "{\"visibility\":\"crew:lab\"}", "{\"crews\":[\"lab\"]}", 0 },
        { "{\"visibility\":\"crew:lab\"}", "{\"crews\":[\"office\"]}", ERR_METHOD },
        { "{\"visibility\":\"internal\"}", "{}", ERR_METHOD },
        { "{\"permissions\":{\"owner\":\"bob\",\"all\":\"r--\"}}", "{\"sub\":\"alice\"}",
          ERR_PERM },
        { "{\"permissions\":{\"owner\":\"bob\",\"all\":\"r--\"}}", "{\"sub\":\"bob\"}", 0 },
        { "{\"permissions\":{\"owner\":\"bob\",\"all\":\"r-x\"}}", "{\"sub\":\"alice\"}", 0 },
        { "{\"permissions\":{\"owner\":\"bob\",\"crew\":\"lab\",\"all\":\"---\"}}",
          "{\"sub\":\"alice\",\"crews\":[\"lab\"]}", 0 },
        { "{\"permissions\":{\"owner\":\"bob\",\"all\":\"---\"}}", "{\"sub\":\"root\",\"uid\":0}",
          0 },
        { "{\"status\":{\"state\":\"degraded\"}}", "{}", 0 },
        { "{\"status\":{\"state\":\"unavailable\",\"reason\":\"tired\"}}", "{}", ERR_UNAVAIL },
        { "{\"status\":{\"state\":\"sleeping\"}}", "{}", ERR_UNAVAIL },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        json_object *extra = NULL;
        struct guest *s = guest_start(g, &(struct guest_opts){ .descriptor = rows[i].descriptor });

        json_parse(rows[i].extra, strlen(rows[i].extra), &extra);
        cleanup(freep) char *t = rig_token(g, "echo/echo", extra);
        int e = outcome(t, "echo/echo", "{}", NULL);

        if (e != rows[i].err)
            fail_msg("%s with %s: %s", rows[i].descriptor, rows[i].extra, err_name(e));
        guest_stop(s);
    }
}

/* --- limits and queues --------------------------------------------------------------------------
 */

static int start_call(const char *token, const char *method, const char *params)
{
    cleanup(freep) char *body = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":\"k\",\"method\":\"%s\","
                                          "\"params\":{\"_token\":\"%s\"%s}}",
                                          method, token, params);
    int fd = ipc_connect(rig_sock(g, "router.sock"), false);

    assert_true(fd >= 0);
    assert_int_equal(frame_write_fds(fd, body, strlen(body), NULL, 0), 0);
    return fd;
}

static char *token_of(int pid)
{
    return rig_token(g, "echo/echo echo/keep echo/slow", json_make("pid:i", (int64_t)pid));
}

static void queue_and_limits(void **state)
{
    struct guest *s = guest_start(g, NULL);
    int keep[20], waiting[100], n = 0;
    char name[32];
    int64_t t0;

    (void)state;
    for (int i = 0; i < 20; i++) { /* every slot */
        cleanup(freep) char *t = token_of(7000 + i);

        keep[i] = start_call(t, "echo/keep", "");
        assert_string_equal(guest_event(s, 5000), "call echo/keep");
    }
    t0 = mono_ms();
    for (int i = 0; i < 100; i++) {
        cleanup(freep) char *t = token_of(7100 + i / 4);

        waiting[n++] = start_call(t, "echo/echo", "");
    }
    cleanup(freep) char *late = token_of(7999);

    assert_int_equal(outcome(late, "echo/echo", "{}", name), ERR_BUSY);
    close(keep[0]); /* a slot: one after the other goes through */
    for (int i = 0; i < 50; i++)
        assert_string_equal(guest_event(s, 5000), i ? "call echo/echo" : "gone echo/keep");
    assert_true(mono_ms() - t0 < 5000);
    for (int i = 0; i < n; i++)
        close(waiting[i]);
    for (int i = 1; i < 20; i++)
        close(keep[i]);
    guest_stop(s);
}

static void a_call_waits_five_seconds_at_most(void **state)
{
    struct guest *s = guest_start(g, NULL);
    int keep[20];
    struct ipc_reply r;
    int64_t t0;

    (void)state;
    for (int i = 0; i < 20; i++) {
        cleanup(freep) char *t = token_of(7000 + i);

        keep[i] = start_call(t, "echo/keep", "");
        assert_string_equal(guest_event(s, 5000), "call echo/keep");
    }
    cleanup(freep) char *t = token_of(8000);

    t0 = mono_ms();
    assert_int_equal(rig_call(g, t, "echo/echo", "{}", &r), ERR_TIMEOUT);
    assert_string_equal(json_str(r.error.data, "phase", ""), "queue");
    assert_in_range(mono_ms() - t0, 4500, 7000);
    ipc_reply_done(&r);
    for (int i = 0; i < 20; i++)
        close(keep[i]);
    guest_stop(s);
}

static void one_agent_has_so_many_calls(void **state)
{
    struct guest *s = guest_start(g, NULL);
    cleanup(freep) char *t = token_of(9000), *other = token_of(9001);
    int fds[32];

    (void)state;
    for (int i = 0; i < 32; i++) /* 20 run, 12 wait */
        fds[i] = start_call(t, "echo/keep", "");
    for (int i = 0; i < 20; i++)
        assert_string_equal(guest_event(s, 5000), "call echo/keep");
    assert_int_equal(outcome(t, "sys/tools", "{}", NULL), ERR_BUSY);
    assert_int_equal(outcome(other, "sys/tools", "{}", NULL), 0);
    for (int i = 0; i < 32; i++)
        close(fds[i]);
    guest_stop(s);
}

/* One agent fills the queue first; another's single call is next all the same. */
static void turns_are_taken_round_robin(void **state)
{
    struct guest *s = guest_start(g, NULL);
    cleanup(freep) char *greedy = token_of(9100), *modest = token_of(9101);
    int keep[20], fds[10], one;

    (void)state;
    for (int i = 0; i < 20; i++) {
        cleanup(freep) char *t = token_of(9200 + i);

        keep[i] = start_call(t, "echo/keep", "");
        assert_string_equal(guest_event(s, 5000), "call echo/keep");
    }
    for (int i = 0; i < 10; i++)
        fds[i] = start_call(greedy, "echo/slow", ",\"ms\":300");
    one = start_call(modest, "echo/echo", "");
    assert_int_equal(outcome(greedy, "sys/tools", "{}", NULL), 0); /* all have been queued */
    close(keep[0]);
    assert_string_equal(guest_event(s, 5000), "gone echo/keep");
    assert_string_equal(guest_event(s, 5000), "call echo/slow");
    assert_string_equal(guest_event(s, 5000), "call echo/echo");
    close(one);
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    for (int i = 1; i < 20; i++)
        close(keep[i]);
    guest_stop(s);
}

static void drains(void **state)
{
    struct guest *s = guest_start(g, NULL);
    cleanup(freep) char *t = token_of(9300);
    int fd = start_call(t, "echo/slow", ",\"ms\":700");
    char sink[4096];
    ssize_t n;
    int64_t t0 = mono_ms();

    (void)state;
    assert_string_equal(guest_event(s, 5000), "call echo/slow");
    assert_int_equal(guest_call(s, "ipc.tool-remove",
                                "{\"tools\":[\"echo/slow\",\"echo/none\"],\"drain\":true}", NULL),
                     0);
    assert_in_range(mono_ms() - t0, 500, 5000); /* when the call in flight had ended */
    n = read(fd, sink, sizeof(sink) - 1);
    assert_true(n > 0);
    sink[n] = '\0';
    assert_non_null(strstr(sink + 4, "\"result\""));
    close(fd);
    assert_int_equal(outcome(t, "echo/slow", "{}", NULL), ERR_METHOD);
    assert_int_equal(outcome(t, "echo/echo", "{}", NULL), 0);
    assert_int_equal(guest_call(s, "ipc.deregister", "{}", NULL), 0);
    assert_int_equal(outcome(t, "echo/echo", "{}", NULL), ERR_METHOD);
    guest_stop(s);
}

/* --- _as
 * ------------------------------------------------------------------------------------------ */

static void a_handle_works_for_its_owner_while_the_call_lasts(void **state)
{
    struct guest *s = guest_start(g, NULL),
                 *thief = guest_start(g, &(struct guest_opts){ .name = "thief" });
    cleanup(freep) char *t =
        rig_token(g, "echo/echo echo/keep fs/exists", json_make("pid:i", (int64_t)9400));
    cleanup(freep) char *caller = NULL;
    int fd;

    (void)state;
    fd = start_call(t, "echo/keep", ",\"tell\":true");
    assert_string_equal(guest_event(s, 5000), "call echo/keep");
    caller = xstrdup(guest_event(s, 5000));
    assert_true(str_starts(caller, "handle ct_"));
    cleanup(freep) char *p = xasprintf("{\"_as\":\"%s\",\"path\":\"/users\"}", caller + 7);
    json_object *o = NULL;

    assert_int_equal(guest_call(thief, "fs/exists", p, NULL), ERR_AUTH);
    assert_int_equal(guest_call(s, "echo/stream", p, NULL), ERR_PERM); /* the agent may not */
    assert_int_equal(guest_call(s, "echo/echo", p, &o), 0);
    assert_string_equal(json_str(json_obj(o, "_caller"), "kind", ""), "agent");
    assert_int_equal(json_int(json_obj(o, "_caller"), "pid", 0), 9400);
    json_put(o);
    close(fd);
    while (strcmp(guest_event(s, 5000), "gone echo/keep") != 0)
        ;
    assert_int_equal(guest_call(s, "echo/echo", p, NULL), ERR_AUTH);
    guest_stop(thief);
    guest_stop(s);
}

/* --- what it shows
 * --------------------------------------------------------------------------------- */

static void lists_and_health(void **state)
{
    struct guest *s = guest_start(
        g, &(struct guest_opts){ .descriptor =
                                     "{\"input\":{\"q\":{\"type\":\"int\",\"required\":true}}}" });
    cleanup(freep) char *t =
        rig_token(g, "echo/echo kernel/ipc/list kernel/ipc/health kernel/ipc/lookup", NULL);
    struct ipc_reply r;
    json_object *list;
    int64_t before;

    (void)state;
    assert_int_equal(rig_call(g, t, "kernel/ipc/health", "{\"name\":\"echo\"}", &r), 0);
    before = json_int(json_object_array_get_idx(json_arr(r.result, "services"), 0), "calls", 0);
    ipc_reply_done(&r);
    for (int i = 0; i < 5; i++)
        assert_int_equal(outcome(t, "echo/echo", "{}", NULL), 0);
    assert_int_equal(rig_call(g, t, "sys/tools",
                              "{\"namespace\":\"echo\",\"granted_only\":true,\"schemas\":true}",
                              &r),
                     0);
    list = json_arr(r.result, "tools");
    assert_int_equal(json_object_array_length(list), 1);
    assert_string_equal(
        json_text(json_get(json_object_array_get_idx(list, 0), "input_schema")),
        "{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"integer\"}},\"required\":[\"q\"]}");
    cleanup(freep) char *again =
        xasprintf("{\"ifVersion\":%lld}", (long long)json_int(r.result, "version", 0));

    ipc_reply_done(&r);
    assert_int_equal(rig_call(g, t, "sys/tools", again, &r), 0);
    assert_true(json_flag(r.result, "unchanged", false));
    ipc_reply_done(&r);
    assert_int_equal(rig_call(g, t, "kernel/ipc/health", "{\"name\":\"echo\"}", &r), 0);
    list = json_arr(r.result, "services");
    assert_int_equal(json_object_array_length(list), 1);
    assert_int_equal(json_int(json_object_array_get_idx(list, 0), "calls", 0) - before, 5);
    assert_true(json_num(json_object_array_get_idx(list, 0), "p50_ms", 0) > 0);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(g, t, "kernel/ipc/lookup", "{\"tool\":\"echo/echo\"}", &r), 0);
    assert_string_equal(json_str(r.result, "name", ""), "echo");
    ipc_reply_done(&r);
    assert_int_equal(outcome(t, "kernel/ipc/lookup", "{\"name\":\"nobody\"}", NULL), ERR_NOTFOUND);
    assert_int_equal(outcome(t, "kernel/ipc/lookup", "{}", NULL), ERR_INVAL);
    assert_int_equal(rig_call(g, t, "kernel/ipc/list", "{}", &r), 0);
    assert_true(json_object_array_length(json_arr(r.result, "services")) >= 7);
    ipc_reply_done(&r);
    guest_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_guarded),
        cmocka_unit_test(a_token_of_another_process_registers_nothing),
        cmocka_unit_test(visibility_and_permissions),
        cmocka_unit_test(queue_and_limits),
        cmocka_unit_test(a_call_waits_five_seconds_at_most),
        cmocka_unit_test(one_agent_has_so_many_calls),
        cmocka_unit_test(turns_are_taken_round_robin),
        cmocka_unit_test(drains),
        cmocka_unit_test(a_handle_works_for_its_owner_while_the_call_lasts),
        cmocka_unit_test(lists_and_health),
        cmocka_unit_test(an_acknowledged_change_survives_a_kill),
        cmocka_unit_test(forged_state_is_ignored),
    };

    return cmocka_run_group_tests_name("router registry", tests, up, down);
}
