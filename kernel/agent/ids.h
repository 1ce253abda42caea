#pragma once
/* Ids that a call has again when it is made again after a crash: no clock, no chance. */
#include "common/base/rnd.h"

/* The invocation's UUID with seq * 256 + n XORed into its last 7 bytes (agents page, section 7). */
char *turn_id(const char *invocation, int64_t seq, unsigned n, char out[UUID_LEN]);
/* A UUID for one tool call of a turn: the turn's with pos + 1 XORed into its first byte. */
char *call_uuid(const char *turn, unsigned pos, char out[UUID_LEN]);
