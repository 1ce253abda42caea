#pragma once
/*
 * One tool call in hand: who, which places, what was asked, and what came of it. Made by a handler,
 * started once its arguments are read; permissions, the owner of a scratch and the check of a
 * defaults file come before it runs; the answer is sent when it is done. Lives until then.
 */
#include <stdatomic.h>

#include "memfs/listing.h"
#include "memfs/pool.h"
#include "memfs/search.h"

#define REPLY_MAX ((16U << 20) - 4096)

enum lane { LANE_HERE, LANE_SHORT, LANE_BULK };

struct op {
    struct job job;
    struct call *c;
    struct caller who;
    json_object *stand_in; /* owned; a caller in whose place a unit asks (fs/export) */
    struct loc at, to;
    unsigned need_at, need_to; /* MAY_* */
    enum lane lane;
    void (*run)(struct op *op);   /* in the lane */
    void (*reply)(struct op *op); /* instead of the usual answer; may be NULL */
    bool quiet;                   /* fs/exists: what is not for the caller does not exist */
    bool async;                   /* run has started something that ends in op_finish */
    atomic_bool gone;             /* the caller hung up */
    struct search *search;
    /* Outcome. */
    struct fault f;
    struct buf out; /* result object text */
    /* Arguments; texts are borrowed from the call. */
    union {
        struct read_req read;
        struct write_req write;
        struct edit_req edit;
        struct list_req list;
        struct search_req search;
        struct {
            const char *pattern;
            int64_t limit;
        } glob;
        struct {
            bool recursive, parents, overwrite;
            const char *if_match;
        } tree;
    } q;
    char *content; /* owned; decoded content of a write */
};

struct op *op_new(struct call *c, const struct caller *who);
/* Reads a path argument into l; a bad one makes *a bad. */
void op_place(struct args *a, const char *key, struct loc *l);
/* Answers a call with bad arguments and frees the op. */
void op_bad_args(struct op *op, struct args *a);
/* Everything from the permissions on. */
void op_start(struct op *op);
/* Sends the answer and frees the op (loop only). */
void op_finish(struct op *op);
/* The caller as a view's reader: without its handle. Yours. */
json_object *op_reader(const struct op *op);
/* run of fs/write, the only way to write a defaults file. */
void write_whole(struct op *op);
