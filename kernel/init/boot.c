/*
 * Readiness: children say READY=1 on notify.sock in the sd_notify protocol and are recognised by
 * the credentials of the datagram; when all required units are ready, one line goes to stdout and
 * READY=1 to systemd.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "kernel/init/init.h"

#define NOTIFY_MAX 4096

static int notify_fd = -1;
static struct watch notify_watch;

/* One datagram: lines of NAME=value. */
static void notify_lines(struct iunit *u, char *text)
{
    for (char *save = NULL, *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        if (str_eq(l, "READY=1"))
            unit_event(u, EV_READY);
        else if (str_starts(l, "STATUS="))
            str_copy(u->status_text, sizeof(u->status_text), l + 7);
        else if (str_starts(l, "X_AVIX_DEGRADED="))
            unit_missing(u, l + 16);
    }
}

static void on_notify(int fd, unsigned events, void *arg)
{
    char text[NOTIFY_MAX + 1];
    union {
        char buf[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } ctl;
    struct iovec iov = { text, NOTIFY_MAX };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
    };

    (void)events;
    (void)arg;
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
        return;
    struct ucred cred;

    memcpy(&cred, CMSG_DATA(c), sizeof(cred));
    struct iunit *u = unit_of_pid(cred.pid);

    text[n] = '\0';
    if (u)
        notify_lines(u, text);
}

static int dgram_addr(const char *path, struct sockaddr_un *sa, socklen_t *len)
{
    size_t n = strlen(path);

    if (n >= sizeof(sa->sun_path))
        return -ENAMETOOLONG;
    *sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(sa->sun_path, path, n);
    if (*path == '@')
        sa->sun_path[0] = '\0';
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*path != '@'));
    return 0;
}

void notify_open(void)
{
    struct sockaddr_un sa;
    socklen_t len;
    int one = 1;

    if (path_fmt(init.notify_sock, sizeof(init.notify_sock), "%s/notify.sock", init.run_dir) ||
        dgram_addr(init.notify_sock, &sa, &len))
        boot_fail(EXIT_CONFIG, "socket path is longer than 107 bytes: %s", init.run_dir);
    (void)unlink(init.notify_sock);
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *)&sa, len) ||
        chmod(init.notify_sock, 0600) ||
        setsockopt(notify_fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)))
        boot_fail(EXIT_CONFIG, "%s: %s", init.notify_sock, strerror(errno));
    watch_init(&notify_watch, init.loop, notify_fd, on_notify, NULL);
    watch_set(&notify_watch, LOOP_READ);
}

void systemd_notify(const char *text)
{
    struct sockaddr_un sa;
    socklen_t len;

    if (!init.systemd_notify[0] || dgram_addr(init.systemd_notify, &sa, &len))
        return;
    cleanup(closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&sa, len);
}

void boot_unit_failed(struct iunit *u)
{
    bool config = WIFEXITED(u->status) && WEXITSTATUS(u->status) == EXIT_CONFIG && u->pid == 0;
    struct buf b = BUF_INIT(65536);

    logs_flush();
    for (int i = 0; logfile_tail(u->log, i); i++)
        buf_printf(&b, "\n  %s", logfile_tail(u->log, i));
    cleanup(freep) char *tail = buf_take(&b);

    if (u->pid == 0 && WIFEXITED(u->status))
        boot_fail(config ? EXIT_CONFIG : 1, "unit %s ended with exit status %d%s", u->row->name,
                  WEXITSTATUS(u->status), tail);
    if (u->pid == 0 && WIFSIGNALED(u->status))
        boot_fail(1, "unit %s was killed by signal %d%s", u->row->name, WTERMSIG(u->status), tail);
    boot_fail(1, "unit %s not ready after %d s%s", u->row->name, READY_MS / 1000, tail);
}

static void ready_line(int n_units)
{
    int64_t ms = mono_ms() - init.boot_start_ms;

    if (init.opts.json) {
        cleanup(json_putp) json_object *o = json_make(
            "ready_ms:i url:s admin_url:s root:s run_dir:s pid:i", ms, init.url,
            init.admin_url[0] ? init.admin_url : NULL, init.root, init.run_dir, (int64_t)getpid());

        dprintf(init.stdout_fd, "%s\n", json_text(o));
    } else {
        dprintf(init.stdout_fd, "avix: ready in %lld ms  %s  root=%s  units=%d installed=0\n",
                (long long)ms, init.url, init.root, n_units);
    }
    log_info("ready in %lld ms, %d units", (long long)ms, n_units);
}

void boot_check(void)
{
    int running = 0;

    if (init.booted || init.stopping)
        return;
    for (int i = 0; i < UNIT_COUNT; i++) {
        struct iunit *u = &units[i];
        bool up = u->state == ST_RUNNING;

        if (!unit_uses(u))
            continue;
        /* an optional unit is waited for while it comes up for the first time */
        if (!up && (u->row->required || u->restarts == 0))
            return;
        running += up;
    }
    init.booted = true;
    if (init.opts.one_shot)
        oneshot_hand_over();
    else
        ready_line(running);
    systemd_notify("READY=1");
}
