#pragma once
/*
 * Adapters: the internal shape to a provider's request, and its answer back, whole or as stream
 * events. One decoder serves one attempt; it writes into the caller's answer.
 */
#include "llmsvc/answer.h"
#include "llmsvc/fault.h"
#include "llmsvc/shape.h"

/* Where a request goes. */
struct target {
    const struct prov_conf *p;
    const struct model_conf *m; /* NULL: not listed */
    char model[192];
    unsigned drop; /* PARAM_ bits to leave out */
    bool cache_auto;
    int64_t max_tokens; /* effective */
};

struct decoder {
    struct answer *a;
    const struct names *names;
    const struct prov_conf *p;
    struct fault *fault;
    bool closed;      /* the closing event came */
    bool forced_text; /* the forced tool avix_output: its arguments are the text */
    int forced_index;
    bool saw_finish;    /* OpenAI: finish_reason came, usage may follow */
    unsigned n_ids;     /* ids made for calls that came without */
    int block_types[8]; /* Anthropic: open block kinds by index, small ones */
    char refusal[512];
};

struct wire {
    /* Path and query below baseUrl, into out. */
    void (*path)(const struct prov_conf *p, char *out, size_t size);
    /* The request's body. 0, or a contract error with *why (static text). */
    int (*build)(struct lreq *r, const struct target *t, bool stream, struct buf *out,
                 const char **why);
    /* One stream event: 0 or an error that is also in d->fault. */
    int (*event)(struct decoder *d, const char *event, const char *data, size_t len);
    /* The stream is over: 0, or ERR_PROVPROTO if its closing event is missing. */
    int (*end)(struct decoder *d);
    /* A whole answer. */
    int (*whole)(struct decoder *d, json_object *body);
};
/* The adapter of a kind, NULL for one without HTTP. */
const struct wire *wire_of(enum kind k);
extern const struct wire wire_anthropic, wire_openai;

#define FORCED_TOOL "avix_output"

/* baseUrl + path, where a base that ends in /v1 gets no second one. */
void wire_url(const struct prov_conf *p, const char *path, char *out, size_t size);
/* A protocol fault. Returns ERR_PROVPROTO. */
int wire_bad(struct decoder *d, const char *why);
void decoder_init(struct decoder *d, struct answer *a, const struct names *names,
                  const struct prov_conf *p, struct fault *f);
/* Fills counts that the provider did not give: bytes / 4. True if any was estimated. */
bool usage_estimate(struct answer *a, const struct lreq *r);
