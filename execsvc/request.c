/* Everything is checked before anything happens; what is refused is named. */
#include "execsvc/request.h"

#include <stdio.h>

#include "common/base/b64.h"
#include "common/base/vpath.h"

bool request_rel(const char *path, char *out)
{
    cleanup(freep) char *full = xasprintf("/%s", path);
    char norm[VPATH_MAX + 1];

    if (*path == '/' || vpath_normalise(full, strlen(full), norm) || !norm[1])
        return false;
    return str_copy(out, VPATH_MAX + 1, norm + 1);
}

bool request_mount_at(json_object *mount, size_t i, char *out, size_t size)
{
    const char *at = json_str(mount, "at", NULL);
    char norm[VPATH_MAX + 1];

    if (!at)
        return snprintf(out, size, "/box/mnt/%zu", i) > 0;
    return !vpath_normalise(at, strlen(at), norm) && str_starts(norm, "/box/") &&
           str_copy(out, size, norm);
}

static bool env_name(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");

    return n && !s[n] && n <= 128 && !(*s >= '0' && *s <= '9') && !str_starts(s, "AVIX_") &&
           !str_starts(s, "LD_");
}

static bool plain_text(json_object *o, size_t max)
{
    return json_object_is_type(o, json_type_string) &&
           (size_t)json_object_get_string_len(o) <= max &&
           strlen(json_object_get_string(o)) == (size_t)json_object_get_string_len(o);
}

static void check_env(struct request *q, struct args *a)
{
    if (!q->env)
        return;
    if (json_object_object_length(q->env) > ENV_MAX) {
        args_fail(a, "env", "has too many names");
        return;
    }
    json_object_object_foreach (q->env, key, val) {
        if (!env_name(key))
            args_fail(a, "env", "has a name that is malformed or reserved (AVIX_*, LD_*)");
        else if (!plain_text(val, 32768))
            args_fail(a, "env", "has a value that is no text, or too long");
    }
}

static void check_args(struct request *q, struct args *a)
{
    size_t n = q->args ? json_object_array_length(q->args) : 0;

    if (n > ARGS_MAX - 8)
        args_fail(a, "args", "has too many entries");
    for (size_t i = 0; i < n; i++)
        if (!plain_text(json_object_array_get_idx(q->args, i), 65536))
            args_fail(a, "args", "has an entry that holds U+0000 or is too long");
}

static size_t check_files(struct request *q, struct args *a)
{
    size_t n = q->files ? json_object_array_length(q->files) : 0, total = 0;
    char rel[VPATH_MAX + 1];

    if (n > FILES_MAX)
        args_fail(a, "files", "has too many entries");
    for (size_t i = 0; i < n; i++) {
        json_object *f = json_object_array_get_idx(q->files, i), *text = json_get(f, "content");
        const char *enc = json_str(f, "encoding", "utf-8");

        if (!request_rel(json_str(f, "path", ""), rel))
            args_fail(a, "files", "has a path that is missing, absolute or leaves /box");
        else if (!json_object_is_type(text, json_type_string))
            args_fail(a, "files", "has an entry without content");
        else if (!str_eq(enc, "utf-8") && !str_eq(enc, "base64"))
            args_fail(a, "files", "has an unknown encoding");
        else
            total += (size_t)json_object_get_string_len(text);
    }
    return total;
}

static void check_mounts(struct request *q, struct args *a)
{
    size_t n = q->mounts ? json_object_array_length(q->mounts) : 0;
    char at[512];

    if (n > MOUNTS_MAX)
        args_fail(a, "mounts", "has too many entries");
    for (size_t i = 0; i < n; i++) {
        json_object *m = json_object_array_get_idx(q->mounts, i);
        const char *mode = json_str(m, "mode", "ro");

        if (!json_str(m, "path", NULL))
            args_fail(a, "mounts", "has an entry without path");
        else if (!request_mount_at(m, i, at, sizeof(at)))
            args_fail(a, "mounts", "has an `at` that does not lie below /box");
        else if (!str_eq(mode, "ro") && !str_eq(mode, "rw"))
            args_fail(a, "mounts", "has a mode other than ro and rw");
    }
}

static const char *text_of(struct args *a, const char *key, size_t *len)
{
    json_object *o = args_any_or(a, key);

    *len = 0;
    if (!o)
        return NULL;
    if (!json_object_is_type(o, json_type_string)) {
        args_fail(a, key, "must be a string");
        return NULL;
    }
    *len = (size_t)json_object_get_string_len(o);
    return json_object_get_string(o);
}

void request_read(struct request *q, struct args *a, const struct exec_conf *c, const char *runtime)
{
    *q = (struct request){ .runtime = runtime, .limits = c->dflt };
    if (!runtime)
        q->runtime = args_str_or(a, "runtime", 32, "bash");
    q->code = text_of(a, "code", &q->code_len);
    if (!q->code && !args_bad(a))
        args_fail(a, "code", "missing");
    q->in = text_of(a, "stdin", &q->in_len);
    q->args = args_strs_or(a, "args", 65536);
    q->env = args_obj_or(a, "env");
    q->files = args_arr_or(a, "files");
    q->mounts = args_arr_or(a, "mounts");
    q->artifacts = args_strs_or(a, "artifacts", 1024);
    q->limits.timeout_ms = args_int_or(a, "timeout_ms", 1, c->max.timeout_ms, c->dflt.timeout_ms);
    q->limits.memory_mb = args_int_or(a, "memory_mb", 16, c->max.memory_mb, c->dflt.memory_mb);
    q->network = args_bool_or(a, "network", false);
    q->stream = args_bool_or(a, "stream", false);
    if (args_bad(a))
        return;
    check_env(q, a);
    check_args(q, a);
    check_mounts(q, a);
    if (check_files(q, a) + q->code_len + q->in_len > INPUT_MAX)
        args_fail(a, "code", "with stdin and files is over 8 MiB");
    if (q->artifacts && json_object_array_length(q->artifacts) > ARTIFACTS_MAX)
        args_fail(a, "artifacts", "has too many patterns");
}
