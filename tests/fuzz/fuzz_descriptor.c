// links: router/descriptor.c
/* A tool's descriptor as a service sends it: parsed or refused with a reason; what is parsed holds
 * to the limits, and what is shown to others can be parsed again. */
#include <stdint.h>

#include "common/base/err.h"
#include "router/router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_object *d = NULL;
    const char *why = NULL;

    if (json_parse((const char *)data, size, &d))
        return 0;
    struct entry *e = xcalloc(1, sizeof *e), *again = xcalloc(1, sizeof *again);

    if (entry_parse(e, d, &why)) {
        if (str_empty(why))
            abort();
    } else {
        if (e->timeout_ms < 0 || e->idle_ms < 0 || e->min_role > ROLE_ADMIN || !e->method[0] ||
            !tool_name_valid(e->name, strlen(e->name)))
            abort();
        if (entry_parse(again, e->descriptor, &why) || !str_eq(again->name, e->name) ||
            again->vis != e->vis || again->timeout_ms != e->timeout_ms)
            abort();
        entry_restrict(e);
        if (e->blocking || e->min_role != ROLE_NONE || e->timeout_ms <= 0)
            abort();
    }
    json_put(e->descriptor);
    json_put(again->descriptor);
    free(e);
    free(again);
    json_put(d);
    return 0;
}
