/* avix-gateway: ATP over WebSocket, login and files over HTTP, the event bus. */
#include "gateway/gateway.h"

int main(int argc, char **argv)
{
    struct svc_spec spec = {
        .unit = UNIT_GATEWAY,
        .methods = gateway_methods,
        .n_methods = gateway_n_methods,
        .loop_new = gateway_loop,
        .server = { .many_notes = true, .peer_start = true },
        .init = gateway_init,
        .paths = gateway_paths,
        .start = gateway_start,
        .reload = gateway_reload,
        .stop = gateway_stop,
        .fini = gateway_fini,
        .late_ready = true,
    };

    return svc_main(&spec, argc, argv);
}
