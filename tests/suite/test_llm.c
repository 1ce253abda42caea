/*
 * Model calls through the booted suite: every wire format, streaming and blocking, tools, errors,
 * retries, cut streams, hang-ups, and an llmsvc that dies in the middle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "tests/rig/prov.h"
#include "tests/rig/rig.h"

#define GRANTS \
    "llm/complete llm/stream_complete llm/models llm/status llm/usage llm/providers llm/embed"

static const char *kind_now, *yaml_now;
static struct prov *prov_now;

/* One provider double and one Avix that uses it. */
struct world {
    struct prov *p;
    struct rig *g;
    char *token;
};

static void configure(struct rig *g)
{
    char path[400];

    prov_configure(g, prov_now, kind_now);
    if (!yaml_now)
        return;
    struct buf out = BUF_INIT(65536);
    for (const char *s = yaml_now; *s; s++) {
        if (*s == '@')
            buf_printf(&out, "%d", prov_now->port);
        else
            buf_addc(&out, *s);
    }
    cleanup(freep) char *text = buf_take(&out);
    snprintf(path, sizeof path, "%s/etc/llm.yaml", g->root);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

/* yaml (may be NULL): an llm.yaml in which @ is the double's port. */
static struct world world_new(const char *script, const char *kind, const char *yaml,
                              const char *const *env)
{
    struct rig_opts o = { .before = configure, .env = env };
    struct world w = { .p = prov_start(script) };

    prov_now = w.p;
    kind_now = kind;
    yaml_now = yaml;
    w.g = rig_new(&o);
    w.token = rig_token(w.g, GRANTS, NULL);
    return w;
}

static void world_end(struct world *w)
{
    prov_stop(w->p);
    rig_stop(w->g);
    free(w->token);
}

/* What a stream brought. */
struct stream {
    struct buf text, types;
    json_object *calls; /* ids to argument text */
    bool done;
    struct ipc_reply reply;
    struct loop *loop;
    bool over;
    int chunks;
};

static void on_note(const char *method, json_object *params, void *arg)
{
    struct stream *s = arg;
    json_object *c = json_obj(params, "chunk");
    const char *type = json_str(c, "type", ""), *id = json_str(c, "call_id", "");

    assert_string_equal(method, "llm.stream.chunk");
    assert_false(s->done);
    s->chunks++;
    buf_printf(&s->types, "%s ", type);
    if (str_eq(type, "text_delta")) {
        assert_true(*json_str(c, "text", "") != '\0');
        buf_adds(&s->text, json_str(c, "text", ""));
    } else if (str_eq(type, "tool_call_start")) {
        json_add_str(s->calls, id, "");
    } else if (str_eq(type, "tool_call_args_delta")) {
        cleanup(freep) char *all =
            xasprintf("%s%s", json_str(s->calls, id, "?"), json_str(c, "args_delta", ""));
        json_add_str(s->calls, id, all);
    } else if (str_eq(type, "done")) {
        s->done = true;
    }
}

static void on_done(struct ipc_reply *r, void *arg)
{
    struct stream *s = arg;

    s->reply.err = r->err;
    s->reply.result = TAKE(r->result);
    s->reply.error = r->error;
    r->error.data = NULL;
    s->over = true;
    loop_stop(s->loop);
}

static void stream_init(struct stream *s)
{
    memset(s, 0, sizeof *s);
    buf_init(&s->text, 1 << 24);
    buf_init(&s->types, 1 << 24);
    buf_add(&s->text, "", 0);
    buf_add(&s->types, "", 0);
    s->calls = json_new();
    s->reply.fd = -1;
    s->loop = loop_new();
}

static void stream_done(struct stream *s)
{
    buf_done(&s->text);
    buf_done(&s->types);
    json_put(s->calls);
    ipc_reply_done(&s->reply);
    loop_free(s->loop);
}

static struct ipc_call *stream_start(struct rig *g, const char *token, const char *params,
                                     struct stream *s)
{
    cleanup(json_putp) json_object *p = NULL;

    assert_int_equal(json_parse(params, strlen(params), &p), 0);
    struct ipc_req q = { .sock = rig_sock(g, "router.sock"),
                         .method = "llm/stream_complete",
                         .params = p,
                         .token = token,
                         .timeout_ms = 30000 };
    return ipc_start(s->loop, &q, on_note, on_done, s);
}

static void stream_run(struct rig *g, const char *token, const char *params, struct stream *s)
{
    stream_init(s);
    stream_start(g, token, params, s);
    loop_run(s->loop);
    assert_true(s->over);
    if (s->reply.err)
        print_message("error %d: %s\n", s->reply.error.code, s->reply.error.message);
}

static const char hello[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
static const char with_tools[] =
    "{\"system\":\"You are a test.\",\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],"
    "\"tools\":[{\"name\":\"fs/read\",\"description\":\"reads\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}},\"required\":[\"path\"]}},"
    "{\"name\":\"fs/list\",\"description\":\"lists\",\"input\":{\"path\":{\"type\":\"string\",\"required\":true}}}]}";
static const char with_results[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"go\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c 1\",\"name\":\"fs/read\",\"input\":{\"path\":\"/a\"}},"
    "{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"fs/list\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"and now?\"},{\"type\":\"tool_result\",\"tool_use_id\":\"c 1\",\"content\":\"data\"}]}],"
    "\"tools\":[{\"name\":\"fs/read\",\"description\":\"reads\",\"input\":{}},{\"name\":\"fs/list\",\"description\":\"lists\",\"input\":{}}]}";

static const char basic_script[] =
    "{\"steps\":[{\"text\":\"Zwölf Boxkämpfer \\ud83e\\udd4a jagen \\\"Viktor\\\".\",\"usage\":{\"input\":12,\"output\":7}},"
    "{\"text\":\"Zwölf Boxkämpfer \\ud83e\\udd4a jagen \\\"Viktor\\\".\",\"usage\":{\"input\":12,\"output\":7}},"
    "{\"text\":\"I will look.\",\"tools\":[{\"id\":\"call_a\",\"name\":\"fs/read\",\"input\":{\"path\":\"/x \\\"q\\\".md\"}},{\"id\":\"call_b\",\"name\":\"fs/list\"}]},"
    "{\"text\":\"I will look.\",\"tools\":[{\"id\":\"call_a\",\"name\":\"fs/read\",\"input\":{\"path\":\"/x \\\"q\\\".md\"}},{\"id\":\"call_b\",\"name\":\"fs/list\"}]},"
    "{\"text\":\"Both done.\"}]}";

static void check_tools(json_object *result)
{
    json_object *content = json_arr(result, "content");

    assert_string_equal(json_str(result, "stop_reason", ""), "tool_use");
    assert_int_equal(json_object_array_length(content), 3);
    json_object *a = json_object_array_get_idx(content, 1),
                *b = json_object_array_get_idx(content, 2);
    assert_string_equal(json_str(a, "name", ""), "fs/read");
    assert_string_equal(json_str(a, "id", ""), "call_a");
    assert_string_equal(json_str(json_obj(a, "input"), "path", ""), "/x \"q\".md");
    assert_string_equal(json_str(b, "name", ""), "fs/list");
    assert_int_equal(json_object_object_length(json_obj(b, "input")), 0);
}

static void protocol(const char *kind)
{
    cleanup(world_end) struct world w = world_new(basic_script, kind, NULL, NULL);
    const char *token = w.token;
    struct rig *g = w.g;
    struct ipc_reply r = { .fd = -1 };
    struct stream s;
    const char *text = "Zw\xc3\xb6lf Boxk\xc3\xa4mpfer \xf0\x9f\xa5\x8a jagen \"Viktor\".";

    assert_int_equal(rig_call(g, token, "llm/complete", hello, &r), 0);
    assert_string_equal(
        json_str(json_object_array_get_idx(json_arr(r.result, "content"), 0), "text", ""), text);
    assert_string_equal(json_str(r.result, "stop_reason", ""), "end_turn");
    assert_int_equal(json_int(r.result, "input_tokens", 0), 12);
    assert_int_equal(json_int(r.result, "output_tokens", 0), 7);
    assert_int_equal(json_int(r.result, "total_tokens", 0), 19);
    assert_string_equal(json_str(r.result, "provider", ""), "double");
    assert_string_equal(json_str(r.result, "model", ""), "test-model");
    assert_int_equal(json_int(r.result, "attempts", 0), 1);
    ipc_reply_done(&r);

    stream_run(g, token, hello, &s);
    assert_int_equal(s.reply.err, 0);
    assert_string_equal(s.text.data, text);
    assert_true(s.done);
    assert_true(json_flag(s.reply.result, "done", false));
    assert_int_equal(json_int(s.reply.result, "input_tokens", 0), 12);
    assert_string_equal(
        json_str(json_object_array_get_idx(json_arr(s.reply.result, "content"), 0), "text", ""),
        text);
    stream_done(&s);

    assert_int_equal(rig_call(g, token, "llm/complete", with_tools, &r), 0);
    check_tools(r.result);
    ipc_reply_done(&r);
    stream_run(g, token, with_tools, &s);
    assert_int_equal(s.reply.err, 0);
    check_tools(s.reply.result);
    assert_string_equal(json_str(s.calls, "call_a", ""), "{\"path\":\"/x \\\"q\\\".md\"}");
    assert_string_equal(json_str(s.calls, "call_b", ""), "{}");
    stream_done(&s);

    stream_run(g, token, with_results, &s);
    assert_int_equal(s.reply.err, 0);
    assert_string_equal(s.text.data, "Both done.");
    stream_done(&s);
    assert_int_equal(prov_requests(w.p), 5);
}

static void anthropic_works(void **state)
{
    (void)state;
    protocol("anthropic");
}

static void openai_works(void **state)
{
    (void)state;
    protocol("openai");
}

static void ollama_works(void **state)
{
    (void)state;
    protocol("ollama");
}

/* Runs one blocking call that fails; the reply is the caller's to end. */
static void fails(struct world *w, const char *params, int code, struct ipc_reply *r)
{
    *r = (struct ipc_reply){ .fd = -1 };
    assert_int_not_equal(rig_call(w->g, w->token, "llm/complete", params, r), 0);
    if (r->error.code != code)
        fail_msg("code %d: %s", r->error.code, r->error.message);
}

static void expect_error(struct world *w, int code, const char *key, const char *value)
{
    struct ipc_reply r;

    fails(w, hello, code, &r);
    assert_string_equal(json_str(r.error.data, "provider", ""), "double");
    if (key)
        assert_string_equal(json_str(r.error.data, key, ""), value);
    ipc_reply_done(&r);
}

static void errors_of_providers(void **state)
{
    static const char script[] =
        "{\"steps\":[{\"status\":401,\"error\":{\"type\":\"authentication_error\",\"message\":\"invalid x-api-key sk-ant-REDACTED\"}},"
        "{\"status\":404,\"error\":{\"type\":\"not_found_error\",\"message\":\"model: nope\"}},"
        "{\"status\":400,\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 210000 tokens > 200000 maximum\"}},"
        "{\"status\":400,\"error\":{\"type\":\"invalid_request_error\",\"message\":\"metadata: bad\"}},"
        "{\"status\":402,\"error\":{\"type\":\"billing_error\",\"message\":\"no credit\"}},"
        "{\"status\":200,\"body\":\"not json\"},"
        "{\"status\":529,\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}},"
        "{\"status\":529,\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}},"
        "{\"status\":529,\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}]}";
    cleanup(world_end) struct world w = world_new(script, "anthropic", NULL, NULL);
    struct ipc_reply r;

    (void)state;
    fails(&w, hello, -32014, &r);
    assert_null(strstr(r.error.message, "REDACTED"));
    assert_string_equal(json_str(r.error.data, "type", ""), "authentication_error");
    assert_int_equal(json_int(r.error.data, "status", 0), 401);
    ipc_reply_done(&r);
    expect_error(&w, -32012, NULL, NULL);
    fails(&w, hello, -32021, &r);
    assert_int_equal(json_int(r.error.data, "limit", 0), 200000);
    assert_int_equal(json_int(r.error.data, "tokens", 0), 210000);
    ipc_reply_done(&r);
    expect_error(&w, -32029, NULL, NULL);
    expect_error(&w, -32017, "scope", "provider");
    expect_error(&w, -32027, NULL, NULL);
    fails(&w, hello, -32026, &r);
    assert_int_equal(json_int(r.error.data, "attempts", 0), 3);
    ipc_reply_done(&r);
    assert_int_equal(prov_requests(w.p), 9);
}

static void bad_requests(void **state)
{
    cleanup(world_end) struct world w =
        world_new("{\"default\":{\"text\":\"x\"}}", "openai", NULL, NULL);
    struct ipc_reply r;

    (void)state;
    fails(&w, "{}", -32602, &r);
    assert_string_equal(json_str(r.error.data, "param", ""), "messages");
    ipc_reply_done(&r);
    fails(&w, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", -32602, &r);
    ipc_reply_done(&r);
    fails(&w, "{\"provider\":\"nobody\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
          -32011, &r);
    ipc_reply_done(&r);
    fails(&w, "{\"model\":\"nothing\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
          -32012, &r);
    ipc_reply_done(&r);
    fails(
        &w,
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://a/b.png\"}}]}]}",
        -32013, &r);
    ipc_reply_done(&r);
    assert_int_equal(prov_requests(w.p), 0);
}

/* 429 with Retry-After, then a good answer: one call, two attempts, the wait kept. */
static void rate_limit_is_waited_for(void **state)
{
    static const char script[] =
        "{\"steps\":[{\"status\":429,\"headers\":{\"retry-after-ms\":\"300\"},\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow down\"}},"
        "{\"text\":\"ok\"},"
        "{\"status\":429,\"headers\":{\"retry-after\":\"30\"},\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow down\"}},"
        "{\"status\":429,\"error\":{\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\",\"message\":\"spent\"}}]}";
    cleanup(world_end) struct world w = world_new(script, "openai", NULL, NULL);
    struct ipc_reply r = { .fd = -1 };
    struct stream s;
    int64_t t0 = mono_ms();

    (void)state;
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.err, 0);
    assert_string_equal(s.text.data, "ok");
    assert_int_equal(json_int(s.reply.result, "attempts", 0), 2);
    assert_true(mono_ms() - t0 >= 290);
    stream_done(&s);
    /* the wait passes the caller's deadline: answered at once */
    fails(&w, "{\"timeout_ms\":5000,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", -32015,
          &r);
    assert_int_equal(json_int(r.error.data, "retry_after", 0), 30);
    ipc_reply_done(&r);
    assert_int_equal(prov_requests(w.p), 3);
}

/* What came before the cut stays delivered, the call fails, nothing is repeated after a chunk. */
static void cut_streams(void **state)
{
    static const char script[] =
        "{\"steps\":[{\"text\":\"one two three four five six\",\"cut_events\":6},"
        "{\"text\":\"one two three\",\"stream_error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}},"
        "{\"text\":\"one two\",\"garbage\":\"{nonsense\"},"
        "{\"text\":\"never\",\"no_answer\":true},{\"text\":\"second try\"}]}";
    cleanup(world_end) struct world w = world_new(script, "anthropic", NULL, NULL);
    struct stream s;

    (void)state;
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.error.code, -32027);
    assert_true(s.text.len > 0 && !s.done);
    stream_done(&s);
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.error.code, -32026);
    assert_string_equal(s.text.data, "one two three");
    stream_done(&s);
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.error.code, -32027);
    stream_done(&s);
    assert_int_equal(prov_requests(w.p), 3);
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.err, 0);
    assert_string_equal(s.text.data, "second try");
    stream_done(&s);
}

static bool log_has_end(struct prov *p, const char *end)
{
    for (int64_t t0 = mono_ms(); mono_ms() - t0 < 10000;) {
        cleanup(json_putp) json_object *log = prov_log(p);

        for (size_t i = 0; i < json_object_array_length(log); i++)
            if (str_eq(json_str(json_object_array_get_idx(log, i), "end", ""), end))
                return true;
        usleep(5000);
    }
    return false;
}

static void stop_at_text(const char *method, json_object *params, void *arg)
{
    struct stream *s = arg;

    (void)method;
    if (str_eq(json_str(json_obj(params, "chunk"), "type", ""), "text_delta"))
        loop_stop(s->loop);
}

/* A caller that hangs up ends the transfer at once. */
static void hangup_aborts(void **state)
{
    cleanup(world_end) struct world w = world_new(
        "{\"steps\":[{\"text\":\"one two three\",\"hold\":{\"after\":5,\"until\":\"never\"}}]}",
        "anthropic", NULL, NULL);
    cleanup(json_putp) json_object *p = NULL;
    struct stream s;

    (void)state;
    stream_init(&s);
    assert_int_equal(json_parse(hello, strlen(hello), &p), 0);
    struct ipc_req q = { .sock = rig_sock(w.g, "router.sock"),
                         .method = "llm/stream_complete",
                         .params = p,
                         .token = w.token,
                         .timeout_ms = 30000 };
    struct ipc_call *c = ipc_start(s.loop, &q, stop_at_text, on_done, &s);
    loop_run(s.loop);
    assert_false(s.over);
    ipc_cancel(c);
    assert_true(log_has_end(w.p, "hangup"));
    stream_done(&s);
}

/* kill -9 in the middle of a stream: the caller learns it, the next call works. */
static void dies_in_a_stream(void **state)
{
    cleanup(world_end) struct world w = world_new(
        "{\"steps\":[{\"text\":\"one two three\",\"hold\":{\"after\":5,\"until\":\"never\"}},{\"text\":\"again\"}]}",
        "anthropic", NULL, NULL);
    cleanup(json_putp) json_object *p = NULL;
    struct stream s;

    (void)state;
    stream_init(&s);
    assert_int_equal(json_parse(hello, strlen(hello), &p), 0);
    struct ipc_req q = { .sock = rig_sock(w.g, "router.sock"),
                         .method = "llm/stream_complete",
                         .params = p,
                         .token = w.token,
                         .timeout_ms = 30000 };
    ipc_start(s.loop, &q, stop_at_text, on_done, &s);
    loop_run(s.loop);
    assert_false(s.over);
    rig_kill_unit(w.g, "llmsvc");
    while (!s.over) /* a text that was on its way stops the loop once more */
        loop_run(s.loop);
    assert_int_equal(s.reply.err, ERR_UNAVAIL);
    stream_done(&s);
    stream_run(w.g, w.token, hello, &s);
    assert_int_equal(s.reply.err, 0);
    assert_string_equal(s.text.data, "again");
    stream_done(&s);
}

/* The same turn again, also after a crash, costs no second provider call. */
static void a_turn_is_answered_once(void **state)
{
    static const char turn[] =
        "{\"turn_id\":\"7b0c1f9e-aaaa-4bbb-8ccc-0123456789ab\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
    cleanup(world_end) struct world w = world_new(
        "{\"steps\":[{\"text\":\"first\",\"tools\":[{\"id\":\"c1\",\"name\":\"fs/read\",\"input\":{\"path\":\"/a\"}}]},{\"text\":\"second\"}]}",
        "openai", NULL, NULL);
    struct stream s;

    (void)state;
    for (int i = 0; i < 3; i++) {
        stream_run(w.g, w.token, turn, &s);
        assert_int_equal(s.reply.err, 0);
        assert_string_equal(s.text.data, "first");
        assert_true(s.done);
        assert_string_equal(json_str(s.calls, "c1", ""), "{\"path\":\"/a\"}");
        stream_done(&s);
        if (i == 1)
            rig_kill_unit(w.g, "llmsvc");
    }
    assert_int_equal(prov_requests(w.p), 1);
    stream_run(w.g, w.token, hello, &s);
    assert_string_equal(s.text.data, "second");
    stream_done(&s);
}

static const char two_providers[] =
    "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: bad, embedding: builtin}\n  fallback: {text: [good/m2, builtin]}\n"
    "  aliases: {short: m2}\n"
    "  providers:\n"
    "    - {name: bad, kind: openai, baseUrl: \"http://127.0.0.1:@/bad\", auth: {secretName: BAD_KEY}, modalities: [text], models: [{id: m1, capabilities: [tool_use]}],\n"
    "       retryPolicy: {maxAttempts: 2, backoffMs: 10}}\n"
    "    - {name: good, kind: anthropic, baseUrl: \"http://127.0.0.1:@/good\", auth: {type: none}, models: [{id: m2, capabilities: [tool_use], pricing: {inputPerMTok: 3, outputPerMTok: 15}}]}\n"
    "    - {name: builtin}\n";

static void fallback_and_keys(void **state)
{
    static const char script[] =
        "{\"rules\":[{\"match\":{\"path\":\"/bad/v1/chat/completions\"},\"status\":503},"
        "{\"match\":{\"path\":\"/good/v1/messages\"},\"text\":\"saved\",\"usage\":{\"input\":1000,\"output\":100}}]}";
    static const char *const env[] = { "AVIX_PASS_ENV=BAD_KEY", "BAD_KEY=sk-test-0123456789abcdef",
                                       NULL };
    cleanup(world_end) struct world w = world_new(script, "openai", two_providers, env);
    struct ipc_reply r = { .fd = -1 };

    (void)state;
    assert_int_equal(rig_call(w.g, w.token, "llm/complete", hello, &r), 0);
    assert_string_equal(json_str(r.result, "provider", ""), "good");
    assert_string_equal(json_str(r.result, "fallback_from", ""), "bad");
    assert_true(json_num(json_obj(r.result, "usage"), "cost_usd", 0) > 0.0044);
    assert_true(json_num(json_obj(r.result, "usage"), "cost_usd", 0) < 0.0046);
    ipc_reply_done(&r);
    cleanup(json_putp) json_object *log = prov_log(w.p);
    int bad = 0;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        json_object *o = json_object_array_get_idx(log, i);

        if (!str_starts(json_str(o, "path", ""), "/bad"))
            continue;
        bad++;
        assert_string_equal(json_str(json_obj(o, "headers"), "authorization", ""),
                            "Bearer sk-test-0123456789abcdef");
    }
    assert_int_equal(bad, 2);
    /* a caller that names the provider gets its error */
    fails(&w, "{\"provider\":\"bad\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", -32026,
          &r);
    ipc_reply_done(&r);
    assert_int_equal(
        rig_call(w.g, w.token, "llm/complete",
                 "{\"model\":\"short\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &r),
        0);
    assert_string_equal(json_str(r.result, "model", ""), "m2");
    ipc_reply_done(&r);
}

/* A request that never ends is cut by the caller's own deadline. */
static void deadlines(void **state)
{
    cleanup(world_end) struct world w =
        world_new("{\"default\":{\"text\":\"x\",\"wait\":\"never\"}}", "openai", NULL, NULL);
    struct ipc_reply r;
    int64_t t0 = mono_ms();

    (void)state;
    fails(&w, "{\"timeout_ms\":400,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", -32016,
          &r);
    assert_true(mono_ms() - t0 < 5000);
    ipc_reply_done(&r);
}

static void unreachable_without_listener(void **state)
{
    cleanup(world_end) struct world w = world_new("{}", "openai", NULL, NULL);

    (void)state;
    prov_stop(w.p);
    w.p = prov_start("{}"); /* another port: the first one is closed now */
    expect_error(&w, -32026, NULL, NULL);
}

/* A parameter the model refuses is left out, once asked, and remembered. */
static void parameters_are_negotiated(void **state)
{
    static const char script[] =
        "{\"steps\":[{\"status\":400,\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Unsupported value: 'temperature' does not support 0.3\"}},"
        "{\"text\":\"one\"},{\"text\":\"two\"}]}";
    static const char ask[] =
        "{\"temperature\":0.3,\"top_p\":0.5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    cleanup(world_end) struct world w = world_new(script, "openai", NULL, NULL);
    struct ipc_reply r = { .fd = -1 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rig_call(w.g, w.token, "llm/complete", ask, &r), 0);
        ipc_reply_done(&r);
    }
    cleanup(json_putp) json_object *log = prov_log(w.p);
    int with = 0, n = 0;
    for (size_t i = 0; i < json_object_array_length(log); i++) {
        json_object *b = json_obj(json_object_array_get_idx(log, i), "body");
        n += b != NULL;
        with += json_get(b, "temperature") != NULL;
        assert_true(!b || json_get(b, "top_p") != NULL);
    }
    assert_int_equal(n, 3);
    assert_int_equal(with, 1);
}

static void status_and_usage(void **state)
{
    cleanup(world_end) struct world w =
        world_new("{\"default\":{\"text\":\"x y\",\"usage\":{\"input\":5,\"output\":3}}}", "openai",
                  NULL, NULL);
    struct ipc_reply r = { .fd = -1 };

    (void)state;
    assert_int_equal(rig_call(w.g, w.token, "llm/complete", hello, &r), 0);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(w.g, w.token, "llm/usage", "{}", &r), 0);
    json_object *text = json_obj(json_obj(json_obj(r.result, "by_provider"), "double"), "text");
    assert_int_equal(json_int(text, "input_tokens", 0), 5);
    assert_int_equal(json_int(text, "output_tokens", 0), 3);
    assert_int_equal(json_int(text, "requests", 0), 1);
    ipc_reply_done(&r);
    cleanup(freep) char *bob = rig_token(w.g, GRANTS, json_make("sub:s role:s", "bob", "user"));
    assert_int_equal(rig_call(w.g, w.token, "llm/usage", "{\"scope\":\"total\"}", &r), 0);
    ipc_reply_done(&r);
    assert_int_not_equal(rig_call(w.g, bob, "llm/usage", "{\"scope\":\"total\"}", &r), 0);
    assert_int_equal(r.error.code, -32002);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(w.g, w.token, "llm/status", "{\"provider\":\"double\"}", &r), 0);
    json_object *row = json_object_array_get_idx(json_arr(r.result, "providers"), 0);
    assert_string_equal(json_str(row, "status", ""), "available");
    assert_string_equal(json_str(row, "breaker", ""), "closed");
    assert_int_equal(json_int(row, "in_flight", -1), 0);
    ipc_reply_done(&r);
    assert_int_equal(rig_call(w.g, w.token, "llm/models", "{\"model\":\"builtin/rules-1\"}", &r),
                     0);
    row = json_object_array_get_idx(json_arr(r.result, "models"), 0);
    assert_string_equal(json_str(row, "id", ""), "rules-1");
    assert_string_equal(json_str(row, "description", ""), "rules, no neural model");
    assert_int_equal(json_int(row, "context_window", 0), 200000);
    ipc_reply_done(&r);
    assert_int_equal(
        rig_call(w.g, w.token, "llm/embed", "{\"input\":[\"a text\",\"another\"]}", &r), 0);
    assert_int_equal(json_int(r.result, "dimensions", 0), 256);
    assert_int_equal(json_object_array_length(json_arr(r.result, "embeddings")), 2);
    ipc_reply_done(&r);
}

/* The built-in rules, streamed word by word through everything. */
static void rules_answer(void **state)
{
    cleanup(world_end) struct world w = world_new("{}", "openai", NULL, NULL);
    struct stream s;

    (void)state;
    stream_run(
        w.g, w.token,
        "{\"model\":\"builtin/rules-1\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}",
        &s);
    assert_int_equal(s.reply.err, 0);
    assert_true(str_ends(s.text.data,
                         "(Answered by Avix built-in rules; no language model is configured.)"));
    assert_true(s.chunks > 20);
    stream_done(&s);
}

static void write_yaml(struct rig *g, const char *text)
{
    char path[400];

    snprintf(path, sizeof path, "%s/etc/llm.yaml", g->root);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
    json_object *r = rig_init_call(g, "init/reload", json_make("name:s", "llmsvc"), NULL);
    assert_non_null(r);
    json_put(r);
}

/* Waits until the provider list has this many entries. */
static bool providers_become(struct world *w, size_t n)
{
    for (int64_t t0 = mono_ms(); mono_ms() - t0 < 10000; usleep(5000)) {
        struct ipc_reply r = { .fd = -1 };
        size_t now = rig_call(w->g, w->token, "llm/providers", "{}", &r)
                         ? 0
                         : json_object_array_length(json_arr(r.result, "providers"));

        ipc_reply_done(&r);
        if (now == n)
            return true;
    }
    return false;
}

static void reload_swaps_or_refuses(void **state)
{
    cleanup(world_end) struct world w = world_new("{}", "openai", NULL, NULL);
    struct ipc_reply r = { .fd = -1 };

    (void)state;
    assert_true(providers_become(&w, 2));
    write_yaml(
        w.g,
        "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: builtin}\n  providers: [{name: builtin}]\n");
    assert_true(providers_become(&w, 1));
    write_yaml(
        w.g,
        "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: nobody}\n  providers: [{name: builtin}]\n");
    assert_int_equal(rig_call(w.g, w.token, "llm/complete", hello, &r), 0);
    assert_string_equal(json_str(r.result, "provider", ""), "builtin");
    ipc_reply_done(&r);
}

static const char taped[] =
    "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: tape}\n  providers:\n"
    "    - {name: double, kind: openai, baseUrl: \"http://127.0.0.1:@\", auth: {type: none}, modalities: [text], models: [{id: m1, capabilities: [tool_use]}],"
    " retryPolicy: {maxAttempts: 1}}\n"
    "    - {name: tape, kind: replay, mode: auto, wraps: double, cassette: t.jsonl, models: [{id: m1}]}\n    - {name: builtin}\n";

/* What was recorded comes back byte for byte, errors too, also after a restart. */
static void cassettes(void **state)
{
    static const char script[] =
        "{\"steps\":[{\"text\":\"taped words\",\"tools\":[{\"id\":\"c1\",\"name\":\"fs/read\",\"input\":{\"p\":1}}]},"
        "{\"status\":404,\"error\":{\"message\":\"no such model\"}}]}";
    static const char other[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"other\"}]}";
    cleanup(world_end) struct world w = world_new(script, "openai", taped, NULL);
    cleanup(freep) char *first = NULL;
    struct ipc_reply r;
    struct stream s;

    (void)state;
    for (int i = 0; i < 3; i++) {
        stream_run(w.g, w.token, hello, &s);
        assert_int_equal(s.reply.err, 0);
        assert_string_equal(s.text.data, "taped words");
        assert_true(s.done);
        assert_string_equal(json_str(s.reply.result, "provider", ""), "double");
        if (first)
            assert_string_equal(first, json_text(s.reply.result));
        else
            first = xstrdup(json_text(s.reply.result));
        stream_done(&s);
        fails(&w, other, -32012, &r);
        ipc_reply_done(&r);
        if (i == 1)
            rig_kill_unit(w.g, "llmsvc");
    }
    assert_int_equal(prov_requests(w.p), 2);
}

/* One run against a cassette by the environment alone: recorded with auto, then played without its
 * provider's help; what is not on it is an error that names its key. */
static void a_run_on_a_cassette(void **state)
{
    static const char *const env[] = { "AVIX_LLM_REPLAY=run.jsonl,auto", NULL };
    static const char other[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"other\"}]}";
    cleanup(world_end) struct world w =
        world_new("{\"default\":{\"text\":\"from the provider\"}}", "openai", NULL, env);
    struct ipc_reply r;

    (void)state;
    for (int i = 0; i < 2; i++) {
        if (rig_call(w.g, w.token, "llm/complete", hello, &r))
            fail_msg("%s", r.error.message);
        ipc_reply_done(&r);
    }
    assert_int_equal(prov_requests(w.p), 1);
    assert_int_equal(rig_shutdown(w.g), 0);
    static const char *const play[] = { "AVIX_LLM_REPLAY=run.jsonl", NULL };
    assert_int_equal(rig_boot(w.g, &(struct rig_opts){ .env = play }, NULL, 0), 0);
    free(w.token);
    w.token = rig_token(w.g, GRANTS, NULL);
    assert_int_equal(rig_call(w.g, w.token, "llm/complete", hello, &r), 0);
    assert_non_null(strstr(json_text(r.result), "from the provider"));
    ipc_reply_done(&r);
    assert_int_equal(rig_call(w.g, w.token, "llm/complete", other, &r), ERR_REPLAY);
    assert_int_equal(strlen(json_str(r.error.data, "key", "")), 64);
    ipc_reply_done(&r);
    assert_int_equal(prov_requests(w.p), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anthropic_works),
        cmocka_unit_test(openai_works),
        cmocka_unit_test(ollama_works),
        cmocka_unit_test(errors_of_providers),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(rate_limit_is_waited_for),
        cmocka_unit_test(cut_streams),
        cmocka_unit_test(hangup_aborts),
        cmocka_unit_test(dies_in_a_stream),
        cmocka_unit_test(a_turn_is_answered_once),
        cmocka_unit_test(fallback_and_keys),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(unreachable_without_listener),
        cmocka_unit_test(parameters_are_negotiated),
        cmocka_unit_test(status_and_usage),
        cmocka_unit_test(rules_answer),
        cmocka_unit_test(reload_swaps_or_refuses),
        cmocka_unit_test(cassettes),
        cmocka_unit_test(a_run_on_a_cassette),
    };
    cmocka_set_test_filter(getenv("AVIX_TEST_FILTER"));

    return cmocka_run_group_tests(tests, NULL, NULL);
}
