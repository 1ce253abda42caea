#pragma once
/* One HTTP request and its answer; shared by the endpoints. */
#include "gateway/atp.h"
#include "gateway/web.h"

#define HTTP_BODY_MAX 8192U

enum verb { VERB_GET, VERB_HEAD, VERB_POST, VERB_OTHER };
struct file;

struct req {
    struct sock *s;
    struct lws *wsi;
    enum verb verb;
    char path[1024];
    struct facts f; /* bearer and cookie are copied into token */
    char *token;    /* of Authorization or cookie, NULL if there is none */
    bool by_cookie;
    char agent[128], if_none_match[80];
    bool json, gzip; /* content type; what the client accepts */
    const struct route *route;
    struct buf body;
    bool too_big;

    /* work under way; cancelled when the client goes */
    struct ipc_call *call;
    struct ident_query *query;
    void *work;
    void (*work_gone)(struct req *r);
    bool want_cookie;

    /* the answer */
    bool dispatched, answered, head_out, close_after;
    struct buf head, out;
    const char *data; /* what is sent: out, or a file's bytes */
    size_t len, sent;
};

struct route {
    enum verb verb;
    const char *path;
    const char *label; /* in metrics */
    void (*fn)(struct req *r);
};

/* extra: further header lines, each with CRLF, may be NULL. Body is copied (http_answer) or must
 * stay (http_answer_static). */
void http_answer(struct req *r, int status, const char *type, const char *extra, const char *body,
                 size_t len);
void http_answer_static(struct req *r, int status, const char *type, const char *extra,
                        const char *body, size_t len);
void http_json(struct req *r, int status, const char *extra, json_object *body); /* body taken */
/* status 0: the code's own. */
void http_fail(struct req *r, int status, enum atp_code code, const char *extra, const char *fmt,
               ...) printf_like(5, 6);
const char *http_reason(int status);
/* The security headers of every answer, for the host of the request. */
void http_security(struct buf *b, const char *host, bool hsts);

/* http_auth.c */
void http_login(struct req *r);
void http_refresh(struct req *r);
void http_logout(struct req *r);
/* http_ops.c */
void http_health(struct req *r);
void http_healthz(struct req *r);
void http_readyz(struct req *r);
void http_metrics(struct req *r);
void http_ops_fini(void);
/* files.c */
int files_load(const char *root); /* 0 or -errno; a missing folder is an empty table */
void files_serve(struct req *r);
void files_fini(void);
