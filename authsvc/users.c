/* Accounts and crews. Fields are read strictly; see conf.c for why. */
#include "authsvc/users.h"

#include <errno.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

#define ROWS_MAX        10000
#define PATTERN_MAX     256
#define STORAGE_MB_DFLT 10240
#define FILES_DFLT      1000000

const char *const inherit_names[] = { "spawn", "explicit", "none", NULL };
static const char users_file[] = "users.yaml", crews_file[] = "crews.yaml";

static int bad(struct yaml_err *e, const struct args *a, const char *list, size_t i)
{
    e->line = a->line;
    snprintf(e->msg, sizeof(e->msg), "%s[%zu].%s: %s", list, i, a->field, a->why);
    return ERR_CONFIG;
}

static void quota_check(struct args *a, json_object *quota)
{
    static const char *const keys[] = { "tokens",    "agents", "sessions", "usd",
                                        "storageMb", "files",  NULL };

    if (!quota)
        return;
    json_object_object_foreach (quota, key, v) {
        bool known = false, num = json_object_is_type(v, json_type_int) ||
                                  json_object_is_type(v, json_type_double);

        for (int i = 0; keys[i]; i++)
            known = known || str_eq(keys[i], key);
        bool word = json_object_is_type(v, json_type_string) &&
                    str_eq(json_object_get_string(v), "unlimited");
        if (!known || !(word || (num && json_object_get_double(v) >= 0)))
            args_fail(a, "quota",
                      "tokens, agents, sessions, usd, storageMb, files: a number or "
                      "unlimited");
    }
}

static int user_read(json_object *o, size_t i, struct account *u, struct yaml_err *e)
{
    struct args a = args_open(o);

    u->name = args_str(&a, "username", NAME_MAX_LEN);
    if (!args_bad(&a) && !account_name_valid(u->name))
        args_fail(&a, "username", "letters, digits and _.- only, beginning with a letter or digit");
    u->uid = args_int(&a, "uid", 0, INT32_MAX);
    if (!args_bad(&a) && u->uid >= 1 && u->uid <= 999)
        args_fail(&a, "uid", "1 to 999 are reserved");
    const char *home = args_str_or(&a, "home", 4096, NULL);
    u->workspace = args_str_or(&a, "workspace", 4096, home);
    const char *shell = args_str_or(&a, "shell", 256, "/bin/sh");
    u->nologin = str_eq(shell, "nologin") || str_ends(shell, "/nologin");
    u->crews = args_strs_or(&a, "crews", NAME_MAX_LEN);
    json_object *tools = args_strs_or(&a, "tools", PATTERN_MAX);
    u->all_tools = json_arr_has(tools, "all");
    if (tools && (!u->all_tools || json_object_array_length(tools) != 1))
        args_fail(&a, "tools", "must be [all]; use additionalTools for single tools");
    u->additional = args_strs_or(&a, "additionalTools", PATTERN_MAX);
    u->denied = args_strs_or(&a, "deniedTools", PATTERN_MAX);
    u->quota = args_obj_or(&a, "quota");
    quota_check(&a, u->quota);
    u->weight = args_num_or(&a, "weight", 0.01, 1000, 1);
    return args_strict(&a) ? bad(e, &a, "users", i) : 0;
}

static void members_check(struct args *a, json_object *members)
{
    for (size_t i = 0; members && i < json_object_array_length(members); i++) {
        const char *m = json_object_get_string(json_object_array_get_idx(members, i));

        if (str_eq(m, "*") || account_name_valid(m) ||
            (str_starts(m, "user:") && account_name_valid(m + 5)) ||
            (str_starts(m, "agent:") && account_name_valid(m + 6)))
            continue;
        args_fail(a, "members",
                  "each must be user:<name>, agent:<template>, a user's name or \"*\"");
    }
}

static int crew_read(json_object *o, size_t i, struct crew *c, struct yaml_err *e)
{
    static const char *const pipes[] = { "allow-intra-crew", "require-request", "deny", NULL };
    struct args a = args_open(o);

    c->name = args_str(&a, "name", NAME_MAX_LEN);
    if (!args_bad(&a) && !account_name_valid(c->name))
        args_fail(&a, "name", "letters, digits and _.- only, beginning with a letter or digit");
    c->cid = args_int(&a, "cid", 0, INT32_MAX);
    c->description = args_str_or(&a, "description", 4096, "");
    c->members = args_strs_or(&a, "members", 128);
    members_check(&a, c->members);
    c->inherit = (enum inherit)args_enum_or(&a, "agentInheritance", inherit_names, INHERIT_SPAWN);
    c->allowed = args_strs_or(&a, "allowedTools", PATTERN_MAX);
    c->denied = args_strs_or(&a, "deniedTools", PATTERN_MAX);
    c->shared = args_strs_or(&a, "sharedPaths", 4096);
    c->pipe_policy = pipes[args_enum_or(&a, "pipePolicy", pipes, 0)];
    return args_strict(&a) ? bad(e, &a, "crews", i) : 0;
}

/* The list of one file; NULL with *r. */
static json_object *list_of(const char *text, const char *kind, const char *key, json_object **root,
                            struct yaml_err *e, int *r)
{
    *r = yaml_parse(text, strlen(text), root, e);
    json_object *spec = *r ? NULL : config_spec(*root, kind, e);
    if (!spec) {
        *r = ERR_CONFIG;
        return NULL;
    }
    struct args a = args_open(spec);
    json_object *list = args_arr_or(&a, key);
    if (args_strict(&a) || (list && json_object_array_length(list) > ROWS_MAX)) {
        e->line = a.line;
        snprintf(e->msg, sizeof(e->msg), "spec.%s: %s", a.field, *a.why ? a.why : "too many rows");
        *r = ERR_CONFIG;
        return NULL;
    }
    return list;
}

/* Puts a row under its name and number, both unique. */
static int unique(struct map *names, struct map *numbers, const char *name, int64_t number,
                  void *row, int line, struct yaml_err *e)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)number);
    if (map_put(names, name, row) || map_put(numbers, text, row)) {
        e->line = line;
        snprintf(e->msg, sizeof(e->msg), "'%s': name and number must be unique", name);
        return ERR_CONFIG;
    }
    return 0;
}

static int users_read(struct directory *d, const char *text, const struct auth_conf *conf,
                      struct yaml_err *e)
{
    int r;
    json_object *list = list_of(text, "Users", "users", &d->users_root, e, &r);

    if (!list)
        return r;
    cleanup(map_done) struct map uids;
    map_init(&uids);
    d->n_users = json_object_array_length(list);
    d->users = xcalloc(d->n_users, sizeof(*d->users));
    for (size_t i = 0; i < d->n_users && !r; i++) {
        struct account *u = &d->users[i];
        json_object *row = json_object_array_get_idx(list, i);

        r = user_read(row, i, u, e);
        if (!r)
            r = unique(&d->users_by_name, &uids, u->name, u->uid, u, yaml_line(row), e);
        const struct identity *id = !r && conf ? auth_conf_find(conf, u->name) : NULL;
        if (id && id->uid != u->uid) {
            e->line = yaml_line(row);
            snprintf(e->msg, sizeof(e->msg), "users[%zu].uid: auth.conf gives '%s' the uid %lld", i,
                     u->name, (long long)id->uid);
            r = ERR_CONFIG;
        }
    }
    return r;
}

static int crews_read(struct directory *d, const char *text, struct yaml_err *e)
{
    int r;
    json_object *list = list_of(text, "Crews", "crews", &d->crews_root, e, &r);

    if (!list)
        return r;
    cleanup(map_done) struct map cids;
    map_init(&cids);
    d->n_crews = json_object_array_length(list);
    d->crews = xcalloc(d->n_crews, sizeof(*d->crews));
    for (size_t i = 0; i < d->n_crews && !r; i++) {
        json_object *row = json_object_array_get_idx(list, i);

        r = crew_read(row, i, &d->crews[i], e);
        if (!r)
            r = unique(&d->crews_by_name, &cids, d->crews[i].name, d->crews[i].cid, &d->crews[i],
                       yaml_line(row), e);
    }
    return r;
}

int directory_parse(const char *users, const char *crews, const struct auth_conf *conf,
                    struct directory **ret, const char **file, struct yaml_err *e)
{
    struct directory *d = xcalloc(1, sizeof(*d));
    int r = 0;

    *e = (struct yaml_err){ 0 };
    map_init(&d->users_by_name);
    map_init(&d->crews_by_name);
    *file = users_file;
    if (users)
        r = users_read(d, users, conf, e);
    if (!r && crews) {
        *file = crews_file;
        r = crews_read(d, crews, e);
    }
    if (r)
        directory_free(d);
    else
        *ret = d;
    return r;
}

static int text_of(const char *root, const char *name, char **ret, struct yaml_err *e)
{
    char path[512];
    size_t len;
    int r = path_fmt(path, sizeof(path), "%s/etc/%s", root, name);

    if (!r)
        r = file_read(path, YAML_MAX, ret, &len);
    if (r == -ENOENT)
        return 0;
    if (!r && strlen(*ret) != len)
        r = ERR_CONFIG;
    if (r)
        snprintf(e->msg, sizeof(e->msg), "%s", r < 0 ? strerror(-r) : "too big, or holds NUL");
    return r < 0 ? r : r ? ERR_CONFIG : 0;
}

int directory_load(const char *root, const struct auth_conf *conf, struct directory **ret,
                   const char **file, struct yaml_err *e)
{
    cleanup(freep) char *users = NULL, *crews = NULL;
    int r;

    *e = (struct yaml_err){ 0 };
    *file = users_file;
    r = text_of(root, users_file, &users, e);
    if (!r) {
        *file = crews_file;
        r = text_of(root, crews_file, &crews, e);
    }
    return r ? r : directory_parse(users, crews, conf, ret, file, e);
}

void directory_free(struct directory *d)
{
    if (!d)
        return;
    free(d->users);
    free(d->crews);
    map_done(&d->users_by_name);
    map_done(&d->crews_by_name);
    json_put(d->users_root);
    json_put(d->crews_root);
    free(d);
}

const struct account *directory_user(const struct directory *d, const char *name)
{
    return map_get(&d->users_by_name, name);
}

const struct crew *directory_crew(const struct directory *d, const char *name)
{
    return map_get(&d->crews_by_name, name);
}

static bool lists(const struct crew *c, const char *prefix, const char *name)
{
    char want[NAME_MAX_LEN + 16];

    snprintf(want, sizeof(want), "%s%s", prefix, name);
    return json_arr_has(c->members, want);
}

static bool has_user(const struct directory *d, const struct crew *c, const char *user)
{
    const struct account *u = directory_user(d, user);

    return json_arr_has(c->members, "*") || json_arr_has(c->members, user) ||
           lists(c, "user:", user) || (u && json_arr_has(u->crews, c->name));
}

json_object *directory_crews_of(const struct directory *d, const char *user, const char *agent)
{
    json_object *out = json_new_arr();

    for (size_t i = 0; i < d->n_crews; i++) {
        const struct crew *c = &d->crews[i];
        bool in = has_user(d, c, user);

        if (agent)
            in = (in && c->inherit == INHERIT_SPAWN) ||
                 (lists(c, "agent:", agent) && c->inherit != INHERIT_NONE);
        if (in)
            json_push_str(out, c->name);
    }
    return out;
}

json_object *account_quota(const struct account *u)
{
    static const struct {
        const char *key;
        int64_t dflt; /* -1: unlimited */
    } keys[] = { { "tokens", -1 },
                 { "agents", -1 },
                 { "sessions", -1 },
                 { "usd", -1 },
                 { "storageMb", STORAGE_MB_DFLT },
                 { "files", FILES_DFLT } };
    json_object *out = json_new();

    for (size_t i = 0; i < N_ELEMS(keys); i++) {
        json_object *v = u ? json_get(u->quota, keys[i].key) : NULL;

        if (v)
            json_add(out, keys[i].key, json_dup(v));
        else if (keys[i].dflt >= 0)
            json_add_int(out, keys[i].key, keys[i].dflt);
        else
            json_add_str(out, keys[i].key, "unlimited");
    }
    return out;
}
