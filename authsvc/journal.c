/* Append, replay, replace. */
#include "authsvc/journal.h"

#include <errno.h>
#include <fcntl.h>

#include "common/base/fsx.h"
#include "common/base/log.h"

#define JOURNAL_MAX ((size_t)256 * 1024 * 1024)

struct journal {
    char *path;
    int fd;
    size_t grown;
};

static void replay(const char *text, size_t len, journal_line_fn fn, void *arg)
{
    const char *p = text, *end = text + len;

    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        json_object *o = NULL;

        if (!nl)
            break;
        if (json_parse(p, (size_t)(nl - p), &o) == 0 && json_object_is_type(o, json_type_object))
            fn(o, arg);
        json_put(o);
        p = nl + 1;
    }
}

static void reopen(struct journal *j)
{
    closep(&j->fd);
    j->fd = open(j->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (j->fd < 0)
        log_error("%s: %s", j->path, strerror(errno));
}

struct journal *journal_open(const char *path, journal_line_fn fn, void *arg)
{
    struct journal *j = xcalloc(1, sizeof(*j));
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    j->path = xstrdup(path);
    j->fd = -1;
    int r = file_read(path, JOURNAL_MAX, &text, &len);
    if (!r)
        replay(text, len, fn, arg);
    else if (r != -ENOENT)
        log_error("%s: not read (%s)", path, r < 0 ? strerror(-r) : "too big");
    reopen(j);
    /* a cut line must not swallow the next one */
    if (len && text[len - 1] != '\n' && j->fd >= 0)
        (void)write_all(j->fd, "\n", 1);
    return j;
}

void journal_add(struct journal *j, json_object *line)
{
    cleanup(json_putp) json_object *o = line;
    struct buf b = BUF_INIT(JOURNAL_MAX);

    buf_adds(&b, json_text(o));
    buf_addc(&b, '\n');
    int r = j->fd < 0 ? 0 : write_all(j->fd, b.data, b.len);
    if (r)
        log_error("%s: %s", j->path, strerror(-r));
    j->grown += b.len;
    buf_done(&b);
}

size_t journal_grown(const struct journal *j)
{
    return j->grown;
}

void journal_replace(struct journal *j, const char *text, size_t len)
{
    int r = file_write_rename(j->path, text, len, 0600);

    if (r)
        log_error("%s: %s", j->path, strerror(-r));
    else
        reopen(j);
    j->grown = 0;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    closep(&j->fd);
    free(j->path);
    free(j);
}
