#pragma once
/*
 * Credentials: found by the order of the llm page, section 13, and kept in locked memory that is
 * left out of dumps and wiped when it is given up.
 */
#include "common/base/util.h"

struct llm_conf;

/* A secret text, counted; the last unref wipes it. locked (may be NULL) becomes false if the memory
 * could not be locked. */
struct secret {
    int refs;
    char *text; /* NUL-terminated, page-aligned */
    size_t size;
};
struct secret *secret_new(size_t size, bool *locked);
struct secret *secret_ref(struct secret *s); /* NULL is fine */
void secret_unref(struct secret *s);         /* NULL is fine */

/* All values that the file's names resolve to. */
struct creds;
/* Asks authsvc (blocking; 2 s), then the environment, then N_FILE, for every name in the file. Safe
 * in a thread of its own. Never NULL. */
struct creds *creds_load(const struct llm_conf *c);
void creds_free(struct creds *c);
/* Borrowed value, NULL if the name was not found anywhere. */
const char *creds_get(const struct creds *c, const char *name);
bool creds_locked(const struct creds *c);    /* every value lies in locked memory */
bool creds_reachable(const struct creds *c); /* authsvc answered */
