/*
 * Reading heads: small strict parsers over borrowed text. Whatever is odd is "no".
 */
#include "gateway/hosts.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <strings.h>

bool host_name(const char *host, char *out, size_t size)
{
    size_t n = host && host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host ? host : "", ":");
    int64_t port;

    if (!host || !host[0] || n >= size || n > strlen(host) || !n)
        return false;
    if (host[n] == ':' ? !parse_i64(host + n + 1, 0, 65535, &port) : host[n] != '\0')
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)host[i];

        if (c <= ' ' || c >= 0x7f || strchr("/\\@\"'<>;,", c))
            return false;
        out[i] = (char)tolower(c);
    }
    out[n] = '\0';
    return true;
}

bool host_is_local(const char *name)
{
    return str_eq(name, "localhost") || str_eq(name, "127.0.0.1") || str_eq(name, "[::1]");
}

bool host_allowed(const char *host, bool loopback, json_object *allowed)
{
    char name[256];
    bool any = allowed && json_object_array_length(allowed);

    if (!host_name(host, name, sizeof(name)))
        return false;
    if (loopback && host_is_local(name))
        return true;
    for (size_t i = 0; any && i < json_object_array_length(allowed); i++) {
        const char *a = json_object_get_string(json_object_array_get_idx(allowed, i));

        if (a && strcasecmp(a, name) == 0)
            return true;
    }
    return !loopback && !any;
}

bool origin_allowed(const char *origin, bool secure, const char *host, json_object *allowed)
{
    char own[300];

    if (str_empty(origin))
        return true;
    snprintf(own, sizeof(own), "%s://%s", secure ? "https" : "http", host ? host : "");
    if (strcasecmp(origin, own) == 0)
        return true;
    for (size_t i = 0; allowed && i < json_object_array_length(allowed); i++) {
        const char *a = json_object_get_string(json_object_array_get_idx(allowed, i));

        if (a && !str_eq(origin, "null") && strcasecmp(a, origin) == 0)
            return true;
    }
    return false;
}

const char *bearer_token(const char *value)
{
    if (!value || strncasecmp(value, "bearer", 6) != 0 || value[6] != ' ')
        return NULL;
    value += 6 + strspn(value + 6, " ");
    return *value ? value : NULL;
}

bool cookie_get(const char *header, const char *name, char *out, size_t size)
{
    size_t nlen = strlen(name);

    while (header && *header) {
        size_t len;

        header += strspn(header, " ;\t");
        len = strcspn(header, ";");
        if (len > nlen && strncmp(header, name, nlen) == 0 && header[nlen] == '=') {
            const char *v = header + nlen + 1;
            size_t n = len - nlen - 1;

            while (n && (v[n - 1] == ' ' || v[n - 1] == '\t'))
                n--;
            if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
                v++;
                n -= 2;
            }
            if (!n || n >= size)
                return false;
            memcpy(out, v, n);
            out[n] = '\0';
            return true;
        }
        header += len;
    }
    return false;
}

/* --- addresses -------------------------------------------------------------------------------- */

/* As 16 bytes, v4 mapped. */
static bool addr_bytes(const char *s, unsigned char out[16])
{
    struct in_addr v4;

    if (inet_pton(AF_INET, s, &v4) == 1) {
        memset(out, 0, 10);
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &v4, 4);
        return true;
    }
    return inet_pton(AF_INET6, s, out) == 1;
}

static bool in_cidr(const unsigned char a[16], const char *cidr)
{
    char text[64];
    const char *slash = strchr(cidr, '/');
    size_t n = slash ? (size_t)(slash - cidr) : strlen(cidr);
    unsigned char net[16];
    int64_t bits;
    bool v4;

    if (n >= sizeof(text))
        return false;
    memcpy(text, cidr, n);
    text[n] = '\0';
    v4 = !strchr(text, ':');
    bits = v4 ? 32 : 128;
    if (!addr_bytes(text, net) || (slash && !parse_i64(slash + 1, 0, bits, &bits)))
        return false;
    if (v4)
        bits += 96;
    for (int i = 0; i < 16 && bits > 0; i++, bits -= 8) {
        unsigned char mask = bits >= 8 ? 0xff : (unsigned char)(0xff << (8 - bits));

        if ((a[i] & mask) != (net[i] & mask))
            return false;
    }
    return true;
}

bool cidr_match(const char *addr, json_object *cidrs)
{
    unsigned char a[16];

    if (!cidrs || !addr_bytes(addr, a))
        return false;
    for (size_t i = 0; i < json_object_array_length(cidrs); i++) {
        const char *c = json_object_get_string(json_object_array_get_idx(cidrs, i));

        if (c && in_cidr(a, c))
            return true;
    }
    return false;
}

bool addr_is_loopback(const char *addr)
{
    unsigned char a[16];

    return addr_bytes(addr, a) && (in_cidr(a, "127.0.0.0/8") || in_cidr(a, "::1/128"));
}

bool forwarded_for(const char *header, json_object *proxies, char *out, size_t size)
{
    size_t end = strlen(header);
    unsigned char bytes[16];

    while (end) {
        size_t start = end, n;

        while (start && header[start - 1] != ',')
            start--;
        const char *s = header + start;
        n = end - start;
        while (n && (*s == ' ' || *s == '\t')) {
            s++;
            n--;
        }
        while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
            n--;
        out[0] = '\0';
        if (!n || n >= size)
            return false;
        memcpy(out, s, n);
        out[n] = '\0';
        if (!addr_bytes(out, bytes)) {
            out[0] = '\0';
            return false;
        }
        if (!cidr_match(out, proxies))
            return true;
        end = start ? start - 1 : 0;
    }
    return false;
}

/* --- heads ------------------------------------------------------------------------------------ */

size_t head_len(const char *data, size_t len)
{
    const char *e = memmem(data, len, "\r\n\r\n", 4);

    return e ? (size_t)(e - data) + 4 : 0;
}

bool head_get(const char *head, size_t len, const char *name, char *out, size_t size)
{
    size_t nlen = strlen(name);
    const char *end = head + len, *line = memmem(head, len, "\r\n", 2);

    while (line && line + 2 < end) {
        const char *p = line + 2, *eol = memmem(p, (size_t)(end - p), "\r\n", 2);

        if (!eol || eol == p)
            return false;
        if ((size_t)(eol - p) > nlen && p[nlen] == ':' && strncasecmp(p, name, nlen) == 0) {
            const char *v = p + nlen + 1;

            while (v < eol && (*v == ' ' || *v == '\t'))
                v++;
            while (eol > v && (eol[-1] == ' ' || eol[-1] == '\t'))
                eol--;
            if ((size_t)(eol - v) >= size || memchr(v, '\0', (size_t)(eol - v)))
                return false;
            memcpy(out, v, (size_t)(eol - v));
            out[eol - v] = '\0';
            return true;
        }
        line = eol;
    }
    return false;
}

bool head_is_upgrade(const char *head, size_t len, const char *path)
{
    size_t plen = strlen(path);
    char up[32];

    if (len < 4 + plen + 1 || memcmp(head, "GET ", 4) != 0 || memcmp(head + 4, path, plen) != 0 ||
        (head[4 + plen] != ' ' && head[4 + plen] != '?'))
        return false;
    return head_get(head, len, "upgrade", up, sizeof(up)) && strcasecmp(up, "websocket") == 0;
}
