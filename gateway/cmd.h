#pragma once
/* Frames from a client: the command pipeline of the atp page, section 8. */
#include "gateway/conn.h"

#define CMD_IN_FLIGHT  32U
#define CMD_RATE       200.0
#define CMD_BURST      400.0
#define CMD_MS         28000
#define CMD_LONG_MS    600000
#define CMD_LIMITED_MS 10000

/* One whole text message. May close the connection (c->close). */
void cmd_frame(struct conn *c, const char *text, size_t len);
/* Cancels what is in flight and ends what the connection holds elsewhere. */
void cmd_conn_gone(struct conn *c);
/* Filled in by the gateway: what session.ready and sys.status say. */
struct gw_info {
    const char *mode;
    char admin_url[96]; /* "" if there is no admin listener */
};
extern struct gw_info gw_info;
/* The first frame of a connection. */
void cmd_ready(struct conn *c);
