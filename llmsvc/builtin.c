/*
 * The run of a plan: goal and results are read from the history, the clauses run in order, and the
 * first call without a result ends the run: it becomes this turn's tool calls.
 */
#include "llmsvc/builtin.h"

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/svc/token.h"
#include "llmsvc/bi.h"
#include "llmsvc/core.h"

bool bi_has(const struct bi *b, const char *tool)
{
    if (b->req->choice == CHOICE_NONE)
        return false;
    for (size_t i = 0; i < json_object_array_length(b->req->tools); i++)
        if (str_eq(json_str(json_object_array_get_idx(b->req->tools, i), "name", ""), tool))
            return true;
    return false;
}

bool bi_waits(const struct bi *b)
{
    return json_object_array_length(b->pending) > 0;
}

static void call_id_of(const struct bi *b, int step, const char *tool, json_object *input,
                       char out[24])
{
    cleanup(freep) char *canon = json_canonical(input);
    cleanup(freep) char *all = xasprintf("%s\n%d\n%s\n%s", b->goal, step, tool, canon);
    uint8_t sum[32];
    char hex[65];

    sha256(all, strlen(all), sum);
    hex_encode(sum, sizeof sum, hex);
    snprintf(out, 24, "bi_%.12s", hex);
}

const char *bi_call(struct bi *b, const char *tool, json_object *input, bool *error)
{
    char id[24];

    *error = false;
    if (b->step == STEPS_MAX) {
        json_put(input);
        *error = true;
        return "{\"error\":{\"code\":\"ELIMIT\",\"message\":\"16 tool calls for one goal are the limit of the built-in rules\"}}";
    }
    call_id_of(b, b->step++, tool, input, id);
    json_object *r = json_obj(b->results, id);
    if (!r) {
        json_push(b->pending, json_make("id:s name:s input:o", id, tool, input));
        return NULL;
    }
    json_put(input);
    const char *text = json_str(r, "content", "");
    *error = json_flag(r, "is_error", false) || str_starts(text, "{\"error\":");
    return text;
}

/* --- reading the history --- */

static char *result_text(json_object *content)
{
    struct buf b = BUF_INIT(TEXT_MAX);

    if (json_object_is_type(content, json_type_string))
        return xstrdup(json_object_get_string(content));
    for (size_t i = 0; content && i < json_object_array_length(content); i++)
        buf_adds(&b, json_str(json_object_array_get_idx(content, i), "text", ""));
    return buf_take(&b);
}

/* The last user message with text is the goal; results after it count. Returns the goal (owned). */
static char *read_history(const struct lreq *r, json_object *results)
{
    size_t n = json_object_array_length(r->messages), at = n;
    struct buf goal = BUF_INIT(TEXT_MAX);

    while (at-- > 0 && !goal.len) {
        json_object *m = json_object_array_get_idx(r->messages, at);

        if (str_eq(json_str(m, "role", ""), "user"))
            message_text(m, &goal);
        if (goal.len)
            break;
    }
    for (size_t i = goal.len ? at : 0; i < n; i++) {
        json_object *blocks = json_get(json_object_array_get_idx(r->messages, i), "content");

        for (size_t k = 0; k < json_object_array_length(blocks); k++) {
            json_object *b = json_object_array_get_idx(blocks, k);

            if (!str_eq(json_str(b, "type", ""), "tool_result"))
                continue;
            cleanup(freep) char *text = result_text(json_get(b, "content"));
            json_add(results, json_str(b, "tool_use_id", ""),
                     json_make("content:s is_error:b", text, (int)json_flag(b, "is_error", false)));
        }
    }
    return buf_take(&goal);
}

/* A line "<label> value" of the system prompt; "" if there is none. */
static void system_line(const struct lreq *r, const char *label, char *out, size_t size)
{
    *out = '\0';
    for (size_t i = 0; i < json_object_array_length(r->sys); i++) {
        const char *text = json_str(json_object_array_get_idx(r->sys, i), "text", "");

        for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
            if (!str_starts(p, label))
                continue;
            p += strlen(label);
            p += strspn(p, " ");
            snprintf(out, size, "%.*s", (int)strcspn(p, "\n"), p);
            return;
        }
    }
}

/* What is said before calls go out. */
static void say_before(struct bi *b)
{
    size_t n = json_object_array_length(b->pending);
    json_object *first = json_object_array_get_idx(b->pending, 0);
    const char *name = json_str(first, "name", ""),
               *path = json_str(json_obj(first, "input"), "path", "");

    if (n > 1)
        buf_printf(&b->say, "Calling %s %zu times.", name, n);
    else if (*path)
        buf_printf(&b->say, "Calling %s on %s.", name, path);
    else
        buf_printf(&b->say, "Calling %s.", name);
}

static void run_plan(struct bi *b, struct buf *out)
{
    struct plan plan;
    cleanup(buf_done) struct buf part = BUF_INIT(TEXT_MAX);

    plan_parse(b->goal, b->user, &plan);
    for (size_t i = 0; i < plan.n && !bi_waits(b); i++) {
        buf_clear(&part);
        bi_clause(b, &plan.c[i], &part);
        if (bi_waits(b) || !part.len)
            continue;
        if (out->len)
            buf_addc(out, '\n');
        buf_add(out, part.data, part.len);
        buf_clear(&b->prev);
        buf_add(&b->prev, part.data, part.len);
    }
    if (!plan.n)
        buf_adds(out, "There is no goal in this request.\n");
    plan_done(&plan);
}

/* The one string property of a schema, NULL if it is anything else. */
static const char *one_string(json_object *schema)
{
    json_object *props = json_obj(schema, "properties");
    const char *found = NULL;

    if (!props || json_object_object_length(props) != 1)
        return NULL;
    json_object_object_foreach (props, key, value)
        found =
            str_eq(json_str(value, "type", ""), "string") && !json_get(value, "enum") ? key : NULL;
    return found;
}

static void finish_text(struct bi *b, const char *property, struct buf *out)
{
    (void)b;
    while (out->len && out->data[out->len - 1] == '\n')
        out->data[--out->len] = '\0';
    if (!property) {
        buf_adds(out, out->len ? "\n\n" BI_CLOSING : BI_CLOSING);
        return;
    }
    cleanup(json_putp) json_object *o = json_new();
    json_add_str(o, property, out->data ? out->data : "");
    buf_clear(out);
    buf_adds(out, json_text(o));
}

int builtin_run(const struct lreq *r, int64_t max_tokens, bool request_tools, struct bi_answer *ret,
                const char **why)
{
    cleanup(json_putp) json_object *results = json_new();
    cleanup(freep) char *goal = read_history(r, results);
    struct buf out = BUF_INIT(TEXT_MAX);
    const char *property =
        r->response_format ? one_string(json_obj(r->response_format, "schema")) : NULL;
    struct bi b = {
        .req = r, .request_tools = request_tools, .results = results, .pending = json_new_arr()
    };
    char line[4096];

    *why = "the built-in rules fill only a schema with one string property";
    if (r->response_format && !property) {
        json_put(b.pending);
        return ERR_BADREQ;
    }
    buf_init(&b.say, 8192);
    buf_init(&b.prev, TEXT_MAX);
    system_line(r, "User:", b.user, sizeof b.user);
    system_line(r, "Your goal:", line, sizeof line);
    b.goal = *goal ? goal : line;
    run_plan(&b, &out);
    if (bi_waits(&b)) {
        buf_clear(&out);
        say_before(&b);
        buf_add(&out, b.say.data, b.say.len);
    } else {
        finish_text(&b, property, &out);
    }
    size_t top = max_tokens > 0 && max_tokens < TEXT_MAX / 4 ? (size_t)max_tokens * 4 : TEXT_MAX;
    ret->cut = out.len > top;
    if (ret->cut)
        out.data[out.len = utf8_floor(out.data, top)] = '\0';
    ret->text = buf_take(&out);
    ret->calls = b.pending;
    buf_done(&b.say);
    buf_done(&b.prev);
    free(b.prev_path);
    return 0;
}

void bi_answer_done(struct bi_answer *a)
{
    free(a->text);
    json_put(a->calls);
    a->text = NULL;
    a->calls = NULL;
}

/* --- as a provider --- */

static void push_chunk(json_object *rows, json_object *chunk)
{
    json_push(rows, json_make("ms:i chunk:o", (int64_t)0, chunk));
}

/* Chunks of one word each, the blank before it included. */
static void text_chunks(json_object *rows, const char *s)
{
    while (*s) {
        size_t n = strspn(s, " \n");

        n += strcspn(s + n, " \n");
        cleanup(freep) char *word = xstrndup(s, n);
        push_chunk(rows, json_make("type:s text:s", "text_delta", word));
        s += n;
    }
}

static void call_chunks(json_object *rows, json_object *calls)
{
    for (size_t i = 0; i < json_object_array_length(calls); i++) {
        json_object *c = json_object_array_get_idx(calls, i);
        const char *id = json_str(c, "id", "");

        push_chunk(rows, json_make("type:s call_id:s name:s", "tool_call_start", id,
                                   json_str(c, "name", "")));
        push_chunk(rows, json_make("type:s call_id:s args_delta:s", "tool_call_args_delta", id,
                                   json_text(json_get(c, "input"))));
        push_chunk(rows, json_make("type:s call_id:s", "tool_call_complete", id));
    }
}

void builtin_attempt(struct lcall *l)
{
    struct bi_answer a = { 0 };
    const char *why = "";
    int e = builtin_run(&l->req, l->target.max_tokens, l->conf->request_tools, &a, &why);

    if (e) {
        fault_set(&l->fault, e, "%s", why);
        str_copy(l->fault.param, sizeof l->fault.param, "response_format");
        canned_start(l, NULL, NULL, true, 0);
        return;
    }
    json_object *rows = json_new_arr();
    text_chunks(rows, a.text);
    call_chunks(rows, a.calls);
    l->ans.stop = json_object_array_length(a.calls) ? STOP_TOOL : a.cut ? STOP_MAX : STOP_END;
    l->ans.in = lreq_estimate(&l->req);
    l->ans.out = (int64_t)(strlen(a.text) + 3) / 4;
    l->ans.have_in = l->ans.have_out = true;
    bi_answer_done(&a);
    canned_start(l, rows, NULL, false, 0);
}
