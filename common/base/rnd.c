/* Randomness from getrandom(2): a process without it must not go on. */
#include "common/base/rnd.h"

#include <errno.h>
#include <sys/random.h>

#include "common/base/b64.h"
#include "common/base/log.h"

void rnd_bytes(void *out, size_t len)
{
    unsigned char *p = out;

    while (len) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die(111, "getrandom: no entropy");
        p += n;
        len -= (size_t)n;
    }
}

char *uuid4(char out[UUID_LEN])
{
    unsigned char b[16];
    char hex[33];

    rnd_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    hex_encode(b, sizeof(b), hex);
    for (int i = 0, j = 0; i < 36; i++)
        out[i] = i == 8 || i == 13 || i == 18 || i == 23 ? '-' : hex[j++];
    out[36] = '\0';
    return out;
}

bool uuid_valid(const char *s)
{
    if (!s || strlen(s) != 36)
        return false;
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? s[i] != '-' : !strchr("0123456789abcdef", s[i]))
            return false;
    }
    return s[14] == '4' && strchr("89ab", s[19]) != NULL;
}

void rnd_base62(char *out, size_t n)
{
    static const char set[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char pool[64];
    size_t i = 0;

    while (i < n) {
        rnd_bytes(pool, sizeof(pool));
        /* 248 is the largest multiple of 62 in a byte: the rest would make some letters likelier */
        for (size_t j = 0; j < sizeof(pool) && i < n; j++)
            if (pool[j] < 248)
                out[i++] = set[pool[j] % 62];
    }
    explicit_bzero(pool, sizeof(pool));
    out[n] = '\0';
}
