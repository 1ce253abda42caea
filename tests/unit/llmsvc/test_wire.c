/* Adapters: what goes out and what comes back, without a network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "llmsvc/sse.h"
#include "llmsvc/wire.h"

static char *quotes(const char *s)
{
    char *out = xstrdup(s);

    for (char *p = out; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    return out;
}

static json_object *parsed(const char *text)
{
    cleanup(freep) char *in = quotes(text);
    json_object *o = NULL;

    if (json_parse(in, strlen(in), &o))
        fail_msg("not JSON: %s", in);
    return o;
}

/* --- requests --- */

struct setup {
    struct prov_conf p;
    struct model_conf m;
    struct target t;
    struct lreq r;
};

static void setup(struct setup *s, enum kind k, const char *request)
{
    cleanup(json_putp) json_object *params = parsed(request);
    struct args bad;

    memset(s, 0, sizeof *s);
    s->p.kind = k;
    str_copy(s->p.name, sizeof s->p.name, "p");
    str_copy(s->p.base_url, sizeof s->p.base_url,
             k == KIND_ANTHROPIC ? "https://api.anthropic.com" : "http://127.0.0.1:1");
    str_copy(s->m.id, sizeof s->m.id, "m");
    s->t = (struct target){ .p = &s->p, .m = &s->m, .model = "m", .max_tokens = 100 };
    assert_int_equal(lreq_parse(params, &s->r, &bad), 0);
}

static json_object *built(struct setup *s, bool stream)
{
    cleanup(buf_done) struct buf b = BUF_INIT(1 << 20);
    const char *why = "";
    json_object *o = NULL;

    assert_int_equal(wire_of(s->p.kind)->build(&s->r, &s->t, stream, &b, &why), 0);
    assert_int_equal(json_parse(b.data, b.len, &o), 0);
    return o;
}

static void same(json_object *got, const char *want_text)
{
    cleanup(json_putp) json_object *want = parsed(want_text);

    if (!json_object_equal(got, want))
        fail_msg("got  %s\nwant %s", json_text(got), json_text(want));
}

#define TOOLS \
    "'tools':[{'name':'fs/read','description':'d','input':{'path':{'type':'string','required':true}}}]"
#define WIRE_SCHEMA "{'type':'object','properties':{'path':{'type':'string'}},'required':['path']}"

static void anthropic_request(void **state)
{
    struct setup s;

    (void)state;
    setup(
        &s, KIND_ANTHROPIC,
        "{'system':'be brief','temperature':0.5,'top_p':0.9,'stop_sequences':['END'],'tool_choice':'required'," TOOLS
        ",'messages':[{'role':'user','content':'go'},{'role':'assistant','content':[{'type':'thinking','thinking':'hm','signature':'sig'},"
        "{'type':'tool_use','id':'c1','name':'fs/read','input':{'path':'/a'}}]},"
        "{'role':'user','content':[{'type':'tool_result','tool_use_id':'c1','content':'x','is_error':true}]}]}");
    cleanup(json_putp) json_object *o = built(&s, true);
    same(
        o,
        "{'model':'m','max_tokens':100,'system':'be brief','messages':[{'role':'user','content':[{'type':'text','text':'go'}]},"
        "{'role':'assistant','content':[{'type':'thinking','thinking':'hm','signature':'sig'},{'type':'tool_use','id':'c1','name':'fs__read','input':{'path':'/a'}}]},"
        "{'role':'user','content':[{'type':'tool_result','tool_use_id':'c1','content':'x','is_error':true}]}],"
        "'tools':[{'name':'fs__read','description':'d','input_schema':" WIRE_SCHEMA
        "}],'tool_choice':{'type':'any'},"
        "'temperature':0.5,'stop_sequences':['END'],'stream':true}");
    lreq_done(&s.r);
}

static void anthropic_thinking_and_format(void **state)
{
    struct setup s;

    (void)state;
    setup(
        &s, KIND_ANTHROPIC,
        "{'messages':[{'role':'user','content':'go'}],'thinking':{'effort':'high'},'temperature':1}");
    s.m.thinking = THINK_ADAPTIVE;
    cleanup(json_putp) json_object *a = built(&s, false);
    same(
        a,
        "{'model':'m','max_tokens':100,'messages':[{'role':'user','content':[{'type':'text','text':'go'}]}],'thinking':{'type':'adaptive'},'output_config':{'effort':'high'}}");
    s.m.thinking = THINK_BUDGET;
    cleanup(json_putp) json_object *small = built(&s, false);
    assert_null(json_get(small, "thinking")); /* 100 tokens leave no room for 1024 of thought */
    s.t.max_tokens = 4000;
    cleanup(json_putp) json_object *b = built(&s, false);
    same(json_get(b, "thinking"), "{'type':'enabled','budget_tokens':2000}");
    s.t.drop = PARAM_THINKING;
    cleanup(json_putp) json_object *c = built(&s, false);
    assert_null(json_get(c, "thinking"));
    lreq_done(&s.r);

    setup(
        &s, KIND_ANTHROPIC,
        "{'messages':[{'role':'user','content':'go'}],'response_format':{'type':'json_schema','name':'n','schema':{'type':'object','properties':{'a':{'type':'string'}}}}}");
    cleanup(json_putp) json_object *f = built(&s, false);
    same(json_get(f, "tool_choice"), "{'type':'tool','name':'avix_output'}");
    assert_int_equal(json_object_array_length(json_arr(f, "tools")), 1);
    s.m.capabilities = parsed("['structured_output']");
    cleanup(json_putp) json_object *g = built(&s, false);
    same(
        json_get(g, "output_config"),
        "{'format':{'type':'json_schema','schema':{'type':'object','properties':{'a':{'type':'string'}}}}}");
    assert_null(json_get(g, "tools"));
    json_put(s.m.capabilities);
    lreq_done(&s.r);
}

static int count_marks(json_object *o)
{
    int n = 0;

    if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++)
            n += count_marks(json_object_array_get_idx(o, i));
    } else if (json_object_is_type(o, json_type_object)) {
        json_object_object_foreach (o, k, v)
            n += str_eq(k, "cache_control") ? 1 : count_marks(v);
    }
    return n;
}

static void cache_marks(void **state)
{
    struct buf text = BUF_INIT(1 << 16);
    struct setup s;

    (void)state;
    for (int i = 0; i < 500; i++)
        buf_adds(&text, "long words ");
    cleanup(freep) char *request = xasprintf(
        "{'system':'%s'," TOOLS
        ",'messages':[{'role':'user','content':'a'},{'role':'assistant','content':'b'},{'role':'user','content':'c'}]}",
        text.data);
    setup(&s, KIND_ANTHROPIC, request);
    cleanup(json_putp) json_object *off = built(&s, false);
    assert_int_equal(count_marks(off), 0);
    s.t.cache_auto = true;
    cleanup(json_putp) json_object *on = built(&s, false);
    assert_int_equal(count_marks(on), 3);
    assert_int_equal(count_marks(json_get(on, "system")), 1);
    assert_int_equal(count_marks(json_get(on, "tools")), 1);
    assert_int_equal(count_marks(json_object_array_get_idx(json_get(on, "messages"), 0)), 1);
    buf_done(&text);
    lreq_done(&s.r);
}

static void openai_request(void **state)
{
    struct setup s;

    (void)state;
    setup(
        &s, KIND_OPENAI,
        "{'system':'be brief','temperature':0.5,'seed':3,'stop_sequences':['END'],'tool_choice':{'name':'fs/read'}," TOOLS
        ",'messages':[{'role':'user','content':'go'},{'role':'assistant','content':[{'type':'tool_use','id':'c1','name':'fs/read','input':{'path':'/a'}}]},"
        "{'role':'user','content':[{'type':'tool_result','tool_use_id':'c1','content':[{'type':'text','text':'x'},{'type':'image','source':{'type':'base64','media_type':'image/png','data':'QQ=='}}]},{'type':'text','text':'and?'}]}]}");
    cleanup(json_putp) json_object *o = built(&s, true);
    same(
        o,
        "{'model':'m','messages':[{'role':'system','content':'be brief'},{'role':'user','content':'go'},"
        "{'role':'assistant','content':null,'tool_calls':[{'id':'c1','type':'function','function':{'name':'fs__read','arguments':'{\\'path\\':\\'/a\\'}'}}]},"
        "{'role':'tool','tool_call_id':'c1','content':'x'},"
        "{'role':'user','content':[{'type':'image_url','image_url':{'url':'data:image/png;base64,QQ=='}},{'type':'text','text':'and?'}]}],"
        "'tools':[{'type':'function','function':{'name':'fs__read','description':'d','parameters':" WIRE_SCHEMA
        "}}],"
        "'tool_choice':{'type':'function','function':{'name':'fs__read'}},'max_tokens':100,'temperature':0.5,'seed':3,'stop':['END'],"
        "'stream':true,'stream_options':{'include_usage':true}}");
    s.t.drop = PARAM_TEMPERATURE | PARAM_SEED | PARAM_STOP | PARAM_MAX_TOKENS;
    cleanup(json_putp) json_object *d = built(&s, false);
    assert_null(json_get(d, "temperature"));
    assert_null(json_get(d, "seed"));
    assert_null(json_get(d, "stop"));
    assert_null(json_get(d, "max_tokens"));
    assert_int_equal(json_int(d, "max_completion_tokens", 0), 100);
    lreq_done(&s.r);
}

static void openai_host_rules(void **state)
{
    struct setup s;
    cleanup(buf_done) struct buf b = BUF_INIT(1 << 20);
    const char *why = NULL;
    char url[256];

    (void)state;
    setup(
        &s, KIND_OPENAI,
        "{'messages':[{'role':'user','content':[{'type':'document','title':'t','source':{'type':'base64','media_type':'application/pdf','data':'QQ=='}}]}]}");
    assert_int_equal(wire_openai.build(&s.r, &s.t, false, &b, &why), ERR_MODALITY);
    str_copy(s.p.base_url, sizeof s.p.base_url, "https://api.openai.com");
    cleanup(json_putp) json_object *o = built(&s, false);
    assert_int_equal(json_int(o, "max_completion_tokens", 0), 100);
    same(
        json_object_array_get_idx(json_get(o, "messages"), 0),
        "{'role':'user','content':[{'type':'file','file':{'filename':'t','file_data':'data:application/pdf;base64,QQ=='}}]}");
    wire_url(&s.p, "/v1/chat/completions", url, sizeof url);
    assert_string_equal(url, "https://api.openai.com/v1/chat/completions");
    str_copy(s.p.base_url, sizeof s.p.base_url, "https://api.x.ai/v1");
    wire_url(&s.p, "/v1/chat/completions", url, sizeof url);
    assert_string_equal(url, "https://api.x.ai/v1/chat/completions");
    lreq_done(&s.r);
}

/* --- answers --- */

struct got {
    struct buf chunks;
    struct answer a;
    struct names names;
    struct prov_conf p;
    struct fault f;
    struct decoder d;
    const struct wire *w;
};

static void on_chunk(const char *json, size_t len, void *arg)
{
    struct got *g = arg;

    assert_int_equal(json_check(json, len), 0);
    buf_add(&g->chunks, json, len);
    buf_addc(&g->chunks, '\n');
}

static int on_event(const char *event, const char *data, size_t len, void *arg)
{
    struct got *g = arg;
    int r = g->w->event(&g->d, event, data, len);

    answer_flush(&g->a);
    return r;
}

static void got_init(struct got *g, enum kind k)
{
    memset(g, 0, sizeof *g);
    buf_init(&g->chunks, 1 << 20);
    names_init(&g->names);
    names_wire(&g->names, "mcp/srv/tool.dot");
    g->p.kind = k;
    str_copy(g->p.name, sizeof g->p.name, "p");
    g->p.retry_on[0] = 529;
    g->p.n_retry_on = 1;
    g->f.retry_after_ms = -1;
    answer_init(&g->a, on_chunk, g, true);
    decoder_init(&g->d, &g->a, &g->names, &g->p, &g->f);
    g->w = wire_of(k);
}

static void got_done(struct got *g)
{
    buf_done(&g->chunks);
    answer_done(&g->a);
    names_done(&g->names);
    fault_done(&g->f);
}

/* Feeds a stream given as lines of data; event names are taken from "type" for Anthropic. */
static int feed(struct got *g, const char *stream)
{
    cleanup(freep) char *text = quotes(stream);
    struct sse s;

    sse_init(&s, on_event, g);
    int r = sse_feed(&s, text, strlen(text));
    sse_done(&s);
    return r ? r : g->w->end(&g->d);
}

static void anthropic_stream(void **state)
{
    struct got g;

    (void)state;
    got_init(&g, KIND_ANTHROPIC);
    cleanup(freep) char *alias = xasprintf(
        "event: content_block_start\ndata: {'type':'content_block_start','index':2,'content_block':{'type':'tool_use','id':'toolu_1','name':'%s','input':{}}}\n\n",
        names_wire(&g.names, "mcp/srv/tool.dot"));
    cleanup(freep) char *all = xasprintf(
        "%s%s%s",
        "event: message_start\ndata: {'type':'message_start','message':{'id':'msg_1','model':'m','usage':{'input_tokens':10,'cache_read_input_tokens':5,'cache_creation_input_tokens':2,'output_tokens':1}}}\n\n"
        "event: ping\ndata: {'type':'ping'}\n\n"
        "event: content_block_start\ndata: {'type':'content_block_start','index':0,'content_block':{'type':'thinking','thinking':''}}\n\n"
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':0,'delta':{'type':'thinking_delta','thinking':'hm'}}\n\n"
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':0,'delta':{'type':'signature_delta','signature':'c2ln'}}\n\n"
        "event: content_block_stop\ndata: {'type':'content_block_stop','index':0}\n\n"
        "event: content_block_start\ndata: {'type':'content_block_start','index':1,'content_block':{'type':'text','text':''}}\n\n"
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'H\\u00e4'}}\n\n"
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':1,'delta':{'type':'text_delta','text':'llo\\n'}}\n\n"
        "event: content_block_stop\ndata: {'type':'content_block_stop','index':1}\n\n",
        alias,
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':2,'delta':{'type':'input_json_delta','partial_json':'{\\'a\\':'}}\n\n"
        "event: content_block_delta\ndata: {'type':'content_block_delta','index':2,'delta':{'type':'input_json_delta','partial_json':'1}'}}\n\n"
        "event: content_block_stop\ndata: {'type':'content_block_stop','index':2}\n\n"
        "event: content_block_start\ndata: {'type':'content_block_start','index':3,'content_block':{'type':'tool_use','id':'toolu_2','name':'fs__list','input':{}}}\n\n"
        "event: content_block_stop\ndata: {'type':'content_block_stop','index':3}\n\n"
        "event: something_new\ndata: {'type':'something_new'}\n\n"
        "event: message_delta\ndata: {'type':'message_delta','delta':{'stop_reason':'tool_use'},'usage':{'output_tokens':33}}\n\n"
        "event: message_stop\ndata: {'type':'message_stop'}\n\n");
    assert_int_equal(feed(&g, all), 0);
    answer_finish(&g.a);
    cleanup(freep) char *want = quotes(
        "{'type':'thinking_delta','text':'hm'}\n{'type':'text_delta','text':'H\\u00e4'}\n{'type':'text_delta','text':'llo\\n'}\n"
        "{'type':'tool_call_start','call_id':'toolu_1','name':'mcp/srv/tool.dot'}\n{'type':'tool_call_args_delta','call_id':'toolu_1','args_delta':'{\\'a\\':'}\n"
        "{'type':'tool_call_args_delta','call_id':'toolu_1','args_delta':'1}'}\n{'type':'tool_call_complete','call_id':'toolu_1'}\n"
        "{'type':'tool_call_start','call_id':'toolu_2','name':'fs/list'}\n{'type':'tool_call_args_delta','call_id':'toolu_2','args_delta':'{}'}\n{'type':'tool_call_complete','call_id':'toolu_2'}\n"
        "{'type':'done','stop_reason':'tool_use','input_tokens':17,'output_tokens':33}\n");
    /* escaped quotes in args travel as they came */
    assert_string_equal(g.chunks.data, want);
    cleanup(json_putp) json_object *content = answer_content(&g.a);
    same(
        content,
        "[{'type':'thinking','thinking':'hm','signature':'c2ln'},{'type':'text','text':'H\xc3\xa4llo\\n'},"
        "{'type':'tool_use','id':'toolu_1','name':'mcp/srv/tool.dot','input':{'a':1}},{'type':'tool_use','id':'toolu_2','name':'fs/list','input':{}}]");
    assert_int_equal(g.a.cache_read, 5);
    assert_int_equal(g.a.cache_write, 2);
    got_done(&g);
}

static void anthropic_stops(void **state)
{
    static const struct {
        const char *reason, *name, *detail;
        int err;
    } rows[] = { { "end_turn", "end_turn", "", 0 },
                 { "max_tokens", "max_tokens", "", 0 },
                 { "stop_sequence", "stop_sequence", "", 0 },
                 { "tool_use", "tool_use", "", 0 },
                 { "pause_turn", "end_turn", "pause_turn", 0 },
                 { "model_context_window_exceeded", "max_tokens", "model_context_window_exceeded",
                   0 },
                 { "refusal", "", "", ERR_CONTENT } };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct got g;
        cleanup(freep) char *s = xasprintf(
            "{'type':'message','content':[{'type':'text','text':'part'}],'stop_reason':'%s','usage':{'input_tokens':1,'output_tokens':2}}",
            rows[i].reason);
        cleanup(json_putp) json_object *o = parsed(s);

        got_init(&g, KIND_ANTHROPIC);
        assert_int_equal(g.w->whole(&g.d, o), rows[i].err);
        if (rows[i].err)
            assert_string_equal(g.f.partial, "part");
        else
            assert_string_equal(stop_name(g.a.stop), rows[i].name);
        assert_string_equal(g.a.stop_detail, rows[i].detail);
        got_done(&g);
    }
}

static void anthropic_forced_output(void **state)
{
    struct got g;

    (void)state;
    got_init(&g, KIND_ANTHROPIC);
    assert_int_equal(
        feed(
            &g,
            "event: content_block_start\ndata: {'type':'content_block_start','index':0,'content_block':{'type':'tool_use','id':'t','name':'avix_output','input':{}}}\n\n"
            "event: content_block_delta\ndata: {'type':'content_block_delta','index':0,'delta':{'type':'input_json_delta','partial_json':'{\\'a\\':1}'}}\n\n"
            "event: content_block_stop\ndata: {'type':'content_block_stop','index':0}\n\n"
            "event: message_delta\ndata: {'type':'message_delta','delta':{'stop_reason':'tool_use'},'usage':{'output_tokens':3}}\n\n"
            "event: message_stop\ndata: {'type':'message_stop'}\n\n"),
        0);
    cleanup(json_putp) json_object *c = answer_content(&g.a);
    same(c, "[{'type':'text','text':'{\\'a\\':1}'}]");
    assert_int_equal(g.a.stop, STOP_END);
    got_done(&g);
}

static void openai_stream(void **state)
{
    struct got g;

    (void)state;
    got_init(&g, KIND_OPENAI);
    assert_int_equal(
        feed(
            &g,
            "data: {'id':'x','model':'m','choices':[{'index':0,'delta':{'role':'assistant','content':''},'finish_reason':null}]}\n\n"
            "data: {'choices':[{'index':0,'delta':{'reasoning_content':'hm'},'finish_reason':null}]}\n\n"
            "data: {'choices':[ {'index':0,'delta':{'content':'one '},'finish_reason':null} ]}\n\n"
            "data: {'choices':[{'index':0,'delta':{'content':'two'},'finish_reason':null}]}\n\n"
            "data: {'choices':[{'index':0,'delta':{'tool_calls':[{'index':0,'id':'a','type':'function','function':{'name':'fs__read','arguments':''}},{'index':1,'id':'b','type':'function','function':{'name':'fs__list','arguments':'{'}}]},'finish_reason':null}]}\n\n"
            "data: {'choices':[{'index':0,'delta':{'tool_calls':[{'index':1,'function':{'arguments':'}'}},{'index':0,'function':{'arguments':'{\\'p\\':2}'}}]},'finish_reason':null}]}\n\n"
            "data: {'choices':[{'index':0,'delta':{},'finish_reason':'tool_calls'}]}\n\n"
            "data: {'choices':[],'usage':{'prompt_tokens':9,'completion_tokens':4,'prompt_tokens_details':{'cached_tokens':3},'completion_tokens_details':{'reasoning_tokens':1}}}\n\n"
            "data: [DONE]\n\n"),
        0);
    answer_finish(&g.a);
    cleanup(json_putp) json_object *c = answer_content(&g.a);
    same(
        c,
        "[{'type':'thinking','thinking':'hm'},{'type':'text','text':'one two'},{'type':'tool_use','id':'a','name':'fs/read','input':{'p':2}},{'type':'tool_use','id':'b','name':'fs/list','input':{}}]");
    assert_int_equal(g.a.stop, STOP_TOOL);
    assert_int_equal(g.a.in, 9);
    assert_int_equal(g.a.out, 4);
    assert_int_equal(g.a.cache_read, 3);
    assert_int_equal(g.a.reasoning, 1);
    got_done(&g);
}

/* Servers that number every call 0, send no ids, or whole calls at once. */
static void openai_odd_servers(void **state)
{
    struct got g;

    (void)state;
    got_init(&g, KIND_OLLAMA);
    assert_int_equal(
        feed(
            &g,
            "data: {'choices':[{'index':0,'delta':{'tool_calls':[{'index':0,'id':'a','function':{'name':'fs__read','arguments':'{}'}}]},'finish_reason':null}]}\n\n"
            "data: {'choices':[{'index':0,'delta':{'tool_calls':[{'index':0,'id':'b','function':{'name':'fs__list','arguments':'{}'}}]},'finish_reason':'stop'}]}\n\n"
            "data: [DONE]\n\n"),
        0);
    cleanup(json_putp) json_object *c = answer_content(&g.a);
    assert_int_equal(json_object_array_length(c), 2);
    assert_int_equal(g.a.stop, STOP_TOOL);
    got_done(&g);

    got_init(&g, KIND_OPENAI);
    assert_int_equal(
        feed(
            &g,
            "data: {'choices':[{'delta':{'tool_calls':[{'index':0,'function':{'name':'x','arguments':'not json'}}]}}]}\n\n"
            "data: {'choices':[{'delta':{},'finish_reason':'tool_calls'}]}\n\n"),
        0);
    cleanup(json_putp) json_object *d = answer_content(&g.a);
    json_object *call = json_object_array_get_idx(d, 0);
    assert_true(*json_str(call, "id", "") != '\0');
    assert_string_equal(json_str(call, "input_error", ""), "not json");
    assert_int_equal(json_object_object_length(json_obj(call, "input")), 0);
    got_done(&g);
}

static void openai_bad_streams(void **state)
{
    static const struct {
        const char *stream;
        int err;
    } rows[] = {
        { "data: {'choices':[{'delta':{'content':'x'}}]}\n\n", ERR_PROVPROTO },
        { "data: {'choices':[{'delta':{'content':'x'}}]\n\n", ERR_PROVPROTO },
        { "data: {'error':{'message':'boom','type':'server_error'}}\n\n", ERR_PROVDOWN },
        { "data: {'choices':[{'delta':{'refusal':'no'}}]}\n\ndata: [DONE]\n\n", ERR_CONTENT },
        { "data: {'choices':[{'delta':{},'finish_reason':'content_filter'}]}\n\n", ERR_CONTENT },
        { "", ERR_PROVPROTO },
        { "data: {'choices':[{'delta':{},'finish_reason':'stop'}]}\n\n",
          0 }, /* the end closes it */
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        struct got g;

        got_init(&g, KIND_OPENAI);
        assert_int_equal(feed(&g, rows[i].stream), rows[i].err);
        assert_int_equal(g.f.err, rows[i].err);
        got_done(&g);
    }
}

static void openai_whole(void **state)
{
    struct got g;
    cleanup(json_putp) json_object *o = parsed(
        "{'id':'x','choices':[{'message':{'content':[{'type':'text','text':'one'}],'tool_calls':[{'id':'a','type':'function','function':{'name':'fs__read','arguments':'{\\'p\\':1}'}}]},'finish_reason':'stop'}],"
        "'usage':{'prompt_tokens':2,'completion_tokens':3}}");

    (void)state;
    got_init(&g, KIND_OPENAI);
    assert_int_equal(g.w->whole(&g.d, o), 0);
    cleanup(json_putp) json_object *c = answer_content(&g.a);
    same(
        c,
        "[{'type':'text','text':'one'},{'type':'tool_use','id':'a','name':'fs/read','input':{'p':1}}]");
    assert_int_equal(g.a.stop, STOP_TOOL); /* any call means tool_use */
    got_done(&g);
}

static void an_answer_has_a_ceiling(void **state)
{
    cleanup(freep) char *block = xmalloc(1 << 20);
    struct answer a;
    int r = 0;

    (void)state;
    memset(block, 'x', 1 << 20);
    answer_init(&a, NULL, NULL, false);
    for (int i = 0; i < 20 && !r; i++)
        r = answer_text(&a, block, 1 << 20);
    assert_int_equal(r, ERR_PROVPROTO);
    answer_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anthropic_request),
        cmocka_unit_test(anthropic_thinking_and_format),
        cmocka_unit_test(cache_marks),
        cmocka_unit_test(openai_request),
        cmocka_unit_test(openai_host_rules),
        cmocka_unit_test(anthropic_stream),
        cmocka_unit_test(anthropic_stops),
        cmocka_unit_test(anthropic_forced_output),
        cmocka_unit_test(openai_stream),
        cmocka_unit_test(openai_odd_servers),
        cmocka_unit_test(openai_bad_streams),
        cmocka_unit_test(openai_whole),
        cmocka_unit_test(an_answer_has_a_ceiling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
