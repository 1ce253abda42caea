/* Errors of file operations, with the text and the data that ipc page section 3 lists for them. */
#include "memfs/fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fault_set(struct fault *f, int err, const char *fmt, ...)
{
    va_list ap;

    if (f->err)
        return f->err;
    f->err = err;
    va_start(ap, fmt);
    vsnprintf(f->why, sizeof(f->why), fmt, ap);
    va_end(ap);
    return err;
}

int fault_io(struct fault *f, int r, const char *path)
{
    int err = r < 0 ? (int)err_from_errno(-r) : r;
    bool first = !f->err;

    if (r == -ENOENT)
        err = ERR_NOENT;
    fault_set(f, err, "%.200s: %s", path,
              err == ERR_INTERNAL && r < 0 ? strerror(-r) : err_text(err));
    if (first && err_code(err) == err_code(ERR_PERM))
        f->data = json_make("path:s", path);
    return f->err;
}

int fault_etag(struct fault *f, const char *path, const char *current)
{
    if (f->err)
        return f->err;
    f->data = json_make("reason:s path:s", "etag", path);
    json_add_str(f->data, "etag", *current ? current : NULL);
    return fault_set(f, ERR_CONFLICT, "%.200s: changed since it was read", path);
}

int fault_big(struct fault *f, const char *path, int64_t limit, int64_t size)
{
    if (f->err)
        return f->err;
    f->data = json_make("limit:i size:i", limit, size);
    return fault_set(f, ERR_TOOBIG, "%.200s: %lld bytes, at most %lld", path, (long long)size,
                     (long long)limit);
}

void fault_done(struct fault *f)
{
    json_put(f->data);
    f->data = NULL;
}
