/* The builtin rules as a pure function: request in, calls or answer out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llmsvc/bi.h"
#include "llmsvc/builtin.h"

#define ALL_TOOLS \
    "fs/read fs/write fs/list fs/glob fs/search exec/python exec/shell memory/store-fact memory/retrieve agent/spawn agent/wait web/fetch"

static const char report[] =
    "# Quarterly report\n\nRevenue grew by 14 percent to 3.2 million euros in the third quarter. The growth came mainly from the "
    "new subscription plan.\nCosts were flat, e.g. hosting stayed at 210,000 euros.\n\n## Risks\n\n- The largest customer has not "
    "renewed its contract yet.\n- Two engineers left in August.\n\nThe team expects to close the renewal in November. Lunch was good. "
    "A second subscription plan will start in January. The board asked for a plan to reduce hosting costs by 10 percent. "
    "Nobody objected. It was a sunny day.\n";

/* A conversation under test: messages grow as results come. */
struct talk {
    json_object *messages, *tools;
    struct bi_answer a;
};

static void talk_start(struct talk *t, const char *goal, const char *tools)
{
    char word[64];

    memset(t, 0, sizeof *t);
    t->messages = json_new_arr();
    t->tools = json_new_arr();
    json_push(t->messages, json_make("role:s content:s", "user", goal));
    for (const char *p = tools; *p;) {
        size_t n = strcspn(p, " ");

        snprintf(word, sizeof word, "%.*s", (int)n, p);
        json_push(t->tools, json_make("name:s description:s input:o", word, "", json_new()));
        p += n;
        p += strspn(p, " ");
    }
}

static void talk_turn(struct talk *t)
{
    cleanup(json_putp) json_object *params = json_make(
        "system:s messages:o tools:o", "You are a test.\nPID: 100\nUser: alice\nYour goal: nothing",
        json_object_get(t->messages), json_object_get(t->tools));
    struct lreq r;
    struct args bad;
    const char *why = "";

    bi_answer_done(&t->a);
    assert_int_equal(lreq_parse(params, &r, &bad), 0);
    assert_int_equal(builtin_run(&r, 4096, false, &t->a, &why), 0);
    lreq_done(&r);
}

static size_t n_calls(const struct talk *t)
{
    return json_object_array_length(t->a.calls);
}

static json_object *call(const struct talk *t, size_t i, const char *tool)
{
    assert_true(i < n_calls(t));
    json_object *c = json_object_array_get_idx(t->a.calls, i);
    assert_string_equal(json_str(c, "name", ""), tool);
    return json_obj(c, "input");
}

/* Answers every call of this turn with the same text and runs the next turn. */
static void talk_result(struct talk *t, const char *result, bool error)
{
    json_object *blocks = json_new_arr(), *results = json_new_arr();

    for (size_t i = 0; i < n_calls(t); i++) {
        json_object *c = json_object_array_get_idx(t->a.calls, i), *b = json_dup(c);
        json_object *r = json_make("type:s tool_use_id:s content:s", "tool_result",
                                   json_str(c, "id", ""), result);

        json_add_str(b, "type", "tool_use");
        json_push(blocks, b);
        if (error)
            json_add_bool(r, "is_error", true);
        json_push(results, r);
    }
    json_push(t->messages, json_make("role:s content:o", "assistant", blocks));
    json_push(t->messages, json_make("role:s content:o", "user", results));
    talk_turn(t);
}

static void talk_end(struct talk *t)
{
    bi_answer_done(&t->a);
    json_put(t->messages);
    json_put(t->tools);
}

static void is_final(const struct talk *t, const char *part)
{
    assert_int_equal(n_calls(t), 0);
    if (!strstr(t->a.text, part))
        fail_msg("\"%s\" is not in: %s", part, t->a.text);
    assert_true(str_ends(t->a.text,
                         "\n(Answered by Avix built-in rules; no language model is configured.)"));
}

static void summarise_and_save(void **state)
{
    struct talk t;

    (void)state;
    talk_start(
        &t,
        "Summarise /users/admin/workspace/report.md and save the key points to /users/admin/workspace/summary.md",
        ALL_TOOLS);
    talk_turn(&t);
    assert_int_equal(n_calls(&t), 1);
    assert_string_equal(json_str(call(&t, 0, "fs/read"), "path", ""),
                        "/users/admin/workspace/report.md");
    cleanup(freep) char *id = xstrdup(json_str(json_object_array_get_idx(t.a.calls, 0), "id", ""));
    assert_true(str_starts(id, "bi_"));
    assert_int_equal(strlen(id), 15);
    talk_turn(&t); /* the same request gives the same bytes */
    assert_string_equal(json_str(json_object_array_get_idx(t.a.calls, 0), "id", ""), id);
    talk_result(&t, report, false);
    json_object *in = call(&t, 0, "fs/write");
    assert_string_equal(json_str(in, "path", ""), "/users/admin/workspace/summary.md");
    const char *content = json_str(in, "content", "");
    printf("%s\n", content);
    assert_non_null(strstr(content, "Revenue grew by 14 percent"));
    assert_non_null(strstr(content, "report.md:3"));
    assert_null(strstr(content, "Answered by"));
    assert_null(strstr(content, "sunny"));
    talk_result(
        &t, "{\"ok\":true,\"path\":\"/users/admin/workspace/summary.md\",\"bytes_written\":321}",
        false);
    is_final(&t, "Saved /users/admin/workspace/summary.md (321 bytes).");
    printf("%s\n", t.a.text);
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summarise_and_save),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
