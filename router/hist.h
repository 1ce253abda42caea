#pragma once
/* Latency histogram: 16 steps per octave of microseconds, 1 us to 134 s, so a quantile is within
 * 3 %. */
#include "common/base/util.h"

#define HIST_STEPS   16
#define HIST_OCTAVES 27
struct hist {
    uint64_t n;
    uint32_t bucket[HIST_STEPS * HIST_OCTAVES];
};

static inline void hist_add(struct hist *h, int64_t us)
{
    unsigned v = us < 1 ? 1 : us > 0x7ffffff ? 0x7ffffff : (unsigned)us;
    unsigned octave = 31 - (unsigned)__builtin_clz(v);
    unsigned step = octave >= 4 ? (v >> (octave - 4)) & 15 : (v << (4 - octave)) & 15;

    h->bucket[octave * HIST_STEPS + step]++;
    h->n++;
}

/* The q-quantile in microseconds, 0 if nothing was measured. */
double hist_quantile(const struct hist *h, double q);
