/* Requests to the internal shape: history repair, tool names, camelCase, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "llmsvc/shape.h"

/* in: messages; out: the repaired messages, NULL if they are refused. ' stands for ". */
static char *quotes(const char *s)
{
    char *out = xstrdup(s);

    for (char *p = out; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    return out;
}

static void repairs(const char *in, const char *out)
{
    cleanup(freep) char *a = quotes(in), *b = out ? quotes(out) : NULL;
    cleanup(json_putp) json_object *messages = NULL, *want = NULL, *got = NULL,
                                   *sys = json_new_arr();
    const char *why = NULL;

    assert_int_equal(json_parse(a, strlen(a), &messages), 0);
    int r = history_repair(messages, sys, &got, &why);
    if (!out) {
        assert_int_equal(r, ERR_INVAL);
        assert_non_null(why);
        return;
    }
    if (r)
        fail_msg("%s: %s", in, why);
    assert_int_equal(json_parse(b, strlen(b), &want), 0);
    if (!json_object_equal(want, got))
        fail_msg("%s\n became %s\n not     %s", in, json_text(got), b);
}

#define T(s)     "{'type':'text','text':'" s "'}"
#define U(b)     "{'role':'user','content':[" b "]}"
#define A(b)     "{'role':'assistant','content':[" b "]}"
#define CALL(id) "{'type':'tool_use','id':'" id "','name':'fs/read','input':{'p':1}}"
#define RES(id)  "{'type':'tool_result','tool_use_id':'" id "','content':'r" id "'}"
#define NONE(id) \
    "{'type':'tool_result','tool_use_id':'" id "','content':'no result','is_error':true}"

static void histories(void **state)
{
    (void)state;
    repairs("[{'role':'user','content':'hi'}]", "[" U(T("hi")) "]");
    repairs("[{'role':'user','content':'a'},{'role':'user','content':[" T("b") "," T("") "]}]",
            "[" U(T("a") "," T("b")) "]");
    /* results of one turn come first in the next, in the order of the calls */
    repairs("[" U(T("go")) "," A(CALL("a") "," CALL("b")) "," U(T("so?") "," RES("b")) "," U(
                RES("a")) "]",
            "[" U(T("go")) "," A(CALL("a") "," CALL("b")) "," U(
                RES("a") "," RES("b") "," T("so?")) "]");
    /* a call without a result, a result without a call */
    repairs("[" U(T("go")) "," A(CALL("a")) "," U(T("so?")) "]",
            "[" U(T("go")) "," A(CALL("a")) "," U(NONE("a") "," T("so?")) "]");
    repairs("[" U(T("go") "," RES("zz")) "]", "[" U(T("go")) "]");
    repairs("[" U(T("go")) "," A(CALL("a")) "]",
            "[" U(T("go")) "," A(CALL("a")) "," U(NONE("a")) "]");
    /* a result that comes one turn late is put where it belongs */
    repairs(
        "[" U(T("go")) "," A(CALL("a")) "," U(T("x")) "," A(T("y")) "," U(RES("a") "," T("z")) "]",
        "[" U(T("go")) "," A(CALL("a")) "," U(RES("a") "," T("x")) "," A(T("y")) "," U(T("z")) "]");
    /* ids are cleaned and made different */
    repairs(
        "[" U(T("go")) "," A(CALL("a b/c")) "," U(RES("a b/c")) "]",
        "[" U(T(
            "go")) ",{'role':'assistant','content':[{'type':'tool_use','id':'a_b_c','name':'fs/read','input':{'p':1}}]},"
                   "{'role':'user','content':[{'type':'tool_result','tool_use_id':'a_b_c','content':'ra b/c'}]}]");
    repairs(
        "[" U(T("go")) "," A(CALL("x")) "," U(RES("x")) "," A(CALL("x")) "," U(RES("x")) "]",
        "[" U(T("go")) "," A(CALL("x")) "," U(RES(
            "x")) ",{'role':'assistant','content':[{'type':'tool_use','id':'x_2','name':'fs/read','input':{'p':1}}]},"
                  "{'role':'user','content':[{'type':'tool_result','tool_use_id':'x_2','content':'rx'}]}]");
    repairs("[" A(T("hello")) "," U(T("hi")) "]",
            "[" U(T("(continued)")) "," A(T("hello")) "," U(T("hi")) "]");
    repairs("[" U(T("hi")) "," A(T("")) "," U(T("again")) "]", "[" U(T("hi") "," T("again")) "]");
}

static void other_spellings(void **state)
{
    (void)state;
    repairs(
        "[{'role':'user','content':'go'},{'role':'assistant','content':null,'tool_calls':[{'id':'c1','type':'function','function':{'name':'fs/read','arguments':'{\\'p\\':1}'}}]},"
        "{'role':'tool','tool_call_id':'c1','content':'rc1'}]",
        "[" U(T("go")) "," A(CALL("c1")) "," U(RES("c1")) "]");
    repairs(
        "[{'role':'user','content':'go'},{'role':'assistant','content':[" CALL(
            "c1") "]},{'role':'user','content':[{'type':'tool_result','toolUseId':'c1','content':'rc1','isError':false}]}]",
        "[" U(T("go")) "," A(CALL("c1")) "," U(RES("c1")) "]");
    repairs(
        "[{'role':'user','content':[{'type':'image_url','image_url':{'url':'data:image/png;base64,QUJD'}}]}]",
        "[{'role':'user','content':[{'type':'image','source':{'type':'base64','media_type':'image/png','data':'QUJD'}}]}]");
}

static void refused_histories(void **state)
{
    (void)state;
    repairs("[]", NULL);
    repairs("[" U(T("a")) "," A(T("b")) "]", NULL);
    repairs("[{'role':'user','content':''}]", NULL);
    repairs("[{'role':'judge','content':'x'}]", NULL);
    repairs("[{'role':'user','content':[{'type':'hologram'}]}]", NULL);
    repairs("[{'role':'user','content':7}]", NULL);
    repairs("[7]", NULL);
}

static void system_messages_join(void **state)
{
    cleanup(json_putp) json_object *p = NULL;
    cleanup(freep) char *in = quotes(
        "{'system':'one','messages':[{'role':'system','content':'two'},{'role':'user','content':'x'}]}");
    struct lreq r;
    struct args bad;

    (void)state;
    assert_int_equal(json_parse(in, strlen(in), &p), 0);
    assert_int_equal(lreq_parse(p, &r, &bad), 0);
    assert_int_equal(json_object_array_length(r.sys), 2);
    assert_int_equal(json_object_array_length(r.messages), 1);
    lreq_done(&r);
}

static void parses(const char *text, struct lreq *r)
{
    cleanup(freep) char *in = quotes(text);
    cleanup(json_putp) json_object *p = NULL;
    struct args bad;

    assert_int_equal(json_parse(in, strlen(in), &p), 0);
    assert_int_equal(lreq_parse(p, r, &bad), 0);
}

static void camel_case(void **state)
{
    struct lreq r;

    (void)state;
    parses(
        "{'messages':[{'role':'user','content':'x'}],'maxTokens':7,'topP':0.5,'toolChoice':'required','stopSequences':['a'],"
        "'turnId':'t','timeoutMs':5,'allowFallback':true,'acceptChunks':['thinking'],'responseFormat':{'type':'json'}}",
        &r);
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.has_top_p && r.top_p > 0.49);
    assert_int_equal(r.choice, CHOICE_REQUIRED);
    assert_int_equal(json_object_array_length(r.stop_sequences), 1);
    assert_string_equal(r.turn_id, "t");
    assert_int_equal(r.timeout_ms, 5);
    assert_true(r.allow_fallback && r.want_thinking && r.response_format);
    lreq_done(&r);
}

static void refuses(const char *text, const char *field)
{
    cleanup(freep) char *in = quotes(text);
    cleanup(json_putp) json_object *p = NULL;
    struct lreq r;
    struct args bad;

    assert_int_equal(json_parse(in, strlen(in), &p), 0);
    assert_int_equal(lreq_parse(p, &r, &bad), ERR_INVAL);
    assert_string_equal(bad.field, field);
}

#define MSG "'messages':[{'role':'user','content':'x'}]"

static void wrong_fields(void **state)
{
    (void)state;
    refuses("{}", "messages");
    refuses("{'messages':'x'}", "messages");
    refuses("{" MSG ",'max_tokens':0}", "max_tokens");
    refuses("{" MSG ",'temperature':9}", "temperature");
    refuses("{" MSG ",'tool_choice':'maybe'}", "tool_choice");
    refuses("{" MSG ",'tool_choice':{'name':'fs/read'}}", "tool_choice");
    refuses("{" MSG ",'tools':[{'name':''}]}", "tools");
    refuses("{" MSG ",'tools':[{'name':'a/b'},{'name':'a/b'}]}", "tools");
    refuses("{" MSG ",'thinking':{'effort':'lots'}}", "thinking");
    refuses("{" MSG ",'response_format':{'type':'xml'}}", "response_format");
    refuses("{" MSG ",'response_format':{'type':'json_schema'}}", "response_format");
    refuses("{" MSG ",'system':7}", "system");
}

static void wire_names(void **state)
{
    static const char *const odd[] = {
        "mcp/server/a.tool.with.dots",
        "mcp/github/a-very-long-tool-name-that-goes-on-and-on-and-passes-sixty-four-characters",
        "fs/read",
        "exec/run",
        "sp ace",
        "x",
    };
    struct names n;
    char back[256];

    (void)state;
    names_init(&n);
    assert_string_equal(names_wire(&n, "mcp/github/list-prs"), "mcp__github__list-prs");
    for (size_t i = 0; i < N_ELEMS(odd); i++) {
        const char *w = names_wire(&n, odd[i]);

        assert_true(strlen(w) >= 1 && strlen(w) <= 64);
        for (const char *p = w; *p; p++)
            assert_true((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                        (*p >= '0' && *p <= '9') || *p == '_' || *p == '-');
        assert_string_equal(names_avix(&n, w, back), odd[i]);
        assert_ptr_equal(names_wire(&n, odd[i]), w);
    }
    /* two names that would meet on the wire stay two */
    const char *a = names_wire(&n, "a__b"), *b = names_wire(&n, "a/b");
    assert_string_not_equal(a, b);
    assert_string_equal(names_avix(&n, b, back), "a/b");
    /* not in the table: unmangled by the grammar, else as it is */
    assert_string_equal(names_avix(&n, "fs__write", back), "fs/write");
    assert_string_equal(names_avix(&n, "unknown", back), "unknown");
    names_done(&n);
}

static void short_schemas(void **state)
{
    cleanup(freep) char *in = quotes(
        "{'path':{'type':'string','required':true,'desc':'where'},'n':{'type':'int'},'all':{'type':'bool'},'xs':{'type':'array','items':{'type':'float'}}}");
    cleanup(freep) char *out = quotes(
        "{'type':'object','properties':{'path':{'type':'string','description':'where'},'n':{'type':'integer'},'all':{'type':'boolean'},"
        "'xs':{'type':'array','items':{'type':'number'}}},'required':['path']}");
    cleanup(json_putp) json_object *a = NULL, *want = NULL;

    (void)state;
    assert_int_equal(json_parse(in, strlen(in), &a), 0);
    assert_int_equal(json_parse(out, strlen(out), &want), 0);
    cleanup(json_putp) json_object *got = schema_of(a);
    if (!json_object_equal(got, want))
        fail_msg("%s", json_text(got));
    cleanup(json_putp) json_object *again = schema_of(got);
    assert_true(json_object_equal(again, got));
    cleanup(json_putp) json_object *none = schema_of(NULL);
    assert_string_equal(json_str(none, "type", ""), "object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories),         cmocka_unit_test(other_spellings),
        cmocka_unit_test(refused_histories), cmocka_unit_test(camel_case),
        cmocka_unit_test(wrong_fields),      cmocka_unit_test(system_messages_join),
        cmocka_unit_test(wire_names),        cmocka_unit_test(short_schemas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
