/*
 * The ownership rule (kernel page, section 1): own records always; an admin's reach covers all, an
 * operator's those of users whose role is not higher; a guest looks but changes nothing. Identity
 * comes from _caller alone.
 */
#include "common/base/fsx.h"
#include "common/base/yaml.h"
#include "kernel/core/core.h"

#include <sys/stat.h>

/* Roles of users by auth.conf, read again when the file changes. */
static struct {
    struct timespec mtime;
    ino_t ino;
    json_object *roles; /* name → role */
} known;

static void roles_read(void)
{
    char path[512];
    struct stat st;
    struct yaml_err e;
    json_object *doc = NULL;
    if (path_fmt(path, sizeof path, "%s/etc/auth.conf", svc.root) || stat(path, &st) < 0 ||
        (known.roles && st.st_ino == known.ino && st.st_mtim.tv_sec == known.mtime.tv_sec &&
         st.st_mtim.tv_nsec == known.mtime.tv_nsec))
        return;
    if (yaml_load(path, &doc, &e))
        return;
    json_put(known.roles);
    known.roles = json_new();
    known.mtime = st.st_mtim;
    known.ino = st.st_ino;
    json_object *list = json_arr(doc, "identities");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        json_add_str(known.roles, json_str(o, "name", ""), json_str(o, "role", ""));
    }
    json_put(doc);
}

enum role owner_role(const char *user)
{
    if (str_eq(user, "root"))
        return ROLE_ADMIN;
    roles_read();
    enum role r = role_parse(json_str(known.roles, user, NULL));
    return r == ROLE_NONE ? ROLE_USER : r;
}

bool may_see(const struct caller *w, const char *owner)
{
    if (w->kind == CALLER_SERVICE)
        return true; /* it got here by a grant that names this method */
    if (str_eq(w->user, owner) || w->role == ROLE_ADMIN)
        return true;
    return w->role == ROLE_OPERATOR && owner_role(owner) <= ROLE_OPERATOR;
}

bool may_change(const struct caller *w, const char *owner)
{
    if (w->kind != CALLER_SERVICE && w->role == ROLE_GUEST)
        return false;
    return may_see(w, owner);
}

const char *call_user(const struct caller *w, const char *named)
{
    if (str_empty(named))
        return w->user;
    return may_see(w, named) ? named : NULL;
}
