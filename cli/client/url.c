/* See url.h. The listener's uid comes from /proc/net/tcp and tcp6. */
#include "cli/client/url.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/init.h"
#include "common/base/buf.h"

bool url_parse(const char *s, struct url *u)
{
    static const struct {
        const char *scheme;
        bool tls;
    } schemes[] = {
        { "http://", false }, { "ws://", false }, { "https://", true }, { "wss://", true }
    };
    *u = (struct url){ .port = 0 };
    const char *p = NULL;
    for (size_t i = 0; i < N_ELEMS(schemes); i++)
        if (str_starts(s, schemes[i].scheme)) {
            p = s + strlen(schemes[i].scheme);
            u->tls = schemes[i].tls;
        }
    if (!p)
        return false;
    size_t n = strcspn(p, "/");
    if ((p[n] && strcmp(p + n, "/") != 0 && strcmp(p + n, "/atp") != 0 &&
         strcmp(p + n, "/atp/") != 0) ||
        n == 0 || n >= sizeof u->host)
        return false;
    char hp[256];
    memcpy(hp, p, n);
    hp[n] = 0;
    char *colon = strrchr(hp, ':');
    int64_t port = u->tls ? 443 : 80;
    if (colon && (hp[0] != '[' || colon[-1] == ']')) {
        *colon = 0;
        if (!parse_i64(colon + 1, 1, 65535, &port))
            return false;
    }
    u->port = (int)port;
    size_t len = strlen(hp);
    if (hp[0] == '[' && len > 2 && hp[len - 1] == ']') {
        hp[len - 1] = 0;
        str_copy(u->host, sizeof u->host, hp + 1);
        snprintf(u->hostport, sizeof u->hostport, "[%s]:%d", u->host, u->port);
    } else {
        str_copy(u->host, sizeof u->host, hp);
        snprintf(u->hostport, sizeof u->hostport, "%s:%d", u->host, u->port);
    }
    snprintf(u->text, sizeof u->text, "%s://%s", u->tls ? "https" : "http", u->hostport);
    return *u->host != 0;
}

static bool uid_trusted(unsigned long uid)
{
    struct stat st;
    const char *run = getenv("AVIX_RUN_DIR");
    return uid == 0 || uid == geteuid() ||
           (stat(str_empty(run) ? "/run/avix" : run, &st) == 0 && st.st_uid == uid);
}

static bool is_loopback(const struct sockaddr *sa)
{
    const struct sockaddr_in *v4 = (const void *)sa;
    const struct sockaddr_in6 *v6 = (const void *)sa;
    uint32_t ip;
    if (sa->sa_family == AF_INET)
        ip = ntohl(v4->sin_addr.s_addr);
    else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        ip = (uint32_t)v6->sin6_addr.s6_addr[12] << 24 | v6->sin6_addr.s6_addr[15];
    else
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
    return ip >> 24 == 127 || ip == 0;
}

/* Any spelling that leads to this machine: names in any case, 127.1, 0.0.0.0, mapped addresses. */
static bool host_is_loopback(const char *host)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list = NULL;
    bool yes = false;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return strcasecmp(host, "localhost") == 0; /* nothing to connect to */
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        yes |= (a->ai_family == AF_INET || a->ai_family == AF_INET6) && is_loopback(a->ai_addr);
    freeaddrinfo(list);
    return yes;
}

bool listener_is_ours(const struct url *u)
{
    if (!host_is_loopback(u->host))
        return true;
    static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
    bool ok = true;
    for (size_t i = 0; i < N_ELEMS(tables); i++) {
        FILE *f = fopen(tables[i], "re");
        char line[512];
        while (f && fgets(line, sizeof line, f)) {
            unsigned port, state;
            unsigned long uid;
            /* sl local_address rem_address st tx:rx tr:when retrnsmt uid; 0A is LISTEN */
            /* NOLINTNEXTLINE(cert-err34-c): the kernel writes this, a misread line is skipped */
            if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %lu", &port,
                       &state, &uid) == 3 &&
                state == 0x0a && (int)port == u->port && !uid_trusted(uid))
                ok = false;
        }
        if (f)
            fclose(f);
    }
    return ok;
}

bool port_open(const struct url *u)
{
    struct buf b = BUF_INIT(65536);
    int r = detect_http_get(u->host, u->port, "/atp/health", 400, &b);
    buf_done(&b);
    return r != -ECONNREFUSED;
}
