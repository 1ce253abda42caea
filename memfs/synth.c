/*
 * Each synthetic path belongs to one internal tool: the router knows tools and latencies, llmsvc
 * its providers, the kernel everything else. They get the reader and decide what it may see; memfs
 * only gives the answer the shape of a file or a folder. A list holds names, or {name, kind}; a
 * name that ends in '/' is a folder.
 */
#include "memfs/synth.h"

#include <stdio.h>

#include "common/base/clock.h"

static const char *view_of(const struct loc *l)
{
    if (l->area == AREA_TOOLS || (l->pid && str_ends(l->path, "/latency")))
        return "kernel/ipc/view";
    return vpath_beneath(l->path, "/proc/services/llm") ? "llm/view" : "kernel/proc/view";
}

static void ask(struct op *op, const char *how, ipc_done_fn done)
{
    op->async = true;
    svc_call(view_of(&op->at), json_make("path:s op:s reader:o", op->at.path, how, op_reader(op)),
             NULL, 0, done, op);
}

/* An owner's error as ours; one that is not there (yet) has nothing to show. */
static void view_failed(struct op *op, const struct ipc_reply *r)
{
    int err = r->err == ERR_METHOD ? ERR_UNAVAIL : r->err;

    if (err_code(err) == err_code(ERR_PERM) || err_code(err) == err_code(ERR_NOTFOUND))
        fault_io(&op->f, err, op->at.path);
    else
        fault_set(&op->f, err, "%.200s", r->error.message);
    op_finish(op);
}

static const char *content_of(json_object *result, size_t *n)
{
    json_object *o =
        json_object_is_type(result, json_type_string) ? result : json_get(result, "content");

    *n = o ? (size_t)json_object_get_string_len(o) : 0;
    return o ? json_object_get_string(o) : "";
}

static char *hash_etag(const char *text, size_t n, char out[ETAG_LEN])
{
    snprintf(out, ETAG_LEN, "%llx-%zx", (unsigned long long)hash_bytes(text, n), n);
    return out;
}

/* The part of the text a read asks for: by lines or by bytes. */
static void cut_text(const struct read_req *q, const char *text, size_t n, int64_t *offset,
                     int64_t *len)
{
    *offset = q->offset;
    *len = q->length < 0 ? READ_DFLT : q->length;
    if (q->line) {
        const char *at = text, *end = text + n;

        for (int64_t i = 1; i < q->line && at < end; i++) {
            const char *nl = memchr(at, '\n', (size_t)(end - at));

            at = nl ? nl + 1 : end;
        }
        *offset = at - text;
        const char *stop = at;

        for (int64_t i = 0; (q->lines < 0 || i < q->lines) && stop < end; i++) {
            const char *nl = memchr(stop, '\n', (size_t)(end - stop));

            stop = nl ? nl + 1 : end;
        }
        *len = stop - at;
    }
    if (*offset > (int64_t)n)
        *offset = (int64_t)n;
    if (*len > (int64_t)n - *offset)
        *len = (int64_t)n - *offset;
}

static void on_read(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;
    char etag[ETAG_LEN];
    size_t n;
    int64_t offset, len;

    if (r->err) {
        view_failed(op, r);
        return;
    }
    const char *text = content_of(r->result, &n);

    cut_text(&op->q.read, text, n, &offset, &len);
    read_result(&op->out, op->at.path, text + offset, (size_t)len, &op->q.read, (int64_t)n, offset,
                hash_etag(text, n, etag), now_ms(), &op->f);
    op_finish(op);
}

void synth_read(struct op *op)
{
    ask(op, "read", on_read);
}

struct row {
    char name[256];
    bool folder;
};

static int row_cmp(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static bool row_read(json_object *o, struct row *row)
{
    bool text = json_object_is_type(o, json_type_string);
    const char *name = text ? json_object_get_string(o) : json_str(o, "name", "");
    size_t n = strlen(name);

    if (!n || n >= sizeof(row->name) || (n == 1 && *name == '/'))
        return false;
    row->folder = name[n - 1] == '/' || str_eq(json_str(text ? NULL : o, "kind", ""), "dir");
    memcpy(row->name, name, n - (name[n - 1] == '/'));
    row->name[n - (name[n - 1] == '/')] = '\0';
    return true;
}

/* What memfs itself adds to the kernel's list of an agent: its scratch folder, the router's file.
 */
static size_t own_rows(struct op *op, struct row *rows)
{
    struct loc l;
    size_t n = 0;
    const char *rel;
    char path[64];

    if (op->at.area != AREA_PROC || !op->at.pid)
        return 0;
    int len = snprintf(path, sizeof(path), "/proc/%lld/scratch", (long long)op->at.pid);

    if (strlen(op->at.path) != (size_t)len - strlen("/scratch"))
        return 0;
    str_copy(rows[n].name, sizeof(rows[n].name), "latency");
    rows[n++].folder = false;
    ns_locate(path, (size_t)len, &l);
    cleanup(closep) int fd = ns_open_root(&l, false, &rel);

    if (fd >= 0) {
        str_copy(rows[n].name, sizeof(rows[n].name), "scratch");
        rows[n++].folder = true;
    }
    return n;
}

static void list_out(struct op *op, struct row *rows, size_t n)
{
    struct buf items = BUF_INIT(REPLY_MAX);
    const struct list_req *q = &op->q.list;
    const char *last = NULL;
    int64_t shown = 0;
    bool more = false;

    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_adds(&op->out, ",\"entries\":[");
    for (size_t i = 0; i < n && !more; i++) {
        if ((i && str_eq(rows[i].name, rows[i - 1].name)) ||
            (q->cursor && strcmp(rows[i].name, q->cursor) <= 0) ||
            (q->glob && !glob_match(q->glob, rows[i].name)))
            continue;
        if (shown == q->limit) {
            more = true;
            break;
        }
        buf_adds(&op->out, shown ? "," : "");
        buf_add_json_str(&op->out, rows[i].name, strlen(rows[i].name));
        buf_adds(&items, shown++ ? ",{\"name\":" : "{\"name\":");
        buf_add_json_str(&items, rows[i].name, strlen(rows[i].name));
        buf_printf(&items, ",\"kind\":\"%s\",\"size\":0}", rows[i].folder ? "dir" : "file");
        last = rows[i].name;
    }
    buf_addc(&op->out, ']');
    if (q->details) {
        buf_adds(&op->out, ",\"items\":[");
        buf_add(&op->out, items.data, items.len);
        buf_addc(&op->out, ']');
    }
    if (more && last) {
        buf_adds(&op->out, ",\"next_cursor\":");
        buf_add_json_str(&op->out, last, strlen(last));
    }
    buf_addc(&op->out, '}');
    buf_done(&items);
}

static void on_list(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        view_failed(op, r);
        return;
    }
    json_object *entries = json_object_is_type(r->result, json_type_array)
                               ? r->result
                               : json_arr(r->result, "entries");
    size_t n = entries ? json_object_array_length(entries) : 0, used;
    cleanup(freep) struct row *rows = xcalloc(n + 2, sizeof(*rows));

    used = own_rows(op, rows);
    for (size_t i = 0; i < n; i++)
        used += row_read(json_object_array_get_idx(entries, i), &rows[used]);
    qsort(rows, used, sizeof(*rows), row_cmp);
    list_out(op, rows, used);
    op_finish(op);
}

void synth_list(struct op *op)
{
    ask(op, "list", on_list);
}

static void stat_out(struct op *op, bool folder, int64_t size, const char *etag)
{
    char when[RFC3339_LEN];

    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    if (op->quiet)
        buf_printf(&op->out, ",\"exists\":true,\"kind\":\"%s\"}", folder ? "dir" : "file");
    else
        buf_printf(&op->out,
                   ",\"kind\":\"%s\",\"size\":%lld,\"modifiedAt\":\"%s\",\"owner\":\"root\","
                   "\"crew\":\"\",\"mode\":\"r\",\"etag\":\"%s\",\"mime\":\"%s\"}",
                   folder ? "dir" : "file", (long long)size, rfc3339(now_ms(), when), etag,
                   folder ? "inode/directory" : "application/yaml");
    op_finish(op);
}

static void on_stat_list(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;

    if (r->err)
        view_failed(op, r);
    else
        stat_out(op, true, 0, "0");
}

static void on_stat_read(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;
    char etag[ETAG_LEN];
    size_t n;

    if (r->err) { /* no file: perhaps a folder */
        ask(op, "list", on_stat_list);
        return;
    }
    const char *text = content_of(r->result, &n);

    stat_out(op, false, (int64_t)n, hash_etag(text, n, etag));
}

void synth_stat(struct op *op)
{
    ask(op, "read", on_stat_read);
}
