/*
 * Directory names decide the order: a system package before a user's of the same name, a stable
 * version before a pre-release, higher before lower, a plain directory last. Which of them runs is
 * decided by the first manifest that parses.
 */
#include "kernel/core/catalog.h"

#include "kernel/core/manifest.h"

#define CALL_MS  5000
#define LIST_MAX 512

struct cand {
    struct package pkg;
};

static bool prerelease(const char *v)
{
    const char *plus = strchr(v, '+'), *dash = strchr(v, '-');
    return dash && (!plus || dash < plus);
}

static int better(const void *a, const void *b)
{
    const struct package *x = a, *y = b;
    if (x->shared != y->shared)
        return x->shared ? -1 : 1;
    bool px = prerelease(x->version), py = prerelease(y->version);
    if (px != py)
        return px ? 1 : -1;
    return semver_cmp(y->version, x->version);
}

static size_t find_exact(const struct catalog *c, const char *name, const char *version,
                         struct package *ret, size_t max)
{
    size_t n = 0;
    for (size_t d = 0; d < CATALOG_DIRS; d++) {
        json_object *list = c->names[d];
        for (size_t i = 0; list && i < json_object_array_length(list) && n < max; i++) {
            const char *dir = json_object_get_string(json_object_array_get_idx(list, i));
            char dn[64], dv[64];
            if (!package_split(dir, dn, sizeof dn, dv, sizeof dv) || !str_eq(dn, name) ||
                (*version && !str_eq(dv, version)))
                continue;
            struct package *p = &ret[n++];
            p->shared = d == 0;
            str_copy(p->version, sizeof p->version, dv);
            snprintf(p->dir, sizeof p->dir, "%s/%.100s", c->paths[d], dir);
        }
    }
    qsort(ret, n, sizeof *ret, better);
    return n;
}

size_t catalog_find(const struct catalog *c, const char *name, struct package *ret, size_t max)
{
    char base[64], version[64];
    if (!package_split(name, base, sizeof base, version, sizeof version))
        return 0;
    size_t n = find_exact(c, base, version, ret, max);
    if (n == 0 && str_ends(base, ".agent")) {
        base[strlen(base) - strlen(".agent")] = '\0';
        n = find_exact(c, base, version, ret, max);
    }
    if (n == 0 && str_eq(base, "hello-agent"))
        n = find_exact(c, "executor", version, ret, max);
    return n;
}

/* --- list-installed: both directories, then every manifest, a few at a time ------------------- */

struct listing {
    struct call *call;
    struct catalog cat;
    json_object *out;
    struct package *pkgs;
    size_t n, next, pending;
};

static void listing_end(struct listing *l)
{
    if (l->call)
        call_reply(l->call, l->out);
    else
        json_put(l->out);
    for (size_t d = 0; d < CATALOG_DIRS; d++)
        json_put(l->cat.names[d]);
    free(l->pkgs);
    free(l);
}

static void read_more(struct listing *l);

struct one {
    struct listing *l;
    size_t at;
};

static void on_manifest(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct one *o = arg;
    struct listing *l = o->l;
    const struct package *p = &l->pkgs[o->at];
    const char *text = json_str(r->result, "content", NULL);
    struct manifest *m = NULL;
    struct yaml_err e;
    const char *dir = strrchr(p->dir, '/') + 1;
    if (!r->err && text && !manifest_parse(text, strlen(text), dir, &m, &e)) {
        json_push(l->out, json_make("name:s version:s description:s author:s path:s scope:s",
                                    m->name, m->version, m->description, m->author, p->dir,
                                    p->shared ? "system" : "user"));
        manifest_free(m);
    } else if (r->err != ERR_NOTFOUND && r->err != ERR_NOENT) {
        log_warn("%s/manifest.yaml: %s", p->dir, r->err ? r->error.message : e.msg);
    }
    l->pending--;
    read_more(l);
}

static void read_more(struct listing *l)
{
    while (l->next < l->n && l->pending < 8) {
        char path[200];
        struct one *o = xcalloc(1, sizeof *o);
        o->l = l;
        o->at = l->next++;
        l->pending++;
        snprintf(path, sizeof path, "%s/manifest.yaml", l->pkgs[o->at].dir);
        (void)svc_call("fs/read", json_make("path:s encoding:s", path, "utf-8"), NULL, CALL_MS,
                       on_manifest, o);
    }
    if (l->pending == 0)
        listing_end(l);
}

/* Every package; of a name that /bin has, the user's own are hidden. */
static void collect(struct listing *l)
{
    l->pkgs = xcalloc(LIST_MAX, sizeof *l->pkgs);
    for (size_t d = 0; d < CATALOG_DIRS; d++) {
        json_object *list = l->cat.names[d];
        for (size_t i = 0; list && i < json_object_array_length(list) && l->n < LIST_MAX; i++) {
            const char *dir = json_object_get_string(json_object_array_get_idx(list, i));
            char dn[64], dv[64];
            struct package best[8];
            if (!package_split(dir, dn, sizeof dn, dv, sizeof dv))
                continue;
            if (d == 1 && find_exact(&l->cat, dn, "", best, N_ELEMS(best)) && best[0].shared)
                continue;
            struct package *p = &l->pkgs[l->n++];
            p->shared = d == 0;
            str_copy(p->version, sizeof p->version, dv);
            snprintf(p->dir, sizeof p->dir, "%s/%.100s", l->cat.paths[d], dir);
        }
    }
}

static void on_list(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct one *o = arg;
    struct listing *l = o->l;
    if (!r->err)
        l->cat.names[o->at] = json_dup(json_arr(r->result, "entries"));
    if (--l->pending > 0)
        return;
    collect(l);
    read_more(l);
}

static void on_gone(void *arg)
{
    struct listing *l = arg;
    struct call *c = TAKE(l->call);
    call_end(c);
}

void sys_list_installed(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *named = args_str_or(&a, "username", 64, NULL);
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    const char *user = call_user(w, named);
    struct listing *l = xcalloc(1, sizeof *l);
    l->call = c;
    l->out = json_new_arr();
    str_copy(l->cat.paths[0], sizeof l->cat.paths[0], "/bin");
    snprintf(l->cat.paths[1], sizeof l->cat.paths[1], "/users/%s/bin", user ? user : "");
    l->pending = user && *user ? 2 : 1;
    for (size_t d = 0, n = l->pending; d < n; d++) {
        struct one *o = xcalloc(1, sizeof *o);
        o->l = l;
        o->at = d;
        (void)svc_call("fs/list", json_make("path:s", l->cat.paths[d]), NULL, CALL_MS, on_list, o);
    }
    call_on_gone(c, on_gone, l);
}
