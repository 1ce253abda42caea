#pragma once
/*
 * An agent as a client sees it: a rig with a model provider double, one WebSocket, an agent spawned
 * over it, and all its events until it has ended. Fails the test where something is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "tests/rig/prov.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

struct arun {
    struct rig *g;
    struct prov *p;
    struct ws *w;
    int64_t pid;
    char inv[64], session[64], agent[64];
    json_object *events; /* every frame of this agent, in order */
    char exit_reason[128];
    int exit_code;
    bool ended, idle;
};

/* Script of the provider as text with ' for ". kind: anthropic, openai, ollama. */
static struct prov *arun_prov;
static const char *arun_kind;
static void (*arun_more)(struct rig *g);
static void arun_before(struct rig *g)
{
    prov_configure(g, arun_prov, arun_kind);
    if (arun_more)
        arun_more(g);
}

static inline char *quoted(const char *text)
{
    char *t = xstrdup(text);

    for (char *p = t; *p; p++)
        if (*p == '\'')
            *p = '"';
    return t;
}

static inline struct arun *arun_new(const char *kind, const char *script,
                                    void (*more)(struct rig *g))
{
    struct arun *a = xcalloc(1, sizeof *a);
    cleanup(freep) char *text = quoted(script);
    struct rig_opts o = { .before = arun_before };

    a->p = arun_prov = prov_start(text);
    arun_kind = kind;
    arun_more = more;
    a->g = rig_new(&o);
    a->w = ws_admin(a->g);
    assert_non_null(a->w);
    a->events = json_new_arr();
    assert_true(ws_send(a->w, json_make("type:s events:o", "subscribe",
                                        json_tokener_parse("[\"*\",\"agent.output\"]"))));
    return a;
}

static inline void arun_free(struct arun *a)
{
    json_put(a->events);
    ws_close(a->w);
    prov_stop(a->p);
    rig_stop(a->g);
    free(a);
}

static inline json_object *arun_cmd(struct arun *a, const char *domain, const char *op,
                                    json_object *body)
{
    json_object *r = ws_cmd(a->w, domain, op, body);

    assert_non_null(r);
    if (!json_flag(r, "ok", false))
        fail_msg("%s.%s: %s", domain, op, json_text(r));
    return r;
}

static inline void arun_spawn(struct arun *a, const char *agent, const char *goal, bool one_shot)
{
    json_object *r = arun_cmd(a, "proc", "spawn",
                              json_make("agent:s goal:s oneShot:b", agent, goal, (int)one_shot));
    json_object *b = json_obj(r, "body");

    a->pid = json_int(b, "pid", 0);
    assert_true(a->pid >= 100);
    str_copy(a->inv, sizeof a->inv, json_str(b, "invocation_id", ""));
    str_copy(a->session, sizeof a->session, json_str(b, "session_id", ""));
    str_copy(a->agent, sizeof a->agent, agent);
    a->ended = a->idle = false;
    json_put(r);
}

static inline void arun_signal(struct arun *a, const char *name, json_object *payload)
{
    json_put(arun_cmd(
        a, "signal", "send",
        json_make("signal:s pid:i payload:o", name, a->pid, payload ? payload : json_new())));
}

static inline bool arun_is(struct arun *a, json_object *frame)
{
    json_object *body = json_obj(frame, "body");
    char pid[32];

    snprintf(pid, sizeof pid, "%lld", (long long)a->pid);
    return str_eq(json_str(body, "pid", ""), pid);
}

/* Takes one frame in; false on timeout. The connection is made again if it broke. */
static inline bool arun_step(struct arun *a, int timeout_ms)
{
    json_object *f = ws_recv(a->w, timeout_ms);

    if (!f && ws_close_code(a->w)) {
        int64_t since = 0;
        for (size_t i = 0; i < json_object_array_length(a->events); i++) {
            int64_t s = json_int(json_object_array_get_idx(a->events, i), "seq", 0);
            since = s > since ? s : since;
        }
        ws_close(a->w);
        a->w = ws_admin(a->g);
        assert_non_null(a->w);
        assert_true(
            ws_send(a->w, json_make("type:s events:o since_seq:i", "subscribe",
                                    json_tokener_parse("[\"*\",\"agent.output\"]"), since)));
        return true;
    }
    if (!f)
        return false;
    const char *kind = json_str(f, "event", "");
    json_object *body = json_obj(f, "body");
    if (arun_is(a, f)) {
        json_push(a->events, json_object_get(f));
        if (str_eq(kind, "agent.exit")) {
            a->ended = true;
            a->exit_code = (int)json_int(body, "exitCode", -1);
            str_copy(a->exit_reason, sizeof a->exit_reason, json_str(body, "reason", ""));
        } else if (str_eq(kind, "agent.status")) {
            a->idle = json_flag(body, "idle", false);
        }
    }
    json_put(f);
    return true;
}

static inline void arun_fail(struct arun *a, const char *what)
{
    cleanup(freep) char *logs =
        xasprintf("tail -n 8 %s/logs/*.log %s/logs/agents/*.log", a->g->root, a->g->root);
    const char *argv[] = { "/bin/sh", "-c", logs, NULL };
    char *out = NULL;

    rig_run(a->g, argv, NULL, &out, NULL);
    fprintf(stderr, "events: %s\n%s\n", json_text(a->events), out ? out : "");
    free(out);
    fail_msg("%s", what);
}

/* Until agent.exit. */
static inline void arun_wait_exit(struct arun *a, int seconds)
{
    int64_t end = mono_ms() + (int64_t)seconds * 1000;

    while (!a->ended && mono_ms() < end)
        (void)arun_step(a, 200);
    if (!a->ended)
        arun_fail(a, "the agent did not end");
}

/* Until an event of this kind has come n times. */
static inline void arun_wait(struct arun *a, const char *kind, size_t n)
{
    int64_t end = mono_ms() + RIG_WAIT_MS;

    while (mono_ms() < end) {
        size_t have = 0;
        for (size_t i = 0; i < json_object_array_length(a->events); i++)
            have += str_eq(json_str(json_object_array_get_idx(a->events, i), "event", ""), kind);
        if (have >= n)
            return;
        (void)arun_step(a, 200);
    }
    arun_fail(a, kind);
}

/* Until agent.status says so. */
static inline void arun_wait_status(struct arun *a, const char *status)
{
    int64_t end = mono_ms() + RIG_WAIT_MS;
    size_t from = json_object_array_length(a->events);

    while (mono_ms() < end) {
        for (; from < json_object_array_length(a->events); from++) {
            json_object *f = json_object_array_get_idx(a->events, from);
            if (str_eq(json_str(f, "event", ""), "agent.status") &&
                str_eq(json_str(json_obj(f, "body"), "status", ""), status)) {
                return;
            }
        }
        (void)arun_step(a, 200);
    }
    arun_fail(a, status);
}

static inline void arun_wait_idle(struct arun *a)
{
    int64_t end = mono_ms() + RIG_WAIT_MS;

    a->idle = false;
    while (!a->idle && mono_ms() < end)
        (void)arun_step(a, 200);
    if (!a->idle)
        arun_fail(a, "the agent did not become idle");
}

/* The text of the last turn as its chunks give it, discarded streams left out; yours. */
static inline char *arun_chunks(struct arun *a)
{
    struct buf b = BUF_INIT(1 << 24);
    char turn[64] = "";

    for (size_t i = 0; i < json_object_array_length(a->events); i++) {
        json_object *f = json_object_array_get_idx(a->events, i), *body = json_obj(f, "body");
        const char *id = json_str(body, "turn_id", "");
        if (!str_eq(json_str(f, "event", ""), "agent.output.chunk"))
            continue;
        if (!str_eq(turn, id) || json_flag(body, "discarded", false) ||
            json_int(body, "seq_from", -1) == 0)
            buf_clear(&b);
        str_copy(turn, sizeof turn, id);
        buf_adds(&b, json_str(body, "text_delta", ""));
    }
    return b.data ? buf_take(&b) : xstrdup("");
}

/* The last agent.output; borrowed, "" if there is none. */
static inline const char *arun_output(struct arun *a)
{
    const char *text = "";

    for (size_t i = 0; i < json_object_array_length(a->events); i++) {
        json_object *f = json_object_array_get_idx(a->events, i);
        if (str_eq(json_str(f, "event", ""), "agent.output"))
            text = json_str(json_obj(f, "body"), "text", "");
    }
    return text;
}

static inline size_t arun_count(struct arun *a, const char *kind)
{
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(a->events); i++)
        n += str_eq(json_str(json_object_array_get_idx(a->events, i), "event", ""), kind);
    return n;
}

/* The lines of the conversation file; yours. Fails if seq has a hole or a line does not parse. */
static inline json_object *arun_lines(struct arun *a)
{
    char rel[400];
    json_object *list = json_new_arr();
    char *save = NULL;
    int64_t seq = 0;

    snprintf(rel, sizeof rel, "data/users/admin/agents/%s/%s.jsonl", a->agent, a->inv);
    cleanup(freep) char *text = rig_read(a->g, rel);
    assert_non_null(text);
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        json_object *o = NULL;
        if (json_parse(l, strlen(l), &o))
            fail_msg("line does not parse: %s", l);
        assert_int_equal(json_int(o, "seq", 0), ++seq);
        json_push(list, o);
    }
    return list;
}

/* The n-th (from 0) line with this role; borrowed, fails if it is not there. */
static inline json_object *arun_line(json_object *lines, const char *role, size_t n)
{
    for (size_t i = 0; i < json_object_array_length(lines); i++) {
        json_object *o = json_object_array_get_idx(lines, i);
        if (str_eq(json_str(o, "role", ""), role) && !n--)
            return o;
    }
    fail_msg("no such %s line in %s", role, json_text(lines));
    return NULL;
}

static inline size_t arun_n_lines(json_object *lines, const char *role)
{
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(lines); i++)
        n += str_eq(json_str(json_object_array_get_idx(lines, i), "role", ""), role);
    return n;
}

/* Host pid of the agent, 0 if it has none. */
static inline pid_t arun_host_pid(struct arun *a)
{
    json_object *r = rig_init_call(a->g, "init/list", NULL, NULL);
    json_object *list = json_arr(r, "agents");
    pid_t pid = 0;

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        if (json_int(o, "avixPid", 0) == a->pid)
            pid = (pid_t)json_int(o, "hostPid", 0);
    }
    json_put(r);
    return pid;
}
