#pragma once
/*
 * The process's secrets, and their removal from everything that leaves it: each value becomes
 * [secret:<NAME>]. The values live in locked memory and are wiped by mask_done.
 */
#include "common/base/json.h"

#define MASK_MAX 64

struct secret {
    char *name, *value; /* in the locked block */
    size_t len;
};
struct mask {
    struct secret s[MASK_MAX];
    size_t n, longest;
    char *block;
    size_t size;
};

/* From the text of {NAME: value}; empty values are left out. 0 or ERR_INVAL. */
int mask_load(struct mask *m, const char *text, size_t len);
void mask_done(struct mask *m);
/* True if the text holds a value. */
bool mask_hit(const struct mask *m, const char *s, size_t len);
/* Appends s to out with every value replaced. */
void mask_text(const struct mask *m, const char *s, size_t len, struct buf *out);
/* A copy of v with every text masked, member names too; or v itself (one more reference) if
 * nothing was found. Yours. */
json_object *mask_json(const struct mask *m, json_object *v);
/* How many bytes at the end of s may be the beginning of a value: to be held back. */
size_t mask_tail(const struct mask *m, const char *s, size_t len);
