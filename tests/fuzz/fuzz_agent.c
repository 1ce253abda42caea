/*
 * What an agent reads from others: a conversation file, a start document, secrets, a registry's
 * tool list with arguments for its schemas. The first byte chooses.
 */
// links: kernel/agent/start.c kernel/agent/context.c kernel/agent/validate.c kernel/agent/mask.c
// links: kernel/agent/tools.c kernel/agent/prompt.c
#include "kernel/agent/context.h"
#include "kernel/agent/mask.h"
#include "kernel/agent/prompt.h"
#include "kernel/agent/start.h"
#include "kernel/agent/validate.h"

static void conversation(const char *text, size_t len)
{
    struct context c;
    size_t from, to;

    context_init(&c, 50);
    (void)context_replay(&c, text, len / 2, false);
    (void)context_replay(&c, text + len / 2, len - len / 2, true);
    json_put(context_messages(&c));
    ssize_t open = context_open_calls(&c);
    if (open >= 0 && (size_t)open >= c.n)
        abort();
    if (context_summary_range(&c, &from, &to) && (from >= to || to > c.n))
        abort();
    (void)context_drop_results(&c, false);
    json_put(context_messages(&c));
    context_done(&c);
}

static void start(const char *text, size_t len)
{
    struct start s;
    char why[64];

    if (start_parse(text, len, 157, &s, why, sizeof why) == 0) {
        if (s.pid != 157 || s.max_tool_chain < 1 || s.max_turns < 1 || s.context_limit < 1)
            abort();
        start_done(&s);
    }
}

static void secrets(const char *text, size_t len)
{
    const char *nl = memchr(text, '\n', len);
    struct buf b = BUF_INIT(1 << 20);
    struct mask m;

    if (!nl || mask_load(&m, text, (size_t)(nl - text)))
        return;
    size_t n = len - (size_t)(nl - text) - 1, tail = mask_tail(&m, nl + 1, n);
    if (tail > n || (tail && tail >= m.longest))
        abort();
    mask_text(&m, nl + 1, n, &b);
    buf_done(&b);
    mask_done(&m);
}

static void tools(const char *text, size_t len)
{
    const char *nl = memchr(text, '\n', len);
    json_object *reply = NULL, *args = NULL;
    struct tools t = { .n = 0 };
    struct buf b = BUF_INIT(1 << 20);
    char why[32];

    if (nl && json_parse(text, (size_t)(nl - text), &reply) == 0) {
        (void)json_parse(nl + 1, len - (size_t)(nl - text) - 1, &args);
        (void)tools_apply(&t, reply, NULL, 100, NULL);
        tools_load(&t, reply);
        json_put(tools_wire(&t, NULL));
        tools_describe(&t, &b);
        for (size_t i = 0; i < t.n; i++)
            (void)schema_fits(t.t[i].schema, args, why, sizeof why);
    }
    buf_done(&b);
    tools_done(&t);
    json_put(reply);
    json_put(args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const all[])(const char *, size_t) = { conversation, start, secrets, tools };

    if (size)
        all[data[0] % N_ELEMS(all)]((const char *)data + 1, size - 1);
    return 0;
}
