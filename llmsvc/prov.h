#pragma once
/*
 * Providers at run time: their state (breaker, counters, credential, what was negotiated), and
 * generations: a configuration with the providers it made. A reload makes a new generation; a
 * provider whose section did not change keeps its state.
 */
#include "llmsvc/conf.h"
#include "llmsvc/fault.h"
#include "llmsvc/secret.h"

#define WINDOW_SLOTS 6 /* of 10 s: one minute */
#define NEG_MAX      64

struct counters {
    int64_t requests, errors, in, out;
};

struct breaker {
    int in_row;                  /* failures in a row */
    int64_t open_until, open_ms; /* mono; 0: closed */
    bool probing;                /* one call is out to see */
    struct {
        int64_t slot;
        int calls, fails;
    } win[WINDOW_SLOTS];
};

struct negotiated {
    char model[192];
    unsigned drop;
};

struct prov {
    int refs;
    char name[64];
    char *source;          /* of its section, to see changes */
    struct secret *header; /* "Name: prefix+key" in locked memory, NULL: none */
    bool no_credential;    /* needs one and has none */
    struct breaker breaker;
    struct negotiated neg[NEG_MAX];
    size_t n_neg;
    struct counters total;
    struct {
        int64_t slot, requests, tokens;
    } minute[WINDOW_SLOTS];
    int in_flight, waiting;
    int64_t latency_ms; /* of the last good call, -1: none yet */
    char last_error[256];
    int last_err;
    bool failing; /* the last call failed by the provider's fault */
    struct queue *queue;
    /* models the provider lists itself (discover) */
    json_object *discovered; /* array of {id, context_window} or NULL */
};

struct gen {
    int refs;
    struct llm_conf *conf;
    struct creds *creds;
    struct prov *provs[PROVS_MAX];
};

/* Consumes conf and creds. old may be NULL. */
struct gen *gen_new(struct llm_conf *conf, struct creds *creds, const struct gen *old);
struct gen *gen_ref(struct gen *g);
void gen_unref(struct gen *g);
/* New credentials for the same configuration (consumed). */
void gen_set_creds(struct gen *g, struct creds *creds);

/* May a call go out now? Takes the probe of a breaker that is half open. */
bool breaker_try(struct prov *p, int64_t now);
bool breaker_open(const struct prov *p, int64_t now);
/* What became of a call. f: NULL for success. */
void prov_result(struct prov *p, const struct fault *f, int64_t now, int64_t latency_ms);
void prov_count(struct prov *p, int64_t now, int64_t tokens_in, int64_t tokens_out, bool error);
unsigned prov_dropped(const struct prov *p, const char *model);
void prov_drop(struct prov *p, const char *model, unsigned bit);
/* "available", "degraded" or "unavailable" */
const char *prov_status(const struct prov *p, const struct prov_conf *c, int64_t now);
void prov_window(const struct prov *p, int64_t now, int64_t *requests, int64_t *tokens);
