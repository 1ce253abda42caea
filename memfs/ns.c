/*
 * Path to place. Mounts (data/users and its siblings) stay open for good; an ownership root is
 * opened below its mount for each operation, without following links, so a root that was deleted
 * and made again is never confused with its former self.
 *
 * Who a scratch folder belongs to is written into a hidden file in it by the first call that knows:
 * the folder outlives the agent, the kernel's table of live agents does not.
 */
#include "memfs/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "memfs/beneath.h"

#define OWNER_FILE ".avix-tmp-owner"
#define DIR_FLAGS  (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

enum mount { M_ETC, M_BIN, M_USERS, M_CREWS, M_SERVICES, M_SCRATCH, M_COUNT };
static const char *const mount_dirs[M_COUNT] = { "etc",        "data/bin",      "data/users",
                                                 "data/crews", "data/services", "data/scratch" };
static int mount_fds[M_COUNT] = { -1, -1, -1, -1, -1, -1 };

/* First component after prefix/ into name; rest points behind it. False if there is none. */
static bool split_name(const char *path, size_t skip, struct loc *l)
{
    const char *at = path + skip;
    size_t n;

    if (*at != '/')
        return false;
    n = strcspn(++at, "/");
    if (!n || n >= sizeof(l->name))
        return false;
    memcpy(l->name, at, n);
    l->name[n] = '\0';
    l->rest = at + n + (at[n] == '/');
    return true;
}

static void locate_proc(struct loc *l)
{
    const char *rest;
    struct loc tmp = { .area = AREA_PROC };

    l->area = AREA_PROC;
    l->rest = l->path + strlen(l->path);
    if (!split_name(l->path, strlen("/proc"), &tmp) ||
        !parse_i64(tmp.name, 0, (1LL << 53) - 1, &l->pid) || (tmp.name[0] == '0' && tmp.name[1]))
        return;
    rest = tmp.rest;
    if (strncmp(rest, "scratch", 7) != 0 || (rest[7] && rest[7] != '/'))
        return;
    l->area = AREA_SCRATCH;
    str_copy(l->name, sizeof(l->name), tmp.name);
    l->rest = rest + 7 + (rest[7] == '/');
}

int ns_locate_normal(const char *path, struct loc *l)
{
    static const struct {
        const char *dir;
        enum area self, below; /* below: with a name of its own; AREA_NONE: the mount is the root */
    } tops[] = {
        { "/secrets", AREA_SECRETS, AREA_NONE }, { "/etc/avix", AREA_ETC, AREA_NONE },
        { "/bin", AREA_BIN, AREA_NONE },         { "/users", AREA_USERS, AREA_USER },
        { "/crews", AREA_CREWS, AREA_CREW },     { "/services", AREA_SERVICES, AREA_SERVICE },
        { "/kernel", AREA_KERNEL, AREA_NONE },   { "/tools", AREA_TOOLS, AREA_NONE },
    };

    if (l->path != path && !str_copy(l->path, sizeof(l->path), path))
        return ERR_NAMETOOLONG;
    l->name[0] = '\0';
    l->pid = 0;
    l->rest = l->path + strlen(l->path);
    l->area = AREA_NONE;
    if (str_eq(l->path, "/") || str_eq(l->path, "/etc")) {
        l->area = AREA_ROOT;
        return 0;
    }
    if (vpath_beneath(l->path, "/proc")) {
        locate_proc(l);
        return 0;
    }
    for (size_t i = 0; i < N_ELEMS(tops); i++) {
        size_t n = strlen(tops[i].dir);

        if (strncmp(l->path, tops[i].dir, n) != 0 || (l->path[n] && l->path[n] != '/'))
            continue;
        l->area = tops[i].self;
        if (tops[i].below == AREA_NONE)
            l->rest = l->path + n + (l->path[n] == '/');
        else if (split_name(l->path, n, l))
            l->area = tops[i].below;
        break;
    }
    return 0;
}

int ns_locate(const char *path, size_t len, struct loc *ret)
{
    int r = vpath_normalise(path, len, ret->path);

    return r ? r : ns_locate_normal(ret->path, ret);
}

bool ns_is_local(enum area a)
{
    return a == AREA_ETC || a == AREA_BIN || a == AREA_USERS || a == AREA_USER || a == AREA_CREWS ||
           a == AREA_CREW || a == AREA_SERVICES || a == AREA_SERVICE || a == AREA_SCRATCH;
}

bool ns_is_synthetic(enum area a)
{
    return a == AREA_PROC || a == AREA_KERNEL || a == AREA_TOOLS;
}

static bool in_workspace(const struct loc *l)
{
    return l->area == AREA_SERVICE && strncmp(l->rest, "workspace", 9) == 0 &&
           (!l->rest[9] || l->rest[9] == '/');
}

bool ns_same_root(const struct loc *a, const struct loc *b)
{
    return a->area == b->area && str_eq(a->name, b->name) && in_workspace(a) == in_workspace(b);
}

int ns_init(const char *root)
{
    char path[512];

    for (int i = 0; i < M_COUNT; i++) {
        int r = path_fmt(path, sizeof(path), "%s/%s", root, mount_dirs[i]);

        if (!r)
            r = mkdir_p(path, 0700);
        if (r)
            return r;
        mount_fds[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (mount_fds[i] < 0)
            return -errno;
    }
    return 0;
}

void ns_done(void)
{
    for (int i = 0; i < M_COUNT; i++)
        closep(&mount_fds[i]);
}

/* data/services/<n>@<active>, or the workspace that outlives versions. */
static int open_service(const struct loc *l, const char **rel)
{
    char path[640];
    cleanup(freep) char *version = NULL;
    size_t len = 0;
    int r;

    if (in_workspace(l)) {
        *rel = l->rest + 9 + (l->rest[9] == '/');
        r = path_fmt(path, sizeof(path), ".state/%s/workspace", l->name);
        return r ? r : beneath_open(mount_fds[M_SERVICES], path, DIR_FLAGS, 0);
    }
    r = path_fmt(path, sizeof(path), ".active/%s", l->name);
    if (!r)
        r = file_readat(mount_fds[M_SERVICES], path, 128, &version, &len);
    if (r)
        return r > 0 ? -EINVAL : r;
    version[strcspn(version, "\r\n/")] = '\0';
    r = path_fmt(path, sizeof(path), "%s@%s", l->name, version);
    return r ? r : beneath_open(mount_fds[M_SERVICES], path, DIR_FLAGS, 0);
}

static int open_named(enum mount m, const char *name)
{
    int fd = openat(mount_fds[m], name, DIR_FLAGS);

    if (fd < 0)
        return errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
    return fd;
}

int ns_open_root(const struct loc *l, bool make, const char **rel)
{
    *rel = l->rest;
    if (l->area == AREA_ETC || l->area == AREA_BIN)
        return beneath_open(mount_fds[l->area == AREA_ETC ? M_ETC : M_BIN], "",
                            O_RDONLY | O_DIRECTORY, 0);
    if (l->area == AREA_USER)
        return open_named(M_USERS, l->name);
    if (l->area == AREA_CREW)
        return open_named(M_CREWS, l->name);
    if (l->area == AREA_SERVICE)
        return open_service(l, rel);
    if (l->area == AREA_SCRATCH) {
        if (make && mkdirat(mount_fds[M_SCRATCH], l->name, 0700) && errno != EEXIST)
            return -errno;
        return open_named(M_SCRATCH, l->name);
    }
    if (l->area == AREA_USERS)
        return beneath_open(mount_fds[M_USERS], "", O_RDONLY | O_DIRECTORY, 0);
    if (l->area == AREA_CREWS)
        return beneath_open(mount_fds[M_CREWS], "", O_RDONLY | O_DIRECTORY, 0);
    if (l->area == AREA_SERVICES)
        return beneath_open(mount_fds[M_SERVICES], "", O_RDONLY | O_DIRECTORY, 0);
    return -ENOENT;
}

int ns_mount_fd(const struct loc *l, const char **rel)
{
    static const struct {
        enum area area;
        enum mount m;
        size_t skip;
    } t[] = { { AREA_USER, M_USERS, sizeof("/users") },
              { AREA_CREW, M_CREWS, sizeof("/crews") },
              { AREA_BIN, M_BIN, sizeof("/bin") } };

    for (size_t i = 0; i < N_ELEMS(t); i++)
        if (t[i].area == l->area && strlen(l->path) > t[i].skip) {
            *rel = l->path + t[i].skip;
            return mount_fds[t[i].m];
        }
    return -1;
}

void ns_scratch_owner(const struct loc *l, char *user, size_t size)
{
    char path[300];
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    user[0] = '\0';
    if (!path_fmt(path, sizeof(path), "%s/" OWNER_FILE, l->name) &&
        !file_readat(mount_fds[M_SCRATCH], path, 255, &text, &len))
        str_copy(user, size, text);
}

void ns_scratch_own(const struct loc *l, const char *user)
{
    char path[300];

    if (str_empty(user) || path_fmt(path, sizeof(path), "%s/" OWNER_FILE, l->name))
        return;
    cleanup(closep) int fd = openat(mount_fds[M_SCRATCH], path,
                                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0)
        (void)!write_all(fd, user, strlen(user));
}

static int fd_cmp(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

void ns_close_others(int keep)
{
    int fds[M_COUNT + 1];
    unsigned from = 3;

    memcpy(fds, mount_fds, sizeof(mount_fds));
    fds[M_COUNT] = keep;
    qsort(fds, N_ELEMS(fds), sizeof(fds[0]), fd_cmp);
    for (size_t i = 0; i < N_ELEMS(fds); i++) {
        if (fds[i] < (int)from)
            continue;
        if (fds[i] > (int)from)
            close_range(from, (unsigned)fds[i] - 1, 0);
        from = (unsigned)fds[i] + 1;
    }
    close_range(from, ~0U, 0);
}

const char *ns_mount(size_t i, int *fd)
{
    static const char *const paths[M_COUNT] = { "/etc/avix", "/bin",      "/users",
                                                "/crews",    "/services", "/proc/<pid>/scratch" };

    if (i >= M_COUNT)
        return NULL;
    *fd = mount_fds[i];
    return paths[i];
}
