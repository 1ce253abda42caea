/*
 * Groups exist in manifests and policies only. A request is expanded by the first row of the table
 * that fits it; what it yields is cut down by what is registered before anything else looks at it,
 * so neither a pattern nor a group can grant a name that no tool has.
 */
#include "kernel/core/grants.h"

#include "common/base/toolname.h"
#include "common/base/util.h"
#include "common/svc/toolgroup.h"
#include "kernel/core/tools.h"

static const char *const runtime[] = {
    "llm/complete",        "llm/stream_complete",     "llm/models",         "kernel/agent/report",
    "kernel/agent/signal", "kernel/resource/request", "kernel/snap/create",
};
static const char *const present[] = { "cap/request-tool", "cap/escalate", "cap/list", "job/watch",
                                       "sys/tools" };

static int by_name(const void *a, const void *b)
{
    json_object *const *x = a, *const *y = b;
    return strcmp(json_object_get_string(*x), json_object_get_string(*y));
}

static bool arr_has_sorted(json_object *arr, const char *s)
{
    size_t lo = 0, hi = json_object_array_length(arr);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(s, json_object_get_string(json_object_array_get_idx(arr, mid)));
        if (c == 0)
            return true;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return false;
}

bool tool_always_present(const char *tool)
{
    for (size_t i = 0; i < N_ELEMS(present); i++)
        if (str_eq(present[i], tool))
            return true;
    return false;
}

json_object *grants_runtime(void)
{
    static json_object *arr;
    if (!arr) {
        arr = json_new_arr();
        for (size_t i = 0; i < N_ELEMS(runtime); i++)
            json_push_str(arr, runtime[i]);
    }
    return arr;
}

static bool grantable(const char *name)
{
    return tool_name_valid(name, strlen(name)) && !tool_always_present(name) &&
           !str_starts(name, "kernel/agent/") && !str_starts(name, "kernel/usage/") &&
           !str_eq(name, "kernel/resource/request") && !str_eq(name, "kernel/proc/view");
}

void tool_set_make(struct tool_set *t, json_object *registered)
{
    json_object *all = json_new_arr();
    size_t n = registered ? json_object_array_length(registered) : 0;
    for (size_t i = 0; i < n; i++) {
        json_object *o = json_object_array_get_idx(registered, i);
        const char *name = json_object_is_type(o, json_type_string) ? json_object_get_string(o)
                                                                    : json_str(o, "name", "");
        if (grantable(name))
            json_push_str(all, name);
    }
    for (size_t i = 0; i < agent_tools_n; i++)
        if (grantable(agent_tools[i].name))
            json_push_str(all, agent_tools[i].name);
    json_object_array_sort(all, by_name);
    t->names = json_new_arr();
    const char *last = NULL;
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(all, i));
        if (!str_eq(name, last))
            json_push_str(t->names, name);
        last = name;
    }
    json_put(all);
}

void tool_set_done(struct tool_set *t)
{
    json_putp(&t->names);
}

bool tool_set_has(const struct tool_set *t, const char *name)
{
    return arr_has_sorted(t->names, name);
}

static bool add(json_object *out, const char *name)
{
    if (!json_arr_has(out, name))
        json_push_str(out, name);
    return true;
}

static bool add_if(const struct tool_set *t, json_object *out, const char *name)
{
    return tool_set_has(t, name) && add(out, name);
}

static bool add_prefix(const struct tool_set *t, json_object *out, const char *prefix)
{
    bool any = false;
    for (size_t i = 0; i < json_object_array_length(t->names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(t->names, i));
        if (str_starts(name, prefix))
            any = add(out, name);
    }
    return any;
}

static bool add_list(const struct tool_set *t, json_object *out, const char *list)
{
    char name[TOOL_MAX + 1];
    bool any = false;
    while (*list) {
        size_t n = strcspn(list, " ");
        if (n > 0 && n < sizeof name) {
            memcpy(name, list, n);
            name[n] = '\0';
            any |= add_if(t, out, name);
        }
        list += n + (list[n] == ' ');
    }
    return any;
}

/* System calls of one domain, NULL: of all. */
static bool add_syscalls(const struct tool_set *t, json_object *out, const char *domain)
{
    bool any = false;
    for (size_t i = 0; i < syscall_names_n; i++) {
        const char *dom = syscall_names[i] + strlen("kernel/");
        size_t n = strcspn(dom, "/");
        if (!domain || (strlen(domain) == n && memcmp(dom, domain, n) == 0))
            any |= add_if(t, out, syscall_names[i]);
    }
    return any;
}

static bool expand_colon(const struct tool_set *t, const char *ns, const char *x, json_object *out)
{
    char prefix[2 * TOOL_MAX + 16];
    if (str_eq(ns, "kernel"))
        return add_syscalls(t, out, str_eq(x, "root") || str_eq(x, "*") ? NULL : x);
    if (str_eq(x, "*")) {
        snprintf(prefix, sizeof prefix, "%s/", ns);
        bool any = add_prefix(t, out, prefix);
        return add_syscalls(t, out, ns) || any;
    }
    snprintf(prefix, sizeof prefix, "%s/%s", ns, x);
    bool any = add_prefix(t, out, prefix);
    snprintf(prefix, sizeof prefix, "kernel/%s/%s", ns, x);
    return add_prefix(t, out, prefix) || any;
}

bool request_expand(const struct tool_set *t, const char *request, json_object *out)
{
    char word[TOOL_MAX + 1];
    size_t len = strlen(request);
    if (len == 0 || len > TOOL_MAX)
        return false;
    memcpy(word, request, len + 1);
    const char *fixed = tool_group(word);
    if (fixed)
        return add_list(t, out, fixed);
    char *colon = strchr(word, ':');
    if (colon) {
        *colon = '\0';
        return expand_colon(t, word, colon + 1, out);
    }
    if (str_ends(word, "/*")) {
        word[strlen(word) - 1] = '\0';
        return add_prefix(t, out, word);
    }
    if (strchr(word, '/'))
        return add_if(t, out, word);
    return expand_colon(t, word, "*", out);
}

bool policy_allows(const struct policy *p, const char *tool)
{
    return policy_lists_permit(p->all, p->allowed, p->denied, tool);
}

static void expand_all(const struct tool_set *t, json_object *requests, json_object *out,
                       json_object *unmatched)
{
    size_t n = requests ? json_object_array_length(requests) : 0;
    for (size_t i = 0; i < n; i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(requests, i));
        if (!request_expand(t, s, out) && unmatched && !tool_always_present(s))
            json_push_str(unmatched, s);
    }
}

/* exec/run comes with python, js and shell when all three are asked for one by one. */
static void join_exec(const struct tool_set *t, json_object *want)
{
    if (json_arr_has(want, "exec/python") && json_arr_has(want, "exec/js") &&
        json_arr_has(want, "exec/shell"))
        (void)add_if(t, want, "exec/run");
}

static bool within(const struct grant_input *in, const char *tool, json_object *narrow,
                   json_object *limit, json_object *removed)
{
    return policy_allows(in->policy, tool) && (!limit || json_arr_has(limit, tool)) &&
           (!in->parent || json_arr_has(in->parent, tool)) &&
           (!narrow || json_arr_has(narrow, tool)) && !json_arr_has(removed, tool);
}

void grants_compute(const struct grant_input *in, struct grant_result *out)
{
    cleanup(json_putp) json_object *want = json_new_arr(), *need = json_new_arr();
    cleanup(json_putp) json_object *removed = json_new_arr();
    cleanup(json_putp) json_object *narrow = in->narrow ? json_new_arr() : NULL;
    cleanup(json_putp) json_object *limit = in->limit ? json_new_arr() : NULL;
    out->granted = json_new_arr();
    out->denied = json_new_arr();
    out->missing = json_new_arr();
    expand_all(in->tools, in->required, need, out->missing);
    expand_all(in->tools, in->required, want, NULL);
    expand_all(in->tools, in->requested, want, NULL);
    expand_all(in->tools, in->optional, want, NULL);
    expand_all(in->tools, in->additional, want, NULL);
    join_exec(in->tools, want);
    expand_all(in->tools, in->removed, removed, NULL);
    if (narrow) {
        expand_all(in->tools, in->narrow, narrow, NULL);
        join_exec(in->tools, narrow);
    }
    if (limit)
        expand_all(in->tools, in->limit, limit, NULL);
    json_object_array_sort(want, by_name);
    for (size_t i = 0; i < json_object_array_length(want); i++) {
        const char *tool = json_object_get_string(json_object_array_get_idx(want, i));
        bool ok = within(in, tool, narrow, limit, removed);
        json_push_str(ok ? out->granted : out->denied, tool);
        if (!ok && json_arr_has(need, tool))
            json_push_str(out->missing, tool);
    }
}

void grant_result_done(struct grant_result *r)
{
    json_putp(&r->granted);
    json_putp(&r->denied);
    json_putp(&r->missing);
}
