/*
 * Files are opened beneath the user's directory by openat2 without following a link anywhere, so a
 * tree that its user rearranged cannot make the kernel write elsewhere. A line counts when its
 * newline is there; what follows the last newline was torn by a crash and is cut off before the
 * next writer starts.
 */
#include "kernel/core/conv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/log.h"

#define CONV_MAX (256L * 1024 * 1024)

static int open_beneath(int dir, const char *name, int flags, mode_t mode)
{
    struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                            .mode = (flags & O_CREAT) ? mode : 0,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
    long fd = syscall(SYS_openat2, dir, name, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

/* A directory beneath dir, made durable if it is new. */
static int sub_dir(int dir, const char *name, bool make)
{
    int fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd != -ENOENT || !make)
        return fd;
    if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    if (fsync(dir) < 0)
        return -errno;
    return open_beneath(dir, name, O_RDONLY | O_DIRECTORY, 0);
}

static int agent_dir(const char *root, const char *user, const char *agent, bool make)
{
    char path[512];
    if (path_fmt(path, sizeof path, "%s/data/users", root))
        return -ENAMETOOLONG;
    cleanup(closep) int users = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (users < 0)
        return -errno;
    cleanup(closep) int home = sub_dir(users, user, make);
    if (home < 0)
        return home;
    cleanup(closep) int agents = sub_dir(home, "agents", make);
    if (agents < 0)
        return agents;
    return sub_dir(agents, agent, make);
}

static int file_name(char *out, size_t size, const char *invocation)
{
    return path_fmt(out, size, "%s.jsonl", invocation);
}

/* Reads the end of the file to find its last whole lines. */
static int scan_tail(int fd, off_t *end, struct conv_tail *t)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > CONV_MAX)
        return -EFBIG;
    off_t keep = 0;
    cleanup(buf_done) struct buf line = BUF_INIT((size_t)CONV_MAX);
    char chunk[65536];
    off_t at = 0;
    for (;;) {
        ssize_t n = pread(fd, chunk, sizeof chunk, at);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        for (char *p = chunk, *stop = chunk + n; p < stop;) {
            char *nl = memchr(p, '\n', (size_t)(stop - p));
            char *to = nl ? nl : stop;
            (void)buf_add(&line, p, (size_t)(to - p));
            p = nl ? nl + 1 : stop;
            if (!nl)
                continue;
            keep = at + (p - chunk);
            t->lines++;
            json_object *o = NULL;
            if (json_parse(line.data ? line.data : "", line.len, &o) == 0) {
                t->last_seq = json_int(o, "seq", t->last_seq);
                t->stopped_note = str_eq(json_str(o, "role", ""), "system") &&
                                  str_starts(json_str(o, "content", ""), "[Agent stopped: ");
            }
            json_put(o);
            buf_clear(&line);
        }
        at += n;
    }
    *end = keep;
    return at == keep ? 0 : 1;
}

int conv_open(const char *root, const char *user, const char *agent, const char *invocation,
              struct conv_tail *tail)
{
    struct conv_tail t = { 0 };
    char name[64];
    cleanup(closep) int dir = agent_dir(root, user, agent, true);
    if (dir < 0)
        return dir;
    if (file_name(name, sizeof name, invocation))
        return -ENAMETOOLONG;
    bool fresh = false;
    cleanup(closep) int fd = open_beneath(dir, name, O_RDWR | O_APPEND | O_NOFOLLOW, 0);
    if (fd == -ENOENT) {
        fresh = true;
        fd = open_beneath(dir, name, O_RDWR | O_APPEND | O_NOFOLLOW | O_CREAT | O_EXCL, 0600);
    }
    if (fd < 0)
        return fd;
    off_t end = 0;
    int r = fresh ? 0 : scan_tail(fd, &end, &t);
    if (r < 0)
        return r;
    if (r == 1 && ftruncate(fd, end) < 0)
        return -errno;
    if ((fresh || r == 1) && fsync(fd) < 0)
        return -errno;
    if (fresh && fsync(dir) < 0)
        return -errno;
    if (tail)
        *tail = t;
    int out = fd;
    fd = -1;
    return out;
}

int conv_stopped(const char *root, const char *user, const char *agent, const char *invocation,
                 const char *reason)
{
    struct conv_tail t = { 0 };
    cleanup(closep) int fd = conv_open(root, user, agent, invocation, &t);
    if (fd < 0)
        return fd;
    if (t.stopped_note)
        return 0;
    char ts[RFC3339_LEN];
    cleanup(freep) char *text = xasprintf("[Agent stopped: %s]", reason);
    cleanup(json_putp) json_object *o = json_make("seq:i ts:s role:s content:s", t.last_seq + 1,
                                                  rfc3339(now_ms(), ts), "system", text);
    cleanup(freep) char *line = xasprintf("%s\n", json_text(o));
    int r = write_all(fd, line, strlen(line));
    if (!r && fdatasync(fd) < 0)
        r = -errno;
    return r;
}

/* The call of an earlier entry that this tool line answers. */
static json_object *call_of(json_object *entries, const char *id)
{
    for (size_t i = json_object_array_length(entries); i-- > 0;) {
        json_object *calls = json_arr(json_object_array_get_idx(entries, i), "toolCalls");
        for (size_t k = 0; calls && k < json_object_array_length(calls); k++) {
            json_object *c = json_object_array_get_idx(calls, k);
            if (str_eq(json_str(c, "id", ""), id))
                return c;
        }
    }
    return NULL;
}

static json_object *entry_of(json_object *line)
{
    static const char *const keep[] = { "role",    "content", "toolCalls", "filesChanged",
                                        "thought", "seq",     "ts",        "turn",
                                        "turnId",  "from",    "usage",     "summaryOf",
                                        "taint" };
    json_object *e = json_new();
    for (size_t i = 0; i < N_ELEMS(keep); i++) {
        json_object *v = json_get(line, keep[i]);
        if (v)
            json_add(e, keep[i], json_dup(v));
    }
    if (!json_get(e, "content"))
        json_add_str(e, "content", "");
    return e;
}

static void merge_line(json_object *entries, json_object *line)
{
    const char *role = json_str(line, "role", NULL);
    if (!role) {
        log_warn("conversation: a line without a role was skipped");
        return;
    }
    const char *id = json_str(line, "toolCallId", NULL);
    json_object *call = str_eq(role, "tool") && id ? call_of(entries, id) : NULL;
    if (!call) {
        json_push(entries, entry_of(line));
        return;
    }
    json_object *error = json_get(line, "error"), *result = json_get(line, "result");
    if (error)
        json_add(call, "error", json_dup(error));
    if (result)
        json_add(call, "result", json_dup(result));
    else
        json_add_str(call, "result", json_str(line, "content", ""));
    json_object *files = json_get(line, "filesChanged");
    if (files)
        json_add(call, "filesChanged", json_dup(files));
}

json_object *conv_merge(const char *text, size_t len, size_t offset, size_t limit,
                        size_t *ret_total)
{
    cleanup(json_putp) json_object *entries = json_new_arr();
    for (size_t at = 0; at < len;) {
        const char *nl = memchr(text + at, '\n', len - at);
        if (!nl)
            break;
        size_t n = (size_t)(nl - text) - at;
        json_object *line = NULL;
        if (json_parse(text + at, n, &line) || !json_object_is_type(line, json_type_object))
            log_warn("conversation: a line that does not parse was skipped");
        else
            merge_line(entries, line);
        json_put(line);
        at += n + 1;
    }
    size_t total = json_object_array_length(entries);
    json_object *out = json_new_arr();
    for (size_t i = offset; i < total && i - offset < limit; i++)
        json_push(out, json_object_get(json_object_array_get_idx(entries, i)));
    if (ret_total)
        *ret_total = total;
    return out;
}

static int read_whole(const char *root, const char *user, const char *agent, const char *invocation,
                      char **ret, size_t *ret_len)
{
    char name[64];
    cleanup(closep) int dir = agent_dir(root, user, agent, false);
    if (dir < 0)
        return dir;
    if (file_name(name, sizeof name, invocation))
        return -ENAMETOOLONG;
    cleanup(closep) int fd = open_beneath(dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > CONV_MAX)
        return -EFBIG;
    char *text = xmalloc((size_t)st.st_size + 1);
    size_t len = 0;
    while (len < (size_t)st.st_size) {
        ssize_t n = pread(fd, text + len, (size_t)st.st_size - len, (off_t)len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    *ret = text;
    *ret_len = len;
    return 0;
}

json_object *conv_read(const char *root, const char *user, const char *agent,
                       const char *invocation, size_t offset, size_t limit, size_t *ret_total)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    int r = read_whole(root, user, agent, invocation, &text, &len);
    if (r) {
        if (r != -ENOENT)
            log_warn("conversation %s: %s", invocation, strerror(-r));
        if (ret_total)
            *ret_total = 0;
        return json_new_arr();
    }
    return conv_merge(text, len, offset, limit, ret_total);
}

int conv_lines(const char *root, const char *user, const char *agent, const char *invocation,
               size_t max, struct buf *b)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0, from = 0;
    int r = read_whole(root, user, agent, invocation, &text, &len);
    if (r)
        return r;
    while (len > 0 && text[len - 1] != '\n')
        len--;
    if (len > max) {
        const char *nl = memchr(text + (len - max), '\n', max);
        from = nl ? (size_t)(nl - text) + 1 : len;
    }
    return buf_add(b, text + from, len - from) ? -EFBIG : 0;
}

void conv_remove(const char *root, const char *user, const char *agent, const char *invocation)
{
    char name[64];
    cleanup(closep) int dir = agent_dir(root, user, agent, false);
    if (dir < 0 || file_name(name, sizeof name, invocation))
        return;
    (void)unlinkat(dir, name, 0);
    char path[512];
    if (!path_fmt(path, sizeof path, "%s/data/users/%s/agents/%s", root, user, agent))
        (void)rmdir(path);
}
