#pragma once
/* Bytes as a JSON member and back: utf-8 as it is, everything else base64. */
#include "common/base/buf.h"

enum encoding { ENC_AUTO, ENC_UTF8, ENC_BASE64, ENC_COUNT };
extern const char *const encoding_names[ENC_COUNT + 1]; /* NULL-ended, for args_enum_or */

/*
 * How many of the n bytes are shown, and in which encoding. A slice that does not end the file (eof
 * false) is shortened so that no character is cut; auto falls back to base64 when the bytes are not
 * UTF-8. ERR_INVAL: utf-8 was demanded and it is not.
 */
int encode_choose(const char *data, size_t *n, bool eof, enum encoding want, enum encoding *ret);
/* Appends the JSON string. */
int encode_add(struct buf *b, const char *data, size_t n, enum encoding e);
/* Content of a write: yours to free(). ERR_INVAL if malformed base64. ENC_AUTO is utf-8. */
int decode_content(const char *text, size_t len, enum encoding e, char **ret, size_t *ret_len);
