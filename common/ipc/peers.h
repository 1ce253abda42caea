#pragma once
/*
 * Peers that were identified once and are still alive, by pid. A known peer costs no system call:
 * connections are accepted in the order in which they were made, so what comes after a process was
 * identified is from that process or a later one of the same pid; and its death is seen, by an
 * urgent watch on its pidfd, before anything that a later process could have sent.
 */
#include "common/ipc/loop.h"
#include "common/ipc/peer.h"

struct peers;
struct peers *peers_new(struct loop *l, size_t max);
void peers_free(struct peers *p);
/* The peer of a connection just accepted, looked up by cred (pid and uid, from SO_PEERCRED or
 * SCM_CREDENTIALS), identified by fd if it is new. Borrowed until the loop waits again. NULL: dead,
 * hidden, or not the process that cred names. */
const struct peer *peers_get(struct peers *p, int fd, const struct peer *cred);
