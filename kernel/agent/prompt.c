/*
 * What changes least stands first, so that a provider's cache holds for as much as possible. Only
 * the manifest, the user's goal, a person's guidance and the executor itself write here; tool
 * results and messages never do.
 */
#include "kernel/agent/prompt.h"

#define PROMPT_MAX (16 * 1024 * 1024)

static void identity(const struct prompt *p, struct buf *b)
{
    buf_printf(b, "You are %s.\nPID: %lld\nSession: %s\nUser: %s\nYour goal: %s\n", p->name,
               (long long)p->pid, p->session, p->user, p->goal);
}

static void block(struct buf *b, const char *text)
{
    if (str_empty(text))
        return;
    buf_addc(b, '\n');
    buf_adds(b, text);
    if (b->data[b->len - 1] != '\n')
        buf_addc(b, '\n');
}

static void tools(const struct prompt *p, struct buf *b)
{
    buf_adds(b, "\n## Available tools\n");
    tools_describe(p->tools, b);
    buf_adds(b, "To get a tool that is not here, call cap/request-tool. To ask a person, call "
                "cap/escalate. To finish, answer in text without a tool call.\n");
}

static void constraints(const struct prompt *p, struct buf *b)
{
    buf_printf(b,
               "\n## Constraints\nTool calls per turn: %d\nTurns left for this goal: %d\n"
               "Context limit: %lld tokens\n",
               p->calls_per_turn, p->turns_left, (long long)p->context_limit);
    if (!p->budgets)
        return;
    json_object_object_foreach (p->budgets, key, v) {
        buf_printf(b, "Uses left of %s: %lld\n", key, (long long)json_object_get_int64(v));
    }
}

static void pending(const struct prompt *p, struct buf *b)
{
    size_t n = p->pending ? json_object_array_length(p->pending) : 0;
    size_t r = p->refused ? json_object_array_length(p->refused) : 0;

    if (!n && !r && str_empty(p->summary))
        return;
    buf_adds(b, "\n## Pending instructions\n");
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%s\n", json_object_get_string(json_object_array_get_idx(p->pending, i)));
    for (size_t i = 0; i < r; i++)
        buf_printf(b, "[System]: %s was denied; do not ask for it again before the next message.\n",
                   json_object_get_string(json_object_array_get_idx(p->refused, i)));
    if (!str_empty(p->summary))
        buf_printf(b, "[Context summary]: %s\n", p->summary);
}

char *prompt_text(const struct prompt *p)
{
    struct buf b = BUF_INIT(PROMPT_MAX);

    identity(p, &b);
    block(&b, p->role);
    block(&b, p->memory);
    tools(p, &b);
    constraints(p, &b);
    pending(p, &b);
    return buf_take(&b);
}
