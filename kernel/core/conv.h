#pragma once
/*
 * Conversation files (kernel page, section 8): data/users/<u>/agents/<agent>/<invocation>.jsonl.
 * The kernel makes, opens and repairs them; the agent appends to the descriptor it was given. The
 * kernel itself writes only when no process has the file.
 */
#include "common/base/json.h"

struct conv_tail {
    int64_t last_seq;  /* of the last whole line that has one, 0 if none */
    int64_t lines;     /* whole lines */
    bool stopped_note; /* the last line is an [Agent stopped: …] */
};

/* Opens for appending, making the file and its directories (fsync of each); cuts a torn last line.
 * The descriptor, or -errno. tail may be NULL. */
int conv_open(const char *root, const char *user, const char *agent, const char *invocation,
              struct conv_tail *tail);
/* Appends the system line "[Agent stopped: <reason>]" unless it is there. 0 or -errno. */
int conv_stopped(const char *root, const char *user, const char *agent, const char *invocation,
                 const char *reason);
/* Entries offset..offset+limit-1 in the shape of the ATP Entry; tool lines are merged into
 * toolCalls[].result; *ret_total is their number. Owned. A missing file is an empty list. */
json_object *conv_read(const char *root, const char *user, const char *agent,
                       const char *invocation, size_t offset, size_t limit, size_t *ret_total);
/* The same from text. */
json_object *conv_merge(const char *text, size_t len, size_t offset, size_t limit,
                        size_t *ret_total);
/* Raw whole lines of a file, at most max bytes, cut at the front on a line boundary, appended to b.
 * 0, -errno. */
int conv_lines(const char *root, const char *user, const char *agent, const char *invocation,
               size_t max, struct buf *b);
/* Removes the file, and its directory if that is empty now. */
void conv_remove(const char *root, const char *user, const char *agent, const char *invocation);
