/*
 * kernel.yaml from one table: a row per key with type, place, default, range or words. Every leaf
 * of the file is looked up in the table, so a key that has no row is an error which names it; then
 * every row fills in its field. Rows without a field are checked and have no effect here.
 */
#include "common/svc/config.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/util.h"

enum type { T_INT, T_BOOL, T_NUM, T_WORD, T_STR, T_ARR, T_OBJ, T_WORDBOOL, T_SECS, T_LEGACY };

struct row {
    const char *key; /* dotted, below spec */
    enum type type;
    int off;  /* in kernel_config, -1: checked only */
    int size; /* of a text field */
    const char *dflt, *words;
    int64_t min, max;
};

#define AT(f)   (int)offsetof(struct kernel_config, f)
#define TEXT(f) AT(f), (int)sizeof(((struct kernel_config *)NULL)->f)
#define INT(k, f, d, lo, hi)                \
    {                                       \
        k, T_INT, AT(f), 0, d, NULL, lo, hi \
    }
#define BOOL(k, f, d)                      \
    {                                      \
        k, T_BOOL, AT(f), 0, d, NULL, 0, 0 \
    }
#define WORD(k, f, d, words)               \
    {                                      \
        k, T_WORD, TEXT(f), d, words, 0, 0 \
    }
#define STR(k, f, d)                     \
    {                                    \
        k, T_STR, TEXT(f), d, NULL, 0, 0 \
    }
#define ARR(k, f)                            \
    {                                        \
        k, T_ARR, AT(f), 0, NULL, NULL, 0, 0 \
    }
#define CHECK(k, t, words, lo, hi)       \
    {                                    \
        k, t, -1, 0, NULL, words, lo, hi \
    }
#define LEGACY(k)                            \
    {                                        \
        k, T_LEGACY, -1, 0, NULL, NULL, 0, 0 \
    }
#define BIG 2147483647

static const struct row rows[] = {
    CHECK("scheduler.algorithm", T_WORD, "priority_deadline round_robin fifo", 0, 0),
    CHECK("scheduler.tickMs", T_INT, NULL, 1, BIG),
    CHECK("scheduler.preemption", T_BOOL, NULL, 0, 0),
    INT("scheduler.maxConcurrentAgents", max_concurrent_agents, "50", 1, 100000),
    INT("scheduler.hibernateAfterSec", hibernate_after_sec, "300", 0, BIG),
    INT("scheduler.archiveAfterDays", archive_after_days, "90", 0, BIG),

    INT("agents.memoryMaxMiB", memory_max_mib, "256", 32, 1048576),
    INT("agents.openFiles", open_files, "64", 16, 65536),
    INT("agents.cpuSec", cpu_sec, "0", 0, BIG),
    INT("agents.stopGraceSec", stop_grace_sec, "10", 0, 3600),
    INT("agents.readyTimeoutSec", ready_timeout_sec, "5", 1, 600),
    INT("agents.maxRestarts", max_restarts, "3", 0, 1000),
    WORD("agents.seccomp", seccomp, "enforce", "enforce log off"),
    WORD("agents.jail", jail, "auto", "auto require off"),

    WORD("isolation.uids", uids, "auto", "auto require off"),
    WORD("isolation.services", services, "enforce", "enforce off"),
    CHECK("isolation.privateTargets", T_ARR, NULL, 0, 0),
    CHECK("isolation.syscallServices", T_ARR, NULL, 0, 0),

    INT("memory.defaultContextLimit", default_context_limit, "200000", 1000, BIG),
    CHECK("memory.episodic.maxRetentionDays", T_INT, NULL, 0, BIG),
    CHECK("memory.episodic.maxRecordsPerAgent", T_INT, NULL, 0, BIG),
    CHECK("memory.semantic.maxFactsPerAgent", T_INT, NULL, 0, BIG),
    CHECK("memory.retrieval.defaultLimit", T_INT, NULL, 1, BIG),
    CHECK("memory.retrieval.maxLimit", T_INT, NULL, 1, BIG),
    CHECK("memory.retrieval.candidateFetchK", T_INT, NULL, 1, BIG),
    CHECK("memory.retrieval.rrfK", T_INT, NULL, 1, BIG),
    CHECK("memory.spawn.episodicContextRecords", T_INT, NULL, 0, BIG),
    CHECK("memory.spawn.preferencesEnabled", T_BOOL, NULL, 0, 0),
    CHECK("memory.spawn.pinnedFactsEnabled", T_BOOL, NULL, 0, 0),
    CHECK("memory.sharing.enabled", T_BOOL, NULL, 0, 0),
    CHECK("memory.sharing.hilTimeoutSec", T_INT, NULL, 1, BIG),
    CHECK("memory.sharing.crossUserEnabled", T_BOOL, NULL, 0, 0),
    LEGACY("memory.evictionPolicy"),
    LEGACY("memory.maxEpisodicRetentionDays"),
    LEGACY("memory.sharedMemoryPath"),

    CHECK("ipc.transport", T_WORD, "local-ipc unix-socket", 0, 0),
    CHECK("ipc.socketName", T_STR, NULL, 0, 0),
    CHECK("ipc.timeoutMs", T_INT, NULL, 1, BIG),
    INT("ipc.maxMessageBytes", max_message_bytes, "16777216", 1, BIG),
    CHECK("ipc.maxLargeMessageBytes", T_INT, NULL, 1, BIG),
    INT("ipc.perCaller.agent", per_caller_agent, "32", 1, 4096),
    INT("ipc.perCaller.service", per_caller_service, "128", 1, 4096),
    INT("ipc.perCaller.user", per_caller_user, "64", 1, 4096),
    STR("ipc.socketGroup", socket_group, ""),
    LEGACY("ipc.socketPath"),
    LEGACY("ipc.runtime_dir"),

    WORD("gateway.mode", mode, "cli", "cli gui headless"),
    STR("gateway.bind", bind, ""),
    INT("gateway.port", port, "9142", 0, 65535),
    STR("gateway.admin_addr", admin_addr, "127.0.0.1:7701"),
    WORD("gateway.tls.mode", tls_mode, "", "off self-signed files proxy"),
    WORD("gateway.tls.min_version", tls_min, "1.3", "1.2 1.3"),
    STR("gateway.tls.cert_path", tls_cert, ""),
    STR("gateway.tls.key_path", tls_key, ""),
    BOOL("gateway.tls.allow_plain", tls_allow_plain, "false"),
    ARR("gateway.allowed_hosts", allowed_hosts),
    ARR("gateway.allowed_origins", allowed_origins),
    ARR("gateway.trusted_proxies", trusted_proxies),
    BOOL("gateway.web.enabled", web_enabled, "true"),
    STR("gateway.web.root", web_root, ""),

    { "safety.policyEngine", T_WORDBOOL, AT(policy_engine), 0, "enabled", "disabled enabled", 0,
      0 },
    BOOL("safety.hilOnEscalation", hil_on_escalation, "true"),
    INT("safety.maxToolChainLength", max_tool_chain, "10", 1, BIG),
    ARR("safety.blockedToolChains", blocked_tool_chains),
    ARR("safety.hilRequiredTools", hil_required_tools),
    BOOL("safety.capUpgradeRequiresHil", cap_upgrade_hil, "true"),
    INT("safety.hilTimeoutSec", hil_timeout_sec, "600", 1, BIG),
    { "safety.hil_timeout", T_SECS, AT(hil_timeout_sec), 0, NULL, NULL, 1, BIG },
    WORD("safety.taintPolicy", taint_policy, "mark", "mark off gate"),

    STR("models.default", model_default, "claude-sonnet-4"),
    STR("models.kernel", model_kernel, "claude-opus-4"),
    STR("models.fallback", model_fallback, "claude-haiku-4"),
    { "models.temperature", T_NUM, AT(temperature), 0, "0.7", NULL, 0, 2 },

    WORD("observability.logLevel", log_level, "info", "info debug warn error"),
    CHECK("observability.logPath", T_STR, NULL, 0, 0),
    BOOL("observability.metricsEnabled", metrics_enabled, "true"),
    CHECK("observability.metricsPath", T_STR, NULL, 0, 0),
    BOOL("observability.traceEnabled", trace_enabled, "false"),
    CHECK("observability.tracePath", T_STR, NULL, 0, 0),

    CHECK("secrets.algorithm", T_WORD, "aes-256-gcm", 0, 0),
    WORD("secrets.masterKey.source", master_source, "env",
         "env key-file secret-file passphrase kms-aws kms-gcp kms-azure kms-vault"),
    STR("secrets.masterKey.envVar", master_env, "AVIX_MASTER_KEY"),
    STR("secrets.masterKey.keyFile", master_file, ""),
    CHECK("secrets.masterKey.kdfMemoryMb", T_INT, NULL, 8, 4096),
    CHECK("secrets.masterKey.kdfIterations", T_INT, NULL, 1, 100),
    CHECK("secrets.masterKey.keyId", T_STR, NULL, 0, 0),
    CHECK("secrets.masterKey.encryptedDataKey", T_STR, NULL, 0, 0),
    CHECK("secrets.masterKey.helper", T_ARR, NULL, 0, 0),
    CHECK("secrets.masterKey.helperEnv", T_ARR, NULL, 0, 0),
    CHECK("secrets.masterKey.config", T_OBJ, NULL, 0, 0),
    CHECK("secrets.store.path", T_STR, NULL, 0, 0),
    CHECK("secrets.store.provider", T_WORD, "local", 0, 0),
    CHECK("secrets.audit.enabled", T_BOOL, NULL, 0, 0),
    CHECK("secrets.audit.logPath", T_STR, NULL, 0, 0),
    CHECK("secrets.audit.logReads", T_BOOL, NULL, 0, 0),
    CHECK("secrets.audit.logWrites", T_BOOL, NULL, 0, 0),
    WORD("secrets.serviceGet", service_get, "own", "own off user"),
    LEGACY("secrets.signingKey"),
};

static int bad(struct yaml_err *e, int line, const char *fmt, ...) printf_like(3, 4);
static int bad(struct yaml_err *e, int line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    e->line = line;
    return ERR_CONFIG;
}

/* Position of a word in a blank-separated list, -1 if it is not there. */
static int word_index(const char *words, const char *w)
{
    size_t len = strlen(w);
    int i = 0;

    for (const char *p = words; *p; i++) {
        size_t n = strcspn(p, " ");

        if (n == len && memcmp(p, w, n) == 0)
            return i;
        p += n;
        p += strspn(p, " ");
    }
    return -1;
}

static void *field(struct kernel_config *c, const struct row *r)
{
    return (char *)c + r->off;
}

static int set_int(struct kernel_config *c, const struct row *r, int64_t v, int line,
                   struct yaml_err *e)
{
    if (v < r->min || v > r->max)
        return bad(e, line, "spec.%s: %lld is not within %lld..%lld", r->key, (long long)v,
                   (long long)r->min, (long long)r->max);
    if (r->off >= 0)
        *(int *)field(c, r) = (int)v;
    return 0;
}

static int set_num(struct kernel_config *c, const struct row *r, double v, int line,
                   struct yaml_err *e)
{
    if (!(v >= (double)r->min && v <= (double)r->max))
        return bad(e, line, "spec.%s: not within %lld..%lld", r->key, (long long)r->min,
                   (long long)r->max);
    *(double *)field(c, r) = v;
    return 0;
}

static int set_text(struct kernel_config *c, const struct row *r, const char *v, int line,
                    struct yaml_err *e)
{
    int i = r->words && *v ? word_index(r->words, v) : 0;

    if (i < 0)
        return bad(e, line, "spec.%s: '%s' is none of: %s", r->key, v, r->words);
    if (r->type == T_WORDBOOL)
        *(bool *)field(c, r) = i > 0;
    else if (r->off >= 0 && !str_copy(field(c, r), (size_t)r->size, v))
        return bad(e, line, "spec.%s: longer than %d bytes", r->key, r->size - 1);
    return 0;
}

static int set_secs(struct kernel_config *c, const struct row *r, json_object *v,
                    struct yaml_err *e)
{
    int64_t ms;
    const char *text = json_object_get_string(v);

    if (!text || !parse_duration_ms(text, &ms))
        return bad(e, yaml_line(v), "spec.%s: no duration", r->key);
    return set_int(c, r, ms / 1000, yaml_line(v), e);
}

static int set_legacy(struct kernel_config *c, const struct row *r)
{
    size_t n = strlen(c->legacy);

    snprintf(c->legacy + n, sizeof(c->legacy) - n, "%s%s", n ? " " : "", r->key);
    return 0;
}

static int set_value(struct kernel_config *c, const struct row *r, json_object *v,
                     struct yaml_err *e)
{
    static const struct {
        json_type json;
        const char *name;
    } want[] = {
        [T_INT] = { json_type_int, "an integer" },
        [T_BOOL] = { json_type_boolean, "a boolean" },
        [T_NUM] = { json_type_double, "a number" },
        [T_WORD] = { json_type_string, "a string" },
        [T_STR] = { json_type_string, "a string" },
        [T_ARR] = { json_type_array, "a list" },
        [T_OBJ] = { json_type_object, "a mapping" },
        [T_WORDBOOL] = { json_type_string, "a string" },
        [T_SECS] = { json_type_string, "a duration" },
        [T_LEGACY] = { json_type_null, "" },
    };
    int line = yaml_line(v);
    json_type have = json_object_get_type(v);

    if (r->type == T_LEGACY)
        return set_legacy(c, r);
    if (r->type == T_SECS)
        return set_secs(c, r, v, e);
    if (r->type == T_NUM && have == json_type_int)
        have = json_type_double;
    /* tls.min_version: 1.3 without quotes is a number in YAML */
    if (r->type == T_WORD && have == json_type_double)
        have = json_type_string;
    if (have != want[r->type].json)
        return bad(e, line, "spec.%s: must be %s", r->key, want[r->type].name);
    switch (r->type) {
    case T_INT:
        return set_int(c, r, json_object_get_int64(v), line, e);
    case T_BOOL:
        if (r->off >= 0)
            *(bool *)field(c, r) = json_object_get_boolean(v);
        return 0;
    case T_NUM:
        return set_num(c, r, json_object_get_double(v), line, e);
    case T_ARR:
    case T_OBJ:
        if (r->off >= 0)
            *(json_object **)field(c, r) = v;
        return 0;
    case T_WORD:
    case T_WORDBOOL:
    case T_STR:
    case T_SECS:
    case T_LEGACY:
        break;
    }
    const char *text = json_object_get_string(v);

    if (r->type == T_WORD && !*text)
        return bad(e, line, "spec.%s: is empty", r->key);
    return set_text(c, r, text, line, e);
}

static int set_default(struct kernel_config *c, const struct row *r, struct yaml_err *e)
{
    int64_t n = 0;

    if (!r->dflt)
        return 0;
    switch (r->type) {
    case T_INT:
        parse_i64(r->dflt, r->min, r->max, &n);
        return set_int(c, r, n, 0, e);
    case T_BOOL:
        *(bool *)field(c, r) = *r->dflt == 't';
        return 0;
    case T_NUM:
        return set_num(c, r, strtod(r->dflt, NULL), 0, e);
    case T_WORD:
    case T_WORDBOOL:
    case T_STR:
    case T_ARR:
    case T_OBJ:
    case T_SECS:
    case T_LEGACY:
        break;
    }
    return set_text(c, r, r->dflt, 0, e);
}

static const struct row *row_find(const char *key)
{
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (str_eq(rows[i].key, key))
            return &rows[i];
    return NULL;
}

static bool is_section(const char *key)
{
    size_t n = strlen(key);

    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (strncmp(rows[i].key, key, n) == 0 && rows[i].key[n] == '.')
            return true;
    return false;
}

/* Every leaf below o goes to its row. prefix: "" or "ipc." */
static int read_section(struct kernel_config *c, json_object *o, const char *prefix,
                        struct yaml_err *e)
{
    json_object_object_foreach (o, name, v) {
        char key[128], below[130];
        int line = v ? yaml_line(v) : yaml_line(o), r = 0;

        if (snprintf(key, sizeof(key), "%s%s", prefix, name) >= (int)sizeof(key))
            return bad(e, line, "spec.%.64s…: unknown key", prefix);
        const struct row *row = row_find(key);

        if (!row && !is_section(key))
            return bad(e, line, "spec.%s: unknown key", key);
        if (!v) /* "key:" with nothing behind: the default stands */
            continue;
        if (row) {
            r = set_value(c, row, v, e);
        } else if (json_object_is_type(v, json_type_object)) {
            snprintf(below, sizeof(below), "%s.", key);
            r = read_section(c, v, below, e);
        } else {
            r = bad(e, line, "spec.%s: must be a mapping", key);
        }
        if (r)
            return r;
    }
    return 0;
}

static bool is_loopback(const char *bind)
{
    return str_eq(bind, "localhost") || str_eq(bind, "::1") || str_starts(bind, "127.");
}

/* Defaults that depend on other keys, and rules between keys. */
static int settle(struct kernel_config *c, json_object *spec, struct yaml_err *e)
{
    json_object *ipc = json_obj(spec, "ipc");
    int64_t large = json_int(ipc, "maxLargeMessageBytes", 0), top = c->max_message_bytes;

    if (large > top || (large && !json_get(ipc, "maxMessageBytes")))
        top = large;
    c->max_message_bytes = top < 1048576 ? 1048576 : top > 16777216 ? 16777216 : (int)top;
    if (!c->bind[0])
        str_copy(c->bind, sizeof(c->bind), str_eq(c->mode, "headless") ? "0.0.0.0" : "localhost");
    if (!c->tls_mode[0])
        str_copy(c->tls_mode, sizeof(c->tls_mode), is_loopback(c->bind) ? "off" : "self-signed");
    if (str_eq(c->socket_group, "none"))
        c->socket_group[0] = '\0';
    if (str_eq(c->tls_mode, "files") && (!c->tls_cert[0] || !c->tls_key[0]))
        return bad(e, yaml_line(json_obj(spec, "gateway")),
                   "spec.gateway.tls: mode files needs cert_path and key_path");
    if (str_eq(c->tls_mode, "off") && !c->tls_allow_plain && !is_loopback(c->bind))
        return bad(e, yaml_line(json_obj(spec, "gateway")),
                   "spec.gateway.tls: mode off with bind %s needs allow_plain: true", c->bind);
    c->master = json_obj(json_obj(spec, "secrets"), "masterKey");
    return 0;
}

json_object *config_spec(json_object *doc, const char *kind, struct yaml_err *e)
{
    const char *have = json_str(doc, "kind", "");
    json_object *spec = json_obj(doc, "spec");

    if (!json_object_is_type(doc, json_type_object)) {
        bad(e, 1, "must be a mapping with apiVersion, kind and spec");
        return NULL;
    }
    json_object_object_foreach (doc, name, v) {
        if (!str_eq(name, "apiVersion") && !str_eq(name, "kind") && !str_eq(name, "metadata") &&
            !str_eq(name, "spec")) {
            bad(e, v ? yaml_line(v) : 1, "%.100s: unknown key", name);
            return NULL;
        }
    }
    if (!str_eq(json_str(doc, "apiVersion", ""), "avix/v1"))
        bad(e, 1, "apiVersion must be avix/v1");
    else if (!str_eq(have, kind))
        bad(e, 1, "kind must be %s, is '%.64s'", kind, have);
    else if (!spec)
        bad(e, 1, "spec is missing");
    else
        return spec;
    return NULL;
}

/* root is taken. */
static int config_read(json_object *root, struct kernel_config **ret, struct yaml_err *e)
{
    struct kernel_config *c = xcalloc(1, sizeof(*c));
    int r = 0;

    c->root = root;
    json_object *spec = config_spec(root, "KernelConfig", e);

    if (!spec)
        r = ERR_CONFIG;
    for (size_t i = 0; !r && i < N_ELEMS(rows); i++)
        r = set_default(c, &rows[i], e);
    if (!r)
        r = read_section(c, spec, "", e);
    if (!r)
        r = settle(c, spec, e);
    if (r) {
        kernel_config_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

int kernel_config_parse(const char *text, size_t len, struct kernel_config **ret,
                        struct yaml_err *e)
{
    json_object *root = NULL;

    *e = (struct yaml_err){ .line = 0 };
    int r = yaml_parse(text, len, &root, e);

    return r ? r : config_read(root, ret, e);
}

int kernel_config_load(const char *root, struct kernel_config **ret, struct yaml_err *e)
{
    char path[512];
    json_object *doc = NULL;

    *e = (struct yaml_err){ .line = 0 };
    int r = path_fmt(path, sizeof(path), "%s/etc/kernel.yaml", root);

    if (!r)
        r = yaml_load(path, &doc, e);
    return r ? r : config_read(doc, ret, e);
}

void kernel_config_free(struct kernel_config *c)
{
    if (!c)
        return;
    json_put(c->root);
    free(c);
}
