/*
 * The kinds of events and their bodies.
 *
 * Deployed clients tell events apart by the members of the body, first match wins. So a body holds
 * what its row lists and nothing else, whatever the publisher sent. Publishers send pids as
 * numbers; in agent.* bodies clients want decimal strings.
 */
#include "gateway/kinds.h"

#include <inttypes.h>

#include "common/base/map.h"

#define OWN     KF_OWN
#define STR     KF_STR
#define LOCAL   KF_LOCAL
#define CHUNK   KF_CHUNK
#define CUT     KF_CUT
#define PID     KF_PID
#define GATEWAY PUB_GATEWAY
#define KERNEL  PUB_KERNEL
#define AGENT   PUB_AGENT
#define ROUTER  PUB_ROUTER
#define ANY     PUB_ANY
const struct kind kinds[KIND_COUNT] = {
#define KIND(id, name, min, flags, by, fields) \
    [KIND_##id] = { name, ROLE_##min, flags, by, fields },
#include "gateway/kinds.def"
#undef KIND
};
#undef OWN
#undef STR
#undef LOCAL
#undef CHUNK
#undef CUT
#undef PID
#undef GATEWAY
#undef KERNEL
#undef AGENT
#undef ROUTER
#undef ANY

enum kind_id kind_find(const char *name)
{
    static struct map index;

    if (!index.n)
        for (int i = 0; i < KIND_COUNT; i++)
            map_put(&index, kinds[i].name, (void *)(uintptr_t)(i + 1));
    return (enum kind_id)((int)(uintptr_t)map_get(&index, name) - 1);
}

bool kind_allows(enum kind_id k, const struct pub *p)
{
    switch (kinds[k].by) {
    case PUB_KERNEL:
        return p->unit == UNIT_KERNEL;
    case PUB_AGENT:
        return p->unit == UNIT_NONE && p->pid > 0;
    case PUB_ROUTER:
        return p->unit == UNIT_ROUTER;
    case PUB_ANY:
        return p->unit != UNIT_NONE || p->pid <= 0;
    case PUB_GATEWAY:
    default:
        return p->unit == UNIT_GATEWAY;
    }
}

/* --- cutting ---------------------------------------------------------------------------------- */

static bool cut_member(json_object *o, const char *key, size_t max)
{
    json_object *v = json_get(o, key);
    const char *s;
    size_t len;

    if (!v)
        return false;
    if (json_object_is_type(v, json_type_string)) {
        s = json_object_get_string(v);
        len = (size_t)json_object_get_string_len(v);
    } else {
        s = json_text(v);
        len = strlen(s);
    }
    if (len <= max)
        return false;
    cleanup(freep) char *head = xstrndup(s, utf8_floor(s, max));

    json_add_str(o, key, head);
    return true;
}

static bool cut_args(json_object *args)
{
    bool cut = false, again = true;

    while (again) { /* replacing a member ends the walk */
        again = false;
        json_object_object_foreach (args, k, v) {
            (void)v;
            if (cut_member(args, k, CUT_VALUE)) {
                cut = again = true;
                break;
            }
        }
    }
    return cut;
}

static void cut(json_object *body)
{
    json_object *args = json_obj(body, "args");
    bool did = args && cut_args(args);

    did |= cut_member(body, "result", CUT_VALUE);
    did |= cut_member(body, "error", CUT_VALUE);
    did |= cut_member(body, "text", CUT_TEXT);
    if (did)
        json_add_bool(body, "truncated", true);
}

/* --- shape ------------------------------------------------------------------------------------ */

/* Whether the list holds key; *must tells if it is marked. */
static bool listed(const char *fields, const char *key, bool *must)
{
    char w[64];
    size_t n;

    while (word_next(&fields, w, sizeof(w))) {
        n = strlen(w);
        *must = n && w[n - 1] == '!';
        if (*must)
            w[n - 1] = '\0';
        if (str_eq(w, key))
            return true;
    }
    return false;
}

static void drop_unlisted(const char *fields, json_object *body, bool keep_null)
{
    bool again = true, must;

    while (again) {
        again = false;
        json_object_object_foreach (body, k, v) {
            if ((!v && !keep_null) || !listed(fields, k, &must)) {
                json_object_object_del(body, k);
                again = true;
                break;
            }
        }
    }
}

static const char *missing(const char *fields, json_object *body)
{
    static char name[64];

    while (word_next(&fields, name, sizeof(name))) {
        size_t n = strlen(name);

        if (name[n - 1] != '!')
            continue;
        name[n - 1] = '\0';
        if (!json_get(body, name))
            return name;
    }
    return NULL;
}

static bool pid_to_string(json_object *body, const char *key)
{
    json_object *v = json_get(body, key);
    char text[24];

    if (!v)
        return true;
    if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0)
        return false;
    snprintf(text, sizeof(text), "%" PRId64, json_object_get_int64(v));
    json_add_str(body, key, text);
    return true;
}

const char *kind_shape(enum kind_id k, json_object *body, const struct pub *p)
{
    const struct kind *kd = &kinds[k];
    json_object *pid;
    const char *lack;

    /* An explicit null is kept only in approval requests, whose members are always all there. */
    drop_unlisted(kd->fields, body, k == KIND_HIL_REQUEST);
    if (k == KIND_ALERT)
        json_add_str(body, "source", p->name ? p->name : "");
    lack = missing(kd->fields, body);
    if (lack)
        return lack;
    pid = json_get(body, "pid");
    if (pid && !json_object_is_type(pid, json_type_int))
        return "pid";
    if (kd->by == PUB_AGENT && json_int(body, "pid", -1) != p->pid)
        return "pid";
    if (kd->flags & KF_CUT)
        cut(body);
    if (kd->flags & KF_STR && (!pid_to_string(body, "pid") || !pid_to_string(body, "parentPid")))
        return "pid";
    return NULL;
}
