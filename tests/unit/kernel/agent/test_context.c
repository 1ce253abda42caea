/* From lines to messages: roles, results, size, summaries, replay, and calls without results. */
#include "tests/unit/kernel/agent/common.h"

#include "kernel/agent/context.h"
#include "kernel/agent/summary.h"

static void add(struct context *c, const char *text)
{
    json_object *o = js(text);

    context_add(c, o);
    json_put(o);
}

static void expect_messages(const struct context *c, const char *text)
{
    json_object *want = js(text), *got = context_messages(c);

    assert_string_equal(json_text(got), json_text(want));
    json_put(want);
    json_put(got);
}

static const char *const one_goal[] = {
    "{'seq':1,'role':'user','content':'Summarise notes.md'}",
    "{'seq':2,'role':'assistant','turn':1,'content':'I will read it.','toolCalls':[{'id':'c1','name':'fs/read','args':{'path':'/n'}},{'id':'c2','name':'fs/stat','args':{}}],'usage':{'in':812,'out':41}}",
    "{'seq':3,'role':'tool','turn':1,'toolCallId':'c1','content':'# Notes','result':{'content':'# Notes','encoding':'utf-8'}}",
    "{'seq':4,'role':'tool','turn':1,'toolCallId':'c2','content':'{}','error':{'code':'EPERM','message':'no'}}",
    "{'seq':5,'role':'assistant','turn':2,'content':'The notes say so.','usage':{'in':1403,'out':96}}",
};

static const char one_goal_messages[] =
    "[{'role':'user','content':'Summarise notes.md'},"
    "{'role':'assistant','content':[{'type':'text','text':'I will read it.'},"
    "{'type':'tool_use','id':'c1','name':'fs/read','input':{'path':'/n'}},"
    "{'type':'tool_use','id':'c2','name':'fs/stat','input':{}}]},"
    "{'role':'user','content':[{'type':'tool_result','tool_use_id':'c1','content':'# Notes'},"
    "{'type':'tool_result','tool_use_id':'c2','content':'{}','is_error':true}]},"
    "{'role':'assistant','content':[{'type':'text','text':'The notes say so.'}]}]";

static void builds_messages(void **state)
{
    struct context c;

    (void)state;
    context_init(&c, 1000);
    for (size_t i = 0; i < N_ELEMS(one_goal); i++)
        add(&c, one_goal[i]);
    add(&c, "{'seq':6,'role':'system','content':'[Agent stopped: x]'}");
    add(&c, "{'seq':7,'role':'hil_request','content':'{}'}");
    expect_messages(&c, one_goal_messages);
    context_done(&c);
}

static char *file_of(const char *const *lines, size_t n)
{
    struct buf b = BUF_INIT(1 << 20);

    for (size_t i = 0; i < n; i++) {
        json_object *o = js(lines[i]);
        buf_adds(&b, json_text(o));
        buf_addc(&b, '\n');
        json_put(o);
    }
    return buf_take(&b);
}

static void replays_a_file(void **state)
{
    struct context c;
    char *text = file_of(one_goal, N_ELEMS(one_goal));
    char *torn = xasprintf("%snot json\n{\"seq\":6,\"ro", text);

    (void)state;
    context_init(&c, 1000);
    assert_int_equal(context_replay(&c, torn, strlen(torn), true), 2);
    expect_messages(&c, one_goal_messages);
    /* the size goes on from what the provider counted */
    assert_int_equal(context_used(&c), 1403 + (17 + 3) / 4);
    context_done(&c);
    free(text);
    free(torn);
}

static void estimates_the_size(void **state)
{
    struct context c;

    (void)state;
    context_init(&c, 100);
    add(&c, "{'seq':1,'role':'user','content':'0123456789'}");
    assert_int_equal(context_used(&c), 3);
    context_counted(&c, 80);
    assert_int_equal(context_used(&c), 80);
    assert_false(context_full(&c));
    add(&c, "{'seq':2,'role':'user','content':'01234567890123456789'}");
    assert_int_equal(context_used(&c), 85);
    assert_true(context_full(&c)); /* 85 % */
    context_done(&c);
}

static void fill(struct context *c, int turns)
{
    add(c, "{'seq':1,'role':'user','content':'goal'}");
    for (int i = 0; i < turns; i++) {
        char *a = xasprintf("{'seq':%d,'role':'assistant','content':'t%d','toolCalls':[{'id':'a%d',"
                            "'name':'fs/read','args':{}},{'id':'b%d','name':'fs/read','args':{}}]}",
                            2 + 3 * i, i, i, i);
        char *t = xasprintf("{'seq':%d,'role':'tool','toolCallId':'a%d','content':'r%d'}",
                            3 + 3 * i, i, i);
        char *u = xasprintf("{'seq':%d,'role':'tool','toolCallId':'b%d','content':'r%d'}",
                            4 + 3 * i, i, i);
        add(c, a);
        add(c, t);
        add(c, u);
        free(a);
        free(t);
        free(u);
    }
}

static void summary_parts_no_call_from_its_results(void **state)
{
    (void)state;
    for (int turns = 0; turns < 9; turns++) {
        struct context c;
        size_t from = 0, to = 0;
        context_init(&c, 1000);
        fill(&c, turns);
        if (turns < 3) { /* nothing between the first entry and the last six */
            assert_false(context_summary_range(&c, &from, &to));
        } else {
            assert_true(context_summary_range(&c, &from, &to));
            assert_int_equal(from, 1);
            assert_int_equal(c.e[to].role, LINE_ASSISTANT);
            assert_true(c.n - to >= CONTEXT_KEEP);
        }
        context_done(&c);
    }
}

static void summary_takes_the_place(void **state)
{
    struct context c;

    (void)state;
    context_init(&c, 1000);
    fill(&c, 4);
    context_counted(&c, 900);
    add(&c, "{'seq':14,'role':'system','content':'[Context summary]: all was well','summaryOf':"
            "{'from':2,'to':7}}");
    assert_string_equal(c.summary, "all was well");
    assert_int_equal(c.n, 7);
    assert_int_equal(c.e[0].seq, 1);
    assert_int_equal(c.e[1].seq, 8);
    assert_true(context_used(&c) < 100);
    context_done(&c);
}

static void earlier_files_are_summarised_too(void **state)
{
    struct context c;
    char *text = file_of(one_goal, N_ELEMS(one_goal));

    (void)state;
    context_init(&c, 1000);
    assert_int_equal(context_replay(&c, text, strlen(text), false), 0);
    add(&c, "{'seq':1,'role':'user','content':'and now this'}");
    assert_int_equal(c.n, 6);
    assert_int_not_equal(c.e[4].file, c.e[5].file); /* both have a line 1 */
    add(&c,
        "{'seq':2,'role':'system','content':'[Context summary]: s','summaryOf':{'from':0,'to':0}}");
    assert_int_equal(c.n, 2);
    assert_string_equal(json_str(c.e[0].line, "content", ""), "Summarise notes.md");
    assert_string_equal(json_str(c.e[1].line, "content", ""), "and now this");
    context_done(&c);
    free(text);
}

static void results_are_cut_and_dropped(void **state)
{
    struct context c;
    char *big = xmalloc(200001);
    json_object *line;

    (void)state;
    memset(big, 'x', 200000);
    big[200000] = '\0';
    context_init(&c, 10000);
    add(&c, "{'seq':1,'role':'user','content':'goal'}");
    add(&c, "{'seq':2,'role':'assistant','toolCalls':[{'id':'c','name':'web/get','args':{}}]}");
    line = json_make("seq:i role:s toolCallId:s content:s", (int64_t)3, "tool", "c", big);
    context_add(&c, line);
    json_put(line);
    const char *text = json_str(c.e[2].line, "content", "");
    assert_true(strlen(text) <= CONTEXT_RESULT_MAX);
    assert_non_null(strstr(text, " bytes cut "));
    assert_true(context_full(&c));
    assert_true(context_drop_results(&c, false));
    text = json_str(c.e[2].line, "content", "");
    assert_non_null(strstr(text, "[removed: "));
    assert_non_null(strstr(text, " bytes of web/get]"));
    assert_false(context_full(&c));
    assert_false(context_drop_results(&c, true)); /* nothing is left to remove */
    context_done(&c);
    free(big);
}

static void cut_keeps_characters_whole(void **state)
{
    (void)state;
    for (size_t max = 64; max < 200; max++) {
        struct buf b = BUF_INIT(4096);
        for (int i = 0; i < 100; i++)
            buf_adds(&b, i % 2 ? "€" : "ä");
        char *cut = text_cut_middle(b.data, b.len, max);
        assert_true(strlen(cut) <= max);
        assert_true(utf8_valid(cut, strlen(cut)));
        free(cut);
        buf_done(&b);
    }
}

static void finds_open_calls(void **state)
{
    struct context c;

    (void)state;
    context_init(&c, 1000);
    add(&c, one_goal[0]);
    assert_int_equal(context_open_calls(&c), -1);
    add(&c, one_goal[1]);
    assert_int_equal(context_open_calls(&c), 1);
    add(&c, one_goal[2]);
    assert_int_equal(context_open_calls(&c), 1);
    assert_non_null(context_result_of(&c, 1, "c1"));
    assert_null(context_result_of(&c, 1, "c2"));
    add(&c, one_goal[3]);
    assert_int_equal(context_open_calls(&c), -1);
    add(&c, one_goal[4]);
    assert_int_equal(context_open_calls(&c), -1);
    context_done(&c);
}

static void transcript_names_all(void **state)
{
    struct context c;

    (void)state;
    context_init(&c, 1000);
    for (size_t i = 0; i < N_ELEMS(one_goal); i++)
        add(&c, one_goal[i]);
    char *text = summary_transcript(&c, 0, c.n);
    assert_string_equal(text, "User: Summarise notes.md\nYou: I will read it.\n"
                              "  called fs/read {\"path\":\"/n\"}\n  called fs/stat {}\n"
                              "Result: # Notes\nResult: {}\nYou: The notes say so.\n");
    free(text);
    context_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builds_messages),
        cmocka_unit_test(replays_a_file),
        cmocka_unit_test(estimates_the_size),
        cmocka_unit_test(summary_parts_no_call_from_its_results),
        cmocka_unit_test(summary_takes_the_place),
        cmocka_unit_test(earlier_files_are_summarised_too),
        cmocka_unit_test(results_are_cut_and_dropped),
        cmocka_unit_test(cut_keeps_characters_whole),
        cmocka_unit_test(finds_open_calls),
        cmocka_unit_test(transcript_names_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
