#pragma once
/*
 * Event kinds as one table (kinds.def) and what the gateway does to a body before a client sees it.
 * Pure.
 */
#include "common/svc/svc.h"

enum kind_id {
#define KIND(id, ...) KIND_##id,
#include "gateway/kinds.def"
#undef KIND
    KIND_COUNT,
    KIND_NONE = -1,
};

enum {
    KF_OWN = 1U << 0,
    KF_STR = 1U << 1,
    KF_LOCAL = 1U << 2,
    KF_CHUNK = 1U << 3,
    KF_CUT = 1U << 4,
    KF_PID = 1U << 5,
};
enum publisher { PUB_GATEWAY, PUB_KERNEL, PUB_AGENT, PUB_ROUTER, PUB_ANY };

struct kind {
    const char *name;
    enum role min;
    unsigned flags;
    enum publisher by;
    const char *fields;
};
extern const struct kind kinds[KIND_COUNT];
enum kind_id kind_find(const char *name);

/* Who sent an event: a unit of ours, an agent, or an installed service. */
struct pub {
    enum unit_id unit; /* UNIT_NONE: an agent if pid > 0, else a service */
    int64_t pid;
    const char *name; /* source of an alert */
};
bool kind_allows(enum kind_id k, const struct pub *p);

#define CUT_VALUE 4096
#define CUT_TEXT  (256 * 1024)
/*
 * Brings a body (an object) into the shape of its kind: unlisted members dropped, long values cut,
 * pid as a string where clients want one. NULL, or the name of a member that is missing or wrong
 * (static).
 */
const char *kind_shape(enum kind_id k, json_object *body, const struct pub *p);
