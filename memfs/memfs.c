/*
 * The tool table of memfs, and its coming up and going down. kernel/fs/<x> is fs/<x> under the name
 * that callers of the kernel socket know.
 */
#include "memfs/memfs.h"

#include <sysexits.h>

#include "memfs/cache.h"
#include "memfs/ns.h"
#include "memfs/perm.h"
#include "memfs/pool.h"
#include "memfs/scratch.h"
#include "memfs/tools.h"

#define N_WORKERS 4

#define RO   (M_READONLY | M_IDEMPOTENT)
#define PATH "\"path\":{\"type\":\"string\",\"required\":true,\"desc\":\"absolute VFS path\"}"
#define IN_READ                                                                       \
    "{" PATH ",\"offset\":{\"type\":\"int\",\"desc\":\"first byte, default 0\"},"     \
    "\"length\":{\"type\":\"int\",\"desc\":\"bytes, default 1 MiB, at most 8 MiB\"}," \
    "\"line\":{\"type\":\"int\",\"desc\":\"first line from 1, instead of offset\"},"  \
    "\"lines\":{\"type\":\"int\",\"desc\":\"number of lines\"},"                      \
    "\"encoding\":{\"type\":\"string\",\"enum\":[\"auto\",\"utf-8\",\"base64\"]}}"
#define IN_WRITE                                                                     \
    "{" PATH ",\"content\":{\"type\":\"string\",\"required\":true},"                 \
    "\"encoding\":{\"type\":\"string\",\"enum\":[\"utf-8\",\"base64\"]},"            \
    "\"mode\":{\"type\":\"string\",\"enum\":[\"overwrite\",\"create\",\"append\"]}," \
    "\"if_match\":{\"type\":\"string\",\"desc\":\"etag the file must have\"},"       \
    "\"parents\":{\"type\":\"bool\",\"desc\":\"make missing folders, default true\"}}"
#define IN_LIST                                                                    \
    "{" PATH ",\"details\":{\"type\":\"bool\"},\"recursive\":{\"type\":\"bool\"}," \
    "\"glob\":{\"type\":\"string\"},\"limit\":{\"type\":\"int\"},\"cursor\":{\"type\":\"string\"}}"
#define IN_DELETE "{" PATH ",\"recursive\":{\"type\":\"bool\"},\"if_match\":{\"type\":\"string\"}}"
#define IN_TWO                                           \
    "{\"from\":{\"type\":\"string\",\"required\":true}," \
    "\"to\":{\"type\":\"string\",\"required\":true},\"overwrite\":{\"type\":\"bool\"}"
#define IN_MKDIR "{" PATH ",\"parents\":{\"type\":\"bool\"}}"

#define FS(tool, flags_, role, seconds, text, in, f)                                   \
    {                                                                                  \
        .name = (tool), .flags = (flags_), .min_role = (role), .timeout_s = (seconds), \
        .desc = (text), .input = (in), .fn = (f)                                       \
    }

static const struct method methods[] = {
    FS("fs/read", RO, ROLE_GUEST, 0, "Read a file, or part of it by bytes or lines.", IN_READ,
       tool_read),
    FS("fs/write", 0, ROLE_USER, 0, "Write a file: replace it, create it, or append to it.",
       IN_WRITE, tool_write),
    FS("fs/edit", 0, ROLE_USER, 0,
       "Replace a text in a file. The old text must occur exactly once, unless all is true.",
       "{" PATH ",\"old\":{\"type\":\"string\",\"required\":true},"
       "\"new\":{\"type\":\"string\",\"required\":true},\"all\":{\"type\":\"bool\"},"
       "\"if_match\":{\"type\":\"string\"}}",
       tool_edit),
    FS("fs/list", RO, ROLE_GUEST, 0, "List the names in a folder.", IN_LIST, tool_list),
    FS("fs/stat", RO, ROLE_GUEST, 0, "Kind, size, time and etag of a file or folder.", "{" PATH "}",
       tool_stat),
    FS("fs/exists", RO, ROLE_GUEST, 0, "Whether a path exists.", "{" PATH "}", tool_exists),
    FS("fs/delete", 0, ROLE_USER, 60, "Delete a file, or a folder with recursive.", IN_DELETE,
       tool_delete),
    FS("fs/mkdir", M_IDEMPOTENT, ROLE_USER, 0, "Make a folder.", IN_MKDIR, tool_mkdir),
    FS("fs/move", 0, ROLE_USER, 60, "Move or rename a file or folder.", IN_TWO "}", tool_move),
    FS("fs/copy", 0, ROLE_USER, 60, "Copy a file, or a folder with recursive.",
       IN_TWO ",\"recursive\":{\"type\":\"bool\"}}", tool_copy),
    FS("fs/glob", RO, ROLE_GUEST, 0, "Find files by a pattern with * ? [] {} and **.",
       "{\"pattern\":{\"type\":\"string\",\"required\":true},\"path\":{\"type\":\"string\","
       "\"desc\":\"folder to look in, default the workspace\"},\"limit\":{\"type\":\"int\"}}",
       tool_glob),
    FS("fs/search", RO, ROLE_GUEST, 0, "Find lines with a text or regular expression in files.",
       "{\"query\":{\"type\":\"string\",\"required\":true}," PATH ",\"regex\":{\"type\":\"bool\"},"
       "\"ignore_case\":{\"type\":\"bool\"},\"glob\":{\"type\":\"string\"},"
       "\"context\":{\"type\":\"int\",\"desc\":\"lines before and after\"},"
       "\"limit\":{\"type\":\"int\"}}",
       tool_search),

    FS("kernel/fs/read", RO, ROLE_GUEST, 0, "fs/read", IN_READ, tool_read),
    FS("kernel/fs/write", 0, ROLE_USER, 0, "fs/write", IN_WRITE, tool_write),
    FS("kernel/fs/list", RO, ROLE_GUEST, 0, "fs/list", IN_LIST, tool_list),
    FS("kernel/fs/stat", RO, ROLE_GUEST, 0, "fs/stat", "{" PATH "}", tool_stat),
    FS("kernel/fs/exists", RO, ROLE_GUEST, 0, "fs/exists", "{" PATH "}", tool_exists),
    FS("kernel/fs/delete", 0, ROLE_USER, 60, "fs/delete", IN_DELETE, tool_delete),
    FS("kernel/fs/mkdir", M_IDEMPOTENT, ROLE_USER, 0, "fs/mkdir", IN_MKDIR, tool_mkdir),
    FS("kernel/fs/move", 0, ROLE_USER, 60, "fs/move", IN_TWO "}", tool_move),

    FS("kernel/mem/list", RO, ROLE_OPERATOR, 0, "The mounts of the VFS.", NULL, tool_mem_list),
    FS("kernel/mem/stat", RO, ROLE_OPERATOR, 0, "Space of the mount that holds a path.",
       "{" PATH "}", tool_mem_stat),
    FS("kernel/mem/sync", M_IDEMPOTENT, ROLE_OPERATOR, 60, "Write everything to the disk.",
       "{\"path\":{\"type\":\"string\"}}", tool_mem_sync),

    FS("fs/export", RO | M_INTERNAL, ROLE_NONE, 0, "A folder of a caller as a host path.", NULL,
       tool_export),
    FS("fs/metrics", RO | M_INTERNAL, ROLE_NONE, 0, "Counters as Prometheus text.", NULL,
       tool_metrics),
};

static int memfs_init(void)
{
    int r = ns_init(svc.root);

    if (r) {
        log_error("%s: %s", svc.root, strerror(-r));
        return EX_CONFIG;
    }
    perm_init(svc.root);
    return 0;
}

static int memfs_start(void)
{
    int r = pool_init(svc.loop, N_WORKERS);

    if (r)
        log_error("no worker threads: %s", strerror(-r));
    return r ? EX_OSERR : 0;
}

static void memfs_ready(void)
{
    scratch_watch(svc.loop);
}

static void memfs_fini(void)
{
    pool_done();
    scratch_done();
    cache_clear();
    ns_done();
}

const struct svc_spec memfs_spec = {
    .unit = UNIT_MEMFS,
    .methods = methods,
    .n_methods = N_ELEMS(methods),
    .init = memfs_init,
    .start = memfs_start,
    .ready = memfs_ready,
    .fini = memfs_fini,
};
