#pragma once
/*
 * A service that is none of ours: its own process, its own socket under <run>/services/<name>/, a
 * service token of its own, registered with the router. It does what its tools' names say, or what
 * a broken or hostile service would do.
 *
 * Tools of guest "echo": echo/echo, echo/slow {ms}, echo/keep {tell} (shows its
 * handle), echo/stream {n, size, gap}, echo/raw
 * {frame} (that text as the reply, $ID is the request's id), echo/close, echo/old (knows itself by
 * its name only, registered with ipc.method "gone"), echo/exit.
 */
#include "tests/rig/rig.h"

struct guest {
    char name[32];
    pid_t pid;
    int events;  /* a line per event: "gone <method>", "call <method>" */
    int control; /* lines of calls to make; closing it ends the guest */
    char sock[200];
    char *token;
};

struct guest_opts {
    const char *name;       /* NULL: "echo" */
    const char *descriptor; /* members put into every descriptor, as JSON, or NULL */
    bool no_register;       /* only listen */
};
struct guest *guest_start(struct rig *g, const struct guest_opts *o);
void guest_stop(struct guest *s); /* SIGKILL; waits */
void guest_stopp(struct guest **s);
/* Waits for the next event line (5 s at most), "" if none came. Borrowed until the next call. */
const char *guest_event(struct guest *s, int ms);
/* A call through the router with the guest's token, from the guest's process. *reply (may be NULL):
 * the result, or the error's data; yours (json_put). Returns the error. */
int guest_call(struct guest *s, const char *method, const char *params, json_object **reply);

/* A service token of unit `name` for a process. */
char *guest_token(const char *name, pid_t pid);
