#pragma once
/* ATP logins and their sessions. */
#include "authsvc/state.h"

void auth_login(struct call *c, const struct caller *who);
void auth_refresh(struct call *c, const struct caller *who);
void auth_logout(struct call *c, const struct caller *who);
void auth_sessions(struct call *c, const struct caller *who);
void auth_kick(struct call *c, const struct caller *who);
