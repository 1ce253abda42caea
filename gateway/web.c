/*
 * libwebsockets on our libuv loop, with listeners that init holds.
 *
 * We accept, one connection per wake, set TCP_NODELAY (lws does not, and a TLS handshake then costs
 * 40 ms), and hand the socket to the vhost. Before that, on a plain listener, the head of the first
 * request is looked at without taking it out of the socket: lws decides about an upgrade inside one
 * callback, and a token that we have not seen yet must be asked for before that. It also gives
 * heads that are too long a proper answer.
 *
 * One protocol serves all: without a Sec-WebSocket-Protocol header lws binds the first one, so a
 * second one could be reached by nobody but would be a second place for checks.
 */
#include "gateway/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/map.h"
#include "gateway/atp.h"
#include "gateway/cmd.h"
#include "gateway/hosts.h"
#include "gateway/loop_uv.h"
#include "gateway/metrics.h"
#include "gateway/pki.h"

_Static_assert(OUT_PRE >= LWS_PRE, "room for the WebSocket header");

#define FDS_SOFT  16384
#define SOCKS_MAX (WEB_CONNS_MAX + 1024U)

static struct lws_context *context;
static struct listener listeners[3];
static size_t n_listeners;
static TAILQ_HEAD(, sock) socks = TAILQ_HEAD_INITIALIZER(socks); /* oldest first */
static unsigned n_socks;
static struct map unauth; /* address -> count */
static struct loop *loop;
static struct timer resume;

/* --- the count of those who have not logged in ------------------------------------------------ */

static unsigned unauth_of(const char *addr)
{
    return (unsigned)(uintptr_t)map_get(&unauth, addr);
}

static void unauth_set(const char *addr, unsigned n)
{
    if (n)
        map_put(&unauth, addr, (void *)(uintptr_t)n);
    else
        map_del(&unauth, addr);
}

void sock_known(struct sock *s)
{
    if (s->counted)
        unauth_set(s->remote, unauth_of(s->remote) - 1);
    s->counted = false;
}

/* --- a socket's life -------------------------------------------------------------------------- */

static void sock_free(struct sock *s)
{
    sock_known(s);
    http_gone(s);
    ws_gone(s);
    ident_cancel(s->query);
    ident_unref(s->id);
    if (s->token)
        explicit_bzero(s->token, strlen(s->token));
    free(s->token);
    watch_done(&s->watch);
    timer_done(&s->late);
    closep(&s->fd);
    TAILQ_REMOVE(&socks, s, link);
    n_socks--;
    free(s);
}

static void adopt(struct sock *s)
{
    lws_adopt_desc_t d = { .vh = s->l->vhost,
                           .type = LWS_ADOPT_HTTP | LWS_ADOPT_SOCKET |
                                   (s->l->tls ? LWS_ADOPT_ALLOW_SSL : 0),
                           .fd = { .sockfd = s->fd },
                           .opaque = s };
    int one = 1;

    watch_done(&s->watch);
    timer_done(&s->late);
    if (s->waked)
        setsockopt(s->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
    s->fd = -1; /* lws closes it, on failure too */
    s->adopting = true;
    if (!lws_adopt_descriptor_vhost_via_info(&d))
        s->dead = true;
    s->adopting = false;
    if (s->dead)
        sock_free(s);
}

static void refuse_raw(struct sock *s, const char *status, const char *code, const char *text)
{
    char b[512];
    int n = snprintf(b, sizeof(b),
                     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n\r\n{\"error\":\"%s\",\"message\":\"%s\"}",
                     status, strlen(code) + strlen(text) + 27, code, text);

    (void)!send(s->fd, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(s->fd, SHUT_WR);
    sock_free(s);
}

static void on_known_token(struct ident *i, void *arg)
{
    struct sock *s = arg;

    (void)i; /* the upgrade finds the answer in the cache */
    s->query = NULL;
    adopt(s);
}

/* An upgrade with a token that is not known yet waits here for authsvc. */
static void look_at_head(struct sock *s, const char *head, size_t len)
{
    static char value[WEB_HEAD_MAX];
    const char *token = NULL;

    if (head_is_upgrade(head, len, "/atp")) {
        if (head_get(head, len, "authorization", value, sizeof(value)))
            token = bearer_token(value);
        else if (head_get(head, len, "cookie", value, sizeof(value))) {
            static char cookie[WEB_HEAD_MAX];

            if (cookie_get(value, cookie_name(false), cookie, sizeof(cookie)) ||
                cookie_get(value, cookie_name(true), cookie, sizeof(cookie)))
                token = cookie_open(cookie, s);
        }
    }
    if (!token || ident_peek(token)) {
        adopt(s);
        return;
    }
    watch_done(&s->watch);
    s->query = ident_ask(token, on_known_token, s);
    explicit_bzero(value, sizeof(value));
}

static void on_first_bytes(int fd, unsigned events, void *arg)
{
    static char head[WEB_HEAD_MAX + 1];
    struct sock *s = arg;
    ssize_t n = recv(fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    size_t len;
    int want;

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        sock_free(s);
        return;
    }
    len = head_len(head, (size_t)n);
    if (len) {
        look_at_head(s, head, len);
        return;
    }
    if ((size_t)n >= WEB_HEAD_MAX) {
        refuse_raw(s, "431 Request Header Fields Too Large", "ELIMIT", "head over 16 KiB");
        return;
    }
    /* Level-triggered: without this the bytes that stay in the socket would wake us for ever. */
    want = (int)n + 1;
    s->waked = true;
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &want, sizeof(want));
}

static void on_late(void *arg)
{
    struct sock *s = arg;

    metric_add("limited_total", "limit=\"handshake\"", 1);
    sock_free(s);
}

static void remote_text(const struct sockaddr_storage *a, struct sock *s)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)a;

        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
        s->remote_port = ntohs(v4->sin_port);
    } else if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)a;

        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
        s->remote_port = ntohs(v6->sin6_port);
    }
    str_copy(s->remote, sizeof(s->remote), text);
}

/* Too many: the one that has said nothing for longest makes room. False if all are at work. */
static bool drop_a_silent_one(void)
{
    struct sock *s;

    TAILQ_FOREACH (s, &socks, link) {
        if (s->fd >= 0 && !s->query) {
            metric_add("limited_total", "limit=\"sockets\"", 1);
            sock_free(s);
            return true;
        }
    }
    return false;
}

static void on_accept(int fd, unsigned events, void *arg)
{
    struct listener *l = arg;
    struct sockaddr_storage a = { .ss_family = 0 };
    socklen_t alen = sizeof(a);
    int one = 1, new = accept4(fd, (struct sockaddr *)&a, &alen, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct sock *s;

    (void)events;
    if (new < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            for (size_t i = 0; i < n_listeners; i++)
                watch_set(&listeners[i].watch, 0);
            timer_set(&resume, 100);
        }
        return;
    }
    setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (n_socks >= SOCKS_MAX && !drop_a_silent_one()) {
        close(new);
        return;
    }
    s = xcalloc(1, sizeof(*s));
    s->l = l;
    s->fd = new;
    TAILQ_INSERT_TAIL(&socks, s, link);
    n_socks++;
    remote_text(&a, s);
    if (unauth_of(s->remote) >= WEB_UNAUTH_MAX &&
        !cidr_match(s->remote, svc.config->trusted_proxies)) {
        metric_add("limited_total", "limit=\"unauthenticated\"", 1);
        sock_free(s);
        return;
    }
    s->counted = true;
    unauth_set(s->remote, unauth_of(s->remote) + 1);
    if (l->tls) {
        adopt(s);
        return;
    }
    timer_init(&s->late, loop, on_late, s);
    timer_set(&s->late, WEB_HANDSHAKE_S * 1000);
    watch_init(&s->watch, loop, s->fd, on_first_bytes, s);
    watch_set(&s->watch, LOOP_READ);
}

static void on_resume(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < n_listeners; i++)
        watch_set(&listeners[i].watch, LOOP_READ);
}

/* --- libwebsockets ---------------------------------------------------------------------------- */

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                  size_t len)
{
    struct sock *s;

    (void)user;
    switch ((int)reason) {
    case LWS_CALLBACK_HTTP:
        return http_begin(wsi, lws_get_opaque_user_data(wsi), in);
    case LWS_CALLBACK_HTTP_BODY:
        return http_body(lws_get_opaque_user_data(wsi), in, len);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        return http_complete(lws_get_opaque_user_data(wsi));
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return http_writeable(wsi, lws_get_opaque_user_data(wsi));
    case LWS_CALLBACK_CLOSED_HTTP:
        s = lws_get_opaque_user_data(wsi);
        if (s)
            http_gone(s);
        return 0;
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return ws_confirm(wsi, lws_get_opaque_user_data(wsi));
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        s = lws_get_opaque_user_data(wsi);
        return s && s->id ? 0 : 1; /* nobody comes here but by ws_confirm */
    case LWS_CALLBACK_ESTABLISHED:
        return ws_established(wsi, lws_get_opaque_user_data(wsi));
    case LWS_CALLBACK_RECEIVE:
        return ws_receive(wsi, lws_get_opaque_user_data(wsi), in, len);
    case LWS_CALLBACK_RECEIVE_PONG:
        ws_pong(lws_get_opaque_user_data(wsi));
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return ws_writeable(lws_get_opaque_user_data(wsi));
    case LWS_CALLBACK_TIMER:
        s = lws_get_opaque_user_data(wsi);
        return s && s->ws ? ws_timer(s) : 0;
    case LWS_CALLBACK_CLOSED:
        s = lws_get_opaque_user_data(wsi);
        if (s)
            ws_gone(s);
        return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        s = lws_get_opaque_user_data(wsi);
        if (!s)
            return 0;
        lws_set_opaque_user_data(wsi, NULL);
        if (s->adopting)
            s->dead = true;
        else
            sock_free(s);
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    { .name = "http", .callback = on_lws, .rx_buffer_size = 65536 },
    { .name = NULL },
};

static void on_lws_log(int level, const char *line)
{
    size_t n = strcspn(line, "\n");

    log_line(level & LLL_ERR ? LOG_ERROR : LOG_WARN, "lws: %.*s", (int)n, line);
}

static int context_new(void)
{
    struct uv_loop_s *uv = loop_uv_raw(loop);
    void *foreign[] = { uv };
    struct lws_context_creation_info info = { 0 };
    struct rlimit rl;

    /* lws makes a table with one place per possible descriptor. */
    if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur > FDS_SOFT) {
        rl.rlim_cur = FDS_SOFT;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
    lws_set_log_level(LLL_ERR, on_lws_log);
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.foreign_loops = foreign;
    info.uid = (typeof(info.uid))-1;
    info.gid = (typeof(info.gid))-1;
    info.pt_serv_buf_size = 32768;
    info.max_http_header_data2 = WEB_HEAD_MAX + 1024;
    info.max_http_header_pool2 = 1024;
    info.timeout_secs = WEB_HANDSHAKE_S;
    info.keepalive_timeout = 15;
    info.options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
                   LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_VALIDATE_UTF8;
    context = lws_create_context(&info);
    if (!context) {
        log_error("libwebsockets cannot start on libuv (is libwebsockets-evlib-uv installed?)");
        return 70;
    }
    return 0;
}

static struct lws_vhost *vhost_new(const char *name, bool tls)
{
    /* Pings and their end are ours (ws.c): lws would cut without a close frame. */
    static const lws_retry_bo_t never = { .secs_since_valid_ping = 65534,
                                          .secs_since_valid_hangup = 65535 };
    struct lws_context_creation_info info = { 0 };

    info.vhost_name = name;
    info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
    info.protocols = protocols;
    info.timeout_secs = WEB_HANDSHAKE_S;
    info.keepalive_timeout = 15;
    info.retry_and_idle_policy = &never;
    if (tls)
        pki_vhost(&info);
    return lws_create_vhost(context, &info);
}

/* --- listeners -------------------------------------------------------------------------------- */

static void where(struct listener *l)
{
    struct sockaddr_storage a = { .ss_family = 0 };
    socklen_t alen = sizeof(a);
    struct sock tmp = { .fd = -1 };

    (void)!getsockname(l->fd, (struct sockaddr *)&a, &alen);
    remote_text(&a, &tmp);
    str_copy(l->addr, sizeof(l->addr), tmp.remote);
    l->port = tmp.remote_port;
    l->loopback = addr_is_loopback(l->addr);
}

static int listener_add(const char *name, bool admin)
{
    struct listener *l = &listeners[n_listeners];
    const struct kernel_config *k = svc.config;

    l->fd = svc_fd(name);
    if (l->fd < 0)
        return 0;
    n_listeners++;
    l->admin = admin;
    where(l);
    l->proxy = str_eq(k->tls_mode, "proxy") && !(admin && l->loopback);
    l->tls = (str_eq(k->tls_mode, "self-signed") || str_eq(k->tls_mode, "files")) &&
             !(admin && l->loopback);
    if (!l->tls && !l->proxy && !l->loopback && !k->tls_allow_plain) {
        log_error("%s: %s is not loopback: set spec.gateway.tls.mode, or tls.allow_plain: true",
                  name, l->addr);
        return 78;
    }
    if (admin)
        snprintf(gw_info.admin_url, sizeof(gw_info.admin_url),
                 strchr(l->addr, ':') ? "%s://[%s]:%d" : "%s://%s:%d", l->tls ? "https" : "http",
                 l->addr, l->port);
    return 0;
}

int web_init(struct loop *l)
{
    struct lws_vhost *plain = NULL, *secure = NULL;
    int r;

    loop = l;
    gw_info.mode = svc.config->mode;
    map_init(&unauth);
    timer_init(&resume, loop, on_resume, NULL);
    r = listener_add("http", false);
    r = r ? r : listener_add("http6", false);
    r = r ? r : listener_add("admin", true);
    if (!r && !n_listeners) {
        log_error("no TCP listener was handed down");
        r = 64;
    }
    for (size_t i = 0; !r && i < n_listeners; i++)
        if (listeners[i].tls) {
            r = pki_load(listeners[i].addr);
            break;
        }
    r = r ? r : context_new();
    for (size_t i = 0; !r && i < n_listeners; i++) {
        struct lws_vhost **v = listeners[i].tls ? &secure : &plain;

        if (!*v)
            *v = vhost_new(listeners[i].tls ? "tls" : "plain", listeners[i].tls);
        listeners[i].vhost = *v;
        if (!*v) {
            log_error("the %s listener cannot be set up", listeners[i].tls ? "TLS" : "plain");
            r = 78;
        }
    }
    return r;
}

void web_start(void)
{
    for (size_t i = 0; i < n_listeners; i++) {
        struct listener *l = &listeners[i];

        watch_init(&l->watch, loop, l->fd, on_accept, l);
        watch_set(&l->watch, LOOP_READ);
        log_info("serving %s on %s port %d%s", l->admin ? "the admin listener" : "clients", l->addr,
                 l->port, l->tls ? " with TLS" : "");
    }
}

void web_reload(void)
{
    pki_reload(context);
}

void web_stop(void)
{
    timer_stop(&resume);
    for (size_t i = 0; i < n_listeners; i++)
        watch_done(&listeners[i].watch);
    ws_close_session(NULL, 1001, "shutdown");
}

bool web_idle(void)
{
    return ws_count() == 0;
}

void web_fini(void)
{
    struct sock *s, *next;

    for (s = TAILQ_FIRST(&socks); s; s = next) { /* those that lws does not have yet */
        next = TAILQ_NEXT(s, link);
        if (s->fd >= 0)
            sock_free(s);
    }
    timer_done(&resume);
    if (context)
        lws_context_destroy(context);
    context = NULL;
    map_done(&unauth);
}

/* --- what a head says ------------------------------------------------------------------------- */

static void copy_token(struct lws *wsi, enum lws_token_indexes t, char *out, size_t size)
{
    if (lws_hdr_copy(wsi, out, (int)size, t) < 0)
        out[0] = '\0';
}

static void copy_custom(struct lws *wsi, const char *name, char *out, size_t size)
{
    out[0] = '\0';
    if (lws_hdr_custom_length(wsi, name, (int)strlen(name)) > 0 &&
        lws_hdr_custom_copy(wsi, out, (int)size, name, (int)strlen(name)) < 0)
        out[0] = '\0';
}

/* Any of these shows that someone stands between us and the client, believed or not. */
static const char *const forwarding[] = { "x-forwarded-proto:", "x-forwarded-host:", "forwarded:" };
static const enum lws_token_indexes forwarding_known[] = { WSI_TOKEN_X_FORWARDED_FOR,
                                                           WSI_TOKEN_HTTP_X_REAL_IP,
                                                           WSI_TOKEN_HTTP_VIA };

static void read_forwarding(struct lws *wsi, const struct sock *s, struct facts *f)
{
    static char xff[WEB_HEAD_MAX]; /* cut short it would lose the end, the part a proxy wrote */
    char proto[16], host[300];
    json_object *proxies = svc.config->trusted_proxies;
    bool trusted = cidr_match(s->remote, proxies);

    copy_token(wsi, WSI_TOKEN_X_FORWARDED_FOR, xff, sizeof(xff));
    copy_custom(wsi, "x-forwarded-proto:", proto, sizeof(proto));
    copy_custom(wsi, "x-forwarded-host:", host, sizeof(host));
    for (size_t i = 0; i < N_ELEMS(forwarding_known); i++)
        f->forwarded |= lws_hdr_total_length(wsi, forwarding_known[i]) > 0;
    for (size_t i = 0; i < N_ELEMS(forwarding); i++)
        f->forwarded |= lws_hdr_custom_length(wsi, forwarding[i], (int)strlen(forwarding[i])) >= 0;
    f->secure = s->l->tls;
    if (!trusted)
        return;
    if (xff[0] && !forwarded_for(xff, proxies, f->remote, sizeof(f->remote)))
        /* garbage stands for no address, least of all for the proxy's own */
        str_copy(f->remote, sizeof(f->remote), f->remote[0] ? s->remote : "unknown");
    if (proto[0])
        f->secure = str_eq(proto, "https");
    if (host[0])
        str_copy(f->host, sizeof(f->host), host);
}

void facts_read(struct lws *wsi, const struct sock *s, struct facts *f)
{
    static char auth[WEB_HEAD_MAX], cookies[WEB_HEAD_MAX], cookie[WEB_HEAD_MAX];

    memset(f, 0, sizeof(*f));
    copy_token(wsi, WSI_TOKEN_HOST, f->host, sizeof(f->host));
    copy_token(wsi, WSI_TOKEN_ORIGIN, f->origin, sizeof(f->origin));
    if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0 && !f->origin[0])
        str_copy(f->origin, sizeof(f->origin), "null"); /* too long to be ours */
    str_copy(f->remote, sizeof(f->remote), s->remote);
    read_forwarding(wsi, s, f);
    f->loopback = !f->forwarded && !s->l->proxy && addr_is_loopback(s->remote);
    copy_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, auth, sizeof(auth));
    f->bearer = bearer_token(auth);
    copy_token(wsi, WSI_TOKEN_HTTP_COOKIE, cookies, sizeof(cookies));
    f->cookie = "";
    f->has_cookie = cookie_get(cookies, cookie_name(f->secure), cookie, sizeof(cookie));
    if (f->has_cookie) {
        const char *t = cookie_open(cookie, s);

        f->cookie = t ? t : "";
    }
}

int facts_check(const struct facts *f, const struct sock *s, const char **why)
{
    const struct kernel_config *k = svc.config;

    if (s->l->proxy && !cidr_match(s->remote, k->trusted_proxies)) {
        *why = "only trusted proxies may connect";
        return 403;
    }
    /* Only a trusted proxy may bring other names to a loopback bind: a page can send the headers.
     */
    bool proxied = f->forwarded && cidr_match(s->remote, k->trusted_proxies);

    if (!host_allowed(f->host, s->l->loopback && !proxied, k->allowed_hosts)) {
        metric_add("origin_rejected_total", NULL, 1);
        *why = "unknown Host";
        return 421;
    }
    if (!origin_allowed(f->origin, f->secure, f->host, k->allowed_origins)) {
        metric_add("origin_rejected_total", NULL, 1);
        *why = "requests from this origin are not allowed";
        return 403;
    }
    return 0;
}
