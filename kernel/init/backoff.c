/* Restart delays of built-in units: at once the first time, then 200 ms doubled up to 10 s with 10
 * % jitter; a minute of running forgives everything. */
#include "kernel/init/init.h"

#define FORGIVE_MS 60000
#define FIRST_MS   200
#define MAX_MS     10000

int64_t backoff_next(struct backoff *b, int64_t ran_ms, int jitter)
{
    if (ran_ms >= FORGIVE_MS)
        b->fails = 0;
    int n = b->fails++;

    if (n == 0)
        return 0;
    int64_t ms = n > 6 ? MAX_MS : (int64_t)FIRST_MS << (n - 1);

    if (ms > MAX_MS)
        ms = MAX_MS;
    return ms + ms * jitter / 1000;
}
