#pragma once
/* The address of a server, and who listens there. */
#include "common/base/util.h"

#define TOKEN_HEADER_MAX 8192

struct url {
    bool tls;
    char host[256], hostport[272], text[300]; /* text: "http://localhost:9142", for messages */
    int port;
};
/* http(s) or ws(s)://host[:port][/atp]; false if it is something else. */
bool url_parse(const char *s, struct url *ret);
/* True unless the address is loopback and the listening socket belongs to a uid that is neither
 * root, ours, nor the owner of the run dir: then it may be another local user waiting for a
 * credential. */
bool listener_is_ours(const struct url *u);
/* True if something accepts connections there now. */
bool port_open(const struct url *u);
