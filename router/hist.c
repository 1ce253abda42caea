/* A quantile is the middle of the step in which it lies. */
#include "router/hist.h"

double hist_quantile(const struct hist *h, double q)
{
    uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;

    if (!h->n)
        return 0;
    for (unsigned i = 0; i < HIST_STEPS * HIST_OCTAVES; i++) {
        seen += h->bucket[i];
        if (seen > want) {
            double base = (double)(1U << (i / HIST_STEPS));

            return base * (1.0 + ((double)(i % HIST_STEPS) + 0.5) / HIST_STEPS);
        }
    }
    return 0;
}
