/*
 * Limits of the gateway that a user could hurt others with (atp page, section 13): 64 ATP sessions
 * of a user, a login beyond that ends the least recently used one that has no connection; 500
 * events a second of one agent, whatever its process does.
 */
#include "tests/suite/agent_run.h"

#include "tests/suite/abuse/inject.h"

#define MOST 64

static struct rig *g;

static int refresh(const char *token)
{
    cleanup(freep) char *h = xasprintf("Authorization: Bearer %s\r\n", token);

    return http_request(g->port, "POST", "/atp/auth/refresh", h, "", NULL);
}

static bool is_ended(void *token)
{
    return refresh(token) == 401;
}

static int sessions(struct ws *w)
{
    cleanup(json_putp) json_object *r = ws_cmd(w, "auth", "sessions", json_new());

    return (int)json_object_array_length(json_arr(r, "body"));
}

static void sessions_of_one_user(void **state)
{
    char *tokens[MOST + 4] = { NULL };
    struct ws *w;
    int status = 0;

    (void)state;
    g = rig_new(NULL);
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &tokens[0]), 0);
    w = ws_open(g->port, tokens[0], NULL, &status); /* the oldest is in use */
    assert_non_null(w);
    json_put(ws_recv(w, 5000));
    for (int i = 1; i < MOST; i++)
        assert_int_equal(atp_login(g->port, "admin", g->api_key, &tokens[i]), 0);
    assert_int_equal(sessions(w), MOST);
    assert_int_equal(refresh(tokens[1]), 200); /* and the second oldest was just used */
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &tokens[MOST]), 0);
    assert_true(rig_until(is_ended, tokens[2]));
    assert_int_equal(sessions(w), MOST);
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &tokens[MOST + 1]), 0);
    assert_true(rig_until(is_ended, tokens[3]));
    assert_int_equal(refresh(tokens[1]), 200);
    assert_int_equal(refresh(tokens[4]), 200);
    assert_int_equal(refresh(tokens[MOST + 1]), 200);
    assert_int_equal(sessions(w), MOST);
    assert_int_equal(ws_close_code(w), 0);
    ws_close(w);
    for (size_t i = 0; i < N_ELEMS(tokens); i++)
        free(tokens[i]);
    rig_stop(g);
}

#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)

#define FLOOD 4000

static double metric(const char *line)
{
    cleanup(freep) char *text = NULL;

    assert_int_equal(http_request(g->port, "GET", "/metrics", NULL, NULL, &text), 200);
    char *at = strstr(text, line);
    return at ? strtod(at + strlen(line), NULL) : 0;
}

#define PUBLISHED "avix_gateway_events_published_total{kind=\"agent.tool_call\"} "
#define REFUSED   "avix_gateway_publish_rejected_total{reason=\"rate\"} "

static bool all_judged(void *arg)
{
    (void)arg;
    return metric(PUBLISHED) + metric(REFUSED) >= FLOOD;
}

/* Notes on one connection, as fast as the gateway reads them. */
static long flood(struct inj *j, const char *sock, int64_t pid)
{
    char frames[16384];
    long fd = inj_connect(j, sock, false), sent = 0;
    int n = 0, at;

    if (fd < 0)
        return fd;
    while (n < FLOOD && sent >= 0) {
        for (at = 0; n < FLOOD && at < (int)sizeof(frames) - 256; n++) {
            char *body = frames + at + 4;
            int len = snprintf(body, 250,
                               "{\"jsonrpc\":\"2.0\",\"method\":\"event.publish\",\"params\":{"
                               "\"event\":\"agent.tool_call\",\"body\":{\"pid\":%lld,\"callId\":"
                               "\"c%d\",\"tool\":\"fs/read\"}}}",
                               (long long)pid, n);

            for (int i = 0; i < 4; i++)
                frames[at + i] = (char)(len >> (8 * i));
            at += 4 + len;
        }
        inj_put(j, 0, frames, (size_t)at);
        for (int done = 0; done < at && sent >= 0; done += (int)sent)
            sent = inj_call(j, SYS_sendto, fd, (long)j->room + done, at - done, MSG_NOSIGNAL, 0, 0);
    }
    (void)inj_call(j, SYS_close, fd, 0, 0, 0, 0, 0);
    return sent < 0 ? sent : n;
}

static void events_of_one_agent(void **state)
{
    struct arun *a = arun_new("anthropic", "{'default':{'text':'Idle now.'}}", NULL);
    struct inj j = { 0 };

    (void)state;
    g = a->g;
    arun_spawn(a, "researcher", "x", false);
    arun_wait_idle(a);
    if (!INJECT_POSSIBLE || !inj_attach(&j, arun_host_pid(a))) {
        print_message("SKIPPED: a process cannot be taken over here\n");
        arun_free(a);
        return;
    }
    int64_t t0 = mono_ms();
    long n = flood(&j, rig_sock(g, "gateway.sock"), a->pid);

    inj_detach(&j);
    assert_int_equal(n, FLOOD);
    assert_true(rig_until(all_judged, NULL));
    double seconds = (double)(mono_ms() - t0) / 1000, out = metric(PUBLISHED);

    /* what the bucket held, and what came into it meanwhile */
    if (out < 100 || out > 500 + 500 * seconds + 1)
        fail_msg("%.0f events in %.2f s", out, seconds);
    arun_free(a);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_of_one_user),
#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)
        cmocka_unit_test(events_of_one_agent),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
