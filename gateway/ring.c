/*
 * The event ring.
 *
 * File: one header page, then a circle of bytes. Records lie one after the other, 8-aligned, never
 * split over the end; a gap there is marked by a record without a number. The header names the
 * oldest record; the newest is found by walking: a record belongs to the ring as long as its
 * checksum is right and its number rises. Order of stores when one is appended: the header lets go
 * of what will be overwritten, the record's bytes, the record's length and checksum. A process
 * killed between any two leaves a ring that ends one record earlier.
 *
 * Numbers are reserved 4096 ahead in the header, so a number that was given to an event that is not
 * kept is not given again after a crash.
 */
#include "gateway/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/base/err.h"
#include "common/base/map.h"

#define PAGE  4096U
#define MAGIC 0x31474e5258495641ULL /* "AVIXRNG1" */

struct head {
    uint64_t magic, boot, bytes;
    _Atomic uint64_t next;  /* numbers below this may have been given out */
    _Atomic uint64_t first; /* offset of the oldest record */
    _Atomic uint64_t floor;
};

struct rec {
    uint32_t len; /* whole record, multiple of 8; 0: nothing here */
    uint32_t crc; /* of all behind it */
    uint64_t seq; /* 0: filler up to the end */
    int64_t pid;
    uint32_t text_len;
    uint16_t kind_len, user_len, id_len, role;
    char data[]; /* kind, user, id, each with NUL; text */
};

struct slot {
    uint64_t seq;
    size_t off;
};

struct ring {
    struct head *h;
    char *base;
    size_t bytes, write, used, map_len;
    unsigned cap, first, n; /* slots: a circle, oldest at first */
    struct slot *slots;
    uint64_t seq, evicted;
    struct map ids; /* publisher's id -> number */
};

/* --- CRC-32C ---------------------------------------------------------------------------------- */

static uint32_t crc_table[256];

static void crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0x82f63b78U ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc32c(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint32_t c = ~0U;

    while (len--)
        c = crc_table[(c ^ *p++) & 0xff] ^ (c >> 8);
    return ~c;
}

static uint32_t rec_crc(const struct rec *r)
{
    return crc32c(&r->seq, r->len - offsetof(struct rec, seq));
}

/* --- records ---------------------------------------------------------------------------------- */

static struct rec *at(const struct ring *r, size_t off)
{
    return (struct rec *)(void *)(r->base + off);
}

static size_t rec_size(const struct ring_ev *e)
{
    size_t n = sizeof(struct rec) + strlen(e->kind) + strlen(e->user) + strlen(e->id) + 3 + e->len;

    return (n + 7) & ~(size_t)7;
}

/* A record whose every length is inside it; content is checked by crc. */
static bool rec_sound(const struct ring *r, size_t off)
{
    const struct rec *c = at(r, off);
    size_t room = r->bytes - off, inner;

    if (room < sizeof(*c) || c->len < sizeof(*c) || c->len > room || c->len % 8)
        return false;
    inner = (size_t)c->kind_len + c->user_len + c->id_len + 3 + c->text_len;
    if (c->seq && sizeof(*c) + inner > c->len)
        return false;
    return c->crc == rec_crc(c);
}

static void rec_read(const struct ring *r, size_t off, struct ring_ev *e)
{
    const struct rec *c = at(r, off);

    e->seq = c->seq;
    e->pid = c->pid;
    e->role = c->role;
    e->kind = c->data;
    e->user = e->kind + c->kind_len + 1;
    e->id = e->user + c->user_len + 1;
    e->text = e->id + c->id_len + 1;
    e->len = c->text_len;
}

static struct slot *slot(const struct ring *r, unsigned i)
{
    return &r->slots[(r->first + i) % r->cap];
}

static void evict(struct ring *r)
{
    struct slot *s = slot(r, 0);
    struct ring_ev e;

    rec_read(r, s->off, &e);
    if (e.id[0] && (uint64_t)(uintptr_t)map_get(&r->ids, e.id) == s->seq)
        map_del(&r->ids, e.id);
    r->used -= at(r, s->off)->len;
    r->first = (r->first + 1) % r->cap;
    r->n--;
    r->evicted++;
    atomic_store(&r->h->floor, s->seq);
    atomic_store(&r->h->first, r->n ? slot(r, 0)->off : r->write);
}

/* --- opening ---------------------------------------------------------------------------------- */

static void index_add(struct ring *r, size_t off)
{
    struct ring_ev e;

    rec_read(r, off, &e);
    *slot(r, r->n) = (struct slot){ .seq = e.seq, .off = off };
    r->n++;
    r->used += at(r, off)->len;
    if (e.id[0])
        map_put(&r->ids, e.id, (void *)(uintptr_t)e.seq);
}

/* Walks from the oldest record to where the next one goes. */
static void recover(struct ring *r)
{
    size_t off = atomic_load(&r->h->first), start = off;
    uint64_t last = atomic_load(&r->h->floor);
    bool wrapped = false;

    if (off >= r->bytes || off % 8)
        off = start = 0;
    r->write = off;
    while (r->n < r->cap) {
        if (r->bytes - off < sizeof(struct rec)) {
            if (wrapped)
                break;
            wrapped = true;
            off = 0;
        }
        if (wrapped && off >= start)
            break;
        if (!rec_sound(r, off))
            break;
        if (at(r, off)->seq == 0) { /* filler */
            if (wrapped)
                break;
            wrapped = true;
            off = 0;
            continue;
        }
        if (at(r, off)->seq <= last)
            break; /* left from the round before */
        last = at(r, off)->seq;
        index_add(r, off);
        off += at(r, off)->len;
        r->write = off;
    }
    r->seq = atomic_load(&r->h->next);
    if (r->seq <= last)
        r->seq = last + 1;
}

static void reset(struct ring *r, uint64_t boot, uint64_t first_seq)
{
    bool known = r->h->magic == MAGIC;
    uint64_t next = known ? atomic_load(&r->h->next) : 0;

    if (first_seq < next)
        first_seq = next;
    r->h->magic = 0; /* a crash in here starts over */
    atomic_store(&r->h->floor, first_seq - 1);
    atomic_store(&r->h->first, 0);
    atomic_store(&r->h->next, first_seq);
    r->h->boot = boot;
    r->h->bytes = r->bytes;
    at(r, 0)->len = 0;
    atomic_thread_fence(memory_order_seq_cst);
    r->h->magic = MAGIC;
}

static int map_file(struct ring *r, const char *path)
{
    cleanup(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    int err;

    if (fd < 0 || fstat(fd, &st))
        return -errno;
    r->map_len = PAGE + r->bytes;
    if ((size_t)st.st_size != r->map_len && ftruncate(fd, 0))
        return -errno;
    err = posix_fallocate(fd, 0, (off_t)r->map_len); /* a full disk shows now, not as SIGBUS */
    if (err)
        return -err;
    void *p = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    r->h = p;
    r->base = (char *)p + PAGE;
    return 0;
}

int ring_open(const char *path, uint64_t boot, uint64_t first_seq, size_t bytes, unsigned events,
              struct ring **ret)
{
    struct ring *r = xcalloc(1, sizeof(*r));
    int err;

    crc_init();
    r->bytes = bytes;
    r->cap = events;
    r->slots = xcalloc(events, sizeof(*r->slots));
    map_init(&r->ids);
    err = map_file(r, path);
    if (err) {
        ring_close(r);
        return err;
    }
    if (r->h->magic != MAGIC || r->h->boot != boot || r->h->bytes != bytes)
        reset(r, boot, first_seq);
    recover(r);
    *ret = r;
    return 0;
}

void ring_close(struct ring *r)
{
    if (!r)
        return;
    if (r->h)
        munmap(r->h, r->map_len);
    map_done(&r->ids);
    free(r->slots);
    free(r);
}

/* --- use -------------------------------------------------------------------------------------- */

uint64_t ring_take_seq(struct ring *r)
{
    uint64_t seq = r->seq++;

    if (r->seq > atomic_load(&r->h->next))
        atomic_store(&r->h->next, seq + RING_AHEAD);
    return seq;
}

/* Lets go of every record that [off, off + len) touches. */
static void make_room(struct ring *r, size_t off, size_t len)
{
    while (r->n) {
        size_t o = slot(r, 0)->off;

        if (o + at(r, o)->len <= off || o >= off + len)
            break;
        evict(r);
    }
}

static size_t place(struct ring *r, size_t len)
{
    size_t off = r->write, room = r->bytes - off;

    if (len <= room)
        return off;
    make_room(r, off, room);
    if (room >= sizeof(struct rec)) {
        struct rec *f = at(r, off);

        memset(f, 0, sizeof(*f));
        atomic_thread_fence(memory_order_release);
        f->len = (uint32_t)room;
        f->crc = rec_crc(f);
    }
    /* The walk starts at the oldest record: with none left it must not start at the filler. */
    if (!r->n)
        atomic_store(&r->h->first, 0);
    return 0;
}

int ring_append(struct ring *r, const struct ring_ev *e)
{
    size_t len = rec_size(e), off;
    struct rec *c;
    char *p;

    if (len > r->bytes / 4)
        return ERR_TOOBIG;
    if (r->n == r->cap)
        evict(r);
    off = place(r, len);
    make_room(r, off, len);
    if (!r->n)
        atomic_store(&r->h->first, off);
    c = at(r, off);
    c->len = 0;
    atomic_thread_fence(memory_order_release);
    memset(&c->crc, 0, sizeof(*c) - offsetof(struct rec, crc));
    c->seq = e->seq;
    c->pid = e->pid;
    c->role = (uint16_t)e->role;
    c->kind_len = (uint16_t)strlen(e->kind);
    c->user_len = (uint16_t)strlen(e->user);
    c->id_len = (uint16_t)strlen(e->id);
    c->text_len = (uint32_t)e->len;
    p = c->data;
    p = mempcpy(p, e->kind, c->kind_len + 1U);
    p = mempcpy(p, e->user, c->user_len + 1U);
    p = mempcpy(p, e->id, c->id_len + 1U);
    p = mempcpy(p, e->text, e->len);
    memset(p, 0, (size_t)((char *)c + len - p));
    c->crc = crc32c(&c->seq, len - offsetof(struct rec, seq));
    atomic_thread_fence(memory_order_release);
    c->len = (uint32_t)len;
    r->write = off + len;
    index_add(r, off);
    return 0;
}

uint64_t ring_find_id(const struct ring *r, const char *id)
{
    return id[0] ? (uint64_t)(uintptr_t)map_get(&r->ids, id) : 0;
}

uint64_t ring_head(const struct ring *r)
{
    return r->seq - 1;
}

uint64_t ring_floor(const struct ring *r)
{
    return atomic_load(&r->h->floor);
}

unsigned ring_count(const struct ring *r)
{
    return r->n;
}

size_t ring_used(const struct ring *r)
{
    return r->used;
}

uint64_t ring_evicted(const struct ring *r)
{
    return r->evicted;
}

bool ring_after(const struct ring *r, uint64_t seq, struct ring_ev *e)
{
    unsigned lo = 0, hi = r->n;

    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;

        if (slot(r, mid)->seq > seq)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo == r->n)
        return false;
    rec_read(r, slot(r, lo)->off, e);
    return true;
}
