#pragma once
/* Randomness from the kernel (getrandom), and the text forms made of it. Never fails: no entropy
 * ends the process. */
#include "common/base/util.h"

void rnd_bytes(void *out, size_t len);
#define UUID_LEN 37              /* text and NUL */
char *uuid4(char out[UUID_LEN]); /* RFC 4122 version 4, lower case. Returns out. */
bool uuid_valid(const char *s);
/* n base62 characters (n * 5.95 bits), ended with NUL; out holds n + 1. */
void rnd_base62(char *out, size_t n);
