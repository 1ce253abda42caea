#pragma once
/* The arguments of exec/run, read and checked. */
#include "common/base/args.h"
#include "execsvc/sandbox.h"

#define INPUT_MAX     (8 << 20) /* code, stdin and files together */
#define FILES_MAX     256
#define ENV_MAX       128
#define ARTIFACTS_MAX 32

struct request {
    const char *runtime;   /* borrowed, as all below */
    const char *code, *in; /* in: stdin, NULL if none */
    size_t code_len, in_len;
    json_object *args, *env, *files, *mounts, *artifacts; /* NULL if absent */
    struct limits limits;
    bool network, stream;
};

/* Reads; a fault is in *a. runtime: NULL to read it. */
void request_read(struct request *q, struct args *a, const struct exec_conf *c,
                  const char *runtime);
/* A path of `files` as a normal relative one into out (VPATH_MAX + 1 bytes); false if unusable. */
bool request_rel(const char *path, char *out);
/* Where the i-th mount goes: its `at`, or /box/mnt/<i>. False if `at` is unusable. */
bool request_mount_at(json_object *mount, size_t i, char *out, size_t size);
