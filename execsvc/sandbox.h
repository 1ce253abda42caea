#pragma once
/*
 * One bubblewrap sandbox (services page, section 7, tier 1): arguments, descriptors, start. The
 * program inside waits until it is told to go, so that /box can be filled from outside.
 */
#include "execsvc/conf.h"
#include "execsvc/runtime.h"

#define BWRAP      "/usr/bin/bwrap"
#define MOUNTS_MAX 16
#define ARGS_MAX   256

struct box_mount {
    int fd; /* O_PATH on the folder, owned by the holder of the array */
    char at[512];
    bool rw;
};
struct box_spec {
    const struct runtime *rt;
    const struct limits *limits;
    bool share_net;
    json_object *env; /* names and strings, checked; NULL: none */
    const struct box_mount *mounts;
    size_t n_mounts;
    const char *const *argv; /* the program inside, NULL-ended */
    int stdin_fd;            /* -1: /dev/null */
};
struct box {
    pid_t pid;
    int pidfd, out, err; /* out, err: non-blocking */
    int ready;           /* one byte arrives when the program waits */
    int go;              /* one line lets it go */
    int info;            /* bwrap's JSON, there when ready is */
    int dir;             /* /box from outside; -1 before box_enter */
    int proc;            /* its /proc */
};
#define BOX_NONE                                                                                   \
    {                                                                                              \
        .pid = 0, .pidfd = -1, .out = -1, .err = -1, .ready = -1, .go = -1, .info = -1, .dir = -1, \
        .proc = -1                                                                                 \
    }

/* 0, or -errno. */
int box_start(const struct box_spec *s, struct box *ret);
/* After ready: opens dir and proc. 0 or -errno. */
int box_enter(struct box *b);
/* Writes a file into /box: rel is normal and relative. 0 or -errno. */
int box_put(const struct box *b, const char *rel, const char *data, size_t len);
int box_go(struct box *b);
/* A signal to every process in it but its init. */
void box_signal(const struct box *b, int signo);
void box_kill(const struct box *b);
/* Processes inside, and the memory that is theirs alone, in KiB. */
void box_usage(const struct box *b, int64_t *processes, int64_t *memory_kb);
/* Kills and reaps what is left, closes everything. */
void box_done(struct box *b);
