/*
 * The table is the page's table, row by row. A pattern is matched segment by segment:
 *   <self>  the caller's user      <crew>  a crew of the caller     <svc>  the calling service
 *   <own>   the agent's own pid (an agent's); any pid for users and services
 *   **      this folder and all below it, last only
 * An admin is matched a second time with "anyone" standing for self, crew and svc: that is where an
 * owner may write.
 */
#include "memfs/perm.h"

#include <pthread.h>
#include <sys/stat.h>

#include "common/base/vpath.h"
#include "memfs/ns.h"

enum {
    ROW_SEALED = 1U << 0,   /* admin too */
    ROW_BUILTIN = 1U << 1,  /* service column holds for llmsvc, execsvc, mcpbridge only */
    ROW_SHARED = 1U << 2,   /* also within the crew's sharedPaths */
    ROW_NO_ADMIN = 1U << 3, /* an admin may read, nothing more */
};

struct perm_row {
    const char *pattern;
    unsigned agent, user, service, flags;
};

static const struct perm_row rows[] = {
    { "/secrets/**", 0, 0, 0, ROW_SEALED },
    { "/etc/avix/auth.conf", 0, 0, 0, ROW_SEALED },
    { "/etc/avix/kernel.yaml", 0, 0, 0, ROW_SEALED },
    { "/etc/avix/trusted-keys/**", 0, 0, 0, ROW_SEALED },
    { "/etc/avix/**", 0, 0, 0, ROW_NO_ADMIN },
    { "/tools/**", MAY_R, MAY_R, MAY_R, ROW_NO_ADMIN },
    { "/kernel/**", MAY_R, MAY_R, MAY_R, ROW_NO_ADMIN },
    { "/bin/**", MAY_R, MAY_R, MAY_R, ROW_NO_ADMIN },
    { "/proc/<own>/scratch/**", MAY_RW, MAY_R, MAY_W, ROW_BUILTIN | ROW_NO_ADMIN },
    { "/proc/**", MAY_R, MAY_R, MAY_R, ROW_NO_ADMIN },
    { "/users/<self>/agents/**", MAY_R, MAY_R, 0, ROW_NO_ADMIN },
    { "/users/<self>/snapshots/**", MAY_R, MAY_R, 0, ROW_NO_ADMIN },
    { "/users/<self>/memory/**", 0, MAY_R, 0, ROW_NO_ADMIN },
    { "/crews/<crew>/memory/**", 0, MAY_R, 0, ROW_NO_ADMIN },
    { "/users/<self>/.uploads/**", 0, MAY_RW, 0, 0 },
    { "/users/<self>/bin/**", MAY_R, MAY_R, 0, ROW_NO_ADMIN },
    { "/users/<self>/limits.yaml", MAY_R, MAY_R, 0, ROW_NO_ADMIN },
    { "/users/<self>/defaults.yaml", MAY_R, MAY_RW, 0, 0 },
    { "/users/<self>/**", MAY_RW, MAY_RW, 0, 0 },
    { "/crews/<crew>/shared/**", MAY_RW, MAY_RW, 0, ROW_SHARED },
    { "/services/<svc>/workspace/**", 0, 0, MAY_RW, 0 },
    { "/services/<svc>/**", 0, 0, MAY_R, 0 },
    { "/**", 0, 0, 0, 0 },
};

/* The kernel as itself. */
static const char *const kernel_reads[] = {
    "/bin/**",
    "/users/<self>/bin/**",
    "/users/<self>/defaults.yaml",
    "/users/<self>/limits.yaml",
    "/crews/<crew>/defaults.yaml",
    "/crews/<crew>/limits.yaml",
    "/services/<svc>/defaults.yaml",
    "/services/<svc>/limits.yaml",
};

/* Walks in worker threads ask too. */
static pthread_mutex_t crews_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char file[320];
    struct timespec mtime;
    ino_t ino;
    json_object *doc;
} crews;

void perm_init(const char *root)
{
    snprintf(crews.file, sizeof(crews.file), "%s/etc/crews.yaml", root);
}

/* The crew's row, from a file that is read again when it changed. */
static json_object *crew_row(const char *name)
{
    struct stat st;
    struct yaml_err e;
    json_object *doc, *list;

    if (stat(crews.file, &st))
        return NULL;
    if (st.st_ino != crews.ino || st.st_mtim.tv_sec != crews.mtime.tv_sec ||
        st.st_mtim.tv_nsec != crews.mtime.tv_nsec) {
        if (yaml_load(crews.file, &doc, &e)) {
            log_warn("crews.yaml line %d: %s: nothing is shared", e.line, e.msg);
            doc = NULL;
        }
        json_put(crews.doc);
        crews.doc = doc;
        crews.ino = st.st_ino;
        crews.mtime = st.st_mtim;
    }
    list = json_arr(json_obj(crews.doc, "spec"), "crews");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *row = json_object_array_get_idx(list, i);

        if (str_eq(json_str(row, "name", ""), name))
            return row;
    }
    return NULL;
}

static bool shared_locked(const char *crew, const char *path)
{
    json_object *row = crew_row(crew), *shared = json_arr(row, "sharedPaths");
    char full[VPATH_MAX + 1], norm[VPATH_MAX + 1];

    if (!row)
        return false;
    if (!shared) /* not restricted */
        return true;
    for (size_t i = 0; i < json_object_array_length(shared); i++) {
        json_object *s = json_object_array_get_idx(shared, i);
        const char *text =
            json_object_is_type(s, json_type_string) ? json_object_get_string(s) : "";
        int n;

        if (*text == '/')
            n = snprintf(full, sizeof(full), "%s", text);
        else
            n = snprintf(full, sizeof(full), "/crews/%s/shared/%s", crew, text);
        if (n > 0 && (size_t)n < sizeof(full) && !vpath_normalise(full, (size_t)n, norm) &&
            vpath_beneath(path, norm))
            return true;
    }
    return false;
}

bool perm_shared(const char *crew, const char *path)
{
    pthread_mutex_lock(&crews_lock);
    bool yes = shared_locked(crew, path);

    pthread_mutex_unlock(&crews_lock);
    return yes;
}

/* --- matching: patterns and path as segments ------------------------------------------------- */

#define PATTERN_SEGS 4 /* the deepest row */

enum seg_kind { SEG_TEXT, SEG_SELF, SEG_CREW, SEG_SVC, SEG_OWN };
struct pattern {
    struct {
        enum seg_kind kind;
        const char *s;
        size_t n;
    } seg[PATTERN_SEGS];
    unsigned n;
    bool tree; /* ends in ** */
};
/* A path cut at its slashes, as far as any pattern looks. */
struct segs {
    const char *s[PATTERN_SEGS];
    size_t len[PATTERN_SEGS];
    unsigned n; /* PATTERN_SEGS + 1: more than that */
};

static struct pattern row_patterns[N_ELEMS(rows)], kernel_patterns[N_ELEMS(kernel_reads)];
static pthread_once_t compiled = PTHREAD_ONCE_INIT;

static enum seg_kind kind_of(const char *s)
{
    return *s != '<'     ? SEG_TEXT
           : s[1] == 'o' ? SEG_OWN
           : s[1] == 'c' ? SEG_CREW
           : s[2] == 'e' ? SEG_SELF
                         : SEG_SVC;
}

static void compile(struct pattern *p, const char *text)
{
    *p = (struct pattern){ .n = 0 };
    while (*text) {
        size_t n = strcspn(++text, "/");

        if (n == 2 && memcmp(text, "**", 2) == 0) {
            p->tree = true;
        } else {
            p->seg[p->n].kind = kind_of(text);
            p->seg[p->n].s = text;
            p->seg[p->n++].n = n;
        }
        text += n;
    }
}

static void compile_all(void)
{
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        compile(&row_patterns[i], rows[i].pattern);
    for (size_t i = 0; i < N_ELEMS(kernel_reads); i++)
        compile(&kernel_patterns[i], kernel_reads[i]);
}

static void split(const char *path, struct segs *g)
{
    *g = (struct segs){ .s = { "", "", "", "" } };
    if (!path[1]) /* "/" */
        return;
    while (*path) {
        const char *at = path + 1, *end = strchrnul(at, '/');

        if (g->n == PATTERN_SEGS) {
            g->n++;
            return;
        }
        g->s[g->n] = at;
        g->len[g->n++] = (size_t)(end - at);
        path = end;
    }
}

static bool word_is(const char *seg, size_t n, const char *s)
{
    return s && *s && strlen(s) == n && memcmp(seg, s, n) == 0;
}

static bool crew_of(const struct caller *who, const char *seg, size_t n)
{
    for (size_t i = 0; who->crews && i < json_object_array_length(who->crews); i++)
        if (word_is(seg, n, json_object_get_string(json_object_array_get_idx(who->crews, i))))
            return true;
    return false;
}

static bool is_pid(const char *seg, size_t n, const struct caller *who)
{
    char text[24];
    int64_t pid;

    if (n >= sizeof(text))
        return false;
    memcpy(text, seg, n);
    text[n] = '\0';
    return parse_i64(text, 0, (1LL << 53) - 1, &pid) &&
           (who->kind != CALLER_AGENT || pid == who->pid);
}

/* A named segment; anyone: self, crew, svc match any name. */
static bool name_match(const struct caller *who, bool anyone, enum seg_kind kind, const char *s,
                       size_t n)
{
    if (kind == SEG_OWN)
        return is_pid(s, n, who);
    if (anyone)
        return true;
    if (kind == SEG_CREW)
        return crew_of(who, s, n);
    return word_is(s, n, kind == SEG_SELF ? who->user : who->service);
}

static bool segs_match(const struct caller *who, bool anyone, const struct pattern *p,
                       const struct segs *g)
{
    if (p->tree ? g->n < p->n : g->n != p->n)
        return false;
    for (unsigned i = 0; i < p->n; i++)
        if (p->seg[i].kind == SEG_TEXT &&
            (p->seg[i].n != g->len[i] || memcmp(p->seg[i].s, g->s[i], g->len[i]) != 0))
            return false;
    for (unsigned i = 0; i < p->n; i++)
        if (p->seg[i].kind != SEG_TEXT &&
            !name_match(who, anyone, p->seg[i].kind, g->s[i], g->len[i]))
            return false;
    return true;
}

static const struct perm_row *row_of(const struct caller *who, bool anyone, const char *path)
{
    struct segs g;

    pthread_once(&compiled, compile_all);
    split(path, &g);
    for (size_t i = 0; i < N_ELEMS(rows) - 1; i++)
        if (segs_match(who, anyone, &row_patterns[i], &g))
            return &rows[i];
    return &rows[N_ELEMS(rows) - 1];
}

static bool kernel_may_read(const struct caller *who, const char *path)
{
    struct segs g;

    split(path, &g);
    for (size_t i = 0; i < N_ELEMS(kernel_reads); i++)
        if (segs_match(who, true, &kernel_patterns[i], &g))
            return true;
    return false;
}

static bool shared_ok(const char *path)
{
    struct loc l;

    return !ns_locate_normal(path, &l) && perm_shared(l.name, path);
}

static unsigned service_rights(const struct caller *who, const struct perm_row *row,
                               const char *path)
{
    if (row->flags & ROW_BUILTIN)
        return caller_is_unit(who, UNIT_LLMSVC) || caller_is_unit(who, UNIT_EXECSVC) ||
                       str_eq(who->service, "mcpbridge")
                   ? row->service
                   : 0;
    if (caller_is_unit(who, UNIT_KERNEL) && kernel_may_read(who, path))
        return row->service | MAY_R;
    return row->service;
}

static unsigned admin_rights(const struct caller *who, const struct perm_row *row, const char *path)
{
    const struct perm_row *as = row_of(who, true, path);

    if (row->flags & ROW_SEALED)
        return 0;
    if (as->flags & ROW_NO_ADMIN)
        return MAY_R;
    if ((as->flags & ROW_SHARED) && !shared_ok(path))
        return MAY_R;
    return MAY_R | as->user | as->service;
}

unsigned perm_of(const struct caller *who, const char *path)
{
    const struct perm_row *row = row_of(who, false, path);

    if (who->kind == CALLER_SERVICE)
        return service_rights(who, row, path);
    if (who->kind == CALLER_USER && who->role == ROLE_ADMIN)
        return admin_rights(who, row, path);
    if (who->kind != CALLER_AGENT && who->kind != CALLER_USER)
        return 0;
    if ((row->flags & ROW_SHARED) && !shared_ok(path))
        return 0;
    return who->kind == CALLER_AGENT ? row->agent : row->user;
}

bool perm_needs_owner(const struct caller *who, const char *path)
{
    struct loc l;

    if (ns_locate_normal(path, &l) || l.area != AREA_SCRATCH)
        return false;
    if (who->kind == CALLER_AGENT)
        return l.pid != who->pid;
    return who->kind != CALLER_USER || who->role < ROLE_OPERATOR;
}
