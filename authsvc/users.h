#pragma once
/*
 * etc/users.yaml and etc/crews.yaml (kernel page, section 17), read only. Missing files are empty
 * ones. A value of this type has passed every rule; a reload makes a new one.
 */
#include "authsvc/conf.h"

enum inherit { INHERIT_SPAWN, INHERIT_EXPLICIT, INHERIT_NONE };

struct account {
    const char *name; /* borrowed from the tree, as all below */
    int64_t uid;
    const char *workspace;
    bool nologin, all_tools;
    json_object *crews, *additional, *denied, *quota; /* may be NULL */
    double weight;
};
struct crew {
    const char *name, *description, *pipe_policy;
    int64_t cid;
    enum inherit inherit;
    json_object *members, *allowed, *denied, *shared; /* may be NULL */
};

struct directory {
    struct account *users;
    struct crew *crews;
    size_t n_users, n_crews;
    struct map users_by_name, crews_by_name;
    json_object *users_root, *crews_root;
};

/* From texts (NULL: no file). conf: uids must agree with auth.conf; may be NULL. *file names the
 * file at fault. 0 or ERR_CONFIG. */
int directory_parse(const char *users, const char *crews, const struct auth_conf *conf,
                    struct directory **ret, const char **file, struct yaml_err *e);
/* The same from <root>/etc; -errno if a file is there but cannot be read. */
int directory_load(const char *root, const struct auth_conf *conf, struct directory **ret,
                   const char **file, struct yaml_err *e);
void directory_free(struct directory *d);
const struct account *directory_user(const struct directory *d, const char *name);
const struct crew *directory_crew(const struct directory *d, const char *name);

/* Crews whose rules hold for the user (agent NULL), or for an agent that this user runs. Array of
 * names, yours. */
json_object *directory_crews_of(const struct directory *d, const char *user, const char *agent);
/* The quota with its defaults filled in: numbers, or "unlimited". Yours. */
json_object *account_quota(const struct account *u);
extern const char *const inherit_names[];
