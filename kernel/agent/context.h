#pragma once
/*
 * What the model sees of the conversation: the lines of the journal that count, and from them the
 * messages of the next call (agents page, sections 7 and 11). Owns its lines.
 */
#include <sys/types.h>

#include "common/base/json.h"

#define CONTEXT_RESULT_MAX (64 * 1024)   /* a tool result in the context */
#define LINE_RESULT_MAX    (1024 * 1024) /* a tool result on disk */
#define CONTEXT_KEEP       6             /* entries at the end that a summary leaves alone */

enum line_role { LINE_USER, LINE_ASSISTANT, LINE_TOOL, LINE_SYSTEM, LINE_OTHER };

struct entry {
    json_object *line; /* role, content, toolCalls, toolCallId, error, … */
    enum line_role role;
    int64_t seq;
    unsigned file; /* which conversation file: sequence numbers start again in each */
};
struct context {
    struct entry *e;
    size_t n, cap;
    char *summary; /* text of the last summary, "" if none; owned */
    int64_t limit; /* tokens */
    int64_t base;  /* input tokens of the last call, 0 before the first */
    size_t added;  /* bytes added since */
    unsigned file;
};

void context_init(struct context *c, int64_t limit);
void context_done(struct context *c);
/* Adds a line (one more reference). A system line with summaryOf takes the place of what it covers;
 * roles that are not shown to a model are passed over. */
void context_add(struct context *c, json_object *line);
/* JSONL of earlier lines; lines that do not parse are counted and left out. own: of this invocation
 * (else a new file begins with each line 1). Returns how many were left out. */
size_t context_replay(struct context *c, const char *text, size_t len, bool own);
/* The messages array of the next call; yours. */
json_object *context_messages(const struct context *c);
/* Tokens in use by estimate. */
int64_t context_used(const struct context *c);
/* The provider has counted: this many input tokens for all that is here now. */
void context_counted(struct context *c, int64_t input_tokens);
/* True from 85 % of the limit on. */
bool context_full(const struct context *c);

/* The entries a summary would cover: all between the first user entry and the last six, never
 * parting a call from its results. False if there are none. */
bool context_summary_range(const struct context *c, size_t *from, size_t *to);
/* Their messages; yours. */
json_object *context_range_messages(const struct context *c, size_t from, size_t to);
/* Takes the oldest tool results out until the estimate is below the limit's 85 % (all: every one,
 * because the estimate was proven wrong). Returns true if anything was removed. */
bool context_drop_results(struct context *c, bool all);

/* Text cut in the middle to max bytes, the number of bytes that went stated; yours to free(). */
char *text_cut_middle(const char *s, size_t len, size_t max);
/* Index of the last assistant line whose calls do not all have a result, or -1. */
ssize_t context_open_calls(const struct context *c);
/* The result line of a call after entry i, or NULL (borrowed). */
json_object *context_result_of(const struct context *c, size_t i, const char *call_id);
