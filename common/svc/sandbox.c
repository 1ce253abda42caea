/*
 * What a built-in unit gives up before it reads a byte from anyone. The filters are lists of what
 * our own code never needs (the units are trusted programs; agents and guests have allow lists of
 * their own), so a library update cannot kill a unit, while a hijacked one cannot start programs,
 * open network sockets, or touch other processes.
 *
 * Landlock constants are ours: the headers of Debian 12 end at ABI 2, the running kernel may know
 * more. Sanitizer and coverage builds install nothing: their runtimes need
 * more calls, and write files.
 */
#include "common/svc/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#define __NR_landlock_add_rule       445
#define __NR_landlock_restrict_self  446
#endif
#define LL_VERSION      (1U << 0)
#define LL_PATH_BENEATH 1

enum {
    LL_EXECUTE = 1U << 0,
    LL_WRITE_FILE = 1U << 1,
    LL_READ_FILE = 1U << 2,
    LL_READ_DIR = 1U << 3,
    LL_REMOVE_DIR = 1U << 4,
    LL_REMOVE_FILE = 1U << 5,
    LL_MAKE_DIR = 1U << 7,
    LL_MAKE_REG = 1U << 8,
    LL_MAKE_SOCK = 1U << 9,
    LL_ABI1_ALL = (1U << 13) - 1,
    LL_REFER = 1U << 13,    /* ABI 2 */
    LL_TRUNCATE = 1U << 14, /* ABI 3 */
    LL_SCOPE_ABSTRACT = 1U << 0,
    LL_SCOPE_SIGNAL = 1U << 1, /* ABI 6 */
    LL_FOR_FILE = LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE,
    LL_READ = LL_READ_FILE | LL_READ_DIR,
    LL_WRITE = LL_READ | LL_WRITE_FILE | LL_REMOVE_DIR | LL_REMOVE_FILE | LL_MAKE_DIR |
               LL_MAKE_REG | LL_MAKE_SOCK | LL_REFER | LL_TRUNCATE,
};
struct ll_ruleset {
    uint64_t fs, net, scoped;
};
struct ll_path {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

int landlock_abi(void)
{
    return (int)syscall(__NR_landlock_create_ruleset, NULL, 0, LL_VERSION);
}

/* A path that does not exist has nothing to keep. */
static int landlock_allow(int ruleset, const struct sandbox_path *p, uint64_t handled)
{
    cleanup(closep) int fd = open(p->path, O_PATH | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return errno == ENOENT || errno == EACCES ? 0 : -errno;
    if (fstat(fd, &st))
        return -errno;
    struct ll_path rule = { .allowed = (p->write ? LL_WRITE : LL_READ) & handled, .fd = fd };

    if (!S_ISDIR(st.st_mode))
        rule.allowed &= LL_FOR_FILE;
    return syscall(__NR_landlock_add_rule, ruleset, LL_PATH_BENEATH, &rule, 0) ? -errno : 0;
}

static int landlock_enter(const struct sandbox_path *paths, bool exposed, const char **missing)
{
    int abi = landlock_abi();
    struct ll_ruleset attr = { .fs = 0 };

    if (abi < 1) {
        *missing = "landlock";
        return 0;
    }
    if (paths)
        attr.fs = LL_ABI1_ALL | (abi >= 2 ? LL_REFER : 0) | (abi >= 3 ? LL_TRUNCATE : 0);
    if (exposed && abi >= 6)
        attr.scoped = LL_SCOPE_ABSTRACT | LL_SCOPE_SIGNAL;
    if (!attr.fs && !attr.scoped)
        return 0;
    size_t size = abi >= 6 ? sizeof(attr) : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
    cleanup(closep) int ruleset = (int)syscall(__NR_landlock_create_ruleset, &attr, size, 0);

    if (ruleset < 0)
        return -errno;
    for (; paths && paths->path; paths++) {
        int r = landlock_allow(ruleset, paths, attr.fs);

        if (r)
            return r;
    }
    return syscall(__NR_landlock_restrict_self, ruleset, 0) ? -errno : 0;
}

/* Never needed by any unit; execsvc's children make namespaces, so these stop at NO_EXEC units. */
static const int never[] = {
    SCMP_SYS(ptrace),          SCMP_SYS(process_vm_readv),  SCMP_SYS(process_vm_writev),
    SCMP_SYS(kexec_load),      SCMP_SYS(kexec_file_load),   SCMP_SYS(init_module),
    SCMP_SYS(finit_module),    SCMP_SYS(delete_module),     SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),       SCMP_SYS(keyctl),
    SCMP_SYS(add_key),         SCMP_SYS(request_key),       SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),  SCMP_SYS(io_uring_register), SCMP_SYS(acct),
    SCMP_SYS(swapon),          SCMP_SYS(swapoff),           SCMP_SYS(reboot),
    SCMP_SYS(settimeofday),    SCMP_SYS(clock_settime),     SCMP_SYS(adjtimex),
};
static const int no_exec[] = {
    SCMP_SYS(execve),      SCMP_SYS(execveat), SCMP_SYS(mount),      SCMP_SYS(umount2),
    SCMP_SYS(unshare),     SCMP_SYS(setns),    SCMP_SYS(pivot_root), SCMP_SYS(chroot),
    SCMP_SYS(setuid),      SCMP_SYS(setgid),   SCMP_SYS(setresuid),  SCMP_SYS(setresgid),
    SCMP_SYS(personality),
};
/* Of units that face the network: no other process is touched. */
static const int exposed_never[] = {
    SCMP_SYS(tkill),
    SCMP_SYS(rt_sigqueueinfo),
    SCMP_SYS(rt_tgsigqueueinfo),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(process_madvise),
};

static int deny(scmp_filter_ctx f, const int *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), calls[i], 0);

        if (r && r != -EDOM)
            return r;
    }
    return 0;
}

/* This error for a call whose first argument compares like this. */
static int refuse_arg(scmp_filter_ctx f, int err, int call, enum scmp_compare op, scmp_datum_t v)
{
    struct scmp_arg_cmp cmp = { .arg = 0, .op = op, .datum_a = v, .datum_b = 0 };

    return seccomp_rule_add_array(f, SCMP_ACT_ERRNO((uint32_t)err), call, 1, &cmp);
}

/* socket() of the unix family only. */
static int deny_families(scmp_filter_ctx f)
{
    int r = refuse_arg(f, EAFNOSUPPORT, SCMP_SYS(socket), SCMP_CMP_LT, AF_UNIX);

    return r ? r : refuse_arg(f, EAFNOSUPPORT, SCMP_SYS(socket), SCMP_CMP_GT, AF_UNIX);
}

static int deny_others(scmp_filter_ctx f)
{
    scmp_datum_t self = (scmp_datum_t)getpid();
    int r = deny(f, exposed_never, N_ELEMS(exposed_never));

    if (!r)
        r = refuse_arg(f, EPERM, SCMP_SYS(kill), SCMP_CMP_NE, self);
    if (!r)
        r = refuse_arg(f, EPERM, SCMP_SYS(tgkill), SCMP_CMP_NE, self);
    if (!r)
        r = refuse_arg(f, EPERM, SCMP_SYS(prlimit64), SCMP_CMP_GT, 0);
    return r;
}

static int seccomp_enter(unsigned flags, bool exposed)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    int r = f ? 0 : -ENOMEM;

    if (!r)
        r = deny(f, never, N_ELEMS(never));
    if (!r && (flags & SBX_NO_EXEC))
        r = deny(f, no_exec, N_ELEMS(no_exec));
    if (!r && (flags & SBX_NO_NET))
        r = deny_families(f);
    if (!r && exposed)
        r = deny_others(f);
    if (!r)
        r = seccomp_load(f);
    if (f)
        seccomp_release(f);
    return r;
}

#ifndef AVIX_SAN
int sandbox_enter(unsigned flags, const struct sandbox_path *paths, const char **missing)
{
    bool exposed = (flags & SBX_NO_EXEC) && !(flags & SBX_NO_NET);

    *missing = NULL;
    if (!flags)
        return 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        *missing = "no_new_privs";
        return -errno;
    }
    if ((paths || exposed) && landlock_enter(paths, exposed, missing))
        *missing = "landlock";
    if (seccomp_enter(flags, exposed))
        *missing = "seccomp";
    return *missing ? -ENOSYS : 0;
}
#else
int sandbox_enter(unsigned flags, const struct sandbox_path *paths, const char **missing)
{
    (void)flags;
    (void)paths;
    (void)landlock_enter;
    (void)seccomp_enter;
    *missing = NULL;
    return 0;
}
#endif
