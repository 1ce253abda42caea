/*
 * What a unit inherits from init: paths in the environment, sockets by LISTEN_FDNAMES, sub-keys on
 * a memfd, the service token. Secrets are copied into locked memory and wiped where they came from.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/base/fsx.h"
#include "common/svc/svc_internal.h"

#define FD_FIRST  3
#define FDS_MAX   16
#define EX_CONFIG 64

static struct {
    char name[32];
    int fd;
} inherited[FDS_MAX];
static size_t n_inherited;

/* One page, locked: the keys and which of them are there. */
static struct locked {
    uint8_t key[KEY_COUNT][KEY_LEN];
    bool have[KEY_COUNT];
} * locked;

static const char *env_need(const char *name)
{
    const char *v = getenv(name);

    if (str_empty(v))
        die(EX_CONFIG, "%s is not set: this program is started by avix-init", name);
    return v;
}

static void fds_read(void)
{
    const char *pid = getenv("LISTEN_PID"), *names = getenv("LISTEN_FDNAMES");
    int64_t n = 0, for_pid = 0;

    if (!parse_i64(getenv("LISTEN_FDS") ? getenv("LISTEN_FDS") : "0", 0, FDS_MAX, &n))
        die(EX_CONFIG, "LISTEN_FDS is malformed");
    if (pid && (!parse_i64(pid, 1, INT32_MAX, &for_pid) || for_pid != getpid()))
        die(EX_CONFIG, "LISTEN_PID is for another process");
    for (int i = 0; i < n && names && *names; i++) {
        size_t len = strcspn(names, ":");

        if (len < sizeof(inherited[0].name)) {
            memcpy(inherited[n_inherited].name, names, len);
            inherited[n_inherited].name[len] = '\0';
            inherited[n_inherited++].fd = FD_FIRST + i;
        }
        (void)fcntl(FD_FIRST + i, F_SETFD, FD_CLOEXEC);
        names += len + (names[len] == ':');
    }
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
}

int svc_fd(const char *name)
{
    for (size_t i = 0; i < n_inherited; i++) {
        if (str_eq(inherited[i].name, name)) {
            int fd = inherited[i].fd;

            inherited[i].name[0] = '\0';
            inherited[i].fd = -1;
            return fd;
        }
    }
    return -1;
}

static void locked_new(void)
{
    void *p =
        mmap(NULL, sizeof(*locked), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        die(71, "no memory for the keys");
    if (mlock(p, sizeof(*locked)))
        svc_degraded("locked memory");
    (void)madvise(p, sizeof(*locked), MADV_DONTDUMP);
    (void)madvise(p, sizeof(*locked), MADV_WIPEONFORK);
    locked = p;
}

static void keys_read(void)
{
    cleanup(closep) int fd = svc_fd("keys");
    struct key_record rec;
    off_t at = 0;

    if (fd < 0)
        return;
    locked_new();
    while (pread(fd, &rec, sizeof(rec), at) == (ssize_t)sizeof(rec)) {
        at += (off_t)sizeof(rec);
        for (int k = 0; k < KEY_COUNT; k++) {
            if (strncmp(rec.name, key_names[k], sizeof(rec.name)) == 0) {
                memcpy(locked->key[k], rec.key, KEY_LEN);
                locked->have[k] = true;
            }
        }
    }
    explicit_bzero(&rec, sizeof(rec));
}

const uint8_t *svc_key(enum key_id k)
{
    return locked && locked->have[k] ? locked->key[k] : NULL;
}

/* The token leaves the environment for good: /proc/<pid>/environ shows the same bytes. */
static void token_read(void)
{
    char *t = getenv("AVIX_SVC_TOKEN");

    if (!t)
        return;
    svc.token = xstrdup(t);
    explicit_bzero(t, strlen(t));
    unsetenv("AVIX_SVC_TOKEN");
}

void svc_env_read(const struct svc_spec *spec)
{
    const char *level = getenv("AVIX_LOG_LEVEL");
    enum log_level l = LOG_INFO;

    svc.spec = spec;
    svc.unit = &unit_rows[spec->unit];
    if (level && !log_level_parse(level, &l))
        l = LOG_INFO;
    log_init(svc.unit->name, true, l);
    svc.init_pid = getppid();
    if (prctl(PR_SET_PDEATHSIG, SIGTERM))
        svc_degraded("parent death signal");
    if (!str_copy(svc.root, sizeof(svc.root), env_need("AVIX_ROOT")) ||
        !str_copy(svc.run_dir, sizeof(svc.run_dir), env_need("AVIX_RUN_DIR")) ||
        path_fmt(svc.router_sock, sizeof(svc.router_sock), "%s", svc_sock(UNIT_ROUTER)))
        die(EX_CONFIG, "AVIX_ROOT or AVIX_RUN_DIR is too long");
    fds_read();
    keys_read();
    token_read();
    svc.listen_fd = svc_fd(svc.unit->name);
    if (svc.listen_fd < 0)
        die(EX_CONFIG, "no listening socket named %s was handed down", svc.unit->name);
    int fl = fcntl(svc.listen_fd, F_GETFL);

    if (fl < 0 || fcntl(svc.listen_fd, F_SETFL, fl | O_NONBLOCK))
        die(EX_CONFIG, "listening socket: %s", strerror(errno));
}

const char *svc_sock(enum unit_id u)
{
    static char paths[UNIT_COUNT + 1][108];
    int i = u == UNIT_INIT ? UNIT_COUNT : (int)u;

    if (i < 0 || i > UNIT_COUNT)
        return "";
    if (!paths[i][0] && path_fmt(paths[i], sizeof(paths[i]), "%s/%s", svc.run_dir,
                                 u == UNIT_INIT ? "init.sock" : unit_rows[i].socket))
        paths[i][0] = '\0';
    return paths[i];
}

void svc_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa = { .sun_family = AF_UNIX };

    if (str_empty(path) || strlen(path) >= sizeof(sa.sun_path))
        return;
    memcpy(sa.sun_path, path, strlen(path));
    if (*path == '@')
        sa.sun_path[0] = '\0';
    cleanup(closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (*path != '@'));

    if (fd >= 0 && sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&sa, len) < 0)
        log_warn("%s: %s", path, strerror(errno));
}

void svc_status(const char *text)
{
    cleanup(freep) char *s = xasprintf("STATUS=%s", text);

    svc_notify(s);
}

void svc_degraded(const char *what)
{
    cleanup(freep) char *s = xasprintf("X_AVIX_DEGRADED=%s", what);

    log_warn("running without %s", what);
    svc_notify(s);
}
