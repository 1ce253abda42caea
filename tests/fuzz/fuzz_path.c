/* Paths, tool names, base64, instants, patterns: small grammars over the same bytes. */
#include <stdint.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/toolname.h"
#include "common/base/vpath.h"

static void insist(bool ok)
{
    if (!ok)
        abort();
}

static void paths(const char *s, size_t n)
{
    char out[VPATH_MAX + 1], again[VPATH_MAX + 1];

    if (vpath_normalise(s, n, out))
        return;
    insist(out[0] == '/' && !strstr(out, "//") && !strstr(out, "/../") && !strstr(out, "/./"));
    insist(vpath_normalise(out, strlen(out), again) == 0 && str_eq(out, again));
    insist(vpath_beneath(out, "/"));
}

static void names(const char *s, size_t n)
{
    char wire[2 * TOOL_MAX], back[2 * TOOL_MAX];
    ssize_t w = tool_mangle(s, n, wire, sizeof(wire));

    insist((w >= 0) == tool_name_valid(s, n));
    if (w < 0)
        return;
    insist(!strchr(wire, '/'));
    insist(tool_unmangle(wire, (size_t)w, back, sizeof(back)) == (ssize_t)n);
    insist(memcmp(back, s, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    char *text = xstrndup(s, size), bin[4096], enc[8192], ts[RFC3339_LEN];
    int64_t ms;

    paths(s, size);
    names(s, size);
    ssize_t n = b64url_decode(s, size, bin, sizeof(bin));
    if (n >= 0) { /* one value has one text */
        insist(b64url_encode(bin, (size_t)n, enc) == size && memcmp(enc, s, size) == 0);
    }
    size_t len;
    free(b64_decode_new(s, size, &len));
    if (rfc3339_parse(text, &ms)) {
        int64_t back;

        insist(rfc3339_parse(rfc3339(ms, ts), &back));
    }
    (void)parse_duration_ms(text, &ms);
    if (size < 256)
        (void)glob_match(text, "some/path/of-a.file");
    insist(utf8_floor(s, size) <= size);
    free(text);
    return 0;
}
