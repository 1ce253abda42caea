/*
 * The operation table and the checks that need nothing but the command itself.
 *
 * The process that owns the data decides again from _caller; what is refused here is refused early
 * and in the client's words. The order is that of the page: a name that does not exist, then the
 * role, then the listener, then the body.
 */
#include "gateway/ops.h"

#include "common/base/b64.h"
#include "common/base/map.h"
#include "common/base/vpath.h"

#define A OP_ADMIN
#define L OP_LONG
#define R OP_READ
#define P OP_PID
#define U OP_USERNAME
#define F OP_PATH
#define W OP_CHANGE
const struct op ops[] = {
#define OP(domain, op, min, flags, method, gw) { #domain, #op, ROLE_##min, flags, method, gw },
#include "gateway/ops.def"
#undef OP
};
#undef A
#undef L
#undef R
#undef P
#undef U
#undef F
#undef W
const size_t n_ops = N_ELEMS(ops);

const struct op *op_find(const char *domain, const char *name)
{
    static struct map index;
    char key[160];

    if (!index.n)
        for (size_t i = 0; i < n_ops; i++) {
            snprintf(key, sizeof(key), "%s.%s", ops[i].domain, ops[i].op);
            /* the table is never written through it */
            map_put(&index, key, (void *)(uintptr_t)&ops[i]);
        }
    if ((size_t)snprintf(key, sizeof(key), "%s.%s", domain, name) >= sizeof(key))
        return NULL;
    return map_get(&index, key);
}

static enum atp_code bad(struct atp_err *e, const char *field, const char *why)
{
    atp_fail(e, ATP_EPARSE, "%s: %s", field, why);
    atp_detail_str(e, "field", field);
    return ATP_EPARSE;
}

static enum atp_code need_role(struct atp_err *e, enum role min, const char *what)
{
    atp_fail(e, ATP_EPERM, "%s needs role %s", what, role_name(min));
    atp_detail_str(e, "required_role", role_name(min));
    return ATP_EPERM;
}

/* Members that say who the caller is come from the router alone. */
static void strip(json_object *body)
{
    static const char *const names[] = { "caller", "caller_identity", "is_privileged",
                                         "atp_session_id" };

    for (size_t i = 0; i < N_ELEMS(names); i++)
        json_object_object_del(body, names[i]);
    for (bool again = true; again;) {
        again = false;
        json_object_object_foreach (body, k, v) {
            (void)v;
            if (k[0] == '_') {
                json_object_object_del(body, k);
                again = true;
                break;
            }
        }
    }
}

/* --- paths ------------------------------------------------------------------------------------ */

enum atp_code op_path_check(const char *path, size_t len, bool change, struct atp_err *e)
{
    char norm[VPATH_MAX + 1];
    int r = vpath_normalise(path, len, norm);

    if (r)
        return bad(e, "path",
                   r == ERR_NAMETOOLONG
                       ? "name too long"
                       : "must be absolute, without \"..\" and control characters");
    if (vpath_beneath(norm, "/secrets"))
        return atp_fail(e, ATP_EPERM, "%s: secrets are not reachable through files", norm);
    if (change && vpath_beneath(norm, "/proc"))
        return atp_fail(e, ATP_EPERM, "%s: /proc is read-only", norm);
    return ATP_OK;
}

static enum atp_code check_path_member(json_object *body, const char *key, bool change,
                                       struct atp_err *e)
{
    json_object *v = json_get(body, key);
    enum atp_code c;

    if (!v || !json_object_is_type(v, json_type_string))
        return bad(e, key, v ? "must be a string" : "missing");
    c = op_path_check(json_object_get_string(v), (size_t)json_object_get_string_len(v), change, e);
    if (c == ATP_EPARSE && e->detail)
        atp_detail_str(e, "field", key);
    return c;
}

static enum atp_code check_paths(const struct op *o, json_object *body, struct atp_err *e)
{
    bool change = (o->flags & OP_CHANGE) != 0;
    enum atp_code c;

    if (str_eq(o->op, "move")) {
        c = check_path_member(body, "from", true, e);
        return c ? c : check_path_member(body, "to", true, e);
    }
    return check_path_member(body, "path", change, e);
}

/* --- signals ---------------------------------------------------------------------------------- */

static enum atp_code check_attachment(json_object *a, struct atp_err *e)
{
    const char *type = json_str(a, "type", ""), *enc, *data, *path;
    size_t len;

    if (str_eq(type, "vfs_ref")) {
        path = json_str(a, "path", "");
        if (path[0] != '/' || op_path_check(path, strlen(path), false, e) != ATP_OK)
            return bad(e, "attachments", "path must be absolute and not under /secrets");
        return ATP_OK;
    }
    if (!str_eq(type, "inline"))
        return bad(e, "attachments", "type must be \"inline\" or \"vfs_ref\"");
    enc = json_str(a, "encoding", "");
    data = json_str(a, "data", NULL);
    if (!str_eq(enc, "base64") || !data)
        return bad(e, "attachments", "inline data must be base64");
    void *raw = b64_decode_new(data, strlen(data), &len);
    if (!raw)
        return bad(e, "attachments", "data is not base64");
    free(raw);
    return ATP_OK;
}

static enum atp_code check_message(json_object *payload, struct atp_err *e)
{
    json_object *att = json_get(payload, "attachments"), *text = json_get(payload, "text");

    if (text && !json_object_is_type(text, json_type_string))
        return bad(e, "text", "must be a string");
    if (!text && !att)
        return bad(e, "payload", "text or attachments required");
    if (!att)
        return ATP_OK;
    if (!json_object_is_type(att, json_type_array) || !json_object_array_length(att))
        return bad(e, "attachments", "must be a list");
    for (size_t i = 0; i < json_object_array_length(att); i++) {
        enum atp_code c = check_attachment(json_object_array_get_idx(att, i), e);

        if (c)
            return c;
    }
    return ATP_OK;
}

static enum atp_code check_answer(json_object *payload, struct atp_err *e)
{
    const char *decision = json_str(payload, "decision", "");
    const char *scope = json_str(payload, "scope", "session");

    if (!json_str(payload, "hilId", "")[0])
        return bad(e, "hilId", "missing");
    if (!json_str(payload, "approvalToken", "")[0])
        return bad(e, "approvalToken", "missing");
    if (!str_eq(decision, "approved") && !str_eq(decision, "denied"))
        return bad(e, "decision", "must be \"approved\" or \"denied\"");
    if (!str_eq(scope, "once") && !str_eq(scope, "session"))
        return bad(e, "scope", "must be \"once\" or \"session\"");
    return ATP_OK;
}

static enum atp_code check_agent_signal(json_object *body, struct atp_err *e)
{
    static const char *const sendable[] = { "SIGSTART", "SIGPAUSE", "SIGRESUME", "SIGKILL",
                                            "SIGSTOP",  "SIGSAVE",  "SIGPIPE" };
    const char *sig = json_str(body, "signal", "");
    json_object *payload = json_get(body, "payload");
    const char *target = json_str(body, "target", "");
    int64_t pid = atp_pid(json_get(body, json_get(body, "pid") ? "pid" : "target"));
    bool known = false;

    if (str_eq(sig, "SIGESCALATE"))
        return atp_fail(e, ATP_EPERM, "SIGESCALATE is sent by agents only");
    for (size_t i = 0; i < N_ELEMS(sendable); i++)
        known |= str_eq(sig, sendable[i]);
    if (!known)
        return bad(e, "signal", "unknown signal");
    if (pid >= 0) {
        json_object_object_del(body, "target");
        json_add_int(body, "pid", pid);
    } else if (!str_eq(target, "broadcast")) {
        return bad(e, "pid", "must be a pid");
    }
    if (payload && !json_object_is_type(payload, json_type_object))
        return bad(e, "payload", "must be an object");
    if (str_eq(sig, "SIGSTART") && !json_str(payload, "goal", "")[0])
        return bad(e, "goal", "missing");
    if (str_eq(sig, "SIGPIPE"))
        return check_message(payload, e);
    if (str_eq(sig, "SIGRESUME") &&
        (json_get(payload, "approvalToken") || json_get(payload, "hilId")))
        return check_answer(payload, e);
    return ATP_OK;
}

/* A body with a name is for a service, one with a pid for an agent. */
static enum atp_code check_signal(const struct op_who *who, json_object *body, const char **method,
                                  struct atp_err *e)
{
    if (!json_get(body, "name"))
        return check_agent_signal(body, e);
    if (who->role < ROLE_OPERATOR)
        return need_role(e, ROLE_OPERATOR, "a signal to a service");
    *method = "kernel/sys/service-signal";
    return ATP_OK;
}

/* --- bodies that the owner takes in another shape --------------------------------------------- */

static enum atp_code check_wait(json_object *body, struct atp_err *e)
{
    json_object *v = json_get(body, "timeout");
    int64_t t = 25;

    if (v) {
        if (!json_object_is_type(v, json_type_int))
            return bad(e, "timeout", "must be an integer");
        t = json_object_get_int64(v);
        if (t < 0 || t > 25)
            return bad(e, "timeout", "must be 0 to 25 seconds");
    }
    json_add_int(body, "timeout", t ? t : 1); /* to the kernel 0 is for ever */
    return ATP_OK;
}

static enum atp_code shape_caps(const struct op *o, json_object *body, const char **method)
{
    json_object *tools = json_get(body, "tools");

    if (!tools)
        return ATP_OK;
    json_add(body, o->gw == GW_GRANT ? "grant" : "revoke", json_object_get(tools));
    json_object_object_del(body, "tools");
    *method = "kernel/proc/setcap";
    return ATP_OK;
}

static enum atp_code shape(const struct op *o, const struct op_who *who, json_object *body,
                           const char **method, struct atp_err *e)
{
    switch ((int)o->gw) {
    case GW_PAUSE:
        if (json_flag(body, "hard", false) && who->role < ROLE_OPERATOR)
            return need_role(e, ROLE_OPERATOR, "a hard pause");
        return ATP_OK;
    case GW_WAIT:
        return check_wait(body, e);
    case GW_SIGNAL:
        return check_signal(who, body, method, e);
    case GW_GRANT:
    case GW_REVOKE:
        return shape_caps(o, body, method);
    case GW_POLICY:
        json_add_str(body, "action", str_eq(o->op, "policy/set") ? "set" : "get");
        return ATP_OK;
    case GW_CONFIRM:
        json_add_bool(body, "confirm", true);
        return ATP_OK;
    default:
        return ATP_OK;
    }
}

static enum atp_code check_pid(json_object *body, struct atp_err *e)
{
    int64_t pid = atp_pid(json_get(body, json_get(body, "pid") ? "pid" : "id"));

    if (pid < 0)
        return bad(e, "pid",
                   json_get(body, "pid") || json_get(body, "id")
                       ? "must be a number or a decimal string"
                       : "missing");
    json_object_object_del(body, "id");
    json_add_int(body, "pid", pid);
    return ATP_OK;
}

static enum atp_code check_username(const struct op_who *who, json_object *body, struct atp_err *e)
{
    const char *u = json_str(body, "username", "");

    if (!u[0])
        json_object_object_del(body, "username");
    else if (!str_eq(u, who->identity) && who->role < ROLE_OPERATOR)
        return need_role(e, ROLE_OPERATOR, "another user's data");
    return ATP_OK;
}

static enum atp_code unknown(const char *domain, const char *name, struct atp_err *e)
{
    if (str_eq(domain, "proc") && (str_starts(name, "message-") || str_starts(name, "part-"))) {
        atp_fail(e, ATP_EPARSE, "proc.%.64s is retired; use proc.invocation-conversation", name);
        atp_detail_str(e, "reason", "retired");
        return ATP_EPARSE;
    }
    for (size_t i = 0; i < n_ops; i++)
        if (str_eq(ops[i].domain, domain))
            return bad(e, "op", "unknown operation");
    return bad(e, "domain", "unknown domain");
}

enum atp_code op_admit(const struct op_who *who, const char *domain, const char *name,
                       json_object *body, const struct op **ret, const char **method,
                       struct atp_err *e)
{
    const struct op *o = op_find(domain, name);
    char full[160];
    enum atp_code c;

    if (!o)
        return unknown(domain, name, e);
    snprintf(full, sizeof(full), "%s.%s", domain, name);
    if (who->role < o->min)
        return need_role(e, o->min, full);
    if (o->flags & OP_ADMIN && !who->admin_listener) {
        atp_fail(e, ATP_EPERM, "%s needs the admin listener", full);
        atp_detail_str(e, "required", "admin_listener");
        return ATP_EPERM;
    }
    strip(body);
    *ret = o;
    *method = o->method;
    if (o->flags & (OP_PATH | OP_CHANGE) && (c = check_paths(o, body, e)) != ATP_OK)
        return c;
    if (o->flags & OP_PID && (c = check_pid(body, e)) != ATP_OK)
        return c;
    if (o->flags & OP_USERNAME && (c = check_username(who, body, e)) != ATP_OK)
        return c;
    return shape(o, who, body, method, e);
}
