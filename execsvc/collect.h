#pragma once
/*
 * What a program prints, up to a limit: the first and the last half are kept, what was in between
 * is counted.
 */
#include "common/base/buf.h"

struct collect {
    size_t half;
    struct buf head;
    char *tail; /* ring of half bytes */
    size_t tail_at, tail_len;
    uint64_t total;
};

void collect_init(struct collect *c, size_t limit);
void collect_done(struct collect *c);
void collect_add(struct collect *c, const char *data, size_t n);
bool collect_cut(const struct collect *c);
/* Appends it as a JSON string, with a marker line where something was cut. */
void collect_write(const struct collect *c, struct buf *out);
