/*
 * System calls by their token: the router's figures and registry, signals and subscriptions, mounts
 * of the VFS, the counters for Prometheus; each with the errors of its arguments and of too little
 * right.
 */
#include "tests/suite/agent_run.h"

#define GRANTS                                                                                   \
    "kernel/ipc/list kernel/ipc/lookup kernel/ipc/health kernel/ipc/deregister kernel/mem/list " \
    "kernel/mem/stat kernel/mem/sync kernel/signal/send kernel/signal/subscribe "                \
    "kernel/signal/unsubscribe kernel/signal/list kernel/proc/list kernel/proc/pause "           \
    "kernel/proc/resume kernel/proc/kill kernel/proc/stat kernel/proc/wait kernel/sys/info sys/tools"

static struct arun *a;
static char *root, *guest;

static json_object *ok(const char *method, const char *params)
{
    struct ipc_reply r;

    if (rig_call(a->g, root, method, params, &r))
        fail_msg("%s %s: %s", method, params, r.error.message);
    json_object *o = TAKE(r.result);
    ipc_reply_done(&r);
    return o;
}

static void refuses(const char *token, const char *method, const char *params, int want)
{
    struct ipc_reply r;
    int e = rig_call(a->g, token, method, params, &r);

    if (e != want)
        fail_msg("%s %s: %d %s instead of %d", method, params, e, e ? r.error.message : "", want);
    ipc_reply_done(&r);
}

static int start(void **state)
{
    (void)state;
    a = arun_new("openai",
                 "{'rules':[{'match':{'contains':'hold'},'wait':'never','text':'no'}],"
                 "'default':{'text':'Done.'}}",
                 NULL);
    arun_spawn(a, "researcher", "say done", false);
    arun_wait_idle(a);
    /* an agent of admin in another process: it has the tools, and no process of its own */
    root = rig_token(a->g, GRANTS, NULL);
    guest = rig_token(a->g, GRANTS, json_make("sub:s role:s", "bob", "user"));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(root);
    free(guest);
    arun_free(a);
    return 0;
}

static json_object *row_of(json_object *list, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (str_eq(json_str(json_object_array_get_idx(list, i), "name", ""), name))
            return json_object_array_get_idx(list, i);
    fail_msg("no %s in %s", name, json_text(list));
    return NULL;
}

static void the_registry_is_shown(void **state)
{
    cleanup(json_putp) json_object *l = ok("kernel/ipc/list", "{}");
    json_object *row = row_of(json_arr(l, "services"), "memfs");

    (void)state;
    assert_int_equal(json_int(row, "pid", 0) > 0, 1);
    assert_string_equal(json_str(row, "status", ""), "running");
    assert_true(json_arr_has(json_arr(row, "tools"), "fs/read"));
    cleanup(json_putp) json_object *f = ok("kernel/ipc/list", "{\"filter\":\"exec\"}");
    assert_int_equal(json_object_array_length(json_arr(f, "services")), 1);
    cleanup(json_putp) json_object *n = ok("kernel/ipc/list", "{\"filter\":\"zzz\"}");
    assert_int_equal(json_object_array_length(json_arr(n, "services")), 0);
    static const char *const same[] = { "{\"name\":\"memfs\"}", "{\"name\":\"memfs.svc\"}",
                                        "{\"tool\":\"fs/read\"}" };
    for (size_t i = 0; i < N_ELEMS(same); i++) {
        cleanup(json_putp) json_object *o = ok("kernel/ipc/lookup", same[i]);
        assert_string_equal(json_str(o, "name", ""), "memfs");
        assert_non_null(strstr(json_str(o, "endpoint", ""), ".sock"));
    }
    refuses(root, "kernel/ipc/lookup", "{}", ERR_INVAL);
    refuses(root, "kernel/ipc/lookup", "{\"name\":\"nobody\"}", ERR_NOTFOUND);
    refuses(root, "kernel/ipc/lookup", "{\"tool\":\"no/tool\"}", ERR_NOTFOUND);
    refuses(
        root, "kernel/ipc/lookup",
        "{\"name\":\"a-name-of-more-than-sixty-four-characters-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
        ERR_NOTFOUND);
    /* it ends things, and nobody can be asked */
    refuses(root, "kernel/ipc/deregister", "{\"name\":\"memfs\"}", ERR_DENIED);
}

static void health_counts_calls_and_errors(void **state)
{
    cleanup(json_putp) json_object *before = ok("kernel/ipc/health", "{\"name\":\"kernel\"}");

    (void)state;
    json_put(ok("kernel/sys/info", "{}"));
    refuses(root, "kernel/proc/stat", "{\"pid\":99999}", ERR_NOTFOUND);
    cleanup(json_putp) json_object *after = ok("kernel/ipc/health", "{\"name\":\"kernel\"}");
    json_object *x = row_of(json_arr(before, "services"), "kernel"),
                *y = row_of(json_arr(after, "services"), "kernel");
    assert_true(json_int(y, "calls", 0) >= json_int(x, "calls", 0) + 2);
    assert_true(json_int(y, "errors", 0) > json_int(x, "errors", 0));
    assert_string_equal(json_str(y, "state", ""), "running");
    assert_non_null(json_get(y, "p99_ms"));
    cleanup(json_putp) json_object *all = ok("kernel/ipc/health", "{}");
    assert_true(json_object_array_length(json_arr(all, "services")) >= 5);
    refuses(root, "kernel/ipc/health", "{\"name\":\"nobody\"}", ERR_NOTFOUND);
}

static void tools_are_listed_by_version(void **state)
{
    cleanup(json_putp) json_object *all = ok("sys/tools", "{}");
    cleanup(freep) char *same =
        xasprintf("{\"ifVersion\":%lld}", (long long)json_int(all, "version", -1));
    cleanup(json_putp) json_object *un = ok("sys/tools", same);

    (void)state;
    assert_true(json_flag(un, "unchanged", false));
    assert_int_equal(json_object_array_length(json_arr(un, "tools")), 0);
    cleanup(json_putp) json_object *g = ok("sys/tools", "{\"granted_only\":true}");
    assert_true(json_object_array_length(json_arr(g, "tools")) <
                json_object_array_length(json_arr(all, "tools")));
    cleanup(json_putp) json_object *ns = ok("sys/tools", "{\"namespace\":\"kernel/mem/\"}");
    assert_true(json_object_array_length(json_arr(ns, "tools")) >= 3);
    refuses(root, "sys/tools", "{\"granted_only\":1}", ERR_INVAL);
    refuses(root, "sys/tools", "{\"ifVersion\":-1}", ERR_INVAL);
}

static void mounts_are_listed_and_synced(void **state)
{
    cleanup(json_putp) json_object *l = ok("kernel/mem/list", "{}");
    json_object *rows = json_arr(l, "mounts");

    (void)state;
    assert_true(json_object_array_length(rows) >= 1);
    for (size_t i = 0; i < json_object_array_length(rows); i++)
        assert_string_equal(json_str(json_object_array_get_idx(rows, i), "state", ""), "ok");
    cleanup(json_putp) json_object *s =
        ok("kernel/mem/stat", "{\"path\":\"/users/admin/workspace\"}");
    assert_true(json_int(s, "free", 0) > 0);
    assert_string_equal(json_str(s, "provider", ""), "local");
    cleanup(json_putp) json_object *y = ok("kernel/mem/sync", "{}");
    assert_true(json_flag(y, "synced", false));
    json_put(ok("kernel/mem/sync", "{\"path\":\"/users/admin\"}"));
    refuses(root, "kernel/mem/stat", "{}", ERR_INVAL);
    refuses(root, "kernel/mem/stat", "{\"path\":\"relative\"}", ERR_INVAL);
    refuses(root, "kernel/mem/sync", "{\"path\":\"relative\"}", ERR_INVAL);
}

static json_object *user(const char *domain, const char *op, json_object *body)
{
    json_object *r = ws_cmd(a->w, domain, op, body);

    assert_non_null(r);
    return r;
}

static void user_refused(const char *op, json_object *body, const char *code)
{
    cleanup(json_putp) json_object *r = user("signal", op, body);

    if (json_flag(r, "ok", false) || !str_eq(json_str(r, "code", ""), code))
        fail_msg("%s: %s instead of %s", op, json_text(r), code);
}

static void subscriptions_come_and_go(void **state)
{
    cleanup(json_putp) json_object *r = user("signal", "subscribe", json_make("pid:i", a->pid));

    (void)state;
    if (!json_flag(r, "ok", false))
        fail_msg("%s", json_text(r));
    cleanup(freep) char *id = xstrdup(json_str(json_obj(r, "body"), "subscription_id", ""));
    assert_true(str_starts(id, "sub-"));
    cleanup(json_putp) json_object *l = user("signal", "list", json_new());
    assert_non_null(strstr(json_text(l), id));
    json_put(arun_cmd(a, "signal", "unsubscribe", json_make("subscription_id:s", id)));
    user_refused("unsubscribe", json_make("subscription_id:s", id), "ENOTFOUND");
    user_refused("subscribe", json_make("pid:i", (int64_t)99999), "ENOTFOUND");
}

static void signals_are_checked(void **state)
{
    (void)state;
    user_refused("send", json_make("pid:i signal:s", a->pid, "SIGNONE"), "EPARSE");
    user_refused("send", json_make("pid:i signal:s", (int64_t)99999, "SIGPAUSE"), "ENOTFOUND");
    refuses(root, "kernel/signal/send", "{\"signal\":\"SIGESCALATE\",\"pid\":1}", ERR_PERM);
    user_refused("send", json_make("pid:i signal:s", a->pid, "SIGRESUME"), "ECONFLICT");
    refuses(root, "kernel/signal/send", "{\"signal\":\"SIGPAUSE\",\"target\":\"broadcast\"}",
            ERR_PERM);
    refuses(guest, "kernel/signal/send", "{\"signal\":\"SIGNONE\",\"pid\":1}", ERR_INVAL);
}

static void new_goals_and_pauses_by_signal(void **state)
{
    (void)state;
    arun_signal(a, "SIGSTART", json_make("goal:s", "hold on"));
    assert_true(prov_wait(a->p, 2));
    user_refused(
        "send", json_make("pid:i signal:s payload:o", a->pid, "SIGSTART", json_make("goal:s", "x")),
        "ECONFLICT");
    user_refused("send", json_make("pid:i signal:s", a->pid, "SIGSTART"), "EPARSE");
    arun_signal(a, "SIGPAUSE", NULL);
    arun_wait_status(a, "paused");
    arun_signal(a, "SIGRESUME", NULL);
    arun_wait_status(a, "running");
    json_put(arun_cmd(a, "proc", "pause", json_make("pid:i hard:b", a->pid, 1)));
    arun_wait_status(a, "paused");
    json_put(arun_cmd(a, "proc", "resume", json_make("pid:i", a->pid)));
    arun_wait_status(a, "running");
    arun_signal(a, "SIGSTOP", NULL);
    arun_wait_exit(a, 20);
    assert_string_equal(a->exit_reason, "stopped");
    user_refused("send", json_make("pid:i signal:s", a->pid, "SIGPAUSE"), "ECONFLICT");
}

static void figures_for_prometheus(void **state)
{
    char *reply = NULL;

    (void)state;
    if (!a->g->admin_port)
        skip();
    int status = http_request(a->g->admin_port, "GET", "/metrics", "", "", &reply);
    assert_int_equal(status, 200);
    assert_non_null(strstr(reply, "avix_calls_total{owner=\"memfs\"}"));
    assert_non_null(strstr(reply, "avix_fs_reads_total"));
    free(reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_registry_is_shown),
        cmocka_unit_test(health_counts_calls_and_errors),
        cmocka_unit_test(tools_are_listed_by_version),
        cmocka_unit_test(mounts_are_listed_and_synced),
        cmocka_unit_test(subscriptions_come_and_go),
        cmocka_unit_test(signals_are_checked),
        cmocka_unit_test(new_goals_and_pauses_by_signal),
        cmocka_unit_test(figures_for_prometheus),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
