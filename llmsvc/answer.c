/*
 * Answers under construction. A text delta is not sent when it arrives but when the batch of bytes
 * it came with is used up (answer_flush): one provider read becomes one chunk and one write,
 * however many tokens were in it. Escaped pieces are spliced: a token is never decoded on its way.
 */
#include "llmsvc/answer.h"

#include "common/base/err.h"

const char *stop_name(enum stop s)
{
    switch (s) {
    case STOP_TOOL:
        return "tool_use";
    case STOP_MAX:
        return "max_tokens";
    case STOP_SEQUENCE:
        return "stop_sequence";
    case STOP_NONE:
    case STOP_END:
        break;
    }
    return "end_turn";
}

void answer_init(struct answer *a, chunk_fn emit, void *arg, bool want_thinking)
{
    memset(a, 0, sizeof *a);
    a->emit = emit;
    a->arg = arg;
    a->want_thinking = want_thinking;
    buf_init(&a->pend, ANSWER_MAX * 2);
    buf_init(&a->pend_think, ANSWER_MAX * 2);
    buf_init(&a->pend_args, ANSWER_MAX * 2);
}

static void blocks_free(struct answer *a)
{
    for (size_t i = 0; i < a->n; i++) {
        free(a->blocks[i].id);
        free(a->blocks[i].name);
        free(a->blocks[i].signature);
        free(a->blocks[i].data);
        buf_done(&a->blocks[i].esc);
    }
    free(a->blocks);
    a->blocks = NULL;
    a->n = a->cap = 0;
}

void answer_done(struct answer *a)
{
    blocks_free(a);
    buf_done(&a->pend);
    buf_done(&a->pend_think);
    buf_done(&a->pend_args);
}

void answer_reset(struct answer *a)
{
    chunk_fn emit = a->emit;
    void *arg = a->arg;
    bool want = a->want_thinking;

    answer_done(a);
    answer_init(a, emit, arg, want);
}

static struct ablock *push(struct answer *a, enum block_type type, int index)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 4;
        a->blocks = xrealloc(a->blocks, a->cap * sizeof *a->blocks);
    }
    struct ablock *b = &a->blocks[a->n++];
    memset(b, 0, sizeof *b);
    b->type = type;
    b->index = index;
    b->open = true;
    buf_init(&b->esc, ANSWER_MAX);
    return b;
}

static struct ablock *last_open(struct answer *a, enum block_type type)
{
    struct ablock *b = a->n ? &a->blocks[a->n - 1] : NULL;

    return b && b->open && b->type == type ? b : NULL;
}

static void emit_delta(struct answer *a, const char *head, struct buf *pend)
{
    cleanup(buf_done) struct buf b = BUF_INIT(ANSWER_MAX * 2);

    if (!pend->len)
        return;
    if (a->emit) {
        buf_adds(&b, head);
        buf_add(&b, pend->data, pend->len);
        buf_adds(&b, "\"}");
        a->sent = true;
        a->emit(b.data, b.len, a->arg);
    }
    buf_clear(pend);
}

/* Adds to the open block of this type (begins one), and to what waits to be sent. */
static int add_esc(struct answer *a, enum block_type type, const char *s, size_t len)
{
    struct ablock *b = last_open(a, type);
    bool think = type == BLOCK_THINKING;

    if (!len)
        return 0;
    if (a->bytes + len > ANSWER_MAX)
        return ERR_PROVPROTO;
    if (!b) {
        answer_block_end(a);
        b = push(a, type, -1);
    }
    a->bytes += len;
    if ((think ? a->pend.len : a->pend_think.len) || a->pend_args.len)
        answer_flush(a); /* keeps the order of text, thinking and arguments */
    if (buf_add(&b->esc, s, len))
        return ERR_PROVPROTO;
    if (a->emit && (!think || a->want_thinking))
        return buf_add(think ? &a->pend_think : &a->pend, s, len) ? ERR_PROVPROTO : 0;
    return 0;
}

/* Escapes plain text: buf_add_json_str without its quotes. */
static int add_plain(struct answer *a, enum block_type type, const char *s, size_t len)
{
    cleanup(buf_done) struct buf b = BUF_INIT(ANSWER_MAX);

    if (!len)
        return 0;
    if (buf_add_json_str(&b, s, len))
        return ERR_PROVPROTO;
    return add_esc(a, type, b.data + 1, b.len - 2);
}

int answer_text(struct answer *a, const char *s, size_t len)
{
    return add_plain(a, BLOCK_TEXT, s, len);
}

int answer_text_esc(struct answer *a, const char *s, size_t len)
{
    return add_esc(a, BLOCK_TEXT, s, len);
}

int answer_thinking(struct answer *a, const char *s, size_t len)
{
    return add_plain(a, BLOCK_THINKING, s, len);
}

int answer_thinking_esc(struct answer *a, const char *s, size_t len)
{
    return add_esc(a, BLOCK_THINKING, s, len);
}

void answer_signature(struct answer *a, const char *s, size_t len)
{
    struct ablock *b = last_open(a, BLOCK_THINKING);

    if (!b) { /* thinking that was left out by the provider: only its signature comes */
        answer_block_end(a);
        b = push(a, BLOCK_THINKING, -1);
    }
    size_t old = b->signature ? strlen(b->signature) : 0;
    if (a->bytes + len > ANSWER_MAX)
        return;
    a->bytes += len;
    b->signature = xrealloc(b->signature, old + len + 1);
    memcpy(b->signature + old, s, len);
    b->signature[old + len] = '\0';
}

void answer_redacted(struct answer *a, const char *data)
{
    answer_block_end(a);
    if (a->bytes + strlen(data) > ANSWER_MAX)
        return;
    a->bytes += strlen(data);
    push(a, BLOCK_REDACTED, -1)->data = xstrdup(data);
    answer_block_end(a);
}

void answer_block_end(struct answer *a)
{
    if (a->n && a->blocks[a->n - 1].type != BLOCK_TOOL)
        a->blocks[a->n - 1].open = false;
}

struct ablock *answer_tool(struct answer *a, int index)
{
    for (size_t i = a->n; i-- > 0;)
        if (a->blocks[i].type == BLOCK_TOOL && a->blocks[i].index == index)
            return &a->blocks[i];
    return NULL;
}

bool answer_has_tools(const struct answer *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->blocks[i].type == BLOCK_TOOL)
            return true;
    return false;
}

/* key and then value, or raw (already escaped). */
static void emit_chunk(struct answer *a, const char *type, const char *id, const char *key,
                       const char *value, const char *raw, size_t raw_len)
{
    cleanup(buf_done) struct buf b = BUF_INIT(ANSWER_MAX * 2);

    if (!a->emit)
        return;
    buf_printf(&b, "{\"type\":\"%s\",\"call_id\":", type);
    buf_add_json_str(&b, id, strlen(id));
    if (key) {
        buf_printf(&b, ",\"%s\":", key);
        if (raw) {
            buf_addc(&b, '"');
            buf_add(&b, raw, raw_len);
            buf_addc(&b, '"');
        } else {
            buf_add_json_str(&b, value ? value : "", value ? strlen(value) : 0);
        }
    }
    buf_addc(&b, '}');
    a->sent = true;
    a->emit(b.data, b.len, a->arg);
}

void answer_flush(struct answer *a)
{
    emit_delta(a, "{\"type\":\"thinking_delta\",\"text\":\"", &a->pend_think);
    emit_delta(a, "{\"type\":\"text_delta\",\"text\":\"", &a->pend);
    if (a->pend_args.len) {
        emit_chunk(a, "tool_call_args_delta", a->pend_tool, "args_delta", NULL, a->pend_args.data,
                   a->pend_args.len);
        buf_clear(&a->pend_args);
    }
}

int answer_tool_start(struct answer *a, int index, const char *id, const char *name)
{
    if (a->n >= 1024)
        return ERR_PROVPROTO;
    answer_block_end(a);
    answer_flush(a);
    struct ablock *b = push(a, BLOCK_TOOL, index);
    b->id = xstrdup(id);
    b->name = xstrdup(name);
    emit_chunk(a, "tool_call_start", id, "name", name, NULL, 0);
    return 0;
}

int answer_tool_args_esc(struct answer *a, int index, const char *s, size_t len)
{
    struct ablock *b = answer_tool(a, index);

    if (!b || !b->open)
        return ERR_PROVPROTO;
    if (!len)
        return 0;
    if (a->bytes + len > ANSWER_MAX || buf_add(&b->esc, s, len))
        return ERR_PROVPROTO;
    a->bytes += len;
    b->args_sent = true;
    if (!a->emit)
        return 0;
    if (a->pend.len || a->pend_think.len || (a->pend_args.len && a->pend_tool != b->id))
        answer_flush(a);
    a->pend_tool = b->id;
    return buf_add(&a->pend_args, s, len) ? ERR_PROVPROTO : 0;
}

int answer_tool_args(struct answer *a, int index, const char *s, size_t len)
{
    cleanup(buf_done) struct buf b = BUF_INIT(ANSWER_MAX);

    if (buf_add_json_str(&b, s, len))
        return ERR_PROVPROTO;
    return answer_tool_args_esc(a, index, b.data + 1, b.len - 2);
}

void answer_tool_end(struct answer *a, int index)
{
    for (size_t i = 0; i < a->n; i++) {
        struct ablock *b = &a->blocks[i];

        if (b->type != BLOCK_TOOL || !b->open || (index >= 0 && b->index != index))
            continue;
        if (!b->args_sent)
            (void)answer_tool_args_esc(a, b->index, "{}", 2);
        b->open = false;
        answer_flush(a);
        emit_chunk(a, "tool_call_complete", b->id, NULL, NULL, NULL, 0);
    }
}

void answer_finish(struct answer *a)
{
    char text[128];

    answer_tool_end(a, -1);
    answer_flush(a);
    if (!a->emit)
        return;
    int n = snprintf(
        text, sizeof text,
        "{\"type\":\"done\",\"stop_reason\":\"%s\",\"input_tokens\":%lld,\"output_tokens\":%lld}",
        stop_name(a->stop), (long long)a->in, (long long)a->out);
    a->emit(text, (size_t)n, a->arg);
}

/* The JSON string whose inner text is esc. */
static json_object *unescape(const struct buf *esc)
{
    cleanup(buf_done) struct buf b = BUF_INIT(ANSWER_MAX + 16);
    json_object *o = NULL;

    buf_addc(&b, '"');
    if (esc->len)
        buf_add(&b, esc->data, esc->len);
    buf_addc(&b, '"');
    if (json_parse(b.data, b.len, &o) || !o)
        return json_object_new_string("");
    return o;
}

static json_object *tool_block(const struct ablock *b)
{
    cleanup(json_putp) json_object *text = unescape(&b->esc);
    const char *args = json_object_get_string(text);
    json_object *input = NULL, *o = json_make("type:s id:s name:s", "tool_use", b->id, b->name);

    if (!*args)
        args = "{}";
    if (json_parse(args, strlen(args), &input) || !json_object_is_type(input, json_type_object)) {
        json_put(input);
        json_add(o, "input", json_new());
        json_add_str(o, "input_error", args);
    } else {
        json_add(o, "input", input);
    }
    return o;
}

json_object *answer_content(struct answer *a)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < a->n; i++) {
        struct ablock *b = &a->blocks[i];
        json_object *o = NULL;

        switch (b->type) {
        case BLOCK_TEXT:
            o = json_make("type:s text:o", "text", unescape(&b->esc));
            break;
        case BLOCK_TOOL:
            o = tool_block(b);
            break;
        case BLOCK_THINKING:
            o = json_make("type:s thinking:o", "thinking", unescape(&b->esc));
            if (b->signature)
                json_add_str(o, "signature", b->signature);
            break;
        case BLOCK_REDACTED:
            o = json_make("type:s data:s", "redacted_thinking", b->data);
            break;
        }
        json_push(out, o);
    }
    return out;
}

char *answer_partial(struct answer *a)
{
    cleanup(buf_done) struct buf out = BUF_INIT(ANSWER_MAX);

    for (size_t i = 0; i < a->n; i++)
        if (a->blocks[i].type == BLOCK_TEXT) {
            cleanup(json_putp) json_object *s = unescape(&a->blocks[i].esc);
            buf_adds(&out, json_object_get_string(s));
        }
    return buf_take(&out);
}

void answer_replay(json_object *result, chunk_fn emit, void *arg)
{
    json_object *content = json_arr(result, "content");
    size_t n = content ? json_object_array_length(content) : 0;
    struct answer a;

    answer_init(&a, emit, arg, false);
    for (size_t i = 0; i < n; i++) {
        json_object *b = json_object_array_get_idx(content, i);
        const char *type = json_str(b, "type", "");

        if (str_eq(type, "text")) {
            const char *s = json_str(b, "text", "");
            answer_text(&a, s, strlen(s));
        } else if (str_eq(type, "tool_use")) {
            const char *raw = json_str(b, "input_error", NULL);
            const char *args = raw ? raw : json_text(json_get(b, "input"));

            answer_tool_start(&a, (int)i, json_str(b, "id", ""), json_str(b, "name", ""));
            answer_tool_args(&a, (int)i, args, strlen(args));
            answer_tool_end(&a, (int)i);
        }
    }
    const char *stop = json_str(result, "stop_reason", "end_turn");
    for (int s = STOP_END; s <= STOP_SEQUENCE; s++)
        if (str_eq(stop, stop_name((enum stop)s)))
            a.stop = (enum stop)s;
    a.in = json_int(result, "input_tokens", 0);
    a.out = json_int(result, "output_tokens", 0);
    answer_finish(&a);
    answer_done(&a);
}
