/* A turn is known by the place in the conversation where it starts: the last line on disk. So the
 * same turn has the same id in every process that runs it, and needs no hash. */
#include "kernel/agent/ids.h"

#include "common/base/b64.h"

#define UUID_BYTES 16

/* Byte i of a UUID stands at these positions of its text. */
static const unsigned char at[UUID_BYTES] = { 0,  2,  4,  6,  9,  11, 14, 16,
                                              19, 21, 24, 26, 28, 30, 32, 34 };

static void uuid_xor(char *text, unsigned byte, uint8_t v)
{
    uint8_t b = 0;
    char hex[3];

    if (!hex_decode(text + at[byte], 2, &b))
        return;
    b ^= v;
    hex_encode(&b, 1, hex);
    memcpy(text + at[byte], hex, 2);
}

char *turn_id(const char *invocation, int64_t seq, unsigned n, char out[UUID_LEN])
{
    uint64_t v = (uint64_t)seq * 256 + n;

    str_copy(out, UUID_LEN, invocation);
    for (unsigned i = 0; i < 7; i++)
        uuid_xor(out, UUID_BYTES - 1 - i, (uint8_t)(v >> (8 * i)));
    return out;
}

char *call_uuid(const char *turn, unsigned pos, char out[UUID_LEN])
{
    str_copy(out, UUID_LEN, turn);
    uuid_xor(out, 0, (uint8_t)(pos + 1));
    return out;
}
