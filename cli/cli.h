#pragma once
/*
 * The command line: one table of commands (commands.def), one parser, one way to print and to fail.
 * A command is a function that returns an exit status; everything it needs is in struct cli.
 */
#include <stdio.h>

#include "common/base/json.h"
#include "common/base/util.h"

/* Exit codes of every command (clients page, section 3). */
enum exit_code {
    EX_DONE = 0,
    EX_LOCAL = 1,
    EX_USE = 2,
    EX_CONNECT = 3,
    EX_AUTH = 4,
    EX_PERM = 5,
    EX_NOTFOUND = 6,
    EX_CONFLICT = 7,
    EX_LIMIT = 8,
    EX_UNAVAIL = 9,
    EX_PARSE = 10,
    EX_INTERNAL = 11,
    EX_LOST = 12,
    EX_AGENT_FAILED = 20,
    EX_AGENT_KILLED = 21,
    EX_DENIED = 22,
    EX_TURN_LIMIT = 23,
    EX_TIME_LIMIT = 24,
    EX_INTERRUPT = 130,
    EX_PIPE = 141,
};

#define CLI_ARGS_MAX  32
#define CLI_FLAGS_MAX 32

struct cli;
struct command {
    const char *path;  /* "client agent spawn" */
    const char *args;  /* positional words for help: "NAME", "PID…", "[KIND…]"; "" none */
    const char *flags; /* "goal=TEXT follow": blank-separated, '=' takes a value */
    const char *help;
    int (*fn)(struct cli *c);
};
extern const struct command commands[];
extern const size_t n_commands;

struct cli {
    const struct command *cmd;
    const char *argv0;
    const char *args[CLI_ARGS_MAX + 1];
    size_t n_args;
    struct {
        const char *name, *value; /* value "" for a switch */
    } flags[CLI_FLAGS_MAX];
    size_t n_flags;
    bool json, quiet, wide, no_header, color;
    json_object *config; /* client.yaml, NULL if there is none */
};

/* Parses the command line into c; 0, or an exit status after saying what is wrong (or help: EX_DONE
 * with c->cmd NULL). */
int cli_parse(struct cli *c, int argc, char **argv);
int cli_help(const char *prefix, FILE *out); /* help for all commands that begin with prefix */
/* Value of a flag, NULL if it was not given. */
const char *cli_flag(const struct cli *c, const char *name);
bool cli_has(const struct cli *c, const char *name);
/* Flag, environment variables (NULL-ended list may be ""), profile, top level of client.yaml,
 * default. */
const char *cli_setting(const struct cli *c, const char *flag, const char *env, const char *env2,
                        const char *key, const char *dflt);

/* Says "avix: what: why" (and a hint) on stderr, or one JSON error line with --json; returns exit.
 */
int cli_fail(const struct cli *c, int exit, const char *code, const char *hint, const char *fmt,
             ...) printf_like(5, 6);
/* The exit status for an ATP error code. */
int exit_of_code(const char *code);

/* Prints text of foreign origin: control, bidirectional and invisible characters as \xNN or
 * \u{NNNN}; keeps newlines and tabs if multi. */
void print_safe(FILE *f, const char *s, size_t len, bool multi);
/* One JSON document and a newline on stdout. */
void print_json(json_object *o);

/* Tables. */
struct column {
    const char *title;
    bool right; /* numbers */
};
struct table {
    const struct column *cols;
    size_t n_cols, n_rows, cap;
    char **cells; /* owned, row after row */
};
void table_init(struct table *t, const struct column *cols, size_t n_cols);
/* The next row: n_cols texts, copied. NULL is "". */
void table_row(struct table *t, const char *const *cells);
void table_print(const struct cli *c, struct table *t, const char *if_empty);
void table_done(struct table *t);
/* "3m ago" on a terminal, RFC 3339 elsewhere. Borrowed from out. */
const char *when_text(const char *rfc, char *out, size_t size);
/* The first 8 characters of an id on a terminal, all of it elsewhere. */
const char *id_text(const char *id, char *out, size_t size);
/* 1234567 as "1,234,567". */
const char *num_text(int64_t n, char *out, size_t size);
/* Asks a yes/no question on the terminal; EX_USE semantics are the caller's: -1 if there is no
 * terminal. */
int ask_yes(const char *question);
/* Prints an object as "key: value" lines. */
void print_fields(json_object *o);

/* Commands, one per row of commands.def. */
#define CMD(path, args, flags, help, fn) int fn(struct cli *c);
#include "cli/commands.def"
#undef CMD
