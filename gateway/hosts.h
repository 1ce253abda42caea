#pragma once
/*
 * What a request's head says about where it comes from (atp page, sections 1 to 4): Host, Origin,
 * cookie, bearer token, forwarding headers, addresses. Pure.
 */
#include "common/base/json.h"

/* Host part of "name", "name:port", "[::1]:port" in lower case, brackets kept; false if malformed.
 */
bool host_name(const char *host, char *out, size_t size);
/* localhost, 127.0.0.1, [::1]. */
bool host_is_local(const char *name);
/* loopback: the listener is bound to loopback. allowed: extra names (array of strings or NULL). */
bool host_allowed(const char *host, bool loopback, json_object *allowed);
/* origin NULL or "": none was sent, which passes. */
bool origin_allowed(const char *origin, bool secure, const char *host, json_object *allowed);

/* The token of an Authorization header ("Bearer x", scheme in any case); NULL if it is none. Points
 * into value. */
const char *bearer_token(const char *value);
/* A cookie's value out of a Cookie header into out; false if it is not there or too long. */
bool cookie_get(const char *header, const char *name, char *out, size_t size);

/* An address (v4, v6, v4 mapped in v6) is in one of these CIDRs (array of strings). */
bool cidr_match(const char *addr, json_object *cidrs);
bool addr_is_loopback(const char *addr);
/* Rightmost address of an X-Forwarded-For that is no trusted proxy; false if it names none. */
bool forwarded_for(const char *header, json_object *proxies, char *out, size_t size);

/* Length of an HTTP head at the start of data (with the empty line), 0 if it is not whole. */
size_t head_len(const char *data, size_t len);
/* Value of a header in a head, trimmed, into out; false if absent or too long. name without colon.
 */
bool head_get(const char *head, size_t len, const char *name, char *out, size_t size);
/* True if it is a GET of this path that asks for a WebSocket. */
bool head_is_upgrade(const char *head, size_t len, const char *path);
