#pragma once
/*
 * The state of the running service: the current generation, and calls in flight. A call
 * (call.c) goes through route, admission, reservation, attempts and answer; each step may wait.
 */
#include "common/svc/svc.h"
#include "llmsvc/account.h"
#include "llmsvc/http.h"
#include "llmsvc/prov.h"
#include "llmsvc/queue.h"
#include "llmsvc/replay.h"
#include "llmsvc/route.h"
#include "llmsvc/sse.h"
#include "llmsvc/usage.h"
#include "llmsvc/wire.h"

struct core {
    struct gen *gen; /* what new calls use */
    int64_t since;   /* wall clock of the counters' start */
    size_t n_calls;
    bool stopping;
};
extern struct core core;

/* Result members of an answer, content included (owned). */
struct lcall;
struct lcall {
    struct call *c; /* NULL once answered */
    bool stream, gone;
    char user[80], agent_user[64], call_id[37];
    int64_t pid;
    bool agent, guest;
    struct lreq req;
    struct gen *gen;
    struct route route;
    size_t at; /* candidate in use */
    struct prov *prov;
    const struct prov_conf *conf;
    struct target target;
    struct fault fault, first; /* of this attempt; of the first candidate */
    struct answer ans;
    struct decoder dec;
    struct sse *sse;
    struct buf body;  /* request */
    struct buf whole; /* answer that is no stream */
    struct http *http;
    struct secret *key; /* the header in use */
    struct ticket *ticket;
    struct reservation *reserve;
    struct timer timer;
    int attempts, tries;
    bool reserved, extending, slow, cut, negotiated;
    int64_t reserved_tokens, started, deadline, first_started;
    int64_t queue_ms;
    struct canned *canned;      /* builtin and replay: what is still to be sent */
    json_object *canned_result; /* of a cassette: given as it was recorded */
    size_t tape_prov;           /* the replay provider that records */
    struct tape_rec *rec;       /* a recording of this call */
    char *head_extra[16];       /* header lines made for the attempt */
    size_t n_head_extra;
};

/* llm/complete and llm/stream_complete. */
void call_begin(struct call *c, const struct caller *w, bool stream);
/* call_end.c: what becomes of an attempt and of a call. */
void call_good(struct lcall *l);                            /* the answer is complete */
void call_bad(struct lcall *l);                             /* the attempt failed: l->fault */
void call_fail_now(struct lcall *l, const struct fault *f); /* answers with the error */
void call_free(struct lcall *l);
void call_record(struct lcall *l); /* accounts what came so far */
void call_attempt(struct lcall *l);
void call_candidate(struct lcall *l); /* starts with candidate l->at */
void call_flush(struct lcall *l);     /* sends chunks; pauses the source for a slow caller */
json_object *call_result(struct lcall *l);
/* Sends a chunk as a notification. */
void call_chunk(const char *json, size_t len, void *arg);
/* Asks authsvc for the secrets again, in the background, at most every few seconds. */
void creds_refresh(void);
bool prov_up(size_t i, void *gen);
int64_t cost_micro(const struct model_conf *m, int64_t in, int64_t out, int64_t cache_read,
                   int64_t cache_write);
