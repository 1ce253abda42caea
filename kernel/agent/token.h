#pragma once
/* The capability token: taken from agent.ready, swapped when the kernel sends another, renewed
 * before it runs out. */
#include "kernel/agent/agent.h"

#define RENEW_BEFORE_MS (300 * 1000)

/* Copies it; NULL or "" changes nothing. expires: RFC 3339 or NULL (then the claim counts). */
void token_set(const char *token, const char *expires);
void token_wipe(void);
bool token_due(void); /* 300 s or less are left */
/* Asks for another. 0, ERR_AUTH if this process has lost its rights, another error or a BRK_*
 * (negative, rt.h) if it could not ask. */
int token_renew(const char *reason);
/* The claim granted contains this tool. */
bool token_grants(const char *tool);
/* The model may see it: not one of the tools that only the executor itself needs. */
bool token_offers(const char *tool);
/* Counts a use of a tool with a budget; false if none is left. */
bool token_spend(const char *tool);
void token_give_back(const char *tool);
