/* avix-llmsvc: every call to a model provider. */
#include "common/base/envx.h"
#include "llmsvc/core.h"
#include "llmsvc/service.h"

static const struct svc_spec spec = {
    .unit = UNIT_LLMSVC,
    .methods = llm_methods,
    .n_methods = LLM_METHODS,
    .init = llm_init,
    .start = llm_start,
    .ready = llm_ready,
    .reload = llm_reload,
    .stop = llm_stop,
    .fini = llm_fini,
};

int main(int argc, char **argv)
{
    env_hide(); /* provider keys may be in it */
    return svc_main(&spec, argc, argv);
}
