/*
 * All that must hold before the first process is started, in the order in which a user can do
 * something about it: the root and its files, the run dir, the lock, socket paths. A failure is one
 * AVIX_BOOT_ERROR line that names the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/base/fsx.h"
#include "kernel/init/init.h"

static int sockets[UNIT_COUNT];
static bool sockets_made;

_Noreturn void boot_fail(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    dprintf(init.stderr_fd, "AVIX_BOOT_ERROR: ");
    vdprintf(init.stderr_fd, fmt, ap);
    dprintf(init.stderr_fd, "\n");
    va_end(ap);
    if (init.loop) {
        logs_flush();
        shutdown_hurry();
        shutdown_reap();
    }
    if (sockets_made)
        sockets_remove();
    keys_wipe();
    exit(status);
}

static void root_check(void)
{
    cleanup(freep) char *real = realpath(init.opts.root, NULL);

    if (!real && errno == ENOENT)
        boot_fail(EXIT_CONFIG, "%s/etc/auth.conf not found; run: avix server config init --root %s",
                  init.opts.root, init.opts.root);
    if (!real)
        boot_fail(EXIT_CONFIG, "%s: %s", init.opts.root, strerror(errno));
    if (!str_copy(init.root, sizeof(init.root), real))
        boot_fail(EXIT_CONFIG, "%s: path of the root is too long", init.opts.root);
    if (access(init.root, R_OK | W_OK | X_OK))
        boot_fail(EXIT_CONFIG, "%s: %s", init.root, strerror(errno));
}

static void need_file(const char *name)
{
    char path[512];

    if (path_fmt(path, sizeof(path), "%s/etc/%s", init.root, name))
        boot_fail(EXIT_CONFIG, "%s: path of the root is too long", init.root);
    if (access(path, R_OK) == 0)
        return;
    if (errno == ENOENT)
        boot_fail(EXIT_CONFIG, "%s not found; run: avix server config init --root %s", path,
                  init.root);
    boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(errno));
}

static _Noreturn void config_fail(const char *name, int r, const struct yaml_err *e)
{
    if (r < 0)
        boot_fail(EXIT_CONFIG, "%s/etc/%s: %s", init.root, name, strerror(-r));
    boot_fail(EXIT_CONFIG, "%s/etc/%s:%d: %s", init.root, name, e->line, e->msg);
}

static void config_check(void)
{
    char path[512];
    struct yaml_err e = { 0 };
    cleanup(json_putp) json_object *auth = NULL;

    need_file("auth.conf");
    need_file("kernel.yaml");
    (void)path_fmt(path, sizeof(path), "%s/etc/auth.conf", init.root);
    int r = yaml_load(path, &auth, &e);

    if (r)
        config_fail("auth.conf", r, &e);
    r = kernel_config_load(init.root, &init.config, &e);
    if (r)
        config_fail("kernel.yaml", r, &e);
    struct kernel_config *c = init.config;

    if (init.opts.port >= 0)
        c->port = init.opts.port;
    if (init.opts.bind)
        str_copy(c->bind, sizeof(c->bind), init.opts.bind);
    if (init.opts.admin_addr)
        str_copy(c->admin_addr, sizeof(c->admin_addr), init.opts.admin_addr);
    if (!init.opts.log_level)
        init.opts.log_level = c->log_level;
}

/* Ours, 0700, a directory and no link. Made if it is missing. */
static int dir_check(const char *path, const char **why)
{
    struct stat st;

    if (mkdir(path, 0700) && errno != EEXIST) {
        *why = strerror(errno);
        return -1;
    }
    if (lstat(path, &st)) {
        *why = strerror(errno);
    } else if (!S_ISDIR(st.st_mode)) {
        *why = S_ISLNK(st.st_mode) ? "is a symbolic link" : "is no directory";
    } else if (st.st_uid != geteuid()) {
        *why = "belongs to another user";
    } else if ((st.st_mode & 077) && chmod(path, 0700)) {
        *why = "is open to others";
    } else {
        return 0;
    }
    return -1;
}

static void run_dir_choose(void)
{
    char path[256];
    const char *why = "", *xdg = getenv("XDG_RUNTIME_DIR"), *over = getenv("AVIX_RUN_DIR");
    bool ok;

    if (!str_empty(over)) {
        cleanup(freep) char *parent = xstrdup(over);
        char *slash = strrchr(parent, '/');

        if (slash && slash != parent) {
            *slash = '\0';
            (void)mkdir_p(parent, 0700);
        }
        ok = over[0] == '/' && path_fmt(path, sizeof(path), "%s", over) == 0;
        for (size_t n = ok ? strlen(path) : 0; n > 1 && path[n - 1] == '/'; n--)
            path[n - 1] = '\0'; /* behind a slash a link would not look like one */
        if (!ok || dir_check(path, &why))
            boot_fail(EXIT_CONFIG, "run directory %s: %s", over,
                      *why ? why : "must be an absolute path");
    } else {
        ok = path_fmt(path, sizeof(path), "/run/avix") == 0 && access("/run", W_OK) == 0 &&
             dir_check(path, &why) == 0;
        if (!ok && !str_empty(xdg))
            ok = path_fmt(path, sizeof(path), "%s/avix", xdg) == 0 && dir_check(path, &why) == 0;
        if (!ok)
            ok = path_fmt(path, sizeof(path), "%s/run", init.root) == 0 &&
                 dir_check(path, &why) == 0;
        if (!ok)
            boot_fail(EXIT_CONFIG, "run directory %s: %s", path, why);
    }
    if (!str_copy(init.run_dir, sizeof(init.run_dir), path))
        boot_fail(EXIT_CONFIG,
                  "run directory %s: socket paths beneath it would be longer than 107 "
                  "bytes",
                  path);
}

/* Subdirectories of the run dir: one per unit for its own state, agents/ is the kernel's. */
static void run_dirs_make(void)
{
    char path[256];
    const char *why = "";

    for (int i = 0; i <= UNIT_COUNT; i++) {
        const char *name = i == UNIT_COUNT ? "agents" : unit_rows[i].name;

        if (path_fmt(path, sizeof(path), "%s/%s", init.run_dir, name) || dir_check(path, &why))
            boot_fail(EXIT_CONFIG, "%s: %s", path, why);
    }
}

/* Two daemons on one root, or in one run dir, would destroy each other's state. */
static int lock_take(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    char text[32] = "";

    if (fd < 0)
        boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        ssize_t n = read(fd, text, sizeof(text) - 1);

        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        boot_fail(EXIT_RUNNING, "already running, pid %s", text[0] ? text : "unknown");
    }
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
        boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(errno));
    return fd;
}

static void dirs_and_lock(void)
{
    static const char *const dirs[] = { "data", "logs", "logs/agents" };
    char path[512];

    for (size_t i = 0; i < N_ELEMS(dirs); i++) {
        (void)path_fmt(path, sizeof(path), "%s/%s", init.root, dirs[i]);
        int r = mkdir_p(path, 0700);

        if (r)
            boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(-r));
    }
    (void)path_fmt(path, sizeof(path), "%s/data/init.lock", init.root);
    init.lock_fd = lock_take(path);
    run_dir_choose();
    (void)path_fmt(path, sizeof(path), "%s/init.lock", init.run_dir);
    init.run_lock_fd = lock_take(path);
    run_dirs_make();
}

static void limits_raise(void)
{
    struct rlimit rl;

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max > 65536 ? 65536 : rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
}

void preflight(void)
{
    root_check();
    config_check();
    dirs_and_lock();
    limits_raise();
}

static int unix_listen(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    const char *group = init.config->socket_group;

    memcpy(sa.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) ||
        chmod(path, *group ? 0660 : 0600) || listen(fd, BACKLOG))
        boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(errno));
    if (*group) {
        const struct group *g = getgrnam(group);

        if (!g)
            boot_fail(EXIT_CONFIG, "%s/etc/kernel.yaml: spec.ipc.socketGroup: no group '%s'",
                      init.root, group);
        if (chown(path, (uid_t)-1, g->gr_gid))
            boot_fail(EXIT_CONFIG, "%s: %s", path, strerror(errno));
    }
    return fd;
}

void sockets_bind(void)
{
    char path[256];

    sockets_made = true;
    for (int i = 0; i < UNIT_COUNT; i++) {
        sockets[i] = -1;
        if (path_fmt(path, sizeof(path), "%s/%s", init.run_dir, unit_rows[i].socket) ||
            strlen(path) > 107)
            boot_fail(EXIT_CONFIG, "socket path is longer than 107 bytes: %s/%s", init.run_dir,
                      unit_rows[i].socket);
        sockets[i] = unix_listen(path);
    }
    if (path_fmt(path, sizeof(path), "%s/agents/4294967295.sock", init.run_dir) ||
        strlen(path) > 107)
        boot_fail(EXIT_CONFIG, "socket path is longer than 107 bytes: %s", path);
}

int socket_of(enum unit_id u)
{
    return sockets[u];
}

void sockets_remove(void)
{
    static const char *const others[] = { "init.sock", "notify.sock", "units.json", "registry.json",
                                          "registry.log" };
    char path[256];

    for (int i = 0; i < UNIT_COUNT; i++)
        if (path_fmt(path, sizeof(path), "%s/%s", init.run_dir, unit_rows[i].socket) == 0)
            (void)unlink(path);
    for (size_t i = 0; i < N_ELEMS(others); i++)
        if (path_fmt(path, sizeof(path), "%s/%s", init.run_dir, others[i]) == 0)
            (void)unlink(path);
}
