/*
 * The trees that are made on each read (/proc, /kernel, /tools), as an admin, a user and an agent
 * see them: what a list names can be opened, what is a folder can be listed, what belongs to
 * another cannot be read, and the numbers in the files are those of the process.
 */
#include "common/base/yaml.h"
#include "tests/suite/agent_run.h"

#define RULES                                                                                \
    "{'rules':[{'match':{'contains':'hold'},'wait':'never','text':'no'}],'default':{'text':" \
    "'Done.','usage':{'input':11,'output':5}}}"

static struct arun *a;

static json_object *ask(struct ws *w, const char *op, const char *path)
{
    json_object *r = ws_cmd(w, "fs", op, json_make("path:s", path));

    assert_non_null(r);
    return r;
}

/* The content of a file; yours. */
static char *content(struct ws *w, const char *path)
{
    cleanup(json_putp) json_object *r = ask(w, "read", path);

    if (!json_flag(r, "ok", false))
        fail_msg("%s: %s", path, json_text(r));
    return xstrdup(json_str(json_obj(r, "body"), "content", ""));
}

static json_object *parsed(struct ws *w, const char *path)
{
    cleanup(freep) char *text = content(w, path);
    json_object *o = NULL;
    struct yaml_err e = { 0 };

    if (yaml_parse(text, strlen(text), &o, &e))
        fail_msg("%s:%d: %s", path, e.line, e.msg);
    return o;
}

static void refused(struct ws *w, const char *op, const char *path, const char *code)
{
    cleanup(json_putp) json_object *r = ask(w, op, path);

    if (json_flag(r, "ok", false) || !str_eq(json_str(json_obj(json_obj(r, "error"), "detail"),
                                                      "reason", json_str(r, "code", "")),
                                             code))
        fail_msg("%s %s: %s instead of %s", op, path, json_text(r), code);
}

/* Every name below a folder; number of files that were read. */
static int walk(struct ws *w, const char *path, int depth)
{
    cleanup(json_putp) json_object *r =
        ws_cmd(w, "fs", "list", json_make("path:s details:b", path, 1));
    json_object *items = json_arr(json_obj(r, "body"), "items");
    int n = 0;

    if (!json_flag(r, "ok", false) || !items)
        fail_msg("%s: %s", path, json_text(r));
    assert_true(depth < 8);
    for (size_t i = 0; i < json_object_array_length(items); i++) {
        json_object *row = json_object_array_get_idx(items, i);
        cleanup(freep) char *at = xasprintf("%s/%s", path, json_str(row, "name", "?"));
        bool dir = str_eq(json_str(row, "kind", ""), "dir");
        cleanup(json_putp) json_object *st = ask(w, "stat", at);

        if (!str_eq(json_str(json_obj(st, "body"), "kind", ""), dir ? "dir" : "file"))
            fail_msg("%s: %s", at, json_text(st));
        if (dir) {
            n += walk(w, at, depth + 1);
            refused(w, "read", at, "EISDIR");
        } else {
            json_put(parsed(w, at));
            n++;
        }
    }
    return n;
}

static int start(void **state)
{
    (void)state;
    a = arun_new("openai", RULES, NULL);
    arun_spawn(a, "researcher", "say done", false);
    arun_wait_idle(a);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    arun_free(a);
    return 0;
}

static void what_is_listed_is_there(void **state)
{
    (void)state;
    assert_true(walk(a->w, "/kernel", 0) >= 4);
    assert_true(walk(a->w, "/tools", 0) >= 40);
    /* an agent with its two files and latency; units, llm, users */
    assert_true(walk(a->w, "/proc", 0) >= 15);
}

static void an_agents_files_are_its_numbers(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "/proc/%lld/status.yaml", (long long)a->pid);
    cleanup(json_putp) json_object *s = parsed(a->w, path);
    json_object *meta = json_obj(s, "metadata"), *st = json_obj(s, "status");
    json_object *m = json_obj(st, "metrics");
    assert_string_equal(json_str(s, "kind", ""), "AgentStatus");
    assert_string_equal(json_str(meta, "name", ""), "researcher");
    assert_string_equal(json_str(meta, "spawnedBy", ""), "admin");
    assert_string_equal(json_str(meta, "invocationId", ""), a->inv);
    assert_string_equal(json_str(meta, "sessionId", ""), a->session);
    assert_string_equal(json_str(st, "state", ""), "waiting");
    assert_string_equal(json_str(st, "goal", ""), "say done");
    assert_int_equal(json_int(m, "tokensIn", 0), 11);
    assert_int_equal(json_int(m, "tokensOut", 0), 5);
    assert_int_equal(json_int(m, "tokensConsumed", 0), 16);
    assert_int_equal(json_int(m, "llmCalls", 0), 1);
    assert_true(json_int(m, "rssKiB", 0) > 100);
    assert_int_equal(json_int(st, "hostPid", 0), arun_host_pid(a));
    assert_true(json_arr_has(json_arr(json_obj(st, "tools"), "granted"), "fs/read"));
    snprintf(path, sizeof path, "/proc/%lld/resolved.yaml", (long long)a->pid);
    cleanup(json_putp) json_object *r = parsed(a->w, path);
    assert_string_equal(json_str(json_obj(json_obj(r, "metadata"), "resolvedFor"), "username", ""),
                        "admin");
    assert_true(json_arr_has(json_arr(r, "grantedTools"), "fs/write"));
    assert_true(json_int(json_obj(r, "resolved"), "contextWindowTokens", 0) > 1000);
    snprintf(path, sizeof path, "/proc/%lld/latency", (long long)a->pid);
    cleanup(json_putp) json_object *l = parsed(a->w, path);
    assert_int_equal(json_int(l, "pid", 0), a->pid);
    assert_true(json_int(l, "calls", 0) >= 1);
}

static void a_user_has_a_status_and_sessions(void **state)
{
    cleanup(freep) char *path = xasprintf("/proc/users/admin/sessions/%s.yaml", a->session);

    (void)state;
    cleanup(json_putp) json_object *u = parsed(a->w, "/proc/users/admin/status.yaml");
    json_object *st = json_obj(u, "status");
    assert_int_equal(json_int(st, "agents", 0), 1);
    assert_int_equal(json_int(st, "tokens24h", 0), 16);
    assert_int_equal(json_object_get_int64(json_object_array_get_idx(json_arr(st, "pids"), 0)),
                     a->pid);
    cleanup(json_putp) json_object *s = parsed(a->w, path);
    assert_string_equal(json_str(json_obj(s, "metadata"), "title", ""), "say done");
    assert_int_equal(json_int(json_obj(s, "status"), "ownerPid", 0), a->pid);
    cleanup(json_putp) json_object *p =
        parsed(a->w, "/proc/users/admin/resolved/agent-manifest.yaml");
    assert_string_equal(json_str(p, "kind", ""), "Resolved");
    assert_non_null(json_obj(p, "annotations"));
}

static void services_show_themselves(void **state)
{
    (void)state;
    cleanup(json_putp) json_object *m = parsed(a->w, "/proc/services/memfs/status.yaml");
    assert_string_equal(json_str(m, "name", ""), "memfs");
    assert_string_equal(json_str(m, "state", ""), "running");
    cleanup(json_putp) json_object *l = parsed(a->w, "/proc/services/llm/status.yaml");
    assert_int_equal(json_object_array_length(json_arr(l, "providers")), 2);
    cleanup(json_putp) json_object *p = parsed(a->w, "/proc/services/llm/providers/double.yaml");
    assert_string_equal(json_str(p, "status", ""), "available");
    cleanup(json_putp) json_object *mo = parsed(a->w, "/proc/services/llm/models.yaml");
    assert_true(json_object_array_length(json_arr(mo, "models")) >= 2);
    cleanup(json_putp) json_object *t = parsed(a->w, "/proc/services/llm/usage/total.yaml");
    json_object *d = json_obj(json_obj(json_obj(t, "by_provider"), "double"), "text");
    assert_int_equal(json_int(d, "input_tokens", 0), 11);
    assert_non_null(json_str(t, "since", NULL));
}

static void wrong_paths_have_their_errors(void **state)
{
    static const struct {
        const char *op, *path, *code;
    } rows[] = {
        { "read", "/proc/999999/status.yaml", "ENOENT" },
        { "read", "/proc/users/admin/nothing", "ENOENT" },
        { "read", "/proc/users/admin/sessions/none.yaml", "ENOENT" },
        { "read", "/proc/services/nobody/status.yaml", "ENOTFOUND" },
        { "read", "/proc/services/memfs/other.yaml", "ENOENT" },
        { "list", "/proc/services/nobody", "ENOENT" },
        { "read", "/proc/spawn-errors/none.yaml", "ENOENT" },
        { "list", "/proc/services/llm/status.yaml", "ENOTDIR" },
        { "read", "/proc/services/llm/usage", "EISDIR" },
        { "list", "/tools/fs/read.yaml", "ENOTDIR" },
        { "read", "/tools/fs/.yaml", "ENOENT" },
        { "list", "/proc/services/llm/nothing", "ENOENT" },
        { "read", "/proc/services/llm/providers/none.yaml", "ENOENT" },
        { "read", "/proc/services/llm/providers/.yaml", "ENOENT" },
        { "read", "/proc/services/llm/nothing.yaml", "ENOENT" },
        { "list", "/kernel/defaults/agent.yaml", "ENOTDIR" },
        { "read", "/kernel/limits", "EISDIR" },
        { "read", "/kernel/limits/none.yaml", "ENOENT" },
        { "read", "/tools/fs/nothing.yaml", "ENOENT" },
        { "list", "/tools/nothing", "ENOENT" },
        { "read", "/tools/fs", "EISDIR" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        refused(a->w, rows[i].op, rows[i].path, rows[i].code);
}

static void a_failed_start_leaves_its_reason(void **state)
{
    cleanup(json_putp) json_object *r =
        ws_cmd(a->w, "proc", "spawn", json_make("agent:s goal:s", "no-such-agent", "x"));

    (void)state;
    assert_false(json_flag(r, "ok", true));
    cleanup(json_putp) json_object *l = ask(a->w, "list", "/proc/spawn-errors");
    json_object *names = json_arr(json_obj(l, "body"), "entries");
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        cleanup(freep) char *path = xasprintf(
            "/proc/spawn-errors/%s", json_object_get_string(json_object_array_get_idx(names, i)));
        cleanup(json_putp) json_object *o = parsed(a->w, path);
        assert_string_equal(json_str(o, "user", ""), "admin");
    }
}

/* An agent of another user: sees that there is a tree, and nothing of admin's. */
static void others_see_their_own(void **state)
{
    cleanup(freep) char *bob = rig_token(a->g, "fs/read fs/list fs/stat llm/usage",
                                         json_make("sub:s role:s", "bob", "user"));
    char path[128];
    struct ipc_reply r;

    (void)state;
    static const char *const hidden[] = { "/status.yaml", "/resolved.yaml", "" };
    for (size_t i = 0; i < N_ELEMS(hidden); i++) {
        snprintf(path, sizeof path, "{\"path\":\"/proc/%lld%s\"}", (long long)a->pid, hidden[i]);
        int e = rig_call(a->g, bob, *hidden[i] ? "fs/read" : "fs/list", path, &r);
        if (e != ERR_PERM)
            fail_msg("%s: %d %s", path, e, r.error.message);
        ipc_reply_done(&r);
    }
    assert_int_equal(
        rig_call(a->g, bob, "fs/read", "{\"path\":\"/proc/users/admin/status.yaml\"}", &r),
        ERR_PERM);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(a->g, bob, "fs/list", "{\"path\":\"/proc\"}", &r), 0);
    snprintf(path, sizeof path, "%lld", (long long)a->pid);
    assert_false(json_arr_has(json_arr(r.result, "entries"), path));
    assert_true(json_arr_has(json_arr(r.result, "entries"), "services"));
    ipc_reply_done(&r);
    /* the counts of an agent's user, not everyone's */
    assert_int_equal(
        rig_call(a->g, bob, "fs/read", "{\"path\":\"/proc/services/llm/usage/total.yaml\"}", &r),
        0);
    assert_null(strstr(json_str(r.result, "content", ""), "input_tokens: 11"));
    ipc_reply_done(&r);
}

/* Reads of made files take the same arguments as reads of stored ones. */
static void parts_and_pages(void **state)
{
    cleanup(freep) char *all = content(a->w, "/kernel/limits/agent-manifest.yaml");
    cleanup(json_putp) json_object *r =
        ws_cmd(a->w, "fs", "read",
               json_make("path:s line:i lines:i", "/kernel/limits/agent-manifest.yaml", (int64_t)2,
                         (int64_t)1));
    const char *nl = strchr(all, '\n');

    (void)state;
    assert_non_null(nl);
    cleanup(freep) char *second = xstrndup(nl + 1, strcspn(nl + 1, "\n") + 1);
    assert_string_equal(json_str(json_obj(r, "body"), "content", ""), second);
    cleanup(json_putp) json_object *past = ws_cmd(
        a->w, "fs", "read",
        json_make("path:s offset:i", "/kernel/limits/agent-manifest.yaml", (int64_t)1000000));
    assert_string_equal(json_str(json_obj(past, "body"), "content", "?"), "");
    /* pages of two, joined, are the whole list */
    cleanup(json_putp) json_object *whole = ask(a->w, "list", "/tools/fs");
    size_t n = json_object_array_length(json_arr(json_obj(whole, "body"), "entries")), got = 0;
    cleanup(freep) char *cursor = xstrdup("");
    for (;;) {
        cleanup(json_putp) json_object *page =
            ws_cmd(a->w, "fs", "list",
                   *cursor ? json_make("path:s limit:i cursor:s", "/tools/fs", (int64_t)2, cursor)
                           : json_make("path:s limit:i", "/tools/fs", (int64_t)2));
        json_object *b = json_obj(page, "body");
        size_t k = json_object_array_length(json_arr(b, "entries"));
        assert_true(k > 0 && k <= 2);
        got += k;
        if (!json_get(b, "next_cursor"))
            break;
        free(cursor);
        cursor = xstrdup(json_str(b, "next_cursor", ""));
    }
    assert_int_equal(got, n);
    cleanup(json_putp) json_object *g =
        ws_cmd(a->w, "fs", "list", json_make("path:s glob:s", "/tools/fs", "re*.yaml"));
    assert_int_equal(json_object_array_length(json_arr(json_obj(g, "body"), "entries")), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_listed_is_there),
        cmocka_unit_test(an_agents_files_are_its_numbers),
        cmocka_unit_test(a_user_has_a_status_and_sessions),
        cmocka_unit_test(services_show_themselves),
        cmocka_unit_test(wrong_paths_have_their_errors),
        cmocka_unit_test(a_failed_start_leaves_its_reason),
        cmocka_unit_test(others_see_their_own),
        cmocka_unit_test(parts_and_pages),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
