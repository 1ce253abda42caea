#pragma once
/*
 * Secrets on disk (services page, section 9): secrets/<type>/<owner>/<name>.enc, one line of
 * AES-256-GCM under the sub-key `secret`. Values never leave but on a sealed memfd.
 */
#include "common/base/json.h"
#include "common/svc/svc.h"

#define SECRET_VALUE_MAX 65536

/* "service:llm" or "user:alice", checked; false if malformed. Parts are cut into type and name. */
bool secret_owner_parse(const char *owner, char type[8], char name[64]);
/* The line of a value; yours. key: 32 bytes. */
char *secret_seal(const uint8_t *key, const char *owner, const char *name, const void *value,
                  size_t len);
/* The value (yours, wipe it; NUL-terminated) of a line. 0, or ERR_AUTH if it is not a value of this
 * owner, name and key, ERR_PARSE if it is no such line. */
int secret_open(const uint8_t *key, const char *owner, const char *name, const char *line,
                char **ret, size_t *ret_len);
/* {name: value} of an owner; names: NULL for all, or an array. What cannot be opened is named in
 * failed. Yours; wiping is up to the caller. */
json_object *secrets_read(const uint8_t *key, const char *root, const char *owner,
                          json_object *names, json_object *failed);

void auth_secret_export(struct call *c, const struct caller *who);
