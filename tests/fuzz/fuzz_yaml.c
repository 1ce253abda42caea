/* YAML: no crash, a line with each error, and what is dumped reads back the same. */
#include <stdint.h>

#include "common/base/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_object *o = NULL, *back = NULL;
    struct yaml_err e;

    if (yaml_parse((const char *)data, size, &o, &e)) {
        if (o || !e.msg[0] || e.line < 0)
            abort();
        return 0;
    }
    char *dump = yaml_dump(o);
    if (strlen(dump) < YAML_MAX) {
        if (yaml_parse(dump, strlen(dump), &back, &e) || !str_eq(json_text(o), json_text(back)))
            abort();
    }
    free(dump);
    json_put(o);
    json_put(back);
    return 0;
}
