/*
 * Uses of tool budgets, counted per (lineage, tool) in data/router.state: one line per use, sealed
 * by an HMAC that runs on from line to line, so that nothing can be added, changed or replayed. A
 * use is on disk before its call goes out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "router/router.h"

#define STATE_MAX     (64U << 20)
#define MAC_LEN       43
#define COMPACT_LINES 1000 /* so many lines that say nothing any more may stay */

static struct {
    char path[300];
    int fd;
    size_t len; /* of the file */
    struct hmac *key;
    char last[MAC_LEN + 1];
    struct map uses; /* "lineage tool" to count */
} st = { .fd = -1 };

/* --- sealed lines -------------------------------------------------------------------------------
 */

static void seal(const char *prev, const char *text, size_t len, char out[MAC_LEN + 1])
{
    struct buf b = BUF_INIT(1 << 20);
    uint8_t sum[32];

    buf_adds(&b, prev);
    buf_addc(&b, ' ');
    buf_add(&b, text, len);
    hmac_sum(st.key, b.data, b.len, sum);
    b64url_encode(sum, sizeof(sum), out);
    buf_done(&b);
}

static void add_line(struct buf *b, const char *lineage, const char *tool, int64_t n)
{
    cleanup(json_putp) json_object *o = json_make("lineage:s tool:s n:i", lineage, tool, n);
    const char *t = json_text(o);

    seal(st.last, t, strlen(t), st.last);
    buf_printf(b, "%s %s\n", st.last, t);
}

static const char *key_of(const char *lineage, const char *tool, char *out, size_t size)
{
    snprintf(out, size, "%s %s", lineage, tool);
    return out;
}

/* Counts are kept as pointers, +1: a map holds no NULL. */
static int64_t uses_get(const char *key)
{
    intptr_t v = (intptr_t)map_get(&st.uses, key);

    return v ? v - 1 : 0;
}

static void uses_set(const char *key, int64_t n)
{
    if (n <= 0)
        map_del(&st.uses, key);
    else
        map_put(&st.uses, key, (void *)(intptr_t)(n + 1));
}

/* False: the line is not ours, and nothing after it can be believed. */
static bool take_line(const char *line, size_t len)
{
    cleanup(json_putp) json_object *o = NULL;
    char mac[MAC_LEN + 1], key[256];

    if (len < MAC_LEN + 2 || line[MAC_LEN] != ' ')
        return false;
    seal(st.last, line + MAC_LEN + 1, len - MAC_LEN - 1, mac);
    if (!ct_equal(mac, line, MAC_LEN) || json_parse(line + MAC_LEN + 1, len - MAC_LEN - 1, &o))
        return false;
    memcpy(st.last, mac, sizeof(mac));
    key_of(json_str(o, "lineage", ""), json_str(o, "tool", ""), key, sizeof(key));
    uses_set(key, uses_get(key) + json_int(o, "n", 0));
    return true;
}

/* Reads what is there: lines seen, and the length up to which the file is ours. */
static size_t load(size_t *ret_good)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0, lines = 0, at = 0;
    int r = file_read(st.path, STATE_MAX, &text, &len);

    *ret_good = 0;
    if (r == -ENOENT)
        return 0;
    if (r)
        die(74, "%s: %s", st.path, r < 0 ? strerror(-r) : err_text(r));
    while (at < len) {
        char *nl = memchr(text + at, '\n', len - at);
        size_t n = nl ? (size_t)(nl - text) - at : len - at;

        if (!nl || !take_line(text + at, n)) {
            if (nl)
                log_error("%s: a line is not sealed by us; it and all after it are ignored",
                          st.path);
            break; /* without a newline: a write that was cut short */
        }
        at += n + 1;
        lines++;
    }
    *ret_good = at;
    return lines;
}

/* Opens the file for more lines after the good ones. */
static int reopen(size_t good)
{
    closep(&st.fd);
    st.fd = open(st.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (st.fd < 0 || ftruncate(st.fd, (off_t)good))
        return -errno;
    st.len = good;
    return 0;
}

/* What counts now, as a new file. */
static int compact(void)
{
    struct buf b = BUF_INIT(STATE_MAX);
    const char *key;
    void *v;
    size_t pos = 0;
    int r;

    memset(st.last, 0, sizeof(st.last));
    while (map_each(&st.uses, &pos, &key, &v)) {
        char lineage[160] = "";
        const char *tool = strchr(key, ' ');

        if (!tool)
            continue;
        snprintf(lineage, sizeof(lineage), "%.*s", (int)(tool - key), key);
        add_line(&b, lineage, tool + 1, (intptr_t)v - 1);
    }
    r = file_write_atomic(st.path, b.data ? b.data : "", b.len, 0600);
    size_t len = b.len;

    buf_done(&b);
    return r ? r : reopen(len);
}

static int write_use(const char *lineage, const char *tool, int64_t n)
{
    struct buf b = BUF_INIT(4096);
    char before[MAC_LEN + 1];
    int r;

    memcpy(before, st.last, sizeof(before));
    add_line(&b, lineage, tool, n);
    r = write_all(st.fd, b.data, b.len);
    if (!r && fdatasync(st.fd))
        r = -errno;
    if (!r) {
        st.len += b.len;
    } else {
        log_error("%s: %s", st.path, strerror(-r));
        memcpy(st.last, before, sizeof(before));
        if (ftruncate(st.fd, (off_t)st.len)) /* a torn line would hide all after it */
            log_error("%s: %s", st.path, strerror(errno));
    }
    buf_done(&b);
    return r;
}

int budget_take(const char *lineage, const char *tool, int64_t budget)
{
    char key[256];
    int64_t used = uses_get(key_of(lineage, tool, key, sizeof(key)));

    if (used >= budget || write_use(lineage, tool, 1))
        return ERR_BUDGET; /* what cannot be recorded is not allowed */
    uses_set(key, used + 1);
    return 0;
}

void budget_give_back(const char *lineage, const char *tool)
{
    char key[256];
    int64_t used = uses_get(key_of(lineage, tool, key, sizeof(key)));

    if (used > 0 && !write_use(lineage, tool, -1))
        uses_set(key, used - 1);
}

void budget_drop(const char *lineage)
{
    const char *key;
    void *v;
    size_t pos = 0, n = strlen(lineage);

    while (st.uses.n && map_each(&st.uses, &pos, &key, &v))
        if (strncmp(key, lineage, n) == 0 && key[n] == ' ') {
            write_use(lineage, key + n + 1, -((intptr_t)v - 1));
            map_del(&st.uses, key);
        }
}

/* Approvals are not granted by anyone yet, so there is no mark to take. */
bool approval_take(int64_t pid, const char *tool, const uint8_t args_hash[32])
{
    (void)pid;
    (void)tool;
    (void)args_hash;
    return false;
}

void state_init(void)
{
    uint8_t key[32];
    size_t good, lines;
    int r;

    if (path_fmt(st.path, sizeof(st.path), "%s/data/router.state", svc.root))
        die(78, "AVIX_ROOT is too long");
    key_derive(svc_key(KEY_SVC), KEY_LEN, "router.state", key);
    st.key = hmac_new(key, sizeof(key));
    explicit_bzero(key, sizeof(key));
    map_init(&st.uses);
    lines = load(&good);
    r = lines > 2 * st.uses.n + COMPACT_LINES ? compact() : reopen(good);
    if (r)
        die(74, "%s: %s", st.path, strerror(-r));
}

void state_fini(void)
{
    closep(&st.fd);
    st.fd = -1;
    map_done(&st.uses);
    hmac_free(st.key);
}
