/* Bytes of a peer, in pieces as the input says: what the frame reader hands out must be what the
 * lengths promise, whatever the cuts. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ipc/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int sv[2];
    struct frame_in in;
    size_t at = 1, step = size ? (data[0] & 63) + 1U : 1, handed = 0;

    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv))
        return 0;
    frame_in_init(&in, 65536);
    for (bool more = true; more && at <= size;) {
        size_t n = size - at < step ? size - at : step;
        const char *body;
        size_t len;
        enum frame_result r;

        if (n && write(sv[0], data + at, n) != (ssize_t)n)
            abort();
        at += n;
        if (!n)
            close(sv[0]), sv[0] = -1, at = size + 1;
        do {
            r = frame_in_read(&in, sv[1], &body, &len);
            if (r == FRAME_READY) {
                handed += len + FRAME_HDR;
                if (len < FRAME_MIN || len > 65536 || handed > size)
                    abort();
                for (volatile size_t i = 0; i < len; i++)
                    (void)body[i];
            }
            if (r == FRAME_TOOBIG && len <= 65536)
                abort();
        } while (r == FRAME_READY);
        more = r == FRAME_MORE;
        if (!n && r == FRAME_MORE)
            abort(); /* at the end of file there is no more to wait for */
    }
    frame_in_done(&in);
    if (sv[0] >= 0)
        close(sv[0]);
    close(sv[1]);
    return 0;
}
