#pragma once
/*
 * The benchmark: real processes beside floor programs that do the same moves without the work,
 * interleaved in one run on one core. What is judged is the ratio of the two, never a number of
 * another day.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/base/util.h"

/* One line of the table. NAN where a figure does not apply. */
struct row {
    char name[64];
    const char *unit;
    double p50, p99, floor, target, ratio;
    bool pass;
    char note[160];
};
/* Copies the row into the table and prints it. */
void row_add(const struct row *r);
/* ratio = p50 / floor judged against target (at most). note may be NULL. */
void row_ratio(const char *name, const char *unit, double p50, double p99, double floor,
               double target, const char *note);
/* p50 judged against target (at most). */
void row_limit(const char *name, const char *unit, double p50, double p99, double target,
               const char *note);
/* A figure without a judgement. */
void row_info(const char *name, const char *unit, double p50, double p99, const char *note);
/* Something could not be measured: says why, fails nothing. */
void row_skip(const char *name, const char *why);

/* measure.c */
int64_t now_ns(void);
void pin_to_last_cpu(pid_t pid); /* 0: this thread */
bool pinned(void);               /* one core could be had */
void unpin(pid_t pid);
double quantile(double *v, size_t n, double q); /* sorts v */
double median(double *v, size_t n);
/* CPU time of a process, all threads, ns. */
double cpu_ns(pid_t pid);
/* Runs fn(arg) in a child that dies with us; its pid. pin: on the last cpu. */
pid_t child_start(void (*fn)(void *), void *arg, bool pin);
void child_stop(pid_t pid);
/* System calls that `pid` makes while fn(arg) runs, -1 if it cannot be traced. */
long count_syscalls(pid_t pid, void (*fn)(void *), void *arg);

/* A target of interleaved timing: one call per invocation. */
struct target {
    const char *name;
    void (*call)(void *arg);
    void *arg;
    pid_t pids[4]; /* whose CPU counts, 0-ended */
    double p50, p99, ratio, cpu, cpu_ratio;
    double lo, hi; /* of the rounds' ratios */
};
/* A row of a target: ratio judged against goal with the slack of perf noise (8 %). */
void row_judge(const char *name, const char *unit, const struct target *t, double floor,
               double ratio, double goal, const char *note);
/* Interleaves all targets on one core; ratios are to targets[0]. Runs again, at most three times,
 * while `judged` (index) is above goal, keeping the lowest. */
void interleave(struct target *t, size_t n, size_t judged, double goal);

/* wire.c: the client and the floors */
int listen_unix(const char *path);
struct wire_call {
    const char *path;
    const char *frame; /* with its header */
    size_t len;
    bool http; /* read to the end of file instead of one frame */
};
/* True if the reply holds this text; for one call before the timing. */
bool wire_check(struct wire_call *w, const char *text);
void wire_call(void *arg); /* struct wire_call: fresh connection, send, read the reply, close */
struct floor_arg {
    int listen_fd;
    const char *upstream; /* of a relay */
    const char *reply;    /* of a service, with its header */
    size_t reply_len;
};
void floor_service(void *arg);     /* blocking: reads a frame, writes the reply */
void floor_relay(void *arg);       /* blocking two-hop relay */
void floor_epoll_relay(void *arg); /* the same on epoll */
void http_service(void *arg);

/* What every service answers. */
#define BENCH_RESULT "{\"ok\":true,\"text\":\"the quick brown fox jumps over it\"}"

/* mini.c: the real router, with this process in the place of init */
struct mini {
    char dir[128], run[160], root[160];
    int router_listen, echo_listen, auth_listen;
    pid_t router, echo, auth;
    char *cap; /* token of this process for fs/echo */
};
struct mini *mini_start(const char *bin);
void mini_stop(struct mini *m);

/* prims.c: two loops in turn, medians of batches, us */
struct pair {
    double p50, p99, floor;
};
void time_pair(void (*ours)(void *), void (*floor)(void *), void *arg, struct pair *out);

/* groups */
void bench_routed(const char *bin);
void bench_prims(const char *self_dir);
void bench_suite(const char *bin);
void bench_stream(const char *bin);
