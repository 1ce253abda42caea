/*
 * The connection of a turn is opened by its first event and closed before any state is reported, so
 * no status overtakes text. A gateway that dies takes with it what it had not yet read: that is
 * seen as a broken connection, and the text of the turn goes out once more (clients replace it by
 * its turn id). While the gateway is away its socket is held by init and frames wait there.
 */
#include "kernel/agent/events.h"

#include <stdio.h>

#include "common/base/log.h"
#include "kernel/agent/rt.h"

#define FEED_MAX (4 * 1024 * 1024)
/* a gateway that was killed again and again is back by then: init backs off */
#define CLOSE_MS  5000
#define VALUE_MAX 4096
#define TEXT_MAX  (256 * 1024)
#define AGAIN_MAX 3

static struct {
    struct chunker chunks;
    struct ipc_feed *feed;
    bool closing; /* a half-closed connection is waited for */
    bool settled; /* no connection is open */
    bool broken;  /* something of this turn may be lost */
    int again;    /* how often the text was said again */
    bool streaming;
    char turn[UUID_LEN];
    int64_t seq;
    json_object *output; /* the last agent.output of this turn */
    unsigned long dropped;
} ev;

static json_object *envelope(const char *event, json_object *body)
{
    return json_make("event:s body:o scope:o", event, body, json_make("user:s", self.st.user));
}

static void on_break(void *arg)
{
    (void)arg;
    ev.broken = true;
}

static bool ensure_feed(void)
{
    if (ev.feed)
        return true;
    ev.feed = ipc_feed_open(self.loop, self.gateway, FEED_MAX);
    ipc_feed_on_break(ev.feed, on_break, NULL);
    ev.settled = false;
    return ev.feed != NULL;
}

/* body is taken. */
static void publish(const char *event, json_object *body)
{
    cleanup(json_putp) json_object *params = envelope(event, body);
    int r = ERR_UNAVAIL;

    for (int i = 0; i < 2 && r == ERR_UNAVAIL && ensure_feed(); i++) {
        r = ipc_feed_send(ev.feed, "event.publish", params);
        if (r == ERR_UNAVAIL) {
            ipc_feed_abort(TAKE(ev.feed));
            ev.settled = true;
            ev.broken = true;
        }
    }
    if (r && !ev.dropped++)
        log_info("events are being dropped: the bus is away");
}

static json_object *body_of_agent(void)
{
    return json_make("pid:i session_id:s", self.st.pid, self.st.session);
}

static void chunk(const char *text, size_t len, bool final, bool discarded)
{
    json_object *b = body_of_agent();

    json_add_str(b, "turn_id", ev.turn);
    json_add(b, "text_delta", json_object_new_string_len(text, (int)len));
    json_add_int(b, "seq", ev.seq++);
    json_add_bool(b, "is_final", final);
    if (discarded)
        json_add_bool(b, "discarded", true);
    publish("agent.output.chunk", b);
}

static void on_chunk(const char *text, size_t len, void *arg)
{
    (void)arg;
    chunk(text, len, false, false);
}

void events_init(void)
{
    chunk_init(&ev.chunks, self.loop, &self.mask, on_chunk, NULL);
    ev.settled = true;
}

static void on_closed(void *arg)
{
    (void)arg;
    ev.closing = false;
    ev.settled = true;
    if (!ev.broken || !ev.output || ev.again++ >= AGAIN_MAX)
        return;
    ev.broken = false;
    publish("agent.output", json_object_get(ev.output));
    events_turn_end();
}

void events_turn_end(void)
{
    struct ipc_feed *f = TAKE(ev.feed);

    if (!f) {
        if (ev.broken && !ev.closing)
            on_closed(NULL);
        return;
    }
    ev.closing = true;
    ipc_feed_close(f, CLOSE_MS, on_closed, NULL);
}

void events_sync(void)
{
    events_turn_end();
    (void)rt_until(&ev.settled, 0); /* each close has its own second */
}

static void forget_turn(void)
{
    json_put(ev.output);
    ev.output = NULL;
    ev.broken = false;
    ev.again = 0;
}

bool events_stream_begin(const char *turn_id)
{
    if (ev.streaming)
        return false;
    if (!str_eq(ev.turn, turn_id)) {
        if (ev.closing)
            (void)rt_until(&ev.settled, 0);
        forget_turn();
        str_copy(ev.turn, sizeof ev.turn, turn_id);
    }
    ev.seq = 0;
    ev.streaming = true;
    chunk_begin(&ev.chunks);
    return true;
}

void events_text(const char *text, size_t len)
{
    if (ev.streaming)
        chunk_text(&ev.chunks, text, len);
}

void events_flush(void)
{
    if (ev.streaming)
        chunk_flush(&ev.chunks, false);
}

void events_stream_end(bool discarded)
{
    if (!ev.streaming)
        return;
    ev.streaming = false;
    if (discarded)
        chunk_drop(&ev.chunks);
    else
        chunk_flush(&ev.chunks, true);
    if (ev.seq || !discarded)
        chunk("", 0, true, discarded);
}

void events_output(const char *turn_id, const char *text)
{
    json_object *b = body_of_agent();
    size_t len = strlen(text), n = len <= TEXT_MAX ? len : utf8_floor(text, TEXT_MAX);

    json_add(b, "text", json_object_new_string_len(text, (int)n));
    json_add_str(b, "turn_id", turn_id);
    if (n < len)
        json_add_bool(b, "truncated", true);
    json_put(ev.output);
    ev.output = json_object_get(b);
    publish("agent.output", b);
}

/* Long texts in args are cut; *cut says so. Yours. */
static json_object *short_values(json_object *v, bool *cut)
{
    if (json_object_is_type(v, json_type_string) && json_object_get_string_len(v) > VALUE_MAX) {
        const char *s = json_object_get_string(v);
        *cut = true;
        return json_object_new_string_len(s, (int)utf8_floor(s, VALUE_MAX));
    }
    if (!json_object_is_type(v, json_type_object)) {
        if (strlen(json_text(v)) <= VALUE_MAX)
            return json_object_get(v);
        *cut = true;
        return json_object_new_string_len(json_text(v), (int)utf8_floor(json_text(v), VALUE_MAX));
    }
    json_object *o = json_new();
    json_object_object_foreach (v, key, e) {
        json_add(o, key, e ? short_values(e, cut) : NULL);
    }
    return o;
}

void events_tool_call(const char *call_id, const char *tool, json_object *args)
{
    json_object *b = body_of_agent();
    bool cut = false;

    json_add_str(b, "callId", call_id);
    json_add_str(b, "tool", tool);
    json_add(b, "args", args ? short_values(args, &cut) : json_new());
    if (cut)
        json_add_bool(b, "truncated", true);
    publish("agent.tool_call", b);
}

void events_tool_result(const char *call_id, const char *tool, const char *result,
                        const char *error, int64_t ms)
{
    json_object *b = body_of_agent();
    cleanup(freep) char *text = error ? xasprintf("Error: %s", error) : xstrdup(result);
    size_t len = strlen(text), n = len <= VALUE_MAX ? len : utf8_floor(text, VALUE_MAX);

    json_add_str(b, "callId", call_id);
    json_add_str(b, "tool", tool);
    json_add(b, "result", json_object_new_string_len(text, (int)n));
    if (error)
        json_add_str(b, "error", error);
    json_add_int(b, "durationMs", ms);
    if (n < len)
        json_add_bool(b, "truncated", true);
    publish("agent.tool_result", b);
}
