/*
 * A call that cannot succeed is answered here, with a sentence the model can act on, and costs no
 * round trip. The owner checks again: this is help, not protection. Depth is bounded, schemas come
 * from third parties.
 */
#include "kernel/agent/validate.h"

#include <stdarg.h>
#include <stdio.h>

#define DEPTH_MAX 32
#define PATH_MAX_ 256

struct ctx {
    char path[PATH_MAX_];
    char *why;
    size_t size;
    unsigned depth;
};

static bool fits(struct ctx *x, json_object *schema, json_object *v);

static bool wrong(struct ctx *x, const char *fmt, ...) printf_like(2, 3);
static bool wrong(struct ctx *x, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(x->why, x->size, "%s: %s", *x->path ? x->path : "arguments", text);
    return false;
}

static bool is_integer(json_object *v)
{
    double d = json_object_get_double(v);

    return json_object_is_type(v, json_type_int) ||
           (json_object_is_type(v, json_type_double) && d > -9e15 && d < 9e15 &&
            d == (double)(int64_t)d);
}

static bool is_type(json_object *v, const char *type)
{
    if (str_eq(type, "object"))
        return json_object_is_type(v, json_type_object);
    if (str_eq(type, "array"))
        return json_object_is_type(v, json_type_array);
    if (str_eq(type, "string"))
        return json_object_is_type(v, json_type_string);
    if (str_eq(type, "boolean") || str_eq(type, "bool"))
        return json_object_is_type(v, json_type_boolean);
    if (str_eq(type, "null"))
        return !v;
    if (str_eq(type, "integer") || str_eq(type, "int"))
        return is_integer(v);
    if (str_eq(type, "number") || str_eq(type, "float"))
        return json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double);
    return true; /* a type we do not know is the owner's to judge */
}

static bool type_fits(struct ctx *x, json_object *type, json_object *v)
{
    if (json_object_is_type(type, json_type_string)) {
        const char *t = json_object_get_string(type);
        return is_type(v, t) || wrong(x, "must be of type %s", t);
    }
    if (!json_object_is_type(type, json_type_array))
        return true;
    for (size_t i = 0; i < json_object_array_length(type); i++)
        if (is_type(v, json_object_get_string(json_object_array_get_idx(type, i))))
            return true;
    return wrong(x, "must be of one of the types %s", json_text(type));
}

static bool same(json_object *a, json_object *b)
{
    if (is_type(a, "number") && is_type(b, "number"))
        return json_object_get_double(a) == json_object_get_double(b);
    return json_object_equal(a, b) != 0;
}

static bool values_fit(struct ctx *x, json_object *schema, json_object *v)
{
    json_object *any = json_arr(schema, "enum"), *one = NULL;

    if (any) {
        bool found = false;
        for (size_t i = 0; !found && i < json_object_array_length(any); i++)
            found = same(json_object_array_get_idx(any, i), v);
        if (!found)
            return wrong(x, "must be one of %s", json_text(any));
    }
    if (json_object_object_get_ex(schema, "const", &one) && !same(one, v))
        return wrong(x, "must be %s", json_object_to_json_string(one));
    return true;
}

static bool number_fits(struct ctx *x, json_object *schema, json_object *v)
{
    double d = json_object_get_double(v);
    json_object *b;

    if ((b = json_get(schema, "minimum")) && d < json_object_get_double(b))
        return wrong(x, "must be at least %s", json_text(b));
    if ((b = json_get(schema, "maximum")) && d > json_object_get_double(b))
        return wrong(x, "must be at most %s", json_text(b));
    b = json_get(schema, "exclusiveMinimum");
    if (is_type(b, "number") && d <= json_object_get_double(b))
        return wrong(x, "must be more than %s", json_text(b));
    b = json_get(schema, "exclusiveMaximum");
    if (is_type(b, "number") && d >= json_object_get_double(b))
        return wrong(x, "must be less than %s", json_text(b));
    return true;
}

static bool count_fits(struct ctx *x, json_object *schema, size_t n, const char *lo, const char *hi,
                       const char *unit)
{
    int64_t min = json_int(schema, lo, 0), max = json_int(schema, hi, INT64_MAX);

    if ((int64_t)n < min)
        return wrong(x, "must have at least %lld %s", (long long)min, unit);
    if ((int64_t)n > max)
        return wrong(x, "must have at most %lld %s", (long long)max, unit);
    return true;
}

static size_t n_chars(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* Runs fits() for a part of the value, with its name on the path. */
static bool part_fits(struct ctx *x, json_object *schema, json_object *v, const char *fmt, ...)
    printf_like(4, 5);
static bool part_fits(struct ctx *x, json_object *schema, json_object *v, const char *fmt, ...)
{
    size_t had = strlen(x->path);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(x->path + had, sizeof x->path - had, fmt, ap);
    va_end(ap);
    bool ok = fits(x, schema, v);
    x->path[had] = '\0';
    return ok;
}

static bool object_fits(struct ctx *x, json_object *schema, json_object *v)
{
    json_object *props = json_obj(schema, "properties"), *req = json_arr(schema, "required");
    json_object *more = NULL;

    for (size_t i = 0; req && i < json_object_array_length(req); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(req, i));
        if (name && !json_object_object_get_ex(v, name, NULL))
            return wrong(x, "%s is missing", name);
    }
    json_object_object_get_ex(schema, "additionalProperties", &more);
    bool closed = json_object_is_type(more, json_type_boolean) && !json_object_get_boolean(more);
    json_object_object_foreach (v, key, val) {
        json_object *s = NULL;
        const char *dot = *x->path ? "." : "";
        if (!props || !json_object_object_get_ex(props, key, &s)) {
            if (closed)
                return wrong(x, "%s is not known", key);
            s = json_object_is_type(more, json_type_object) ? more : NULL;
        }
        if (!part_fits(x, s, val, "%s%s", dot, key))
            return false;
    }
    return true;
}

static bool array_fits(struct ctx *x, json_object *schema, json_object *v)
{
    json_object *items = json_obj(schema, "items");
    size_t n = json_object_array_length(v);

    if (!count_fits(x, schema, n, "minItems", "maxItems", "items"))
        return false;
    for (size_t i = 0; items && i < n; i++)
        if (!part_fits(x, items, json_object_array_get_idx(v, i), "[%zu]", i))
            return false;
    return true;
}

static bool branches_fit(struct ctx *x, json_object *schema, json_object *v)
{
    static const char *const names[] = { "allOf", "anyOf", "oneOf" };

    for (size_t k = 0; k < N_ELEMS(names); k++) {
        json_object *list = json_arr(schema, names[k]);
        size_t n = list ? json_object_array_length(list) : 0, good = 0;
        for (size_t i = 0; i < n; i++)
            good += fits(x, json_object_array_get_idx(list, i), v);
        if (n && (k == 0 ? good < n : k == 1 ? !good : good != 1))
            return good && k == 2 ? wrong(x, "fits more than one of the forms") : false;
    }
    return true;
}

static bool fits(struct ctx *x, json_object *schema, json_object *v)
{
    json_object *type;
    bool ok = true;

    if (!json_object_is_type(schema, json_type_object))
        return true;
    if (x->depth >= DEPTH_MAX)
        return wrong(x, "nested too deeply");
    x->depth++;
    if ((type = json_get(schema, "type")))
        ok = type_fits(x, type, v);
    ok = ok && values_fit(x, schema, v);
    if (ok && is_type(v, "number"))
        ok = number_fits(x, schema, v);
    else if (ok && json_object_is_type(v, json_type_string))
        ok = count_fits(x, schema, n_chars(json_object_get_string(v)), "minLength", "maxLength",
                        "characters");
    else if (ok && json_object_is_type(v, json_type_array))
        ok = array_fits(x, schema, v);
    else if (ok && json_object_is_type(v, json_type_object))
        ok = object_fits(x, schema, v);
    ok = ok && branches_fit(x, schema, v);
    x->depth--;
    return ok;
}

bool schema_fits(json_object *schema, json_object *value, char *why, size_t size)
{
    struct ctx x = { .why = why, .size = size };

    if (size)
        why[0] = '\0';
    return fits(&x, schema, value);
}
