/*
 * Step 1 of a spawn: everything that is known only by asking others, in four rounds of calls that
 * run side by side: the policy; directories, tool list, defaults and limits; the manifest; prompt,
 * receipt and model. Nothing is written; a failure costs nothing but its answer.
 */
#include "kernel/core/spawn.h"

#include "common/base/b64.h"
#include "common/svc/token.h"

#define CALL_MS   5000
#define FILES_MAX RESOLVE_LAYERS
#define CAND_MAX  16

struct file {
    char path[200], source[80];
    bool limits;
    json_object *doc;
};

struct job {
    struct prep p;
    prep_fn done;
    void *arg;
    unsigned pending;
    void (*next)(struct job *); /* when nothing is pending any more */
    struct catalog cat;
    json_object *tools;
    struct file files[FILES_MAX];
    size_t n_files;
    struct package cands[CAND_MAX];
    size_t n_cands, at_cand;
    char bad[700]; /* why the last candidate could not be used */
    bool disabled;
    char *manifest_text;
    json_object *receipt; /* NULL: none */
    json_object *model_row;
};

struct slot {
    struct job *j;
    size_t at;
    void (*fn)(struct job *, size_t, struct ipc_reply *);
};

void spawn_req_free(struct spawn_req *r)
{
    if (!r)
        return;
    char *texts[] = { r->agent, r->goal, r->session_id,  r->model,      r->crew,
                      r->title, r->user, r->atp_session, r->request_id, r->idem_key };
    for (size_t i = 0; i < N_ELEMS(texts); i++)
        free(texts[i]);
    json_put(r->caps);
    json_put(r->vars);
    json_put(r->additional);
    json_put(r->removed);
    json_put(r->budget);
    json_put(r->crews);
    free(r);
}

void prep_free(struct prep *p)
{
    struct job *j = container_of(p, struct job, p);
    spawn_req_free(p->req);
    json_put(p->policy);
    manifest_free(p->manifest);
    free(p->prompt);
    resolve_output_done(&p->res);
    free(p->model);
    free(p->goal);
    grant_result_done(&p->grants);
    json_put(p->err_data);
    for (size_t d = 0; d < CATALOG_DIRS; d++)
        json_put(j->cat.names[d]);
    json_put(j->tools);
    for (size_t i = 0; i < j->n_files; i++)
        json_put(j->files[i].doc);
    free(j->manifest_text);
    json_put(j->receipt);
    json_put(j->model_row);
    free(j);
}

/* The first failure ends the job once nothing is under way. */
static void fail(struct job *j, int err, const char *fmt, ...) printf_like(3, 4);
static void fail(struct job *j, int err, const char *fmt, ...)
{
    if (j->p.err)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(j->p.why, sizeof j->p.why, fmt, ap);
    va_end(ap);
    j->p.err = err;
}

static void fail_reply(struct job *j, const char *what, struct ipc_reply *r)
{
    fail(j, r->err, "%s: %s", what, r->error.message);
}

static void turn(struct job *j)
{
    if (j->pending > 0)
        return;
    if (j->p.err || !j->next)
        j->done(&j->p, j->arg);
    else
        j->next(j);
}

static void on_reply(struct ipc_reply *r, void *arg)
{
    cleanup(freep) struct slot *s = arg;
    s->fn(s->j, s->at, r);
    s->j->pending--;
    turn(s->j);
}

static void ask(struct job *j, const char *method, json_object *params, json_object *user,
                size_t at, void (*fn)(struct job *, size_t, struct ipc_reply *))
{
    struct slot *s = xcalloc(1, sizeof *s);
    s->j = j;
    s->at = at;
    s->fn = fn;
    j->pending++;
    (void)svc_call(method, params, user, CALL_MS, on_reply, s);
}

static void ask_file(struct job *j, const char *path, size_t at,
                     void (*fn)(struct job *, size_t, struct ipc_reply *))
{
    ask(j, "fs/read", json_make("path:s encoding:s", path, "utf-8"), NULL, at, fn);
}

static bool absent(const struct ipc_reply *r)
{
    return r->err == ERR_NOTFOUND || r->err == ERR_NOENT || r->err == ERR_NOTDIR;
}

/* --- round 4: prompt, receipt, model ---------------------------------------------------------- */

/* A changed file is refused when the package has a receipt that names it. */
static void check_digest(struct job *j, const char *name, const char *text)
{
    json_object *files = json_arr(j->receipt, "files");
    uint8_t sum[32];
    char hex[65];
    for (size_t i = 0; files && text && i < json_object_array_length(files); i++) {
        json_object *f = json_object_array_get_idx(files, i);
        if (!str_eq(json_str(f, "path", ""), name))
            continue;
        const char *want = json_str(f, "sha256", "");
        if (str_starts(want, "sha256:"))
            want += strlen("sha256:");
        sha256(text, strlen(text), sum);
        hex_encode(sum, sizeof sum, hex);
        if (!str_eq(want, hex))
            fail(j, ERR_CONFLICT, "%s/%s was changed since it was installed", j->p.pkg.dir, name);
        return;
    }
}

static const char *plain_name(const char *path)
{
    while (str_starts(path, "./"))
        path += 2;
    return path;
}

static void check_model(struct job *j)
{
    const struct manifest *m = j->p.manifest;
    json_object *row = j->model_row, *caps = json_arr(row, "capabilities");
    j->p.window = json_int(row, "context_window", 0);
    if (j->p.window <= 0)
        j->p.window = svc.config->default_context_limit;
    int64_t need =
        json_int(json_obj(j->p.res.resolved, "entrypoint"), "minContextTokens", m->min_context);
    if (j->p.window < need) {
        fail(j, ERR_INVAL, "model %s has a window of %lld tokens, %s needs %lld; try %s",
             j->p.model, (long long)j->p.window, m->name, (long long)need, m->recommended);
        return;
    }
    for (size_t i = 0; caps && i < json_object_array_length(m->model_caps); i++) {
        const char *cap = json_object_get_string(json_object_array_get_idx(m->model_caps, i));
        if (!json_arr_has(caps, cap))
            fail(j, ERR_INVAL, "model %s lacks %s, which %s needs; try %s", j->p.model, cap,
                 m->name, m->recommended);
    }
}

static void compute_grants(struct job *j)
{
    const struct spawn_req *q = j->p.req;
    const struct manifest *m = j->p.manifest;
    struct policy pol = { .all = json_flag(j->p.policy, "all", false),
                          .allowed = json_arr(j->p.policy, "allowed"),
                          .denied = json_arr(j->p.policy, "denied") };
    struct proc *parent = q->parent_pid ? proc_find(q->parent_pid) : NULL;
    struct tool_set set;
    if (q->parent_pid && !parent) {
        fail(j, ERR_CONFLICT, "pid %lld has ended", (long long)q->parent_pid);
        return;
    }
    tool_set_make(&set, j->tools);
    struct grant_input in = { .tools = &set,
                              .policy = &pol,
                              .requested = m->requested,
                              .required = m->required,
                              .optional = m->optional,
                              .additional = q->additional,
                              .narrow = q->caps,
                              .removed = q->removed,
                              .limit = j->p.res.tool_limit,
                              .parent = parent ? parent->grants : NULL };
    grants_compute(&in, &j->p.grants);
    tool_set_done(&set);
    if (json_object_array_length(j->p.grants.missing) > 0) {
        j->p.err_data = json_make("missing:o", json_dup(j->p.grants.missing));
        fail(j, ERR_PERM, "%s needs tools that are not granted: %s", m->name,
             json_text(j->p.grants.missing));
    }
}

static void finish(struct job *j)
{
    const struct manifest *m = j->p.manifest;
    check_digest(j, "manifest.yaml", j->manifest_text);
    if (m->prompt_path)
        check_digest(j, plain_name(m->prompt_path), j->p.prompt);
    check_model(j);
    if (!j->p.err)
        compute_grants(j);
    j->next = NULL;
    turn(j);
}

static void on_prompt(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    const char *text = json_str(r->result, "content", NULL);
    if (r->err || !text)
        fail(j, ERR_INVAL, "%s/%s: %s", j->p.pkg.dir, j->p.manifest->prompt_path,
             r->err ? r->error.message : "is not text");
    else if (strlen(text) > PROMPT_MAX)
        fail(j, ERR_INVAL, "%s/%s: is larger than %d KiB", j->p.pkg.dir, j->p.manifest->prompt_path,
             PROMPT_MAX / 1024);
    else
        j->p.prompt = xstrdup(text);
}

static void on_receipt(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    const char *text = json_str(r->result, "content", NULL);
    if (absent(r))
        return;
    if (r->err || !text || json_parse(text, strlen(text), &j->receipt))
        fail(j, ERR_INVAL, "%s/.install.json: %s", j->p.pkg.dir,
             r->err ? r->error.message : "is not JSON");
}

static void on_model(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    json_object *models = json_arr(r->result, "models");
    if (r->err) {
        bool busy = r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT || r->err == ERR_BUSY;
        fail(j, busy ? r->err : ERR_INVAL, "model %s: %s", j->p.model, r->error.message);
    } else if (!models || json_object_array_length(models) == 0) {
        fail(j, ERR_INVAL, "model %s is not known", j->p.model);
    } else {
        j->model_row = json_object_get(json_object_array_get_idx(models, 0));
    }
}

static void round_four(struct job *j)
{
    const struct manifest *m = j->p.manifest;
    char path[1400];
    j->next = finish;
    if (m->prompt_path) {
        const char *rel = plain_name(m->prompt_path);
        snprintf(path, sizeof path, "%s/%s", j->p.pkg.dir, rel);
        if (*rel == '/' || strstr(rel, ".."))
            fail(j, ERR_INVAL, "%s/manifest.yaml: spec.systemPromptPath leaves the package",
                 j->p.pkg.dir);
        else
            ask_file(j, path, 0, on_prompt);
    } else if (m->prompt_text) {
        j->p.prompt = xstrdup(m->prompt_text);
    }
    snprintf(path, sizeof path, "%s/.install.json", j->p.pkg.dir);
    ask_file(j, path, 0, on_receipt);
    ask(j, "llm/models", json_make("model:s", j->p.model), NULL, 0, on_model);
    turn(j);
}

/* --- round 3: the manifest, candidate by candidate -------------------------------------------- */

static void add_layers(struct job *j, struct resolve_input *in, json_object *spawn)
{
    for (size_t i = 0; i < j->n_files; i++) {
        struct file *f = &j->files[i];
        json_object *v = json_obj(f->doc, f->limits ? "limits" : "defaults");
        struct resolve_layer l = { .values = v, .source = f->source, .path = f->path };
        if (!v)
            continue;
        if (f->limits && in->n_limits < RESOLVE_LAYERS)
            in->limits[in->n_limits++] = l;
        else if (!f->limits && in->n_defaults < RESOLVE_LAYERS - 2)
            in->defaults[in->n_defaults++] = l;
    }
    in->defaults[in->n_defaults++] = (struct resolve_layer){ .values = j->p.manifest->values,
                                                             .source = "manifest",
                                                             .path = j->p.pkg.dir };
    in->defaults[in->n_defaults++] =
        (struct resolve_layer){ .values = spawn, .source = "spawn", .path = "" };
}

static void resolve(struct job *j)
{
    const struct manifest *m = j->p.manifest;
    const struct spawn_req *q = j->p.req;
    cleanup(json_putp) json_object *spawn = json_new();
    struct resolve_input *in = xcalloc(1, sizeof *in);
    if (!str_empty(q->model))
        json_add(spawn, "entrypoint", json_make("modelPreference:s", q->model));
    in->default_model = svc.config->model_default;
    add_layers(j, in, spawn);
    int r = resolve_fields(in, &j->p.res);
    free(in);
    if (r) {
        fail(j, r, "%s", j->p.res.why);
        return;
    }
    json_object *res = j->p.res.resolved, *tools = json_obj(res, "tools");
    json_add(tools, "required", json_dup(m->required));
    json_add(tools, "optional", json_dup(m->optional));
    json_add_str(json_obj(res, "entrypoint"), "type", "llm-loop");
    json_add_str(json_obj(res, "memory"), "workingContext", m->context_fixed ? "fixed" : "dynamic");
    j->p.model = xstrdup(json_str(json_obj(res, "entrypoint"), "modelPreference", ""));
    j->p.goal = goal_expand(m->goal_template, q->goal ? q->goal : "", q->vars);
    if (!*j->p.goal)
        fail(j, ERR_INVAL, "goal is missing");
}

static void next_candidate(struct job *j);

static void on_disabled(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    j->disabled = json_flag(r->result, "exists", false);
}

static void on_manifest(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    struct yaml_err e = { 0 };
    const char *text = json_str(r->result, "content", NULL);
    const char *dir = strrchr(j->p.pkg.dir, '/') + 1;
    if (r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT || r->err == ERR_BUSY) {
        fail_reply(j, "reading the manifest", r);
        return;
    }
    if (r->err || !text) {
        snprintf(j->bad, sizeof j->bad, "%s/manifest.yaml: %.400s", j->p.pkg.dir,
                 r->err ? r->error.message : "is not text");
    } else if (manifest_parse(text, strlen(text), dir, &j->p.manifest, &e)) {
        snprintf(j->bad, sizeof j->bad, "%s/manifest.yaml:%d: %s", j->p.pkg.dir, e.line, e.msg);
    } else {
        free(j->manifest_text);
        j->manifest_text = xstrdup(text);
        return;
    }
    log_warn("%s", j->bad);
}

static void candidate_read(struct job *j)
{
    if (j->disabled) {
        snprintf(j->bad, sizeof j->bad, "%s is disabled", j->p.pkg.dir);
        manifest_free(TAKE(j->p.manifest));
    }
    if (!j->p.manifest) {
        j->at_cand++;
        next_candidate(j);
        return;
    }
    for (size_t i = 0; i < json_object_array_length(j->p.manifest->warnings); i++)
        log_warn("%s/manifest.yaml: %.400s", j->p.pkg.dir,
                 json_object_get_string(json_object_array_get_idx(j->p.manifest->warnings, i)));
    resolve(j);
    j->next = round_four;
    turn(j);
}

static void next_candidate(struct job *j)
{
    char path[200];
    if (j->at_cand >= j->n_cands) {
        if (*j->bad)
            fail(j, ERR_INVAL, "%s", j->bad);
        else
            fail(j, ERR_NOTFOUND, "no agent named %s", j->p.req->agent);
        turn(j);
        return;
    }
    j->p.pkg = j->cands[j->at_cand];
    j->disabled = false;
    j->next = candidate_read;
    snprintf(path, sizeof path, "%s/manifest.yaml", j->p.pkg.dir);
    ask_file(j, path, 0, on_manifest);
    snprintf(path, sizeof path, "%s/.disabled", j->p.pkg.dir);
    if (!strchr(j->p.req->agent, '@'))
        ask(j, "fs/exists", json_make("path:s", path), NULL, 0, on_disabled);
}

static void round_three(struct job *j)
{
    j->n_cands = catalog_find(&j->cat, j->p.req->agent, j->cands, CAND_MAX);
    next_candidate(j);
}

/* --- round 2 ---------------------------------------------------------------------------------- */

static void on_dir(struct job *j, size_t at, struct ipc_reply *r)
{
    if (!r->err)
        j->cat.names[at] = json_dup(json_arr(r->result, "entries"));
    else if (!absent(r))
        fail_reply(j, j->cat.paths[at], r);
}

static void on_tools(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    if (r->err)
        fail_reply(j, "the tool list", r);
    else
        j->tools = json_dup(json_arr(r->result, "tools"));
}

static void on_file(struct job *j, size_t at, struct ipc_reply *r)
{
    struct file *f = &j->files[at];
    const char *text = json_str(r->result, "content", NULL);
    struct yaml_err e = { 0 };
    if (absent(r))
        return;
    if (r->err || !text)
        fail(j, r->err ? r->err : ERR_INVAL, "%s: %s", f->path,
             r->err ? r->error.message : "is not text");
    else if (yaml_parse(text, strlen(text), &f->doc, &e))
        fail(j, ERR_INVAL, "%s:%d: %s", f->path, e.line, e.msg);
}

static void add_files(struct job *j, const char *dir, const char *kind, const char *name)
{
    for (int limits = 0; limits < 2 && j->n_files < FILES_MAX; limits++) {
        struct file *f = &j->files[j->n_files];
        f->limits = limits;
        snprintf(f->path, sizeof f->path, "/%s/%.64s/%s.yaml", dir, name,
                 limits ? "limits" : "defaults");
        snprintf(f->source, sizeof f->source, "%s-%.64s", kind, name);
        ask_file(j, f->path, j->n_files++, on_file);
    }
}

static void round_two(struct job *j)
{
    const struct spawn_req *q = j->p.req;
    json_object *crews = json_arr(j->p.policy, "crews");
    const char *role = json_str(j->p.policy, "role", "user");
    if (role_parse(role) < ROLE_USER) {
        fail(j, ERR_PERM, "role %s may not start agents", role);
        turn(j);
        return;
    }
    j->next = round_three;
    str_copy(j->cat.paths[0], sizeof j->cat.paths[0], "/bin");
    snprintf(j->cat.paths[1], sizeof j->cat.paths[1], "/users/%.64s/bin", q->user);
    for (size_t d = 0; d < CATALOG_DIRS; d++)
        ask(j, "fs/list", json_make("path:s", j->cat.paths[d]), NULL, d, on_dir);
    cleanup(json_putp) json_object *user = json_make(
        "name:s uid:i role:s crews:o session_id:s", q->user, json_int(j->p.policy, "uid", q->uid),
        role, crews ? json_dup(crews) : json_new_arr(), q->atp_session ? q->atp_session : "");
    ask(j, "sys/tools", json_new(), user, 0, on_tools);
    for (size_t i = 0; crews && i < json_object_array_length(crews) && i < 16; i++)
        add_files(j, "crews", "crew", json_object_get_string(json_object_array_get_idx(crews, i)));
    add_files(j, "users", "user", q->user);
}

static void on_policy(struct job *j, size_t at, struct ipc_reply *r)
{
    (void)at;
    if (r->err)
        fail_reply(j, "the user's policy", r);
    else
        j->p.policy = TAKE(r->result);
}

void prep_start(struct spawn_req *req, prep_fn done, void *arg)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->p.req = req;
    j->done = done;
    j->arg = arg;
    j->next = round_two;
    char name[64], version[64];
    (void)package_split(req->agent, name, sizeof name, version, sizeof version);
    ask(j, "auth/policy", json_make("user:s agent:s", req->user, name), NULL, 0, on_policy);
}
