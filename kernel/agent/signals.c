/*
 * A sealed process cannot look up who connected to it, so a signal is believed by its key. Whatever
 * else arrives is closed without a word. The kernel repeats a frame whose close it did not see: ids
 * that were here already change nothing.
 */
#include "kernel/agent/signals.h"

#include "common/base/b64.h"
#include "common/base/log.h"
#include "kernel/agent/report.h"
#include "kernel/agent/token.h"

struct signals sig;

#define STARTS_MAX 256
#define TEXT_MAX   (1024 * 1024)

static struct timer grace;

static void on_late(void *arg)
{
    (void)arg;
    sig.late = true;
}

static void stop(const char *reason)
{
    if (sig.stop)
        return;
    sig.stop = true;
    str_copy(sig.stop_reason, sizeof sig.stop_reason, reason);
    timer_set(&grace, (int64_t)self.st.stop_grace_sec * 500);
}

void signals_init(void)
{
    timer_init(&grace, self.loop, on_late, NULL);
    sig = (struct signals){ .starts = json_new_arr(),
                            .messages = json_new_arr(),
                            .guidance = json_new_arr() };
}

json_object *signals_shift(json_object *list)
{
    if (!json_object_array_length(list))
        return NULL;
    json_object *first = json_object_get(json_object_array_get_idx(list, 0));
    json_object_array_del_idx(list, 0, 1);
    return first;
}

unsigned signals_pending(void)
{
    return (unsigned)(json_object_array_length(sig.starts) +
                      json_object_array_length(sig.messages));
}

static bool seen_before(const char *id)
{
    uint64_t h = hash_str(id);

    if (!*id)
        return false;
    for (unsigned i = 0; i < N_ELEMS(sig.seen); i++)
        if (sig.seen[i] == h)
            return true;
    sig.seen[sig.n_seen++ % N_ELEMS(sig.seen)] = h;
    return false;
}

static void on_pause(json_object *p)
{
    (void)p;
    sig.pause = true;
}

static void on_resume(json_object *p)
{
    const char *token = json_str(p, "new_capability_token", "");

    if (*token) {
        token_set(token, NULL);
        sig.tools_stale = true;
    }
    sig.pause = false;
}

/* To be put to sleep does not hold for an agent that has something to do again. */
static void on_stop(json_object *p)
{
    if (str_eq(json_str(p, "reason", ""), "hibernate") && signals_pending())
        return;
    stop(json_str(p, "reason", "stopped"));
}

/* Text attachments go into the message, files are named; anything else cannot be read. */
static void add_attachments(struct buf *b, json_object *list)
{
    for (size_t i = 0; list && i < json_object_array_length(list) && i < 16; i++) {
        json_object *a = json_object_array_get_idx(list, i);
        const char *path = json_str(a, "path", json_str(a, "vfs_ref", ""));
        const char *type = json_str(a, "media_type", json_str(a, "mimeType", ""));
        const char *data = json_str(a, "data", json_str(a, "inline", ""));
        size_t len = 0;
        if (*path && !str_starts(path, "/secrets")) {
            buf_printf(b, "\n[Attachment: %s]", path);
        } else if (*data && str_starts(type, "text/")) {
            cleanup(freep) char *text = b64_decode_new(data, strlen(data), &len);
            if (text && utf8_valid(text, len))
                buf_printf(b, "\n[Attachment %s]\n%.*s", json_str(a, "name", ""), (int)len, text);
        } else {
            buf_adds(b, "\n[Attachment left out: only text and files can be read]");
        }
    }
}

/* Text and the attachments of the same payload; yours to free(). */
static char *with_attachments(const char *text, json_object *p)
{
    struct buf b = BUF_INIT(TEXT_MAX);

    buf_adds(&b, text);
    add_attachments(&b, json_arr(p, "attachments"));
    return b.data ? buf_take(&b) : xstrdup("");
}

static void on_start(json_object *p)
{
    cleanup(freep) char *goal = with_attachments(json_str(p, "goal", ""), p);

    if (json_object_array_length(sig.starts) >= STARTS_MAX) {
        log_warn("SIGSTART dropped: too many goals waiting");
        return;
    }
    json_push(sig.starts, json_make("goalId:s goal:s", json_str(p, "goalId", ""), goal));
}

/* From a human: plain. From an agent: with its name before it. */
static void on_message(json_object *p)
{
    cleanup(freep) char *text = with_attachments(json_str(p, "text", ""), p);
    json_object *agent = json_obj(p, "fromAgent");
    const char *id = json_str(p, "messageId", "");

    if (json_object_array_length(sig.messages) >= MESSAGES_MAX) {
        log_warn("message dropped: %d are waiting", MESSAGES_MAX);
        return;
    }
    for (size_t i = 0; *id && i < json_object_array_length(sig.messages); i++)
        if (str_eq(json_str(json_object_array_get_idx(sig.messages, i), "messageId", ""), id))
            return; /* sent again */
    cleanup(freep) char *full =
        agent ? xasprintf("Message from agent %s (PID %lld):\n%s", json_str(agent, "name", ""),
                          (long long)json_int(agent, "pid", 0), text)
              : xstrdup(text);
    json_object *m = json_make("text:s messageId:s", full, id);
    if (json_get(p, "from"))
        json_add(m, "from", json_object_get(json_get(p, "from")));
    json_push(sig.messages, m);
}

static void on_pipe(json_object *p)
{
    const char *pipe = json_str(p, "pipeId", "");

    if (*pipe && str_eq(json_str(p, "event", ""), "closed")) {
        char *line = xasprintf("[System]: pipe %s was closed by the other side.", pipe);
        json_push_str(sig.guidance, line);
        free(line);
    } else if (!*pipe) {
        on_message(p);
    }
}

static void on_usr1(json_object *p)
{
    const char *event = json_str(p, "event", "");

    if (str_eq(event, "token")) {
        const char *token = json_str(p, "new_capability_token", json_str(p, "token", ""));
        if (*token) {
            token_set(token, json_str(p, "expiresAt", NULL));
            sig.tools_stale = true;
        }
    } else if (str_eq(event, "kernel_restarted")) {
        if (sig.live)
            report_full();
        else
            sig.restarted = true; /* begins again at agent.ready */
    }
}

static const struct {
    const char *name;
    void (*take)(json_object *payload);
} table[] = {
    { "SIGSTART", on_start }, { "SIGPAUSE", on_pause }, { "SIGRESUME", on_resume },
    { "SIGSTOP", on_stop },   { "SIGPIPE", on_pipe },   { "SIGUSR1", on_usr1 },
};

void signals_take(json_object *params)
{
    const char *name = json_str(params, "signal", "");

    if (seen_before(json_str(params, "signalId", "")))
        return;
    str_copy(sig.last, sizeof sig.last, name);
    for (size_t i = 0; i < N_ELEMS(table); i++)
        if (!strcmp(table[i].name, name)) {
            log_debug("%s", name);
            table[i].take(json_obj(params, "payload"));
            return;
        }
}

void signals_frame(struct call *c, void *arg)
{
    const char *token = json_str(c->params, "_token", ""), *key = self.st.signal_key;
    size_t len = strlen(key);

    (void)arg;
    if (str_eq(c->method, "signal") && strlen(token) == len && ct_equal(token, key, len))
        signals_take(c->params);
    call_end(c);
}

void signals_term(void *arg)
{
    (void)arg;
    stop("terminated");
}
