/*
 * The two TCP listeners. Init binds them just before the gateway starts and keeps them, so clients
 * of a restarting gateway wait in the backlog. "localhost" is 127.0.0.1 and, where the host has it,
 * ::1 on the same port.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "kernel/init/init.h"

enum { TCP_HTTP, TCP_HTTP6, TCP_ADMIN, TCP_COUNT };
static const char *const names[] = { "http", "http6", "admin" };
static int fds[TCP_COUNT] = { -1, -1, -1 };

/* Numeric address; false if it is none. */
static bool address(const char *host, int port, struct sockaddr_storage *sa, socklen_t *len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;

    memset(sa, 0, sizeof(*sa));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *len = sizeof(*v4);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *len = sizeof(*v6);
        return true;
    }
    return false;
}

/* Listening descriptor or -errno. */
static int listen_on(const char *host, int port)
{
    struct sockaddr_storage sa;
    socklen_t len;
    int one = 1;

    if (!address(host, port, &sa, &len))
        return -EADDRNOTAVAIL;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (sa.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&sa, len) || listen(fd, BACKLOG)) {
        int r = -errno;

        close(fd);
        return r;
    }
    return fd;
}

static int port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa = { .v6 = { .sin6_port = 0 } };
    socklen_t len = sizeof(sa);

    if (getsockname(fd, &sa.any, &len))
        return 0;
    return ntohs(sa.any.sa_family == AF_INET6 ? sa.v6.sin6_port : sa.v4.sin_port);
}

static _Noreturn void listen_fail(const char *what, const char *host, int port, int r)
{
    if (r == -EADDRINUSE)
        boot_fail(1, "port %d in use (%s on %s)", port, what, host);
    boot_fail(1, "%s: cannot listen on %s port %d: %s", what, host, port, strerror(-r));
}

static void url_make(char *out, size_t size, const char *host, int port, bool tls)
{
    const char *shown = str_eq(host, "0.0.0.0") ? "127.0.0.1" : str_eq(host, "::") ? "::1" : host;

    snprintf(out, size, strchr(shown, ':') ? "%s://[%s]:%d" : "%s://%s:%d", tls ? "https" : "http",
             shown, port);
}

/* "127.0.0.1:7701", "[::1]:7701"; false if malformed. */
static bool split_addr(const char *addr, char *host, size_t size, int *port)
{
    const char *colon = strrchr(addr, ':');
    int64_t n;

    if (!colon || !parse_i64(colon + 1, 0, 65535, &n))
        return false;
    bool v6 = addr[0] == '[' && colon > addr + 1 && colon[-1] == ']';
    size_t len = (size_t)(colon - addr) - (v6 ? 2 : 0);

    if (len >= size || len == 0)
        return false;
    memcpy(host, addr + (v6 ? 1 : 0), len);
    host[len] = '\0';
    *port = (int)n;
    return true;
}

static void admin_bind(bool tls)
{
    char host[64];
    int port;

    if (str_eq(init.config->admin_addr, "none"))
        return;
    if (!split_addr(init.config->admin_addr, host, sizeof(host), &port))
        boot_fail(EXIT_CONFIG, "gateway.admin_addr: '%s' is no address:port",
                  init.config->admin_addr);
    if (str_eq(host, "localhost"))
        str_copy(host, sizeof(host), "127.0.0.1");
    int fd = listen_on(host, port);

    if (fd < 0)
        listen_fail("gateway.admin_addr", host, port, fd);
    fds[TCP_ADMIN] = fd;
    url_make(init.admin_url, sizeof(init.admin_url), host, port_of(fd),
             tls && !str_starts(host, "127.") && !str_eq(host, "::1"));
}

void tcp_bind(void)
{
    struct kernel_config *c = init.config;
    bool both = str_eq(c->bind, "localhost");
    bool tls = str_eq(c->tls_mode, "self-signed") || str_eq(c->tls_mode, "files");
    const char *host = both ? "127.0.0.1" : c->bind;

    if (fds[TCP_HTTP] >= 0)
        return;
    int fd = listen_on(host, c->port);

    if (fd < 0)
        listen_fail("gateway.port", host, c->port, fd);
    fds[TCP_HTTP] = fd;
    int port = port_of(fd);

    if (both) {
        int fd6 = listen_on("::1", port);

        if (fd6 >= 0)
            fds[TCP_HTTP6] = fd6;
        else if (fd6 == -EADDRINUSE && c->port)
            listen_fail("gateway.port", "::1", port, fd6);
    }
    url_make(init.url, sizeof(init.url), host, port, tls);
    admin_bind(tls);
}

int tcp_fd(const char *name)
{
    for (int i = 0; i < TCP_COUNT; i++)
        if (str_eq(names[i], name))
            return fds[i];
    return -1;
}
