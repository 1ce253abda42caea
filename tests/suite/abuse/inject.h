#pragma once
/*
 * A process that was taken over: system calls made by an agent's own process, by ptrace as root.
 * What comes of them goes through its filter, its jail and its identity. x86-64 only.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/util.h"

#if defined(__x86_64__)
#define INJECT_POSSIBLE (geteuid() == 0)
#else
#define INJECT_POSSIBLE 0
#endif

#define INJ_DEAD (-100000) /* the process was killed by this call: INJ_DEAD - signal */

struct inj {
    pid_t pid;
    struct user_regs_struct regs;
    unsigned long long gate, room; /* a syscall instruction; memory to use */
    bool dead;
};

#if defined(__x86_64__)
/* A syscall instruction somewhere in the C library of the process, 0 if there is none. */
static inline unsigned long long inj_gate(pid_t pid)
{
    char path[64], line[512];
    unsigned long long lo, hi, gate = 0;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && !gate && fgets(line, sizeof line, f)) {
        if (!strstr(line, "r-xp") || !strstr(line, "/libc.so") ||
            sscanf(line, "%llx-%llx", &lo, &hi) != 2) // NOLINT
            continue;
        size_t n = (size_t)(hi - lo);
        cleanup(freep) char *code = xmalloc(n);
        struct iovec l = { code, n }, r = { (void *)(uintptr_t)lo, n }; // NOLINT
        char *at =
            process_vm_readv(pid, &l, 1, &r, 1, 0) > 0 ? memmem(code, n, "\x0f\x05", 2) : NULL;
        gate = at ? lo + (unsigned long long)(at - code) : 0;
    }
    if (f)
        (void)fclose(f);
    return gate;
}

/* Stops the process. False if it cannot be traced here. */
static inline bool inj_attach(struct inj *j, pid_t pid)
{
    int st;

    *j = (struct inj){ .pid = pid };
    if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, pid, 0, 0))
        return false;
    if (waitpid(pid, &st, __WALL) != pid || !WIFSTOPPED(st) ||
        ptrace(PTRACE_GETREGS, pid, 0, &j->regs))
        return false;
    j->gate = inj_gate(pid);
    j->room = (j->regs.rsp - 65536) & ~15ULL;
    if (!j->gate)
        ptrace(PTRACE_DETACH, pid, 0, 0);
    return j->gate != 0;
}

static inline void inj_put(struct inj *j, size_t at, const void *data, size_t len)
{
    struct iovec l = { (void *)(uintptr_t)data, len };           // NOLINT
    struct iovec r = { (void *)(uintptr_t)(j->room + at), len }; // NOLINT

    if (process_vm_writev(j->pid, &l, 1, &r, 1, 0) != (ssize_t)len)
        j->dead = true;
}

static inline void inj_get(struct inj *j, size_t at, void *data, size_t len)
{
    struct iovec l = { data, len };
    struct iovec r = { (void *)(uintptr_t)(j->room + at), len }; // NOLINT

    (void)process_vm_readv(j->pid, &l, 1, &r, 1, 0);
}

static inline long inj_stop(struct inj *j)
{
    int st = 0;

    for (;;) {
        if (ptrace(PTRACE_SYSCALL, j->pid, 0, 0) || waitpid(j->pid, &st, __WALL) != j->pid ||
            WIFEXITED(st)) {
            j->dead = true;
            return INJ_DEAD;
        }
        if (WIFSIGNALED(st)) {
            j->dead = true;
            return INJ_DEAD - WTERMSIG(st);
        }
        if (WIFSTOPPED(st) && WSTOPSIG(st) == (SIGTRAP | 0x80))
            return 0;
    }
}

/* One system call of the process: its result, or INJ_DEAD - signal. */
static inline long inj_call(struct inj *j, long nr, long a, long b, long c, long d, long e, long f)
{
    struct user_regs_struct r = j->regs;
    long end;

    if (j->dead)
        return INJ_DEAD;
    r.rip = j->gate;
    r.orig_rax = (unsigned long long)-1;
    r.rax = (unsigned long long)nr;
    r.rdi = (unsigned long long)a;
    r.rsi = (unsigned long long)b;
    r.rdx = (unsigned long long)c;
    r.r10 = (unsigned long long)d;
    r.r8 = (unsigned long long)e;
    r.r9 = (unsigned long long)f;
    ptrace(PTRACE_SETREGS, j->pid, 0, &r);
    if ((end = inj_stop(j)) || (end = inj_stop(j))) /* into the call, out of it */
        return end;
    ptrace(PTRACE_GETREGS, j->pid, 0, &r);
    if ((long)r.rax == nr && (end = inj_stop(j))) /* rolled back: the filter's signal is next */
        return end;
    return (long)r.rax;
}

/* The process goes on where it was. */
static inline void inj_detach(struct inj *j)
{
    if (j->dead)
        return;
    ptrace(PTRACE_SETREGS, j->pid, 0, &j->regs);
    ptrace(PTRACE_DETACH, j->pid, 0, 0);
}

/* Connects from inside; the descriptor or -errno. abstract: the name without its leading NUL. */
static inline long inj_connect(struct inj *j, const char *path, bool abstract)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
    long fd = inj_call(j, SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0), r;

    if (fd < 0)
        return fd;
    str_copy(a.sun_path + (abstract ? 1 : 0), sizeof a.sun_path - 1, path);
    inj_put(j, 0, &a, sizeof a);
    r = inj_call(j, SYS_connect, fd, (long)j->room, (long)len, 0, 0, 0);
    if (r) {
        (void)inj_call(j, SYS_close, fd, 0, 0, 0, 0, 0);
        return r;
    }
    return fd;
}

/* Sends one frame from inside and reads the answer (NUL-terminated, cut to size). Bytes of the
 * answer, 0: closed without one, or -errno. */
static inline long inj_frame(struct inj *j, const char *path, const char *body, char *reply,
                             size_t size)
{
    size_t n = strlen(body);
    char hdr[4];
    long fd = inj_connect(j, path, false), r, have = 0;

    reply[0] = '\0';
    if (fd < 0)
        return fd;
    for (int i = 0; i < 4; i++)
        hdr[i] = (char)(n >> (8 * i));
    inj_put(j, 0, hdr, 4);
    inj_put(j, 4, body, n);
    r = inj_call(j, SYS_sendto, fd, (long)j->room, (long)n + 4, MSG_NOSIGNAL, 0, 0);
    if (r == (long)n + 4)
        (void)inj_call(j, SYS_shutdown, fd, SHUT_WR, 0, 0, 0, 0);
    while (r > 0 && (size_t)have + 1 < size) {
        size_t want = size - 1 - (size_t)have;
        r = inj_call(j, SYS_recvfrom, fd, (long)j->room, (long)(want < 32768 ? want : 32768), 0, 0,
                     0);
        if (r > 0) {
            inj_get(j, 0, reply + have, (size_t)r);
            have += r;
        }
    }
    (void)inj_call(j, SYS_close, fd, 0, 0, 0, 0, 0);
    if (have > 4)
        memmove(reply, reply + 4, (size_t)have - 4);
    have = have > 4 ? have - 4 : 0;
    reply[have] = '\0';
    return have;
}
#endif
