/* Rows of the ATP page, sections users and crews; auth/policy; metrics. Read only. */
#include "authsvc/accounts.h"

#include "authsvc/policy.h"
#include "common/base/clock.h"
#include "common/base/err.h"

static json_object *list_or_empty(json_object *list)
{
    return list ? json_dup(list) : json_new_arr();
}

static json_object *user_row(const char *name)
{
    const struct identity *id = auth_conf_find(auth.conf, name);
    const struct account *u = directory_user(auth.dir, name);
    json_object *allow = json_new_arr();

    json_object *o =
        json_make("username:s uid:i role:s crews:o", name, id ? id->uid : u->uid,
                  role_name(id ? id->role : ROLE_USER), directory_crews_of(auth.dir, name, NULL));
    cleanup(freep) char *home = xasprintf("/users/%s/workspace", name);
    json_add_str(o, "workspace", u && u->workspace ? u->workspace : home);
    json_add(o, "additionalTools", list_or_empty(u ? u->additional : NULL));
    json_add(o, "deniedTools", list_or_empty(u ? u->denied : NULL));
    json_add(o, "quota", account_quota(u));
    json_add_bool(o, "locked", id ? id->locked : true);
    json_add_str(o, "credentialType",
                 !id                         ? "none"
                 : id->type == CRED_PASSWORD ? "password"
                                             : "api_key");
    for (size_t i = 0; id && i < id->n_allow; i++)
        json_push_str(allow, id->allow_text[i]);
    json_add(o, "ip_allowlist", allow);
    return o;
}

static bool exists(const char *name)
{
    return auth_conf_find(auth.conf, name) || directory_user(auth.dir, name);
}

void auth_users_get(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *name = args_str_or(&a, "username", NAME_MAX_LEN, "");

    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!*name)
        name = who->user;
    if (who->kind != CALLER_SERVICE && !str_eq(name, who->user) && who->role < ROLE_OPERATOR)
        call_fail(c, ERR_PERM, "other users need the role operator");
    else if (!exists(name))
        call_fail(c, ERR_NOTFOUND, "no user '%s'", name);
    else
        call_reply(c, user_row(name));
}

void auth_users_list(struct call *c, const struct caller *who)
{
    json_object *rows = json_new_arr();

    if (who->kind != CALLER_SERVICE && who->role < ROLE_OPERATOR) {
        json_put(rows);
        call_fail(c, ERR_PERM, "the list of users needs the role operator");
        return;
    }
    for (size_t i = 0; i < auth.conf->n_ids; i++)
        json_push(rows, user_row(auth.conf->ids[i].name));
    for (size_t i = 0; i < auth.dir->n_users; i++)
        if (!auth_conf_find(auth.conf, auth.dir->users[i].name))
            json_push(rows, user_row(auth.dir->users[i].name));
    call_reply(c, json_make("users:o", rows));
}

static json_object *crew_row(const struct crew *w)
{
    json_object *o = json_make("name:s cid:i description:s", w->name, w->cid, w->description);

    json_add(o, "members", list_or_empty(w->members));
    json_add(o, "allowedTools", list_or_empty(w->allowed));
    json_add(o, "deniedTools", list_or_empty(w->denied));
    json_add(o, "sharedPaths", list_or_empty(w->shared));
    json_add_str(o, "agentInheritance", inherit_names[w->inherit]);
    json_add_str(o, "pipePolicy", w->pipe_policy);
    return o;
}

void auth_crews_get(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *name = args_str(&a, "name", NAME_MAX_LEN);
    const struct crew *w = directory_crew(auth.dir, name);

    (void)who;
    if (args_bad(&a))
        call_bad_args(c, &a);
    else if (!w)
        call_fail(c, ERR_NOTFOUND, "no crew '%s'", name);
    else
        call_reply(c, crew_row(w));
}

void auth_crews_list(struct call *c, const struct caller *who)
{
    json_object *rows = json_new_arr();

    (void)who;
    for (size_t i = 0; i < auth.dir->n_crews; i++)
        json_push(rows, crew_row(&auth.dir->crews[i]));
    call_reply(c, json_make("crews:o", rows));
}

void auth_policy(struct call *c, const struct caller *who)
{
    struct args a = args_open(c->params);
    const char *user = args_str(&a, "user", NAME_MAX_LEN);
    const char *agent = args_str_or(&a, "agent", 256, NULL);
    const struct identity *id = auth_conf_find(auth.conf, user);

    (void)who;
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    json_object *o = policy_of(auth.conf, auth.dir, user, agent);
    if (!o) {
        call_fail(c, ERR_NOTFOUND, "no user '%s'", user);
    } else if (id && id->locked) {
        json_put(o);
        call_fail_data(c, ERR_PERM, json_make("reason:s", "locked"), "user '%s' is locked", user);
    } else {
        call_reply(c, o);
    }
}

void auth_metrics(struct call *c, const struct caller *who)
{
    struct buf b = BUF_INIT(65536);
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {
        { "avix_auth_logins_total", auth.n.logins },
        { "avix_auth_logins_refused_total", auth.n.refused },
        { "avix_auth_logins_limited_total", auth.n.limited },
        { "avix_auth_alerts_total", auth.n.alerts },
        { "avix_auth_tokens_minted_total", auth.n.minted },
        { "avix_auth_tokens_renewed_total", auth.n.renewed },
        { "avix_auth_refreshes_total", auth.n.refreshed },
        { "avix_auth_sessions", (int64_t)sessions_count(auth.sessions) },
        { "avix_auth_tokens", (int64_t)cap_tokens_count(auth.caps) },
        { "avix_auth_revoked", (int64_t)revoked_count(auth.revoked) },
        { "avix_auth_locked", (int64_t)lockout_locked(auth.lockout, now_ms()) },
        { "avix_auth_hashes_waiting", passwords_waiting(auth.passwords) },
    };

    (void)who;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        buf_printf(&b, "# TYPE %s %s\n%s %lld\n", rows[i].name,
                   str_ends(rows[i].name, "_total") ? "counter" : "gauge", rows[i].name,
                   (long long)rows[i].value);
    call_reply(c, json_make("text:s", b.data));
    buf_done(&b);
}
