/*
 * One write per line, so that only a full disk can tear one. What comes after a torn line is for
 * the kernel, which cuts it off before it starts this agent again.
 */
#include "kernel/agent/journal.h"

#include <errno.h>
#include <fcntl.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"

int journal_open(struct journal *j, int fd, int64_t last_seq)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || !(flags & O_APPEND) || (flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    *j = (struct journal){ .fd = fd, .seq = last_seq };
    return 0;
}

int journal_append(struct journal *j, json_object *line)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);
    char ts[RFC3339_LEN];
    const char *text = json_text(line);

    rfc3339(now_ms(), ts);
    buf_printf(&b, "{\"seq\":%lld,\"ts\":\"%s\",", (long long)j->seq + 1, ts);
    buf_adds(&b, text + 1);
    buf_addc(&b, '\n');
    int r = write_all(j->fd, b.data, b.len);
    if (!r && fdatasync(j->fd))
        r = -errno;
    buf_done(&b);
    if (r)
        return r;
    json_add_int(line, "seq", ++j->seq);
    return 0;
}
