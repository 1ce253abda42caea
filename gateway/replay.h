#pragma once
/* The ids of a connection's last 65,536 commands, as 64-bit hashes under a secret of the process.
 */
#include "common/base/util.h"

#define REPLAY_IDS 65536U

struct replay;
void replay_free(struct replay *r); /* NULL is fine */
/* True if id is new, and then it is kept. *r is made on the first use. */
bool replay_add(struct replay **r, const char *id);
