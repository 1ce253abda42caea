/*
 * Glob patterns as agents send them: the first line is the pattern, the rest the path. Whatever it
 * is, it ends soon and in bounds.
 */
#include "common/base/globpat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const uint8_t *nl = memchr(data, '\n', len);
    size_t n = nl ? (size_t)(nl - data) : len;
    char *pattern, *path;
    struct globpat g;

    if (len > 4096)
        return 0;
    pattern = xstrndup((const char *)data, n);
    path = nl ? xstrndup((const char *)nl + 1, len - n - 1) : xstrdup("a/b");
    if (!globpat_init(&g, pattern)) {
        globpat_match(&g, path);
        globpat_done(&g);
    }
    free(pattern);
    free(path);
    return 0;
}
