#pragma once
/* What the blocking and the event-driven client share. */
#include "common/ipc/client.h"

void ipc_reply_init(struct ipc_reply *r);
/* Each fills *r and returns r->err. */
int ipc_reply_fail(struct ipc_reply *r, int err, const char *key, const char *value,
                   const char *text);
int ipc_reply_broken(struct ipc_reply *r, bool sent, const char *what);
int ipc_reply_connect(struct ipc_reply *r, int negerr);
int ipc_reply_take(struct ipc_reply *r, struct rpc_msg *m);
/* The text of the request, with _token and _timeout_ms. */
void ipc_request_text(const struct ipc_req *q, struct buf *b);
