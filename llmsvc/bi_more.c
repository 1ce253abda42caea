/* The rows that are not about files: help, code, arithmetic, memory, agents, named tools. */
#include "llmsvc/bi.h"

#define SHOW_MAX 4096

static json_object *parsed(const char *text)
{
    json_object *o = NULL;

    if (!text || *text != '{' || json_parse(text, strlen(text), &o))
        return NULL;
    return o;
}

void bi_missing(struct bi *b, const char *tool, struct buf *out)
{
    bool err = false;

    if (b->request_tools && bi_has(b, "cap/request-tool")) {
        const char *s = bi_call(b, "cap/request-tool",
                                json_make("tool:s reason:s", tool, "needed for the goal"), &err);

        if (!s)
            return;
    }
    buf_printf(
        out,
        "This needs the tool %s, which is not granted. It can be asked for with cap/request-tool.\n",
        tool);
}

static void group_of(const char *name, char out[64])
{
    const char *slash = strchr(name, '/');

    snprintf(out, 64, "%.*s", slash ? (int)(slash - name) : 60, name);
}

/* The granted tools, a line for each name space. */
static void tools_list(const struct bi *b, struct buf *out)
{
    json_object *tools = b->req->tools;
    char last[64] = "", group[64];

    for (size_t i = 0; i < json_object_array_length(tools); i++) {
        const char *name = json_str(json_object_array_get_idx(tools, i), "name", "");

        group_of(name, group);
        if (!str_eq(group, last))
            buf_printf(out, "%s- %s: %s", *last ? "\n" : "", group, name);
        else
            buf_printf(out, ", %s", name);
        str_copy(last, sizeof last, group);
    }
    buf_adds(out, *last ? "\n" : "- none\n");
}

static void abilities(struct buf *out)
{
    buf_adds(
        out,
        "I can read, write, list, find and search files, count, summarise a file, a folder or a topic, calculate, "
        "run code, remember and recall facts, and hand a task to another agent.\n");
}

void bi_help(struct bi *b, struct buf *out)
{
    buf_adds(out, "Hello. I am the built-in rule engine of Avix, not a language model. ");
    abilities(out);
    buf_adds(out, "\nGranted tools:\n");
    tools_list(b, out);
}

void bi_refuse(const struct clause *c, struct buf *out)
{
    buf_printf(out, "I did not understand \"%.300s\".\n", c->text);
    if (c->n_paths)
        buf_printf(out, "I found the path %s in it, but no instruction I know.\n", c->paths[0]);
    abilities(out);
    buf_adds(
        out,
        "For anything else configure a model: set a key with `avix client secret set ANTHROPIC_API_KEY - --for-service llm`, "
        "add the provider to etc/llm.yaml, then `avix server config reload`.\n");
}

static void code_result(const char *s, struct buf *out)
{
    cleanup(json_putp) json_object *o = parsed(s);
    const char *text = o ? json_str(o, "stdout", "") : s, *bad = json_str(o, "stderr", "");

    if (*text)
        buf_printf(out, "Output:\n%.4096s%s", text, str_ends(text, "\n") ? "" : "\n");
    if (*bad)
        buf_printf(out, "Errors:\n%.2048s%s", bad, str_ends(bad, "\n") ? "" : "\n");
    if (o)
        buf_printf(out, "Exit code: %lld\n", (long long)json_int(o, "exit_code", 0));
}

void bi_run_code(struct bi *b, const struct clause *c, struct buf *out)
{
    static const struct {
        const char *language, *tool;
    } rows[] = {
        { "python", "exec/python" }, { "py", "exec/python" },     { "", "exec/python" },
        { "js", "exec/js" },         { "javascript", "exec/js" }, { "node", "exec/js" },
        { "sh", "exec/shell" },      { "bash", "exec/shell" },    { "shell", "exec/shell" }
    };
    const char *tool = "exec/run";
    bool err = false;

    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (!strcasecmp(c->language ? c->language : "", rows[i].language))
            tool = rows[i].tool;
    json_object *in = json_make("code:s", c->code);
    if (!bi_has(b, tool) && bi_has(b, "exec/run"))
        tool = "exec/run";
    if (str_eq(tool, "exec/run"))
        json_add_str(in, "runtime", c->language && *c->language ? c->language : "python");
    if (!bi_has(b, tool)) {
        json_put(in);
        bi_missing(b, tool, out);
        return;
    }
    const char *s = bi_call(b, tool, in, &err);
    if (!s)
        return;
    if (err) {
        char text[300];
        bi_error_text(s, text);
        buf_printf(out, "The code could not be run: %s\n", text);
        return;
    }
    code_result(s, out);
}

void bi_compute(struct bi *b, const struct clause *c, struct buf *out)
{
    cleanup(buf_done) struct buf py = BUF_INIT(16384);
    double v = 0;
    char text[40];
    bool err = false;

    buf_adds(&py, "import math, statistics\nprint(");
    if (!bi_eval(c->expr, &v, &py)) {
        buf_printf(out, "\"%s\" is not arithmetic I can do.\n", c->expr);
        return;
    }
    buf_adds(&py, ")");
    if (bi_has(b, "exec/python")) {
        const char *s = bi_call(b, "exec/python", json_make("code:s", py.data), &err);

        if (!s)
            return;
        cleanup(json_putp) json_object *o = parsed(s);
        const char *value = json_str(o, "stdout", "");
        size_t n = strcspn(value, "\r\n");

        if (!err && n && n < 200 && !json_int(o, "exit_code", 0)) {
            buf_printf(out, "%s = %.*s\n", c->expr, (int)n, value);
            return;
        }
    }
    bi_number(v, text); /* no interpreter: our own result */
    buf_printf(out, "%s = %s\n", c->expr, text);
}

/* The tool's input with this text in its first required string, as its schema says. */
static json_object *text_input(const struct bi *b, const char *tool, const char *fallback,
                               const char *text)
{
    json_object *out = json_new();
    const char *key = fallback;

    for (size_t i = 0; i < json_object_array_length(b->req->tools); i++) {
        json_object *t = json_object_array_get_idx(b->req->tools, i);
        json_object *required = json_arr(json_obj(t, "input_schema"), "required");

        if (str_eq(json_str(t, "name", ""), tool) && required && json_object_array_length(required))
            key = json_object_get_string(json_object_array_get_idx(required, 0));
    }
    json_add_str(out, key, text);
    return out;
}

static const char *after(const char *text, const char *word)
{
    const char *p = strcasestr(text, word);

    if (!p)
        return text;
    p += strlen(word);
    p += strspn(p, " :,");
    if (!strncasecmp(p, "that ", 5))
        p += 5;
    return p;
}

void bi_memory(struct bi *b, const struct clause *c, bool store, struct buf *out)
{
    const char *tool = store ? "memory/store-fact" : "memory/retrieve";
    const char *text = c->n_quotes ? c->quotes[0] : after(c->text, store ? "remember" : "about");
    bool err = false;

    if (!bi_has(b, tool)) {
        bi_missing(b, tool, out);
        return;
    }
    const char *s = bi_call(b, tool, text_input(b, tool, store ? "fact" : "query", text), &err);
    if (!s)
        return;
    if (err) {
        char why[300];
        bi_error_text(s, why);
        buf_printf(out, "The memory service refused: %s\n", why);
    } else if (store) {
        buf_printf(out, "Remembered: %s\n", text);
    } else {
        buf_printf(out, "%.4096s\n", s);
    }
}

/* "spawn researcher to read the notes", "ask agent researcher to …", "delegate to researcher: …" */
static bool delegate_parts(const struct clause *c, char agent[80], const char **goal)
{
    static const char *const leads[] = { "delegate to",     "ask the agent", "ask agent",
                                         "spawn the agent", "spawn agent",   "spawn an",
                                         "spawn a",         "spawn" };

    for (size_t i = 0; i < N_ELEMS(leads); i++) {
        const char *p = strcasestr(c->text, leads[i]);

        if (!p)
            continue;
        p += strlen(leads[i]);
        p += strspn(p, " ");
        size_t n = strcspn(p, " ,:");
        if (!n || n >= 79)
            return false;
        snprintf(agent, 80, "%.*s", (int)n, p);
        p += n;
        p += strspn(p, " ,:");
        if (!strncasecmp(p, "to ", 3))
            p += 3;
        *goal = c->n_quotes && !*p ? c->quotes[0] : p;
        return **goal != '\0';
    }
    return false;
}

void bi_delegate(struct bi *b, const struct clause *c, struct buf *out)
{
    char agent[80], why[300];
    const char *goal = "";
    bool err = false;

    if (!bi_has(b, "agent/spawn")) {
        bi_missing(b, "agent/spawn", out);
        return;
    }
    if (!delegate_parts(c, agent, &goal)) {
        buf_adds(
            out,
            "I do not know which agent is meant, or what it is to do: say \"ask agent NAME to …\".\n");
        return;
    }
    bool wait = !bi_has(b, "agent/wait");
    json_object *in = json_make("agent:s goal:s", agent, goal);
    if (wait)
        json_add_bool(in, "waitForResult", true);
    const char *s = bi_call(b, "agent/spawn", in, &err);
    if (s && !err && !wait) {
        cleanup(json_putp) json_object *o = parsed(s);
        s = bi_call(b, "agent/wait", json_make("pid:i", json_int(o, "pid", 0)), &err);
    }
    if (!s)
        return;
    if (err) {
        bi_error_text(s, why);
        buf_printf(out, "The agent %s could not do it: %s\n", agent, why);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    buf_printf(out, "%s answered:\n%.8192s\n", agent, json_str(o, "result", o ? json_text(o) : s));
}

void bi_use(struct bi *b, const struct clause *c, struct buf *out)
{
    const char *p = strcasestr(c->text, "use "), *json = strchr(c->text, '{');
    cleanup(json_putp) json_object *in = NULL;
    char tool[130] = "";
    bool err = false;

    if (p && json > p) {
        p += 4;
        p += strspn(p, " ");
        snprintf(tool, sizeof tool, "%.*s", (int)strcspn(p, " ,"), p);
    }
    if (json_parse(c->json, strlen(c->json), &in) || !json_object_is_type(in, json_type_object)) {
        buf_printf(out, "What follows \"with\" is not a JSON object: %.200s\n", c->json);
        return;
    }
    if (!bi_has(b, tool)) {
        bi_missing(b, tool, out);
        return;
    }
    const char *s = bi_call(b, tool, TAKE(in), &err);
    if (!s)
        return;
    buf_printf(out, "%s%s:\n%.8192s\n", tool, err ? " failed" : "", s);
}
