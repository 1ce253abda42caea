/*
 * Limits of the gateway that a user could hurt others with (atp page, section 13): 64 ATP sessions
 * of a user. A login beyond that ends the least recently used one that has no connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sessions_of_one_user) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
