#pragma once
/*
 * One client connection as the event side sees it: what it subscribed to, what waits for it, where
 * it stands in the ring. Knows no socket: `wake` asks the owner to call conn_next until it is
 * empty, `close` to end it.
 */
#include "gateway/ident.h"
#include "gateway/kinds.h"
#include "gateway/outq.h"
#include "gateway/ring.h"

struct agent;
struct replay;
struct cmd;
LIST_HEAD(cmd_list, cmd);

/* An event on its way to connections. */
struct ev {
    enum kind_id kind;
    enum role min;    /* of the kind, or raised by the publisher */
    const char *user; /* owner, "" for none */
    int64_t pid;      /* -1: none */
    uint64_t seq;
    struct out_msg *msg;
    const struct chunk *chunk; /* of KIND_CHUNK */
    const char *turn_id;       /* of KIND_OUTPUT */
};

/* What a connection has of the open turn of one agent. */
enum turn_state { TURN_WHOLE, TURN_LOST, TURN_MISSED };
struct conn_turn {
    int64_t pid;
    uint64_t turn;
    enum turn_state state;
};
struct sig_sub {
    char id[80];
    int64_t pid;
};

struct conn {
    LIST_ENTRY(conn) link;
    void *owner; /* its WebSocket */
    void (*wake)(struct conn *c);
    void (*close)(struct conn *c, int code, const char *reason);

    struct ident *id;
    char *token;
    int64_t exp_ms; /* of the newest token seen */
    bool admin;     /* came in by the admin listener */
    bool loopback;
    char remote[64];
    int64_t since_ms;

    bool subscribed, star;
    uint32_t kinds; /* bit per named kind */
    int64_t *pids;
    size_t n_pids;
    struct sig_sub *subs;
    size_t n_subs;
    struct conn_turn *turns;
    size_t n_turns;

    struct outq q;
    bool behind;     /* reads from the ring at cursor; live events are not queued */
    bool muted;      /* the token has expired: nothing is delivered */
    uint64_t cursor; /* last ring number queued or passed over */
    uint64_t last_seq;
    bool leaving; /* its own logout is under way */
    bool stuck;   /* the ring evicted what this connection still needed */

    struct cmd_list cmds;
    unsigned n_cmds;

    struct replay *replay;
    struct bucket_sub {
        double level;
        int64_t at_ms;
    } sub_rate;
    int64_t bad_ms[20]; /* when malformed input came */
    unsigned n_bad;
};
LIST_HEAD(conn_head, conn);
extern struct conn_head conns;
extern unsigned n_conns;

/* The ring that connections read from; set once. */
extern struct ring *conn_ring;

void conn_init(struct conn *c);
void conn_done(struct conn *c);

/* Delivers one event to every connection that may see it and wants it. */
void conns_deliver(const struct ev *e);
/* Queues frames of this connection alone. */
void conn_reply(struct conn *c, const char *text, size_t len);
void conn_local(struct conn *c, enum kind_id k, json_object *body); /* body taken */

/* Replaces the subscription. mask: bits of kinds; since -1: from now on. Counts what replay will
 * send.
 */
struct sub_result {
    uint64_t replayed;
    bool gap;
};
struct sub_result conn_subscribe(struct conn *c, bool star, uint32_t mask, const int64_t *pids,
                                 size_t n_pids, int64_t since);
/* Starts or stops delivery for an expired token. */
void conn_mute(struct conn *c, bool muted);

/* The next frame to write (a reference), NULL if there is none now. */
struct out_msg *conn_next(struct conn *c);
/* True if the role, owner and subscription of c let an event pass. */
bool conn_wants(const struct conn *c, enum kind_id kind, enum role min, const char *user,
                int64_t pid);
/* An agent's turn is over for good: nothing of it can be sent any more. */
void conns_forget_turn(int64_t pid);
