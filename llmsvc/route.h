#pragma once
/* Which provider and model a request goes to (llm page, section 2). */
#include "llmsvc/conf.h"

struct cand {
    size_t prov; /* index in conf->provs */
    char model[192];
};
struct route {
    struct cand c[1 + FALLBACK_MAX];
    size_t n;
    size_t first; /* the provider that was meant, whatever came of it */
    bool named;   /* the caller named the provider: no fallback */
};
struct route_ask {
    const char *provider, *model; /* "" for none */
    enum modality modality;
    bool allow_fallback, may_choose; /* may_choose: holds the grant for a scoped provider */
};
/* Says whether a provider can take calls now. */
typedef bool (*route_up_fn)(size_t prov, void *arg);
/* 0, or a contract error with its text in msg. up may be NULL (all are). Candidates are in the
 * order in which they are tried; one that is down is left out unless it is the only one. */
int route_pick(const struct llm_conf *c, const struct route_ask *q, route_up_fn up, void *arg,
               struct route *r, char msg[256]);
