#pragma once
/* A model provider double (tests/rig/provider) as a test uses it: started with a script, entered
 * into llm.yaml, its log read. */
#include "common/base/json.h"

struct rig;
struct prov {
    pid_t pid;
    int in, port;
    char dir[200], log[240];
};
/* Starts the double with this script (JSON text). Fails the test if it does not start. */
struct prov *prov_start(const char *script);
void prov_release(struct prov *p, const char *gate); /* opens a gate for good */
/* Finished and begun requests in the log. */
int prov_requests(struct prov *p);
/* The log as an array of objects; yours. */
json_object *prov_log(struct prov *p);
/* Waits until n requests were read; false on timeout. */
bool prov_wait(struct prov *p, int n);
void prov_stop(struct prov *p);
void prov_stopp(struct prov **p);
/* Writes an llm.yaml that makes the double the default text provider: kind "anthropic", "openai" or
 * "ollama", model "test-model"; and kernel.yaml's models. For rig_opts.before. */
void prov_configure(struct rig *g, const struct prov *p, const char *kind);
