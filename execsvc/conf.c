/* Defaults and ceilings are the page's; the file may lower a ceiling and move a default below it.
 */
#include "execsvc/conf.h"

#include <errno.h>
#include <stdio.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/svc/config.h"

static const struct {
    const char *key;
    size_t at;
    int64_t dflt, max;
} limit_keys[] = {
    { "timeoutMs", offsetof(struct limits, timeout_ms), 30000, 590000 },
    { "memoryMb", offsetof(struct limits, memory_mb), 512, 8192 },
    { "fileMb", offsetof(struct limits, file_mb), 256, 2048 },
    { "openFiles", offsetof(struct limits, open_files), 256, 1024 },
    { "processes", offsetof(struct limits, processes), 64, 512 },
    { "outputBytes", offsetof(struct limits, output_bytes), 1 << 20, 4 << 20 },
};

static int64_t *field(struct limits *l, size_t i)
{
    return (int64_t *)(void *)((char *)l + limit_keys[i].at);
}

static void set_defaults(struct exec_conf *c)
{
    *c = (struct exec_conf){ .bwrap = true };
    for (size_t i = 0; i < N_ELEMS(limit_keys); i++) {
        *field(&c->dflt, i) = limit_keys[i].dflt;
        *field(&c->max, i) = limit_keys[i].max;
    }
}

static int bad(struct yaml_err *e, const struct args *a, const char *section)
{
    e->line = a->line;
    snprintf(e->msg, sizeof(e->msg), "%s%s%.60s: %.90s", section, *section ? "." : "", a->field,
             a->why);
    return ERR_CONFIG;
}

static int read_sandbox(struct exec_conf *c, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);
    json_object *tiers = args_strs_or(&a, "tiers", 16);

    args_bool_or(&a, "unsafe", false);
    if (tiers)
        c->bwrap = json_arr_has(tiers, "bwrap");
    return args_strict(&a) ? bad(e, &a, "sandbox") : 0;
}

/* limits: {memoryMb: 256} is the default, {memoryMb: {default: 256, max: 1024}} both. */
static int read_limits(struct exec_conf *c, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);

    for (size_t i = 0; i < N_ELEMS(limit_keys); i++) {
        const char *key = limit_keys[i].key;
        json_object *v = args_any_or(&a, key);

        if (json_object_is_type(v, json_type_object)) {
            struct args b = args_open(v);

            *field(&c->max, i) = args_int_or(&b, "max", 1, limit_keys[i].max, limit_keys[i].max);
            *field(&c->dflt, i) =
                args_int_or(&b, "default", 1, *field(&c->max, i), *field(&c->dflt, i));
            if (args_strict(&b))
                return bad(e, &b, key);
        } else if (v) {
            *field(&c->dflt, i) = args_int_or(&a, key, 1, limit_keys[i].max, limit_keys[i].dflt);
        }
        if (*field(&c->dflt, i) > *field(&c->max, i))
            *field(&c->dflt, i) = *field(&c->max, i);
    }
    return args_strict(&a) ? bad(e, &a, "limits") : 0;
}

static int read_network(struct exec_conf *c, json_object *o, struct yaml_err *e)
{
    struct args a = args_open(o);
    json_object *v = args_any_or(&a, "allow");

    if (json_object_is_type(v, json_type_boolean))
        c->network = json_object_get_boolean(v) ? NET_PASTA : NET_NO;
    else if (json_object_is_type(v, json_type_string) && str_eq(json_object_get_string(v), "host"))
        c->network = NET_HOST;
    else if (v)
        args_fail(&a, "allow", "must be true, false or \"host\"");
    return args_strict(&a) ? bad(e, &a, "network") : 0;
}

static int read_spec(struct exec_conf *c, json_object *spec, struct yaml_err *e)
{
    struct args a = args_open(spec);
    json_object *sandbox = args_obj_or(&a, "sandbox"), *limits = args_obj_or(&a, "limits");
    json_object *network = args_obj_or(&a, "network");
    int r;

    c->runtimes = args_obj_or(&a, "runtimes");
    if (args_strict(&a))
        return bad(e, &a, "");
    r = read_sandbox(c, sandbox, e);
    if (!r)
        r = read_limits(c, limits, e);
    return r ? r : read_network(c, network, e);
}

int exec_conf_parse(const char *text, size_t len, struct exec_conf *ret, struct yaml_err *e)
{
    json_object *spec;
    int r;

    set_defaults(ret);
    r = yaml_parse(text, len, &ret->doc, e);
    if (r)
        return r;
    spec = config_spec(ret->doc, "ExecConfig", e);
    r = spec ? read_spec(ret, spec, e) : ERR_CONFIG;
    if (r)
        exec_conf_done(ret);
    return r;
}

int exec_conf_load(const char *path, struct exec_conf *ret, struct yaml_err *e)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    int r = file_read(path, YAML_MAX, &text, &len);

    set_defaults(ret);
    if (r == -ENOENT)
        return 0;
    return r < 0 ? r : exec_conf_parse(text, len, ret, e);
}

void exec_conf_done(struct exec_conf *c)
{
    json_put(c->doc);
    c->doc = c->runtimes = NULL;
}
