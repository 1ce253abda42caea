#pragma once
/*
 * What the whole kernel shares: the process table's rows in memory, their states, and the one
 * struct of globals. A struct proc exists for every row that is not final or whose clean-up is not
 * done; everything else is read from the database when asked for.
 */
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/svc/svc.h"
#include "common/svc/token.h"
#include "kernel/core/grants.h"
#include "kernel/core/store.h"

/* Names travel and are stored as text; the enum and its names are one list each. */
#define PSTATES(X)        \
    X(PENDING, "pending") \
    X(RUNNING, "running") \
    X(PAUSED, "paused") X(WAITING, "waiting") X(STOPPED, "stopped") X(CRASHED, "crashed")
#define WAITS(X)               \
    X(NONE, NULL)              \
    X(HUMAN, "human-approval") \
    X(PIPE_READ, "pipe-read") X(PIPE_WRITE, "pipe-write") X(SIGNAL, "signal")
#define INV_STATES(X)     \
    X(RUNNING, "running") \
    X(IDLE, "idle")       \
    X(PAUSED, "paused") X(COMPLETED, "completed") X(FAILED, "failed") X(KILLED, "killed")
#define SESS_STATES(X)    \
    X(RUNNING, "running") \
    X(IDLE, "idle")       \
    X(PAUSED, "paused") X(COMPLETED, "completed") X(FAILED, "failed") X(ARCHIVED, "archived")
#define AS_PS(id, name) PS_##id,
#define AS_WO(id, name) WO_##id,
#define AS_IV(id, name) IV_##id,
#define AS_SS(id, name) SS_##id,
enum pstate { PSTATES(AS_PS) PS_COUNT };
enum wait_on { WAITS(AS_WO) WO_COUNT };
enum inv_state { INV_STATES(AS_IV) IV_COUNT };
enum sess_state { SESS_STATES(AS_SS) SS_COUNT };
extern const char *const pstate_names[PS_COUNT],
    *const wait_names[WO_COUNT], *const inv_names[IV_COUNT], *const sess_names[SS_COUNT];
/* Index in such a table, -1 if the name is in none (NULL: the row whose name is NULL). */
int name_index(const char *const *names, int n, const char *s);

/*
 * How far a host process of this PID has come (steps 3 to 8 of kernel page, section 4). In memory
 * only: after a restart it follows from the row and from init's list (boot.c).
 */
#define PHASES(X)                                                               \
    X(REST, "rest")     /* no host process, none wanted: hibernated or final */ \
    X(FORK, "fork")     /* init/spawn sent, unanswered */                       \
    X(MINT, "mint")     /* host process known, token asked for */               \
    X(READY, "ready")   /* T2 done, the agent has not asked for its token */    \
    X(TOOLS, "tools")   /* token given, its tools not all added */              \
    X(START, "start")   /* SIGSTART on its way, no report yet */                \
    X(LIVE, "live")     /* reports */                                           \
    X(ENDING, "ending") /* told to die by us, exit awaited */                   \
    X(GONE, "gone")     /* exit recorded, effects under way */
#define AS_PH(id, name) PH_##id,
enum phase { PHASES(AS_PH) PH_COUNT };
extern const char *const phase_names[PH_COUNT];

struct waiter;
struct sig_item;
struct input;

struct proc {
    /* columns */
    int64_t pid, parent_pid; /* parent 0: none */
    char *name, *version, *user, *session_id, *invocation_id, *goal, *model, *lineage;
    char *atp_session, *goal_id, *token_id, *cause; /* may be NULL */
    bool one_shot, keep_alive, frozen, hibernated, cleanup;
    enum pstate state;
    enum wait_on waiting_on;
    enum inv_state inv;
    pid_t host_pid; /* of the last host process; alive only in phases MINT to ENDING */
    uint64_t host_start;
    uint8_t nonce[16];
    int64_t token_exp, context_limit, spawned_at, ended_at;
    json_object *requested; /* what the spawn asked for: struct of prep.c */
    json_object *grants, *denied, *resolved;
    int64_t restarts, tool_calls, tokens_in, tokens_out, cost;
    int exit_code, exit_signal;
    char *exit_reason;
    /* memory */
    enum phase phase;
    unsigned life; /* host process number: answers that belong to an older one are dropped */
    char sig_key[SIGNAL_KEY_LEN + 1];
    char *token;
    struct timer step;       /* deadline of the phase */
    struct timer end;        /* next step of the stop sequence */
    int end_step;            /* 0: none under way */
    struct timer idle;       /* hibernation */
    struct ipc_call *op;     /* the machine's call under way */
    struct call *ready_call; /* agent.ready, held back */
    pid_t ready_pid;
    uint64_t ready_start;
    int64_t mint_until;
    int tries;
    bool adopted;           /* found running by this kernel */
    bool resume;            /* that goal was under way when the last host process ended */
    int64_t restart_at[16]; /* wall clock, ms; kept in the row */
    unsigned n_restart_at;
    struct sig_item *sig_first, *sig_last;
    unsigned n_sigs;
    struct ipc_call *sig_call;
    int sig_tries;
    struct input *inputs; /* accepted, not yet taken by the agent; oldest first */
    unsigned n_inputs;
    struct waiter *waiters;
    /* last report */
    int64_t report_seq, turn, calls_this_turn, context_used, last_activity;
    char last_signal[16];
    int64_t pending_signals;
    json_object *degraded;
    enum pstate before_pause;
    enum wait_on before_wait;
    int64_t sent_id; /* number of the next signalId */
};

struct kernel {
    struct map procs; /* pid text → struct proc * */
    struct map keys;  /* signal key → struct proc * */
    struct hmac *kern;
    char boot_id[160];
    int64_t started_at;
    bool stopping;          /* no new work */
    bool recovered;         /* re-adoption is done, the machine runs */
    struct call *stop_call; /* init/stopping, answered when all agents are gone */
    bool one_shot_root;     /* started for `avix server run` */
};
extern struct kernel K;

/* proc.c */
struct proc *proc_find(int64_t pid);
struct proc *proc_by_key(const char *key);
void proc_add(struct proc *p);  /* into the table, which owns it */
void proc_drop(struct proc *p); /* out of the table, freed; nothing of it may be waiting */
bool proc_each(size_t *pos, struct proc **p);
bool proc_final(const struct proc *p);
bool proc_idle(const struct proc *p);   /* goal reached, ready for the next */
bool proc_hosted(const struct proc *p); /* has or will have a host process */
/* Host processes of a user ("": of all), this one not counted. */
unsigned proc_count(const char *user, const struct proc *but);
bool proc_descends(const struct proc *p, int64_t ancestor);
int proc_depth(const struct proc *p);
/* Loads one row, final ones too; not put into the table. NULL if there is none. proc_free. */
struct proc *proc_load(int64_t pid);
void proc_free(struct proc *p);
/* In the table, or loaded: *loaded tells which; proc_release frees if loaded. NULL: unknown. */
struct proc *proc_get(int64_t pid, bool *loaded);
void proc_release(struct proc *p, bool loaded);
/* Makes a new nonce and the signal key that follows from it. */
void proc_new_key(struct proc *p);
void proc_make_key(struct proc *p);
/* Bodies of the ATP page: a row of proc.list, of proc.stat. Owned. */
json_object *proc_row(const struct proc *p);
json_object *proc_detail(const struct proc *p, bool tree);
/* Reads pid, id or target of a call (number or decimal string); 0 with the error recorded. */
int64_t args_pid(struct args *a);

/* access.c: the ownership rule (kernel page, section 1). */
bool may_see(const struct caller *w, const char *owner);
bool may_change(const struct caller *w, const char *owner);
/* The user a call is for: its own, or the one named if the caller may see that; NULL refused. */
const char *call_user(const struct caller *w, const char *named);
enum role owner_role(const char *user);

/* host.c: what init does for us. done gets 0 or an error; p may be gone by then. */
void host_kill(struct proc *p, const char *signal);
json_object *host_limits(void);
uint64_t host_cpu_ms(pid_t pid);
int64_t host_rss_kib(pid_t pid);
