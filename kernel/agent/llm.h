#pragma once
/* One call of the model, with the retries of section 13 of the agents page. */
#include "kernel/agent/agent.h"

#define OUTPUT_TOKENS 4096

struct llm_ask {
    const char *prompt;            /* goes out as the system text */
    json_object *messages, *tools; /* borrowed; tools may be NULL */
    int max_tokens;
    const char *turn_id; /* of this call */
    const char *stream;  /* turn id under which text goes out in chunks; NULL: not shown. The stream
                            stays open after an answer */
    const char *so_far;  /* text of the turn that calls before this one gave */
    bool fallback;       /* use the cheaper model */
};

enum llm_end { LLM_ANSWERED, LLM_TOO_LONG /* the prompt */, LLM_FAILED };

struct llm_answer {
    json_object *reply; /* owned; content, stop_reason, … */
    const char *stop;   /* borrowed from it */
    int64_t in, out;
    char reason[32];   /* LLM_FAILED: exit reason */
    char message[300]; /* … and in the provider's words */
};
void llm_answer_done(struct llm_answer *a);

/* enum llm_end, or RT_BROKEN(reason): hung up. brk: what breaks the call off. */
int llm_call(const struct llm_ask *q, unsigned brk, struct llm_answer *a);
/* The text blocks of an answer, joined; yours to free(). */
char *llm_text(const struct llm_answer *a);
/* Wait before the try after this many (from 0), -1: no more. */
int64_t llm_retry_ms(int tries);
/* What an error asks for. */
enum llm_retry { RETRY_SOON, RETRY_WHEN_TOLD, RETRY_RENEW, RETRY_NEVER };
enum llm_retry llm_retry_kind(int err);
