#pragma once
/*
 * ATP frames and errors as text and structs (atp page, sections 5 and 12). No sockets, no state:
 * the same code serves connections, tests and the fuzzer.
 */
#include "common/ipc/rpc.h"

#define ATP_ID_MAX    128
#define ATP_FRAME_IN  (4U << 20)
#define ATP_FRAME_OUT (8U << 20)
#define ATP_KINDS_MAX 64
#define ATP_PID_MAX   ((int64_t)1 << 53)

enum atp_code {
    ATP_OK,
#define ATP_ERR(name, http) ATP_##name,
#include "gateway/atp_err.def"
#undef ATP_ERR
    ATP_CODES
};
const char *atp_code_name(enum atp_code c);
int atp_code_http(enum atp_code c);

struct atp_err {
    enum atp_code code;
    char message[256];
    json_object *detail; /* owned, NULL if none */
};
/* Sets code and text and drops an older detail. Returns code. */
enum atp_code atp_fail(struct atp_err *e, enum atp_code code, const char *fmt, ...)
    printf_like(3, 4);
/* Adds a member to detail. */
void atp_detail_str(struct atp_err *e, const char *key, const char *v);
void atp_detail_int(struct atp_err *e, const char *key, int64_t v);
void atp_err_done(struct atp_err *e);
/* The client's view of an error from inside. ref names an internal error in the log, which the
 * caller writes: it is set ("" otherwise) only for EINTERNAL. */
void atp_from_rpc(struct atp_err *e, const struct rpc_error *r, char ref[17]);

enum atp_kind { ATP_CMD, ATP_SUBSCRIBE };

/* One frame from a client. Pointers are borrowed from root. */
struct atp_in {
    enum atp_kind kind;
    json_object *root;
    char id[ATP_ID_MAX + 1]; /* "" if there is none (or none that can be answered) */
    const char *token;       /* "" if absent */
    const char *domain, *op; /* cmd */
    json_object *body;       /* cmd: always an object; owned by root */
    json_object *events;     /* subscribe: array of strings */
    json_object *pids;       /* subscribe: array or NULL */
    int64_t since;           /* subscribe: since_seq, -1 if absent */
};
/* 0, or ATP_EPARSE with *e; in->id tells whether it can be answered. atp_in_done in every case. */
enum atp_code atp_parse(const char *text, size_t len, struct atp_in *in, struct atp_err *e);
void atp_in_done(struct atp_in *in);

/* An Avix pid from a number or a decimal string; -1 if it is neither. */
int64_t atp_pid(json_object *v);

/* Frames to a client, appended to b. */
void atp_write_ok(struct buf *b, const char *id, json_object *body);
void atp_write_fail(struct buf *b, const char *id, const struct atp_err *e);
/* body: JSON text. session: "" for system events. */
void atp_write_event(struct buf *b, uint64_t seq, const char *kind, const char *session,
                     int64_t ts_ms, const char *body, size_t len);
/* Error body of an HTTP answer. */
void atp_write_http_error(struct buf *b, enum atp_code code, const char *message);
