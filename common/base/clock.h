#pragma once
/* Time. now_* is the wall clock, mono_* never goes back. A test may shift the wall clock by
 * AVIX_TEST_CLOCK_OFFSET_MS (read once, only in builds with -DAVIX_TEST_CLOCK). */
#include "common/base/util.h"

int64_t now_ms(void);
int64_t mono_ms(void);
int64_t mono_us(void);
#define RFC3339_LEN 25 /* "2026-04-25T10:00:00.123Z" and NUL */
/* UTC with milliseconds. Returns out. */
char *rfc3339(int64_t ms, char out[RFC3339_LEN]);
/* Accepts an offset and 0..9 fraction digits. False if malformed. */
bool rfc3339_parse(const char *s, int64_t *ret_ms);
