#pragma once
/* What the client commands share. */
#include "cli/client/atp.h"

/* One command on a connection of its own. body taken; *ret yours. Exit status. */
int simple(struct cli *c, const char *domain, const char *op, json_object *body, json_object **ret);
/* Prints o (taken) as JSON or as "key: value" lines if exit is EX_DONE; returns exit. */
int show(struct cli *c, json_object *o, int exit);
/* A pid argument; *exit set and said if it is none. */
int64_t arg_pid(struct cli *c, const char *s, int *exit);
/* A text argument: itself, "-" (stdin) or "@file". Yours; NULL after saying why. */
char *text_arg(struct cli *c, const char *v, size_t max, int *exit);
void add_flag_str(json_object *o, const struct cli *c, const char *flag, const char *key);
void add_flag_list(json_object *o, const struct cli *c, const char *flag,
                   const char *key); /* comma-separated */
/* The whole id for a unique prefix of at least 6 characters, looked up in the rows of domain.op;
 * yours. NULL after saying why. */
char *full_id(struct cli *c, struct atp *a, const char *op, const char *prefix, const char *what,
              int *exit);
