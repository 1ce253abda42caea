/*
 * The filter, written out as a table because libseccomp would cost each agent more memory than all
 * of its own code. Every row is tested in turn and ends in a verdict, so the order is only a matter
 * of how soon the frequent ones are found.
 */
#include "kernel/agent/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/util.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

enum rule {
    ALLOW,
    REFUSE,         /* EPERM */
    NO_EXEC_PROT,   /* third argument without PROT_EXEC */
    UNIX_STREAM,    /* socket(AF_UNIX, SOCK_STREAM) */
    FCNTL_HARMLESS, /* descriptor flags and duplicates: O_APPEND of the conversation stays */
    EMPTY_PATH,     /* newfstatat as fstat */
    SELF,           /* first argument is this process */
};

static const struct {
    unsigned nr;
    enum rule rule;
} table[] = {
    { __NR_read, ALLOW },
    { __NR_write, ALLOW },
#ifdef __NR_epoll_wait
    { __NR_epoll_wait, ALLOW },
#endif
    { __NR_epoll_pwait, ALLOW },
#ifdef __NR_epoll_pwait2
    { __NR_epoll_pwait2, ALLOW },
#endif
    { __NR_epoll_ctl, ALLOW },
#ifdef __NR_epoll_create
    { __NR_epoll_create, ALLOW },
#endif
    { __NR_epoll_create1, ALLOW },
    { __NR_recvmsg, ALLOW },
    { __NR_recvfrom, ALLOW },
    { __NR_sendmsg, ALLOW },
    { __NR_sendto, ALLOW },
    { __NR_close, ALLOW },
    { __NR_accept4, ALLOW },
    { __NR_connect, ALLOW },
    { __NR_socket, UNIX_STREAM },
    { __NR_getsockopt, ALLOW },
    { __NR_setsockopt, ALLOW },
    { __NR_getsockname, ALLOW },
    { __NR_getpeername, ALLOW },
    { __NR_shutdown, ALLOW },
    { __NR_fdatasync, ALLOW },
    { __NR_readv, ALLOW },
    { __NR_writev, ALLOW },
    { __NR_pread64, ALLOW },
    { __NR_lseek, ALLOW },
    { __NR_fstat, ALLOW },
    { __NR_newfstatat, EMPTY_PATH },
    { __NR_mmap, NO_EXEC_PROT },
    { __NR_munmap, ALLOW },
    { __NR_mremap, ALLOW },
    { __NR_mprotect, NO_EXEC_PROT },
    { __NR_madvise, ALLOW },
    { __NR_brk, ALLOW },
    { __NR_fcntl, FCNTL_HARMLESS },
    { __NR_eventfd2, ALLOW },
    { __NR_timerfd_create, ALLOW },
    { __NR_timerfd_settime, ALLOW },
    { __NR_timerfd_gettime, ALLOW },
    { __NR_clock_gettime, ALLOW },
    /* what the vdso falls back to on a host whose clock it cannot read */
    { __NR_gettimeofday, ALLOW },
    { __NR_clock_nanosleep, ALLOW },
    { __NR_nanosleep, ALLOW },
    { __NR_getrandom, ALLOW },
    { __NR_futex, ALLOW },
    { __NR_rt_sigaction, ALLOW },
    { __NR_rt_sigprocmask, ALLOW },
    { __NR_rt_sigreturn, ALLOW },
    { __NR_sigaltstack, ALLOW },
    { __NR_restart_syscall, ALLOW },
    { __NR_getpid, ALLOW },
    { __NR_gettid, ALLOW },
    { __NR_tgkill, SELF },
#ifdef __NR_poll
    { __NR_poll, ALLOW },
#else
    { __NR_ppoll, ALLOW },
#endif
    { __NR_exit, ALLOW },
    { __NR_exit_group, ALLOW },
    { __NR_openat, REFUSE },
#ifdef __NR_open
    { __NR_open, REFUSE },
#endif
    { __NR_statx, REFUSE },
    { __NR_ioctl, REFUSE },
};

struct prog {
    struct sock_filter *at;
    size_t n, max;
};

static void put(struct prog *p, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
    if (p->n < p->max)
        p->at[p->n] = (struct sock_filter){ .code = code, .jt = jt, .jf = jf, .k = k };
    p->n++;
}

static void verdict(struct prog *p, uint32_t what)
{
    put(p, BPF_RET | BPF_K, 0, 0, what);
}

/* Low half of an argument: the kernel itself looks at no more of these. */
static void load_arg(struct prog *p, unsigned i)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, 0, 0,
        (uint32_t)(offsetof(struct seccomp_data, args) + i * sizeof(uint64_t)));
}

#define REFUSED (SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA))

/* Ends the rule: ALLOW if the accumulator equals k, else no. */
static void if_equal(struct prog *p, uint32_t k, uint32_t no)
{
    put(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, k);
    verdict(p, no);
    verdict(p, SECCOMP_RET_ALLOW);
}

static void put_socket(struct prog *p)
{
    load_arg(p, 0);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AF_UNIX);
    verdict(p, REFUSED);
    load_arg(p, 1);
    put(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, ~(uint32_t)(SOCK_CLOEXEC | SOCK_NONBLOCK));
    if_equal(p, SOCK_STREAM, REFUSED);
}

static void put_fcntl(struct prog *p)
{
    static const uint32_t cmds[] = { F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC };

    load_arg(p, 1);
    for (size_t i = 0; i < N_ELEMS(cmds); i++) {
        put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, cmds[i]);
        verdict(p, SECCOMP_RET_ALLOW);
    }
    verdict(p, REFUSED);
}

static void put_rule(struct prog *p, enum rule rule, uint32_t kill)
{
    switch (rule) {
    case ALLOW:
        verdict(p, SECCOMP_RET_ALLOW);
        break;
    case REFUSE:
        verdict(p, REFUSED);
        break;
    case NO_EXEC_PROT:
        load_arg(p, 2);
        put(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, PROT_EXEC);
        if_equal(p, 0, kill);
        break;
    case UNIX_STREAM:
        put_socket(p);
        break;
    case FCNTL_HARMLESS:
        put_fcntl(p);
        break;
    case EMPTY_PATH:
        load_arg(p, 3);
        if_equal(p, AT_EMPTY_PATH, REFUSED);
        break;
    case SELF:
        load_arg(p, 0);
        if_equal(p, (uint32_t)getpid(), kill);
        break;
    }
}

size_t seal_program(enum seal_mode mode, struct sock_filter *out, size_t max)
{
    struct prog p = { .at = out, .max = max };
    uint32_t kill = mode == SEAL_LOG ? SECCOMP_RET_LOG : SECCOMP_RET_KILL_PROCESS;

    put(&p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offsetof(struct seccomp_data, arch));
    put(&p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCH);
    verdict(&p, SECCOMP_RET_KILL_PROCESS);
    put(&p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        size_t jump = p.n;
        put(&p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, table[i].nr);
        put_rule(&p, table[i].rule, kill);
        if (jump < max)
            out[jump].jf = (uint8_t)(p.n - jump - 1);
    }
    verdict(&p, kill);
    return p.n <= max ? p.n : 0;
}

int seal_filter(enum seal_mode mode)
{
    struct sock_filter code[512];
    size_t n = seal_program(mode, code, N_ELEMS(code));
    struct sock_fprog prog = { .len = (unsigned short)n, .filter = code };

    if (!n)
        return -E2BIG;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -errno;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
        return -errno;
    return 0;
}
