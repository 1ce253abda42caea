/*
 * What /proc/services/llm/ shows: status.yaml, models.yaml, one file per provider, usage/total.yaml
 * (the reader's own counts; an operator sees everyone's).
 */
#include "common/base/clock.h"
#include "llmsvc/core.h"
#include "llmsvc/service.h"

#define BASE "/proc/services/llm"

static const char *const dirs[] = { "", "/providers", "/usage" };

static bool is_dir(const char *rest)
{
    for (size_t i = 0; i < N_ELEMS(dirs); i++)
        if (str_eq(rest, dirs[i]))
            return true;
    return false;
}

static void list(struct call *c, const char *rest)
{
    json_object *names = json_new_arr();

    if (!*rest) {
        json_push_str(names, "status.yaml");
        json_push_str(names, "models.yaml");
        json_push_str(names, "providers/");
        json_push_str(names, "usage/");
    } else if (str_eq(rest, "/providers")) {
        for (size_t i = 0; i < core.gen->conf->n_provs; i++) {
            cleanup(freep) char *s = xasprintf("%s.yaml", core.gen->conf->provs[i].name);
            json_push_str(names, s);
        }
    } else {
        json_push_str(names, "total.yaml");
    }
    call_reply(c, json_make("entries:o", names));
}

static json_object *provider_file(const char *rest)
{
    const char *name = rest + strlen("/providers/");
    size_t n = strlen(name);

    if (n <= 5 || !str_ends(name, ".yaml"))
        return NULL;
    cleanup(freep) char *id = xstrndup(name, n - 5);
    cleanup(json_putp) json_object *rows = status_rows(id, true);
    json_object *row = json_object_array_length(rows) ? json_object_array_get_idx(rows, 0) : NULL;
    return row ? json_object_get(row) : NULL;
}

static json_object *usage_file(json_object *reader)
{
    enum role role = role_parse(json_str(reader, "role", ""));
    char at[RFC3339_LEN];
    json_object *o = usage_report(role >= ROLE_OPERATOR ? NULL : json_str(reader, "user", "-"));

    json_add_str(o, "since", rfc3339(core.since, at));
    return o;
}

static json_object *file(const char *rest, json_object *reader)
{
    if (str_eq(rest, "/status.yaml"))
        return json_make("providers:o", status_rows(NULL, true));
    if (str_eq(rest, "/models.yaml"))
        return json_make("models:o", models_rows("", ""));
    if (str_starts(rest, "/providers/"))
        return provider_file(rest);
    if (str_eq(rest, "/usage/total.yaml"))
        return usage_file(reader);
    return NULL;
}

void llm_view(struct call *c, const struct caller *w)
{
    struct args a = args_open(c->params);
    const char *path = args_str(&a, "path", 4096), *op = args_str(&a, "op", 16);
    json_object *reader = args_obj_or(&a, "reader");

    (void)w;
    if (args_bad(&a)) {
        call_bad_args(c, &a);
        return;
    }
    if (!str_starts(path, BASE) || (path[strlen(BASE)] && path[strlen(BASE)] != '/')) {
        call_fail(c, ERR_NOENT, "%s: no such file or directory", path);
        return;
    }
    const char *rest = path + strlen(BASE);
    bool want_list = str_eq(op, "list");
    if (is_dir(rest)) {
        if (want_list)
            list(c, rest);
        else
            call_fail(c, ERR_ISDIR, "%s: is a directory", path);
        return;
    }
    cleanup(json_putp) json_object *o = file(rest, reader);
    if (o && want_list) {
        call_fail(c, ERR_NOTDIR, "%s: not a directory", path);
        return;
    }
    if (!o) {
        call_fail(c, ERR_NOENT, "%s: no such file or directory", path);
        return;
    }
    cleanup(freep) char *text = yaml_dump(o);
    call_reply(c, json_make("content:s", text));
}
