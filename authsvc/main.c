/* authsvc: identities, logins, tokens, revocations, secrets. The only program that signs ATP and
 * capability tokens. */
#include "authsvc/methods.h"
#include "authsvc/state.h"

int main(int argc, char **argv)
{
    const struct svc_spec spec = {
        .unit = UNIT_AUTHSVC,
        .methods = auth_methods,
        .n_methods = auth_n_methods,
        .server = { .peer_start = true },
        .init = auth_init,
        .start = auth_start,
        .ready = auth_ready,
        .reload = auth_reload,
        .fini = auth_fini,
    };

    return svc_main(&spec, argc, argv);
}
