/* First thing in every main(): nothing of ours is ever dumped, traced or readable by others. */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/svc/sandbox.h"

void process_harden(void)
{
    struct rlimit none = { 0, 0 };

    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    umask(077);
}
