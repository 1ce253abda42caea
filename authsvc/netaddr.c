/* All addresses are kept as 16 bytes, so an IPv4 client on a dual-stack listener is the same
 * client. */
#include "authsvc/netaddr.h"

#include <arpa/inet.h>

static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF };

static bool host_parse(const char *host, struct addr *ret)
{
    struct in_addr v4;

    if (inet_pton(AF_INET6, host, ret->ip) == 1)
        return true;
    if (inet_pton(AF_INET, host, &v4) != 1)
        return false;
    memcpy(ret->ip, v4_prefix, sizeof(v4_prefix));
    memcpy(ret->ip + 12, &v4, 4);
    return true;
}

bool addr_parse(const char *text, struct addr *ret)
{
    char host[64];
    int64_t port;

    if (!text || !str_copy(host, sizeof(host), text))
        return false;
    if (host[0] == '[') {
        char *end = strchr(host, ']');

        if (!end || (end[1] && (end[1] != ':' || !parse_i64(end + 2, 0, 65535, &port))))
            return false;
        *end = '\0';
        return host_parse(host + 1, ret);
    }
    char *colon = strchr(host, ':');
    if (colon && !strchr(colon + 1, ':')) {
        if (!parse_i64(colon + 1, 0, 65535, &port))
            return false;
        *colon = '\0';
    }
    return host_parse(host, ret);
}

bool addr_is_v4(const struct addr *a)
{
    return memcmp(a->ip, v4_prefix, sizeof(v4_prefix)) == 0;
}

bool addr_loopback(const struct addr *a)
{
    static const uint8_t one[16] = { [15] = 1 };

    return addr_is_v4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, sizeof(one)) == 0;
}

char *addr_key(const struct addr *a, char out[ADDR_KEY_LEN])
{
    if (addr_is_v4(a)) {
        snprintf(out, ADDR_KEY_LEN, "%u.%u.%u.%u", a->ip[12], a->ip[13], a->ip[14], a->ip[15]);
    } else {
        struct addr net = *a;
        char text[INET6_ADDRSTRLEN];

        memset(net.ip + 8, 0, 8);
        snprintf(out, ADDR_KEY_LEN, "%s/64",
                 inet_ntop(AF_INET6, net.ip, text, sizeof(text)) ? text : "::");
    }
    return out;
}

bool cidr_parse(const char *text, struct cidr *ret)
{
    char host[64];
    int64_t bits = 128;

    if (!str_copy(host, sizeof(host), text))
        return false;
    char *slash = strchr(host, '/');
    if (slash)
        *slash = '\0';
    if (!host_parse(host, &ret->net))
        return false;
    bool v4 = addr_is_v4(&ret->net) && strchr(host, '.') && !strchr(host, ':');
    if (slash && !parse_i64(slash + 1, 0, v4 ? 32 : 128, &bits))
        return false;
    ret->bits = (int)bits + (slash && v4 ? 96 : 0);
    return true;
}

bool cidr_has(const struct cidr *c, const struct addr *a)
{
    int whole = c->bits / 8, rest = c->bits % 8;

    if (memcmp(c->net.ip, a->ip, (size_t)whole) != 0)
        return false;
    return !rest || (c->net.ip[whole] ^ a->ip[whole]) >> (8 - rest) == 0;
}
