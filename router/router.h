#pragma once
/*
 * The router's own types: who calls (ident, caller), what can be called (entry, owner, agent), and
 * one call on its way (rcall). Everything lives in one thread.
 */
#include <sys/queue.h>

#include "common/base/map.h"
#include "common/base/toolname.h"
#include "common/ipc/frame.h"
#include "common/ipc/peers.h"
#include "common/svc/svc.h"
#include "common/svc/token.h"
#include "router/envelope.h"
#include "router/hist.h"

struct rcall;
struct owner;
struct agent;
struct drain;

/* --- who calls ----------------------------------------------------------------------------------
 */

/* Calls in flight of one agent, service or user; the queue of an owner is served in turn over
 * these. */
struct caller_load {
    char key[80]; /* "a:157" "s:kernel" "u:alice" */
    unsigned in_flight, limit, refs;
};

/* A verified token and what follows from it. Shared by the calls that use it. */
struct ident {
    enum caller_kind kind;
    unsigned refs;
    bool dead; /* revoked, or dropped from the cache */
    char *token;
    size_t token_len;
    char token_id[64], lineage[64], user[65], agent[129], session_id[40], atp_session[64], unit[65];
    enum unit_id unit_id; /* of a built-in's service token, else UNIT_NONE */
    int64_t pid, uid;     /* Avix pid, user id */
    pid_t host_pid;
    uint64_t host_start;
    enum role role;
    int64_t expires_ms; /* 0: none */
    bool one_shot;      /* a service token of a one-shot run: `_user` needs no ATP token */
    json_object *crews, *budgets, *claims;
    struct map granted;        /* exact names */
    json_object *patterns;     /* of an installed service's grants, or NULL */
    const char *unit_patterns; /* of a built-in, blank-separated, or NULL */
    char *caller_head;         /* start of `_caller`, without the members of a single call */
    size_t caller_head_len;
    struct caller_load *load;
    TAILQ_ENTRY(ident) lru;
};

/* auth.c: tokens, peer binding, revocation. */
void auth_init(void);
void auth_fini(void);
/* 0 and a reference; ERR_AUTH or ERR_EXPIRED with *reason. peer_of: whose process must hold it. */
int auth_token(const char *token, size_t len, const struct peer *peer, struct ident **ret,
               const char **reason);
/* An identity for `_user`, from the claims of its ATP token or (kernel, one-shot) from the object
 * itself. */
int auth_user(const struct ident *via, struct json_slice user, struct ident **ret,
              const char **reason);
/* The caller of an open call, as `_as` names it. */
void ident_ref(struct ident *id);
/* The newest token's identity of an agent, borrowed, or NULL. */
struct ident *auth_agent(int64_t pid);
/* Whoever memfs says that reads; unref it. */
struct ident *ident_of_reader(json_object *caller);
void ident_unref(struct ident *id);
bool ident_granted(const struct ident *id, const char *tool);
/* The executor may call it, but it is no grant: a list of what was granted leaves it out. */
bool ident_runtime_only(const struct ident *id, const char *tool);
bool tool_always(const char *tool); /* every agent may call it */
/* Merges a revocation set ({tokens, sessions, users, lineages}); whole: replaces the old one. */
void auth_revoked(json_object *set, bool whole);
/* False until the revocation set has been fetched: only service tokens pass. */
bool auth_gate_open(void);
void auth_gate_set(bool open);
struct caller_load *load_get(const char *key, enum caller_kind kind);
void load_unref(struct caller_load *l);

/* policy.c: what a user may call, as authsvc says; cached. */
struct policy;
/* NULL: not known yet; then fn(arg) runs once it is or could not be had (*known false then). */
const struct policy *policy_get(const char *user);
void policy_fetch(const char *user, loop_fn fn, void *arg);
void policy_forget_waiter(void *arg);
bool policy_allows(const struct policy *p, const char *tool);
void policy_drop(const char *user); /* NULL: all */
/* Asks authsvc for the revocation set, again until it answers. */
void revoked_fetch(void);
/* A push of authsvc. */
void revoked_pushed(json_object *set);

/* --- what can be called -------------------------------------------------------------------------
 */

enum tool_state { TOOL_AVAILABLE, TOOL_DEGRADED, TOOL_UNAVAILABLE };
enum vis { VIS_ALL, VIS_USER, VIS_CREW, VIS_INTERNAL, VIS_AGENT };
typedef void (*own_fn)(struct rcall *c, json_object *params);

struct entry {
    char name[TOOL_MAX + 1];
    char method[RPC_METHOD_MAX + 1]; /* sent to the owner */
    bool by_name;                    /* the owner knows the tool by its name only */
    char sock[108];
    struct owner *owner;
    struct agent *scope; /* NULL: global */
    own_fn fn;           /* served by the router itself */
    json_object *descriptor;
    bool streaming, blocking, read_only, idempotent, destructive, untrusted, internal;
    int timeout_ms, idle_ms; /* 0: none */
    enum role min_role;      /* ROLE_NONE: by the user's permissions */
    enum tool_state state;
    char reason[96];
    int retry_after;
    enum vis vis;
    bool vis_not;
    char vis_name[65];
    bool has_perms, perm_all_x;
    char perm_owner[65], perm_crew[65];
    unsigned in_flight, refs;
    bool gone; /* out of the tables; freed with its last call */
    struct hist *hist;
};

struct queue_of { /* calls of one caller that wait for a slot of one owner */
    struct caller_load *load;
    TAILQ_HEAD(, rcall) calls;
    TAILQ_ENTRY(queue_of) link;
};

#define OWNER_GONE_MS 5000 /* an owner whose socket init holds may take so long to come back */

struct owner {
    char name[65];
    enum unit_id unit; /* UNIT_NONE: installed */
    int64_t pid;       /* Avix pid */
    pid_t host_pid;
    uint64_t host_start;
    char endpoint[108];
    bool held; /* init holds its socket */
    bool up;   /* registered and its process lives */
    int pidfd;
    struct watch death;
    struct timer expire;
    int64_t registered_at; /* mono ms */
    unsigned max_concurrent, queue_max, queue_timeout_ms;
    unsigned in_flight, queued;
    bool serving; /* inside owner_serve */
    unsigned restarts;
    TAILQ_HEAD(, queue_of) turns;
    uint64_t calls, errors;
    char last_error[160];
    struct hist hist;
};

/* What is registered for, and measured of, one agent process. */
struct agent {
    LIST_ENTRY(agent) link;
    int64_t pid;
    struct map tools; /* name to entry, scope this agent */
    uint64_t version;
    pid_t host_pid;
    uint64_t host_start;
    int pidfd;
    struct watch death;
    struct hist *hist;
};

/* registry.c */
void registry_init(void);
void registry_fini(void);
extern uint64_t registry_version;
struct entry *registry_find(const struct ident *id, const char *tool, size_t len);
struct owner *owner_find(const char *name);
struct owner *owner_get(const char *name); /* makes it */
struct agent *agent_find(int64_t pid);
struct agent *agent_get(int64_t pid, pid_t host_pid, uint64_t host_start);
/* Fills an entry from a descriptor; why is set on failure. */
int entry_parse(struct entry *e, json_object *descriptor, const char **why);
void entry_restrict(
    struct entry *e); /* an installed owner: takes back what only built-ins may say */
/* Puts it into the tables, replacing an older one of that name. Taken. */
void registry_put(struct entry *e);
void registry_del(struct entry *e);
void entry_unref(struct entry *e);
bool entry_visible(const struct entry *e, const struct ident *id);
bool entry_permits(const struct entry *e, const struct ident *id);
/* From here on changes are published. */
void registry_serving(void);
bool registry_each(size_t *pos, struct entry **e);
struct entry *registry_global(const char *name);
struct agent *agent_next(struct agent *a); /* NULL: the first */
bool agent_each_tool(const struct agent *a, size_t *pos, struct entry **e);
bool owner_each(size_t *pos, struct owner **o);
/* An entry changed in place (its state): version, snapshot, event. */
void registry_touch(struct entry *e);
/* The process of an owner was seen to register. */
void owner_alive(struct owner *o, const struct peer *p);
void entry_set_state(struct entry *e, enum tool_state s, const char *reason);
const char *tool_state_name(enum tool_state s);

/* snapshot.c: registry.json and registry.log in the run dir. */
void snapshot_load(void);
void snapshot_entry(const struct entry *e, bool added);
void snapshot_owner(const struct owner *o);
void snapshot_fini(void);

/* state.c: uses of tool budgets, in data/router.state. */
void state_init(void);
void state_fini(void);
/* 0 and the use is on disk; ERR_BUDGET. */
int budget_take(const char *lineage, const char *tool, int64_t budget);
void budget_give_back(const char *lineage, const char *tool);
void budget_drop(const char *lineage);
/* True, once, if a human approved this very call. */
bool approval_take(int64_t pid, const char *tool, const uint8_t args_hash[32]);

/* --- one call -----------------------------------------------------------------------------------
 */

enum phase {
    R_READ,    /* the frame is not whole */
    R_GATE,    /* waits for the revocation set */
    R_POLICY,  /* waits for the user's policy */
    R_QUEUE,   /* waits for a slot */
    R_CONNECT, /* the owner's backlog is full, or it does not listen yet */
    R_CALL,    /* with the owner */
    R_OWN,     /* kept by a method of the router */
    R_FLUSH,   /* the answer is on its way */
    R_CANCEL,  /* the caller is gone, the owner has not closed yet */
};

struct rcall {
    LIST_ENTRY(rcall) link;
    TAILQ_ENTRY(rcall) wait;   /* gate, or queue */
    TAILQ_ENTRY(rcall) unseen; /* not watched for a hang-up yet, or half-closed */
    enum phase phase;
    bool pumping, closed, in_unseen, in_half;
    int fd, ufd;
    struct peer peer;
    struct frame_in in, uin;
    struct frame_out out, uout;
    struct watch watch, uwatch;
    struct timer timer;
    bool timer_on;
    struct env env;
    struct ident *id;  /* as whom */
    struct ident *via; /* whose token it was, when that is another (gateway, service with _as) */
    struct entry *e;
    struct queue_of *queue;
    struct caller_load *load; /* counted there */
    bool loaded, slot, budgeted, sent_all, repeated, notes;
    int64_t t0_us, connect_until, deadline;
    int timeout_ms;
    uint64_t bytes_in, bytes_out;
    int64_t stall_at, deadline_now;
    int cancel_fd; /* readable when the owner of a cancelled call has closed */
    struct drain *drain;
    struct peer agent_peer; /* of a registration that the kernel hands on with its own token */
    char handle[36];
    struct rcall *handle_next;
    char call_id[32];
};

/* calls.c */
void calls_init(void);
void calls_fini(void);
unsigned calls_open(void);
/* No new connections; what is open may end. */
void calls_stop(void);
/* Walks over all calls; *pos starts as NULL. */
bool rcalls_each(struct rcall **pos);
void handle_add(struct rcall *c);
struct rcall *call_by_handle(const char *handle);
/* Each of these ends the call: c is not to be touched afterwards. data, result: taken. */
void rcall_fail(struct rcall *c, int err, json_object *data, const char *fmt, ...)
    printf_like(4, 5);
void rcall_reply(struct rcall *c, json_object *result);
void rcall_finish(struct rcall *c, const char *body, size_t len);
void rcall_gone(struct rcall *c); /* the caller hung up */
void rcall_end(struct rcall *c);
void rcall_timer(struct rcall *c, int64_t ms);
void rcall_arm(struct rcall *c, unsigned events); /* the caller's side */
void rcall_unsee(struct rcall *c);

/* admit.c: steps 3 to 11. */
void rcall_admit(struct rcall *c);
void rcall_policy_known(void *arg);
void rcall_resume_gate(void);
void rcall_ungate(struct rcall *c);
void rcall_unqueue(struct rcall *c);
void owner_serve(struct owner *o);
/* Whose token the request carries, held by which process. 0, ERR_AUTH or ERR_EXPIRED with *reason.
 */
int rcall_authenticate(struct rcall *c, struct peer *p, struct ident **ret, const char **reason);

/* relay.c: steps 12 to 15. */
void rcall_forward(struct rcall *c);
void rcall_own(struct rcall *c);
json_object *rcall_params(struct rcall *c); /* without reserved members; yours */
void rcall_count(struct rcall *c, int err);
void rcall_release(struct rcall *c); /* queue, slot, load, entry */
void rcall_close_upstream(struct rcall *c);
void rcall_cancel(struct rcall *c);
void rcall_timeout(struct rcall *c);
void rcall_seen(struct rcall *c); /* it is older than 20 ms */
void rcall_drained(struct rcall *c);
/* Ends every call to an owner or entry (either may be NULL) that is with it or waits for it. */
void calls_cut(struct owner *o, struct entry *e, const char *reason);
void trace_flush(void);
void relay_fini(void);

/* register.c, methods.c */
void registration_frame(struct rcall *c);
bool is_registration(const char *method);
void own_register(struct rcall *c, json_object *params);
void deregister_owner(struct rcall *c, struct owner *o, bool drain);
void methods_register(void);
/* A call of this owner ended: drains that waited for it go on. */
void drains_check(struct owner *o);
void drain_forget(struct rcall *c);
