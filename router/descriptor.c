/*
 * Descriptors (ipc page, section 13): one object in, the fields of an entry out, and the short form
 * of `input` and `output` turned into JSON Schema.
 */
#include <stdio.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "router/router.h"

#define CALL_MS     30000
#define CALL_MAX_MS 600000
#define IDLE_MS     120000

static const char *schema_type(const char *t)
{
    if (str_eq(t, "bool"))
        return "boolean";
    if (str_eq(t, "int"))
        return "integer";
    if (str_eq(t, "float"))
        return "number";
    return t;
}

static json_object *property(json_object *spec)
{
    json_object *p;

    if (json_object_is_type(spec, json_type_string))
        return json_make("type:s", schema_type(json_object_get_string(spec)));
    p = json_new();
    if (!json_object_is_type(spec, json_type_object))
        return p;
    json_object_object_foreach (spec, key, val) {
        if (str_eq(key, "required"))
            continue;
        if (str_eq(key, "type") && json_object_is_type(val, json_type_string))
            json_add_str(p, "type", schema_type(json_object_get_string(val)));
        else if (str_eq(key, "desc"))
            json_add(p, "description", json_object_get(val));
        else if (str_eq(key, "items"))
            json_add(p, "items", property(val));
        else
            json_add(p, key, val ? json_object_get(val) : NULL);
    }
    return p;
}

/* JSON Schema of the short form; a schema stays what it is. */
static json_object *to_schema(json_object *o)
{
    json_object *props = json_new(), *required = json_new_arr(), *s;

    if (o && json_obj(o, "properties") && str_eq(json_str(o, "type", ""), "object")) {
        json_put(props);
        json_put(required);
        return json_object_get(o);
    }
    if (o && json_object_is_type(o, json_type_object)) {
        json_object_object_foreach (o, key, val) {
            json_add(props, key, property(val));
            if (json_object_is_type(val, json_type_object) && json_flag(val, "required", false))
                json_push_str(required, key);
        }
    }
    s = json_make("type:s properties:o", "object", props);
    if (json_object_array_length(required))
        json_add(s, "required", required);
    else
        json_put(required);
    return s;
}

static bool parse_vis_text(struct entry *e, const char *t)
{
    e->vis_not = *t == '!';
    t += e->vis_not;
    if (str_eq(t, "all")) {
        e->vis = VIS_ALL;
        return !e->vis_not;
    }
    if (str_eq(t, "internal")) {
        e->vis = VIS_INTERNAL;
        return !e->vis_not;
    }
    if (str_starts(t, "agent:")) {
        e->vis = VIS_AGENT;
        return !e->vis_not && str_copy(e->vis_name, sizeof(e->vis_name), t + 6);
    }
    if (!str_starts(t, "user") && !str_starts(t, "crew"))
        return false;
    e->vis = *t == 'u' ? VIS_USER : VIS_CREW;
    if (t[4] != ':' && t[4] != ' ')
        return false;
    return t[5] && str_copy(e->vis_name, sizeof(e->vis_name), t + 5);
}

static bool parse_vis(struct entry *e, json_object *v)
{
    const char *name;

    e->vis = VIS_ALL;
    if (!v)
        return true;
    if (json_object_is_type(v, json_type_string))
        return parse_vis_text(e, json_object_get_string(v));
    if (!json_object_is_type(v, json_type_object))
        return false;
    name = json_str(v, "user", NULL);
    e->vis = name ? VIS_USER : VIS_CREW;
    if (!name)
        name = json_str(v, "crew", NULL);
    return name && str_copy(e->vis_name, sizeof(e->vis_name), name);
}

static bool parse_state(struct entry *e, json_object *status)
{
    const char *s = json_object_is_type(status, json_type_string)
                        ? json_object_get_string(status)
                        : json_str(status, "state", "available");

    e->state = str_eq(s, "available")  ? TOOL_AVAILABLE
               : str_eq(s, "degraded") ? TOOL_DEGRADED
                                       : TOOL_UNAVAILABLE;
    if (!json_object_is_type(status, json_type_object))
        return true;
    str_copy(e->reason, sizeof(e->reason), json_str(status, "reason", ""));
    e->reason[utf8_floor(e->reason, strlen(e->reason))] = '\0';
    e->retry_after = (int)json_int(status, "retry_after", 0);
    return true;
}

static bool parse_perms(struct entry *e, json_object *d)
{
    json_object *p = json_obj(d, "permissions");
    const char *all;

    if (!p)
        return true;
    e->has_perms = true;
    all = json_str(p, "all", "r--");
    e->perm_all_x = strlen(all) == 3 && all[2] == 'x';
    return str_copy(e->perm_owner, sizeof(e->perm_owner),
                    json_str(p, "owner", json_str(d, "owner", ""))) &&
           str_copy(e->perm_crew, sizeof(e->perm_crew), json_str(p, "crew", ""));
}

static bool plain(const char *s)
{
    for (; *s; s++)
        if (*s < 0x21 || *s > 0x7e || *s == '"' || *s == '\\')
            return false;
    return true;
}

/* `endpoint` is looked at by the caller, who knows what the owner may say. */
int entry_parse(struct entry *e, json_object *d, const char **why)
{
    struct args a = args_open(d);
    const char *name = args_str(&a, "name", TOOL_MAX);
    const char *role = args_str_or(&a, "min_role", 16, NULL);
    int64_t timeout = args_ms_or(&a, "timeout", 0, INT32_MAX, CALL_MS);
    int64_t idle = args_ms_or(&a, "stream_idle", 0, INT32_MAX, IDLE_MS);
    json_object *ipc = args_obj_or(&a, "ipc");
    json_object *input = json_get(d, "input_schema"), *output = json_get(d, "output_schema");

    args_str_or(&a, "description", 65536, "");
    e->streaming = args_bool_or(&a, "streaming", false);
    e->blocking = args_bool_or(&a, "blocking", false);
    e->read_only = args_bool_or(&a, "readOnly", false);
    e->idempotent = args_bool_or(&a, "idempotent", false);
    e->destructive = args_bool_or(&a, "destructive", false);
    e->untrusted = args_bool_or(&a, "untrusted", false);
    *why = a.why;
    if (args_bad(&a)) {
        static char text[224];

        snprintf(text, sizeof(text), "%s %s", a.field, a.why);
        *why = text;
        return ERR_INVAL;
    }
    if (!tool_name_valid(name, strlen(name))) {
        *why = "name";
        return ERR_INVAL;
    }
    str_copy(e->name, sizeof(e->name), name);
    e->timeout_ms = (int)timeout;
    e->idle_ms = (int)idle;
    e->min_role = role_parse(role);
    if (role && e->min_role == ROLE_NONE) {
        *why = "min_role";
        return ERR_INVAL;
    }
    if (!str_copy(e->method, sizeof(e->method), json_str(ipc, "method", name)) || !e->method[0] ||
        !plain(e->method)) {
        *why = "ipc.method";
        return ERR_INVAL;
    }
    if (!parse_vis(e, json_get(d, "visibility")) || !parse_state(e, json_get(d, "status")) ||
        !parse_perms(e, d)) {
        *why = "visibility, status or permissions";
        return ERR_INVAL;
    }
    e->internal = e->vis == VIS_INTERNAL;
    e->descriptor = json_dup(d);
    json_add(e->descriptor, "input_schema",
             input ? json_dup(input) : to_schema(json_get(d, "input")));
    if (output || json_get(d, "output"))
        json_add(e->descriptor, "output_schema",
                 output ? json_dup(output) : to_schema(json_get(d, "output")));
    json_object_object_del(e->descriptor, "input"); /* the schemas stand for them */
    json_object_object_del(e->descriptor, "output");
    return 0;
}

/* What only built-in owners may say. */
void entry_restrict(struct entry *e)
{
    e->blocking = false;
    e->min_role = ROLE_NONE;
    if (e->timeout_ms <= 0 || e->timeout_ms > CALL_MAX_MS)
        e->timeout_ms = CALL_MAX_MS;
}
