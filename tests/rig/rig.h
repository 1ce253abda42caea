#pragma once
/*
 * A private Avix for a test: own root, run dir, ports, master key; real programs from
 * AVIX_TEST_BIN. Everything lives under one temporary folder (TMPDIR) and is gone after rig_stop.
 * Waiting is always bounded and on a condition, never for a time.
 */
#include <stdio.h>
#include <sys/types.h>

#include "common/base/json.h"
#include "common/ipc/client.h"

#define RIG_MASTER_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define RIG_WAIT_MS    20000

struct rig {
    char dir[256]; /* the temporary folder; root and run dir are in it */
    char root[300], run_dir[96];
    char url[96], admin_url[96];
    int port, admin_port;
    char api_key[64]; /* of user "admin" */
    pid_t init_pid;   /* 0: not running */
    int out_fd;       /* daemon's stdout after the ready line */
    int ready_ms;
    char err_path[300]; /* daemon's stderr */
};

struct rig_opts {
    /* Called after `config init`, before the start: change files under g->root. */
    void (*before)(struct rig *g);
    /* Additional environment "NAME=value", NULL-ended. */
    const char *const *env;
    /* Additional arguments of `avix server start`, NULL-ended. */
    const char *const *args;
    bool no_start; /* initialise only */
};

/* Path of a program of the suite: "avix", "avix-init", "test-provider". Borrowed from a static
 * ring. */
const char *rig_bin(const char *name);
/* Initialises and starts; ends the test with a message and the daemon's stderr if that fails. */
struct rig *rig_new(const struct rig_opts *o); /* o may be NULL */
/* Starts the daemon of a root that is initialised (after rig_crash or with no_start). 0, or its
 * exit status with the first stderr line in err (may be NULL). */
int rig_boot(struct rig *g, const struct rig_opts *o, char *err, size_t size);
void rig_crash(struct rig *g); /* SIGKILL to init; waits until every process of the suite is gone */
int rig_shutdown(
    struct rig *g);           /* SIGTERM to init; exit status. Fails the test if a process stays */
void rig_stop(struct rig *g); /* shutdown, checks, removes the folder */
void rig_stopp(struct rig **g);

/* Host pid of a unit, 0 if it is not running. */
pid_t rig_unit_pid(struct rig *g, const char *unit);
/* SIGKILL to a unit's process; returns when a new one is running. */
void rig_kill_unit(struct rig *g, const char *unit);
void rig_signal_unit(struct rig *g, const char *unit, int signo);
/* One unit's row of init/list; yours (json_put). NULL if unknown. */
json_object *rig_unit(struct rig *g, const char *unit);
/* The whole answer of an init.sock method; yours. NULL on error (err gets the enum err, may be
 * NULL). */
json_object *rig_init_call(struct rig *g, const char *method, json_object *params, int *err);

/* A capability token for this very process (or for pid, start), signed with the root's key:
 * `granted` is a blank-separated list of tools; extra claims replace the defaults (taken, may be
 * NULL). Yours to free(). */
char *rig_token(struct rig *g, const char *granted, json_object *extra);
/* Any claims, any sub-key ("cap", "atp", "svc"). */
char *rig_sign(const char *key, json_object *claims);
/* A call through the router with a token (NULL: none). params as JSON text. Returns r->err. */
int rig_call(struct rig *g, const char *token, const char *method, const char *params,
             struct ipc_reply *r);
/* Path of a socket in the run dir; borrowed from a static ring. */
const char *rig_sock(struct rig *g, const char *name);

/* Runs a program to its end with a deadline: exit status (128 + signal), outputs into out and err
 * (yours, may be NULL). */
int rig_run(struct rig *g, const char *const *argv, const char *stdin_text, char **out, char **err);
/* `avix …` against this rig, logged in as admin; arguments NULL-ended. */
int rig_avix(struct rig *g, char **out, char **err, ...) __attribute__((sentinel));

/* Waits until cond(arg) is true, RIG_WAIT_MS at most; false on timeout. */
bool rig_until(bool (*cond)(void *), void *arg);
/* Reads a file under the root ("etc/llm.yaml"); yours, NULL if it is not there. */
char *rig_read(struct rig *g, const char *rel);
void rig_write(struct rig *g, const char *rel, const char *text);
/* Number of processes whose parent chain leads to init (agents, units, sandboxes). */
int rig_count_processes(struct rig *g);
/* A line from a descriptor with a deadline; NULL on timeout or end of file. Yours. */
char *rig_read_line(int fd, int timeout_ms);
/* Data file of the tests, "sse/sse-vectors.json"; yours, fails the test if it is missing. */
char *rig_data(const char *rel, size_t *len);
