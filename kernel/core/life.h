#pragma once
/*
 * The life of a host process: steps 3 to 8 of the spawn sequence, the stop sequence and the exit
 * pipeline. One table of (phase, event) in life.c; whatever order frames arrive in, each is an
 * event that is handled at once and nothing waits for another.
 */
#include "kernel/core/core.h"

#define LIFE_EVENTS(X)                                                        \
    X(GO, "go")               /* a host process is wanted */                  \
    X(FORKED, "forked")       /* init answered: host pid and start time */    \
    X(FORK_FAIL, "fork-fail") /* init refused, or step 3 could not be done */ \
    X(FORK_LOST, "fork-lost") /* no answer: it may run or not */              \
    X(READY, "ready")         /* agent.ready came */                          \
    X(MINTED, "minted")       /* authsvc gave a token */                      \
    X(MINT_FAIL, "mint-fail")                                                 \
    X(TOOLS, "tools")           /* the router took the agent's tools */       \
    X(STARTED, "started")       /* SIGSTART was acknowledged */               \
    X(START_LOST, "start-lost") /* three times not */                         \
    X(REPORT, "report")         /* kernel/agent/report */                     \
    X(TIMEOUT, "timeout")       /* of the phase */                            \
    X(STOP, "stop")             /* stop sequence wanted */                    \
    X(END, "end")               /* it must die now */                         \
    X(EXITED, "exited")         /* init/exited, or init knows no such process */
#define AS_EV(id, name) EV_##id,
enum life_ev { LIFE_EVENTS(AS_EV) EV_COUNT };
extern const char *const life_ev_names[EV_COUNT];

/* What came with an event. Members are borrowed. */
struct life_info {
    pid_t host_pid; /* FORKED, EXITED */
    uint64_t host_start;
    int code, signal; /* EXITED */
    bool oom, lost;
    const char *reason; /* FORK_FAIL, MINT_FAIL, END */
    json_object *reply; /* MINTED: the result; REPORT: the parameters */
    struct call *call;  /* READY */
    int err;            /* out, EXITED and REPORT: 0, or why it could not be recorded */
};
void life_event(struct proc *p, enum life_ev ev, struct life_info *info);

/* The cell: the phase that follows, and the name of its action ("" none). For tests. */
enum phase life_next(enum phase ph, enum life_ev ev);
const char *life_action(enum phase ph, enum life_ev ev);

/* Ends a process and everything it caused: cause into all rows (one transaction), then KILL,
 * parents first. *ret_n: how many. 0, or an error with nothing done. */
int life_kill(struct proc *p, const char *reason, int *ret_n);
/* Asks it to stop: SIGSTOP, after the grace period TERM, then KILL. reason goes into the cause. */
void life_stop(struct proc *p, const char *kind, const char *reason);
/* The agent shall go to work: SIGSTART with a new goal, waking a hibernated one. from: 0 a user. */
int life_goal(struct proc *p, const char *goal, json_object *attachments);
/* A hibernated agent gets a host process again, for what waits in its inputs. 0 or an error. */
int life_wake(struct proc *p);
/* True if this process is on its way out: nothing new is accepted for it. */
bool life_closing(const struct proc *p);
/* spawn.c: makes room for one more host process of this user: puts the longest-idle agent to sleep
 * if need be. 0; ERR_LIMIT with *limit naming the quota. */
int quota_agents(const char *user, int64_t quota, const struct proc *but, const char **limit);
/* Deadline of the phase in ms from now. */
void life_deadline(struct proc *p, int64_t ms);
void life_init(struct proc *p); /* timers; once per struct proc in the table */
void life_done(struct proc *p);

/* exit.c ------------------------------------------------------------------------------------- */
enum outcome { OUT_FINAL, OUT_RESTART, OUT_SLEEP };
struct exit_facts {
    const char *cause; /* kill_cause column, NULL */
    int code, signal;
    bool oom, lost;
    bool idle;        /* goal reached before */
    bool started;     /* it had reported */
    bool may_restart; /* fewer than the limit */
};
struct verdict {
    enum outcome out;
    enum pstate state;
    enum inv_state inv;
    enum sess_state session; /* of the owner's session */
    char reason[160];        /* exitReason, "" none */
    bool clean;              /* no [Agent stopped] line */
};
void exit_classify(const struct exit_facts *f, struct verdict *v);
/* Records the end of a host process: a restart, sleep, or the exit pipeline. 0, or an error:
 * nothing changed and it must come again. */
int exit_record(struct proc *p, const struct life_info *i);
/* fail(r) of the spawn sequence: final without having run. */
int exit_fail(struct proc *p, const char *reason);
/* Repeats the effects of a final row (after a restart of the kernel). */
void exit_effects(struct proc *p);
/* Takes a row out of the table when its clean-up is done and nobody waits on it any more. */
void exit_settled(struct proc *p);
/* cause column: "<kind> <reason>"; kind is kill, stop, hibernate, shutdown, done or failed. An
 * earlier cause stays, but for done and failed, which are the agent's own word. */
void cause_set(struct proc *p, const char *kind, const char *reason);
bool cause_is(const struct proc *p, const char *kind);

/* host.c ------------------------------------------------------------------------------------- */
/* Steps 3 and 4: files, socket, start document, init/spawn. Posts FORKED, FORK_FAIL or FORK_LOST.
 */
void host_fork(struct proc *p);
/* Asks init whether the process is there. Posts FORKED or EXITED, or GO when it never was. */
void host_look(struct proc *p);
void host_socket_gone(struct proc *p);

/* mint.c ------------------------------------------------------------------------------------- */
/* Step 5: grants again if this is no first start, then auth/mint. Posts MINTED or MINT_FAIL. */
void mint_start(struct proc *p);
/* Grants computed again from policy, tools and parent; done(p or NULL if it is gone, err, arg). */
typedef void (*refresh_fn)(struct proc *p, int err, void *arg);
void grants_refresh(struct proc *p, refresh_fn done, void *arg);
/* auth/renew with the grants of the row; done as above, *result the new token's fields. */
typedef void (*renew_fn)(struct proc *p, int err, json_object *result, void *arg);
void token_renew(struct proc *p, bool extend, renew_fn done, void *arg);

/* sig.c -------------------------------------------------------------------------------------- */
/* Queues a signal frame for the agent; payload taken (NULL is {}). ERR_LIMIT when 256 wait. from:
 * "kernel", a user name or "agent:<pid>". */
int sig_send(struct proc *p, const char *signal, json_object *payload, const char *from);
/* SIGSTART of step 8, whose fate is an event. */
void sig_start(struct proc *p, json_object *payload);
void sig_kick(struct proc *p); /* sends what waits, if the agent listens now */
void sig_drop_all(struct proc *p);

/* input.c ------------------------------------------------------------------------------------ */
/* Keeps a goal or message until the agent has taken it; payload taken. 0; ERR_LIMIT when 256 wait;
 * or the database's error. */
int input_add(struct proc *p, bool goal, const char *from, json_object *payload);
void input_load(struct proc *p);  /* from the rows; once, after a start of the kernel */
void input_send(struct proc *p);  /* what this host process has not been sent, if it is live */
void input_again(struct proc *p); /* all of them: frames may have been given up */
/* Payload of the SIGSTART of step 8, owned: the goal under way, else the oldest that waits. sent:
 * it goes out now. */
json_object *input_start(struct proc *p, bool sent);
/* The agent has written these ids into its conversation. 0 or an error. */
int input_taken(struct proc *p, json_object *ids);
void input_drop_all(struct proc *p); /* from memory */

/* wait.c ------------------------------------------------------------------------------------- */
enum waiter_kind { WAITER_SPAWN, WAITER_WAIT, WAITER_AGENT_WAIT, WAITER_KILL };
#define WAITERS_MAX 1024
/* Parks a call on a process. timeout_ms 0: none. The call is answered here from now on. */
void waiter_park(struct proc *p, struct call *c, enum waiter_kind kind, int64_t timeout_ms);
/* Answers those whose condition has come. */
void waiters_check(struct proc *p);
/* Answers those who wait for the spawn with an error. */
void waiters_spawn_failed(struct proc *p, int err, const char *reason);
void waiters_end(void); /* EUNAVAIL to all: the kernel stops */
json_object *spawn_reply(const struct proc *p);
json_object *wait_reply(const struct proc *p, bool timeout);
json_object *agent_wait_reply(const struct proc *p, bool timeout);
const char *final_status(const struct proc *p);
char *result_of(const struct proc *p); /* last answer, yours, NULL */

/* publish.c ---------------------------------------------------------------------------------- */
/* An event for the gateway, in order, until it is acknowledged. body taken. */
void pub(const char *event, json_object *body, const char *user, const char *atp_session,
         enum role min_role);
void pub_status(const struct proc *p);
void pub_session(const char *session_id, const char *user, const char *status);
size_t pub_waiting(void);

/* session.c ---------------------------------------------------------------------------------- */
enum sess_ev { SE_WORK, SE_GOAL, SE_PAUSE, SE_RESUME, SE_END_CLEAN, SE_INTERRUPTED, SE_END_BAD };
/* The status that follows for the owner's session. Pure. */
enum sess_state session_next(enum sess_state s, enum sess_ev ev);
/* Applies an event of its owner to a session, inside the open transaction of c. Publishes nothing;
 * true if the status changed. */
bool session_event(enum db_conn c, const struct proc *p, enum sess_ev ev, enum sess_state *now);
bool session_owner(const struct proc *p);

/* status.c: init/stopping is answered when no host process is left. */
void status_check_stopped(void);

/* state.c ------------------------------------------------------------------------------------ */
/* The last answer alone. */
int state_result(const struct proc *p, const char *result);
/* Writes state, waiting_on, invocation status and session of a process that goes on (one NORMAL
 * transaction) and publishes what changed. result: last answer or NULL. 0 or an error. */
int state_set(struct proc *p, enum pstate s, enum wait_on w, enum inv_state iv, const char *result);

/* usage.c ------------------------------------------------------------------------------------ */
json_object *
usage_left(const struct proc *p);     /* tokens left on the tightest node, NULL: no limit */
bool usage_low(const struct proc *p); /* below 5 % of it */

/* agentcalls.c: starts counting towards hibernation if the agent is idle. */
void idle_arm(struct proc *p);
