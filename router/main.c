/*
 * avix-router: the tool registry, and the path of every tool call. It serves its socket itself
 * (calls.c): what passes is forwarded as text, not as a tree.
 */
#include "router/router.h"

static int router_init(void)
{
    auth_init();
    return 0;
}

static int router_start(void)
{
    registry_init();
    methods_register();
    state_init();
    snapshot_load();
    registry_serving();
    calls_init();
    revoked_fetch(); /* authsvc may be running already; else this waits in its backlog */
    return 0;
}

static void router_fini(void)
{
    calls_fini();
    snapshot_fini();
    registry_fini();
    state_fini();
    relay_fini();
    auth_fini();
}

static const struct svc_spec spec = {
    .unit = UNIT_ROUTER,
    .init = router_init,
    .start = router_start,
    .stop = calls_stop,
    .fini = router_fini,
    .reload = NULL,
    .no_router = true,
    .open_calls = calls_open,
};

int main(int argc, char **argv)
{
    return svc_main(&spec, argc, argv);
}
