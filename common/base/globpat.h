#pragma once
/*
 * Patterns over relative paths: * ? [] within a component, ** over any number of them, {a,b}
 * alternatives (nested, at most 64 after expansion).
 */
#include "common/base/util.h"

#define GLOB_ALTS 64

struct globpat {
    char *alts[GLOB_ALTS]; /* expanded patterns, owned */
    size_t n;
    int depth_max; /* components a match can have; -1: any */
};

/* 0, or ERR_INVAL: too many alternatives, unbalanced braces, too long. */
int globpat_init(struct globpat *g, const char *pattern);
void globpat_done(struct globpat *g);
bool globpat_match(const struct globpat *g, const char *rel);
