#pragma once
/*
 * The error table of Avix (err.def): one list gives the enum, the wire names and the JSON-RPC
 * codes.
 *
 * Convention for int results everywhere: 0 is success; a negative value is -errno (something is
 * broken here: hand it up unchanged); a positive value is one of enum err (part of the contract:
 * the caller decides, and a client may see it).
 */

enum err {
    ERR_NONE = 0,
#define ERR(name, wire, code, text) ERR_##name,
#include "common/base/err.def"
#undef ERR
    ERR_COUNT
};

/* Wire name, "EPARSE" for ERR_PARSE; "EINTERNAL" for anything that is not in the table. */
const char *err_name(int err);
/* JSON-RPC code, -32603 for anything that is not in the table. */
int err_code(int err);
/* Default English text of an error. */
const char *err_text(int err);
/* First row that has this code; ERR_INTERNAL for an unknown one in the reserved range, ERR_FAILED
 * else. */
enum err err_from_code(int code);
/* Row with this wire name, ERR_NONE if there is none (NULL included). */
enum err err_from_name(const char *name);
/* Contract error for a failed system call on a file (errnum > 0), ERR_INTERNAL if it has none. */
enum err err_from_errno(int errnum);
