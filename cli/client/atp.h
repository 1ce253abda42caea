#pragma once
/*
 * The client side of ATP for the command line: login, WebSocket, commands, events, replay cursor.
 * One connection, driven from here: a call returns when its answer is there, events wait in order.
 */
#include "cli/cli.h"

struct atp;

/* Logs in (unless --token), upgrades, reads session.ready. NULL after saying why, *exit set.
 * admin: use the admin listener. */
struct atp *atp_open(struct cli *c, bool admin, int *exit);
/* Logs out (if this client logged in) and closes. NULL is fine. */
void atp_close(struct atp *a);
void atp_closep(struct atp **a);

/* Sends a command and waits for its reply. body taken. EX_DONE and *ret (yours, may be NULL for a
 * null body), or an exit status after printing the error. */
int atp_cmd(struct atp *a, const char *domain, const char *op, json_object *body,
            json_object **ret);
/* The same without printing: the error object in *err (yours) instead. 0, or the exit status. */
int atp_try(struct atp *a, const char *domain, const char *op, json_object *body, json_object **ret,
            json_object **err);
/* Prints an ATP error object (borrowed) as cli_fail does; returns its exit status. */
int atp_say(struct atp *a, const char *what, json_object *error);

/* Subscribes: kinds as an array (taken), cursor (-1: none), one pid or 0. EX_DONE or an exit
 * status. *gap may be NULL. */
int atp_subscribe(struct atp *a, json_object *kinds, int64_t since_seq, int64_t pid, bool *gap);

enum atp_wait { ATP_EVENT, ATP_TIMEOUT, ATP_LOST, ATP_SIGNAL };
/* Next event frame; *ret yours. timeout_ms -1: none. ATP_SIGNAL: SIGINT or SIGTERM came. */
enum atp_wait atp_next(struct atp *a, int timeout_ms, json_object **ret);
/* Highest event seq seen, 0 if none. */
int64_t atp_cursor(const struct atp *a);
/* Connects again with back-off for at most total_ms, saying so on stderr; subscribes anew from the
 * cursor. EX_DONE (*gap set), EX_INTERRUPT, or EX_LOST. */
int atp_reconnect(struct atp *a, int total_ms, bool *gap);

json_object *atp_hello(const struct atp *a); /* body of session.ready, borrowed */
const char *atp_url(const struct atp *a);
const char *atp_identity(const struct atp *a);
int atp_latency_ms(const struct atp *a); /* connect to session.ready */
