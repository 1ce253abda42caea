#pragma once
/* Users, crews and policies, as others ask for them. */
#include "authsvc/state.h"

void auth_policy(struct call *c, const struct caller *who);
void auth_users_get(struct call *c, const struct caller *who);
void auth_users_list(struct call *c, const struct caller *who);
void auth_crews_get(struct call *c, const struct caller *who);
void auth_crews_list(struct call *c, const struct caller *who);
void auth_metrics(struct call *c, const struct caller *who);
