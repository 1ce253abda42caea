#pragma once
/* A small blocking ATP client for tests, written from RFC 6455 and the ATP page alone, so that it
 * checks what the gateway sends. */
#include "common/base/json.h"

struct rig;
/* A login by HTTP: 0 and *token (yours), or the HTTP status. identity may be "". */
int atp_login(int port, const char *identity, const char *credential, char **token);
/* Any HTTP request on loopback; status, and headers + body into *reply (yours, may be NULL). 0 if
 * nothing came. */
int http_request(int port, const char *method, const char *path, const char *headers,
                 const char *body, char **reply);

struct ws;
/* Upgrades; NULL with *status set (HTTP status) if refused. headers: further lines, each ended by
 * CRLF, or NULL. */
struct ws *ws_open(int port, const char *token, const char *headers, int *status);
void ws_close(struct ws *w);
void ws_closep(struct ws **w);
int ws_fd(struct ws *w);
bool ws_send(struct ws *w, json_object *frame); /* frame taken */
bool ws_send_raw(struct ws *w, int opcode, const void *data, size_t len, bool masked);
/* Next frame; NULL on timeout or when closed. Yours. */
json_object *ws_recv(struct ws *w, int timeout_ms);
/* Close code once the peer closed (1006: no close frame), 0 while open. */
int ws_close_code(struct ws *w);
/* Sends a cmd and waits for its reply; events that come meanwhile are kept for ws_recv. body taken.
 * Yours. */
json_object *ws_cmd(struct ws *w, const char *domain, const char *op, json_object *body);
/* Next event of this kind (others are dropped); NULL on timeout. Yours. */
json_object *ws_event(struct ws *w, const char *kind, int timeout_ms);
/* Log in as admin, open, read session.ready. */
struct ws *ws_admin(struct rig *g);
