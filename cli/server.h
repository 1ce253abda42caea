#pragma once
/* What the server commands share: finding programs, the root, and the control socket. */
#include "cli/cli.h"

/* Path of a program of the suite: beside this one, else in ../libexec/avix. 0 or -errno. */
int program_path(const char *name, char *out, size_t size);
/* --root, AVIX_ROOT, runtime_root of client.yaml, else ~/avix-data. Borrowed. */
const char *root_flag(const struct cli *c);
/* One method of init.sock; params borrowed. EX_DONE and *ret (yours), or an exit status after
 * saying why. */
int init_call(const struct cli *c, const char *method, json_object *params, int timeout_ms,
              json_object **ret);
/* Puts the names of the variables that llm.yaml refers to into AVIX_PASS_ENV, for init to hand to
 * llmsvc alone. */
void pass_env(const char *root);
