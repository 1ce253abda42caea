/*
 * policy(u) = (base | additionalTools) - (deniedTools of the crews | deniedTools of u), written as
 * patterns, because tools come and go. What a role leaves out of "everything" is a denial of its
 * own that a longer pattern in `allowed` overcomes; what an operator denied by name is not to be
 * overcome, so every allowed pattern beneath it is dropped.
 */
#include "authsvc/policy.h"

#include "common/svc/toolgroup.h"

static const struct {
    enum role role;
    const char *allowed, *denied;
} role_sets[] = {
    { ROLE_GUEST, "fs:read llm:inference", "" },
    { ROLE_USER, "*", "kernel/* auth/* secret/* init/* exec/network" },
    { ROLE_OPERATOR,
      "* kernel/proc/* kernel/signal/* kernel/ipc/list kernel/ipc/lookup kernel/ipc/health",
      "kernel/* auth/* secret/* init/* exec/network" },
    { ROLE_ADMIN, "*", "" },
};

static void add_words(json_object *out, const char *list)
{
    char word[128];

    while (word_next(&list, word, sizeof(word)))
        tool_patterns(word, out);
}

static void add_list(json_object *out, json_object *list)
{
    for (size_t i = 0, n = list ? json_object_array_length(list) : 0; i < n; i++)
        tool_patterns(json_object_get_string(json_object_array_get_idx(list, i)), out);
}

/* The array without what any pattern of `cover` matches as a whole; takes arr. */
static json_object *without(json_object *arr, json_object *cover)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < json_object_array_length(arr); i++) {
        const char *p = json_object_get_string(json_object_array_get_idx(arr, i));
        bool covered = false;

        for (size_t j = 0; j < json_object_array_length(cover) && !covered; j++) {
            const char *c = json_object_get_string(json_object_array_get_idx(cover, j));

            covered = str_eq(c, p) || tool_glob(c, p);
        }
        if (!covered)
            json_push_str(out, p);
    }
    json_put(arr);
    return out;
}

static void role_set(enum role role, json_object *allowed, json_object *denied)
{
    for (size_t i = 0; i < N_ELEMS(role_sets); i++)
        if (role_sets[i].role == role) {
            add_words(allowed, role_sets[i].allowed);
            add_words(denied, role_sets[i].denied);
        }
}

/* Patterns of one user: *allowed, and what the role leaves out, and what is denied for good. */
static void patterns(const struct directory *dir, const struct account *u, enum role role,
                     json_object *crews, json_object **allowed, json_object **denied)
{
    json_object *give = json_new_arr(), *left_out = json_new_arr(), *extra = json_new_arr();
    json_object *never = json_new_arr();
    bool listed = false;

    for (size_t i = 0; i < json_object_array_length(crews); i++) {
        const struct crew *c =
            directory_crew(dir, json_object_get_string(json_object_array_get_idx(crews, i)));

        if (c->allowed && json_object_array_length(c->allowed)) {
            listed = true;
            add_list(give, c->allowed);
        }
        add_list(never, c->denied);
    }
    if (!listed)
        role_set(role, give, left_out);
    if (u) {
        add_list(extra, u->additional);
        add_list(never, u->denied);
    }
    left_out = without(left_out, extra);
    for (size_t i = 0; i < json_object_array_length(extra); i++)
        if (!json_arr_has(give, json_object_get_string(json_object_array_get_idx(extra, i))))
            json_push(give, json_object_get(json_object_array_get_idx(extra, i)));
    *allowed = without(give, never);
    for (size_t i = 0; i < json_object_array_length(left_out); i++)
        json_push(never, json_object_get(json_object_array_get_idx(left_out, i)));
    *denied = never;
    json_put(left_out);
    json_put(extra);
}

json_object *policy_of(const struct auth_conf *conf, const struct directory *dir, const char *user,
                       const char *agent)
{
    const struct identity *id = auth_conf_find(conf, user);
    const struct account *u = directory_user(dir, user);
    json_object *allowed, *denied;

    if (!id && !u)
        return NULL;
    /* an account that cannot log in (cron, a service's user) has the rights of a user */
    enum role role = id ? id->role : ROLE_USER;
    json_object *crews = directory_crews_of(dir, user, agent);
    patterns(dir, u, role, crews, &allowed, &denied);
    json_object *o = json_make("uid:i role:s", id ? id->uid : u->uid, role_name(role));
    json_add(o, "crews", crews);
    json_add_bool(o, "all", u && u->all_tools);
    json_add(o, "allowed", allowed);
    json_add(o, "denied", denied);
    json_add(o, "quota", account_quota(u));
    json_add_num(o, "weight", u ? u->weight : 1);
    json_add_int(o, "install_quota_per_hour", conf->policy.install_quota);
    json_add_bool(o, "locked", id && id->locked);
    return o;
}
