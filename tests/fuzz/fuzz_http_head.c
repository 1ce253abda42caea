/* A request's head as the gateway reads it: end, headers, host, origin, cookie, token, addresses.
 */
// links: gateway/hosts.c
#include "gateway/hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *head = (const char *)data;
    size_t n = head_len(head, size);
    static const char *const names[] = { "host",   "origin",          "authorization",
                                         "cookie", "x-forwarded-for", "upgrade" };
    char v[512], out[256];
    json_object *proxies = json_new_arr();

    json_push_str(proxies, "10.0.0.0/8");
    if (n > size)
        abort();
    head_is_upgrade(head, n, "/atp");
    for (size_t i = 0; i < N_ELEMS(names); i++) {
        if (!head_get(head, n, names[i], v, sizeof(v)))
            continue;
        host_name(v, out, sizeof(out));
        host_allowed(v, true, NULL);
        origin_allowed(v, false, "localhost:9142", proxies);
        bearer_token(v);
        cookie_get(v, "avix_atp", out, sizeof(out));
        cidr_match(v, proxies);
        forwarded_for(v, proxies, out, sizeof(out));
    }
    json_put(proxies);
    return 0;
}
