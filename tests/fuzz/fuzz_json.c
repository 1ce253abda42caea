/* The validator against the tree reader, json_scan and the writer: what one accepts, all accept,
 * and what is written reads back the same. */
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/json.h"

static void insist(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "id", "method", "params", "a" };
    const char *text = (const char *)data;
    struct json_slice s[4];
    json_object *o = NULL, *back = NULL;
    char out[64];
    int r = json_check(text, size), scan = json_scan(text, size, names, s, 4);

    insist((scan == ERR_PARSE) == (r != 0));
    int p = json_parse(text, size, &o);
    if (r) {
        insist(p == ERR_PARSE);
        return 0;
    }
    if (p)
        return 0; /* a name with NUL that would equal another one */
    insist((scan == 0) == json_object_is_type(o, json_type_object));
    for (int i = 0; !scan && i < 4; i++) {
        json_object *v = NULL;
        bool there = json_object_object_get_ex(o, names[i], &v);

        insist(there == (s[i].len != 0));
        if (!there)
            continue;
        insist(json_check(s[i].at, s[i].len) == 0);
        if (json_slice_str(s[i], out, sizeof(out)))
            insist(str_eq(out, json_object_get_string(v)));
    }
    const char *once = json_text(o);
    insist(json_parse(once, strlen(once), &back) == 0);
    insist(str_eq(json_text(back), json_text(o)));
    free(json_canonical(o));
    json_object *copy = json_dup(o);
    insist(str_eq(json_text(copy), json_text(o)));
    json_put(copy);
    json_put(o);
    json_put(back);
    return 0;
}
