#pragma once
/*
 * JSON by json-c, with the limits of the wire: nesting 64, well-formed UTF-8, no byte-order mark,
 * no duplicate member names at any depth, whole input consumed. json_check validates without a
 * tree; json_scan finds the top-level members without one.
 */
#include <json-c/json.h>

#include "common/base/buf.h"

#define JSON_DEPTH 64

/* Parses len bytes. 0 and *ret (yours: json_put), or ERR_PARSE. A JSON null gives *ret NULL and 0.
 */
int json_parse(const char *data, size_t len, json_object **ret);
/* Validates as json_parse does, without allocating for ordinary input. 0 or ERR_PARSE. */
int json_check(const char *data, size_t len);

/* The body (without quotes) of a string that is valid JSON, unescaped; out holds len bytes. Returns
 * the length. */
size_t json_unescape(const char *body, size_t len, char *out);

void json_put(json_object *o); /* json_object_put; NULL is fine */
void json_putp(json_object **o);
/* Compact text, borrowed from o until the next call on it. */
const char *json_text(json_object *o);
/* Canonical text: keys sorted, no blanks. Yours to free(). */
char *json_canonical(json_object *o);

/* One member, found by json_scan: offsets into the text. Strings keep their quotes. */
struct json_slice {
    const char *at;
    size_t len; /* 0: member absent */
};
/*
 * Validates an object's text and yields its top-level members by name without building a tree.
 * names: n names looked for; out: n slices. Other members are validated and passed over.
 * 0, ERR_PARSE, or ERR_REQUEST if the text is valid JSON but no object.
 */
int json_scan(const char *data, size_t len, const char *const *names, struct json_slice *out,
              size_t n);
/* The text of a string slice, unescaped into out (NUL-terminated); false if no string, or too long,
 * or it holds NUL. */
bool json_slice_str(struct json_slice s, char *out, size_t size);

/* Getters that never fail: a missing member or one of another type gives the default. */
const char *json_str(json_object *o, const char *key, const char *dflt); /* borrowed */
int64_t json_int(json_object *o, const char *key, int64_t dflt);
bool json_flag(json_object *o, const char *key, bool dflt);
double json_num(json_object *o, const char *key, double dflt);
json_object *json_get(json_object *o, const char *key); /* borrowed, NULL if absent or null */
json_object *json_arr(json_object *o,
                      const char *key); /* the member if it is an array, else NULL */
json_object *json_obj(json_object *o,
                      const char *key);             /* the member if it is an object, else NULL */
bool json_arr_has(json_object *arr, const char *s); /* array of strings contains s */

/* Builders. json_add* take ownership of v and never fail (allocation failure ends the process). */
json_object *json_new(void);     /* {} */
json_object *json_new_arr(void); /* [] */
void json_add(json_object *o, const char *key, json_object *v);
void json_add_str(json_object *o, const char *key, const char *s); /* NULL gives null */
void json_add_int(json_object *o, const char *key, int64_t v);
void json_add_bool(json_object *o, const char *key, bool v);
void json_add_num(json_object *o, const char *key, double v);
void json_push(json_object *arr, json_object *v);
void json_push_str(json_object *arr, const char *s);
/* Object from a format: keys and values alternate, "s" const char *, "i" int64_t, "b" int, "d"
 * double, "o" json_object * (taken; NULL gives null), end with NULL: json_make("name:s pid:i", "x",
 * (int64_t)1). */
json_object *json_make(const char *fmt, ...);
/* A double that is written as the shortest text that reads back as itself; NULL (null) if not
 * finite. userdata: NULL, or what yaml.c keeps with its values. */
json_object *json_new_double(double v, void *userdata);
/* Deep copy; yours. */
json_object *json_dup(json_object *o);
