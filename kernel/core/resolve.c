/*
 * One table of fields: section, name, type, default, system limit. A limit of several layers is
 * their intersection: highest min, lowest max, common members.
 */
#include "kernel/core/resolve.h"

#include <math.h>

#include "common/base/err.h"
#include "common/base/util.h"

enum type { T_INT, T_NUM, T_BOOL, T_STR, T_SET };

static const struct field {
    const char *section, *name;
    enum type type;
    double dflt, min, max; /* min > max: no system limit */
    const char *text;
} fields[] = {
    { "entrypoint", "modelPreference", T_STR, 0, 1, 0, NULL },
    { "entrypoint", "minContextTokens", T_INT, 8000, 1000, 200000, NULL },
    { "entrypoint", "maxToolChain", T_INT, 5, 1, 200, NULL },
    { "entrypoint", "maxTurnsPerGoal", T_INT, 20, 1, 500, NULL },
    { "memory", "episodicEnabled", T_BOOL, 1, 1, 0, NULL },
    { "memory", "semanticEnabled", T_BOOL, 1, 1, 0, NULL },
    { "memory", "preferencesEnabled", T_BOOL, 1, 1, 0, NULL },
    { "memory", "autoInjectAtSpawn", T_BOOL, 1, 1, 0, NULL },
    { "memory", "autoLogOnSessionEnd", T_BOOL, 0, 1, 0, NULL },
    { "permissionsHint", "owner", T_STR, 0, 1, 0, "rw" },
    { "permissionsHint", "crew", T_STR, 0, 1, 0, "r" },
    { "permissionsHint", "world", T_STR, 0, 1, 0, "r--" },
    { "snapshot", "enabled", T_BOOL, 0, 1, 0, NULL },
    { "snapshot", "autoSnapshotIntervalSec", T_INT, 0, 0, 3600, NULL },
    { "snapshot", "restoreOnCrash", T_BOOL, 0, 1, 0, NULL },
    { "environment", "temperature", T_NUM, 0.7, 0, 2, NULL },
    { "environment", "topP", T_NUM, 0.9, 0, 1, NULL },
    { "environment", "timeoutSec", T_INT, 300, 30, 600, NULL },
    { "tools", "required", T_SET, 0, 1, 0, NULL },
    { "tools", "optional", T_SET, 0, 1, 0, NULL },
};

static json_object *dflt_of(const struct field *f, const char *model)
{
    switch (f->type) {
    case T_INT:
        return json_object_new_int64((int64_t)f->dflt);
    case T_NUM:
        return json_new_double(f->dflt, NULL);
    case T_BOOL:
        return json_object_new_boolean(f->dflt > 0);
    case T_SET:
        return json_new_arr();
    case T_STR:
        break;
    }
    return json_object_new_string(f->text ? f->text : model ? model : "");
}

/* True if v may stand in this field. */
static bool fits(const struct field *f, json_object *v)
{
    enum json_type t = json_object_get_type(v);
    switch (f->type) {
    case T_INT:
        return t == json_type_int;
    case T_NUM:
        return t == json_type_int || t == json_type_double;
    case T_BOOL:
        return t == json_type_boolean;
    case T_STR:
        return t == json_type_string;
    case T_SET:
        return t == json_type_array;
    }
    return false;
}

static json_object *at(json_object *values, const struct field *f)
{
    return json_get(json_obj(values, f->section), f->name);
}

/* A rule is {type: range, min, max}, {range: {min, max}} or just its members. */
static json_object *rule_part(json_object *rule, const char *type, const char *member)
{
    json_object *inner = json_obj(rule, type);
    return json_get(inner ? inner : rule, member);
}

struct bounds {
    double min, max;
    const char *min_by, *max_by, *lock_by, *set_by;
    json_object *locked, *allowed, *values; /* borrowed, allowed is owned */
    bool readonly;
};

static json_object *intersect(json_object *a, json_object *b)
{
    json_object *out = json_new_arr();
    for (size_t i = 0; i < json_object_array_length(b); i++) {
        json_object *v = json_object_array_get_idx(b, i);
        if (json_object_is_type(v, json_type_string) &&
            (!a || json_arr_has(a, json_object_get_string(v))))
            json_push_str(out, json_object_get_string(v));
    }
    return out;
}

static void bound_by(struct bounds *b, json_object *rule, const char *source)
{
    json_object *v;
    if ((v = rule_part(rule, "range", "min")) && json_object_get_double(v) > b->min) {
        b->min = json_object_get_double(v);
        b->min_by = source;
    }
    if ((v = rule_part(rule, "range", "max")) && json_object_get_double(v) < b->max) {
        b->max = json_object_get_double(v);
        b->max_by = source;
    }
    if ((v = rule_part(rule, "bool", "value")) && json_object_is_type(v, json_type_boolean)) {
        b->locked = v;
        b->lock_by = source;
    }
    if ((v = rule_part(rule, "set", "allowed")) && json_object_is_type(v, json_type_array)) {
        json_object *both = intersect(b->allowed, v);
        json_put(b->allowed);
        b->allowed = both;
        b->set_by = source;
    }
    if ((v = rule_part(rule, "enum", "values")) && json_object_is_type(v, json_type_array))
        b->values = v;
    if (json_flag(rule, "readonly", false) || str_eq(json_str(rule, "type", ""), "readonly"))
        b->readonly = true;
}

static struct bounds bounds_of(const struct field *f, const struct resolve_layer *limits, size_t n)
{
    struct bounds b = { .min = -INFINITY, .max = INFINITY };
    if (f->min <= f->max) {
        b.min = f->min;
        b.max = f->max;
        b.min_by = b.max_by = "system-limits";
    }
    for (size_t i = 0; i < n; i++) {
        json_object *rule = at(limits[i].values, f);
        if (rule)
            bound_by(&b, rule, limits[i].source);
    }
    return b;
}

/* The value within its bounds; *by names the layer that changed it. Takes v. */
static json_object *clamp(const struct field *f, const struct bounds *b, json_object *v,
                          const char **by)
{
    *by = NULL;
    json_object *to = NULL;
    if (f->type == T_INT || f->type == T_NUM) {
        double x = json_object_get_double(v), y = x;
        if (x < b->min)
            y = b->min, *by = b->min_by;
        if (x > b->max)
            y = b->max, *by = b->max_by;
        if (*by)
            to = f->type == T_INT ? json_object_new_int64((int64_t)y) : json_new_double(y, NULL);
    } else if (f->type == T_BOOL && b->locked &&
               json_object_get_boolean(b->locked) != json_object_get_boolean(v)) {
        *by = b->lock_by;
        to = json_object_new_boolean(json_object_get_boolean(b->locked));
    } else if (f->type == T_SET && b->allowed) {
        to = intersect(b->allowed, v);
        if (json_object_array_length(to) != json_object_array_length(v))
            *by = b->set_by;
    }
    if (!to)
        return v;
    json_put(v);
    return to;
}

static int refuse(const struct field *f, const struct bounds *b, json_object *v, bool set,
                  char *why, size_t size)
{
    if (b->readonly && set) {
        snprintf(why, size, "%s.%s is read-only here", f->section, f->name);
        return ERR_INVAL;
    }
    if (b->values && f->type == T_STR && !json_arr_has(b->values, json_object_get_string(v))) {
        snprintf(why, size, "%s.%s: '%s' is not among the values allowed here", f->section, f->name,
                 json_object_get_string(v));
        return ERR_INVAL;
    }
    return 0;
}

static void put(json_object *root, const struct field *f, json_object *v)
{
    json_object *sec = json_obj(root, f->section);
    if (!sec) {
        sec = json_new();
        json_add(root, f->section, sec);
    }
    json_add(sec, f->name, v);
}

static int resolve_one(const struct resolve_input *in, const struct field *f,
                       struct resolve_output *out)
{
    json_object *v = dflt_of(f, in->default_model);
    const char *source = "system-defaults", *path = "/kernel/defaults/agent-manifest.yaml";
    bool set = false;
    for (size_t i = 0; i < in->n_defaults; i++) {
        json_object *x = at(in->defaults[i].values, f);
        if (!x || !fits(f, x))
            continue;
        json_put(v);
        v = json_dup(x);
        source = in->defaults[i].source;
        path = in->defaults[i].path;
        set = str_eq(source, "manifest") || str_eq(source, "spawn");
    }
    struct bounds b = bounds_of(f, in->limits, in->n_limits);
    int r = refuse(f, &b, v, set, out->why, sizeof out->why);
    if (r) {
        json_put(b.allowed);
        json_put(v);
        return r;
    }
    cleanup(json_putp) json_object *from = json_dup(v);
    const char *by;
    v = clamp(f, &b, v, &by);
    json_put(b.allowed);
    json_object *note = json_new();
    json_add(note, "value", json_dup(v));
    json_add_str(note, "source", source);
    if (!str_empty(path))
        json_add_str(note, "path", path);
    if (by) {
        json_add(note, "clampedFrom", TAKE(from));
        json_add_str(note, "clampedBy", by);
    }
    char key[96];
    snprintf(key, sizeof key, "%s.%s", f->section, f->name);
    json_add(out->annotations, key, note);
    put(out->resolved, f, v);
    return 0;
}

int resolve_fields(const struct resolve_input *in, struct resolve_output *out)
{
    memset(out, 0, sizeof *out);
    out->resolved = json_new();
    out->annotations = json_new();
    for (size_t i = 0; i < N_ELEMS(fields); i++) {
        int r = resolve_one(in, &fields[i], out);
        if (r)
            return r;
    }
    for (size_t i = 0; i < in->n_limits; i++) {
        json_object *tools = json_obj(in->limits[i].values, "tools");
        json_object *allowed = rule_part(tools, "set", "allowed");
        if (!allowed || !json_object_is_type(allowed, json_type_array))
            continue;
        json_object *both = intersect(out->tool_limit, allowed);
        json_put(out->tool_limit);
        out->tool_limit = both;
    }
    return 0;
}

void resolve_output_done(struct resolve_output *out)
{
    json_putp(&out->resolved);
    json_putp(&out->annotations);
    json_putp(&out->tool_limit);
}

int resolve_check(json_object *values, const struct resolve_layer *limits, size_t n_limits,
                  char *why, size_t size)
{
    for (size_t i = 0; i < N_ELEMS(fields); i++) {
        const struct field *f = &fields[i];
        json_object *x = at(values, f);
        if (!x)
            continue;
        if (!fits(f, x)) {
            snprintf(why, size, "%s.%s has the wrong type", f->section, f->name);
            return ERR_INVAL;
        }
        struct bounds b = bounds_of(f, limits, n_limits);
        int r = refuse(f, &b, x, true, why, size);
        const char *by = NULL;
        if (!r)
            json_put(clamp(f, &b, json_dup(x), &by));
        json_put(b.allowed);
        if (by)
            snprintf(why, size, "%s.%s is outside the limits of %s", f->section, f->name, by);
        if (r || by)
            return ERR_INVAL;
    }
    return 0;
}

json_object *resolve_system_defaults(const char *default_model)
{
    json_object *root = json_new();
    for (size_t i = 0; i < N_ELEMS(fields); i++)
        put(root, &fields[i], dflt_of(&fields[i], default_model));
    return root;
}

json_object *resolve_system_limits(void)
{
    json_object *root = json_new();
    for (size_t i = 0; i < N_ELEMS(fields); i++) {
        const struct field *f = &fields[i];
        if (f->min > f->max)
            continue;
        json_object *rule = json_make("type:s", "range");
        if (f->type == T_INT) {
            json_add_int(rule, "min", (int64_t)f->min);
            json_add_int(rule, "max", (int64_t)f->max);
        } else {
            json_add_num(rule, "min", f->min);
            json_add_num(rule, "max", f->max);
        }
        put(root, f, rule);
    }
    return root;
}
