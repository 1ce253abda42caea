#pragma once
/* The unit table (units.def) as data, and the sub-keys. */
#include "common/base/util.h"

/* What a unit gives up when it starts (security page, section 1); enforced by sandbox_enter. */
enum {
    SBX_NO_NET = 1U << 0,  /* sockets of the unix family only */
    SBX_NO_EXEC = 1U << 1, /* no execve, no fork of other programs */
    SBX_NEVER = 1U << 2, /* only what no unit ever needs; for execsvc, whose children inherit it */
};

enum unit_id {
#define UNIT(id, ...) UNIT_##id,
#include "common/svc/units.def"
#undef UNIT
    UNIT_COUNT,
    UNIT_INIT = 100, /* not a row: the supervisor itself */
    UNIT_NONE = -1,
};

struct unit_row {
    const char *name;
    int pid; /* Avix pid */
    const char *program, *socket, *needs;
    bool required;
    const char *keys;
    unsigned max_concurrent, queue, queue_timeout_ms, sandbox;
    const char *ns, *grants;
};
extern const struct unit_row unit_rows[UNIT_COUNT];
/* By name, with or without ".svc", aliases auth llm exec mcp-bridge; UNIT_NONE. */
enum unit_id unit_by_name(const char *name);
/* Walks a blank-separated list ("router memfs"): pos starts at the list, word gets each name. */
bool word_next(const char **pos, char *word, size_t size);

enum key_id { KEY_CAP, KEY_ATP, KEY_SVC, KEY_CRED, KEY_SECRET, KEY_KERN, KEY_AUDIT, KEY_COUNT };
#define KEY_LEN 32
extern const char *const key_names[KEY_COUNT]; /* "cap" … : also the HKDF info */
/* A keys memfd is a row of these. */
struct key_record {
    char name[8];
    uint8_t key[KEY_LEN];
};
#define SIGNAL_KEY_LEN 43 /* base64url of 32 bytes, an agent's signal key */
