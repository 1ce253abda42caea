#pragma once
/*
 * Requests and replies as text: the router validates a frame in one pass, notes where its parts
 * lie, and forwards pieces of the original bytes. No JSON tree is built for a call that passes.
 */
#include "common/base/json.h"
#include "common/ipc/rpc.h"

/* Reserved members of params (ipc page, section 2). */
enum reserved {
    RES_TOKEN,
    RES_CALLER,
    RES_USER,
    RES_AS,
    RES_PEER,
    RES_TIMEOUT,
    RES_TRACE,
    RES_CALLER_PID,
    RES_CALLER_USER,
    RES_CALLER_TOKEN,
    RES_COUNT,
};

struct span {
    const char *at;
    size_t len;
};

/* A request. Spans point into the frame's text, which must stay. */
struct env {
    enum rpc_kind kind; /* RPC_REQUEST or RPC_NOTE */
    char id[RPC_ID_MAX + 1];
    bool id_int;
    char method[RPC_METHOD_MAX + 1];
    size_t method_len;
    struct span params;               /* the whole object, or empty */
    struct json_slice res[RES_COUNT]; /* values of reserved members; len 0: absent */
    struct span keep[RES_COUNT + 2];  /* runs of the other members, without outer commas */
    size_t n_keep;
};

/* 0, ERR_PARSE, ERR_REQUEST, or ERR_INVAL (params); id is filled in if it could be read. */
int env_parse(const char *text, size_t len, struct env *e);
/* The forwarded request: caller (a JSON object, or NULL) becomes params._caller. */
void env_write(const struct env *e, const char *method, struct span caller, struct buf *out);
/* The value of a reserved string member, unescaped; false if absent, no string or too long. */
bool env_str(const struct env *e, enum reserved r, char *out, size_t size);

/* Any other member of params; false if absent. */
bool env_member(const struct env *e, const char *name, struct json_slice *out);

enum reply_kind { REPLY_BAD, REPLY_NOTE, REPLY_RESULT, REPLY_ERROR };
struct reply {
    enum reply_kind kind;
    struct span id;    /* value in the text, quotes included */
    struct span error; /* the error object */
    struct span result;
    int code;       /* of an error */
    bool has_errno; /* error.data.errno is there */
};
/* Looks at a frame from an owner, answering e. */
void reply_scan(const char *text, size_t len, const struct env *e, struct reply *r);
