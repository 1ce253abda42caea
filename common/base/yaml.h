#pragma once
/*
 * YAML by libyaml into json-c values. Limits: 1 MiB, nesting 32, 100,000 nodes; no aliases, no
 * tags, one document, no duplicate keys. Plain scalars follow the JSON schema of YAML 1.2 (null
 * true false int float), everything else is a string. Every value but null remembers its line.
 */
#include "common/base/json.h"

#define YAML_MAX (1024 * 1024)

/* Where and why a file is wrong. */
struct yaml_err {
    int line; /* from 1; 0: the file as a whole */
    char msg[384];
};

/* 0 and *ret (yours), ERR_CONFIG with *e filled in, or -errno if the file cannot be read. */
int yaml_load(const char *path, json_object **ret, struct yaml_err *e);
int yaml_parse(const char *text, size_t len, json_object **ret, struct yaml_err *e);
/* Line of a value, 0 if unknown. */
int yaml_line(json_object *o);
/* Block-style YAML text of a value, keys in order, ended by a newline. Yours to free(). */
char *yaml_dump(json_object *o);
