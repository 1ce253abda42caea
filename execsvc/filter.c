/*
 * A list of what is refused, because programs of every kind run behind it. Arguments that the
 * kernel reads as 32 bits are compared with a mask, or junk in the upper half would pass the rule.
 */
#include "execsvc/filter.h"

#include <errno.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"

#define LOW32 0xffffffffULL

static const int refused[] = {
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(kcmp),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(chroot),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    SCMP_SYS(syslog),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
};
static const int absent[] = { /* as if the host did not know them: libraries fall back */
                              SCMP_SYS(clone3), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
                              SCMP_SYS(io_uring_register)
};

static int refuse_all(scmp_filter_ctx f, uint32_t action, const int *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int r = seccomp_rule_add(f, action, calls[i], 0);

        if (r && r != -EDOM) /* this machine has no such call */
            return r;
    }
    return 0;
}

static int refuse_namespaces(scmp_filter_ctx f)
{
    static const uint64_t flags[] = { CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                      CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET };
    int r = 0;

    for (size_t i = 0; !r && i < N_ELEMS(flags); i++)
        r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, flags[i], flags[i]));
    return r;
}

static int refuse_terminal_tricks(scmp_filter_ctx f)
{
    int r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, TIOCSTI));

    return r ? r
             : seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                                SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, TIOCLINUX));
}

/* Everything but unix, inet and inet6. */
static int refuse_families(scmp_filter_ctx f)
{
    const uint32_t action = SCMP_ACT_ERRNO(EPERM);
    int r = seccomp_rule_add(f, action, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, AF_INET6, 0));

    for (uint64_t family = 0; !r && family < AF_INET6; family++)
        if (family != AF_UNIX && family != AF_INET)
            r = seccomp_rule_add(f, action, SCMP_SYS(socket), 1,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, LOW32, family));
    return r;
}

int filter_export(void)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int r = !f ? -ENOMEM : fd < 0 ? -errno : 0;

    if (!r)
        r = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!r)
        r = refuse_all(f, SCMP_ACT_ERRNO(EPERM), refused, N_ELEMS(refused));
    if (!r)
        r = refuse_all(f, SCMP_ACT_ERRNO(ENOSYS), absent, N_ELEMS(absent));
    if (!r)
        r = refuse_namespaces(f);
    if (!r)
        r = refuse_terminal_tricks(f);
    if (!r)
        r = refuse_families(f);
    if (!r)
        r = seccomp_export_bpf(f, fd);
    if (!r && lseek(fd, 0, SEEK_SET))
        r = -errno;
    if (f)
        seccomp_release(f);
    if (r)
        closep(&fd);
    return r ? r : fd;
}
