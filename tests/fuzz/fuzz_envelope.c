/*
 * The router's reading of a request without a tree, beside the tree of the services: both accept
 * the same requests, and what is forwarded is JSON in which no reserved member of the caller is
 * left.
 */
// links: router/envelope.c
#include <stdlib.h>

#include "router/envelope.h"

static void same(const struct env *e, const char *text, size_t len)
{
    struct rpc_msg m, fwd;
    struct buf b = BUF_INIT(1 << 22);
    static const char caller[] = "{\"kind\":\"agent\"}";
    int r = rpc_parse(text, len, &m);

    if (r || m.kind == RPC_RESPONSE || !str_eq(m.id, e->id) || !str_eq(m.method, e->method))
        abort();
    env_write(e, "x/y", (struct span){ caller, sizeof(caller) - 1 }, &b);
    if (rpc_parse(b.data, b.len, &fwd) && e->id[0])
        abort();
    if (fwd.params) {
        json_object_object_foreach (fwd.params, key, val) {
            if (key[0] == '_' &&
                (!str_eq(key, "_caller") || !str_eq(json_str(val, "kind", ""), "agent")))
                abort();
        }
        json_object_object_foreach (m.params, key2, val2) {
            json_object *got = NULL;

            if (key2[0] != '_' && (!json_object_object_get_ex(fwd.params, key2, &got) ||
                                   !json_object_equal(got, val2)))
                abort();
        }
    }
    rpc_done(&fwd);
    rpc_done(&m);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xmalloc(size + 1);
    struct env e;
    struct reply r;
    int got;

    memcpy(text, data, size);
    text[size] = '\0'; /* as in a frame's buffer */
    got = env_parse(text, size, &e);
    if (got == 0 && !memchr(text, 0, size) && e.kind == RPC_REQUEST)
        same(&e, text, size);
    if (got)
        str_copy(e.id, sizeof(e.id), "r-1");
    reply_scan(text, size, &e, &r);
    free(text);
    return 0;
}
