#pragma once
/*
 * The event bus: takes events from our own processes, numbers them, keeps them in the ring, and
 * hands them to the connections.
 */
#include "gateway/kinds.h"

/* event.publish on gateway.sock. */
void bus_on_publish(struct call *c, const struct caller *who);
/* Agents that events in the ring tell of. */
void bus_start(void);
void bus_fini(void);
/* What has been checked and accepted. body: an object in the shape of its kind. id: "" or the
 * publisher's. Returns the number. */
uint64_t bus_publish(enum kind_id k, json_object *body, const char *user, const char *session,
                     enum role min, const char *id);
