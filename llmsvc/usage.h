#pragma once
/* Live counters since this process started, for llm/usage and /proc/services/llm/usage. */
#include "llmsvc/account.h"

void usage_count(const struct usage_row *r, bool error);
void usage_fini(void);
/* {by_provider, by_model, cost_usd} of one user, or of all (user NULL). Owned. */
json_object *usage_report(const char *user);
