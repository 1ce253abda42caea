#pragma once
/* Shared by the files of the service skeleton; rooms include svc.h only. */
#include "common/svc/svc.h"

/* Takes over the environment that init gave: paths, descriptors, keys, token. Ends the process if
 * it is not usable. */
void svc_env_read(const struct svc_spec *spec);
/* Datagram to NOTIFY_SOCKET; nothing happens without one. */
void svc_notify(const char *text);
/* True if the peer is the router's process. One comparison while it lives. */
bool svc_from_router(struct call *c);
/* Unit of the peer of a call, looking up its start time if the server did not. */
enum unit_id svc_call_unit(struct call *c);
/* Serves one call: rows of the table, signals, the room's `other`. */
void svc_dispatch(struct call *c, void *arg);
void svc_dispatch_init(const struct svc_spec *spec);
/* SIGTERM by signal or notification: refuse, drain, end the loop. */
void svc_stop(void);
