#pragma once
/*
 * One main() shape for every built-in unit. svc_main owns the order: arguments, log, inherited
 * descriptors, keys, configuration, init, sandbox, loop, socket, registration with the router,
 * readiness, loop, drain. A room gives its tables and a few functions.
 *
 *   static const struct svc_spec spec = { .unit = UNIT_MEMFS, .methods = memfs_methods, … };
 *   int main(int argc, char **argv) { return svc_main(&spec, argc, argv); }
 */
#include "common/base/args.h"
#include "common/base/log.h"
#include "common/ipc/client.h"
#include "common/ipc/server.h"
#include "common/svc/config.h"
#include "common/svc/sandbox.h"
#include "common/svc/unit.h"

/* Who a call is from, as the router stamped it (ipc page, section 4). Borrowed from the call's
 * params. */
enum caller_kind { CALLER_NONE, CALLER_AGENT, CALLER_SERVICE, CALLER_USER };
enum role { ROLE_NONE, ROLE_GUEST, ROLE_USER, ROLE_OPERATOR, ROLE_ADMIN };
struct caller {
    enum caller_kind kind;
    int64_t pid;         /* Avix pid, 0 for a user and for the kernel */
    const char *user;    /* "" for a service */
    const char *service; /* unit name of a service, else "" */
    enum role role;
    int64_t uid;
    json_object *crews; /* array or NULL */
    const char *agent, *session_id, *atp_session, *tool, *call_id, *token;
    json_object *json; /* the whole _caller, borrowed */
};
enum role role_parse(const char *s); /* ROLE_NONE if unknown */
const char *role_name(enum role r);
/* Reads params._caller; false (kind CALLER_NONE) if there is none. Pointers live as long as params.
 */
bool caller_parse(json_object *params, struct caller *w);
/* This built-in unit itself (not an agent, not a user). */
bool caller_is_unit(const struct caller *w, enum unit_id u);

enum {
    M_READONLY = 1U << 0,
    M_IDEMPOTENT = 1U << 1,
    M_STREAM = 1U << 2,
    M_BLOCKING = 1U << 3,    /* takes no slot of the owner */
    M_DESTRUCTIVE = 1U << 4, /* the dagger of the system call table */
    M_INTERNAL = 1U << 5,    /* visible to built-in units only */
    M_FRAME =
        1U << 6, /* no tool: a frame that comes straight to this socket, from the peers in `from` */
    M_HIDDEN = 1U << 7, /* served when the router forwards it, but not registered */
};
/* For M_FRAME: which peers may send it. */
#define FROM(unit) (1U << (unit))
#define FROM_INIT  (1U << 29)
#define FROM_AGENT \
    (1U << 30) /* any process of our uid that is no unit; the handler checks who it is */

struct method {
    const char *name;
    /* from: of a frame, the peers that may send it; of a tool, those that may also send it straight
     * to this socket (without _caller; the handler gets NULL). */
    unsigned flags, from;
    enum role min_role; /* least role for calls of a user, ROLE_NONE: not for users unless their
                           policy grants it */
    int timeout_s;      /* 0: 30 */
    int stream_idle_s;  /* 0: 120; -1: none */
    const char *desc;   /* shown to a model */
    const char *input;  /* short form of the descriptor's input as JSON text, NULL: {} */
    void (*fn)(struct call *c, const struct caller *who); /* who: NULL for M_FRAME */
};

struct svc_spec {
    enum unit_id unit;
    const struct method *methods;
    size_t n_methods;
    /* Requests that no row takes from this peer (the router: every tool call; the kernel: what it
     * relays). NULL: they are refused. */
    void (*other)(struct call *c);
    struct loop *(*loop_new)(void); /* NULL: libevent */
    struct server_opts server;      /* zero is the default */
    int (*init)(void); /* before the sandbox: read configuration, open files. 0, or an exit status
                          after logging why */
    /* Landlock: the paths this unit keeps, called after init; NULL-ended array. NULL: no file
     * rules. */
    const struct sandbox_path *(*paths)(void);
    int (*start)(void);   /* in the sandbox, loop and socket exist, not yet registered */
    void (*ready)(void);  /* after READY=1; may be NULL */
    void (*reload)(void); /* SIGHUP notification; may be NULL */
    void (*stop)(
        void); /* SIGTERM: refuse new work; svc_main drains calls, then fini; may be NULL */
    void (*fini)(void);
    bool late_ready; /* the room calls svc_ready() itself (kernel: after recovery; gateway: port
                        open) */
    bool no_router;  /* the router itself: no registration */
    /* The room serves svc.listen_fd itself (the router) and says how many calls are open;
     * svc.server is NULL. */
    unsigned (*open_calls)(void);
};

/* The running unit. One per process. */
struct svc {
    const struct svc_spec *spec;
    const struct unit_row *unit;
    struct loop *loop;
    struct server *server;
    char root[256], run_dir[96];
    char router_sock[108];
    char *token;                  /* own service token */
    int listen_fd;                /* own Unix socket */
    struct kernel_config *config; /* kernel.yaml as read at start */
    pid_t init_pid;
    bool stopping;
};
extern struct svc svc;

int svc_main(const struct svc_spec *spec, int argc, char **argv);
/* Registers the tools (again), and says READY=1. svc_main does it unless late_ready. */
void svc_ready(void);
/* Tells init a status line, or that a protection is missing (degraded). */
void svc_status(const char *text);
void svc_degraded(const char *what);
/* An inherited descriptor by its name in LISTEN_FDNAMES, -1 if there is none. The caller owns it
 * from then on. */
int svc_fd(const char *name);
/* 32 bytes in locked memory, or NULL if this unit does not hold the key. */
const uint8_t *svc_key(enum key_id k);
/* Path of another unit's socket. */
const char *svc_sock(enum unit_id u);
/* Unit whose main process the peer is: UNIT_*, UNIT_INIT, or UNIT_NONE. Needs peer.start. */
enum unit_id svc_peer_unit(const struct peer *p);

/* Calls a tool through the router as this unit. params taken. user: NULL, or the _user object
 * (borrowed). */
struct ipc_call *svc_call(const char *method, json_object *params, json_object *user,
                          int timeout_ms, ipc_done_fn done, void *arg);
/* The same with notifications. */
struct ipc_call *svc_stream(const char *method, json_object *params, json_object *user,
                            int timeout_ms, ipc_note_fn note, ipc_done_fn done, void *arg);
/* Blocking; only in init(), before the loop runs, or in a worker. Returns r->err. */
int svc_call_sync(const char *method, json_object *params, int timeout_ms, struct ipc_reply *r);
/* A frame of section 9 straight to another unit's socket (repeatable requests and notifications).
 * done may be NULL. */
struct ipc_call *svc_frame(enum unit_id to, const char *method, json_object *params, bool note,
                           ipc_done_fn done, void *arg);
/* Publishes an event to the gateway's bus; best effort. body taken; user, session: scope, may be
 * NULL. */
void svc_publish(const char *event, json_object *body, const char *user, const char *atp_session,
                 enum role min_role);
/* Changes a tool of ours in the registry: state "available", "degraded", "unavailable". */
void svc_tool_state(const char *tool, const char *state, const char *reason);
