#pragma once
/*
 * Streamed text of one turn on its way to the clients: collected until 80 bytes are waiting or 50
 * ms have passed since the first of them, cut only between UTF-8 characters, with the process's
 * secrets replaced (what may be the start of one waits).
 */
#include "common/ipc/loop.h"
#include "kernel/agent/mask.h"

#define CHUNK_BYTES 80
#define CHUNK_MS    50

struct chunker {
    struct buf pending;
    struct timer timer;
    const struct mask *mask;
    size_t total; /* bytes taken in since chunk_begin */
    void (*emit)(const char *text, size_t len, void *arg);
    void *arg;
};

void chunk_init(struct chunker *c, struct loop *l, const struct mask *m,
                void (*emit)(const char *, size_t, void *), void *arg);
void chunk_begin(struct chunker *c);
void chunk_text(struct chunker *c, const char *text, size_t len);
/* Emits what may go: all of it but the start of a character (a secret: only if last is false). */
void chunk_flush(struct chunker *c, bool last);
/* Forgets what is waiting. */
void chunk_drop(struct chunker *c);
void chunk_done(struct chunker *c);
