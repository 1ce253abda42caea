#pragma once
/*
 * Reader of text/event-stream: lines end with LF, CRLF or CR; fields data and event count, the rest
 * is ignored; several data lines join with a newline. Bytes may come cut anywhere.
 */
#include "common/base/buf.h"

#define SSE_EVENT_MAX (4 * 1024 * 1024)

/* One event. event: its name, "" for none. data: NUL-terminated. Not 0: reading stops with it. */
typedef int (*sse_fn)(const char *event, const char *data, size_t len, void *arg);

struct sse {
    sse_fn fn;
    void *arg;
    struct buf line, data;
    char event[64];
    bool has_data, after_cr, started;
};

void sse_init(struct sse *s, sse_fn fn, void *arg);
void sse_done(struct sse *s);
void sse_reset(struct sse *s);
/* 0, ERR_PROVPROTO for an event over the ceiling, or what fn gave. */
int sse_feed(struct sse *s, const char *data, size_t len);
