#pragma once
/*
 * One execution from its call to its answer: arguments, what must be asked first (network grant,
 * mounts), the sandbox, output, limits, artifacts.
 */
#include "common/svc/svc.h"
#include "execsvc/conf.h"

#define RUNS_PER_CALLER 4
#define RUNS_MAX        16

/* Takes the call. runtime: name, or NULL to read it from the parameters. */
void run_start(struct call *c, const struct caller *who, const char *runtime);
/* Runs in hand, for metrics. */
unsigned runs_n(void);
uint64_t runs_total(void);
/* What holds calls back: ERR_SANDBOX with why, or 0. */
void runs_set_sandbox(int err, const char *why);
/* The configuration now in force, borrowed. */
void runs_set_conf(const struct exec_conf *c);
