#pragma once
/* Base64 (RFC 4648), the url alphabet without padding for tokens and the standard one with padding
 * for data. */
#include <sys/types.h>

#include "common/base/util.h"

#define B64URL_LEN(n) (((n)*4 + 2) / 3) /* without NUL */
/* Encodes and ends with NUL; out holds B64URL_LEN(len) + 1. Returns the length. */
size_t b64url_encode(const void *data, size_t len, char *out);
/* Decodes strictly (no padding, no blanks, unused bits zero); -1 if malformed or larger than cap.
 */
ssize_t b64url_decode(const char *s, size_t len, void *out, size_t cap);
/* Standard alphabet with padding. Returned text is yours to free(). */
char *b64_encode_new(const void *data, size_t len);
/* Strict; bytes are yours to free(), *ret_len their number; NULL if malformed. */
void *b64_decode_new(const char *s, size_t len, size_t *ret_len);
void hex_encode(const void *data, size_t len, char *out); /* lower case, NUL */
bool hex_decode(const char *s, size_t len,
                void *out); /* len hex digits (even) into len / 2 bytes */
