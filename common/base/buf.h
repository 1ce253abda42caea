#pragma once
/*
 * A byte buffer that grows up to a ceiling given at the start. Appending past the ceiling fails,
 * sets `toobig` and changes nothing. data is always NUL-terminated behind len (once anything was
 * appended).
 */
#include "common/base/util.h"

struct buf {
    char *data;
    size_t len, cap, max;
    bool toobig;
};

#define BUF_INIT(ceiling)                                                   \
    {                                                                       \
        .data = NULL, .len = 0, .cap = 0, .max = (ceiling), .toobig = false \
    }

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);  /* frees; b may be used again, with the same ceiling */
void buf_clear(struct buf *b); /* len 0, memory kept */
/* Room for n more bytes; 0, or ERR_TOOBIG. */
int buf_reserve(struct buf *b, size_t n);
int buf_add(struct buf *b, const void *data, size_t len);
int buf_adds(struct buf *b, const char *s);
int buf_addc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) printf_like(2, 3);
/* Appends s as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
int buf_add_json_str(struct buf *b, const char *s, size_t len);
/* Drops n bytes from the front. */
void buf_shift(struct buf *b, size_t n);
/* The bytes, yours to free(); b is empty afterwards. Never NULL. */
char *buf_take(struct buf *b);
