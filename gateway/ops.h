#pragma once
/*
 * The operations of the client protocol as one table (ops.def), and the checks of steps 3 to 5 of
 * the command pipeline: known, role, listener, path. Pure: no I/O, nothing kept.
 */
#include "common/svc/svc.h"
#include "gateway/atp.h"

enum {
    OP_ADMIN = 1U << 0,    /* A */
    OP_LONG = 1U << 1,     /* L */
    OP_READ = 1U << 2,     /* R */
    OP_PID = 1U << 3,      /* P */
    OP_USERNAME = 1U << 4, /* U */
    OP_PATH = 1U << 5,     /* F */
    OP_CHANGE = 1U << 6,   /* W */
};

/* What the gateway does itself for an operation, before or instead of the call. */
enum gw_op {
    GW_NONE,
    GW_WHOAMI,
    GW_REFRESH,
    GW_LOGOUT,
    GW_SESSIONS,
    GW_KICK,
    GW_PAUSE,
    GW_WAIT,
    GW_SIGNAL,
    GW_SIGSUB,
    GW_SIGUNSUB,
    GW_GRANT,
    GW_REVOKE,
    GW_POLICY,
    GW_STATUS,
    GW_CONFIRM,
    GW_READY,
};

struct op {
    const char *domain, *op;
    enum role min;
    unsigned flags;
    const char *method;
    enum gw_op gw;
};
extern const struct op ops[];
extern const size_t n_ops;
/* NULL if there is none. Index of a row: op - ops. */
const struct op *op_find(const char *domain, const char *name);

struct op_who {
    const char *identity;
    enum role role;
    bool admin_listener;
};
/*
 * The row for a command and whether this caller may give it: role, listener, path veto, foreign
 * username, and the shape of signals. Rewrites body to what the owner takes: reserved members
 * removed, pid as a number, fixed members added; *method may differ from the row's.
 * ATP_OK, or the code with *e.
 */
enum atp_code op_admit(const struct op_who *who, const char *domain, const char *name,
                       json_object *body, const struct op **ret, const char **method,
                       struct atp_err *e);
/* Step 5 alone. change: the operation writes. */
enum atp_code op_path_check(const char *path, size_t len, bool change, struct atp_err *e);
