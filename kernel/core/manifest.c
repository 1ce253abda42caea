/*
 * One pass over the document with struct args, section by section. What older packages spell
 * differently is translated here and nowhere else, so the rest of the kernel knows one form.
 * Unknown top-level keys end the parse; unknown keys in spec are warnings, as packages of later
 * versions must still run.
 */
#include "kernel/core/manifest.h"

#include <ctype.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/toolname.h"

#define LIST_MAX 512

bool agent_name_valid(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || n > 63)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool alnum = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9');
        if (!alnum && (i == 0 || (s[i] != '-' && s[i] != '.')))
            return false;
    }
    return true;
}

static bool ident(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '-')
            return false;
    return n > 0;
}

/* Three numbers; *rest is what follows them. */
static bool semver_core(const char *s, int64_t v[3], const char **rest)
{
    for (int i = 0; i < 3; i++) {
        if (!isdigit((unsigned char)*s) || (*s == '0' && isdigit((unsigned char)s[1])))
            return false;
        int64_t x = 0;
        int digits = 0;
        for (; isdigit((unsigned char)*s); s++) {
            if (++digits > 15)
                return false;
            x = x * 10 + (*s - '0');
        }
        v[i] = x;
        if (i < 2 && *s++ != '.')
            return false;
    }
    *rest = s;
    return true;
}

static bool dotted(const char *s, size_t n)
{
    while (n > 0) {
        const char *dot = memchr(s, '.', n);
        size_t len = dot ? (size_t)(dot - s) : n;
        if (!ident(s, len) || (dot && len + 1 == n))
            return false;
        n -= dot ? len + 1 : len;
        s += dot ? len + 1 : len;
    }
    return true;
}

bool semver_valid(const char *s)
{
    int64_t v[3];
    const char *rest;
    if (!s || strlen(s) > 63 || !semver_core(s, v, &rest))
        return false;
    if (*rest == '-') {
        size_t n = strcspn(++rest, "+");
        if (n == 0 || !dotted(rest, n))
            return false;
        rest += n;
    }
    if (*rest == '+')
        return rest[1] && dotted(rest + 1, strlen(rest + 1));
    return *rest == '\0';
}

static int cmp64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Pre-release parts: numbers by value and below words, fewer parts below more. */
static int pre_cmp(const char *a, const char *b)
{
    while (*a && *b && *a != '+' && *b != '+') {
        size_t la = strcspn(a, ".+"), lb = strcspn(b, ".+");
        bool na = strspn(a, "0123456789") == la, nb = strspn(b, "0123456789") == lb;
        int r = 0;
        if (na && nb)
            r = la != lb ? cmp64((int64_t)la, (int64_t)lb) : strncmp(a, b, la);
        else if (na != nb)
            r = na ? -1 : 1;
        else
            r = strncmp(a, b, la < lb ? la : lb) ?: cmp64((int64_t)la, (int64_t)lb);
        if (r)
            return r;
        a += la + (a[la] == '.');
        b += lb + (b[lb] == '.');
    }
    bool ea = !*a || *a == '+', eb = !*b || *b == '+';
    return ea && eb ? 0 : ea ? -1 : 1;
}

int semver_cmp(const char *a, const char *b)
{
    int64_t va[3], vb[3];
    const char *ra, *rb;
    bool oka = a && semver_core(a, va, &ra), okb = b && semver_core(b, vb, &rb);
    if (!oka || !okb)
        return oka - okb;
    for (int i = 0; i < 3; i++)
        if (va[i] != vb[i])
            return cmp64(va[i], vb[i]);
    bool pa = *ra == '-', pb = *rb == '-';
    if (pa != pb)
        return pa ? -1 : 1;
    return pa ? pre_cmp(ra + 1, rb + 1) : 0;
}

bool package_split(const char *dir, char *name, size_t name_size, char *version, size_t ver_size)
{
    const char *at = strchr(dir, '@');
    size_t n = at ? (size_t)(at - dir) : strlen(dir);
    if (n + 1 > name_size)
        return false;
    memcpy(name, dir, n);
    name[n] = '\0';
    if (!agent_name_valid(name) || !str_copy(version, ver_size, at ? at + 1 : ""))
        return false;
    return !at || semver_valid(version);
}

bool request_name(const char *s, char *out, size_t size)
{
    static const struct {
        const char *old, *name;
    } names[] = { { "file_read", "fs/read" },
                  { "file_write", "fs/write" },
                  { "bash", "exec/shell" },
                  { "python", "exec/python" } };
    for (size_t i = 0; i < N_ELEMS(names); i++)
        if (str_eq(s, names[i].old))
            return str_copy(out, size, names[i].name);
    if (str_starts(s, "cli.") || str_starts(s, "gui.") || str_starts(s, "signal."))
        return false;
    if (!*s || strlen(s) > TOOL_MAX || !str_copy(out, size, s))
        return false;
    if (!strchr(s, '/') && !strchr(s, ':'))
        for (char *p = out; *p; p++)
            if (*p == '.')
                *p = '/';
    return true;
}

static void warn(struct manifest *m, const char *fmt, const char *what)
{
    if (json_object_array_length(m->warnings) >= 64)
        return;
    cleanup(freep) char *s = xasprintf("%s %s", fmt, what);
    json_push_str(m->warnings, s);
}

/* Appends the names of an array of strings, translated. */
static void add_names(struct manifest *m, struct args *a, const char *key, json_object *to)
{
    json_object *list = args_strs_or(a, key, TOOL_MAX);
    size_t n = list ? json_object_array_length(list) : 0;
    if (n > LIST_MAX) {
        args_fail(a, key, "has too many members");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(list, i));
        char name[TOOL_MAX + 1];
        if (!request_name(s, name, sizeof name))
            warn(m, "dropped", s);
        else if (!json_arr_has(to, name))
            json_push_str(to, name);
    }
}

/* Copies members that parameter resolution knows into values.<section>. */
static void keep_values(struct manifest *m, const char *section, json_object *from)
{
    if (!from)
        return;
    json_object *sec = json_obj(m->values, section);
    if (!sec) {
        sec = json_new();
        json_add(m->values, section, sec);
    }
    json_object_object_foreach (from, key, val) {
        json_add(sec, key, json_dup(val));
    }
}

static int fail_at(struct yaml_err *e, const struct args *a, const char *section)
{
    e->line = a->line;
    snprintf(e->msg, sizeof e->msg, "%s%s%s %s", section, *section ? "." : "", a->field, a->why);
    return ERR_INVAL;
}

static int parse_metadata(struct manifest *m, json_object *o, const char *dir, struct yaml_err *e)
{
    struct args a = args_open(o);
    const char *name = args_str(&a, "name", 63);
    const char *version = args_str(&a, "version", 63);
    m->description = args_str_or(&a, "description", 4096, "");
    m->author = args_str_or(&a, "author", 512, "");
    const char *sig = args_str_or(&a, "signature", 71, "");
    (void)args_strs_or(&a, "tags", 64);
    if (!args_bad(&a) && !agent_name_valid(name))
        args_fail(&a, "name", "must match ^[a-z0-9][a-z0-9.-]{0,62}$");
    if (!args_bad(&a) && !semver_valid(version))
        args_fail(&a, "version", "must be a semantic version such as \"1.0.0\"");
    if (!args_bad(&a) && dir) {
        char dn[64], dv[64];
        if (!package_split(dir, dn, sizeof dn, dv, sizeof dv) || !str_eq(dn, name))
            args_fail(&a, "name", "does not match the package directory");
        else if (*dv && !str_eq(dv, version))
            args_fail(&a, "version", "does not match the package directory");
    }
    if (args_bad(&a))
        return fail_at(e, &a, "metadata");
    str_copy(m->name, sizeof m->name, name);
    str_copy(m->version, sizeof m->version, version);
    str_copy(m->signature, sizeof m->signature, sig);
    return 0;
}

static int parse_entrypoint(struct manifest *m, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);
    const char *type = args_str_or(&a, "type", 32, "llm-loop");
    m->model = args_str_or(&a, "modelPreference", 128, NULL);
    m->min_context = args_int_or(&a, "minContextTokens", 0, 100000000, 8000);
    (void)args_int_or(&a, "maxToolChain", 1, 100000, 5);
    (void)args_int_or(&a, "maxTurnsPerGoal", 1, 100000, 20);
    json_object *req = args_obj_or(&a, "modelRequirements");
    if (!args_bad(&a) && !str_eq(type, "llm-loop"))
        args_fail(&a, "type", "must be llm-loop");
    if (args_bad(&a))
        return fail_at(e, &a, "spec.entrypoint");
    struct args r = args_open(req);
    m->min_context = args_int_or(&r, "minContextWindow", 0, 100000000, m->min_context);
    json_object *caps = args_strs_or(&r, "requiredCapabilities", 64);
    m->recommended = args_str_or(&r, "recommended", 128, "claude-sonnet-4");
    if (args_bad(&r))
        return fail_at(e, &r, "spec.entrypoint.modelRequirements");
    if (caps) {
        m->model_caps = json_dup(caps);
    } else {
        m->model_caps = json_new_arr();
        json_push_str(m->model_caps, "tool_use");
    }
    keep_values(m, "entrypoint", o);
    return 0;
}

static int parse_memory(struct manifest *m, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);
    const char *wc = args_str_or(&a, "workingContext", 16, "dynamic");
    json_object *epi = args_any_or(&a, "episodicPersistence");
    json_object *sem = args_any_or(&a, "semanticStoreAccess");
    if (!args_bad(&a) && !str_eq(wc, "dynamic") && !str_eq(wc, "fixed"))
        args_fail(&a, "workingContext", "must be dynamic or fixed");
    if (args_bad(&a))
        return fail_at(e, &a, "spec.memory");
    m->context_fixed = str_eq(wc, "fixed");
    bool on = epi && json_object_is_type(epi, json_type_boolean) && json_object_get_boolean(epi);
    const char *s =
        sem && json_object_is_type(sem, json_type_string) ? json_object_get_string(sem) : "";
    if ((on || str_eq(s, "read-only")) && !json_arr_has(m->optional, "memory:read"))
        json_push_str(m->optional, "memory:read");
    if ((on || str_eq(s, "read-write")) && !json_arr_has(m->optional, "memory:write"))
        json_push_str(m->optional, "memory:write");
    keep_values(m, "memory", o);
    return 0;
}

static int parse_defaults(struct manifest *m, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);
    m->goal_template = args_str_or(&a, "goalTemplate", 65536, NULL);
    m->prompt_text = args_str_or(&a, "systemPrompt", PROMPT_MAX, NULL);
    json_object *env = args_obj_or(&a, "environment");
    if (args_bad(&a))
        return fail_at(e, &a, "spec.defaults");
    struct args v = args_open(env);
    (void)args_num_or(&v, "temperature", 0, 100, 0.7);
    (void)args_num_or(&v, "topP", 0, 100, 0.9);
    (void)args_int_or(&v, "timeoutSec", 0, 1000000, 300);
    if (args_bad(&v))
        return fail_at(e, &v, "spec.defaults.environment");
    keep_values(m, "environment", env);
    return 0;
}

static int parse_tools(struct manifest *m, json_object *o, const char *where, struct yaml_err *e)
{
    struct args a = args_open(o);
    add_names(m, &a, "required", m->required);
    add_names(m, &a, "optional", m->optional);
    return args_bad(&a) ? fail_at(e, &a, where) : 0;
}

static int parse_spec(struct manifest *m, json_object *o, struct yaml_err *e)
{
    static const char *const known[] = { "systemPromptPath",
                                         "requestedCapabilities",
                                         "tools",
                                         "entrypoint",
                                         "memory",
                                         "snapshot",
                                         "defaults",
                                         "secrets",
                                         "budget",
                                         "visibility",
                                         "scope",
                                         "capabilities",
                                         "permissionsHint" };
    struct args a = args_open(o);
    m->prompt_path = args_str_or(&a, "systemPromptPath", 1024, NULL);
    add_names(m, &a, "requestedCapabilities", m->requested);
    json_object *tools = args_obj_or(&a, "tools"), *caps = args_obj_or(&a, "capabilities");
    json_object *entry = args_obj_or(&a, "entrypoint"), *mem = args_obj_or(&a, "memory");
    json_object *snap = args_obj_or(&a, "snapshot"), *dflt = args_obj_or(&a, "defaults");
    json_object *hint = args_obj_or(&a, "permissionsHint");
    json_object *secrets = args_strs_or(&a, "secrets", 128);
    m->budget = args_obj_or(&a, "budget");
    if (args_bad(&a))
        return fail_at(e, &a, "spec");
    int r = parse_tools(m, tools, "spec.tools", e);
    if (!r)
        r = parse_tools(m, caps, "spec.capabilities", e);
    if (!r)
        r = parse_entrypoint(m, entry, e);
    if (!r)
        r = parse_memory(m, mem, e);
    if (!r)
        r = parse_defaults(m, dflt, e);
    if (r)
        return r;
    m->secrets = secrets ? json_dup(secrets) : json_new_arr();
    m->restore_on_crash = json_flag(snap, "restoreOnCrash", false);
    keep_values(m, "snapshot", snap);
    keep_values(m, "permissionsHint", hint);
    if (!o)
        return 0;
    json_object_object_foreach (o, key, val) {
        (void)val;
        bool found = false;
        for (size_t i = 0; i < N_ELEMS(known) && !found; i++)
            found = str_eq(key, known[i]);
        if (!found)
            warn(m, "unknown key spec.", key);
    }
    return 0;
}

static int parse_doc(struct manifest *m, const char *dir, struct yaml_err *e)
{
    if (!m->doc || !json_object_is_type(m->doc, json_type_object)) {
        *e = (struct yaml_err){ .line = 1, .msg = "must be a mapping" };
        return ERR_INVAL;
    }
    struct args a = args_open(m->doc);
    const char *api = args_str(&a, "apiVersion", 32);
    const char *kind = args_str(&a, "kind", 32);
    json_object *meta = args_obj(&a, "metadata");
    json_object *pack = args_obj_or(&a, "packaging");
    json_object *spec = args_obj_or(&a, "spec");
    if (!args_bad(&a) && !str_eq(api, "avix/v1"))
        args_fail(&a, "apiVersion", "must be avix/v1");
    if (!args_bad(&a) && !str_eq(kind, "Agent") && !str_eq(kind, "AgentManifest"))
        args_fail(&a, "kind", "must be Agent");
    if (args_bad(&a) || args_strict(&a))
        return fail_at(e, &a, "");
    int r = parse_metadata(m, meta, dir, e);
    if (r)
        return r;
    struct args p = args_open(pack);
    (void)args_str_or(&p, "source", 1024, NULL);
    const char *sig = args_str_or(&p, "signature", 71, NULL);
    if (args_bad(&p))
        return fail_at(e, &p, "packaging");
    if (sig)
        str_copy(m->signature, sizeof m->signature, sig);
    if (str_eq(m->signature, "sha256:"))
        m->signature[0] = '\0';
    return parse_spec(m, spec, e);
}

int manifest_parse(const char *text, size_t len, const char *dir, struct manifest **ret,
                   struct yaml_err *e)
{
    *e = (struct yaml_err){ 0 };
    if (len > MANIFEST_MAX) {
        snprintf(e->msg, sizeof e->msg, "is larger than %d KiB", MANIFEST_MAX / 1024);
        return ERR_INVAL;
    }
    json_object *doc = NULL;
    if (yaml_parse(text, len, &doc, e))
        return ERR_INVAL;
    struct manifest *m = xcalloc(1, sizeof *m);
    m->doc = doc;
    m->requested = json_new_arr();
    m->required = json_new_arr();
    m->optional = json_new_arr();
    m->warnings = json_new_arr();
    m->values = json_new();
    int r = parse_doc(m, dir, e);
    if (r) {
        manifest_free(m);
        return r;
    }
    *ret = m;
    return 0;
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    json_put(m->requested);
    json_put(m->required);
    json_put(m->optional);
    json_put(m->model_caps);
    json_put(m->values);
    json_put(m->secrets);
    json_put(m->warnings);
    json_put(m->doc);
    free(m);
}

static const char *goal_key(const char *key, size_t len)
{
    static const char *const keys[] = { "goal", "task", "query", "topic" };
    for (size_t i = 0; i < N_ELEMS(keys); i++)
        if (strlen(keys[i]) == len && memcmp(keys[i], key, len) == 0)
            return keys[i];
    return NULL;
}

char *goal_expand(const char *tmpl, const char *goal, json_object *vars)
{
    struct buf b = BUF_INIT(256 * 1024);
    bool used = false;
    for (const char *p = tmpl; p && *p;) {
        const char *open = strstr(p, "{{"), *close = open ? strstr(open, "}}") : NULL;
        if (!close) {
            (void)buf_adds(&b, p);
            break;
        }
        (void)buf_add(&b, p, (size_t)(open - p));
        size_t len = (size_t)(close - open - 2);
        char key[128];
        if (goal_key(open + 2, len)) {
            used = true;
            (void)buf_adds(&b, goal);
        } else if (len < sizeof key) {
            memcpy(key, open + 2, len);
            key[len] = '\0';
            json_object *v = json_get(vars, key);
            if (v)
                (void)buf_adds(&b, json_object_get_string(v));
        }
        p = close + 2;
    }
    if (b.len == 0 || (!used && *goal)) {
        buf_done(&b);
        return xstrdup(goal);
    }
    return buf_take(&b);
}
