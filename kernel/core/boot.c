/*
 * Starting again (kernel page, section 9). The rows say what should be, init's list says what is;
 * each row that is not final, or whose clean-up is not done, gets the event that closes the gap.
 * Agents never noticed that we were away.
 */
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "kernel/core/calls.h"

#define LIST_TRY_MS 200

static struct timer retry;
static bool new_boot;

int boot_init(void)
{
    char dir[108];
    const uint8_t *key = svc_key(KEY_KERN);
    K.started_at = now_ms();
    map_init(&K.procs);
    map_init(&K.keys);
    if (!key) {
        log_error("the kern key is missing");
        return 78;
    }
    K.kern = hmac_new(key, KEY_LEN);
    if (path_fmt(dir, sizeof dir, "%s/agents", svc.run_dir) || mkdir_p(dir, 0700)) {
        log_error("%s/agents cannot be made", svc.run_dir);
        return 73;
    }
    return store_open(svc.root);
}

static void load_all(void)
{
    cleanup(json_putp) json_object *pids = json_new_arr();
    sqlite3_stmt *q = db_query(DB_NORMAL, "SELECT pid FROM processes WHERE cleanup=0", "");
    while (db_row(q))
        json_push(pids, json_object_new_int64(db_int(q, 0)));
    db_end(q);
    for (size_t i = 0; i < json_object_array_length(pids); i++) {
        struct proc *p = proc_load(json_object_get_int64(json_object_array_get_idx(pids, i)));
        if (!p)
            continue;
        proc_add(p);
        input_load(p);
    }
}

static json_object *row_of(json_object *list, int64_t pid)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        if (json_int(o, "avixPid", -1) == pid)
            return o;
    }
    return NULL;
}

static void announce_restart(struct proc *p)
{
    (void)sig_send(p, "SIGUSR1", json_make("event:s", "kernel_restarted"), "kernel");
}

static void adopt_live(struct proc *p, pid_t pid, uint64_t start)
{
    p->life = 1;
    p->adopted = true;
    p->host_pid = pid;
    p->host_start = start;
    if (cause_is(p, "kill") || cause_is(p, "abort")) {
        p->phase = PH_LIVE;
        life_event(p, EV_END, &(struct life_info){ 0 });
        return;
    }
    if (p->state == PS_PENDING) {
        p->phase = PH_READY;
        life_deadline(p, (int64_t)svc.config->ready_timeout_sec * 1000);
        announce_restart(p);
        return;
    }
    p->phase = PH_LIVE;
    announce_restart(p);
    idle_arm(p);
    if (cause_is(p, "stop") || cause_is(p, "hibernate") || cause_is(p, "shutdown"))
        life_event(p, EV_STOP, &(struct life_info){ .reason = strchr(p->cause, ' ') + 1 });
}

/* The host process is not there any more. exit_doc: what init knows of its end, NULL: nothing. */
static void adopt_gone(struct proc *p, json_object *exit_doc)
{
    struct life_info i = { .host_pid = p->host_pid, .host_start = p->host_start, .lost = true };
    p->life = 1;
    if (exit_doc) {
        i.lost = false;
        i.host_pid = (pid_t)json_int(exit_doc, "hostPid", 0);
        i.host_start = (uint64_t)json_int(exit_doc, "startTime", 0);
        i.code = (int)json_int(exit_doc, "code", 0);
        i.signal = (int)json_int(exit_doc, "signal", 0);
        i.oom = json_flag(exit_doc, "oom", false);
    } else if (p->state == PS_PENDING && !p->cause) {
        p->phase = PH_REST;
        p->resume = p->restarts > 0 && p->inv == IV_RUNNING;
        life_event(p, EV_GO, &i);
        return;
    }
    p->phase = p->state == PS_PENDING ? PH_FORK : PH_LIVE;
    p->host_pid = i.host_pid;
    p->host_start = i.host_start;
    life_event(p, EV_EXITED, &i);
}

static void adopt(struct proc *p, json_object *agents, json_object *exits)
{
    json_object *row = row_of(agents, p->pid), *gone = row_of(exits, p->pid);
    if (proc_final(p)) {
        p->phase = PH_GONE;
        exit_effects(p);
    } else if (row) {
        adopt_live(p, (pid_t)json_int(row, "hostPid", 0), (uint64_t)json_int(row, "startTime", 0));
    } else if (p->hibernated || (proc_idle(p) && !gone)) {
        struct life_info i = { .lost = true };
        p->phase = PH_LIVE;
        if (!p->hibernated) {
            if (new_boot)
                cause_set(p, "hibernate", "");
            life_event(p, EV_EXITED, &i);
            return;
        }
        p->phase = PH_REST;
        if (cause_is(p, "kill"))
            life_event(p, EV_END, &i);
        else if (p->state == PS_PENDING) /* it was being woken; again, if there is work */
            (void)state_set(p, PS_WAITING, WO_SIGNAL, IV_IDLE, NULL);
    } else if (new_boot && !gone) {
        cause_set(p, "interrupted", "");
        p->phase = PH_LIVE;
        p->host_pid = 0;
        life_event(p, EV_EXITED, &(struct life_info){ .lost = true });
    } else {
        adopt_gone(p, gone);
    }
}

static void kill_unknown(json_object *agents)
{
    char sock[108];
    snprintf(sock, sizeof sock, "%s/init.sock", svc.run_dir);
    for (size_t i = 0; agents && i < json_object_array_length(agents); i++) {
        json_object *o = json_object_array_get_idx(agents, i);
        struct proc *p = proc_find(json_int(o, "avixPid", -1));
        if (p && !proc_final(p))
            continue;
        cleanup(json_putp) json_object *q =
            json_make("avixPid:i hostPid:i startTime:i signal:s", json_int(o, "avixPid", 0),
                      json_int(o, "hostPid", 0), json_int(o, "startTime", 0), "KILL");
        struct ipc_req req = {
            .sock = sock, .method = "init/kill", .params = q, .listener = svc.init_pid
        };
        (void)ipc_start(svc.loop, &req, NULL, NULL, NULL);
    }
}

static void adopt_all(json_object *list)
{
    json_object *agents = json_arr(list, "agents"), *exits = json_arr(list, "exits");
    size_t n = 0, pos = 0;
    struct proc *p;
    cleanup(freep) struct proc **all = xcalloc(K.procs.n + 1, sizeof(void *));
    while (proc_each(&pos, &p))
        all[n++] = p;
    for (size_t i = 0; i < n; i++)
        adopt(all[i], agents, exits);
    kill_unknown(agents);
}

/* Sleeping agents with work that waits: woken when a model can be asked. */
#define WAKE_TRY_MS 500
static struct timer waking;

static void on_models(struct ipc_reply *r, void *arg)
{
    (void)arg;
    if (K.stopping)
        return;
    if (r->err == ERR_UNAVAIL || r->err == ERR_TIMEOUT || r->err == ERR_BUSY) {
        timer_set(&waking, WAKE_TRY_MS);
        return;
    }
    size_t n = 0, pos = 0;
    struct proc *p;
    cleanup(freep) struct proc **all = xcalloc(K.procs.n + 1, sizeof(void *));
    while (proc_each(&pos, &p))
        if (p->phase == PH_REST && p->inputs && !life_closing(p))
            all[n++] = p;
    for (size_t i = 0; i < n; i++)
        if (life_wake(all[i]))
            log_error("pid %lld: could not be woken", (long long)all[i]->pid);
}

static void wake_all(void *arg)
{
    size_t pos = 0;
    struct proc *p;
    (void)arg;
    while (proc_each(&pos, &p))
        if (p->phase == PH_REST && p->inputs) {
            (void)svc_call("llm/models", json_new(), NULL, 5000, on_models, NULL);
            return;
        }
}

#define DAY_MS (24LL * 3600 * 1000)
static struct timer daily;

/* Sessions that nobody has touched for long become read-only. */
static void archive(void *arg)
{
    int64_t days = svc.config->archive_after_days;
    (void)arg;
    if (days > 0)
        (void)db_run(DB_FULL,
                     "UPDATE sessions SET status='archived' WHERE status<>'archived' AND "
                     "last_updated<? AND NOT EXISTS(SELECT 1 FROM invocations i WHERE "
                     "i.session_id=sessions.id AND i.ended_at IS NULL)",
                     "i", now_ms() - days * DAY_MS);
    (void)db_run(DB_NORMAL, "DELETE FROM requests WHERE at<?", "i", now_ms() - DAY_MS);
    timer_set(&daily, DAY_MS);
}

static void ask_list(void *arg);

static void on_list(struct ipc_reply *r, void *arg)
{
    (void)arg;
    if (r->err) {
        log_warn("init/list: %s", r->error.message);
        timer_set(&retry, LIST_TRY_MS);
        return;
    }
    char stored[160] = "";
    str_copy(K.boot_id, sizeof K.boot_id, json_str(r->result, "bootId", ""));
    sqlite3_stmt *q = db_query(DB_NORMAL, "SELECT v FROM meta WHERE k='boot_id'", "");
    if (db_row(q))
        str_copy(stored, sizeof stored, db_text(q, 0));
    db_end(q);
    new_boot = !str_eq(stored, K.boot_id);
    if (new_boot && *stored && store_check())
        die(74, "the database is damaged; avix.db.v* holds older copies");
    load_all();
    log_info("%zu processes to look after%s", K.procs.n,
             new_boot ? ", first start of this boot" : "");
    adopt_all(r->result);
    (void)db_run(DB_FULL, "INSERT OR REPLACE INTO meta(k, v) VALUES('boot_id', ?)", "s", K.boot_id);
    K.recovered = true;
    timer_init(&daily, svc.loop, archive, NULL);
    archive(NULL);
    timer_init(&waking, svc.loop, wake_all, NULL);
    wake_all(NULL);
    server_pause(svc.server, false);
    svc_ready();
}

static void ask_list(void *arg)
{
    char sock[108];
    (void)arg;
    snprintf(sock, sizeof sock, "%s/init.sock", svc.run_dir);
    struct ipc_req q = { .sock = sock,
                         .method = "init/list",
                         .timeout_ms = 5000,
                         .listener = svc.init_pid,
                         .repeatable = true };
    (void)ipc_start(svc.loop, &q, NULL, on_list, NULL);
}

void boot_start(void)
{
    /* what comes meanwhile waits in the backlog: without the table nobody could be told apart */
    server_pause(svc.server, true);
    timer_init(&retry, svc.loop, ask_list, NULL);
    ask_list(NULL);
}
