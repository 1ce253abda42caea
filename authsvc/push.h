#pragma once
/* auth.revoked to those who verify tokens: router, kernel, gateway. Repeated until written; saying
 * the same twice changes nothing. */
#include "common/base/json.h"

void push_init(void);
/* An auth/revoked answer; taken. */
void push_revoked(json_object *delta);
void push_done(void);
