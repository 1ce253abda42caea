#pragma once
/* Making room in a full context (agents page, section 11). */
#include "kernel/agent/agent.h"

/* Summarises, else removes old results, else asks the kernel for a larger context. n: number of the
 * next model call at this place, counted on. by_force: the provider said that it does not fit. 0:
 * there is room; 1: there is not; below 0: broken off. */
int summary_make_room(unsigned *n, const char *prompt, bool by_force);
/* The entries as one text, as the summary's request shows them; yours to free(). For tests. */
char *summary_transcript(const struct context *c, size_t from, size_t to);
