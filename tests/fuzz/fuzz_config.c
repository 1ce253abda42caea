/* kernel.yaml of any bytes: refused with a message, or every field within its range. */
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/svc/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kernel_config *c = NULL;
    struct yaml_err e;

    if (kernel_config_parse((const char *)data, size, &c, &e)) {
        if (c || !e.msg[0])
            abort();
        return 0;
    }
    if (c->port < 0 || c->port > 65535 || c->open_files < 16 || c->max_message_bytes < 1048576 ||
        c->temperature < 0 || c->temperature > 2)
        abort();
    kernel_config_free(c);
    return 0;
}
