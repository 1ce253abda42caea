/*
 * units.def expanded into data. Names of units are accepted as people write them: with ".svc"
 * behind, and by the short names that manifests use.
 */
#include "common/svc/unit.h"

const struct unit_row unit_rows[UNIT_COUNT] = {
#define UNIT(id, name_, pid_, program_, socket_, needs_, required_, keys_, max_, queue_, timeout_, \
             sandbox_, ns_, grants_)                                                               \
    [UNIT_##id] = { .name = (name_),                                                               \
                    .pid = (pid_),                                                                 \
                    .program = (program_),                                                         \
                    .socket = (socket_),                                                           \
                    .needs = (needs_),                                                             \
                    .required = (required_),                                                       \
                    .keys = (keys_),                                                               \
                    .max_concurrent = (max_),                                                      \
                    .queue = (queue_),                                                             \
                    .queue_timeout_ms = (timeout_),                                                \
                    .sandbox = (sandbox_),                                                         \
                    .ns = (ns_),                                                                   \
                    .grants = (grants_) },
#include "common/svc/units.def"
#undef UNIT
};

const char *const key_names[KEY_COUNT] = {
    [KEY_CAP] = "cap",       [KEY_ATP] = "atp",   [KEY_SVC] = "svc",     [KEY_CRED] = "cred",
    [KEY_SECRET] = "secret", [KEY_KERN] = "kern", [KEY_AUDIT] = "audit",
};

static const struct {
    const char *alias, *name;
} aliases[] = {
    { "auth", "authsvc" },
    { "llm", "llmsvc" },
    { "exec", "execsvc" },
    { "mcp-bridge", "mcpbridge" },
};

enum unit_id unit_by_name(const char *name)
{
    if (!name)
        return UNIT_NONE;
    size_t len = strlen(name);

    if (len > 4 && str_eq(name + len - 4, ".svc"))
        len -= 4;
    for (size_t i = 0; i < N_ELEMS(aliases); i++) {
        if (strlen(aliases[i].alias) == len && memcmp(aliases[i].alias, name, len) == 0) {
            name = aliases[i].name;
            len = strlen(name);
            break;
        }
    }
    for (int i = 0; i < UNIT_COUNT; i++)
        if (strlen(unit_rows[i].name) == len && memcmp(unit_rows[i].name, name, len) == 0)
            return (enum unit_id)i;
    return UNIT_NONE;
}

bool word_next(const char **pos, char *word, size_t size)
{
    const char *p = *pos;

    while (*p == ' ')
        p++;
    if (!*p) {
        *pos = p;
        return false;
    }
    size_t n = strcspn(p, " ");

    *pos = p + n;
    if (n >= size)
        n = size - 1;
    memcpy(word, p, n);
    word[n] = '\0';
    return true;
}
