#pragma once
/* Addresses of clients, as the gateway reports them: for allow lists and for counting failures. */
#include "common/base/util.h"

/* IPv4 as ::ffff:a.b.c.d. */
struct addr {
    uint8_t ip[16];
};
struct cidr {
    struct addr net;
    int bits; /* 0..128, of the 16 bytes */
};

/* "10.0.0.1", "10.0.0.1:4711", "::1", "[::1]:4711"; false if it is none of these. */
bool addr_parse(const char *text, struct addr *ret);
bool addr_is_v4(const struct addr *a);
bool addr_loopback(const struct addr *a);
/* What failures are counted under: the IPv4 address, or the /64 of an IPv6 one. */
#define ADDR_KEY_LEN 64
char *addr_key(const struct addr *a, char out[ADDR_KEY_LEN]);
/* "10.0.0.0/8", "fd00::/8", or one address. */
bool cidr_parse(const char *text, struct cidr *ret);
bool cidr_has(const struct cidr *c, const struct addr *a);
