/*
 * The text of a turn is kept as printed so far with the next chunk number; a jump is a hole, and
 * the whole text (a chunk that starts at 0, or agent.output) fills it: the missing tail is printed
 * when what stands there is its beginning.
 */
#include "cli/client/follow.h"

#include <inttypes.h>
#include <unistd.h>

#include "common/base/buf.h"

#define ARGS_SHOWN   200 /* bytes of a call's arguments */
#define RECONNECT_MS (10 * 60 * 1000)

struct follow {
    struct cli *c;
    struct atp *a;
    int64_t pid;
    const struct follow_opts *o;
    char turn[64];
    struct buf text;           /* of the turn, as printed */
    int64_t next;              /* chunk number expected */
    bool hole, whole, newline; /* newline: stdout stands at the start of a line */
    int exit;
    bool ended;
    json_object *result;
};

static void say(struct follow *f, const char *mark, const char *text)
{
    if (f->c->json || f->c->quiet)
        return;
    if (!f->newline && isatty(1) && isatty(2))
        fputc('\n', stdout);
    fflush(stdout);
    fputs(mark, stderr);
    print_safe(stderr, text, strlen(text), false);
    fputc('\n', stderr);
}

static void out(struct follow *f, const char *s, size_t len)
{
    if (!len || f->c->json)
        return;
    print_safe(stdout, s, len, true);
    fflush(stdout);
    f->newline = s[len - 1] == '\n';
}

static void end_line(struct follow *f)
{
    if (!f->newline && !f->c->json) {
        putchar('\n');
        fflush(stdout);
        f->newline = true;
    }
}

static void begin_turn(struct follow *f, const char *turn)
{
    if (str_eq(f->turn, turn))
        return;
    end_line(f);
    str_copy(f->turn, sizeof f->turn, turn);
    buf_clear(&f->text);
    f->next = 0;
    f->hole = f->whole = false;
}

/* The whole text of the turn is known: print what is missing of it. */
static void restore(struct follow *f, const char *text, size_t len)
{
    size_t have = f->text.len;
    if (len >= have && (have == 0 || memcmp(text, f->text.data, have) == 0)) {
        out(f, text + have, len - have);
    } else if (isatty(1)) {
        end_line(f);
        out(f, "[output restored]\n", 18);
        out(f, text, len);
    }
    buf_clear(&f->text);
    buf_add(&f->text, text, len);
    f->hole = false;
}

static void on_chunk(struct follow *f, json_object *b)
{
    const char *delta = json_str(b, "text_delta", "");
    int64_t seq = json_int(b, "seq", 0), from = json_int(b, "seq_from", seq);

    begin_turn(f, json_str(b, "turn_id", ""));
    if (json_flag(b, "discarded", false)) {
        end_line(f);
        say(f, "", "[turn is run again]");
        f->turn[0] = 0;
        return;
    }
    if (f->whole || seq < f->next)
        return; /* a repeat after a reconnect */
    if (from == 0 && f->next > 0) {
        restore(f, delta, strlen(delta));
    } else if (from > f->next) {
        f->hole = true;
    } else if (!f->hole) {
        out(f, delta, strlen(delta));
        buf_adds(&f->text, delta);
    }
    f->next = seq + 1;
    if (json_flag(b, "is_final", false)) {
        if (!f->hole) {
            f->whole = true;
            end_line(f);
        }
    }
}

static void on_output(struct follow *f, json_object *b)
{
    const char *text = json_str(b, "text", "");
    begin_turn(f, json_str(b, "turn_id", ""));
    if (f->whole)
        return;
    restore(f, text, strlen(text));
    f->whole = true;
    end_line(f);
}

static void on_tool(struct follow *f, const char *kind, json_object *b)
{
    char line[512], size[32];
    if (str_eq(kind, "agent.tool_call")) {
        const char *args = json_get(b, "args") ? json_text(json_get(b, "args")) : "{}";
        size_t n = strlen(args), fit = n > ARGS_SHOWN ? utf8_floor(args, ARGS_SHOWN) : n;
        snprintf(line, sizeof line, "%s %.*s%s", json_str(b, "tool", "?"), (int)fit, args,
                 fit < n ? "…" : "");
        say(f, "→ ", line);
        return;
    }
    const char *result = json_str(b, "result", "");
    size_t n = strlen(result);
    if (n < 1024)
        snprintf(size, sizeof size, "%zu B", n);
    else
        snprintf(size, sizeof size, "%.1f KiB", (double)n / 1024);
    if (json_get(b, "error") || str_starts(result, "Error: "))
        snprintf(line, sizeof line, "%.400s", *result ? result : json_str(b, "error", "failed"));
    else
        snprintf(line, sizeof line, "ok %s %" PRId64 " ms", size, json_int(b, "durationMs", 0));
    say(f, "← ", line);
}

static int exit_of_end(int64_t code, const char *reason)
{
    if (str_eq(reason, "completed") || str_eq(reason, "stopped") || str_eq(reason, "parent_exited"))
        return EX_DONE;
    if (str_eq(reason, "turn_limit"))
        return EX_TURN_LIMIT;
    if (str_eq(reason, "timeout"))
        return EX_TIME_LIMIT;
    if (str_eq(reason, "killed") || str_eq(reason, "parent_killed") ||
        (code == 137 && !str_starts(reason, "crashed")))
        return EX_AGENT_KILLED;
    return code == 0 && str_empty(reason) ? EX_DONE : EX_AGENT_FAILED;
}

static void set_result(struct follow *f, const char *status, int64_t code)
{
    json_put(f->result);
    f->result = json_make("pid:i status:s exitCode:i", f->pid, status, code);
}

static void on_done(struct follow *f)
{
    json_object *stat = NULL;
    char tokens[32] = "0", line[96];
    end_line(f);
    if (f->a && atp_try(f->a, "proc", "stat", json_make("pid:i", f->pid), &stat, NULL) == 0)
        num_text(json_int(stat, "tokensConsumed", 0), tokens, sizeof tokens);
    json_put(stat);
    snprintf(line, sizeof line, "done (pid %" PRId64 ", %s tokens)", f->pid, tokens);
    say(f, "", line);
    set_result(f, "waiting", 0);
    f->exit = EX_DONE;
    f->ended = true;
}

static void on_exit_event(struct follow *f, json_object *b)
{
    const char *reason = json_str(b, "reason", "");
    int64_t code = json_int(b, "exitCode", 0);
    char line[200];
    end_line(f);
    f->exit = exit_of_end(code, reason);
    snprintf(line, sizeof line, "agent %" PRId64 " ended: %s (exit code %" PRId64 ")", f->pid,
             *reason ? reason : "completed", code);
    say(f, "", line);
    set_result(f,
               f->exit == EX_DONE           ? "completed"
               : f->exit == EX_AGENT_KILLED ? "killed"
                                            : "failed",
               code);
    f->ended = true;
}

void follow_event(struct follow *f, json_object *frame)
{
    const char *kind = json_str(frame, "event", "");
    json_object *b = json_obj(frame, "body"), *p = json_get(b, "pid");
    int64_t pid = 0;
    if (!p || !parse_i64(json_object_get_string(p), 1, INT64_MAX, &pid) || pid != f->pid)
        return;
    if (f->c->json) {
        print_json(frame);
        fflush(stdout);
    }
    if (str_eq(kind, "agent.output.chunk"))
        on_chunk(f, b);
    else if (str_eq(kind, "agent.output"))
        on_output(f, b);
    else if (str_eq(kind, "agent.tool_call") || str_eq(kind, "agent.tool_result"))
        on_tool(f, kind, b);
    else if (str_eq(kind, "agent.status") && json_flag(b, "idle", false) && !f->o->until_exit)
        on_done(f);
    else if (str_eq(kind, "agent.exit"))
        on_exit_event(f, b);
}

/* After a gap in the events: what the records say about the agent. */
static void refetch(struct follow *f)
{
    json_object *stat = NULL, *inv = NULL;
    int r = atp_try(f->a, "proc", "stat", json_make("pid:i", f->pid), &stat, NULL);
    const char *id = json_str(stat, "invocationId", NULL), *status = json_str(stat, "status", "");
    if (r == EX_DONE && id &&
        atp_try(f->a, "proc", "invocation-get", json_make("id:s", id), &inv, NULL) == 0 &&
        json_str(inv, "result", NULL)) {
        const char *text = json_str(inv, "result", "");
        restore(f, text, strlen(text));
        end_line(f);
    }
    bool final = str_eq(status, "stopped") || str_eq(status, "crashed");
    if (r == EX_NOTFOUND || final) {
        const char *reason =
            json_str(inv, "exitReason", final && str_eq(status, "stopped") ? "completed" : "lost");
        f->exit = exit_of_end(0, reason);
        set_result(f, status, 0);
        f->ended = true;
    } else if (str_eq(status, "waiting") && !json_str(stat, "waitingOn", NULL) &&
               !f->o->until_exit) {
        on_done(f);
    }
    json_put(stat);
    json_put(inv);
}

int follow_subscribe(struct atp *a)
{
    static const char *const kinds[] = { "agent.output.chunk", "agent.output", "agent.tool_call",
                                         "agent.tool_result",  "agent.status", "agent.exit",
                                         "hil.request" };
    json_object *list = json_new_arr();
    for (size_t i = 0; i < N_ELEMS(kinds); i++)
        json_push_str(list, kinds[i]);
    return atp_subscribe(a, list, -1, 0, NULL);
}

static int interrupted(struct follow *f)
{
    end_line(f);
    if (f->o->kill_on_interrupt) {
        atp_try(f->a, "signal", "send", json_make("pid:i signal:s", f->pid, "SIGKILL"), NULL, NULL);
        fprintf(stderr, "killed agent %" PRId64 "\n", f->pid);
    } else {
        fprintf(stderr,
                "detached; agent %" PRId64 " goes on (avix client agent follow %" PRId64 ")\n",
                f->pid, f->pid);
    }
    return EX_INTERRUPT;
}

struct follow *follow_new(struct cli *c, struct atp *a, int64_t pid, const struct follow_opts *o)
{
    struct follow *f = xcalloc(1, sizeof *f);
    f->c = c;
    f->a = a;
    f->pid = pid;
    f->o = o;
    f->newline = true;
    buf_init(&f->text, 8 << 20);
    return f;
}

void follow_free(struct follow *f)
{
    if (!f)
        return;
    json_put(f->result);
    buf_done(&f->text);
    free(f);
}

bool follow_ended(const struct follow *f, int *exit)
{
    *exit = f->exit;
    return f->ended;
}

int follow_run(struct cli *c, struct atp *a, int64_t pid, const struct follow_opts *o)
{
    struct follow *f = follow_new(c, a, pid, o);
    while (!f->ended) {
        json_object *ev = NULL;
        bool gap = false;
        switch (atp_next(a, -1, &ev)) {
        case ATP_EVENT:
            follow_event(f, ev);
            json_put(ev);
            continue;
        case ATP_SIGNAL:
            f->exit = interrupted(f);
            f->ended = true;
            break;
        case ATP_LOST:
            f->exit = atp_reconnect(a, RECONNECT_MS, &gap);
            if (f->exit == EX_INTERRUPT)
                f->exit = interrupted(f);
            else if (f->exit)
                cli_fail(c, f->exit, "ELOST", NULL, "connection to %s lost", atp_url(a));
            f->ended = f->exit != 0;
            if (gap)
                refetch(f);
            break;
        case ATP_TIMEOUT:
            break;
        }
    }
    if (c->json && f->result) {
        json_object *o_result = json_make("result:o", json_object_get(f->result));
        print_json(o_result);
        json_put(o_result);
    }
    int exit = f->exit;
    follow_free(f);
    return exit;
}
