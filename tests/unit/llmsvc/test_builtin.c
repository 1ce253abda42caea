/* The builtin rules as a pure function: request in, calls or answer out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/err.h"
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
    assert_non_null(strstr(content, "Revenue grew by 14 percent"));
    assert_non_null(strstr(content, "report.md:3"));
    assert_null(strstr(content, "Answered by"));
    assert_null(strstr(content, "sunny"));
    talk_result(
        &t, "{\"ok\":true,\"path\":\"/users/admin/workspace/summary.md\",\"bytes_written\":321}",
        false);
    is_final(&t, "Saved /users/admin/workspace/summary.md (321 bytes).");
    talk_end(&t);
}

/* A goal that needs no tool, or whose first turn is looked at alone. */
static void says(const char *goal, const char *tools, const char *part)
{
    struct talk t;

    talk_start(&t, goal, tools);
    talk_turn(&t);
    is_final(&t, part);
    talk_end(&t);
}

/* The first call of a goal: tool, and a member of its input. */
static void calls(const char *goal, const char *tool, const char *key, const char *value)
{
    struct talk t;

    talk_start(&t, goal, ALL_TOOLS);
    talk_turn(&t);
    if (!n_calls(&t))
        fail_msg("%s: no call but: %s", goal, t.a.text);
    if (!str_eq(json_str(call(&t, 0, tool), key, ""), value))
        fail_msg("%s: %s", goal, json_text(t.a.calls));
    talk_end(&t);
}

/* Goal, result of its one call, text in the answer. */
static void answers(const char *goal, const char *result, const char *part)
{
    struct talk t;

    talk_start(&t, goal, ALL_TOOLS);
    talk_turn(&t);
    if (n_calls(&t) != 1)
        fail_msg("%s: %s", goal, json_text(t.a.calls));
    talk_result(&t, result, str_starts(result, "{\"error\""));
    is_final(&t, part);
    talk_end(&t);
}

#define WS "/users/alice/workspace"

static void every_row_calls_its_tool(void **state)
{
    (void)state;
    calls("Read ./notes.md", "fs/read", "path", WS "/notes.md");
    calls("show notes.md please", "fs/read", "path", WS "/notes.md");
    calls("print \"/users/alice/workspace/my notes.md\"", "fs/read", "path", WS "/my notes.md");
    calls("Write \"hello world\" to greeting.txt", "fs/write", "content", "hello world");
    calls("Create hello.txt with the text good morning", "fs/write", "content", "good morning");
    calls("append 'one more line' to log.txt", "fs/write", "mode", "append");
    calls("List /users/alice/workspace/docs/", "fs/list", "path", WS "/docs");
    calls("What is in my workspace?", "fs/list", "path", WS);
    calls("Find *.csv", "fs/glob", "pattern", "**/*.csv");
    calls("locate \"budget\" in /users/alice/workspace", "fs/glob", "pattern", "**/budget");
    calls("Search for revenue in ./reports", "fs/search", "query", "revenue");
    calls("grep \"two words\"", "fs/search", "query", "two words");
    calls("How many lines has report.md?", "fs/read", "path", WS "/report.md");
    calls("count the files in /users/alice/workspace/docs", "fs/list", "path", WS "/docs");
    calls("Remember that the meeting is on Monday", "memory/store-fact", "fact",
          "the meeting is on Monday");
    calls("What do you know about the meeting?", "memory/retrieve", "query", "the meeting?");
    calls("ask agent researcher to read the notes", "agent/spawn", "goal", "read the notes");
    calls("delegate to writer: tidy up", "agent/spawn", "agent", "writer");
    calls("use web/fetch with {\"url\":\"https://example.com\"}", "web/fetch", "url",
          "https://example.com");
    calls("calculate 2+2*3", "exec/python", "code", "import math, statistics\nprint(2 + 2 * 3)");
    calls("Run this:\n```python\nprint(1)\n```", "exec/python", "code", "print(1)\n");
    calls("execute\n```sh\nls\n```\n", "exec/shell", "code", "ls\n");
    calls("Summarise /users/alice/workspace/docs", "fs/glob", "path", WS "/docs");
    calls("Research solar panels", "fs/search", "query", "panels");
    calls("What are the key points of report.md?", "fs/read", "path", WS "/report.md");
    calls("Read report.md and tell me the main points", "fs/read", "path", WS "/report.md");
    calls("Write a summary of report.md to out.md", "fs/read", "path", WS "/report.md");
}

static void every_row_answers(void **state)
{
    (void)state;
    answers("Read a.md", "line one\nline two", "line two");
    answers("Read a.md", "{\"error\":{\"code\":\"ENOENT\",\"message\":\"no such file\"}}",
            "ENOENT: no such file");
    answers("list docs/",
            "{\"entries\":[\"a\"],\"items\":[{\"name\":\"a\",\"kind\":\"file\",\"size\":3}]}",
            "| a | file | 3 |");
    answers("find *.csv", "{\"paths\":[\"/x/a.csv\",\"/x/b.csv\"],\"truncated\":false}",
            "- /x/b.csv");
    answers("search for cat",
            "{\"matches\":[{\"path\":\"/x/a.md\",\"line\":7,\"text\":\"the cat\"}]}",
            "- line 7: the cat");
    answers("search for cat", "{\"matches\":[]}", "No hits");
    answers("how many words in a.md", "one two\nthree", "2 lines, 3 words, 13 characters");
    answers("count \"o\" in a.md", "one two", "occurs 2 times");
    answers(
        "count the files in docs/",
        "{\"entries\":[\"a\",\"b\"],\"items\":[{\"name\":\"a\",\"kind\":\"file\"},{\"name\":\"b\",\"kind\":\"dir\"}]}",
        "1 files and 1 folders");
    answers("calculate 2+2", "{\"stdout\":\"4\\n\",\"exit_code\":0}", "2+2 = 4");
    answers("calculate 2+2", "{\"error\":{\"code\":\"ESANDBOX\",\"message\":\"x\"}}", "2+2 = 4");
    answers("run\n```python\nprint(5)\n```",
            "{\"stdout\":\"5\\n\",\"stderr\":\"\",\"exit_code\":0}", "Exit code: 0");
    answers("remember \"x is y\"", "{\"ok\":true}", "Remembered: x is y");
    answers("recall what we said", "{\"facts\":[\"x\"]}", "facts");
    answers("use web/fetch with {\"url\":\"u\"}", "{\"status\":200}", "{\"status\":200}");
    answers("write \"x\" to a.txt", "{\"error\":{\"code\":\"EPERM\",\"message\":\"not yours\"}}",
            "EPERM: not yours");
    answers("research whales", "{\"matches\":[]}",
            "No source was found: I searched for \"whales\"");
    answers("summarise data.csv", "name,n\na,1\nb,3\n", "numbers from 1 to 3, mean 2");
    answers("summarise data.json", "[{\"k\":1},{\"k\":2}]", "A list of 2 entries");
    answers("summarise app.log", "INFO ok\nERROR bad thing\nINFO ok\n", "error 1 info 2");
    answers("summarise empty.md", "", "holds no text to summarise");
}

static void without_tools(void **state)
{
    (void)state;
    says("hello", ALL_TOOLS, "not a language model");
    says("What can you do?", "fs/read fs/write web/fetch",
         "- fs: fs/read, fs/write\n- web: web/fetch");
    says("calculate (3 + 4) * 2", "", "(3 + 4) * 2 = 14");
    says("what is 15% of 80", "", "= 12");
    says("what is 17 % 5", "", "= 2");
    says("what is the square root of 144", "", "= 12");
    says("compute mean of 2, 4 and 9", "", "= 5");
    says("compute 2^10", "", "= 1024");
    says("compute 1,000,000 divided by 8", "", "= 125000");
    says("read a.md", "", "needs the tool fs/read, which is not granted");
    says("write \"x\" to a.txt", "fs/read", "cap/request-tool");
    says("Write a haiku to a.txt", "fs/write", "I do not know what to write");
    says("Translate this into French", ALL_TOOLS, "I did not understand");
    says("Translate this into French", ALL_TOOLS, "configure a model");
    says("what \001[ is\002 \003 this", ALL_TOOLS, "I did not understand"); /* found by fuzzing */
    says("search for", ALL_TOOLS, "put the term in quotes");
    says("use web/fetch with {bad json}", ALL_TOOLS, "not a JSON object");
}

static void folder_where_a_file_was_expected(void **state)
{
    struct talk t;

    (void)state;
    talk_start(&t, "read docs.md", ALL_TOOLS);
    talk_turn(&t);
    talk_result(&t, "{\"error\":{\"code\":\"EISDIR\",\"message\":\"is a directory\"}}", false);
    call(&t, 0, "fs/list");
    talk_result(&t, "{\"entries\":[\"a\"]}", false);
    is_final(&t, "- a");
    talk_end(&t);
}

static void a_topic_reads_several_files(void **state)
{
    struct talk t;

    (void)state;
    talk_start(&t, "research \"subscription plan\" then save it to plan.md", ALL_TOOLS);
    talk_turn(&t);
    call(&t, 0, "fs/search");
    talk_result(
        &t,
        "{\"matches\":[{\"path\":\"/x/a.md\",\"line\":1,\"text\":\"\"},{\"path\":\"/x/b.md\",\"line\":1,\"text\":\"\"},{\"path\":\"/x/a.md\",\"line\":2,\"text\":\"\"}]}",
        false);
    assert_int_equal(n_calls(&t), 2); /* both at once */
    assert_string_equal(json_str(call(&t, 1, "fs/read"), "path", ""), "/x/b.md");
    talk_result(&t, report, false);
    assert_non_null(strstr(json_str(call(&t, 0, "fs/write"), "content", ""), "/x/a.md:"));
    talk_result(&t, "{\"bytes_written\":10}", false);
    is_final(&t, "Saved");
    talk_end(&t);
}

static void delegation_waits(void **state)
{
    struct talk t;

    (void)state;
    talk_start(&t, "spawn researcher to summarise a.md", ALL_TOOLS);
    talk_turn(&t);
    call(&t, 0, "agent/spawn");
    talk_result(&t, "{\"pid\":120,\"status\":\"running\"}", false);
    assert_int_equal(json_int(call(&t, 0, "agent/wait"), "pid", 0), 120);
    talk_result(&t, "{\"pid\":120,\"status\":\"completed\",\"result\":\"all fine\"}", false);
    is_final(&t, "all fine");
    talk_end(&t);
}

static void sixteen_calls_at_most(void **state)
{
    struct buf goal = BUF_INIT(65536);
    struct talk t;
    int turns = 0;

    (void)state;
    for (int i = 0; i < 8; i++)
        buf_printf(&goal, "read f%d.md, read g%d.md, summarise h%d.md;", i, i, i);
    talk_start(&t, goal.data, ALL_TOOLS);
    for (talk_turn(&t); n_calls(&t) && turns < 40; turns++)
        talk_result(&t, "some text here. And a second sentence.", false);
    assert_true(turns <= 16);
    assert_int_equal(n_calls(&t), 0);
    buf_done(&goal);
    talk_end(&t);
}

static void formats_and_limits(void **state)
{
    cleanup(json_putp) json_object *one = NULL, *two = NULL;
    const char *a =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"what is 1+1\"}],\"response_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"answer\":{\"type\":\"string\"}}}}}";
    const char *b =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"what is 1+1\"}],\"response_format\":{\"type\":\"json\"}}";
    struct bi_answer out = { 0 };
    struct lreq r;
    struct args bad;
    const char *why = NULL;

    (void)state;
    assert_int_equal(json_parse(a, strlen(a), &one), 0);
    assert_int_equal(json_parse(b, strlen(b), &two), 0);
    assert_int_equal(lreq_parse(one, &r, &bad), 0);
    assert_int_equal(builtin_run(&r, 4096, false, &out, &why), 0);
    assert_string_equal(out.text, "{\"answer\":\"1+1 = 2\"}");
    bi_answer_done(&out);
    assert_int_equal(builtin_run(&r, 2, false, &out, &why), 0);
    assert_true(out.cut);
    assert_int_equal(strlen(out.text), 8);
    bi_answer_done(&out);
    lreq_done(&r);
    assert_int_equal(lreq_parse(two, &r, &bad), 0);
    assert_int_equal(builtin_run(&r, 4096, false, &out, &why), ERR_BADREQ);
    lreq_done(&r);
}

static void summaries(void **state)
{
    struct source s = { "/r.md", report, strlen(report) };
    struct buf a = BUF_INIT(65536), b = BUF_INIT(65536);
    int n = 0;

    (void)state;
    assert_true(bi_summary(&s, 1, "", 5, &a));
    for (const char *p = a.data; (p = strstr(p, "\n")); p++)
        n++;
    assert_int_equal(n, 5);
    assert_null(strstr(a.data, "# "));
    assert_null(strstr(a.data, "e.g.\n")); /* an abbreviation ends no sentence */
    assert_true(bi_summary(&s, 1, "hosting costs", 2, &b));
    assert_non_null(strstr(b.data, "osting"));
    buf_done(&a);
    buf_done(&b);
}

static void embeddings(void **state)
{
    cleanup(json_putp) json_object *a = builtin_embed("the quick brown fox"),
                                   *b = builtin_embed("a quick brown fox"),
                                   *c = builtin_embed("quarterly revenue report"),
                                   *z = builtin_embed("");
    double ab = 0, ac = 0, aa = 0;

    (void)state;
    assert_int_equal(json_object_array_length(a), EMBED_DIM);
    assert_int_equal(json_object_array_length(z), EMBED_DIM);
    for (size_t i = 0; i < EMBED_DIM; i++) {
        double x = json_object_get_double(json_object_array_get_idx(a, i));

        aa += x * x;
        ab += x * json_object_get_double(json_object_array_get_idx(b, i));
        ac += x * json_object_get_double(json_object_array_get_idx(c, i));
    }
    assert_true(aa > 0.999 && aa < 1.001);
    assert_true(ab > 0.6 && ab > ac + 0.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summarise_and_save),
        cmocka_unit_test(every_row_calls_its_tool),
        cmocka_unit_test(every_row_answers),
        cmocka_unit_test(without_tools),
        cmocka_unit_test(folder_where_a_file_was_expected),
        cmocka_unit_test(a_topic_reads_several_files),
        cmocka_unit_test(delegation_waits),
        cmocka_unit_test(sixteen_calls_at_most),
        cmocka_unit_test(formats_and_limits),
        cmocka_unit_test(summaries),
        cmocka_unit_test(embeddings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
