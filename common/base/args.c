/* Typed reading with a sticky error; see the header. */
#include "common/base/args.h"

#include "common/base/err.h"
#include "common/base/yaml.h"

struct args args_open(json_object *o)
{
    struct args a = { .o = o };

    if (o && !json_object_is_type(o, json_type_object)) {
        a.err = ERR_INVAL;
        str_copy(a.field, sizeof(a.field), "params");
        str_copy(a.why, sizeof(a.why), "must be an object");
        a.line = yaml_line(o);
    }
    return a;
}

static void fail_at(struct args *a, const char *key, const char *why, json_object *at)
{
    if (a->err)
        return;
    a->err = ERR_INVAL;
    str_copy(a->field, sizeof(a->field), key);
    str_copy(a->why, sizeof(a->why), why);
    a->line = yaml_line(at ? at : a->o);
}

void args_fail(struct args *a, const char *key, const char *why)
{
    json_object *v = json_get(a->o, key);

    fail_at(a, key, why, v);
}

/* The member, marked as seen; NULL if absent or null. */
static json_object *take(struct args *a, const char *key)
{
    json_object *v = NULL;
    unsigned i = 0;

    if (!json_object_is_type(a->o, json_type_object))
        return NULL;
    if (json_object_object_length(a->o) > 64)
        return json_get(a->o, key);
    for (struct lh_entry *e = json_object_get_object(a->o)->head; e; e = e->next, i++)
        if (strcmp(lh_entry_k(e), key) == 0) {
            a->seen |= 1ULL << i;
            v = lh_entry_v(e);
            break;
        }
    return v;
}

static json_object *need(struct args *a, const char *key)
{
    json_object *v = take(a, key);

    if (!v)
        fail_at(a, key, "missing", NULL);
    return v;
}

static json_object *want(struct args *a, const char *key, json_object *v, enum json_type type,
                         const char *why)
{
    if (v && !json_object_is_type(v, type)) {
        fail_at(a, key, why, v);
        return NULL;
    }
    return v;
}

static const char *str_of(struct args *a, const char *key, json_object *v, size_t max)
{
    char why[64];

    if (!want(a, key, v, json_type_string, "must be a string"))
        return NULL;
    const char *s = json_object_get_string(v);
    size_t n = (size_t)json_object_get_string_len(v);
    if (n > max) {
        snprintf(why, sizeof(why), "longer than %zu bytes", max);
        fail_at(a, key, why, v);
        return NULL;
    }
    if (strlen(s) != n) {
        fail_at(a, key, "must not hold NUL", v);
        return NULL;
    }
    return s;
}

const char *args_str(struct args *a, const char *key, size_t max)
{
    const char *s = str_of(a, key, need(a, key), max);

    return s ? s : "";
}

const char *args_str_or(struct args *a, const char *key, size_t max, const char *dflt)
{
    const char *s = str_of(a, key, take(a, key), max);

    return s ? s : dflt;
}

static int64_t int_of(struct args *a, const char *key, json_object *v, int64_t min, int64_t max,
                      int64_t dflt)
{
    char why[96];

    if (!want(a, key, v, json_type_int, "must be an integer"))
        return dflt;
    int64_t n = json_object_get_int64(v);
    if (n < min || n > max) {
        snprintf(why, sizeof(why), "must be within %lld..%lld", (long long)min, (long long)max);
        fail_at(a, key, why, v);
        return dflt;
    }
    return n;
}

int64_t args_int(struct args *a, const char *key, int64_t min, int64_t max)
{
    return int_of(a, key, need(a, key), min, max, min);
}

int64_t args_int_or(struct args *a, const char *key, int64_t min, int64_t max, int64_t dflt)
{
    return int_of(a, key, take(a, key), min, max, dflt);
}

json_object *args_obj(struct args *a, const char *key)
{
    return want(a, key, need(a, key), json_type_object, "must be an object");
}

json_object *args_obj_or(struct args *a, const char *key)
{
    return want(a, key, take(a, key), json_type_object, "must be an object");
}

json_object *args_arr(struct args *a, const char *key)
{
    return want(a, key, need(a, key), json_type_array, "must be an array");
}

json_object *args_arr_or(struct args *a, const char *key)
{
    return want(a, key, take(a, key), json_type_array, "must be an array");
}

json_object *args_any_or(struct args *a, const char *key)
{
    return take(a, key);
}

bool args_bool_or(struct args *a, const char *key, bool dflt)
{
    json_object *v = want(a, key, take(a, key), json_type_boolean, "must be true or false");

    return v ? json_object_get_boolean(v) : dflt;
}

double args_num_or(struct args *a, const char *key, double min, double max, double dflt)
{
    json_object *v = take(a, key);
    char why[96];

    if (!v)
        return dflt;
    if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double)) {
        fail_at(a, key, "must be a number", v);
        return dflt;
    }
    double d = json_object_get_double(v);
    if (!(d >= min && d <= max)) {
        snprintf(why, sizeof(why), "must be within %g..%g", min, max);
        fail_at(a, key, why, v);
        return dflt;
    }
    return d;
}

json_object *args_strs_or(struct args *a, const char *key, size_t max)
{
    json_object *arr = args_arr_or(a, key);

    for (size_t i = 0, n = arr ? json_object_array_length(arr) : 0; i < n; i++) {
        json_object *v = json_object_array_get_idx(arr, i);

        if (!v) {
            fail_at(a, key, "must be an array of strings", arr);
            return NULL;
        }
        if (!str_of(a, key, v, max)) {
            if (!json_object_is_type(v, json_type_string))
                str_copy(a->why, sizeof(a->why), "must be an array of strings");
            return NULL;
        }
    }
    return arr;
}

int64_t args_ms_or(struct args *a, const char *key, int64_t min, int64_t max, int64_t dflt)
{
    json_object *v = take(a, key);
    int64_t ms = 0;
    bool ok = false;
    char why[112];

    if (!v)
        return dflt;
    if (json_object_is_type(v, json_type_int)) {
        int64_t sec = json_object_get_int64(v);

        ok = sec >= 0 && sec <= INT64_MAX / 1000;
        ms = ok ? sec * 1000 : 0;
    } else if (json_object_is_type(v, json_type_string)) {
        ok = parse_duration_ms(json_object_get_string(v), &ms);
    }
    if (!ok) {
        fail_at(a, key, "must be a duration: seconds, or a number with ms, s, m, h or d", v);
        return dflt;
    }
    if (ms < min || ms > max) {
        snprintf(why, sizeof(why), "must be within %lld..%lld ms", (long long)min, (long long)max);
        fail_at(a, key, why, v);
        return dflt;
    }
    return ms;
}

int args_enum_or(struct args *a, const char *key, const char *const *names, int dflt)
{
    json_object *v = take(a, key);
    const char *s = str_of(a, key, v, 256);
    char why[128] = "must be one of";
    size_t n = strlen(why);

    if (!s)
        return dflt;
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], s) == 0)
            return i;
    for (int i = 0; names[i] && n < sizeof(why) - 1; i++) {
        int k = snprintf(why + n, sizeof(why) - n, " %s", names[i]);

        n += k > 0 ? (size_t)k : 0;
    }
    fail_at(a, key, why, v);
    return dflt;
}

bool args_bad(const struct args *a)
{
    return a->err != 0;
}

bool args_strict(struct args *a)
{
    unsigned i = 0;

    if (!a->err && json_object_is_type(a->o, json_type_object)) {
        for (struct lh_entry *e = json_object_get_object(a->o)->head; e && i < 64; e = e->next, i++)
            if (!(a->seen >> i & 1)) {
                fail_at(a, lh_entry_k(e), "unknown key", lh_entry_v(e));
                break;
            }
        if (json_object_object_length(a->o) > 64)
            fail_at(a, "object", "more than 64 keys", a->o);
    }
    return args_bad(a);
}
