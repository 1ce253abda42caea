// links: kernel/core/manifest.c
/* Manifest text: parses or is refused with a reason; nothing else. */
#include <stdint.h>

#include "kernel/core/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest *m = NULL;
    struct yaml_err e;
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (manifest_parse(text, size, NULL, &m, &e) == 0) {
        char *goal = goal_expand(m->goal_template, "goal", m->values);
        (void)semver_cmp(m->version, "1.0.0-rc.1");
        free(goal);
    } else if (!*e.msg) {
        __builtin_trap();
    }
    manifest_free(m);
    free(text);
    return 0;
}
