/* What other units ask for: fs/export (execsvc's mounts), fs/metrics, kernel/mem. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/svc/svc_internal.h"
#include "memfs/beneath.h"
#include "memfs/local_int.h"
#include "memfs/op.h"
#include "memfs/tools.h"

#define N_BUCKETS 24 /* powers of two of nanoseconds, from 64 */

static struct {
    uint64_t hits, misses;
    uint64_t bucket[N_BUCKETS]; /* of hits */
} reads;

void metrics_read(bool hit, int64_t ns)
{
    unsigned b = 0;

    if (!hit) {
        reads.misses++;
        return;
    }
    reads.hits++;
    while (b < N_BUCKETS - 1 && ns >= 64LL << b)
        b++;
    reads.bucket[b]++;
}

static int64_t read_ns(unsigned percent)
{
    uint64_t seen = 0, want = (reads.hits * percent + 99) / 100;

    for (unsigned b = 0; b < N_BUCKETS; b++)
        if ((seen += reads.bucket[b]) >= want)
            return 64LL << b;
    return 0;
}

void tool_metrics(struct call *c, const struct caller *who)
{
    char text[1024];

    (void)who;
    snprintf(text, sizeof(text),
             "# TYPE avix_fs_reads_total counter\n"
             "avix_fs_reads_total{cached=\"true\"} %llu\n"
             "avix_fs_reads_total{cached=\"false\"} %llu\n"
             "# TYPE avix_fs_read_cached_ns gauge\n"
             "avix_fs_read_cached_ns{quantile=\"0.5\"} %lld\n"
             "avix_fs_read_cached_ns{quantile=\"0.99\"} %lld\n"
             "# TYPE avix_fs_jobs gauge\n"
             "avix_fs_jobs %u\n",
             (unsigned long long)reads.hits, (unsigned long long)reads.misses,
             (long long)read_ns(50), (long long)read_ns(99), pool_n_jobs());
    call_reply(c, json_make("text:s", text));
}

/* A folder that may be mounted whole: nothing below it is less open to the caller than itself. */
static bool exportable(const struct loc *l)
{
    if (l->area == AREA_USER || l->area == AREA_CREW || l->area == AREA_SERVICE)
        return *l->rest != '\0';
    return l->area == AREA_SCRATCH || l->area == AREA_BIN;
}

static void run_export(struct op *op)
{
    const char *rel;
    char link[32], host[4096];
    struct stat st;
    ssize_t n;

    if (!exportable(&op->at)) {
        fault_io(&op->f, ERR_PERM, op->at.path);
        return;
    }
    cleanup(closep) int root = open_root(&op->at, false, &rel, &op->f);
    cleanup(closep) int fd =
        root < 0 ? -1 : open_checked(root, rel, O_PATH, op->at.path, &st, &op->f);

    if (fd < 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        fault_io(&op->f, ERR_NOTDIR, op->at.path);
        return;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, host, sizeof(host) - 1);
    if (n <= 0) {
        fault_io(&op->f, -errno, op->at.path);
        return;
    }
    host[n] = '\0';
    buf_adds(&op->out, "{\"host_path\":");
    buf_add_json_str(&op->out, host, (size_t)n);
    buf_printf(&op->out, ",\"dev\":%llu,\"ino\":%llu}", (unsigned long long)st.st_dev,
               (unsigned long long)st.st_ino);
}

void tool_export(struct call *c, const struct caller *who)
{
    static const char *const modes[] = { "ro", "rw", NULL };
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);
    json_object *caller = args_obj(&a, "caller");
    int mode;

    op_place(&a, "path", &op->at);
    mode = args_enum_or(&a, "mode", modes, 0);
    if (!args_bad(&a)) { /* the call in whose place execsvc asks, as the router stamped it */
        op->stand_in = json_make("_caller:o", json_dup(caller));
        if (!caller_parse(op->stand_in, &op->who) || op->who.kind == CALLER_SERVICE)
            args_fail(&a, "caller", "is no agent and no user");
    }
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = mode ? MAY_RW : MAY_R;
    op->run = run_export;
    if (caller_is_unit(who, UNIT_EXECSVC)) {
        op_start(op);
        return;
    }
    fault_set(&op->f, ERR_PERM, "fs/export is for execsvc");
    op_finish(op);
}

void tool_mem_list(struct call *c, const struct caller *who)
{
    json_object *rows = json_new_arr();
    const char *path;
    int fd;

    (void)who;
    for (size_t i = 0; (path = ns_mount(i, &fd)); i++)
        json_push(rows, json_make("path:s provider:s options:o state:s", path, "local", json_new(),
                                  fd >= 0 ? "ok" : "failed"));
    call_reply(c, json_make("mounts:o", rows));
}

static void run_mem_stat(struct op *op)
{
    const char *rel;
    struct statvfs v;
    cleanup(closep) int root = open_root(&op->at, false, &rel, &op->f);

    if (root < 0)
        return;
    if (fstatvfs(root, &v)) {
        fault_io(&op->f, -errno, op->at.path);
        return;
    }
    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_printf(&op->out, ",\"provider\":\"local\",\"used\":%llu,\"free\":%llu,\"files\":%llu}",
               (unsigned long long)(v.f_blocks - v.f_bfree) * v.f_frsize,
               (unsigned long long)v.f_bavail * v.f_frsize,
               (unsigned long long)(v.f_files - v.f_ffree));
}

void tool_mem_stat(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "path", &op->at);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->run = run_mem_stat;
    op->lane = LANE_SHORT;
    op_start(op);
}

static void run_sync(struct op *op)
{
    int fd;

    for (size_t i = 0; ns_mount(i, &fd); i++)
        if (syncfs(fd)) {
            fault_io(&op->f, -errno, "/");
            return;
        }
    buf_adds(&op->out, "{\"synced\":true}");
}

void tool_mem_sync(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    if (args_any_or(&a, "path"))
        op_place(&a, "path", &op->at);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->run = run_sync;
    op->lane = LANE_BULK;
    op_start(op);
}
