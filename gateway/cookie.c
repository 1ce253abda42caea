/*
 * The browser's cookie.
 *
 * Browsers send a cookie to every port of a host, so on a shared machine another user's program
 * could collect it by listening on localhost. A plain loopback cookie therefore carries the host
 * uid that logged in, under a MAC of a key that lives in our run dir, and works only for a peer of
 * that uid: the kernel's socket tables name the owner of the other end of a loopback connection.
 *
 *   token "~" uid ("-" if not bound) "~" MAC of both
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"
#include "gateway/web.h"

#define MAC_HEX 32

static struct hmac *mac_key;

int cookie_init(const char *dir)
{
    char path[300];
    cleanup(freep) char *key = NULL;
    size_t len = 0;
    int r = path_fmt(path, sizeof(path), "%s/cookie.key", dir);

    if (r)
        return r;
    if (file_read(path, 32, &key, &len) || len != 32) {
        uint8_t fresh[32];

        rnd_bytes(fresh, sizeof(fresh));
        r = file_write_rename(path, fresh, sizeof(fresh), 0600);
        mac_key = hmac_new(fresh, sizeof(fresh));
        explicit_bzero(fresh, sizeof(fresh));
        return r;
    }
    mac_key = hmac_new((const uint8_t *)key, len);
    explicit_bzero(key, len);
    return 0;
}

const char *cookie_name(bool secure)
{
    return secure ? "__Host-avix" : "avix_atp";
}

static void mac_of(const char *text, size_t len, char hex[MAC_HEX + 1])
{
    uint8_t sum[32];

    hmac_sum(mac_key, text, len, sum);
    hex_encode(sum, MAC_HEX / 2, hex);
}

void cookie_make(const char *token, int64_t uid, char *out, size_t size)
{
    char mac[MAC_HEX + 1], who[24] = "-";
    int n;

    if (uid >= 0)
        snprintf(who, sizeof(who), "%" PRId64, uid);
    n = snprintf(out, size, "%s~%s", token, who);
    if (n < 0 || (size_t)n + MAC_HEX + 2 > size) {
        out[0] = '\0';
        return;
    }
    mac_of(out, (size_t)n, mac);
    snprintf(out + n, size - (size_t)n, "~%s", mac);
}

const char *cookie_open(char *value, const struct sock *s)
{
    char *mac = strrchr(value, '~'), *who, want[MAC_HEX + 1];
    int64_t uid;

    if (!mac || strlen(mac + 1) != MAC_HEX)
        return NULL;
    mac_of(value, (size_t)(mac - value), want);
    if (!ct_equal(want, mac + 1, MAC_HEX))
        return NULL;
    *mac = '\0';
    who = strrchr(value, '~');
    if (!who)
        return NULL;
    *who++ = '\0';
    if (!str_eq(who, "-") && (!parse_i64(who, 0, UINT32_MAX, &uid) || cookie_peer_uid(s) != uid))
        return NULL;
    return value;
}

/* --- whose socket ----------------------------------------------------------------------------- */

static bool fill_addr(const char *text, uint32_t out[4], int *family)
{
    struct in6_addr v6;

    memset(out, 0, 16);
    if (inet_pton(AF_INET, text, out) == 1) {
        *family = AF_INET;
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6) != 1)
        return false;
    memcpy(out, &v6, 16);
    *family = AF_INET6;
    return true;
}

/* The peer's end has its address as source and ours as destination. */
int64_t cookie_peer_uid(const struct sock *s)
{
    struct {
        struct nlmsghdr h;
        struct inet_diag_req_v2 r;
    } q = { .h = { .nlmsg_len = sizeof(q),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST } };
    cleanup(closep) int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    struct timeval tv = { .tv_sec = 0, .tv_usec = 200000 };
    char reply[4096] __attribute__((aligned(8)));
    int family, other;
    ssize_t n;

    if (fd < 0 || !s->l->loopback || !fill_addr(s->remote, q.r.id.idiag_src, &family) ||
        !fill_addr(s->l->addr, q.r.id.idiag_dst, &other) || family != other)
        return -1;
    q.r.sdiag_family = (uint8_t)family;
    q.r.sdiag_protocol = IPPROTO_TCP;
    q.r.idiag_states = ~0U;
    q.r.id.idiag_sport = htons(s->remote_port);
    q.r.id.idiag_dport = htons((uint16_t)s->l->port);
    q.r.id.idiag_cookie[0] = q.r.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    if (send(fd, &q, sizeof(q), 0) != (ssize_t)sizeof(q))
        return -1;
    n = recv(fd, reply, sizeof(reply), 0); /* the kernel answered within send already */
    const struct nlmsghdr *h = (const void *)reply;

    if (n < (ssize_t)(sizeof(*h) + sizeof(struct inet_diag_msg)) ||
        h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
        return -1;
    const struct inet_diag_msg *m = (const void *)(reply + NLMSG_HDRLEN);
    return m->idiag_uid;
}
