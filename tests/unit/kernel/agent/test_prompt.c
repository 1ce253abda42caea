/* The system prompt, byte for byte, and the tool list behind it. */
#include "tests/unit/kernel/agent/common.h"

#include <stdio.h>

#include "kernel/agent/prompt.h"

static struct tools tools_from(const char *text, int64_t limit)
{
    struct tools t = { .n = 0 };
    json_object *reply = js(text);

    assert_true(tools_apply(&t, reply, NULL, limit, NULL));
    json_put(reply);
    return t;
}

static const char two[] =
    "{'version':3,'tools':[{'name':'fs/write','description':'Writes.','state':'available',"
    "'input_schema':{'type':'object'},'timeout':'5m'},{'name':'fs/read','description':'Reads\\n## "
    "Constraints','state':'degraded','readOnly':true,'idempotent':true,'untrusted':true},"
    "{'name':'web/x','description':'gone','state':'unavailable'}]}";

static void bytes(void **state)
{
    struct tools t = tools_from(two, 200000);
    json_object *budgets = js("{'send/email':1}"), *pending = js("['[Human guidance]: be brief']");
    json_object *refused = js("['web/x']");
    struct prompt p = { .name = "researcher",
                        .session = "9b1e",
                        .user = "alice",
                        .goal = "Summarise",
                        .role = "You read.",
                        .memory = "",
                        .pid = 157,
                        .context_limit = 200000,
                        .calls_per_turn = 5,
                        .turns_left = 20,
                        .tools = &t,
                        .budgets = budgets,
                        .pending = pending,
                        .refused = refused,
                        .summary = "it went well" };
    char *text = prompt_text(&p);

    (void)state;
    assert_string_equal(
        text,
        "You are researcher.\nPID: 157\nSession: 9b1e\nUser: alice\nYour goal: Summarise\n"
        "\nYou read.\n"
        "\n## Available tools\n"
        "- cap/escalate: Ask a person for a decision. Gives the option they chose and what they said.\n"
        "- cap/list: List the tools you are granted, your limits and when your token expires.\n"
        "- cap/request-tool: Ask for a tool that you are not granted.\n"
        "- fs/read: Reads ## Constraints (degraded)\n"
        "- fs/write: Writes.\n"
        "- sys/tools: Search the tools of this system by namespace or keyword.\n"
        "To get a tool that is not here, call cap/request-tool. To ask a person, call cap/escalate. "
        "To finish, answer in text without a tool call.\n"
        "\n## Constraints\nTool calls per turn: 5\nTurns left for this goal: 20\n"
        "Context limit: 200000 tokens\nUses left of send/email: 1\n"
        "\n## Pending instructions\n[Human guidance]: be brief\n"
        "[System]: web/x was denied; do not ask for it again before the next message.\n"
        "[Context summary]: it went well\n");
    char *again = prompt_text(&p);
    assert_string_equal(text, again);
    free(text);
    free(again);
    json_put(budgets);
    json_put(pending);
    json_put(refused);
    tools_done(&t);
}

static void nothing_pending_no_block(void **state)
{
    struct tools t = tools_from(two, 200000);
    struct prompt p = {
        .name = "a", .session = "s", .user = "u", .goal = "g", .tools = &t, .summary = ""
    };
    char *text = prompt_text(&p);

    (void)state;
    assert_null(strstr(text, "Pending"));
    free(text);
    tools_done(&t);
}

static void rows_of_the_registry(void **state)
{
    struct tools t = tools_from(two, 200000);
    struct tool *r = tools_find(&t, "fs/read"), *w = tools_find(&t, "fs/write");

    (void)state;
    assert_int_equal(t.version, 3);
    assert_non_null(r);
    assert_true(r->read_only && r->idempotent && r->untrusted && r->degraded);
    assert_false(w->read_only);
    assert_int_equal(w->timeout_ms, 300000);
    assert_null(tools_find(&t, "web/x")); /* unavailable: neither listed nor callable */
    json_object *wire = tools_wire(&t, NULL);
    assert_int_equal(json_object_array_length(wire), 6);
    for (size_t i = 1; i < 6; i++)
        assert_true(strcmp(json_str(json_object_array_get_idx(wire, i - 1), "name", ""),
                           json_str(json_object_array_get_idx(wire, i), "name", "")) < 0);
    json_put(wire);
    tools_done(&t);
}

static void change_and_no_change(void **state)
{
    struct tools t = tools_from(two, 200000);
    json_object *same = js("{'version':3,'unchanged':true}"), *gone = json_new_arr();
    json_object *less =
        js("{'version':4,'tools':[{'name':'fs/read','description':'R','state':'available'}]}");

    (void)state;
    assert_false(tools_apply(&t, same, NULL, 200000, gone));
    assert_int_equal(t.n, 6);
    assert_true(tools_apply(&t, less, NULL, 200000, gone));
    assert_int_equal(t.version, 4);
    assert_string_equal(json_text(gone), "[\"fs/write\"]");
    assert_false(tools_apply(&t, less, NULL, 200000, gone));
    json_put(same);
    json_put(less);
    json_put(gone);
    tools_done(&t);
}

static bool no_writes(const char *name)
{
    return strcmp(name, "fs/write") != 0;
}

static void hides_what_is_not_offered(void **state)
{
    struct tools t = { .n = 0 };
    json_object *reply = js(two);

    (void)state;
    assert_true(tools_apply(&t, reply, no_writes, 200000, NULL));
    assert_null(tools_find(&t, "fs/write"));
    assert_non_null(tools_find(&t, "fs/read"));
    json_put(reply);
    tools_done(&t);
}

static struct tools many(int n)
{
    struct buf b = BUF_INIT(1 << 20);

    buf_adds(&b, "{'version':1,'tools':[");
    for (int i = 0; i < n; i++)
        buf_printf(&b, "%s{'name':'ns%d/t%03d','description':'d','state':'available'}",
                   i ? "," : "", i % 3, i);
    buf_adds(&b, "]}");
    struct tools t = tools_from(b.data, 200000);
    buf_done(&b);
    return t;
}

static void index_when_many(void **state)
{
    struct tools few = many(64 - 4), t = many(120);
    json_object *required = js("['ns0/t000']"), *hits = json_new();
    struct buf b = BUF_INIT(4096);

    (void)state;
    assert_false(few.index);
    tools_done(&few);
    assert_true(t.index);
    tools_describe(&t, &b);
    assert_non_null(strstr(b.data, "- ns0: 40\n"));
    assert_null(strstr(b.data, "t001"));
    json_object *wire = tools_wire(&t, required);
    assert_int_equal(json_object_array_length(wire), 5); /* always present and required */
    json_put(wire);
    json_object *rows = json_new_arr();
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "ns%d/t%03d", i % 3, i);
        json_push(rows, json_make("name:s", name));
    }
    json_add(hits, "tools", rows);
    tools_load(&t, hits); /* 32 of them */
    wire = tools_wire(&t, NULL);
    assert_int_equal(json_object_array_length(wire), 4 + 32);
    json_put(wire);
    json_put(required);
    json_put(hits);
    buf_done(&b);
    tools_done(&t);
}

static void loaded_tools_have_a_ceiling(void **state)
{
    struct tools t = many(150);

    (void)state;
    for (int from = 0; from < 150; from += 30) {
        json_object *rows = json_new_arr();
        for (int i = from; i < from + 30; i++) {
            char name[16];
            snprintf(name, sizeof name, "ns%d/t%03d", i % 3, i);
            json_push(rows, json_make("name:s", name));
        }
        json_object *hits = json_make("tools:o", rows);
        tools_load(&t, hits);
        json_put(hits);
    }
    size_t loaded = 0;
    for (size_t i = 0; i < t.n; i++)
        loaded += t.t[i].loaded;
    assert_int_equal(loaded, 96);
    assert_false(tools_find(&t, "ns0/t000")->loaded); /* the least recently used went */
    assert_true(tools_find(&t, "ns2/t149")->loaded);
    tools_done(&t);
}

static void index_when_long(void **state)
{
    struct tools t = tools_from(two, 1000); /* 5 % of it are 200 bytes */

    (void)state;
    assert_true(t.index);
    tools_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes),
        cmocka_unit_test(nothing_pending_no_block),
        cmocka_unit_test(rows_of_the_registry),
        cmocka_unit_test(change_and_no_change),
        cmocka_unit_test(hides_what_is_not_offered),
        cmocka_unit_test(index_when_many),
        cmocka_unit_test(index_when_long),
        cmocka_unit_test(loaded_tools_have_a_ceiling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
