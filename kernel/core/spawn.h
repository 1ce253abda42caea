#pragma once
/* Spawning: what was asked for, step 1 (prep.c: everything that needs another program), and T1. */
#include "kernel/core/catalog.h"
#include "kernel/core/core.h"
#include "kernel/core/manifest.h"
#include "kernel/core/resolve.h"

struct spawn_req {
    char *agent, *goal, *session_id, *model, *crew, *title, *idem_key; /* "" or NULL: none */
    json_object *caps, *vars, *additional, *removed, *budget;          /* owned, may be NULL */
    bool one_shot, keep_alive;
    bool owner; /* a resumed session: the new process becomes its owner */
    /* for whom */
    char *user, *atp_session, *request_id;
    enum role role;
    int64_t uid, parent_pid;
    json_object *crews;
};
void spawn_req_free(struct spawn_req *r);

/* What step 1 found out. */
struct prep {
    struct spawn_req *req;
    json_object *policy;
    struct package pkg;
    struct manifest *manifest;
    char *prompt;
    struct resolve_output res;
    char *model, *goal;
    int64_t window; /* of the model */
    struct grant_result grants;
    int err; /* of the whole */
    json_object *err_data;
    char why[720];
};
/* Runs step 1; done gets the prep (p->err says how it ended) and frees it with prep_free. req is
 * taken. */
typedef void (*prep_fn)(struct prep *p, void *arg);
void prep_start(struct spawn_req *req, prep_fn done, void *arg);
void prep_free(struct prep *p);

/* Step 1 and all that follows; the call (may be NULL: nobody waits) is answered when the agent runs
 * or has failed. then, if given, runs after T1 instead of parking the call. req and c are taken. */
typedef void (*spawned_fn)(struct proc *p, int err, const char *why, struct call *c, void *arg);
void spawn_run(struct spawn_req *req, struct call *c, spawned_fn then, void *arg);

/* The same for a request that may carry an idempotency key: a repeat gets the first reply. */
void spawn_start(struct spawn_req *req, struct call *c, spawned_fn then, void *arg);

/* A quota of auth/policy: -1 unlimited. */
int64_t quota_of(json_object *policy, const char *name);
/* Recent refusals, for /proc/spawn-errors. */
void spawn_error_note(const char *request_id, const char *user, const char *agent, const char *why);
json_object *spawn_errors_list(const char *user, bool all); /* ids */
json_object *spawn_error_get(const char *id);               /* owned, NULL */
