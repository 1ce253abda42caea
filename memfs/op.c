/*
 * The way of a call: permissions by the table, then what needs asking (whose scratch is it, does
 * the kernel accept this defaults file), then the work in its lane, then the answer. Each step that
 * waits continues in its own function.
 */
#include "memfs/op.h"

#include <stdio.h>

#include "memfs/scratch.h"
#include "memfs/synth.h"

static void on_gone(void *arg)
{
    struct op *op = arg;

    atomic_store(&op->gone, true);
    if (!op->search)
        return; /* what changes files ends by itself; walks look at the flag */
    search_cancel(op->search);
    op->search = NULL;
    op_finish(op);
}

struct op *op_new(struct call *c, const struct caller *who)
{
    struct op *op = xcalloc(1, sizeof(*op));

    op->c = c;
    op->who = *who;
    buf_init(&op->out, REPLY_MAX);
    call_on_gone(c, on_gone, op);
    return op;
}

static void op_free(struct op *op)
{
    fault_done(&op->f);
    json_put(op->stand_in);
    buf_done(&op->out);
    free(op->content);
    free(op);
}

void op_place(struct args *a, const char *key, struct loc *l)
{
    const char *path = args_str(a, key, 2 * VPATH_MAX);
    int r = path ? ns_locate(path, strlen(path), l) : 0;

    if (r == ERR_NAMETOOLONG)
        args_fail(a, key, "is too long for a path");
    else if (r)
        args_fail(a, key, "must be an absolute path without '..' and control characters");
}

void op_bad_args(struct op *op, struct args *a)
{
    call_bad_args(op->c, a);
    op_free(op);
}

json_object *op_reader(const struct op *op)
{
    json_object *r = json_dup(op->who.json);

    json_object_object_del(r, "token");
    return r;
}

void op_finish(struct op *op)
{
    if (op->at.area == AREA_SCRATCH || op->to.area == AREA_SCRATCH)
        scratch_watch(svc.loop);
    if (op->quiet && op->f.err &&
        (err_code((int)op->f.err) == err_code(ERR_NOTFOUND) ||
         err_code((int)op->f.err) == err_code(ERR_PERM) || op->f.err == ERR_NOTDIR)) {
        op->f.err = 0;
        call_reply(op->c, json_make("path:s exists:b", op->at.path, 0));
    } else if (op->f.err) {
        call_fail_data(op->c, op->f.err, TAKE(op->f.data), "%s", op->f.why);
    } else if (op->reply) {
        op->reply(op);
    } else {
        call_reply_text(op->c, op->out.data, op->out.len);
    }
    op_free(op);
}

static void job_work(struct job *j)
{
    struct op *op = container_of(j, struct op, job);

    op->run(op);
}

static void job_done(struct job *j)
{
    op_finish(container_of(j, struct op, job));
}

static void op_run(struct op *op)
{
    if (op->lane != LANE_HERE) {
        op->job = (struct job){ .work = job_work, .done = job_done, .bulk = op->lane == LANE_BULK };
        pool_add(&op->job);
        return;
    }
    op->run(op);
    if (!op->async)
        op_finish(op);
}

static bool is_defaults(const struct loc *l)
{
    return (l->area == AREA_USER || l->area == AREA_CREW) && str_eq(l->rest, "defaults.yaml");
}

static void on_checked(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        op->f.data = json_make("path:s", op->at.path);
        fault_set(&op->f, r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT ? ERR_UNAVAIL : ERR_INVAL,
                  "%.200s", r->error.message);
        op_finish(op);
        return;
    }
    op_run(op);
}

/* A defaults file is accepted by the kernel as a whole before it is written. */
static void op_check(struct op *op)
{
    const struct loc *l = op->need_to ? &op->to : &op->at;
    json_object *p;

    if (!(op->need_at & MAY_W || op->need_to) || !is_defaults(l)) {
        op_run(op);
        return;
    }
    if (op->run != write_whole || op->q.write.mode == W_APPEND) {
        op->f.data = json_make("path:s", l->path);
        fault_set(&op->f, ERR_PERM,
                  "%.200s: write it whole with fs/write, so that it can be checked", l->path);
        op_finish(op);
        return;
    }
    p = json_make("path:s op:s reader:o", l->path, "check", op_reader(op));
    json_add(p, "content", json_object_new_string_len(op->q.write.data, (int)op->q.write.len));
    svc_call("kernel/proc/view", p, NULL, 0, on_checked, op);
}

static void on_owner(struct ipc_reply *r, void *arg)
{
    struct op *op = arg;

    if (r->err) {
        fault_io(&op->f, ERR_PERM, op->at.path);
        op_finish(op);
        return;
    }
    op_check(op);
}

static bool denied(struct op *op, const struct loc *l, unsigned need)
{
    if (need && (perm_of(&op->who, l->path) & need) != need) {
        fault_io(&op->f, ERR_PERM, l->path);
        return true;
    }
    return false;
}

void op_start(struct op *op)
{
    char owner[256] = "";

    if (denied(op, &op->at, op->need_at) || denied(op, &op->to, op->need_to)) {
        op_finish(op);
        return;
    }
    if (op->need_at & MAY_R && perm_needs_owner(&op->who, op->at.path)) {
        ns_scratch_owner(&op->at, owner, sizeof(owner));
        if (!owner[0]) { /* nobody wrote it down: the kernel knows whose agent this is */
            char path[300];

            snprintf(path, sizeof(path), "/proc/%s", op->at.name);
            svc_call("kernel/proc/view",
                     json_make("path:s op:s reader:o", path, "list", op_reader(op)), NULL, 0,
                     on_owner, op);
            return;
        }
        if (!str_eq(owner, op->who.user)) {
            fault_io(&op->f, ERR_PERM, op->at.path);
            op_finish(op);
            return;
        }
    }
    op_check(op);
}
