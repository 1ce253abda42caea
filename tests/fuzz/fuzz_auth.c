// links: authsvc/conf.c authsvc/users.c authsvc/policy.c authsvc/apikey.c authsvc/netaddr.c
/* auth.conf, users.yaml, crews.yaml, addresses: no crash, an error says where, and what was read
 * gives policies. */
#include <stdint.h>

#include "authsvc/policy.h"

static void policies(const struct auth_conf *c, const struct directory *d)
{
    for (size_t i = 0; i < c->n_ids && i < 8; i++)
        json_put(policy_of(c, d, c->ids[i].name, i % 2 ? "researcher" : NULL));
    for (size_t i = 0; i < d->n_users && i < 8; i++)
        json_put(policy_of(c, d, d->users[i].name, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char plain[] =
        "apiVersion: avix/v1\nkind: AuthConfig\nidentities:\n"
        "  - {name: a, uid: 1000, role: admin, credential: {type: api_key, "
        "key_hash: \"hmac-sha256:0000000000000000000000000000000000000000000"
        "000000000000000000000\"}}\n";
    struct auth_conf *c = NULL;
    struct directory *d = NULL;
    struct yaml_err e;
    const char *file;
    char *text = xstrndup((const char *)data, size);
    struct addr addr;
    struct cidr cidr;
    char key[ADDR_KEY_LEN];

    if (auth_conf_parse((const char *)data, size, &c, &e) == 0) {
        if (directory_parse(NULL, NULL, c, &d, &file, &e))
            abort();
        policies(c, d);
        directory_free(d);
        auth_conf_free(c);
    } else if (!e.msg[0]) {
        abort();
    }
    if (auth_conf_parse(plain, sizeof(plain) - 1, &c, &e))
        abort();
    char *split = strstr(text, "\n---\n");
    if (split)
        *split = '\0';
    if (directory_parse(text, split ? split + 5 : NULL, c, &d, &file, &e) == 0) {
        policies(c, d);
        directory_free(d);
    } else if (!e.msg[0]) {
        abort();
    }
    auth_conf_free(c);
    if (addr_parse(text, &addr) && (!addr_key(&addr, key)[0] || !addr_parse("::1", &addr)))
        abort();
    if (cidr_parse(text, &cidr))
        (void)cidr_has(&cidr, &addr);
    free(text);
    return 0;
}
