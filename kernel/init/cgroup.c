/*
 * Delegation is what systemd says it is: the xattr user.delegate or trusted.delegate on our own
 * cgroup; as PID 1 the whole subtree is ours. v2 forbids processes in an inner node, so init moves
 * into a leaf of its own first.
 */
#include "kernel/init/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "common/base/log.h"

#define TEXT_MAX (256 * 1024)

static char base[512]; /* "": none */

bool cgroup_available(void)
{
    return base[0] != '\0';
}

void cgroup_use(const char *folder)
{
    str_copy(base, sizeof(base), folder);
}

bool cgroup_own_path(const char *text, char *out, size_t size)
{
    const char *p = str_starts(text, "0::") ? text : strstr(text, "\n0::");

    if (!p)
        return false;
    p = strchr(p, '/');
    size_t n = p ? strcspn(p, "\n") : size;

    if (n >= size)
        return false;
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}

/* Fields of mountinfo: 5 is the mount point, and "- cgroup2" follows the optional ones. */
bool cgroup_mount_point(const char *text, char *out, size_t size)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *kind = strstr(line, " - "), *end = strchr(line, '\n'), *p = line;

        if (!kind || (end && kind > end) || !str_starts(kind, " - cgroup2 "))
            continue;
        for (int i = 0; p && i < 4; i++) {
            p = strchr(p, ' ');
            p += p != NULL;
        }
        size_t n = p ? strcspn(p, " ") : size;

        if (n >= size)
            return false;
        memcpy(out, p, n);
        out[n] = '\0';
        return true;
    }
    return false;
}

static int put(const char *leaf, const char *file, const char *text)
{
    char path[768];

    if (path_fmt(path, sizeof(path), "%s%s%s/%s", base, *leaf ? "/" : "", leaf, file))
        return -ENAMETOOLONG;
    cleanup(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static bool has_word(const char *dir, const char *file, const char *word)
{
    char path[768];
    cleanup(freep) char *text = NULL;
    size_t len;

    return path_fmt(path, sizeof(path), "%s/%s", dir, file) == 0 &&
           file_read(path, 4096, &text, &len) == 0 && strstr(text, word);
}

static bool delegated(const char *dir)
{
    char v[4] = "";

    return (getpid() == 1 && access(dir, W_OK) == 0) ||
           (getxattr(dir, "user.delegate", v, sizeof(v) - 1) == 1 && v[0] == '1') ||
           (getxattr(dir, "trusted.delegate", v, sizeof(v) - 1) == 1 && v[0] == '1');
}

static int leaf_make(const char *name, pid_t pid)
{
    char path[768], number[24];

    if (path_fmt(path, sizeof(path), "%s/%s", base, name))
        return -ENAMETOOLONG;
    if (mkdir(path, 0755) && errno != EEXIST)
        return -errno;
    snprintf(number, sizeof(number), "%d", (int)pid);
    return pid ? put(name, "cgroup.procs", number) : 0;
}

void cgroup_open(void)
{
    cleanup(freep) char *own = NULL, *mounts = NULL;
    char path[256], mount[128], dir[512];
    size_t len;

    if (file_read("/proc/self/cgroup", TEXT_MAX, &own, &len) ||
        file_read("/proc/self/mountinfo", TEXT_MAX, &mounts, &len) ||
        !cgroup_own_path(own, path, sizeof(path)) ||
        !cgroup_mount_point(mounts, mount, sizeof(mount)) ||
        path_fmt(dir, sizeof(dir), "%s%s", mount, str_eq(path, "/") ? "" : path))
        return;
    if (!has_word(dir, "cgroup.controllers", "memory") ||
        !has_word(dir, "cgroup.controllers", "pids") || !delegated(dir))
        return;
    cgroup_use(dir);
    int r = leaf_make("init", getpid());

    if (!r)
        r = put("", "cgroup.subtree_control", "+memory +pids");
    if (r) {
        log_warn("%s: %s; agents and units run without a cgroup", dir, strerror(-r));
        base[0] = '\0';
    }
}

static void limit(const char *leaf, const char *file, int64_t value)
{
    char number[24];

    if (!value)
        return;
    snprintf(number, sizeof(number), "%lld", (long long)value);
    int r = put(leaf, file, number);

    if (r)
        log_warn("cgroup %s: %s: %s", leaf, file, strerror(-r));
}

void cgroup_enter(const char *name, pid_t pid, int64_t memory_mib, int64_t pids)
{
    if (!cgroup_available())
        return;
    int r = leaf_make(name, 0);

    if (!r) {
        limit(name, "memory.max", memory_mib << 20);
        limit(name, "pids.max", pids);
        r = leaf_make(name, pid);
    }
    if (r)
        log_warn("cgroup %s: %s", name, strerror(-r));
}

bool cgroup_oom(const char *name)
{
    char path[768];
    cleanup(freep) char *text = NULL;
    size_t len;

    if (!cgroup_available() || path_fmt(path, sizeof(path), "%s/%s/memory.events", base, name) ||
        file_read(path, 4096, &text, &len))
        return false;
    const char *p = strstr(text, "oom_kill ");

    return p && strtoll(p + strlen("oom_kill "), NULL, 10) > 0;
}

void cgroup_leave(const char *name)
{
    char path[768];

    if (!cgroup_available() || path_fmt(path, sizeof(path), "%s/%s", base, name))
        return;
    (void)put(name, "cgroup.kill", "1");
    (void)rmdir(path); /* busy while its last process dies: the next start takes it over */
}
