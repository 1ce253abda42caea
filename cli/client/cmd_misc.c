/* avix client connect, whoami, status, events. */
#include <inttypes.h>

#include "cli/client/cmd.h"

int cmd_connect(struct cli *c)
{
    int exit = 0;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    json_object *who = NULL, *status = NULL;
    if (!a)
        return exit;
    exit = atp_cmd(a, "auth", "whoami", NULL, &who);
    if (!exit && atp_try(a, "sys", "status", NULL, &status, NULL))
        status = NULL; /* a guest may not ask; the version is in session.ready */
    const char *version = json_str(status, "version", json_str(atp_hello(a), "version", "?"));
    int64_t up = json_int(status, "uptimeSecs", -1);
    if (!exit && c->json) {
        json_object *o =
            json_make("url:s identity:s role:s sessionId:s version:s latencyMs:i", atp_url(a),
                      json_str(who, "identity", ""), json_str(who, "role", ""),
                      json_str(who, "sessionId", ""), version, (int64_t)atp_latency_ms(a));
        print_json(o);
        json_put(o);
    } else if (!exit) {
        printf("Connected to %s as %s (%s), Avix %s", atp_url(a), json_str(who, "identity", ""),
               json_str(who, "role", ""), version);
        if (up >= 0)
            printf(up >= 3600 ? ", up %" PRId64 "h"
                   : up >= 60 ? ", up %" PRId64 "m"
                              : ", up %" PRId64 "s",
                   up >= 3600 ? up / 3600
                   : up >= 60 ? up / 60
                              : up);
        putchar('\n');
    }
    json_put(who);
    json_put(status);
    return exit;
}

int cmd_whoami(struct cli *c)
{
    json_object *o = NULL;
    int exit = simple(c, "auth", "whoami", NULL, &o);
    return show(c, o, exit);
}

int cmd_status(struct cli *c)
{
    json_object *o = NULL;
    int exit = simple(c, "sys", "status", NULL, &o);
    return show(c, o, exit);
}

static void print_event(struct cli *c, json_object *f)
{
    if (c->json) {
        print_json(f);
    } else {
        json_object *b = json_obj(f, "body"), *pid = json_get(b, "pid");
        const char *ts = json_str(f, "ts", ""),
                   *text = b ? json_object_to_json_string_ext(b, JSON_C_TO_STRING_PLAIN |
                                                                     JSON_C_TO_STRING_NOSLASHESCAPE)
                             : "{}";
        printf("%s %s %s ", strlen(ts) > 19 ? ts + 11 : ts, json_str(f, "event", "?"),
               pid ? json_object_get_string(pid) : "-");
        print_safe(stdout, text, strlen(text), false);
        putchar('\n');
    }
    fflush(stdout);
}

int cmd_events(struct cli *c)
{
    int exit = 0;
    int64_t since = -1, pid = 0, count = 0, seen = 0;
    if (cli_flag(c, "since-seq") && !parse_i64(cli_flag(c, "since-seq"), 0, INT64_MAX, &since))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--since-seq: '%s' is no number",
                        cli_flag(c, "since-seq"));
    if (cli_flag(c, "count") && !parse_i64(cli_flag(c, "count"), 1, INT64_MAX, &count))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--count: '%s' is no number",
                        cli_flag(c, "count"));
    if (cli_flag(c, "pid") && (pid = arg_pid(c, cli_flag(c, "pid"), &exit), exit))
        return exit;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    json_object *kinds = json_new_arr();
    for (size_t i = 0; i < c->n_args; i++)
        json_push_str(kinds, c->args[i]);
    if (c->n_args == 0)
        json_push_str(kinds, "*");
    bool gap = false;
    exit = atp_subscribe(a, kinds, since, pid, &gap);
    if (!exit && gap && !c->quiet)
        fprintf(stderr, "some events before the first are gone\n");
    while (!exit && (!count || seen < count)) {
        json_object *f = NULL;
        enum atp_wait w = atp_next(a, -1, &f);
        if (w == ATP_EVENT) {
            print_event(c, f);
            seen++;
        } else if (w == ATP_SIGNAL) {
            exit = EX_INTERRUPT;
        } else if (w == ATP_LOST) {
            exit = atp_reconnect(a, 600000, &gap);
        }
        json_put(f);
    }
    return exit;
}
