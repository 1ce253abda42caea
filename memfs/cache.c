/*
 * Nothing here has to be told of a change: every hit is checked with the host. A file that was
 * changed within the clock's grain of being read could change again and show the same times, so an
 * answer is kept only for files that have been quiet for a while.
 */
#include "memfs/cache.h"

#include <fcntl.h>

#include "common/base/clock.h"

#define N_SLOTS  512
#define QUIET_MS 50

static struct slot {
    uint64_t hash;
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, changed;
    char *path;
    struct buf text;
} slots[N_SLOTS];

bool cache_stat(const struct loc *l, struct stat *st)
{
    const char *rel;
    int fd = ns_mount_fd(l, &rel);

    return fd >= 0 && !fstatat(fd, rel, st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st->st_mode);
}

static bool time_eq(struct timespec a, struct timespec b)
{
    return a.tv_nsec == b.tv_nsec && a.tv_sec == b.tv_sec;
}

static struct slot *slot_of(const struct loc *l, uint64_t *hash)
{
    *hash = hash_str(l->path);
    return &slots[*hash % N_SLOTS];
}

const struct buf *cache_get(const struct loc *l, const struct stat *st)
{
    uint64_t hash;
    const struct slot *s = slot_of(l, &hash);

    return s->path && s->hash == hash && s->ino == st->st_ino && s->dev == st->st_dev &&
                   s->size == st->st_size && time_eq(s->mtime, st->st_mtim) &&
                   time_eq(s->changed, st->st_ctim) && str_eq(s->path, l->path)
               ? &s->text
               : NULL;
}

static void slot_drop(struct slot *s)
{
    free(TAKE(s->path));
    buf_done(&s->text);
}

void cache_put(const struct loc *l, const struct stat *st, const struct buf *text)
{
    int64_t change_ms = (int64_t)st->st_ctim.tv_sec * 1000 + st->st_ctim.tv_nsec / 1000000;
    uint64_t hash;
    struct slot *s = slot_of(l, &hash);

    if (st->st_size > CACHE_FILE_MAX || text->len > 4UL * CACHE_FILE_MAX ||
        now_ms() - change_ms < QUIET_MS || now_ms() - stat_mtime_ms(st) < QUIET_MS)
        return;
    slot_drop(s);
    *s = (struct slot){ .hash = hash,
                        .dev = st->st_dev,
                        .ino = st->st_ino,
                        .size = st->st_size,
                        .mtime = st->st_mtim,
                        .changed = st->st_ctim,
                        .path = xstrdup(l->path) };
    buf_init(&s->text, text->len + 1);
    buf_add(&s->text, text->data, text->len);
}

void cache_clear(void)
{
    for (size_t i = 0; i < N_SLOTS; i++)
        slot_drop(&slots[i]);
}
