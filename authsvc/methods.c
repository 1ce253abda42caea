/* One row per method; who may call is in the row, whose data it is in the handler. */
#include "authsvc/methods.h"

#include "authsvc/accounts.h"
#include "authsvc/cap.h"
#include "authsvc/login.h"
#include "authsvc/secrets.h"

#define READ (M_READONLY | M_IDEMPOTENT)
#define UNITS                                                                                   \
    (FROM_INIT | FROM(UNIT_ROUTER) | FROM(UNIT_KERNEL) | FROM(UNIT_MEMFS) | FROM(UNIT_LLMSVC) | \
     FROM(UNIT_EXECSVC) | FROM(UNIT_GATEWAY))

// clang-format off
const struct method auth_methods[] = {
    /* name                flags                  from               least role      handler */
    { .name = "auth/login",    .flags = M_INTERNAL,        .timeout_s = 30, .fn = auth_login,
      .desc = "Checks a credential and opens an ATP session" },
    { .name = "auth/refresh",  .flags = M_INTERNAL,        .min_role = ROLE_GUEST, .fn = auth_refresh,
      .desc = "A new ATP token for a valid one" },
    { .name = "auth/logout",   .flags = M_INTERNAL,        .min_role = ROLE_GUEST, .fn = auth_logout,
      .desc = "Ends the ATP session of a token, or all of its user" },
    { .name = "auth/sessions", .flags = M_INTERNAL | READ, .min_role = ROLE_GUEST, .fn = auth_sessions,
      .desc = "ATP sessions" },
    { .name = "auth/kick",     .flags = M_INTERNAL,        .min_role = ROLE_GUEST, .fn = auth_kick,
      .desc = "Ends an ATP session" },
    { .name = "auth/policy",   .flags = M_INTERNAL | READ, .from = FROM(UNIT_ROUTER), .fn = auth_policy,
      .desc = "What a user may be granted" },
    { .name = "auth/mint",     .flags = M_INTERNAL,        .fn = auth_mint,
      .desc = "A capability token for an agent's process" },
    { .name = "auth/renew",    .flags = M_INTERNAL,        .fn = auth_renew,
      .desc = "A new capability token with the binding of an old one" },
    { .name = "auth/revoke",   .flags = M_INTERNAL | M_IDEMPOTENT, .fn = auth_revoke,
      .desc = "Takes capability tokens back" },
    { .name = "auth/validate", .flags = M_INTERNAL | READ, .fn = auth_validate,
      .desc = "Whether a token is valid" },
    { .name = "auth/revoked",  .flags = M_INTERNAL | READ, .from = FROM(UNIT_ROUTER), .fn = auth_revoked,
      .desc = "What was revoked and has not expired" },
    { .name = "auth/metrics",  .flags = M_INTERNAL | READ, .fn = auth_metrics, .desc = "Counters as Prometheus text" },
    { .name = "auth/secret/export", .flags = M_FRAME, .from = UNITS, .fn = auth_secret_export },
    { .name = "auth/users/get",  .flags = READ, .min_role = ROLE_USER,     .fn = auth_users_get,
      .desc = "One user", .input = "{\"username\":{\"type\":\"string\"}}" },
    { .name = "auth/users/list", .flags = READ, .min_role = ROLE_OPERATOR, .fn = auth_users_list,
      .desc = "All users" },
    { .name = "auth/crews/get",  .flags = READ, .min_role = ROLE_GUEST,    .fn = auth_crews_get,
      .desc = "One crew", .input = "{\"name\":{\"type\":\"string\",\"required\":true}}" },
    { .name = "auth/crews/list", .flags = READ, .min_role = ROLE_GUEST,    .fn = auth_crews_list,
      .desc = "All crews" },
};
// clang-format on
const size_t auth_n_methods = N_ELEMS(auth_methods);
