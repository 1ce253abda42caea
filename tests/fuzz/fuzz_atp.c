/* A client's frame: parsing, then the whole of the command checks on what came out. */
// links: gateway/atp.c gateway/ops.c
#include "gateway/ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct atp_err e = { .detail = NULL };
    struct atp_in in;
    struct buf b = BUF_INIT(1 << 20);

    if (atp_parse((const char *)data, size, &in, &e) == ATP_OK && in.kind == ATP_CMD) {
        struct op_who who = { .identity = "alice", .role = ROLE_ADMIN, .admin_listener = true };
        const struct op *o = NULL;
        const char *method = NULL;

        if (op_admit(&who, in.domain, in.op, in.body, &o, &method, &e) == ATP_OK && !o)
            abort();
        atp_write_ok(&b, in.id, in.body);
    }
    if (e.code && in.id[0])
        atp_write_fail(&b, in.id, &e);
    buf_done(&b);
    atp_err_done(&e);
    atp_in_done(&in);
    return 0;
}
