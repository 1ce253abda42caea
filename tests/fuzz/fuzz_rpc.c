/* A JSON-RPC message as services read it, and written again: what was accepted comes back equal. */
#include <stdlib.h>

#include "common/ipc/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size);
    size_t len = strlen(text) < size ? strlen(text) : size;
    struct rpc_msg m, again;
    struct buf b = BUF_INIT(1 << 22);

    if (rpc_parse(text, len, &m) == 0) {
        if (m.kind != RPC_RESPONSE && !m.params)
            abort();
        if (m.kind == RPC_RESPONSE && m.error) {
            struct rpc_error e;

            rpc_error_read(m.error, &e);
            rpc_write_error_rpc(&b, m.id, m.id_int, &e);
            rpc_error_done(&e);
        } else if (m.kind == RPC_RESPONSE) {
            rpc_write_result(&b, m.id, m.id_int, m.result);
        } else if (m.kind == RPC_NOTE) {
            rpc_write_note(&b, m.method, m.params);
        } else {
            rpc_write_request(&b, m.id, m.method, m.params);
        }
        if (!b.toobig) {
            if (rpc_parse(b.data, b.len, &again))
                abort();
            if (again.kind != m.kind || !str_eq(again.id, m.id) || !str_eq(again.method, m.method))
                abort();
            rpc_done(&again);
        }
    }
    rpc_done(&m);
    buf_done(&b);
    free(text);
    return 0;
}
