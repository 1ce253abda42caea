#pragma once
/*
 * The TCP side: inherited listeners, connections until libwebsockets takes them over, and what each
 * request says about where it comes from. Only web*.c, http*.c, ws.c and pki.c see libwebsockets.
 */
#include <libwebsockets.h>

#include "gateway/conn.h"

#define WEB_HEAD_MAX    16384U
#define WEB_UNAUTH_MAX  32U
#define WEB_CONNS_MAX   4096U
#define WEB_USER_CONNS  32U
#define WEB_HANDSHAKE_S 10

struct req;
struct wsc;

struct listener {
    int fd;
    bool admin, loopback, tls, proxy;
    char addr[64];
    int port;
    struct watch watch;
    struct lws_vhost *vhost;
};

/* One TCP connection, from accept to close. */
struct sock {
    TAILQ_ENTRY(sock) link;
    struct listener *l;
    int fd; /* ours until lws has it, then -1 */
    struct watch watch;
    struct timer late;
    struct ident_query *query;
    char remote[64];
    uint16_t remote_port;
    bool counted; /* among the unauthenticated of its address */
    bool waked;   /* SO_RCVLOWAT is set */
    bool adopting, dead;
    struct req *req;
    struct wsc *ws;
    struct ident *id; /* of an upgrade that was allowed */
    char *token;
};

/* What a head says, after the rules of forwarding. */
struct facts {
    char host[300], origin[300], remote[64];
    bool secure;        /* TLS, or a trusted proxy says so */
    bool forwarded;     /* a forwarding header was there, believed or not */
    bool loopback;      /* loopback peer in the sense of the atp page, section 2 */
    const char *bearer; /* in one shared buffer: used before the next head is read */
    bool has_cookie;
    const char *cookie; /* token out of the cookie, checked; "" if there is none or it may not be
                           used */
};

/* Context, vhosts, tables: before the sandbox. 0, or an exit status after logging why. */
int web_init(struct loop *l);
void web_start(void); /* begins to accept */
void web_reload(void);
/* Ends every WebSocket with this reason; no new connections. */
void web_stop(void);
bool web_idle(void); /* no WebSocket is left */
void web_fini(void);

/* Reads the head of the request that wsi has just parsed. */
void facts_read(struct lws *wsi, const struct sock *s, struct facts *f);
/* 0, or the HTTP status of the refusal (403, 421) with a text. */
int facts_check(const struct facts *f, const struct sock *s, const char **why);
/* The connection has shown a valid token. */
void sock_known(struct sock *s);

/* --- http.c: requests --- */
int http_begin(struct lws *wsi, struct sock *s, const char *path);
int http_body(struct sock *s, const void *data, size_t len);
int http_complete(struct sock *s);
int http_writeable(struct lws *wsi, struct sock *s);
void http_gone(struct sock *s);

/* --- ws.c: WebSockets --- */
/* May this head become a WebSocket? 0, -1 (hang up) or 1 (answered). */
int ws_confirm(struct lws *wsi, struct sock *s);
int ws_established(struct lws *wsi, struct sock *s);
int ws_receive(struct lws *wsi, struct sock *s, const void *data, size_t len);
void ws_pong(struct sock *s);
int ws_writeable(struct sock *s);
int ws_timer(struct sock *s);
void ws_gone(struct sock *s);
/* Closes every WebSocket of an ATP session, or all (NULL). */
void ws_close_session(const struct sess *s, int code, const char *reason);
unsigned ws_count(void);

/* --- cookie.c: the browser's cookie --- */
/* Value for a Set-Cookie of this token, for a client with this host uid (-1: not bound). */
void cookie_make(const char *token, int64_t uid, char *out, size_t size);
/* The token inside a cookie's value, in place; NULL if it was not made by cookie_make, or is bound
 * to another uid than that of the peer. */
const char *cookie_open(char *value, const struct sock *s);
/* Host uid at the other end of a loopback TCP connection, -1 if it cannot be had. */
int64_t cookie_peer_uid(const struct sock *s);
int cookie_init(const char *dir);
const char *cookie_name(bool secure);
