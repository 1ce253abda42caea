#pragma once
/*
 * Typed reading of a parameter object with a sticky error: read every field like a parameter list,
 * then ask once. Missing or mistyped fields give ERR_INVAL and name the field.
 *
 *   struct args a = args_open(params);
 *   int64_t pid = args_int(&a, "pid", 1, PID_MAX);
 *   const char *sig = args_str(&a, "signal", 16);
 *   if (args_bad(&a)) return call_bad_args(c, &a);
 *
 * Values are borrowed from the object. Unknown fields are ignored (the wire rule); configuration
 * readers call args_strict at the end, which refuses a key that nobody read.
 */
#include "common/base/json.h"

struct args {
    json_object *o;
    int err;        /* 0, or ERR_INVAL (sticky: the first one stays) */
    char field[64]; /* the field at fault */
    char why[128];  /* "missing", "must be a string", … */
    int line;       /* line of the field at fault, for YAML; 0 unknown */
    uint64_t seen;  /* bit per member, in order, for args_strict (first 64) */
};

struct args args_open(json_object *o); /* NULL is an empty object */
/* Required. max: bytes at most. */
const char *args_str(struct args *a, const char *key, size_t max);
int64_t args_int(struct args *a, const char *key, int64_t min, int64_t max);
json_object *args_obj(struct args *a, const char *key);
json_object *args_arr(struct args *a, const char *key);
/* Optional: absent or null gives the default; a wrong type is an error all the same. */
const char *args_str_or(struct args *a, const char *key, size_t max, const char *dflt);
int64_t args_int_or(struct args *a, const char *key, int64_t min, int64_t max, int64_t dflt);
bool args_bool_or(struct args *a, const char *key, bool dflt);
double args_num_or(struct args *a, const char *key, double min, double max, double dflt);
json_object *args_obj_or(struct args *a, const char *key); /* NULL if absent */
json_object *args_arr_or(struct args *a, const char *key); /* NULL if absent */
json_object *args_any_or(struct args *a, const char *key); /* any type, NULL if absent or null */
/* Array of strings, each at most max bytes; NULL if absent. */
json_object *args_strs_or(struct args *a, const char *key, size_t max);
/* Duration: integer seconds or "250ms", "30s", "5m", "2h". Milliseconds. */
int64_t args_ms_or(struct args *a, const char *key, int64_t min, int64_t max, int64_t dflt);
/* One of a NULL-ended list; index, or dflt if absent. */
int args_enum_or(struct args *a, const char *key, const char *const *names, int dflt);
/* Marks a field wrong by a rule of the caller's own. */
void args_fail(struct args *a, const char *key, const char *why);
/* True once any read failed. */
bool args_bad(const struct args *a);
/* An unread key becomes the error. Returns args_bad. */
bool args_strict(struct args *a);
