/* avix-kernel: agents, sessions, invocations, signals, and the database they live in. */
#include "kernel/core/calls.h"

static int start(void)
{
    boot_start();
    return 0;
}

static void stop(void)
{
    K.stopping = true;
    waiters_end();
}

static void fini(void)
{
    store_close();
}

int main(int argc, char **argv)
{
    const struct svc_spec spec = {
        .unit = UNIT_KERNEL,
        .methods = kernel_methods,
        .n_methods = kernel_methods_n,
        .other = door_other,
        .server = { .peer_start = false },
        .init = boot_init,
        .start = start,
        .stop = stop,
        .fini = fini,
        .late_ready = true,
    };
    return svc_main(&spec, argc, argv);
}
