/* Groups, patterns, policies. */
#include "common/svc/toolgroup.h"

#include "common/base/toolname.h"
#include "common/svc/unit.h"

static const struct {
    const char *name, *tools;
} groups[] = {
    { "agent:spawn", "agent/spawn agent/kill agent/list agent/wait agent/send-message" },
    { "pipe:use", "pipe/open pipe/write pipe/read pipe/close" },
    { "memory:read", "memory/retrieve memory/get-fact memory/get-preferences" },
    { "memory:write",
      "memory/retrieve memory/get-fact memory/get-preferences memory/log-event memory/store-fact "
      "memory/update-preference memory/forget" },
    { "memory:share", "memory/share-request" },
    { "llm:inference",
      "llm/complete llm/stream_complete llm/status llm/models llm/providers llm/usage" },
    { "llm:image", "llm/generate-image" },
    { "llm:speech", "llm/generate-speech" },
    { "llm:transcription", "llm/transcribe" },
    { "llm:embedding", "llm/embed" },
    { "fs:read", "fs/read fs/list fs/stat fs/exists fs/glob fs/search fs/watch fs/unwatch" },
    { "fs:write",
      "fs/read fs/list fs/stat fs/exists fs/glob fs/search fs/watch fs/unwatch fs/write "
      "fs/edit fs/mkdir fs/move fs/copy fs/delete" },
    { "exec:python", "exec/python exec/runtimes" },
    { "exec:js", "exec/js exec/runtimes" },
    { "exec:shell", "exec/shell exec/runtimes" },
    { "exec:*", "exec/python exec/js exec/shell exec/runtimes exec/run" },
    { "exec:network", "exec/network" },
    { "session:read", "kernel/proc/session/list kernel/proc/session/get" },
    { "session:write", "kernel/proc/session/pause kernel/proc/session/resume "
                       "kernel/proc/session/delete" },
    { "install:agent", "kernel/proc/package/install-agent kernel/proc/package/uninstall-agent" },
    { "install:service",
      "kernel/proc/package/install-service kernel/proc/package/uninstall-service" },
    { "auth:admin", "kernel/proc/package/trust-add kernel/proc/package/trust-remove "
                    "kernel/proc/package/trust-list" },
};

/* The 32 system calls (kernel page, section 18), as domain and calls. */
static const struct {
    const char *domain, *calls;
} syscalls[] = {
    { "proc", "kernel/proc/spawn kernel/proc/kill kernel/proc/pause kernel/proc/resume "
              "kernel/proc/list kernel/proc/stat kernel/proc/wait kernel/proc/setcap" },
    { "signal", "kernel/signal/send kernel/signal/subscribe kernel/signal/unsubscribe "
                "kernel/signal/list" },
    { "ipc", "kernel/ipc/register kernel/ipc/deregister kernel/ipc/lookup kernel/ipc/list "
             "kernel/ipc/health" },
    { "cap", "kernel/cap/issue kernel/cap/validate kernel/cap/revoke kernel/cap/inspect "
             "kernel/cap/policy" },
    { "mem", "kernel/mem/mount kernel/mem/umount kernel/mem/list kernel/mem/stat kernel/mem/sync" },
    { "sys", "kernel/sys/info kernel/sys/boot-log kernel/sys/reload kernel/sys/reboot "
             "kernel/sys/shutdown" },
};

const char *tool_group(const char *name)
{
    for (size_t i = 0; i < N_ELEMS(groups); i++)
        if (str_eq(groups[i].name, name))
            return groups[i].tools;
    return NULL;
}

static void add(json_object *out, const char *pattern)
{
    if (!json_arr_has(out, pattern))
        json_push_str(out, pattern);
}

static void add_words(json_object *out, const char *list)
{
    char word[TOOL_MAX + 1];

    while (word_next(&list, word, sizeof(word)))
        add(out, word);
}

static void add_domain(json_object *out, const char *domain)
{
    for (size_t i = 0; i < N_ELEMS(syscalls); i++)
        if (!domain || str_eq(domain, syscalls[i].domain))
            add_words(out, syscalls[i].calls);
}

static void add_namespace(json_object *out, const char *ns, const char *x)
{
    char p[2 * TOOL_MAX];

    if (str_eq(ns, "kernel")) {
        add_domain(out, str_eq(x, "root") || str_eq(x, "*") ? NULL : x);
    } else if (str_eq(x, "*")) {
        snprintf(p, sizeof(p), "%s/*", ns);
        add(out, p);
        add_domain(out, ns);
    } else {
        snprintf(p, sizeof(p), "%s/%s*", ns, x);
        add(out, p);
        snprintf(p, sizeof(p), "kernel/%s/%s*", ns, x);
        add(out, p);
    }
}

void tool_patterns(const char *request, json_object *out)
{
    const char *fixed = tool_group(request), *colon = strchr(request, ':');
    char ns[TOOL_MAX + 1];
    size_t n = strlen(request);

    if (!n || n > TOOL_MAX)
        return;
    if (fixed) {
        add_words(out, fixed);
    } else if (str_eq(request, "*")) {
        add(out, "*");
    } else if (colon) {
        snprintf(ns, sizeof(ns), "%.*s", (int)(colon - request), request);
        add_namespace(out, ns, colon + 1);
    } else if (str_ends(request, "/**")) {
        snprintf(ns, sizeof(ns), "%.*s", (int)n - 1, request);
        add(out, ns);
    } else if (strchr(request, '/')) {
        add(out, request);
    } else {
        add_namespace(out, request, "*");
    }
}

bool tool_glob(const char *pattern, const char *tool)
{
    size_t n = strlen(pattern);

    if (n > 1 && pattern[n - 1] == '*' && pattern[n - 2] == '*')
        n--;
    if (n && pattern[n - 1] == '*')
        return strncmp(pattern, tool, n - 1) == 0 && (n == 1 || tool[n - 1]);
    return strcmp(pattern, tool) == 0;
}

/* Length of the longest pattern that matches, -1 if none does. A name in full counts more than any
 * pattern. */
static int longest(json_object *patterns, const char *tool)
{
    int best = -1;

    for (size_t i = 0, n = patterns ? json_object_array_length(patterns) : 0; i < n; i++) {
        const char *p = json_object_get_string(json_object_array_get_idx(patterns, i));
        int len = p ? (int)strlen(p) : -1;

        if (p && str_eq(p, tool))
            return INT32_MAX;
        if (len > best && tool_glob(p, tool))
            best = len;
    }
    return best;
}

bool policy_lists_permit(bool all, json_object *allowed, json_object *denied, const char *tool)
{
    return all || longest(allowed, tool) > longest(denied, tool);
}

bool policy_permits(json_object *policy, const char *tool)
{
    return policy_lists_permit(json_flag(policy, "all", false), json_arr(policy, "allowed"),
                               json_arr(policy, "denied"), tool);
}
