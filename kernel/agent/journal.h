#pragma once
/*
 * The conversation file (kernel page, section 8): one JSON line per step, appended with write and
 * fdatasync before the step goes on. The descriptor is append-only and cannot be made otherwise
 * once the process is sealed.
 */
#include "common/base/json.h"

struct journal {
    int fd;
    int64_t seq; /* of the last line */
};

/* Takes the descriptor as it was passed down; it must be open for appending. 0 or -EINVAL. */
int journal_open(struct journal *j, int fd, int64_t last_seq);
/* Appends a line: seq and ts are put before its members. *line gets them too (borrowed). 0 or
 * -errno, after which the file may end in a torn line and nothing more must be appended. */
int journal_append(struct journal *j, json_object *line);
