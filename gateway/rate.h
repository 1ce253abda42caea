#pragma once
/* A token bucket: `rate` per second, `burst` at once. Zeroed, it is full. */
#include "common/base/util.h"

struct bucket {
    double level; /* taken and not yet given back */
    int64_t at_ms;
};
static inline bool bucket_take(struct bucket *b, double rate, double burst, double n,
                               int64_t now_ms)
{
    b->level -= (double)(now_ms - b->at_ms) * rate / 1000.0;
    b->at_ms = now_ms;
    if (b->level < 0)
        b->level = 0;
    if (b->level + n > burst)
        return false;
    b->level += n;
    return true;
}
