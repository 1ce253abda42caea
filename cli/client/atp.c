/*
 * libwebsockets does TLS, HTTP and the WebSocket; its own loop is right here, with one connection.
 * The login is an HTTP POST on a connection of its own. Frames are queued by the callback and taken
 * by whoever waits.
 */
#include "cli/client/atp.h"

#include <errno.h>
#include <libwebsockets.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <signal.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cli/client/url.h"
#include "common/base/b64.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/rnd.h"

#define REPLY_MAX (16U << 20)

struct frame {
    json_object *o;
    STAILQ_ENTRY(frame) link;
};

enum http_state { HTTP_IDLE, HTTP_BUSY, HTTP_DONE, HTTP_FAILED };

struct atp {
    struct cli *c;
    struct lws_context *ctx;
    struct lws *ws;
    struct url url;
    char identity[64], why[256], fingerprint[65];
    char *token;
    bool own_login, open, lost, logged_error;
    int status; /* HTTP status of the last answer */
    enum http_state http;
    struct buf out, in, http_out, http_in;
    const char *http_auth; /* Bearer for the HTTP request, or NULL */
    STAILQ_HEAD(, frame) events;
    json_object *reply; /* the reply that is waited for */
    char wait_id[32];
    unsigned next_id;
    int64_t cursor, sub_pid;
    json_object *sub_kinds, *hello;
    int latency_ms;
    lws_sorted_usec_list_t deadline;
    bool timed_out;
};

static volatile sig_atomic_t got_signal;

static void on_signal(int signo)
{
    got_signal = signo;
}

static void on_deadline(lws_sorted_usec_list_t *sul)
{
    container_of(sul, struct atp, deadline)->timed_out = true;
}

/* Runs the loop until *flag (if any) or the deadline; false on the deadline or a signal. */
static bool pump(struct atp *a, bool (*done)(struct atp *), int timeout_ms)
{
    a->timed_out = false;
    if (timeout_ms >= 0)
        lws_sul_schedule(a->ctx, 0, &a->deadline, on_deadline,
                         (lws_usec_t)(timeout_ms > 0 ? timeout_ms : 1) * LWS_US_PER_MS);
    bool ok = true;
    while (ok && !done(a)) {
        if (a->timed_out || got_signal || lws_service(a->ctx, 0) < 0)
            ok = done(a);
        if (!ok)
            break;
    }
    lws_sul_cancel(&a->deadline);
    return ok;
}

static bool http_finished(struct atp *a)
{
    return a->http == HTTP_DONE || a->http == HTTP_FAILED;
}

static bool ws_settled(struct atp *a)
{
    return (a->open && a->hello) || a->lost;
}

static bool reply_here(struct atp *a)
{
    return a->reply || a->lost;
}

static bool event_here(struct atp *a)
{
    return !STAILQ_EMPTY(&a->events) || a->lost;
}

static void take_message(struct atp *a)
{
    json_object *o = NULL;
    if (json_parse(a->in.data, a->in.len, &o) != 0 || !o)
        return; /* not for us to judge: unknown input is ignored */
    const char *type = json_str(o, "type", "");
    if (str_eq(type, "reply") && *a->wait_id && str_eq(json_str(o, "id", ""), a->wait_id)) {
        a->reply = o;
        *a->wait_id = 0;
        return;
    }
    if (!str_eq(type, "event")) {
        json_put(o);
        return;
    }
    int64_t seq = json_int(o, "seq", 0);
    if (seq > a->cursor)
        a->cursor = seq;
    if (!a->hello && str_eq(json_str(o, "event", ""), "session.ready")) {
        a->hello = json_object_get(json_obj(o, "body"));
        json_put(o);
        return;
    }
    struct frame *f = xcalloc(1, sizeof *f);
    f->o = o;
    STAILQ_INSERT_TAIL(&a->events, f, link);
}

/* Trust by fingerprint: the leaf certificate's SHA-256 must be the one given. */
static int check_certificate(struct atp *a, X509_STORE_CTX *store)
{
    unsigned char md[32];
    unsigned n = sizeof md;
    char hex[65];
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    if (X509_STORE_CTX_get_error_depth(store) != 0 || !cert ||
        !X509_digest(cert, EVP_sha256(), md, &n))
        return 0;
    hex_encode(md, sizeof md, hex);
    if (*a->fingerprint && ct_equal(hex, a->fingerprint, 64)) {
        X509_STORE_CTX_set_error(store, X509_V_OK);
        return 0;
    }
    if (X509_STORE_CTX_get_error(store) != X509_V_OK || *a->fingerprint) {
        snprintf(a->why, sizeof a->why, "certificate not trusted (sha256 %s)", hex);
        return 1;
    }
    return 0;
}

static int add_header(unsigned char **p, unsigned char *end, struct lws *w, const char *name,
                      const char *value)
{
    return lws_add_http_header_by_name(w, (const unsigned char *)name, (const unsigned char *)value,
                                       (int)strlen(value), p, end);
}

static int on_handshake(struct atp *a, struct lws *w, void *in, size_t len)
{
    unsigned char **p = in, *end = *p + len;
    char value[TOKEN_HEADER_MAX];
    bool is_ws = w == a->ws;
    const char *bearer = is_ws ? a->token : a->http_auth;
    if (bearer) {
        snprintf(value, sizeof value, "Bearer %s", bearer);
        if (add_header(p, end, w, "authorization:", value))
            return -1;
    }
    if (is_ws)
        return 0;
    snprintf(value, sizeof value, "%zu", a->http_out.len);
    if (add_header(p, end, w, "content-type:", "application/json") ||
        add_header(p, end, w, "content-length:", value))
        return -1;
    lws_client_http_body_pending(w, 1);
    lws_callback_on_writable(w);
    return 0;
}

static int on_http(struct atp *a, struct lws *w, enum lws_callback_reasons reason, void *in,
                   size_t len)
{
    char chunk[LWS_PRE + 4096], *start = chunk + LWS_PRE;
    int n = 4096;
    switch ((int)reason) {
    case LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP:
        a->status = (int)lws_http_client_http_response(w);
        return 0;
    case LWS_CALLBACK_CLIENT_HTTP_WRITEABLE: {
        struct buf b = BUF_INIT(1 << 20);
        buf_reserve(&b, LWS_PRE + a->http_out.len);
        memcpy(b.data + LWS_PRE, a->http_out.data, a->http_out.len);
        int sent =
            lws_write(w, (unsigned char *)b.data + LWS_PRE, a->http_out.len, LWS_WRITE_HTTP_FINAL);
        explicit_bzero(b.data, LWS_PRE + a->http_out.len);
        buf_done(&b);
        lws_client_http_body_pending(w, 0);
        return sent < 0 ? -1 : 0;
    }
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP:
        return lws_http_client_read(w, &start, &n) < 0 ? -1 : 0;
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP_READ:
        return buf_add(&a->http_in, in, len) ? -1 : 0;
    case LWS_CALLBACK_COMPLETED_CLIENT_HTTP:
        a->http = HTTP_DONE;
        return -1;
    case LWS_CALLBACK_CLOSED_CLIENT_HTTP:
        if (a->http == HTTP_BUSY)
            a->http = a->status ? HTTP_DONE : HTTP_FAILED;
        return 0;
    default:
        return 0;
    }
}

static int on_ws_writable(struct atp *a, struct lws *w)
{
    if (a->out.len == 0)
        return 0;
    struct buf b = BUF_INIT(64 << 20);
    buf_reserve(&b, LWS_PRE + a->out.len);
    memcpy(b.data + LWS_PRE, a->out.data, a->out.len);
    size_t len = a->out.len;
    buf_clear(&a->out);
    int n = lws_write(w, (unsigned char *)b.data + LWS_PRE, len, LWS_WRITE_TEXT);
    buf_done(&b);
    return n < (int)len ? -1 : 0;
}

static void connection_error(struct atp *a, struct lws *w, const char *in)
{
    if (!*a->why)
        snprintf(a->why, sizeof a->why, "%s", in ? in : "connection failed");
    if (w && w == a->ws) {
        a->status = (int)lws_http_client_http_response(w);
        a->lost = true;
        a->ws = NULL;
    } else {
        a->http = HTTP_FAILED;
    }
}

static int callback(struct lws *w, enum lws_callback_reasons reason, void *user, void *in,
                    size_t len)
{
    (void)user;
    struct atp *a = lws_context_user(lws_get_context(w));
    switch ((int)reason) {
    case LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION:
        return check_certificate(a, in == NULL ? NULL : (X509_STORE_CTX *)user);
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return on_handshake(a, w, in, len);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        connection_error(a, w, in);
        return 0;
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        a->open = true;
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        if (lws_is_first_fragment(w))
            buf_clear(&a->in);
        if (buf_add(&a->in, in, len))
            return -1;
        if (lws_is_final_fragment(w) && lws_remaining_packet_payload(w) == 0)
            take_message(a);
        return 0;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return on_ws_writable(a, w);
    case LWS_CALLBACK_CLIENT_CLOSED:
        a->open = false;
        a->lost = true;
        a->ws = NULL;
        return 0;
    default:
        return on_http(a, w, reason, in, len);
    }
}

static const struct lws_protocols protocols[] = {
    { .name = "avix", .callback = callback, .rx_buffer_size = 65536 }, { 0 }
};

static struct lws *dial(struct atp *a, const char *method, const char *path)
{
    struct lws_client_connect_info i = { .context = a->ctx,
                                         .address = a->url.host,
                                         .port = a->url.port,
                                         .path = path,
                                         .host = a->url.hostport,
                                         .method = method,
                                         .local_protocol_name = "avix",
                                         .alpn = "http/1.1",
                                         .pwsi = method ? NULL : &a->ws };
    if (a->url.tls)
        i.ssl_connection =
            LCCSCF_USE_SSL |
            (*a->fingerprint ? LCCSCF_ALLOW_SELFSIGNED | LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK
                             : 0);
    return lws_client_connect_via_info(&i);
}

static int timeout_of(const struct atp *a)
{
    int64_t s = 30;
    const char *t = cli_setting(a->c, "timeout", "AVIX_TIMEOUT", NULL, "timeout", NULL);
    if (t && !parse_i64(t, 1, 86400, &s))
        s = 30;
    return (int)(s * 1000);
}

static int cannot_reach(struct atp *a)
{
    const char *why = *a->why ? a->why : "no answer";
    if (strstr(why, "certificate"))
        return cli_fail(a->c, EX_CONNECT, "ECONNECT",
                        "compare it with 'avix server status' and pass --fingerprint, or --ca",
                        "%s", why);
    if (strstr(why, "conn fail") || strstr(why, "Unable to connect") ||
        strstr(why, "connect failed") || strstr(why, "refused"))
        why = "connection refused";
    return cli_fail(a->c, EX_CONNECT, "ECONNECT",
                    "start it with 'avix server start --root ~/avix-data'", "cannot reach %s: %s",
                    a->url.text, why);
}

/* POST of a JSON text; 0 with a->status and a->http_in set, or an exit status. */
static int post(struct atp *a, const char *path, json_object *body, const char *bearer)
{
    const char *text = json_text(body);
    buf_clear(&a->http_out);
    buf_clear(&a->http_in);
    buf_adds(&a->http_out, text);
    a->http = HTTP_BUSY;
    a->status = 0;
    a->http_auth = bearer;
    *a->why = 0;
    bool ok = dial(a, "POST", path) && pump(a, http_finished, timeout_of(a)) &&
              a->http == HTTP_DONE && a->status;
    explicit_bzero(a->http_out.data, a->http_out.len);
    return ok ? 0 : got_signal ? EX_INTERRUPT : EX_CONNECT;
}

static int login_refused(struct atp *a, json_object *answer)
{
    const char *msg = json_str(answer, "message", "refused");
    int64_t wait = json_int(answer, "retryAfter", 0);
    if (a->status == 429)
        return cli_fail(a->c, EX_LIMIT, "ELIMIT", NULL,
                        "login as %s is locked for %lldm %llds after repeated failures",
                        a->identity, (long long)(wait / 60), (long long)(wait % 60));
    if (a->status == 401)
        return cli_fail(a->c, EX_AUTH, "EAUTH",
                        "set AVIX_API_KEY, or check 'identity' in client.yaml",
                        "login%s%s failed: %s", *a->identity ? " as " : "", a->identity, msg);
    return cli_fail(a->c, exit_of_code(json_str(answer, "error", "")),
                    json_str(answer, "error", "EINTERNAL"), NULL, "login failed: %s (HTTP %d)", msg,
                    a->status);
}

/* The credential: file, environment, client.yaml, or asked on the terminal. Yours; NULL after
 * saying why. */
static char *find_credential(struct atp *a, int *exit)
{
    const char *file =
        cli_setting(a->c, "credential-file", "AVIX_CREDENTIAL_FILE", NULL, "credential_file", NULL);
    const char *v = cli_setting(a->c, NULL, "AVIX_API_KEY", "AVIX_PASSWORD", "credential", NULL);
    char line[1100] = "";
    if (cli_flag(a->c, "credential-file") || (!v && file)) {
        FILE *f = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
        bool ok = f && fgets(line, sizeof line, f);
        if (f && f != stdin)
            fclose(f);
        if (!ok) {
            *exit = cli_fail(a->c, EX_LOCAL, "ELOCAL", NULL, "%s: cannot read a credential", file);
            return NULL;
        }
        line[strcspn(line, "\r\n")] = 0;
        v = line;
    }
    if (v) {
        char *copy = xstrdup(v);
        explicit_bzero(line, sizeof line);
        return copy;
    }
    struct termios old, quiet;
    if (a->c->json || !isatty(0) || !isatty(2) || tcgetattr(0, &old) < 0) {
        *exit = cli_fail(a->c, EX_USE, "EUSAGE", "set AVIX_API_KEY, or pass --credential-file",
                         "no credential");
        return NULL;
    }
    fprintf(stderr, "Credential of %s: ", *a->identity ? a->identity : "(the key's owner)");
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(0, TCSANOW, &quiet);
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    tcsetattr(0, TCSANOW, &old);
    fputc('\n', stderr);
    line[strcspn(line, "\r\n")] = 0;
    char *copy = xstrdup(line);
    explicit_bzero(line, sizeof line);
    return copy;
}

static int login(struct atp *a)
{
    const char *given = cli_setting(a->c, "token", "AVIX_TOKEN", NULL, NULL, NULL);
    if (given) {
        a->token = xstrdup(given);
        return 0;
    }
    int exit = 0;
    char *credential = find_credential(a, &exit);
    if (!credential)
        return exit;
    const char *id = cli_setting(a->c, "identity", "AVIX_IDENTITY", "AVIX_USER", "identity",
                                 str_starts(credential, "sk-avix-") ? "" : "admin");
    str_copy(a->identity, sizeof a->identity, id);
    json_object *body = json_make("identity:s credential:s", a->identity, credential),
                *answer = NULL;
    exit = post(a, "/atp/auth/login", body, NULL);
    explicit_bzero(credential, strlen(credential));
    free(credential);
    json_put(body);
    if (exit)
        return exit == EX_INTERRUPT ? exit : cannot_reach(a);
    if (json_parse(a->http_in.data ? a->http_in.data : "", a->http_in.len, &answer) != 0)
        answer = NULL;
    if (a->status == 200 && json_str(answer, "token", NULL)) {
        a->token = xstrdup(json_str(answer, "token", ""));
        str_copy(a->identity, sizeof a->identity, json_str(answer, "identity", a->identity));
        a->own_login = true;
    } else {
        exit = login_refused(a, answer);
    }
    json_put(answer);
    return exit;
}

/* Opens the WebSocket and waits for session.ready; quiet: no message. */
static int upgrade(struct atp *a, bool quiet)
{
    int64_t t0 = mono_ms();
    json_put(a->hello);
    a->hello = NULL;
    a->lost = a->open = false;
    a->status = 0;
    *a->why = 0;
    if (!dial(a, NULL, "/atp"))
        a->lost = true;
    bool ok = pump(a, ws_settled, timeout_of(a)) && a->open && a->hello;
    if (ok) {
        a->latency_ms = (int)(mono_ms() - t0);
        return 0;
    }
    if (got_signal)
        return EX_INTERRUPT;
    if (a->status == 401)
        return quiet ? EX_AUTH
                     : cli_fail(a->c, EX_AUTH, "EAUTH", "log in again: unset AVIX_TOKEN",
                                "the server does not accept this token");
    return quiet ? EX_CONNECT : cannot_reach(a);
}

struct atp *atp_open(struct cli *c, bool admin, int *exit)
{
    struct atp *a = xcalloc(1, sizeof *a);
    struct lws_context_creation_info info = { .port = CONTEXT_PORT_NO_LISTEN,
                                              .protocols = protocols,
                                              .gid = (gid_t)-1,
                                              .uid = (uid_t)-1,
                                              .user = a,
                                              .fd_limit_per_thread = 16,
                                              .max_http_header_data2 = 16384 };
    struct sigaction sa = { .sa_handler = on_signal };
    const char *url = admin ? cli_setting(c, "admin-url", "AVIX_ADMIN_URL", NULL, "admin_url",
                                          "http://127.0.0.1:7701")
                      : cli_flag(c, "server-url")
                          ? cli_flag(c, "server-url")
                          : cli_setting(c, "url", "AVIX_URL", "AVIX_SERVER_URL", "server_url",
                                        "http://localhost:9142");
    const char *print =
                   cli_setting(c, "fingerprint", "AVIX_FINGERPRINT", NULL, "fingerprint", NULL),
               *ca = cli_setting(c, "ca", "AVIX_CA", NULL, "ca_file", NULL);

    a->c = c;
    STAILQ_INIT(&a->events);
    buf_init(&a->out, REPLY_MAX);
    buf_init(&a->in, REPLY_MAX);
    buf_init(&a->http_out, 65536);
    buf_init(&a->http_in, 1 << 20);
    for (size_t i = 0, o = 0; print && print[i] && o < 64; i++)
        if (print[i] != ':')
            a->fingerprint[o++] = (char)(print[i] | 0x20);
    if (!url_parse(url, &a->url)) {
        *exit = cli_fail(c, EX_USE, "EUSAGE", NULL, "'%s' is no http(s) or ws(s) address", url);
        atp_close(a);
        return NULL;
    }
    if (!a->url.tls && !listener_is_ours(&a->url)) {
        *exit = cli_fail(c, EX_CONNECT, "ECONNECT", NULL,
                         "%s is served by another local user; no credential was sent", a->url.text);
        atp_close(a);
        return NULL;
    }
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    lws_set_log_level(0, NULL);
    if (a->url.tls)
        info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    info.client_ssl_ca_filepath = ca;
    a->ctx = lws_create_context(&info);
    if (!a->ctx)
        die(EX_LOCAL, "cannot set up libwebsockets");
    int64_t retry = 0, t0 = mono_ms();
    if (cli_flag(c, "retry"))
        parse_i64(cli_flag(c, "retry"), 0, 86400, &retry);
    while (retry && mono_ms() - t0 < retry * 1000 && !port_open(&a->url) && !got_signal)
        usleep(100000);
    *exit = login(a);
    if (!*exit)
        *exit = upgrade(a, false);
    if (*exit) {
        atp_close(a);
        return NULL;
    }
    return a;
}

static void drop_events(struct atp *a)
{
    for (struct frame *f; (f = STAILQ_FIRST(&a->events));) {
        STAILQ_REMOVE_HEAD(&a->events, link);
        json_put(f->o);
        free(f);
    }
}

static void send_frame(struct atp *a, json_object *o)
{
    /* one frame at a time is under way: what is queued before goes out first */
    while (a->ws && a->out.len && !a->lost)
        if (lws_service(a->ctx, 0) < 0)
            break;
    buf_clear(&a->out);
    buf_adds(&a->out, json_text(o));
    json_put(o);
    if (a->ws)
        lws_callback_on_writable(a->ws);
}

void atp_close(struct atp *a)
{
    if (!a)
        return;
    if (a->own_login && a->open && a->ws) { /* logout is not waited for, only its bytes */
        got_signal = 0;
        send_frame(a, json_make("type:s id:s domain:s op:s body:o", "cmd", "bye", "auth", "logout",
                                json_new()));
        while (a->ws && a->out.len && !a->lost)
            if (lws_service(a->ctx, 0) < 0)
                break;
    }
    if (a->ctx)
        lws_context_destroy(a->ctx);
    drop_events(a);
    if (a->token)
        explicit_bzero(a->token, strlen(a->token));
    free(a->token);
    json_put(a->reply);
    json_put(a->hello);
    json_put(a->sub_kinds);
    buf_done(&a->out);
    buf_done(&a->in);
    buf_done(&a->http_out);
    buf_done(&a->http_in);
    free(a);
}

void atp_closep(struct atp **a)
{
    atp_close(*a);
    *a = NULL;
}

/* Sends a frame that has a reply and waits; NULL when the connection or the time ran out. */
static json_object *exchange(struct atp *a, json_object *frame)
{
    snprintf(a->wait_id, sizeof a->wait_id, "c-%u", ++a->next_id);
    json_add_str(frame, "id", a->wait_id);
    send_frame(a, frame);
    pump(a, reply_here, timeout_of(a));
    *a->wait_id = 0;
    return TAKE(a->reply);
}

int atp_try(struct atp *a, const char *domain, const char *op, json_object *body, json_object **ret,
            json_object **err)
{
    if (ret)
        *ret = NULL;
    if (err)
        *err = NULL;
    json_object *r = exchange(a, json_make("type:s token:s domain:s op:s body:o", "cmd", a->token,
                                           domain, op, body ? body : json_new()));
    if (!r) {
        if (err)
            *err = json_make("code:s message:s", a->lost ? "ELOST" : "EUNAVAIL",
                             a->lost ? "connection lost" : "no reply in time");
        return got_signal ? EX_INTERRUPT : a->lost ? EX_LOST : EX_UNAVAIL;
    }
    int exit = EX_DONE;
    if (json_flag(r, "ok", false)) {
        if (ret)
            *ret = json_object_get(json_get(r, "body"));
    } else {
        json_object *e = json_obj(r, "error");
        exit = exit_of_code(json_str(e, "code", ""));
        if (err)
            *err = json_object_get(e);
    }
    json_put(r);
    return exit;
}

int atp_say(struct atp *a, const char *what, json_object *error)
{
    const char *code = json_str(error, "code", "EINTERNAL"),
               *msg = json_str(error, "message", "failed");
    json_object *detail = json_obj(error, "detail");
    const char *ref = json_str(detail, "ref", NULL),
               *need = json_str(detail, "required_role", NULL);
    int exit = str_eq(code, "ELOST") ? EX_LOST : exit_of_code(code);
    if (a->c->json) {
        json_object *o = json_make("error:o exit:i", json_object_get(error), (int64_t)exit);
        fprintf(stderr, "%s\n", json_text(o));
        json_put(o);
        return exit;
    }
    if (need)
        return cli_fail(a->c, exit, code, NULL, "not allowed: %s needs role %s, you are %s", what,
                        need, json_str(a->hello, "role", "?"));
    return cli_fail(a->c, exit, code, str_eq(code, "ELIMIT") ? "avix client agent list" : NULL,
                    "%s: %s%s%s%s", what, msg, ref ? " (ref " : "", ref ? ref : "", ref ? ")" : "");
}

int atp_cmd(struct atp *a, const char *domain, const char *op, json_object *body, json_object **ret)
{
    json_object *err = NULL;
    char what[80];
    int exit = atp_try(a, domain, op, body, ret, &err);
    snprintf(what, sizeof what, "%s.%s", domain, op);
    if (exit && exit != EX_INTERRUPT)
        exit = atp_say(a, what, err);
    json_put(err);
    return exit;
}

int atp_subscribe(struct atp *a, json_object *kinds, int64_t since_seq, int64_t pid, bool *gap)
{
    if (kinds != a->sub_kinds) {
        json_put(a->sub_kinds);
        a->sub_kinds = kinds;
    }
    a->sub_pid = pid;
    json_object *f = json_make("type:s events:o", "subscribe", json_object_get(a->sub_kinds));
    if (since_seq >= 0)
        json_add_int(f, "since_seq", since_seq);
    if (pid) {
        json_object *pids = json_new_arr();
        json_push(pids, json_object_new_int64(pid));
        json_add(f, "pids", pids);
    }
    json_object *r = exchange(a, f);
    if (!r)
        return got_signal ? EX_INTERRUPT : EX_LOST;
    if (gap)
        *gap = json_flag(json_obj(r, "body"), "gap", false);
    int exit = json_flag(r, "ok", false) ? EX_DONE : atp_say(a, "subscribe", json_obj(r, "error"));
    json_put(r);
    return exit;
}

enum atp_wait atp_next(struct atp *a, int timeout_ms, json_object **ret)
{
    *ret = NULL;
    pump(a, event_here, timeout_ms);
    struct frame *f = STAILQ_FIRST(&a->events);
    if (f) {
        STAILQ_REMOVE_HEAD(&a->events, link);
        *ret = f->o;
        free(f);
        return ATP_EVENT;
    }
    return got_signal ? ATP_SIGNAL : a->lost ? ATP_LOST : ATP_TIMEOUT;
}

int atp_reconnect(struct atp *a, int total_ms, bool *gap)
{
    int64_t end = mono_ms() + total_ms, wait = 250;
    *gap = false;
    for (int n = 1; mono_ms() < end && !got_signal; n++) {
        if (!a->c->quiet)
            fprintf(stderr, "reconnecting (%d)…\n", n);
        int r = upgrade(a, true);
        if (r == EX_AUTH && a->own_login) {
            free(TAKE(a->token));
            r = login(a);
            r = r ? r : upgrade(a, true);
        }
        if (r == 0 && a->sub_kinds)
            r = atp_subscribe(a, a->sub_kinds, a->cursor, a->sub_pid, gap);
        if (r == 0)
            return EX_DONE;
        if (r == EX_INTERRUPT)
            return r;
        uint32_t jitter;
        rnd_bytes(&jitter, sizeof jitter);
        usleep((useconds_t)(wait * (800 + jitter % 400)));
        wait = wait < 30000 ? wait * 2 : 60000;
    }
    return got_signal ? EX_INTERRUPT : EX_LOST;
}

int64_t atp_cursor(const struct atp *a)
{
    return a->cursor;
}

json_object *atp_hello(const struct atp *a)
{
    return a->hello;
}

const char *atp_url(const struct atp *a)
{
    return a->url.text;
}

const char *atp_identity(const struct atp *a)
{
    return a->identity;
}

int atp_latency_ms(const struct atp *a)
{
    return a->latency_ms;
}
