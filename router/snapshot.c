/*
 * The registry on disk, in the run dir: registry.json, and until it is written again (50 ms) one
 * line per change in registry.log, before the change is acknowledged. Both are sealed: the snapshot
 * ends in an HMAC over its text, each log line carries one that runs on from there, so lines that
 * are added, changed, moved or left over from an older snapshot count for nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "common/base/b64.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "router/router.h"

#define FILE_LIMIT (64U << 20)
#define WRITE_MS   50
#define MAC_LEN    43

static struct {
    char json[200], log[200];
    int fd;
    struct hmac *key;
    char last[MAC_LEN + 1];
    struct timer timer;
    bool loading, ready;
} sn = { .fd = -1 };

static void seal(const char *prev, const char *text, size_t len, char out[MAC_LEN + 1])
{
    struct buf b = BUF_INIT(FILE_LIMIT);
    uint8_t sum[32];

    buf_adds(&b, prev);
    buf_addc(&b, ' ');
    buf_add(&b, text, len);
    hmac_sum(sn.key, b.data, b.len, sum);
    b64url_encode(sum, sizeof(sum), out);
    buf_done(&b);
}

/* --- rows ---------------------------------------------------------------------------------------
 */

static json_object *owner_row(const struct owner *o)
{
    return json_make("name:s pid:i hostPid:i start:i endpoint:s limits:o", o->name, o->pid,
                     (int64_t)o->host_pid, (int64_t)o->host_start, o->endpoint,
                     json_make("max_concurrent:i queue_max:i queue_timeout_ms:i",
                               (int64_t)o->max_concurrent, (int64_t)o->queue_max,
                               (int64_t)o->queue_timeout_ms));
}

static json_object *entry_row(const struct entry *e)
{
    json_object *row = json_make("owner:s sock:s descriptor:o", e->owner->name, e->sock,
                                 json_object_get(e->descriptor));

    if (e->scope)
        json_add(row, "agent",
                 json_make("pid:i hostPid:i start:i", e->scope->pid, (int64_t)e->scope->host_pid,
                           (int64_t)e->scope->host_start));
    return row;
}

static void take_owner(json_object *row)
{
    struct owner *o = owner_get(json_str(row, "name", "?"));
    struct peer p = { .pid = (pid_t)json_int(row, "hostPid", 0),
                      .start = (uint64_t)json_int(row, "start", 0) };
    json_object *l = json_obj(row, "limits");

    if (!o->held) {
        str_copy(o->endpoint, sizeof(o->endpoint), json_str(row, "endpoint", ""));
        o->pid = json_int(row, "pid", 0);
        o->max_concurrent = (unsigned)json_int(l, "max_concurrent", 20);
        o->queue_max = (unsigned)json_int(l, "queue_max", 100);
        o->queue_timeout_ms = (unsigned)json_int(l, "queue_timeout_ms", 5000);
    }
    if (p.pid > 0)
        owner_alive(o, &p);
}

static void take_entry(json_object *row)
{
    json_object *agent = json_obj(row, "agent");
    struct owner *o = owner_get(json_str(row, "owner", "?"));
    struct entry *e;
    const char *why;

    if (!o->up && !o->held)
        return; /* that process is gone; its successor registers */
    if (!o->up) /* it died with us: its socket is open and holds the callers until it is back */
        timer_set(&o->expire, OWNER_GONE_MS);
    e = xcalloc(1, sizeof(*e));
    e->refs = 1;
    e->owner = o;
    if (agent) {
        e->scope = agent_get(json_int(agent, "pid", 0), (pid_t)json_int(agent, "hostPid", 0),
                             (uint64_t)json_int(agent, "start", 0));
        if (!e->scope) {
            entry_unref(e);
            return;
        }
    }
    if (entry_parse(e, json_obj(row, "descriptor"), &why) ||
        !str_copy(e->sock, sizeof(e->sock), json_str(row, "sock", ""))) {
        entry_unref(e);
        return;
    }
    if (!o->held)
        entry_restrict(e);
    registry_put(e);
}

static void take_removal(json_object *row)
{
    struct agent *a = agent_find(json_int(row, "agent", 0));
    const char *name = json_str(row, "name", "");
    struct entry *e =
        json_get(row, "agent") ? (a ? map_get(&a->tools, name) : NULL) : registry_global(name);

    if (e)
        registry_del(e);
}

static void take_row(json_object *o)
{
    if (json_obj(o, "service"))
        take_owner(json_obj(o, "service"));
    else if (json_obj(o, "tool"))
        take_entry(json_obj(o, "tool"));
    else if (json_obj(o, "remove"))
        take_removal(json_obj(o, "remove"));
    if (json_int(o, "version", 0) > (int64_t)registry_version)
        registry_version = (uint64_t)json_int(o, "version", 0);
}

/* --- reading ------------------------------------------------------------------------------------
 */

static void load_log(void)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    if (file_read(sn.log, FILE_LIMIT, &text, &len))
        return;
    for (size_t at = 0; at < len;) {
        char *nl = memchr(text + at, '\n', len - at);
        size_t n = nl ? (size_t)(nl - text) - at : 0;
        char mac[MAC_LEN + 1];
        cleanup(json_putp) json_object *o = NULL;

        if (!nl || n < MAC_LEN + 2)
            return;
        seal(sn.last, text + at + MAC_LEN + 1, n - MAC_LEN - 1, mac);
        if (!ct_equal(mac, text + at, MAC_LEN) ||
            json_parse(text + at + MAC_LEN + 1, n - MAC_LEN - 1, &o)) {
            log_warn("%s: the rest is not of this snapshot", sn.log);
            return;
        }
        memcpy(sn.last, mac, sizeof(mac));
        take_row(o);
        at += n + 1;
    }
}

static void load_json(void)
{
    cleanup(freep) char *text = NULL;
    cleanup(json_putp) json_object *o = NULL;
    size_t len = 0, body;
    char mac[MAC_LEN + 1];
    json_object *rows;

    if (file_read(sn.json, FILE_LIMIT, &text, &len))
        return;
    /* the text ends in ,"mac":"…"} and a newline */
    body = len > MAC_LEN + 11 ? len - MAC_LEN - 11 : 0;
    seal("", text, body, mac);
    if (!body || memcmp(text + body, ",\"mac\":\"", 8) != 0 ||
        !ct_equal(mac, text + body + 8, MAC_LEN) || json_parse(text, len - 1, &o)) {
        log_warn("%s is not ours: starting with an empty registry", sn.json);
        return;
    }
    memcpy(sn.last, mac, sizeof(mac));
    rows = json_arr(o, "services");
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++)
        take_owner(json_object_array_get_idx(rows, i));
    rows = json_arr(o, "tools");
    for (size_t i = 0; rows && i < json_object_array_length(rows); i++)
        take_entry(json_object_array_get_idx(rows, i));
    if (json_int(o, "version", 0) > (int64_t)registry_version)
        registry_version = (uint64_t)json_int(o, "version", 0);
}

/* --- writing ------------------------------------------------------------------------------------
 */

static json_object *whole(void)
{
    json_object *services = json_new_arr(), *tools = json_new_arr();
    struct owner *o;
    struct entry *e;
    size_t pos = 0;

    while (owner_each(&pos, &o))
        if (o->up)
            json_push(services, owner_row(o));
    for (pos = 0; registry_each(&pos, &e);)
        if (!e->fn)
            json_push(tools, entry_row(e));
    for (struct agent *a = agent_next(NULL); a; a = agent_next(a))
        for (pos = 0; agent_each_tool(a, &pos, &e);)
            json_push(tools, entry_row(e));
    return json_make("version:i services:o tools:o", (int64_t)registry_version, services, tools);
}

static void write_json(void *arg)
{
    cleanup(json_putp) json_object *o = whole();
    const char *t = json_text(o);
    size_t len = strlen(t) - 1; /* without the last brace */
    struct buf b = BUF_INIT(FILE_LIMIT + 256);
    char mac[MAC_LEN + 1];
    int r;

    (void)arg;
    seal("", t, len, mac);
    buf_add(&b, t, len);
    buf_printf(&b, ",\"mac\":\"%s\"}\n", mac);
    r = file_write_rename(sn.json, b.data, b.len, 0600);
    buf_done(&b);
    if (r) {
        log_error("%s: %s", sn.json, strerror(-r));
        return; /* the log goes on */
    }
    memcpy(sn.last, mac, sizeof(mac));
    if (ftruncate(sn.fd, 0))
        log_error("%s: %s", sn.log, strerror(errno));
}

static void append(json_object *row)
{
    struct buf b = BUF_INIT(FILE_LIMIT);
    const char *t;
    int r;

    if (!sn.ready) {
        json_put(row);
        return;
    }
    json_add_int(row, "version", (int64_t)registry_version);
    t = json_text(row);
    seal(sn.last, t, strlen(t), sn.last);
    buf_printf(&b, "%s %s\n", sn.last, t);
    r = write_all(sn.fd, b.data, b.len);
    buf_done(&b);
    json_put(row);
    if (r)
        log_error("%s: %s", sn.log, strerror(-r));
    if (!sn.timer.armed)
        timer_set(&sn.timer, WRITE_MS);
}

void snapshot_entry(const struct entry *e, bool added)
{
    if (!sn.ready || e->fn)
        return;
    if (added) {
        append(json_make("tool:o", entry_row(e)));
    } else {
        json_object *row = json_make("name:s", e->name);

        if (e->scope)
            json_add_int(row, "agent", e->scope->pid);
        append(json_make("remove:o", row));
    }
}

void snapshot_owner(const struct owner *o)
{
    if (sn.ready)
        append(json_make("service:o", owner_row(o)));
}

void snapshot_load(void)
{
    char dir[160];
    uint8_t key[32];

    if (path_fmt(dir, sizeof(dir), "%s/router", svc.run_dir) ||
        path_fmt(sn.json, sizeof(sn.json), "%s/registry.json", dir) ||
        path_fmt(sn.log, sizeof(sn.log), "%s/registry.log", dir))
        die(78, "AVIX_RUN_DIR is too long");
    mkdir_p(dir, 0700);
    key_derive(svc_key(KEY_SVC), KEY_LEN, "router.registry", key);
    sn.key = hmac_new(key, sizeof(key));
    explicit_bzero(key, sizeof(key));
    timer_init(&sn.timer, svc.loop, write_json, NULL);
    load_json();
    load_log();
    sn.fd = open(sn.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (sn.fd < 0)
        die(74, "%s: %s", sn.log, strerror(errno));
    write_json(NULL);
    sn.ready = true;
}

void snapshot_fini(void)
{
    if (sn.ready)
        write_json(NULL);
    sn.ready = false;
    timer_done(&sn.timer);
    closep(&sn.fd);
    sn.fd = -1;
    hmac_free(sn.key);
}
