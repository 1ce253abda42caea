#pragma once
/*
 * HTTP on our loop: libcurl's multi interface, driven by watch and timer, never blocking. One
 * struct http is one request; everything it is given must live until done or http_cancel.
 */
#include "common/ipc/loop.h"

enum http_end {
    HTTP_OK,      /* a whole answer, whatever its status */
    HTTP_CONNECT, /* no connection: name, TCP or TLS */
    HTTP_TIMEOUT,
    HTTP_BROKEN,  /* cut off, or nonsense for HTTP */
    HTTP_STOPPED, /* the body function said so */
};
struct http_req {
    const char *url;
    const char *post; /* NULL: GET */
    size_t post_len;
    const char *const *headers; /* "Name: value", borrowed; secrets stay where they are */
    size_t n_headers;
    int64_t connect_ms, first_byte_ms, read_ms, total_ms;
};
/* Answer headers that are kept; "" if absent. */
struct http_head {
    int status;
    char content_type[96], retry_after[48], retry_after_ms[24], request_id[128], should_retry[8];
};
struct http_cb {
    /* Body bytes, from inside curl: only collect. Not 0 stops the transfer (HTTP_STOPPED). */
    int (*body)(const struct http_head *h, const char *data, size_t len, void *arg);
    /* After a batch of body bytes, outside curl; may cancel. May be NULL. */
    void (*batch)(void *arg);
    /* Once; the transfer is gone after it. why: curl's words when it failed. */
    void (*done)(enum http_end end, const struct http_head *h, const char *why, void *arg);
};

struct http;
int http_init(struct loop *l); /* 0 or -ENOMEM */
void http_fini(void);
struct http *http_start(const struct http_req *q, const struct http_cb *cb, void *arg);
void http_cancel(struct http *h); /* aborts at once; done is not called */
void http_pause(struct http *h, bool paused);
