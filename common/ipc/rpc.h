#pragma once
/* JSON-RPC 2.0 as Avix speaks it (ipc page, section 2). */
#include "common/base/err.h"
#include "common/base/json.h"

#define RPC_ID_MAX     128
#define RPC_METHOD_MAX 128

enum rpc_kind { RPC_REQUEST, RPC_NOTE, RPC_RESPONSE };

struct rpc_msg {
    enum rpc_kind kind;
    json_object *root;       /* owns all below */
    char id[RPC_ID_MAX + 1]; /* text form; "" for a notification */
    bool id_int;             /* the id was an integer */
    const char *method;      /* borrowed from root; NULL in a response */
    json_object *params;     /* borrowed; never NULL in a request or notification ({} if absent) */
    json_object *result;     /* response: the result (may be a JSON null: NULL) */
    json_object *error;      /* response: the error object, or NULL */
};

/* 0; ERR_PARSE, ERR_REQUEST, ERR_INVAL (params no object) with *m usable for replying (id if it
 * could be read, else ""). rpc_done in every case. */
int rpc_parse(const char *data, size_t len, struct rpc_msg *m);
void rpc_done(struct rpc_msg *m);

/* An error as it travels: number, name, text, data. */
struct rpc_error {
    int err;  /* enum err */
    int code; /* as sent; may be one of -32040 .. -32099 */
    char message[256];
    json_object *data; /* owned, NULL if none */
};
void rpc_error_done(struct rpc_error *e);
/* Fills *e from a response's error object (borrowed). data.errno wins over the number. */
void rpc_error_read(json_object *error, struct rpc_error *e);
/* The member data.reason, or "". */
const char *rpc_error_reason(const struct rpc_error *e);

/* Texts of messages, appended to b. id text "" gives null; id_int writes it bare. */
void rpc_write_result(struct buf *b, const char *id, bool id_int, json_object *result);
void rpc_write_result_text(struct buf *b, const char *id, bool id_int, const char *result,
                           size_t len);
/* data: borrowed or NULL; errno is added to it. */
void rpc_write_error(struct buf *b, const char *id, bool id_int, int err, const char *message,
                     json_object *data);
/* As it came: number, text and data kept. */
void rpc_write_error_rpc(struct buf *b, const char *id, bool id_int, const struct rpc_error *e);
void rpc_write_note(struct buf *b, const char *method, json_object *params);
void rpc_write_request(struct buf *b, const char *id, const char *method, json_object *params);
