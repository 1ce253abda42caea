#pragma once
/*
 * An answer while it comes in: the blocks so far, usage, and the chunks that go out. Adapters and
 * the builtin provider write into it, whether the caller streams or not. Text and argument pieces
 * may be given as they stand between the quotes of a JSON string ("escaped"): then they are passed
 * on without being decoded.
 */
#include "common/base/buf.h"
#include "common/base/json.h"

#define ANSWER_MAX (12 * 1024 * 1024) /* bytes of all blocks together: below a frame's ceiling */

enum block_type { BLOCK_TEXT, BLOCK_TOOL, BLOCK_THINKING, BLOCK_REDACTED };
struct ablock {
    enum block_type type;
    bool open;
    int index;       /* the provider's number for it */
    char *id, *name; /* tool: call id, Avix name */
    struct buf esc;  /* text, arguments or thinking, escaped */
    char *signature; /* thinking */
    char *data;      /* redacted thinking */
    bool args_sent;
};

enum stop { STOP_NONE, STOP_END, STOP_TOOL, STOP_MAX, STOP_SEQUENCE };
const char *stop_name(enum stop s);

/* A whole chunk object as JSON text. */
typedef void (*chunk_fn)(const char *json, size_t len, void *arg);

struct answer {
    struct ablock *blocks;
    size_t n, cap, bytes;
    struct buf pend;       /* escaped text that has not gone out yet */
    struct buf pend_think; /* the same of thinking */
    struct buf pend_args;  /* and of the arguments of the call pend_tool */
    const char *pend_tool; /* its id, borrowed from the block */
    chunk_fn emit;         /* NULL: the caller does not stream */
    void *arg;
    bool want_thinking, sent; /* sent: at least one chunk went out */
    enum stop stop;
    char stop_detail[64];
    int64_t in, out, cache_read, cache_write, reasoning;
    bool have_in, have_out;
    char request_id[128], model[128];
};

void answer_init(struct answer *a, chunk_fn emit, void *arg, bool want_thinking);
void answer_done(struct answer *a);
/* Forgets everything that came (a retry before the first chunk). */
void answer_reset(struct answer *a);

/* All: 0, or ERR_PROVPROTO when ANSWER_MAX would be passed. */
int answer_text(struct answer *a, const char *s, size_t len);
int answer_text_esc(struct answer *a, const char *s, size_t len);
int answer_thinking_esc(struct answer *a, const char *s, size_t len);
int answer_thinking(struct answer *a, const char *s, size_t len);
/* The thinking block that is open gets its signature (a piece of it). */
void answer_signature(struct answer *a, const char *s, size_t len);
void answer_redacted(struct answer *a, const char *data);
int answer_tool_start(struct answer *a, int index, const char *id, const char *name);
int answer_tool_args(struct answer *a, int index, const char *s, size_t len);
int answer_tool_args_esc(struct answer *a, int index, const char *s, size_t len);
/* Ends the call with this index, or every open one (index < 0). Ends thinking too. */
void answer_tool_end(struct answer *a, int index);
/* The next text begins a new block. */
void answer_block_end(struct answer *a);
struct ablock *answer_tool(struct answer *a, int index); /* NULL if there is none */
bool answer_has_tools(const struct answer *a);

/* Sends what is held back: once for each batch of bytes that was read. */
void answer_flush(struct answer *a);
/* Flushes, and sends `done`. */
void answer_finish(struct answer *a);
/* content of the result: an array of blocks (owned by the caller). */
json_object *answer_content(struct answer *a);
/* Text so far, for data.partial (yours to free()). */
char *answer_partial(struct answer *a);
/* Chunks of an answer that is already complete (a stored or recorded result), through emit. */
void answer_replay(json_object *result, chunk_fn emit, void *arg);
