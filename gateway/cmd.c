/*
 * From a frame to its reply.
 *
 * The steps are those of the page, in its order: token, session, operation and role, listener,
 * paths; then the replay guard and the limits. All of it is look-ups. What passes becomes one call
 * through the router with our service token and the user's: the router verifies it again, the owner
 * decides again. A read that met a restarting owner is made once more.
 */
#include "gateway/cmd.h"

#include "common/base/clock.h"
#include "gateway/atp.h"
#include "gateway/metrics.h"
#include "gateway/ops.h"
#include "gateway/rate.h"
#include "gateway/replay.h"
#include "gateway/turns.h"

#define RETRY_MS 50

struct cmd {
    LIST_ENTRY(cmd) link;
    struct conn *c;
    char id[ATP_ID_MAX + 1];
    const struct op *op;
    const char *method;
    json_object *root, *body; /* body is inside root */
    struct ident *id_by;      /* of the token this command came with */
    char *token;
    struct ident_query *query;
    struct ipc_call *call;
    struct timer again;
    bool retried;
    int64_t t0_us;
};

struct gw_info gw_info = { .mode = "cli" };

static void cmd_free(struct cmd *m)
{
    LIST_REMOVE(m, link);
    m->c->n_cmds--;
    if (m->call)
        ipc_cancel(m->call);
    ident_cancel(m->query);
    timer_done(&m->again);
    ident_unref(m->id_by);
    if (m->token)
        explicit_bzero(m->token, strlen(m->token));
    free(m->token);
    json_put(m->root);
    free(m);
}

/* --- replies ---------------------------------------------------------------------------------- */

static void count(const char *domain, const char *op, const char *code)
{
    char l[160];

    snprintf(l, sizeof(l), "domain=\"%s\",op=\"%s\",code=\"%s\"", domain, op, code);
    metric_add("commands_total", l, 1);
}

static void reply_fail(struct conn *c, const char *id, const struct atp_err *e)
{
    struct buf b = BUF_INIT(ATP_FRAME_OUT);

    atp_write_fail(&b, id, e);
    conn_reply(c, b.data, b.len);
    buf_done(&b);
}

static void cmd_fail(struct cmd *m, struct atp_err *e)
{
    if (m->op)
        count(m->op->domain, m->op->op, atp_code_name(e->code));
    else
        count("", "", atp_code_name(e->code));
    reply_fail(m->c, m->id, e);
    atp_err_done(e);
    cmd_free(m);
}

static void cmd_ok(struct cmd *m, json_object *body)
{
    struct buf b = BUF_INIT(ATP_FRAME_OUT);
    struct atp_err e = { .detail = NULL };
    char l[64];

    atp_write_ok(&b, m->id, body);
    if (b.toobig) {
        buf_done(&b);
        metric_add("limited_total", "limit=\"frame\"", 1);
        atp_fail(&e, ATP_ELIMIT, "the reply is over 8 MiB; ask for less at a time");
        atp_detail_str(&e, "limit", "frame");
        cmd_fail(m, &e);
        return;
    }
    conn_reply(m->c, b.data, b.len);
    buf_done(&b);
    count(m->op->domain, m->op->op, "OK");
    snprintf(l, sizeof(l), "domain=\"%s\"", m->op->domain);
    metric_time("command_seconds", l, mono_us() - m->t0_us);
    cmd_free(m);
}

/* --- what the gateway answers or adds --------------------------------------------------------- */

static json_object *whoami(const struct cmd *m)
{
    char ts[RFC3339_LEN];
    const struct ident *i = m->id_by;

    return json_make("identity:s role:s sessionId:s uid:i crews:o expiresAt:s", i->identity,
                     role_name(i->role), i->session, i->uid,
                     i->crews ? json_object_get(i->crews) : json_new_arr(), rfc3339(i->exp_ms, ts));
}

/* auth.refresh: the new token is this connection's from now on. */
static json_object *refreshed(struct cmd *m, json_object *result)
{
    const char *token = json_str(result, "token", "");
    struct ident *i = token[0] ? ident_learn(token, result, m->id_by) : NULL;
    struct conn *c = m->c;

    if (i) {
        ident_unref(c->id);
        c->id = ident_ref(i);
        explicit_bzero(c->token, strlen(c->token));
        free(c->token);
        c->token = xstrdup(token);
        if (i->exp_ms > c->exp_ms)
            c->exp_ms = i->exp_ms;
        conn_mute(c, false);
    }
    return json_make("token:s expiresAt:s", token, json_str(result, "expiresAt", ""));
}

/* The rows of authsvc, with what only the gateway sees. */
static json_object *session_rows(json_object *result)
{
    json_object *rows =
        json_object_is_type(result, json_type_array) ? result : json_arr(result, "sessions");
    char ts[RFC3339_LEN];

    if (!rows)
        return json_new_arr();
    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        json_object *row = json_object_array_get_idx(rows, i);
        const struct sess *s = sess_find(json_str(row, "sessionId", ""));

        json_add_int(row, "connections", s ? s->n_conns : 0);
        json_add_str(row, "state", s && s->n_conns ? "active" : "idle");
        if (s)
            json_add_str(row, "lastActivityAt", rfc3339(s->active_ms, ts));
        else if (!json_get(row, "lastActivityAt"))
            json_add_str(row, "lastActivityAt", json_str(row, "connectedAt", ""));
        if (s && s->client[0])
            json_add_str(row, "client", s->client);
    }
    return json_object_get(rows);
}

static void add_signal_sub(struct conn *c, json_object *result, int64_t pid)
{
    const char *id = json_str(result, "subscription_id", "");

    if (!id[0])
        return;
    c->subs = xrealloc(c->subs, (c->n_subs + 1) * sizeof(*c->subs));
    c->subs[c->n_subs].pid = pid;
    str_copy(c->subs[c->n_subs++].id, sizeof(c->subs[0].id), id);
}

static void drop_signal_sub(struct conn *c, const char *id)
{
    for (size_t i = 0; i < c->n_subs; i++)
        if (str_eq(c->subs[i].id, id)) {
            c->subs[i] = c->subs[--c->n_subs];
            return;
        }
}

static json_object *status_reply(json_object *result)
{
    json_object *o = result && json_object_is_type(result, json_type_object)
                         ? json_object_get(result)
                         : json_new();

    json_add_str(o, "mode", gw_info.mode);
    json_add_int(o, "connections", n_conns);
    json_add_int(o, "headSeq", (int64_t)ring_head(conn_ring));
    return o;
}

/* The reply of the owner as the client gets it; yours. */
static json_object *shape_reply(struct cmd *m, json_object *result)
{
    switch ((int)m->op->gw) {
    case GW_REFRESH:
        return refreshed(m, result);
    case GW_LOGOUT:
        return json_new();
    case GW_SESSIONS:
        return session_rows(result);
    case GW_STATUS:
        return status_reply(result);
    case GW_SIGSUB:
        add_signal_sub(m->c, result, json_int(m->body, "pid", 0));
        break;
    case GW_SIGUNSUB:
        drop_signal_sub(m->c, json_str(m->body, "subscription_id", ""));
        break;
    default:
        break;
    }
    return result ? json_object_get(result) : NULL;
}

/* --- the call --------------------------------------------------------------------------------- */

static void start_call(struct cmd *m);

static void on_again(void *arg)
{
    start_call(arg);
}

static void on_reply(struct ipc_reply *r, void *arg)
{
    struct cmd *m = arg;
    struct conn *c = m->c;
    enum gw_op gw = m->op->gw;
    struct atp_err e = { .detail = NULL };
    char ref[17];

    m->call = NULL;
    if (r->err == ERR_UNAVAIL && m->op->flags & OP_READ && !m->retried) {
        m->retried = true;
        timer_set(&m->again, RETRY_MS);
        return;
    }
    if (r->err) {
        atp_from_rpc(&e, &r->error, ref);
        if (gw == GW_REFRESH && r->err == ERR_DENIED)
            e.code = ATP_EAUTH;
        if (ref[0])
            log_error("%s: %s (%s) ref %s", m->method, r->error.message, err_name(r->err), ref);
        cmd_fail(m, &e);
        if (gw == GW_LOGOUT && c->id->revoked)
            c->close(c, 4003, "token_revoked");
        c->leaving = c->leaving && gw != GW_LOGOUT;
        return;
    }
    json_object *body = shape_reply(m, r->result);

    cmd_ok(m, body);
    json_put(body);
    if (gw == GW_LOGOUT)
        c->close(c, 1000, "logout");
}

static json_object *params_for(const struct cmd *m)
{
    switch ((int)m->op->gw) {
    case GW_REFRESH:
        return json_make("token:s", m->token);
    case GW_LOGOUT:
        return json_make("token:s all:b", m->token, (int)json_flag(m->body, "all", false));
    case GW_KICK: {
        const char *sid = json_str(m->body, "session_id", json_str(m->body, "sessionId", ""));

        return json_make("session_id:s", sid);
    }
    default:
        return json_object_get(m->body);
    }
}

static void start_call(struct cmd *m)
{
    json_object *user = ident_user(m->id_by, m->token);
    int ms = m->op->flags & OP_LONG ? CMD_LONG_MS : CMD_MS;

    if (m->op->gw == GW_LOGOUT)
        m->c->leaving = true;
    m->call = svc_call(m->method, params_for(m), user, ms, on_reply, m);
    json_put(user);
}

/* --- the pipeline ----------------------------------------------------------------------------- */

static bool limited(struct cmd *m, const char *limit, int64_t retry_ms)
{
    struct atp_err e = { .detail = NULL };
    struct conn *c = m->c;
    struct sess *s = c->id->sess;
    int64_t now = mono_ms();
    char l[64];

    snprintf(l, sizeof(l), "limit=\"%s\"", limit);
    metric_add("limited_total", l, 1);
    if (!s->limited_since || now - s->limited_last > 1000)
        s->limited_since = now;
    s->limited_last = now;
    atp_fail(&e, ATP_ELIMIT, "too many commands");
    atp_detail_str(&e, "limit", limit);
    atp_detail_int(&e, "retryAfterMs", retry_ms);
    cmd_fail(m, &e);
    if (now - s->limited_since >= CMD_LIMITED_MS)
        c->close(c, 1008, "policy");
    return true;
}

/* True if the command may not go on (and is gone). */
static bool guard(struct cmd *m)
{
    struct atp_err e = { .detail = NULL };
    struct sess *s = m->c->id->sess;
    struct bucket b = { .level = s->rate_level, .at_ms = s->rate_at };
    bool ok;

    if (!replay_add(&m->c->replay, m->id)) {
        atp_fail(&e, ATP_EPARSE, "this id was used before on this connection");
        atp_detail_str(&e, "field", "id");
        cmd_fail(m, &e);
        return true;
    }
    ok = bucket_take(&b, CMD_RATE, CMD_BURST, 1, mono_ms());
    s->rate_level = b.level;
    s->rate_at = b.at_ms;
    if (!ok)
        return limited(m, "commandsPerSec", 1000);
    if (m->c->n_cmds > CMD_IN_FLIGHT)
        return limited(m, "inFlight", 100);
    return false;
}

static bool answer_here(struct cmd *m)
{
    json_object *body;

    if (m->op->gw == GW_WHOAMI)
        body = whoami(m);
    else if (m->op->gw == GW_READY)
        body = json_object_new_string("ack");
    else
        return false;
    cmd_ok(m, body);
    json_put(body);
    return true;
}

/* Steps 2 to 5 and on, once the token is known. */
static void admit(struct cmd *m, const char *domain, const char *name)
{
    struct atp_err e = { .detail = NULL };
    struct op_who who = { .identity = m->id_by->identity,
                          .role = m->id_by->role,
                          .admin_listener = m->c->admin };

    if (!str_eq(m->id_by->session, m->c->id->session)) {
        atp_fail(&e, ATP_ESESSION, "the token is of another session");
        cmd_fail(m, &e);
        return;
    }
    if (op_admit(&who, domain, name, m->body, &m->op, &m->method, &e) != ATP_OK) {
        cmd_fail(m, &e);
        return;
    }
    if (m->op->gw == GW_KICK &&
        !json_str(m->body, "session_id", json_str(m->body, "sessionId", ""))[0]) {
        atp_fail(&e, ATP_EPARSE, "session_id: missing");
        atp_detail_str(&e, "field", "session_id");
        cmd_fail(m, &e);
        return;
    }
    if (guard(m) || answer_here(m))
        return;
    start_call(m);
}

/* A token beside the connection's own may be newer: the connection lives as long as the newest. */
static bool token_ok(struct cmd *m, struct ident *i, struct atp_err *e)
{
    struct conn *c = m->c;
    int64_t now = now_ms();

    if (!i)
        atp_fail(e, ATP_EUNAVAIL, "the token cannot be checked now");
    else if (i->expired || (i->valid && !i->revoked && i->exp_ms <= now))
        atp_fail(e, ATP_EEXPIRED, "the token has expired");
    else if (!ident_live(i, now))
        atp_fail(e, ATP_EAUTH, "the token is not valid");
    else
        goto good;
    return false;
good:
    m->id_by = ident_ref(i);
    if (i != c->id && str_eq(i->session, c->id->session) && i->exp_ms > c->exp_ms) {
        c->exp_ms = i->exp_ms;
        ident_unref(c->id);
        c->id = ident_ref(i);
        free(c->token);
        c->token = xstrdup(m->token);
        conn_mute(c, false);
    }
    return true;
}

static void on_token(struct ident *i, void *arg)
{
    struct cmd *m = arg;
    struct atp_err e = { .detail = NULL };

    m->query = NULL;
    if (!token_ok(m, i, &e)) {
        cmd_fail(m, &e);
        return;
    }
    admit(m, json_str(m->root, "domain", ""), json_str(m->root, "op", ""));
}

static void take_cmd(struct conn *c, struct atp_in *in)
{
    struct cmd *m = xcalloc(1, sizeof(*m));
    bool own = !in->token[0] || str_eq(in->token, c->token);

    m->c = c;
    str_copy(m->id, sizeof(m->id), in->id);
    m->root = TAKE(in->root);
    m->body = in->body;
    m->token = xstrdup(own ? c->token : in->token);
    m->t0_us = mono_us();
    timer_init(&m->again, svc.loop, on_again, m);
    LIST_INSERT_HEAD(&c->cmds, m, link);
    c->n_cmds++;
    if (own) {
        on_token(c->id, m);
        return;
    }
    struct ident_query *q = ident_ask(in->token, on_token, m);
    if (q)
        m->query = q;
}

/* --- subscribe -------------------------------------------------------------------------------- */

static void read_kinds(const struct atp_in *in, bool *star, uint32_t *mask, json_object *good,
                       json_object *ignored)
{
    *star = false;
    *mask = 0;
    for (size_t i = 0; i < json_object_array_length(in->events); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(in->events, i));
        enum kind_id k = kind_find(name);

        if (str_eq(name, "*"))
            *star = true;
        else if (k != KIND_NONE)
            *mask |= 1U << k;
        json_push_str(str_eq(name, "*") || k != KIND_NONE ? good : ignored, name);
    }
}

static void subscribe(struct conn *c, struct atp_in *in)
{
    cleanup(json_putp) json_object *good = json_new_arr();
    cleanup(json_putp) json_object *ignored = json_new_arr();
    size_t n = in->pids ? json_object_array_length(in->pids) : 0;
    int64_t *pids = n ? xcalloc(n, sizeof(*pids)) : NULL;
    struct sub_result r;
    uint32_t mask;
    bool star;

    for (size_t i = 0; i < n; i++)
        pids[i] = atp_pid(json_object_array_get_idx(in->pids, i));
    read_kinds(in, &star, &mask, good, ignored);
    r = conn_subscribe(c, star, mask, pids, n, in->since);
    free(pids);
    if (in->since >= 0)
        metric_add("replays_total", r.gap ? "gap=\"true\"" : "gap=\"false\"", 1);
    if (!in->id[0])
        return;
    cleanup(json_putp) json_object *body = json_make(
        "subscribed:o ignored:o replayed:i gap:b headSeq:i", json_object_get(good),
        json_object_get(ignored), (int64_t)r.replayed, (int)r.gap, (int64_t)ring_head(conn_ring));
    struct buf b = BUF_INIT(ATP_FRAME_OUT);

    atp_write_ok(&b, in->id, body);
    conn_reply(c, b.data, b.len);
    buf_done(&b);
}

static bool sub_allowed(struct conn *c, const struct ident *i, struct atp_err *e)
{
    if (!i)
        atp_fail(e, ATP_EUNAVAIL, "the token cannot be checked now");
    else if (!ident_live(i, now_ms()))
        atp_fail(e, i->expired || i->valid ? ATP_EEXPIRED : ATP_EAUTH, "the token is not valid");
    else if (!str_eq(i->session, c->id->session))
        atp_fail(e, ATP_ESESSION, "the token is of another session");
    else
        return true;
    return false;
}

static void take_subscribe(struct conn *c, struct atp_in *in)
{
    struct bucket b = { .level = c->sub_rate.level, .at_ms = c->sub_rate.at_ms };
    bool ok = bucket_take(&b, 10, 10, 1, mono_ms());
    const struct ident *i = c->id;
    struct atp_err e = { .detail = NULL };

    c->sub_rate.level = b.level;
    c->sub_rate.at_ms = b.at_ms;
    if (!ok) {
        metric_add("limited_total", "limit=\"subscribe\"", 1);
        return;
    }
    if (in->token[0] && !str_eq(in->token, c->token))
        i = ident_peek(in->token); /* one of this session came through here or through a command */
    if (in->token[0] && !i)
        atp_fail(&e, ATP_EAUTH, "the token is not valid");
    else if (sub_allowed(c, i, &e)) {
        subscribe(c, in);
        return;
    }
    if (in->id[0])
        reply_fail(c, in->id, &e);
    atp_err_done(&e);
}

/* --- frames ----------------------------------------------------------------------------------- */

static void malformed(struct conn *c)
{
    int64_t now = mono_ms();
    unsigned n = 0;

    metric_add("frame_errors_total", "reason=\"malformed\"", 1);
    c->bad_ms[c->n_bad++ % N_ELEMS(c->bad_ms)] = now;
    for (size_t i = 0; i < N_ELEMS(c->bad_ms); i++)
        n += c->bad_ms[i] && now - c->bad_ms[i] < 60000;
    if (n >= N_ELEMS(c->bad_ms))
        c->close(c, 1008, "policy");
}

void cmd_frame(struct conn *c, const char *text, size_t len)
{
    struct atp_in in;
    struct atp_err e = { .detail = NULL };
    enum atp_code code = atp_parse(text, len, &in, &e);

    c->id->sess->active_ms = now_ms();
    if (code != ATP_OK && in.id[0]) {
        metric_add("frame_errors_total", "reason=\"parse\"", 1);
        reply_fail(c, in.id, &e);
    } else if (code != ATP_OK) {
        malformed(c);
    } else if (in.kind == ATP_SUBSCRIBE) {
        take_subscribe(c, &in);
    } else {
        take_cmd(c, &in);
    }
    atp_err_done(&e);
    atp_in_done(&in);
}

void cmd_conn_gone(struct conn *c)
{
    json_object *user = c->n_subs ? ident_user(c->id, c->token) : NULL;
    struct cmd *m;

    while ((m = LIST_FIRST(&c->cmds)))
        cmd_free(m);
    for (size_t i = 0; i < c->n_subs; i++)
        svc_call("kernel/signal/unsubscribe", json_make("subscription_id:s", c->subs[i].id), user,
                 CMD_MS, NULL, NULL);
    json_put(user);
    replay_free(c->replay);
    c->replay = NULL;
}

void cmd_ready(struct conn *c)
{
    static const char *const features[] = { "subscribe-reply", "wait", "idempotency" };
    json_object *f = json_new_arr(), *body;

    for (size_t i = 0; i < N_ELEMS(features); i++)
        json_push_str(f, features[i]);
    body =
        json_make("sessionId:s session_id:s role:s identity:s version:s features:o headSeq:i "
                  "ringFloor:i",
                  c->id->session, c->id->session, role_name(c->id->role), c->id->identity,
                  AVIX_VERSION, f, (int64_t)ring_head(conn_ring), (int64_t)ring_floor(conn_ring));
    if (gw_info.admin_url[0])
        json_add_str(body, "adminUrl", gw_info.admin_url);
    json_add(body, "limits",
             json_make("maxFrame:i commandsPerSec:i inFlight:i", (int64_t)ATP_FRAME_IN,
                       (int64_t)CMD_RATE, (int64_t)CMD_IN_FLIGHT));
    conn_local(c, KIND_READY, body);
}
