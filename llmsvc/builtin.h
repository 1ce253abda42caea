#pragma once
/*
 * The builtin provider (llm page, section 14): deterministic rules that turn a goal into tool calls
 * and an extractive answer. Its only state is the request: the plan is run again from the start on
 * every call, taking the results that are already in the history.
 */
#include "llmsvc/shape.h"

#define EMBED_DIM  256
#define BI_MODEL   "rules-1"
#define BI_CLOSING "(Answered by Avix built-in rules; no language model is configured.)"

struct lcall;
/* Runs an attempt of a call whose provider is builtin. */
void builtin_attempt(struct lcall *l);

/* What the rules say to a request. */
struct bi_answer {
    char *text;         /* owned, never NULL */
    json_object *calls; /* owned array of {id, name, input}; empty: the text is final */
    bool cut;           /* max_tokens reached */
};
/* 0, or ERR_BADREQ with *why (static) for a response format it cannot fill. */
int builtin_run(const struct lreq *r, int64_t max_tokens, bool request_tools, struct bi_answer *ret,
                const char **why);
void bi_answer_done(struct bi_answer *a);
/* Unit vector of words, word pairs and letter triples; owned array of EMBED_DIM numbers. */
json_object *builtin_embed(const char *s);
