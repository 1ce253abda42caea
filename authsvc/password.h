#pragma once
/*
 * Passwords: argon2id in worker threads, at most 2 at once and 32 waiting, one per address. Every
 * check costs one hash, also when there is nothing to check against.
 */
#include "authsvc/work.h"

#define PASSWORD_MAX     1024
#define PASSWORD_THREADS 2
#define PASSWORD_WAITING 32

struct passwords;
/* ok: the password fits the hash (never with a dummy). */
typedef void (*password_fn)(bool ok, void *arg);

struct passwords *passwords_new(struct loop *l);
/* hash: "$argon2id$…", NULL for a dummy of equal work. addr: addr_key text. 0 and fn follows, or
 * ERR_BUSY. */
int password_check(struct passwords *p, const char *hash, const char *password, const char *addr,
                   password_fn fn, void *arg);
unsigned passwords_waiting(struct passwords *p);
void passwords_free(struct passwords *p);
