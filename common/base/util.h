#pragma once
/*
 * Small things every room uses: the cleanup idiom, checked integers, hashing, constant-time
 * compare. Nothing here allocates unless it says so.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* unused: a guard that is held for its end alone is a use */
#define cleanup(fn)       __attribute__((cleanup(fn), unused))
#define printf_like(f, a) __attribute__((format(printf, f, a)))
/* Value of an owning local, which forgets it: return TAKE(p). */
#define TAKE(p)                    \
    __extension__({                \
        __typeof__(p) take_ = (p); \
        (p) = NULL;                \
        take_;                     \
    })
#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))
/* The struct that holds a member, from the member's address. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

void freep(void *p);      /* cleanup(freep) char *s: frees *p */
void closep(int *fd);     /* cleanup(closep) int fd = -1: closes *fd if >= 0, keeps errno */
void dirp_close(void *d); /* cleanup for DIR * */

/* malloc and kin that never return NULL: an allocation failure ends the process (init uses its
 * own). */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) printf_like(1, 2);

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* NULL or "". Inline, so that checkers see what it says of s. */
static inline bool str_empty(const char *s)
{
    return !s || !*s;
}
/* Copies s (cut to fit) and ends it; false if it was cut. */
bool str_copy(char *dst, size_t size, const char *s);
/* Whole decimal text as an integer within min..max; false otherwise, *ret untouched. */
bool parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret);
/* "15", "250ms", "30s", "5m", "2h", "7d" as milliseconds; false if malformed. Bare integers are
 * seconds. */
bool parse_duration_ms(const char *s, int64_t *ret_ms);
/* True if s (len bytes) is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool utf8_valid(const char *s, size_t len);
/* Length of the longest prefix of s that does not end inside a UTF-8 sequence. */
size_t utf8_floor(const char *s, size_t len);
/* FNV-1a, 64 bit. */
uint64_t hash_bytes(const void *data, size_t len);
uint64_t hash_str(const char *s);
/* Equality in time that depends on len alone. */
bool ct_equal(const void *a, const void *b, size_t len);
/* Shell-style match of one name: * ? [] ; no special meaning of '/' or '.'. */
bool glob_match(const char *pattern, const char *s);
/* Matches a tool against "a/b/c" (exact) or a prefix pattern "a/b/" + star, or "*". */
bool tool_pattern_match(const char *pattern, const char *tool);
