#pragma once
/*
 * A file of JSON lines in the run dir: state that outlives the process but not the machine. A line
 * is one write(2), so kill -9 leaves whole lines and at most one cut one at the end, which is
 * ignored. The owner compacts it when it has grown.
 */
#include "common/base/json.h"

struct journal;
typedef void (*journal_line_fn)(json_object *line, void *arg); /* borrowed */

/* Reads what is there through fn, then opens for appending. Never NULL: without a file (logged) it
 * works in memory only. */
struct journal *journal_open(const char *path, journal_line_fn fn, void *arg);
void journal_add(struct journal *j, json_object *line); /* taken */
/* Bytes that were added since the last compaction or start. */
size_t journal_grown(const struct journal *j);
/* Replaces the content: lines as JSON texts, each ended by a newline. */
void journal_replace(struct journal *j, const char *text, size_t len);
void journal_close(struct journal *j);
