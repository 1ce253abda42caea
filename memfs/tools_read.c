/*
 * Tools that change nothing. fs/read of a small file is the hot path: one normalisation, one table
 * look-up, one fstatat, and the answer that was made the last time.
 */
#include <errno.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mime.h"
#include "memfs/cache.h"
#include "memfs/op.h"
#include "memfs/synth.h"
#include "memfs/tools.h"

#define HERE_MAX 65536 /* a file up to this is read in the loop */

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void read_args(struct args *a, struct read_req *q)
{
    q->offset = args_int_or(a, "offset", 0, INT64_MAX / 2, 0);
    q->length = args_int_or(a, "length", 0, CONTENT_MAX, -1);
    q->line = args_int_or(a, "line", 1, INT64_MAX / 2, 0);
    q->lines = args_int_or(a, "lines", 0, INT64_MAX / 2, -1);
    q->encoding = (enum encoding)args_enum_or(a, "encoding", encoding_names, ENC_AUTO);
    if (q->lines >= 0 && !q->line)
        q->line = 1;
    if (q->line && q->offset)
        args_fail(a, "line", "is an alternative to offset");
}

static bool read_is_plain(const struct read_req *q)
{
    return !q->offset && q->length < 0 && !q->line && q->encoding == ENC_AUTO;
}

static void run_read(struct op *op)
{
    struct stat st;

    local_read(&op->at, &op->q.read, &op->out, &st, &op->f);
}

/* run_read in the loop, keeping the answer for the next time. */
static void run_read_here(struct op *op)
{
    struct stat before, st, after;

    if (!cache_stat(&op->at, &before) || local_read(&op->at, &op->q.read, &op->out, &st, &op->f) ||
        !cache_stat(&op->at, &after))
        return run_read(op);
    if (before.st_ino == st.st_ino && after.st_ino == st.st_ino &&
        after.st_ctim.tv_nsec == before.st_ctim.tv_nsec &&
        after.st_ctim.tv_sec == before.st_ctim.tv_sec && read_is_plain(&op->q.read))
        cache_put(&op->at, &after, &op->out);
}

static void nothing_there(struct op *op)
{
    fault_io(&op->f, op->at.area == AREA_ROOT ? ERR_ISDIR : -ENOENT, op->at.path);
}

static bool not_stored(const struct loc *l)
{
    return l->area == AREA_ROOT || l->area == AREA_NONE || l->area == AREA_SECRETS;
}

/* The hit, answered; false: take the long way. */
static bool read_hit(struct call *c, const struct caller *who, int64_t start)
{
    static const char *const others[] = { "offset", "length", "line", "lines", "encoding" };
    json_object *path = json_get(c->params, "path");
    struct loc l;
    struct stat st;
    const struct buf *text;

    for (size_t i = 0; i < N_ELEMS(others); i++)
        if (json_get(c->params, others[i]))
            return false;
    if (!json_object_is_type(path, json_type_string) ||
        ns_locate(json_object_get_string(path), (size_t)json_object_get_string_len(path), &l) ||
        !(perm_of(who, l.path) & MAY_R) || !cache_stat(&l, &st) || !(text = cache_get(&l, &st)))
        return false;
    metrics_read(true, now_ns() - start);
    call_reply_text(c, text->data, text->len);
    return true;
}

void tool_read(struct call *c, const struct caller *who)
{
    int64_t start = now_ns();

    if (read_hit(c, who, start))
        return;
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);
    struct stat st;

    op_place(&a, "path", &op->at);
    read_args(&a, &op->q.read);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_R;
    op->run = run_read;
    op->lane = LANE_SHORT;
    if (not_stored(&op->at)) {
        op->run = nothing_there;
        op->lane = LANE_HERE;
    } else if (ns_is_synthetic(op->at.area)) {
        op->run = synth_read;
        op->lane = LANE_HERE;
    } else if (perm_of(who, op->at.path) & MAY_R && cache_stat(&op->at, &st) &&
               st.st_size <= HERE_MAX) {
        op->run = run_read_here;
        op->lane = LANE_HERE;
    }
    metrics_read(false, now_ns() - start);
    op_start(op);
}

static void run_list(struct op *op)
{
    list_run(&op->who, &op->at, &op->q.list, &op->gone, &op->out, &op->f);
}

/* "/" and "/etc", which are nothing but names. */
static void run_list_root(struct op *op)
{
    if (op->at.area != AREA_ROOT)
        nothing_there(op);
    else if (op->at.path[1])
        buf_adds(&op->out, "{\"path\":\"/etc\",\"entries\":[\"avix\"]}");
    else
        buf_adds(&op->out, "{\"path\":\"/\",\"entries\":[\"bin\",\"crews\",\"etc\",\"kernel\","
                           "\"proc\",\"services\",\"tools\",\"users\"]}");
}

void tool_list(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);
    struct list_req *q = &op->q.list;

    op_place(&a, "path", &op->at);
    q->details = args_bool_or(&a, "details", false);
    q->recursive = args_bool_or(&a, "recursive", false);
    q->glob = args_str_or(&a, "glob", VPATH_MAX, NULL);
    q->limit = args_int_or(&a, "limit", 1, 10000, 1000);
    q->cursor = args_str_or(&a, "cursor", VPATH_MAX, NULL);
    if (!args_bad(&a) && q->recursive && ns_is_synthetic(op->at.area))
        args_fail(&a, "recursive", "works on stored folders only");
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_R;
    op->run = run_list;
    op->lane = q->recursive ? LANE_BULK : LANE_SHORT;
    if (not_stored(&op->at)) {
        op->run = run_list_root;
        op->lane = LANE_HERE;
    } else if (ns_is_synthetic(op->at.area)) {
        op->run = synth_list;
        op->lane = LANE_HERE;
    }
    op_start(op);
}

static const char *crew_of(const struct loc *l)
{
    return l->area == AREA_CREW ? l->name : "";
}

static void run_stat(struct op *op)
{
    struct stat st;
    char etag[ETAG_LEN], when[RFC3339_LEN], head[512];
    const char *owner = op->at.area == AREA_USER ? op->at.name : "root";
    bool folder;

    if (local_stat(&op->at, &st, &op->f))
        return;
    folder = S_ISDIR(st.st_mode);
    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    if (op->quiet) {
        buf_printf(&op->out, ",\"exists\":true,\"kind\":\"%s\"}", folder ? "dir" : "file");
        return;
    }
    size_t n = folder ? 0 : local_head(&op->at, head, sizeof(head));

    buf_printf(&op->out, ",\"kind\":\"%s\",\"size\":%lld,\"modifiedAt\":\"%s\",\"owner\":",
               folder ? "dir" : "file", (long long)st.st_size, rfc3339(stat_mtime_ms(&st), when));
    buf_add_json_str(&op->out, owner, strlen(owner));
    buf_adds(&op->out, ",\"crew\":");
    buf_add_json_str(&op->out, crew_of(&op->at), strlen(crew_of(&op->at)));
    buf_printf(&op->out, ",\"mode\":\"%s\",\"etag\":\"%s\",\"mime\":\"%s\"}",
               perm_of(&op->who, op->at.path) & MAY_W ? "rw" : "r", etag_of(&st, etag),
               folder ? "inode/directory" : mime_of(op->at.path, head, n));
}

static void run_stat_root(struct op *op)
{
    if (op->at.area != AREA_ROOT)
        fault_io(&op->f, -ENOENT, op->at.path);
    else
        buf_printf(
            &op->out,
            "{\"path\":\"%s\",%s\"kind\":\"dir\",\"size\":0,\"mode\":\"r\",\"owner\":\"root\","
            "\"crew\":\"\",\"etag\":\"0\",\"mime\":\"inode/directory\"}",
            op->at.path, op->quiet ? "\"exists\":true," : "");
}

static void stat_start(struct call *c, const struct caller *who, bool quiet)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "path", &op->at);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->quiet = quiet;
    op->need_at = MAY_R;
    op->run = not_stored(&op->at)            ? run_stat_root
              : ns_is_synthetic(op->at.area) ? synth_stat
                                             : run_stat;
    op_start(op);
}

void tool_stat(struct call *c, const struct caller *who)
{
    stat_start(c, who, false);
}

void tool_exists(struct call *c, const struct caller *who)
{
    stat_start(c, who, true);
}

static void run_glob(struct op *op)
{
    glob_run(&op->who, &op->at, op->q.glob.pattern, op->q.glob.limit, &op->gone, &op->out, &op->f);
}

/* Splits an absolute pattern into the folder before its first special component and the rest. */
static const char *split_pattern(const char *pattern, char *dir, size_t size)
{
    size_t cut = strcspn(pattern, "*?[{"), n = strlen(pattern);

    if (cut == n) /* no special character: the last component is the pattern */
        cut = n ? n - 1 : 0;
    while (cut > 0 && pattern[cut] != '/')
        cut--;
    if (cut + 1 >= size)
        return NULL;
    memcpy(dir, pattern, cut);
    dir[cut] = '\0';
    if (!cut)
        str_copy(dir, size, "/");
    return pattern + cut + 1;
}

static void glob_args(struct op *op, struct args *a)
{
    const char *pattern = args_str(a, "pattern", VPATH_MAX);
    const char *path = args_str_or(a, "path", VPATH_MAX, NULL);
    char dir[VPATH_MAX + 1];

    op->q.glob.limit = args_int_or(a, "limit", 1, 10000, 1000);
    if (args_bad(a))
        return;
    if (*pattern == '/') {
        pattern = split_pattern(pattern, dir, sizeof(dir));
        path = dir;
    } else if (!path) {
        snprintf(dir, sizeof(dir), "/users/%s/workspace", op->who.user);
        path = dir;
    }
    if (!pattern || !*pattern || ns_locate(path, strlen(path), &op->at))
        args_fail(a, pattern && *pattern ? "path" : "pattern", "is not usable");
    op->q.glob.pattern = pattern;
}

static bool only_stored(struct op *op, struct args *a)
{
    if (!args_bad(a) && !ns_is_local(op->at.area) && (perm_of(&op->who, op->at.path) & MAY_R))
        args_fail(a, "path", "must be a place where files are stored");
    return !args_bad(a);
}

void tool_glob(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    glob_args(op, &a);
    if (!only_stored(op, &a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_R;
    op->run = run_glob;
    op->lane = LANE_BULK;
    op_start(op);
}

static void on_found(int err, const char *text, size_t len, void *arg)
{
    struct op *op = arg;
    cleanup(json_putp) json_object *e = NULL;

    op->search = NULL;
    if (!err) {
        buf_add(&op->out, text, len);
    } else if (err == ERR_FAILED && !json_parse(text, len, &e) &&
               json_object_is_type(e, json_type_array)) {
        op->f.data = json_object_get(json_object_array_get_idx(e, 2));
        fault_set(&op->f, json_object_get_int(json_object_array_get_idx(e, 0)), "%s",
                  json_object_get_string(json_object_array_get_idx(e, 1)));
    } else {
        fault_set(&op->f, err, "%s", text);
    }
    op_finish(op);
}

static void run_search(struct op *op)
{
    op->search = search_start(svc.loop, &op->who, &op->at, &op->q.search, on_found, op);
    op->async = op->search != NULL;
    if (!op->async)
        fault_set(&op->f, ERR_BUSY, "no process for the search: %s", strerror(errno));
}

void tool_search(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);
    struct search_req *q = &op->q.search;

    q->query = args_str(&a, "query", 4096);
    op_place(&a, "path", &op->at);
    q->regex = args_bool_or(&a, "regex", false);
    q->ignore_case = args_bool_or(&a, "ignore_case", false);
    q->glob = args_str_or(&a, "glob", VPATH_MAX, NULL);
    q->context = args_int_or(&a, "context", 0, 20, 0);
    q->limit = args_int_or(&a, "limit", 1, 2000, 200);
    if (!args_bad(&a) && !*q->query)
        args_fail(&a, "query", "is empty");
    if (!only_stored(op, &a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_R;
    op->run = run_search;
    op_start(op);
}
