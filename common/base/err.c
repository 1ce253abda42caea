/* The error table, expanded from err.def once per column. */
#include "common/base/err.h"

#include <errno.h>
#include <string.h>

static const struct {
    const char *name;
    int code;
    const char *text;
} rows[ERR_COUNT] = {
    [ERR_NONE] = { "OK", 0, "ok" },
#define ERR(tail, wire, number, words) [ERR_##tail] = { wire, number, words },
#include "common/base/err.def"
#undef ERR
};

static int row_of(int err)
{
    return err > ERR_NONE && err < ERR_COUNT ? err : ERR_INTERNAL;
}

const char *err_name(int err)
{
    return rows[row_of(err)].name;
}

int err_code(int err)
{
    return rows[row_of(err)].code;
}

const char *err_text(int err)
{
    return rows[row_of(err)].text;
}

enum err err_from_code(int code)
{
    for (int i = ERR_NONE + 1; i < ERR_COUNT; i++)
        if (rows[i].code == code)
            return (enum err)i;
    return code >= -32768 && code <= -32000 && !(code <= -32040 && code >= -32099) ? ERR_INTERNAL
                                                                                   : ERR_FAILED;
}

enum err err_from_name(const char *name)
{
    for (int i = ERR_NONE + 1; name && i < ERR_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return (enum err)i;
    return ERR_NONE;
}

enum err err_from_errno(int errnum)
{
    static const struct {
        int no;
        enum err err;
    } map[] = {
        { ENOENT, ERR_NOENT },       { EXDEV, ERR_XDEV },         { ELOOP, ERR_LOOP },
        { EEXIST, ERR_EXIST },       { EISDIR, ERR_ISDIR },       { ENOTDIR, ERR_NOTDIR },
        { ENOTEMPTY, ERR_NOTEMPTY }, { EDQUOT, ERR_DQUOT },       { ENOSPC, ERR_NOSPC },
        { EACCES, ERR_PERM },        { EPERM, ERR_PERM },         { EROFS, ERR_PERM },
        { EINVAL, ERR_INVAL },       { EFBIG, ERR_TOOBIG },       { ETIMEDOUT, ERR_TIMEOUT },
        { EPIPE, ERR_PIPE },         { EDEADLK, ERR_DEADLK },     { ECONNREFUSED, ERR_UNAVAIL },
        { ECANCELED, ERR_CANCELED }, { ECONNRESET, ERR_UNAVAIL }, { ENAMETOOLONG, ERR_NAMETOOLONG },
        { EMFILE, ERR_LIMIT },       { ENFILE, ERR_LIMIT },       { EBUSY, ERR_CONFLICT },
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (map[i].no == errnum)
            return map[i].err;
    return ERR_INTERNAL;
}
