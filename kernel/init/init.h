#pragma once
/*
 * avix-init: the supervisor. It owns every listening socket, the sub-keys, and all processes of the
 * suite. One thread, one loop; what a file owns is said above its prototypes.
 */
#include <sys/resource.h>
#include <sys/types.h>

#include "common/base/log.h"
#include "common/ipc/client.h"
#include "common/ipc/loop.h"
#include "common/ipc/server.h"
#include "common/svc/config.h"
#include "common/svc/unit.h"

#define EXIT_RUNNING   75
#define EXIT_NO_KEY    77
#define EXIT_CONFIG    78
#define EXIT_SANITIZER 99
#define READY_MS       20000
#define BACKLOG        512

/* --- opts.c: command line and what is taken from the environment -------------------------------
 */
struct opts {
    const char *root, *bind, *admin_addr, *log_level;
    int port; /* -1: from kernel.yaml */
    bool log_stdout, json, verbose, one_shot;
};
/* 0, or an exit status after printing why (or the version). */
int opts_parse(int argc, char **argv, struct opts *o, bool *done);

/* --- state shared by all files -----------------------------------------------------------------
 */
struct init {
    struct opts opts;
    struct kernel_config *config;
    struct loop *loop;
    char root[256], run_dir[96], libexec[256];
    char notify_sock[108], systemd_notify[108];
    char url[128], admin_url[128];
    char boot_id[96];
    int lock_fd, run_lock_fd, stdout_fd, stderr_fd; /* the two as given to us */
    int64_t boot_start_ms;
    uint64_t start; /* our own start time */
    char level;     /* of isolation: B, C or D */
    bool booted, stopping;
    bool unit_report; /* a sanitizer ended a unit: our own exit status says so */
    char **argv;
};
extern struct init init;

/* --- preflight.c: everything that must hold before the first process ----------------------------
 */
/* Prints AVIX_BOOT_ERROR and ends the process; sockets made so far are removed. */
_Noreturn void boot_fail(int status, const char *fmt, ...) printf_like(2, 3);
void preflight(void);    /* root, configuration, run dir, lock */
void sockets_bind(void); /* Unix sockets of all units */
int socket_of(enum unit_id u);
void sockets_remove(void);
/* --- level.c ---*/
/* Finds what stands between a guest and the rest of this host, into init.level: 'B' namespaces, 'C'
 * Landlock and seccomp, 'D' seccomp alone. Ends the boot if the configuration asks for more. */
void isolation_check(void);
/* --- tcp.c ---*/
/* Binds and listens on the user and the admin listener; fills init.url. */
void tcp_bind(void);
/* TCP listeners by name for LISTEN_FDNAMES: "http", "http6", "admin"; -1 if there is none. */
int tcp_fd(const char *name);

/* --- keys.c: the master key becomes sub-keys in locked memory -----------------------------------
 */
void keys_load(void); /* ends the boot (77) if there is none */
/* A sealed memfd with the keys named in row->keys; -1 if it holds none. */
int keys_memfd(const struct unit_row *row);
/* A service token for this process; yours to free(). */
char *token_mint(const struct unit_row *row, pid_t pid, uint64_t start);
/* True if token is a valid one of this process. */
bool token_of(const char *token, const char *unit, pid_t pid);
void keys_wipe(void);
int keys_handover(void); /* memfd with all sub-keys for our own re-exec */

/* --- logs.c: one pipe per child, one file per unit or agent -------------------------------------
 */
struct logfile;
#define LOG_TAIL 5
/* rel: "router.log", "agents/157.log". json: lines that are JSON objects are kept as they are. */
struct logfile *logfile_open(const char *rel, const char *name, bool json);
void logfile_unref(struct logfile *f); /* closed when its last pipe ended */
/* Write end of a new pipe into this file (blocking, close-on-exec), or -errno. */
int logfile_pipe(struct logfile *f);
const char *logfile_tail(struct logfile *f, int i); /* i-th of the last lines, NULL if none */
/* The call becomes a stream of log.line. */
void logfile_follow(struct logfile *f, struct call *c);
const char *logfile_path(const struct logfile *f);
void logs_flush(void); /* reads what is in the pipes now */
void logs_end(void);

/* --- backoff.c ----------------------------------------------------------------------------------
 */
struct backoff {
    int fails;
};
/* Delay before the next start of a built-in unit. ran_ms: how long it ran. jitter: -100..100, in
 * tenths of a percent. */
int64_t backoff_next(struct backoff *b, int64_t ran_ms, int jitter);

/* --- spawn.c: fork, set up, exec ----------------------------------------------------------------
 */
#define SPAWN_FDS 16
struct spawn {
    const char *path;
    char *const *argv;
    char **envp; /* NULL-ended; empty slots ("") are filled in by the child: pid_slot, token_slot */
    int pid_slot, token_slot; /* -1: none */
    int fds[SPAWN_FDS];       /* placed from 3 up; borrowed */
    size_t n_fds;
    int log_fd;
    int death_signal;
    int64_t memory_mib, cpu_sec, open_files; /* 0: not set */
    bool guest;                              /* no capabilities, no_new_privs, no fork */
};
struct spawned {
    pid_t pid;
    uint64_t start;
    int sync_fd; /* carries errno if exec failed, then end of file */
};
/* Forks; the child waits for spawn_go. 0 or -errno. */
int spawn_prepare(const struct spawn *s, struct spawned *ret);
/* token: goes into token_slot, may be NULL. */
void spawn_go(const struct spawned *p, const char *token);

/* --- unit.c: the state table --------------------------------------------------------------------
 */
enum ustate { ST_STOPPED, ST_STARTING, ST_RUNNING, ST_STOPPING, ST_BACKOFF, ST_FAILED, ST_COUNT };
enum uevent { EV_START, EV_READY, EV_EXIT, EV_TIMEOUT, EV_STOP, EV_COUNT };

#define MISSING_MAX 8
struct iunit {
    enum unit_id id;
    const struct unit_row *row;
    enum ustate state;
    bool want_up, ready_once;
    pid_t pid; /* 0: no process */
    uint64_t start;
    int64_t since_ms, started_mono, first_mono, boot_ms;
    int restarts, stop_stage;
    bool force; /* SIGKILL at once */
    int status; /* wait status of the last exit, -1: none */
    char status_text[128];
    char *missing[MISSING_MAX];
    size_t n_missing;
    struct backoff backoff;
    struct timer timer;
    struct watch refuse; /* closes what arrives while the unit is down */
    struct logfile *log;
};
extern struct iunit units[UNIT_COUNT];

void units_init(void);
void unit_event(struct iunit *u, enum uevent ev);
/* Starts every wanted unit whose needs are ready. */
void units_kick(void);
bool unit_uses(const struct iunit *u); /* not left out by --one-shot */
struct iunit *unit_of_pid(pid_t pid);
void unit_exited(struct iunit *u, int status);
void unit_missing(struct iunit *u, const char *what);
const char *unit_state_name(const struct iunit *u);
void unit_reload(struct iunit *u);
/* Stops u and, first, what needs it. want: keep it down (false: start again afterwards). */
void unit_stop(struct iunit *u, bool force);
void units_json_write(void);

/* --- boot.c: notify socket, phases, the ready line ----------------------------------------------
 */
void notify_open(void);
void boot_check(void); /* called on every change of a unit */
void boot_unit_failed(struct iunit *u);
void systemd_notify(const char *text);

/* --- oneshot.c: a run for one command, which takes the gateway's place ---------------------------
 */
void oneshot_open(void);      /* the descriptor named by AVIX_ONE_SHOT_FD; its end ends the suite */
void oneshot_hand_over(void); /* the gateway's token and socket, once the suite is ready */

/* --- agent.c: agents as processes ---------------------------------------------------------------
 */
void agent_spawn(struct call *c); /* init/spawn */
void agent_kill(struct call *c);  /* init/kill */
bool agent_exited(pid_t pid, int status, const struct rusage *ru);
json_object *agents_json(void);
size_t agents_signal(int signo); /* to all; number of agents alive */

/* --- report.c: what the kernel must hear --------------------------------------------------------
 */
#define REPORTS_MAX 4096
void report(const char *method, json_object *params); /* params taken */
void reports_flush(void);                             /* the kernel is ready (again) */
json_object *reports_exits(void);                     /* unacknowledged init/exited */

/* --- ctl.c: init.sock ---------------------------------------------------------------------------
 */
void ctl_open(void);
void ctl_close(void);
void ctl_unit_changed(struct iunit *u); /* answers those who wait */

/* --- shutdown.c ---------------------------------------------------------------------------------
 */
void shutdown_begin(const char *reason, int grace_s, bool reboot);
void shutdown_hurry(void);
void shutdown_progress(void); /* a process ended */
bool shutdown_again(void);    /* a reboot was asked for */
void shutdown_reap(void);

int init_main(int argc, char **argv);
