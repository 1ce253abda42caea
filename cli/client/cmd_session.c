/* avix client session …, and the records of past invocations: agent history and show. */
#include <inttypes.h>

#include "cli/client/cmd.h"
#include "cli/client/follow.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/rnd.h"

char *full_id(struct cli *c, struct atp *a, const char *op, const char *prefix, const char *what,
              int *exit)
{
    json_object *rows = NULL;
    char *hit = NULL;
    size_t n = 0;
    if (uuid_valid(prefix))
        return xstrdup(prefix);
    if (strlen(prefix) < 6) {
        *exit =
            cli_fail(c, EX_USE, "EUSAGE", NULL, "'%s': an id needs at least 6 characters", prefix);
        return NULL;
    }
    *exit = atp_cmd(a, "proc", op, json_make("limit:i", (int64_t)1000), &rows);
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        const char *id = json_str(json_object_array_get_idx(rows, i), "id", "");
        if (str_starts(id, prefix)) {
            free(hit);
            hit = xstrdup(id);
            n++;
        }
    }
    json_put(rows);
    if (!*exit && n != 1) {
        *exit =
            n ? cli_fail(c, EX_USE, "EUSAGE", NULL, "'%s' fits %zu ids; give more of it", prefix, n)
              : cli_fail(c, EX_NOTFOUND, "ENOTFOUND", NULL, "%s '%s' not found", what, prefix);
        free(TAKE(hit));
    }
    if (*exit)
        free(TAKE(hit));
    return hit;
}

int cmd_session_list(struct cli *c)
{
    static const struct column cols[] = { { "ID", false },      { "STATUS", false },
                                          { "TITLE", false },   { "AGENT", false },
                                          { "UPDATED", false }, { "TOKENS", true } };
    json_object *body = json_new(), *rows = NULL;
    add_flag_str(body, c, "username", "username");
    add_flag_str(body, c, "status", "status");
    int r = simple(c, "proc", "session-list", body, &rows);
    if (r || c->json)
        return show(c, rows, r);
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        json_object *o = json_object_array_get_idx(rows, i);
        char id[40], at[40], tok[32];
        table_row(&t, (const char *[]){ id_text(json_str(o, "id", ""), id, sizeof id),
                                        json_str(o, "status", ""), json_str(o, "title", ""),
                                        json_str(o, "primaryAgent", ""),
                                        when_text(json_str(o, "lastUpdated", ""), at, sizeof at),
                                        num_text(json_int(o, "tokensTotal", 0), tok, sizeof tok) });
    }
    table_print(c, &t, "No sessions.");
    table_done(&t);
    json_put(rows);
    return EX_DONE;
}

static void duration_text(json_object *o, char *out, size_t size)
{
    int64_t a, b;
    const char *end = json_str(o, "endedAt", NULL);
    if (!end || !rfc3339_parse(end, &b) || !rfc3339_parse(json_str(o, "spawnedAt", ""), &a))
        str_copy(out, size, "-");
    else if (b - a < 60000)
        snprintf(out, size, "%.1fs", (double)(b - a) / 1000);
    else
        snprintf(out, size, "%" PRId64 "m %" PRId64 "s", (b - a) / 60000, (b - a) / 1000 % 60);
}

static void print_invocations(struct cli *c, json_object *rows)
{
    static const struct column cols[] = { { "ID", false },      { "AGENT", false },
                                          { "STATUS", false },  { "SPAWNED", false },
                                          { "DURATION", true }, { "TOKENS", true },
                                          { "TOOLS", true } };
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        json_object *o = json_object_array_get_idx(rows, i);
        char id[40], at[40], tok[32], tools[32], dur[32];
        duration_text(o, dur, sizeof dur);
        table_row(&t, (const char *[]){
                          id_text(json_str(o, "id", ""), id, sizeof id),
                          json_str(o, "agentName", ""), json_str(o, "status", ""),
                          when_text(json_str(o, "spawnedAt", ""), at, sizeof at), dur,
                          num_text(json_int(o, "tokensConsumed", 0), tok, sizeof tok),
                          num_text(json_int(o, "toolCallsTotal", 0), tools, sizeof tools) });
    }
    table_print(c, &t, "No invocations.");
    table_done(&t);
}

int cmd_session_show(struct cli *c)
{
    int exit = 0;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    cleanup(freep) char *id =
        a ? full_id(c, a, "session-list", c->args[0], "Session", &exit) : NULL;
    json_object *s = NULL, *inv = NULL;
    if (!id)
        return exit;
    exit = atp_cmd(a, "proc", "session-get", json_make("id:s", id), &s);
    if (!exit)
        exit = atp_cmd(a, "proc", "invocation-list", json_make("session_id:s", id), &inv);
    if (!exit && c->json) {
        json_object *o =
            json_make("session:o invocations:o", json_object_get(s), json_object_get(inv));
        print_json(o);
        json_put(o);
    } else if (!exit) {
        static const char *const keys[][2] = { { "Title", "title" },
                                               { "Goal", "goal" },
                                               { "Status", "status" },
                                               { "Origin", "originAgent" },
                                               { "Primary", "primaryAgent" } };
        for (size_t i = 0; i < N_ELEMS(keys); i++) {
            const char *v = json_str(s, keys[i][1], "");
            printf("%s: ", keys[i][0]);
            print_safe(stdout, v, strlen(v), false);
            putchar('\n');
        }
        printf("Participants: %s\nPids: %s\nTokens: %" PRId64 "\n\n",
               json_get(s, "participants") ? json_text(json_get(s, "participants")) : "[]",
               json_get(s, "pids") ? json_text(json_get(s, "pids")) : "[]",
               json_int(s, "tokensTotal", 0));
        print_invocations(c, inv);
    }
    json_put(s);
    json_put(inv);
    return exit;
}

int cmd_session_resume(struct cli *c)
{
    int exit = 0;
    char key[UUID_LEN], sid[40];
    const char *input = cli_flag(c, "input");
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    cleanup(freep) char *id =
        a ? full_id(c, a, "session-list", c->args[0], "Session", &exit) : NULL;
    if (!id)
        return exit;
    json_object *body = json_make("session_id:s idempotency_key:s", id, uuid4(key)), *ret = NULL;
    if (input) {
        cleanup(freep) char *text = text_arg(c, input, 65536, &exit);
        if (!text) {
            json_put(body);
            return exit;
        }
        json_add_str(body, "input", text);
    }
    if (cli_has(c, "follow"))
        exit = follow_subscribe(a);
    if (!exit)
        exit = atp_cmd(a, "proc", "session-resume", body, &ret);
    else
        json_put(body);
    int64_t pid = json_int(ret, "pid", 0);
    if (!exit && c->json && !cli_has(c, "follow"))
        print_json(ret);
    else if (!exit && !c->json)
        fprintf(cli_has(c, "follow") ? stderr : stdout, "Resumed %s, pid %" PRId64 "\n",
                id_text(id, sid, sizeof sid), pid);
    json_put(ret);
    if (!exit && cli_has(c, "follow"))
        exit = follow_run(c, a, pid, &(struct follow_opts){ .until_exit = false });
    return exit;
}

int cmd_session_delete(struct cli *c)
{
    int exit = 0;
    bool force = cli_has(c, "force");
    if (!force) {
        int yes = ask_yes("Delete this session and its conversations?");
        if (yes < 0)
            return cli_fail(c, EX_USE, "EUSAGE", NULL, "pass --force to delete without a terminal");
        if (!yes)
            return EX_DONE;
    }
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    cleanup(freep) char *id =
        a ? full_id(c, a, "session-list", c->args[0], "Session", &exit) : NULL;
    json_object *ret = NULL;
    if (!id)
        return exit;
    exit = atp_cmd(a, "proc", "session-delete", json_make("session_id:s force:b", id, force), &ret);
    if (exit || c->json)
        return show(c, ret, exit);
    printf("Deleted %s\n", id);
    json_put(ret);
    return EX_DONE;
}

int cmd_agent_history(struct cli *c)
{
    json_object *body = json_make("live:b", cli_has(c, "live")), *rows = NULL;
    const char *limit = cli_flag(c, "limit"), *since = cli_flag(c, "since");
    int64_t n = 200;
    if (limit && !parse_i64(limit, 1, 1000, &n)) {
        json_put(body);
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--limit: '%s' is no number from 1 to 1000",
                        limit);
    }
    json_add_int(body, "limit", n);
    add_flag_str(body, c, "agent", "agent_name");
    add_flag_str(body, c, "username", "username");
    add_flag_str(body, c, "session", "session_id");
    int r = simple(c, "proc", "invocation-list", body, &rows);
    if (!r && since && rows) {
        json_object *kept = json_new_arr();
        for (size_t i = 0; i < json_object_array_length(rows); i++) {
            json_object *o = json_object_array_get_idx(rows, i);
            if (strcmp(json_str(o, "spawnedAt", ""), since) >= 0)
                json_push(kept, json_object_get(o));
        }
        json_put(rows);
        rows = kept;
    }
    if (r || c->json)
        return show(c, rows, r);
    print_invocations(c, rows);
    json_put(rows);
    return EX_DONE;
}

static void print_entry(json_object *e)
{
    const char *role = json_str(e, "role", "?"), *content = json_str(e, "content", "");
    json_object *calls = json_arr(e, "toolCalls");
    if (*content) {
        printf("[%s] ", role);
        print_safe(stdout, content, strlen(content), true);
        if (content[strlen(content) - 1] != '\n')
            putchar('\n');
    }
    for (size_t i = 0; calls && i < json_object_array_length(calls); i++) {
        json_object *call = json_object_array_get_idx(calls, i), *result = json_get(call, "result");
        const char *args = json_get(call, "args") ? json_text(json_get(call, "args")) : "{}",
                   *name = json_str(call, "name", "?");
        printf("→ ");
        print_safe(stdout, name, strlen(name), false);
        putchar(' ');
        print_safe(stdout, args, strlen(args), false);
        putchar('\n');
        if (result) {
            const char *text = json_object_is_type(result, json_type_string)
                                   ? json_object_get_string(result)
                                   : json_text(result);
            printf("← ");
            size_t n = strlen(text);
            print_safe(stdout, text, n > 2000 ? utf8_floor(text, 2000) : n, true);
            puts(n > 2000 ? " …" : "");
        }
    }
}

/* All entries by pages of 1000 instead of the last 200. */
static int all_entries(struct atp *a, const char *id, json_object *inv)
{
    json_object *all = json_new_arr();
    for (int64_t offset = 0;; offset += 1000) {
        json_object *page = NULL;
        int r = atp_cmd(a, "proc", "invocation-conversation",
                        json_make("id:s offset:i limit:i", id, offset, (int64_t)1000), &page);
        size_t n = page ? json_object_array_length(page) : 0;
        for (size_t i = 0; i < n; i++)
            json_push(all, json_object_get(json_object_array_get_idx(page, i)));
        json_put(page);
        if (r || n < 1000) {
            json_add(inv, "conversation", all);
            return r;
        }
    }
}

int cmd_agent_show(struct cli *c)
{
    int exit = 0;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    cleanup(freep) char *id =
        a ? full_id(c, a, "invocation-list", c->args[0], "Invocation", &exit) : NULL;
    json_object *o = NULL;
    if (!id)
        return exit;
    exit = atp_cmd(a, "proc", "invocation-get", json_make("id:s", id), &o);
    if (!exit && cli_has(c, "full"))
        exit = all_entries(a, id, o);
    if (!exit && cli_has(c, "no-conversation"))
        json_object_object_del(o, "conversation");
    if (exit || c->json)
        return show(c, o, exit);
    static const char *const keys[][2] = {
        { "ID", "id" },     { "Agent", "agentName" },   { "Status", "status" },
        { "Goal", "goal" }, { "Spawned", "spawnedAt" }, { "Ended", "endedAt" }
    };
    for (size_t i = 0; i < N_ELEMS(keys); i++) {
        const char *v = json_str(o, keys[i][1], "-");
        printf("%s: ", keys[i][0]);
        print_safe(stdout, v, strlen(v), false);
        putchar('\n');
    }
    printf("Tokens: %" PRId64 "\nTool calls: %" PRId64 "\n", json_int(o, "tokensConsumed", 0),
           json_int(o, "toolCallsTotal", 0));
    if (json_str(o, "exitReason", NULL))
        printf("Exit reason: %s\n", json_str(o, "exitReason", ""));
    json_object *list = json_arr(o, "conversation");
    if (list) {
        puts("--- Conversation ---");
        if ((int64_t)json_object_array_length(list) < json_int(o, "conversationTotal", 0))
            printf("(the last %zu of %" PRId64 " entries; --full shows all)\n",
                   json_object_array_length(list), json_int(o, "conversationTotal", 0));
        for (size_t i = 0; i < json_object_array_length(list); i++)
            print_entry(json_object_array_get_idx(list, i));
    }
    json_put(o);
    return EX_DONE;
}
