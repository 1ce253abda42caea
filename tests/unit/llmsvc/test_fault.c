/* Provider errors to ours, Retry-After, masking; breaker and admission, which react to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llmsvc/prov.h"
#include "llmsvc/queue.h"

static struct prov_conf conf(void)
{
    struct prov_conf p = { .name = "p",
                           .retry_on = { 408, 409, 429, 500, 502, 503, 504, 529 },
                           .n_retry_on = 8 };
    return p;
}

struct row {
    int status;
    const char *body, *retry_after;
    int err;
    bool retry;
};

static void check(const struct row *r)
{
    struct prov_conf p = conf();
    struct fault f = FAULT_NONE;
    struct fault_head h = { .retry_after = r->retry_after ? r->retry_after : "",
                            .retry_after_ms = "",
                            .request_id = "req_1",
                            .should_retry = "" };
    cleanup(freep) char *body = xstrdup(r->body);

    for (char *c = body; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    fault_from_http(&f, &p, r->status, &h, body, strlen(body), 0);
    if (f.err != r->err || f.retry != r->retry)
        fail_msg("%d %s: %s, retry %d: %s", r->status, body, err_name(f.err), f.retry, f.message);
    cleanup(json_putp) json_object *d = fault_data(&f, "p", 2);
    assert_string_equal(json_str(d, "provider", ""), "p");
    assert_int_equal(json_int(d, "attempts", 0), 2);
    assert_int_equal(json_int(d, "status", 0), r->status);
    assert_string_equal(json_str(d, "request_id", ""), "req_1");
    fault_done(&f);
}

static void statuses(void **state)
{
    static const struct row rows[] = {
        { 401, "{'error':{'message':'bad key'}}", NULL, ERR_PROVAUTH, false },
        { 403, "{}", NULL, ERR_PROVAUTH, false },
        { 402, "{}", NULL, ERR_QUOTA, false },
        { 404, "{'error':{'message':'no such model'}}", NULL, ERR_MODEL, false },
        { 400, "{'error':{'message':'nope','param':'messages'}}", NULL, ERR_BADREQ, false },
        { 413, "{'error':{'message':'large'}}", NULL, ERR_BADREQ, false },
        { 422, "{'detail':'x'}", NULL, ERR_BADREQ, false },
        { 400,
          "{'error':{'code':'context_length_exceeded','message':'maximum context length is 8192 tokens'}}",
          NULL, ERR_CONTEXT, false },
        { 400, "{'error':{'message':'prompt is too long: 210000 tokens > 200000 maximum'}}", NULL,
          ERR_CONTEXT, false },
        { 400, "{'error':{'message':'Your credit balance is too low'}}", NULL, ERR_QUOTA, false },
        { 400, "{'error':{'code':'content_policy_violation','message':'no'}}", NULL, ERR_CONTENT,
          false },
        { 408, "", NULL, ERR_PROVTIMEOUT, true },
        { 504, "<html>", NULL, ERR_PROVTIMEOUT, true },
        { 429, "{'error':{'message':'slow'}}", "3", ERR_PROVRATE, true },
        { 429, "{'error':{'type':'insufficient_quota','message':'spent'}}", NULL, ERR_QUOTA,
          false },
        { 429, "{'error':{'message':'You hit the spend limit'}}", NULL, ERR_QUOTA, false },
        { 429, "{'detail':{'status':'quota_exceeded','message':'x'}}", NULL, ERR_QUOTA, false },
        { 500, "", NULL, ERR_PROVDOWN, true },
        { 503, "{'error':'loading'}", NULL, ERR_PROVDOWN, true },
        { 529, "{'type':'error','error':{'type':'overloaded_error','message':'Overloaded'}}", NULL,
          ERR_PROVDOWN, true },
        { 501, "", NULL, ERR_PROVDOWN, false },
        { 307, "", NULL, ERR_PROVPROTO, false },
        { 418, "", NULL, ERR_BADREQ, false },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        check(&rows[i]);
}

static void stream_errors(void **state)
{
    static const struct {
        const char *type;
        int err;
        bool retry;
    } rows[] = { { "overloaded_error", ERR_PROVDOWN, true },
                 { "rate_limit_error", ERR_PROVRATE, true },
                 { "authentication_error", ERR_PROVAUTH, false },
                 { "invalid_request_error", ERR_BADREQ, false },
                 { "api_error", ERR_PROVDOWN, true },
                 { "whatever", ERR_PROVDOWN, true } };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct prov_conf p = conf();
        struct fault f = FAULT_NONE;
        cleanup(json_putp) json_object *e = json_make("type:s message:s", rows[i].type, "x");

        fault_from_event(&f, &p, e);
        assert_int_equal(f.err, rows[i].err);
        assert_int_equal(f.retry, rows[i].retry);
    }
}

static void numbers_and_parameters(void **state)
{
    static const struct {
        const char *body;
        unsigned bit;
    } rows[] = {
        { "{\"error\":{\"message\":\"Unsupported parameter: 'max_tokens' is not supported, use 'max_completion_tokens'\",\"param\":\"max_tokens\"}}",
          PARAM_MAX_TOKENS },
        { "{\"error\":{\"message\":\"`temperature` is not supported by this model\"}}",
          PARAM_TEMPERATURE },
        { "{\"error\":{\"message\":\"x\",\"param\":\"reasoning_effort\"}}", PARAM_EFFORT },
        { "{\"error\":{\"message\":\"x\",\"param\":\"stop\"}}", PARAM_STOP },
        { "{\"error\":{\"message\":\"thinking: not supported\"}}", PARAM_THINKING },
        { "{\"error\":{\"message\":\"top_p\"}}", PARAM_TOP_P },
        { "{\"error\":{\"message\":\"messages.0 is wrong\"}}", 0 },
    };
    struct fault_head h = { "", "", "", "" };
    struct prov_conf p = conf();

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct fault f = FAULT_NONE;

        fault_from_http(&f, &p, 400, &h, rows[i].body, strlen(rows[i].body), 0);
        assert_int_equal(f.err, ERR_BADREQ);
        assert_int_equal(f.drop, rows[i].bit);
    }
    struct fault f = FAULT_NONE;
    const char *body =
        "{\"error\":{\"message\":\"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.\"}}";
    fault_from_http(&f, &p, 400, &h, body, strlen(body), 0);
    assert_int_equal(f.limit, 8192);
    assert_int_equal(f.tokens, 9000);
}

static void retry_after(void **state)
{
    (void)state;
    assert_int_equal(retry_after_parse("12", 0), 12000);
    assert_int_equal(retry_after_parse("0.5", 0), 500);
    assert_int_equal(retry_after_parse("-3", 0), 0);
    assert_int_equal(retry_after_parse("", 0), -1);
    assert_int_equal(retry_after_parse(NULL, 0), -1);
    assert_int_equal(retry_after_parse("soon", 0), -1);
    assert_int_equal(retry_after_parse("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480000 - 5000),
                     5000);
    assert_int_equal(retry_after_parse("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480000 + 5000), 0);
}

static void masking(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        { "Incorrect API key provided: sk-proj-abcDEF123456. See",
          "Incorrect API key provided: ***. See" },
        { "Bearer eyJhbGciOiJIUzI1NiJ9.payload", "Bearer ***.payload" },
        { "model claude-haiku-4-5-20251001 not found",
          "model claude-haiku-4-5-20251001 not found" },
        { "AbCdEf0123456789AbCdEf01", "***" },
        { "a\tb\nc", "a b c" },
        { "my hidden word", "my *** word" },
        { "", "" },
    };
    char out[64];

    (void)state;
    mask_remember("hidden");
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        mask_text(out, sizeof out, rows[i].in);
        assert_string_equal(out, rows[i].out);
    }
    char *secret = xstrdup("opensesame");
    mask_remember(secret);
    mask_text(out, sizeof out, "xopensesamex");
    assert_null(strstr(out, "opensesame"));
    mask_forget(secret);
    mask_text(out, sizeof out, "opensesame");
    assert_string_equal(out, "opensesame");
    free(secret);
}

/* --- breaker --- */

static void breaker(void **state)
{
    struct prov p = { .refs = 1, .latency_ms = -1 };
    struct prov_conf c = { .enabled = true };
    struct fault f = { .err = ERR_PROVDOWN }, mine = { .err = ERR_BADREQ };
    int64_t now = 1000000;

    (void)state;
    for (int i = 0; i < 4; i++)
        prov_result(&p, &f, now, 0);
    prov_result(&p, &mine, now, 0); /* our own mistake closes the row */
    for (int i = 0; i < 4; i++)
        prov_result(&p, &f, now, 0);
    assert_true(breaker_try(&p, now));
    assert_string_equal(prov_status(&p, &c, now), "degraded");
    prov_result(&p, &f, now, 0);
    assert_false(breaker_try(&p, now));
    assert_string_equal(prov_status(&p, &c, now), "unavailable");
    assert_false(breaker_try(&p, now + 14999));
    assert_true(breaker_try(&p, now + 15000));  /* the probe */
    assert_false(breaker_try(&p, now + 15001)); /* one only */
    prov_result(&p, &f, now + 15002, 0);
    assert_false(breaker_try(&p, now + 15002 + 29999)); /* doubled */
    assert_true(breaker_try(&p, now + 15002 + 30000));
    prov_result(&p, NULL, now + 50000, 12);
    assert_true(breaker_try(&p, now + 50000));
    assert_string_equal(prov_status(&p, &c, now + 50000), "available");
    assert_int_equal(p.latency_ms, 12);
}

static void breaker_by_share(void **state)
{
    struct prov p = { .refs = 1 };
    struct fault f = { .err = ERR_PROVTIMEOUT };
    int64_t now = 1000000;

    (void)state;
    for (int i = 0; i < 10; i++) {
        prov_result(&p, NULL, now, 1);
        prov_result(&p, &f, now, 0);
    }
    assert_true(breaker_open(&p, now)); /* half of 20 in a minute */
    memset(&p, 0, sizeof p);
    for (int i = 0; i < 10; i++) {
        prov_result(&p, NULL, now + i * 20000, 1);
        prov_result(&p, &f, now + i * 20000, 0);
    }
    assert_false(breaker_open(&p, now + 200000)); /* never 20 within a minute */
}

static void what_is_dropped(void **state)
{
    struct prov p = { .refs = 1 };

    (void)state;
    assert_int_equal(prov_dropped(&p, "m"), 0);
    prov_drop(&p, "m", PARAM_SEED);
    prov_drop(&p, "m", PARAM_STOP);
    assert_int_equal(prov_dropped(&p, "m"), PARAM_SEED | PARAM_STOP);
    assert_int_equal(prov_dropped(&p, "n"), 0);
}

/* --- admission --- */

static char order[256];
static void admitted(void *arg)
{
    size_t n = strlen(order);
    snprintf(order + n, sizeof order - n, "%s", (const char *)arg);
}

static struct ticket *enter(struct queue *q, const struct queue_limits *lim, const char *user,
                            int agent, bool guest, const char *name, bool *now)
{
    struct queue_ask a = { .user = user, .agent = agent, .guest = guest, .tokens = 10 };
    int err = 0;
    struct ticket *t = queue_enter(q, lim, &a, admitted, (void *)(uintptr_t)name, now, &err);

    assert_int_equal(err, 0);
    return t;
}

/* A backlog of one agent delays the first call of another by one call at most; guests come last. */
static void fairness(void **state)
{
    struct loop *l = loop_new();
    struct queue *q = queue_new(l);
    struct queue_limits one = { .max_concurrent = 1 };
    struct ticket *t[9];
    bool now = false;

    (void)state;
    order[0] = '\0';
    t[0] = enter(q, &one, "alice", 1, false, "-", &now);
    assert_true(now);
    t[1] = enter(q, &one, "guest", 9, true, "g", &now);
    assert_false(now);
    t[2] = enter(q, &one, "alice", 1, false, "a", &now);
    t[3] = enter(q, &one, "alice", 1, false, "b", &now);
    t[4] = enter(q, &one, "alice", 2, false, "c", &now);
    t[5] = enter(q, &one, "bob", 3, false, "B", &now);
    static const int leave[] = { 0, 5, 4, 2, 3, 1 };
    for (size_t i = 0; i < N_ELEMS(leave); i++) {
        queue_leave(t[leave[i]], -1);
        loop_step(l, false);
        loop_step(l, false);
    }
    assert_string_equal(order, "Bcabg");
    assert_int_equal(queue_waiting(q), 0);
    queue_free(q);
    loop_free(l);
}

static void waiting_is_bounded(void **state)
{
    struct loop *l = loop_new();
    struct queue *q = queue_new(l);
    struct queue_limits one = { .max_concurrent = 1 };
    struct ticket *t[101];
    bool now = false;
    int err = 0;

    (void)state;
    for (int i = 0; i < 101; i++)
        t[i] = enter(q, &one, "alice", 1, false, "", &now);
    struct queue_ask a = { .user = "alice", .agent = 2 };
    assert_null(queue_enter(q, &one, &a, admitted, order, &now, &err));
    assert_int_equal(err, ERR_BUSY);
    for (int i = 100; i >= 0; i--)
        queue_leave(t[i], -1);
    queue_free(q);
    loop_free(l);
}

static void buckets(void **state)
{
    struct loop *l = loop_new();
    struct queue *q = queue_new(l);
    struct queue_limits lim = { .rpm = 2, .tpm = 1000 };
    bool now = false;

    (void)state;
    struct ticket *a = enter(q, &lim, "u", 1, false, "", &now),
                  *b = enter(q, &lim, "u", 1, false, "", &now);
    assert_true(now);
    int64_t wait = queue_wait_ms(q, &lim, 10);
    assert_true(wait > 25000 && wait <= 30001); /* two a minute */
    queue_leave(a, 5);
    queue_leave(b, 5);
    struct queue_limits tokens = { .tpm = 600 };
    struct queue *q2 = queue_new(l);
    struct queue_ask ask = { .user = "u", .tokens = 600 };
    int err = 0;
    struct ticket *c = queue_enter(q2, &tokens, &ask, admitted, order, &now, &err);
    assert_true(now);
    wait = queue_wait_ms(q2, &tokens, 100);
    assert_true(wait > 9000 && wait <= 10001);
    queue_leave(c, 100); /* settled: 500 come back */
    assert_int_equal(queue_wait_ms(q2, &tokens, 100), 0);
    queue_block(q2, 700);
    wait = queue_wait_ms(q2, &tokens, 1);
    assert_true(wait > 600 && wait <= 700);
    queue_free(q);
    queue_free(q2);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses),
        cmocka_unit_test(stream_errors),
        cmocka_unit_test(numbers_and_parameters),
        cmocka_unit_test(retry_after),
        cmocka_unit_test(masking),
        cmocka_unit_test(breaker),
        cmocka_unit_test(breaker_by_share),
        cmocka_unit_test(what_is_dropped),
        cmocka_unit_test(fairness),
        cmocka_unit_test(waiting_is_bounded),
        cmocka_unit_test(buckets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
