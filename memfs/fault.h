#pragma once
/* Why an operation was refused: contract error, text for a human, and data for a program. */
#include "common/base/err.h"
#include "common/base/json.h"

struct fault {
    int err; /* 0: none */
    char why[320];
    json_object *data; /* owned; NULL: none */
};

/* Sets it (the first one stays) and returns f->err. */
int fault_set(struct fault *f, int err, const char *fmt, ...) printf_like(3, 4);
/* From -errno (or a positive contract error) about this path. */
int fault_io(struct fault *f, int r, const char *path);
/* ECONFLICT reason "etag" with the current one ("" : no file). */
int fault_etag(struct fault *f, const char *path, const char *current);
/* ETOOBIG with limit and size. */
int fault_big(struct fault *f, const char *path, int64_t limit, int64_t size);
void fault_done(struct fault *f);
