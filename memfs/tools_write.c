/* Tools that change files. Each reads its arguments, names what it needs, and works in a worker. */
#include <errno.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "memfs/op.h"
#include "memfs/tools.h"

/* A text argument that may hold any character, U+0000 too. */
static const char *text_arg(struct args *a, const char *key, size_t max, size_t *len)
{
    json_object *o = args_any_or(a, key);

    *len = 0;
    if (!o)
        args_fail(a, key, "missing");
    else if (!json_object_is_type(o, json_type_string))
        args_fail(a, key, "must be a string");
    else if ((*len = (size_t)json_object_get_string_len(o)) > max)
        args_fail(a, key, "is too long");
    return args_bad(a) ? "" : json_object_get_string(o);
}

static bool place_is_stored(struct op *op, const struct loc *l)
{
    if (ns_is_local(l->area) && l->area != AREA_USERS && l->area != AREA_CREWS &&
        l->area != AREA_SERVICES)
        return true;
    fault_io(&op->f, ERR_PERM, l->path);
    return false;
}

/* Owner of a scratch, noted by the agent's own first write. */
static void note_owner(const struct op *op, const struct loc *l)
{
    if (l->area == AREA_SCRATCH && op->who.kind == CALLER_AGENT && l->pid == op->who.pid)
        ns_scratch_own(l, op->who.user);
}

void write_whole(struct op *op)
{
    struct write_res res;
    char etag[ETAG_LEN];

    if (!place_is_stored(op, &op->at) || local_write(&op->at, &op->q.write, &res, &op->f))
        return;
    note_owner(op, &op->at);
    buf_adds(&op->out, "{\"ok\":true,\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_printf(&op->out, ",\"bytes_written\":%zu,\"size\":%lld,\"etag\":\"%s\",\"created\":%s}",
               op->q.write.len, (long long)res.st.st_size, etag_of(&res.st, etag),
               res.created ? "true" : "false");
}

static void write_args(struct op *op, struct args *a)
{
    static const char *const modes[] = { "overwrite", "create", "append", NULL };
    struct write_req *q = &op->q.write;
    enum encoding enc = (enum encoding)args_enum_or(a, "encoding", encoding_names, ENC_UTF8);
    const char *none = args_str_or(a, "if_none_match", 8, NULL);
    size_t len = 0, n = 0;
    const char *text = text_arg(a, "content", 2 * CONTENT_MAX, &len);

    q->mode = (enum write_mode)args_enum_or(a, "mode", modes, W_OVERWRITE);
    if (args_bool_or(a, "append", q->mode == W_APPEND))
        q->mode = W_APPEND;
    q->if_match = args_str_or(a, "if_match", 128, NULL);
    q->parents = args_bool_or(a, "parents", true);
    if (none && !str_eq(none, "*"))
        args_fail(a, "if_none_match", "must be \"*\"");
    else if (none)
        q->mode = W_CREATE;
    if (args_bad(a))
        return;
    if (decode_content(text, len, enc, &op->content, &n))
        args_fail(a, "content", "is not base64");
    q->data = op->content;
    q->len = n;
}

void tool_write(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "path", &op->at);
    write_args(op, &a);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_W;
    op->run = write_whole;
    op->lane = LANE_SHORT;
    if (op->q.write.len > (size_t)CONTENT_MAX) {
        fault_big(&op->f, op->at.path, CONTENT_MAX, (int64_t)op->q.write.len);
        op_finish(op);
        return;
    }
    op_start(op);
}

static void run_edit(struct op *op)
{
    int64_t n = 0;
    struct stat st;
    char etag[ETAG_LEN];

    if (!place_is_stored(op, &op->at) || local_edit(&op->at, &op->q.edit, &n, &st, &op->f))
        return;
    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_printf(&op->out, ",\"replaced\":%lld,\"etag\":\"%s\"}", (long long)n, etag_of(&st, etag));
}

void tool_edit(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);
    struct edit_req *q = &op->q.edit;

    op_place(&a, "path", &op->at);
    q->old = text_arg(&a, "old", CONTENT_MAX, &q->old_len);
    q->new = text_arg(&a, "new", CONTENT_MAX, &q->new_len);
    q->all = args_bool_or(&a, "all", false);
    q->if_match = args_str_or(&a, "if_match", 128, NULL);
    if (!args_bad(&a) && !q->old_len)
        args_fail(&a, "old", "is empty");
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_RW;
    op->run = run_edit;
    op->lane = LANE_SHORT;
    op_start(op);
}

static void run_delete(struct op *op)
{
    int64_t n = 0;

    if (!place_is_stored(op, &op->at) ||
        local_delete(&op->at, op->q.tree.recursive, op->q.tree.if_match, &n, &op->f))
        return;
    buf_adds(&op->out, "{\"ok\":true,\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_printf(&op->out, ",\"deleted\":true,\"count\":%lld}", (long long)n);
}

void tool_delete(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "path", &op->at);
    op->q.tree.recursive = args_bool_or(&a, "recursive", false);
    op->q.tree.if_match = args_str_or(&a, "if_match", 128, NULL);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_W;
    op->run = run_delete;
    op->lane = op->q.tree.recursive ? LANE_BULK : LANE_SHORT;
    op_start(op);
}

static void run_mkdir(struct op *op)
{
    bool created = false;

    if (!place_is_stored(op, &op->at) || local_mkdir(&op->at, op->q.tree.parents, &created, &op->f))
        return;
    note_owner(op, &op->at);
    buf_adds(&op->out, "{\"path\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_printf(&op->out, ",\"created\":%s}", created ? "true" : "false");
}

void tool_mkdir(struct call *c, const struct caller *who)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "path", &op->at);
    op->q.tree.parents = args_bool_or(&a, "parents", true);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = MAY_W;
    op->run = run_mkdir;
    op->lane = LANE_SHORT;
    op_start(op);
}

static void from_to(struct op *op, const char *rest)
{
    buf_adds(&op->out, "{\"from\":");
    buf_add_json_str(&op->out, op->at.path, strlen(op->at.path));
    buf_adds(&op->out, ",\"to\":");
    buf_add_json_str(&op->out, op->to.path, strlen(op->to.path));
    buf_adds(&op->out, rest);
}

static void run_move(struct op *op)
{
    struct stat st;
    char etag[ETAG_LEN], rest[ETAG_LEN + 16];

    if (!place_is_stored(op, &op->at) || !place_is_stored(op, &op->to) ||
        local_move(&op->at, &op->to, op->q.tree.overwrite, &st, &op->f))
        return;
    snprintf(rest, sizeof(rest), ",\"etag\":\"%s\"}", etag_of(&st, etag));
    from_to(op, rest);
}

static bool may_copy(const char *path, void *arg)
{
    const struct op *op = arg;

    return !atomic_load(&op->gone) && perm_of(&op->who, path) & MAY_R;
}

static void run_copy(struct op *op)
{
    struct copy_res res;
    char rest[80];

    if (!ns_is_local(op->at.area)) {
        op->f.data = json_make("param:s", "from");
        fault_set(&op->f, ERR_INVAL, "%.200s: not a place where files are stored", op->at.path);
        return;
    }
    if (!place_is_stored(op, &op->to) ||
        local_copy(&op->at, &op->to, op->q.tree.overwrite, op->q.tree.recursive, may_copy, op, &res,
                   &op->f))
        return;
    snprintf(rest, sizeof(rest), ",\"files\":%lld,\"bytes\":%lld}", (long long)res.files,
             (long long)res.bytes);
    from_to(op, rest);
}

static void two_places(struct call *c, const struct caller *who, bool move)
{
    struct op *op = op_new(c, who);
    struct args a = args_open(c->params);

    op_place(&a, "from", &op->at);
    op_place(&a, "to", &op->to);
    op->q.tree.overwrite = args_bool_or(&a, "overwrite", false);
    op->q.tree.recursive = args_bool_or(&a, "recursive", false);
    if (args_bad(&a)) {
        op_bad_args(op, &a);
        return;
    }
    op->need_at = move ? MAY_RW : MAY_R;
    op->need_to = MAY_W;
    op->run = move ? run_move : run_copy;
    op->lane = !move && op->q.tree.recursive ? LANE_BULK : LANE_SHORT;
    if (move && !ns_same_root(&op->at, &op->to))
        op->lane = LANE_BULK;
    op_start(op);
}

void tool_move(struct call *c, const struct caller *who)
{
    two_places(c, who, true);
}

void tool_copy(struct call *c, const struct caller *who)
{
    two_places(c, who, false);
}
