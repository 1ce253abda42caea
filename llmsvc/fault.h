#pragma once
/*
 * A failed provider call: which error of the llm page (section 9) it is, what its data holds, and
 * whether trying again can help. Texts of providers are cut and masked before they get in here.
 */
#include "common/base/err.h"
#include "common/base/json.h"
#include "llmsvc/conf.h"

struct fault {
    int err; /* enum err; 0: none */
    int status;
    char type[64], message[520], request_id[128], param[64];
    int64_t retry_after_ms; /* -1: not said */
    int64_t limit, tokens;  /* ECONTEXT: when known, else 0 */
    bool retry;             /* same request again may help */
    bool spent;             /* EQUOTA of the provider */
    unsigned drop;          /* EBADREQ that names an optional parameter: its PARAM_ bit */
    char *partial;          /* owned: text that came before a refusal */
    const char *scope;      /* EQUOTA: "user" or "provider"; else NULL */
    char node[128];
    json_object *extra; /* owned: more members of data, or NULL */
};
#define FAULT_NONE                     \
    {                                  \
        .err = 0, .retry_after_ms = -1 \
    }

void fault_done(struct fault *f);
void fault_set(struct fault *f, int err, const char *fmt, ...) printf_like(3, 4);
/* The data object of the error answer (owned by the caller). */
json_object *fault_data(const struct fault *f, const char *provider, int attempts);

/* Header values that an error may come with; "" or NULL when absent. */
struct fault_head {
    const char *retry_after, *retry_after_ms, *request_id, *should_retry;
};
/* Maps an HTTP error answer. now_ms: for a Retry-After date. */
void fault_from_http(struct fault *f, const struct prov_conf *p, int status,
                     const struct fault_head *h, const char *body, size_t len, int64_t now);
/* Maps an error object that came inside a stream. */
void fault_from_event(struct fault *f, const struct prov_conf *p, json_object *error);
/* "12", "1.5", or an HTTP date, as milliseconds from now, at least 0; -1 if neither. */
int64_t retry_after_parse(const char *s, int64_t now);

/* Copies text, cut to size, control characters as blanks, with everything that looks like a key
 * (or is one of ours) replaced. */
void mask_text(char *out, size_t size, const char *in);
/* The same without cutting (size is enough for strlen + 16), control characters kept. */
void mask_secrets(char *out, size_t size, const char *in);
/* A secret that must never show (borrowed until mask_forget). */
void mask_remember(const char *secret);
void mask_forget(const char *secret);
