/* Roles, and `_caller` as the router stamps it. No I/O: the agent links this too. */
#include "common/svc/svc.h"

static const char *const roles[] = {
    [ROLE_NONE] = "none",         [ROLE_GUEST] = "guest", [ROLE_USER] = "user",
    [ROLE_OPERATOR] = "operator", [ROLE_ADMIN] = "admin",
};

enum role role_parse(const char *s)
{
    for (size_t i = 1; s && i < N_ELEMS(roles); i++)
        if (str_eq(s, roles[i]))
            return (enum role)i;
    return ROLE_NONE;
}

const char *role_name(enum role r)
{
    return (size_t)r < N_ELEMS(roles) ? roles[r] : roles[ROLE_NONE];
}

bool caller_is_unit(const struct caller *w, enum unit_id u)
{
    return w && w->kind == CALLER_SERVICE && u >= 0 && u < UNIT_COUNT &&
           str_eq(w->service, unit_rows[u].name);
}

bool caller_parse(json_object *params, struct caller *w)
{
    json_object *o = json_obj(params, "_caller");
    const char *kind = json_str(o, "kind", "");

    *w = (struct caller){ .json = o };
    if (str_eq(kind, "agent"))
        w->kind = CALLER_AGENT;
    else if (str_eq(kind, "service"))
        w->kind = CALLER_SERVICE;
    else if (str_eq(kind, "user"))
        w->kind = CALLER_USER;
    else
        return false;
    w->pid = json_int(o, "pid", 0);
    w->user = json_str(o, "user", "");
    w->service = json_str(o, "service", "");
    w->role = role_parse(json_str(o, "role", NULL));
    w->uid = json_int(o, "uid", -1);
    w->crews = json_arr(o, "crews");
    w->agent = json_str(o, "agent", "");
    w->session_id = json_str(o, "session_id", "");
    w->atp_session = json_str(o, "atpSession", "");
    w->tool = json_str(o, "tool", "");
    w->call_id = json_str(o, "call_id", "");
    w->token = json_str(o, "token", "");
    return true;
}
