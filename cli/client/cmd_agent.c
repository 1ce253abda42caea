/* avix client agent …: each command is one ATP operation and its rendering. */
#include <inttypes.h>
#include <unistd.h>

#include "cli/client/atp.h"
#include "cli/client/cmd.h"
#include "cli/client/follow.h"
#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"

int64_t arg_pid(struct cli *c, const char *s, int *exit)
{
    int64_t pid = 0;
    if (!parse_i64(s, 1, (INT64_C(1) << 53) - 1, &pid))
        *exit = cli_fail(c, EX_USE, "EUSAGE", NULL, "'%s' is no pid", s);
    return pid;
}

int simple(struct cli *c, const char *domain, const char *op, json_object *body, json_object **ret)
{
    int exit = 0;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    *ret = NULL;
    if (!a) {
        json_put(body);
        return exit;
    }
    return atp_cmd(a, domain, op, body, ret);
}

int show(struct cli *c, json_object *o, int exit)
{
    if (exit == EX_DONE && o) {
        if (c->json)
            print_json(o);
        else
            print_fields(o);
    }
    json_put(o);
    return exit;
}

void add_flag_str(json_object *o, const struct cli *c, const char *flag, const char *key)
{
    if (cli_flag(c, flag))
        json_add_str(o, key, cli_flag(c, flag));
}

void add_flag_list(json_object *o, const struct cli *c, const char *flag, const char *key)
{
    const char *v = cli_flag(c, flag);
    if (!v)
        return;
    json_object *list = json_new_arr();
    while (*v) {
        size_t n = strcspn(v, ",");
        if (n)
            json_push(list, json_object_new_string_len(v, (int)n));
        v += n;
        v += *v == ',';
    }
    json_add(o, key, list);
}

char *text_arg(struct cli *c, const char *v, size_t max, int *exit)
{
    char *text = NULL;
    size_t len = 0;
    int r = 0;
    if (strcmp(v, "-") == 0)
        r = file_read("/dev/stdin", max, &text, &len);
    else if (v[0] == '@')
        r = file_read(v + 1, max, &text, &len);
    else
        return xstrdup(v);
    if (r || strlen(text) != len || !utf8_valid(text, len)) {
        *exit =
            cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", strcmp(v, "-") == 0 ? "stdin" : v + 1,
                     r < 0 ? strerror(-r)
                     : r   ? "too long"
                           : "not UTF-8 text");
        free(text);
        return NULL;
    }
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = 0;
    return text;
}

/* Spawns, repeating while the kernel is away: the idempotency key makes that safe. */
static int spawn(struct cli *c, struct atp *a, json_object *body, json_object **ret)
{
    int64_t s = 30;
    const char *t = cli_setting(c, "timeout", "AVIX_TIMEOUT", NULL, "timeout", NULL);
    if (t)
        parse_i64(t, 1, 86400, &s);
    for (int64_t end = mono_ms() + s * 1000;;) {
        json_object *err = NULL;
        int r = atp_try(a, "proc", "spawn", json_object_get(body), ret, &err);
        bool again = (r == EX_UNAVAIL || r == EX_LOST) && mono_ms() < end;
        bool gap;
        if (r && !again && r != EX_INTERRUPT)
            r = atp_say(a, "proc.spawn", err);
        json_put(err);
        if (!again)
            return r;
        if (r == EX_LOST && (r = atp_reconnect(a, (int)(end - mono_ms()), &gap)) != 0)
            return r;
        usleep(200000);
    }
}

int cmd_agent_spawn(struct cli *c)
{
    int exit = 0;
    char key[UUID_LEN];
    const char *until = cli_flag(c, "until"), *given = cli_flag(c, "goal");
    bool follow = cli_has(c, "follow");
    if (!given)
        return cli_fail(c, EX_USE, "EUSAGE", "avix client agent spawn NAME --goal TEXT",
                        "--goal is missing");
    if (until && strcmp(until, "turn") != 0 && strcmp(until, "exit") != 0)
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--until is turn or exit, not '%s'", until);
    cleanup(freep) char *goal = text_arg(c, given, 65536, &exit);
    if (!goal)
        return exit;
    json_object *body = json_make("name:s agent:s goal:s", c->args[0], c->args[0], goal);
    add_flag_str(body, c, "session", "session_id");
    add_flag_str(body, c, "title", "title");
    add_flag_str(body, c, "model", "model");
    add_flag_list(body, c, "capabilities", "capabilities");
    json_add_str(body, "idempotency_key",
                 cli_flag(c, "idempotency-key") ? cli_flag(c, "idempotency-key") : uuid4(key));
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    json_object *reply = NULL;
    if (a && follow)
        exit = follow_subscribe(a);
    if (a && !exit)
        exit = spawn(c, a, body, &reply);
    json_put(body);
    if (!a || exit)
        return exit;
    int64_t pid = json_int(reply, "pid", 0);
    char sid[40];
    if (follow) {
        if (!c->json && !c->quiet)
            fprintf(stderr, "Agent %s spawned: pid %" PRId64 ", session %s\n", c->args[0], pid,
                    id_text(json_str(reply, "session_id", ""), sid, sizeof sid));
        struct follow_opts o = { .until_exit = until && strcmp(until, "exit") == 0,
                                 .kill_on_interrupt = cli_has(c, "kill-on-interrupt") };
        exit = follow_run(c, a, pid, &o);
    } else if (c->json) {
        print_json(reply);
    } else {
        printf("Agent %s spawned: pid %" PRId64 ", session %s\n", c->args[0], pid,
               id_text(json_str(reply, "session_id", ""), sid, sizeof sid));
    }
    json_put(reply);
    return exit;
}

int cmd_agent_follow(struct cli *c)
{
    int exit = 0;
    int64_t pid = arg_pid(c, c->args[0], &exit);
    const char *until = cli_flag(c, "until");
    if (exit)
        return exit;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    json_object *stat = NULL;
    if (a)
        exit = follow_subscribe(a);
    if (a && !exit)
        exit = atp_cmd(a, "proc", "stat", json_make("pid:i", pid), &stat);
    if (!a || exit)
        return exit;
    json_put(stat);
    struct follow_opts o = { .until_exit = !until || strcmp(until, "exit") == 0,
                             .kill_on_interrupt = cli_has(c, "kill-on-interrupt") };
    return follow_run(c, a, pid, &o);
}

int cmd_agent_list(struct cli *c)
{
    static const struct column cols[] = { { "PID", true },      { "NAME", false },
                                          { "STATUS", false },  { "SESSION", false },
                                          { "SPAWNED", false }, { "TOKENS", true },
                                          { "GOAL", false } };
    json_object *body = json_new(), *rows = NULL;
    add_flag_str(body, c, "username", "username");
    add_flag_str(body, c, "session", "session_id");
    int r = simple(c, "proc", "list", body, &rows);
    if (r || c->json)
        return show(c, rows, r);
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        json_object *o = json_object_array_get_idx(rows, i);
        char pid[24], sid[40], at[40], tok[32];
        snprintf(pid, sizeof pid, "%" PRId64, json_int(o, "pid", 0));
        table_row(&t, (const char *[]){ pid, json_str(o, "name", ""), json_str(o, "status", ""),
                                        id_text(json_str(o, "sessionId", ""), sid, sizeof sid),
                                        when_text(json_str(o, "spawnedAt", ""), at, sizeof at),
                                        num_text(json_int(o, "tokensConsumed", 0), tok, sizeof tok),
                                        json_str(o, "goal", "") });
    }
    table_print(c, &t, "No agents.");
    table_done(&t);
    json_put(rows);
    return EX_DONE;
}

/* One operation on the pid in the first argument, printed as "<Done> <pid>". */
static int pid_op(struct cli *c, const char *op, const char *done, json_object *more)
{
    int exit = 0;
    json_object *ret = NULL;
    int64_t pid = arg_pid(c, c->args[0], &exit);
    if (exit) {
        json_put(more);
        return exit;
    }
    json_object *body = more ? more : json_new();
    json_add_int(body, "pid", pid);
    exit = simple(c, "proc", op, body, &ret);
    if (exit || c->json || !done)
        return show(c, ret, exit);
    printf("%s %" PRId64 "\n", done, pid);
    json_put(ret);
    return EX_DONE;
}

int cmd_agent_stat(struct cli *c)
{
    return pid_op(c, "stat", NULL, NULL);
}

int cmd_agent_pause(struct cli *c)
{
    return pid_op(c, "pause", "Paused", cli_has(c, "hard") ? json_make("hard:b", 1) : NULL);
}

int cmd_agent_resume(struct cli *c)
{
    return pid_op(c, "resume", "Resumed", NULL);
}

int cmd_agent_kill(struct cli *c)
{
    int exit = 0, first = 0;
    int64_t pids[CLI_ARGS_MAX] = { 0 };
    for (size_t i = 0; i < c->n_args; i++)
        if ((pids[i] = arg_pid(c, c->args[i], &exit), exit))
            return exit;
    if (c->n_args > 1 && !cli_has(c, "force")) {
        int yes = ask_yes("Kill these agents?");
        if (yes < 0)
            return cli_fail(c, EX_USE, "EUSAGE", NULL,
                            "pass --force to kill several agents without a terminal");
        if (!yes)
            return EX_DONE;
    }
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    json_object *rows = json_new_arr();
    for (size_t i = 0; i < c->n_args; i++) {
        int r = atp_cmd(a, "signal", "send", json_make("pid:i signal:s", pids[i], "SIGKILL"), NULL);
        json_push(rows, json_make("pid:i ok:b", pids[i], r == 0));
        first = first ? first : r;
        if (r == 0 && !c->json)
            printf("Killed %" PRId64 "\n", pids[i]);
    }
    if (c->json)
        print_json(rows);
    json_put(rows);
    return first;
}

int cmd_agent_wait(struct cli *c)
{
    int exit = 0;
    int64_t pid = arg_pid(c, c->args[0], &exit), limit = 0;
    const char *t = cli_flag(c, "timeout");
    if (exit)
        return exit;
    if (t && !parse_i64(t, 1, 86400 * 30, &limit))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--timeout: '%s' is no number of seconds", t);
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    int64_t end = mono_ms() + limit * 1000;
    for (;;) {
        json_object *o = NULL;
        int64_t turn = 25;
        if (limit && end - mono_ms() < 25000)
            turn = (end - mono_ms()) / 1000 > 0 ? (end - mono_ms()) / 1000 : 1;
        exit = atp_cmd(a, "proc", "wait", json_make("pid:i timeout:i", pid, turn), &o);
        const char *status = json_str(o, "final_status", "");
        bool timeout = !exit && str_eq(status, "timeout");
        if (timeout && (!limit || mono_ms() < end)) {
            json_put(o);
            continue;
        }
        int64_t code = json_int(o, "exit_code", 0);
        if (!exit && c->json)
            print_json(o);
        else if (!exit)
            printf("%s, exit code %" PRId64 ", %" PRId64 " ms\n", status, code,
                   json_int(o, "duration_ms", 0));
        json_put(o);
        if (exit)
            return exit;
        return timeout                             ? EX_UNAVAIL
               : code == 137                       ? EX_AGENT_KILLED
               : str_eq(status, "crashed") || code ? EX_AGENT_FAILED
                                                   : EX_DONE;
    }
}

static int attach(struct cli *c, const char *file, json_object *list)
{
    char *data = NULL;
    size_t len = 0;
    if (str_starts(file, "vfs:")) {
        json_push(list, json_make("type:s path:s content_type:s label:s", "vfs_ref", file + 4,
                                  "application/octet-stream", file + 4));
        return 0;
    }
    int r = file_read(file, 1 << 20, &data, &len);
    if (r)
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", file,
                        r < 0 ? strerror(-r) : "over 1 MiB; upload it and pass vfs:/path");
    cleanup(freep) char *b64 = b64_encode_new(data, len);
    json_push(list, json_make("type:s content_type:s encoding:s data:s label:s", "inline",
                              utf8_valid(data, len) ? "text/plain" : "application/octet-stream",
                              "base64", b64, file));
    free(data);
    return 0;
}

int cmd_agent_send(struct cli *c)
{
    int exit = 0;
    int64_t pid = arg_pid(c, c->args[0], &exit);
    if (exit)
        return exit;
    cleanup(freep) char *text = text_arg(c, c->args[1], 65536, &exit);
    if (!text)
        return exit;
    json_object *payload = json_make("text:s", text), *files = json_new_arr(), *ret = NULL;
    for (size_t i = 0; i < c->n_flags && !exit; i++)
        if (strcmp(c->flags[i].name, "attach") == 0)
            exit = attach(c, c->flags[i].value, files);
    if (json_object_array_length(files))
        json_add(payload, "attachments", files);
    else
        json_put(files);
    if (exit) {
        json_put(payload);
        return exit;
    }
    exit = simple(c, "signal", "send",
                  json_make("pid:i signal:s payload:o", pid, "SIGPIPE", payload), &ret);
    if (exit || c->json)
        return show(c, ret, exit);
    printf("Sent %zu bytes to %" PRId64 "\n", strlen(text), pid);
    json_put(ret);
    return EX_DONE;
}

static int by_name(const void *a, const void *b)
{
    json_object *const *x = a, *const *y = b;
    return strcmp(json_str(*x, "name", ""), json_str(*y, "name", ""));
}

int cmd_agent_catalog(struct cli *c)
{
    static const struct column cols[] = {
        { "NAME", false }, { "VERSION", false }, { "SCOPE", false }, { "DESCRIPTION", false }
    };
    json_object *body = json_new(), *rows = NULL;
    const char *term = cli_flag(c, "search");
    add_flag_str(body, c, "username", "username");
    int r = simple(c, "proc", "list-installed", body, &rows);
    if (!r && json_object_is_type(rows, json_type_array))
        json_object_array_sort(rows, by_name);
    if (r || c->json)
        return show(c, rows, r);
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
        json_object *o = json_object_array_get_idx(rows, i);
        const char *name = json_str(o, "name", ""), *desc = json_str(o, "description", "");
        if (!term || strcasestr(name, term) || strcasestr(desc, term))
            table_row(&t, (const char *[]){ name, json_str(o, "version", ""),
                                            json_str(o, "scope", ""), desc });
    }
    table_print(c, &t, "No agents installed.");
    table_done(&t);
    json_put(rows);
    return EX_DONE;
}
