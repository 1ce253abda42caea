/*
 * /box is a tmpfs of the sandbox, so its size has a ceiling, nothing of it outlives the sandbox,
 * and no path of the host leads there. We reach it through /proc/<pid>/root of the sandbox's init
 * while the program inside waits, and keep the descriptor: it still works when the sandbox is gone,
 * which is when artifacts are taken out.
 *
 * bwrap gets its arguments through a descriptor: environment and paths are in no process list.
 */
#include "execsvc/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "execsvc/child.h"
#include "execsvc/filter.h"

#define TMP_BYTES (64 << 20)
#define BOX_UID   "65534"

/* Numbers of descriptors in bwrap. Those of the waiting shell have one digit: dash knows no more.
 */
enum { FD_READY = 3, FD_GO = 4, FD_ARGS = 10, FD_FILTER, FD_INFO, FD_MADE, FD_MOUNTS = 20 };

/*
 * The init of the sandbox. It stays as the parent of the program, so that its end is the end of
 * everything inside, and what the program used is counted up to us; bwrap's own init would let go
 * of it earlier. What the shell says about a killed program is not the program's output.
 */
static const char waiter[] = "printf x >&3; read -r _ <&4; exec 3>&- 4<&- 5>&2 2>/dev/null; "
                             "ulimit -p \"$1\" || ulimit -u \"$1\"; "
                             "shift; (exec \"$@\" 2>&5 5>&-); exit $?";

static const struct {
    const char *path, *text;
} made[] = {
    { "/etc/passwd", "root:x:0:0::/nonexistent:/usr/sbin/nologin\n"
                     "box:x:65534:65534::/box:/bin/sh\n" },
    { "/etc/group", "root:x:0:\nbox:x:65534:\n" },
    { "/etc/hosts", "127.0.0.1 localhost avix\n::1 localhost avix\n" },
    { "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n" },
};

static void arg(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s) + 1);
}

static void args(struct buf *b, const char *const *list)
{
    for (; *list; list++)
        arg(b, *list);
}

static void arg_n(struct buf *b, const char *option, int64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)n);
    arg(b, option);
    arg(b, text);
}

/* A system folder: the link it is on this host, or the folder itself. */
static void system_dir(struct buf *b, const char *path)
{
    char to[256];
    ssize_t n = readlink(path, to, sizeof(to) - 1);

    if (n > 0) {
        to[n] = '\0';
        args(b, (const char *const[]){ "--symlink", to, path, NULL });
    } else {
        args(b, (const char *const[]){ "--ro-bind-try", path, path, NULL });
    }
}

static void file_args(struct buf *b, const struct box_spec *s)
{
    static const char *const system_dirs[] = { "/lib",    "/lib32", "/lib64",
                                               "/libx32", "/bin",   "/sbin" };
    static const char *const etc[] = { "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs",
                                       "/etc/localtime" };

    args(b, (const char *const[]){ "--ro-bind", "/usr", "/usr", NULL });
    for (size_t i = 0; i < N_ELEMS(system_dirs); i++)
        system_dir(b, system_dirs[i]);
    for (size_t i = 0; i < N_ELEMS(etc); i++)
        args(b, (const char *const[]){ "--ro-bind-try", etc[i], etc[i], NULL });
    for (size_t i = 0; i < N_ELEMS(made); i++) {
        arg_n(b, "--ro-bind-data", FD_MADE + (int)i);
        arg(b, made[i].path);
    }
    if (s->share_net)
        args(b, (const char *const[]){ "--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf",
                                       NULL });
    if (s->rt && s->rt->prefix[0])
        args(b, (const char *const[]){ "--ro-bind", s->rt->prefix, s->rt->prefix, NULL });
    args(b, (const char *const[]){ "--proc", "/proc", "--dev", "/dev", NULL });
    arg_n(b, "--size", TMP_BYTES);
    args(b, (const char *const[]){ "--tmpfs", "/dev/shm", NULL });
    arg_n(b, "--size", TMP_BYTES);
    args(b, (const char *const[]){ "--tmpfs", "/tmp", "--perms", "0700", NULL });
    arg_n(b, "--size", s->limits->file_mb << 20);
    args(b, (const char *const[]){ "--tmpfs", "/box", NULL });
    for (size_t i = 0; i < s->n_mounts; i++) {
        arg_n(b, s->mounts[i].rw ? "--bind-fd" : "--ro-bind-fd", FD_MOUNTS + (int)i);
        arg(b, s->mounts[i].at);
    }
    args(b, (const char *const[]){ "--chdir", "/box", NULL });
}

static void env_args(struct buf *b, const struct box_spec *s)
{
    cleanup(freep) char *path =
        xasprintf("%s%s/usr/local/bin:/usr/bin:/bin", s->rt ? s->rt->prefix : "",
                  s->rt && s->rt->prefix[0] ? "/bin:" : "");

    args(b, (const char *const[]){ "--clearenv", "--setenv", "PATH", path, "--setenv", "HOME",
                                   "/box", "--setenv", "TMPDIR", "/tmp", "--setenv", "LANG",
                                   "C.UTF-8", NULL });
    if (s->env) {
        json_object_object_foreach (s->env, key, val)
            args(b, (const char *const[]){ "--setenv", key, json_object_get_string(val), NULL });
    }
}

static int args_memfd(const struct box_spec *s)
{
    struct buf b = BUF_INIT(1 << 20);
    int fd;

    args(&b, (const char *const[]){ "--unshare-user", "--unshare-all", NULL });
    if (s->share_net)
        arg(&b, "--share-net");
    args(&b, (const char *const[]){ "--disable-userns", "--die-with-parent", "--new-session",
                                    "--as-pid-1", "--cap-drop", "ALL", "--hostname", "avix",
                                    "--uid", BOX_UID, "--gid", BOX_UID, NULL });
    env_args(&b, s);
    file_args(&b, s);
    arg_n(&b, "--seccomp", FD_FILTER);
    arg_n(&b, "--info-fd", FD_INFO);
    fd = b.toobig ? -E2BIG : memfd_sealed("args", b.data, b.len);
    buf_done(&b);
    return fd;
}

struct pipes {
    int out[2], err[2], ready[2], go[2], info[2];
};

static void pipes_close(struct pipes *p)
{
    int *fds = p->out; /* ten in a row */

    for (size_t i = 0; i < sizeof(*p) / sizeof(int); i++)
        closep(&fds[i]);
}

static int pipes_open(struct pipes *p)
{
    memset(p, 0xff, sizeof(*p));
    if (pipe2(p->out, O_CLOEXEC) || pipe2(p->err, O_CLOEXEC) || pipe2(p->ready, O_CLOEXEC) ||
        pipe2(p->go, O_CLOEXEC) || pipe2(p->info, O_CLOEXEC))
        return -errno;
    return 0;
}

struct handed {
    struct child_fd v[12 + MOUNTS_MAX];
    size_t n;
    int owned[8];
    size_t n_owned;
};

static void handed_close(struct handed *h)
{
    for (size_t i = 0; i < h->n_owned; i++)
        close(h->owned[i]);
}

static void hand(struct handed *h, int fd, int at)
{
    h->v[h->n++] = (struct child_fd){ .fd = fd, .at = at };
}

static int hand_own(struct handed *h, int fd, int at)
{
    if (fd < 0)
        return fd;
    h->owned[h->n_owned++] = fd;
    hand(h, fd, at);
    return 0;
}

static int hand_all(struct handed *h, const struct box_spec *s, const struct pipes *p)
{
    int r = hand_own(h, args_memfd(s), FD_ARGS);

    if (!r)
        r = hand_own(h, filter_export(), FD_FILTER);
    for (size_t i = 0; !r && i < N_ELEMS(made); i++)
        r = hand_own(h, memfd_sealed("made", made[i].text, strlen(made[i].text)), FD_MADE + (int)i);
    if (s->stdin_fd >= 0)
        hand(h, s->stdin_fd, 0);
    hand(h, p->out[1], 1);
    hand(h, p->err[1], 2);
    hand(h, p->ready[1], FD_READY);
    hand(h, p->go[0], FD_GO);
    hand(h, p->info[1], FD_INFO);
    for (size_t i = 0; i < s->n_mounts; i++)
        hand(h, s->mounts[i].fd, FD_MOUNTS + (int)i);
    return r;
}

static pid_t launch(const struct box_spec *s, const struct handed *h, int *pidfd)
{
    static const char *const env[] = { "PATH=/usr/bin:/bin", NULL };
    const struct limits *l = s->limits;
    rlim_t cpu = (rlim_t)(2 * l->timeout_ms + 999) / 1000;
    struct child_limit limits[] = {
        { RLIMIT_CORE, 0, 0 },
        { RLIMIT_DATA, (rlim_t)l->memory_mb << 20, (rlim_t)l->memory_mb << 20 },
        { RLIMIT_CPU, cpu, cpu + 1 },
        { RLIMIT_FSIZE, (rlim_t)l->file_mb << 20, (rlim_t)l->file_mb << 20 },
        { RLIMIT_NOFILE, (rlim_t)l->open_files, (rlim_t)l->open_files },
    };
    char n_args[8], n_processes[24];
    const char *argv[ARGS_MAX + 16] = { BWRAP, "--args", n_args, "--",       "/bin/sh",
                                        "-c",  waiter,   "sh",   n_processes };
    size_t n = 9;

    snprintf(n_args, sizeof(n_args), "%d", FD_ARGS);
    snprintf(n_processes, sizeof(n_processes), "%lld", (long long)l->processes);
    for (size_t i = 0; s->argv[i]; i++) {
        if (n == N_ELEMS(argv) - 1)
            return -E2BIG;
        argv[n++] = s->argv[i];
    }
    argv[n] = NULL;
    return child_start(&(struct child_spec){ .argv = argv,
                                             .envp = env,
                                             .fds = h->v,
                                             .n_fds = h->n,
                                             .limits = limits,
                                             .n_limits = N_ELEMS(limits) },
                       pidfd);
}

static int take(int *fd)
{
    int n = *fd;

    *fd = -1;
    fcntl(n, F_SETFL, O_NONBLOCK);
    return n;
}

int box_start(const struct box_spec *s, struct box *ret)
{
    cleanup(pipes_close) struct pipes p;
    cleanup(handed_close) struct handed h = { .n = 0 };
    struct box b = BOX_NONE;
    int r = pipes_open(&p);

    if (!r)
        r = hand_all(&h, s, &p);
    if (r)
        return r;
    b.pid = launch(s, &h, &b.pidfd);
    if (b.pid < 0)
        return b.pid;
    b.out = take(&p.out[0]);
    b.err = take(&p.err[0]);
    b.ready = take(&p.ready[0]);
    b.info = take(&p.info[0]);
    b.go = take(&p.go[1]);
    *ret = b;
    return 0;
}

int box_enter(struct box *b)
{
    char text[4096], path[64];
    cleanup(json_putp) json_object *o = NULL;
    ssize_t n = read(b->info, text, sizeof(text));
    int64_t pid;

    if (n <= 0 || json_parse(text, (size_t)n, &o))
        return -EPROTO;
    pid = json_int(o, "child-pid", 0);
    if (pid <= 1)
        return -EPROTO;
    snprintf(path, sizeof(path), "/proc/%lld/root/box", (long long)pid);
    b->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/%lld/root/proc", (long long)pid);
    b->proc = b->dir < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return b->proc < 0 ? -errno : 0;
}

static int open_in_box(int dir, const char *rel, int flags)
{
    struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                            .mode = flags & O_CREAT ? 0600 : 0,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV };
    long fd = syscall(SYS_openat2, dir, rel, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

int box_put(const struct box *b, const char *rel, const char *data, size_t len)
{
    char path[4100];
    cleanup(closep) int fd = -1;

    if (!str_copy(path, sizeof(path), rel))
        return -ENAMETOOLONG;
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdirat(b->dir, path, 0700) && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    fd = open_in_box(b->dir, path, O_WRONLY | O_CREAT | O_EXCL);
    return fd < 0 ? fd : write_all(fd, data, len);
}

int box_go(struct box *b)
{
    int r = write(b->go, "\n", 1) == 1 ? 0 : -errno;

    closep(&b->go);
    b->go = -1;
    return r;
}

/* Calls fn for each process inside; procfs of the sandbox lists them all. */
static void each_process(const struct box *b, void (*fn)(int dir, const char *pid, void *arg),
                         void *a)
{
    int fd = b->proc < 0 ? -1 : openat(b->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(dirp_close) DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9')
            fn(b->proc, e->d_name, a);
}

static void signal_one(int dir, const char *pid, void *a)
{
    cleanup(closep) int fd = -1;

    if (str_eq(pid, "1"))
        return;
    fd = openat(dir, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a pidfd of its own kind */
    if (fd >= 0)
        syscall(SYS_pidfd_send_signal, fd, *(int *)a, NULL, 0);
}

void box_signal(const struct box *b, int signo)
{
    each_process(b, signal_one, &signo);
}

void box_kill(const struct box *b)
{
    if (b->pid > 0) /* its init dies with it, and with that everything inside */
        syscall(SYS_pidfd_send_signal, b->pidfd, SIGKILL, NULL, 0);
}

struct usage {
    int64_t n, kb;
};

static void count_one(int dir, const char *pid, void *a)
{
    struct usage *u = a;
    char path[64], text[128];
    long long size, resident, shared;
    ssize_t n;

    u->n++;
    snprintf(path, sizeof(path), "%s/statm", pid);
    cleanup(closep) int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);

    n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return;
    text[n] = '\0';
    if (sscanf(text, "%lld %lld %lld", &size, &resident, &shared) == 3) // NOLINT(cert-err34-c)
        u->kb += (resident - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

void box_usage(const struct box *b, int64_t *processes, int64_t *memory_kb)
{
    struct usage u = { .n = 0 };

    each_process(b, count_one, &u);
    *processes = u.n;
    *memory_kb = u.kb;
}

void box_done(struct box *b)
{
    int *fds[] = { &b->pidfd, &b->out, &b->err, &b->ready, &b->go, &b->info, &b->dir, &b->proc };

    if (b->pid > 0) {
        box_kill(b);
        while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        b->pid = 0;
    }
    for (size_t i = 0; i < N_ELEMS(fds); i++) {
        closep(fds[i]);
        *fds[i] = -1;
    }
}
