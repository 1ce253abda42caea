/* VFS paths in one normal form, so that a rule about a path is a comparison of text. */
#include "common/base/vpath.h"

#include "common/base/err.h"

#define PART_MAX 255

static int part_check(const char *p, size_t n)
{
    static const char hidden[] = ".avix-tmp-";

    if (n > PART_MAX)
        return ERR_NAMETOOLONG;
    if (n == 2 && p[0] == '.' && p[1] == '.')
        return ERR_INVAL;
    if (n >= sizeof(hidden) - 1 && memcmp(p, hidden, sizeof(hidden) - 1) == 0)
        return ERR_INVAL;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7F)
            return ERR_INVAL;
    return 0;
}

int vpath_normalise(const char *path, size_t len, char *out)
{
    size_t o = 0;

    if (!len || path[0] != '/')
        return ERR_INVAL;
    if (len > VPATH_MAX)
        return ERR_NAMETOOLONG;
    if (!utf8_valid(path, len))
        return ERR_INVAL;
    for (size_t i = 0; i < len;) {
        size_t start = ++i; /* behind the slash */

        while (i < len && path[i] != '/')
            i++;
        size_t n = i - start;
        if (n == 0 || (n == 1 && path[start] == '.'))
            continue;
        int r = part_check(path + start, n);
        if (r)
            return r;
        out[o++] = '/';
        memcpy(out + o, path + start, n);
        o += n;
    }
    if (!o)
        out[o++] = '/';
    out[o] = '\0';
    return 0;
}

bool vpath_beneath(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    if (n == 1 && dir[0] == '/')
        return path[0] == '/';
    return strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}
