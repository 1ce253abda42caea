#pragma once
/*
 * What clients see of a turn (agents page, sections 12 and 16): all events of a turn over one
 * connection to the gateway, in order. Best effort but for the text of a turn, which is said again
 * as a whole if the connection broke.
 */
#include "common/base/rnd.h"
#include "kernel/agent/agent.h"

void events_init(void);
/* A stream of a turn begins, unless one is open; chunks count from 0. Waits for the connection of
 * the turn before. True if it was begun. */
bool events_stream_begin(const char *turn_id);
void events_text(const char *text, size_t len);
/* What is waiting goes out now (a tool call starts). */
void events_flush(void);
/* The last chunk; discarded: the text does not count. Nothing if no stream is open. */
void events_stream_end(bool discarded);
/* The whole text of the turn. */
void events_output(const char *turn_id, const char *text);
void events_tool_call(const char *call_id, const char *tool, json_object *args);
/* error: NULL or the failure's text. */
void events_tool_result(const char *call_id, const char *tool, const char *result,
                        const char *error, int64_t ms);
/* The turn is over: the connection is half-closed; it is waited for by the next turn or by
 * events_sync. */
void events_turn_end(void);
/* Ends the turn and waits until the gateway has taken everything, 1 s at most. */
void events_sync(void);
