/* The whole suite as a user starts it: boot, reading a file through it, agents, memory, idleness.
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/ipc/frame.h"
#include "common/svc/unit.h"
#include "tests/bench/bench.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define BOOTS   5
#define SPAWNS  20
#define IDLE_MS 5000

/* --- boot ----------------------------------------------------------------------------------------
 */

/* Every program of the suite at once, as far as its libraries being loaded. */
static double exec_floor(void)
{
    pid_t pids[UNIT_COUNT + 1];
    int64_t t0 = now_ns();
    size_t n = 0;

    for (int i = -1; i < UNIT_COUNT; i++) {
        char path[512];
        char *argv[] = { path, (char[]){ "--version" }, NULL };

        snprintf(path, sizeof(path), "%s", rig_bin(i < 0 ? "avix-init" : unit_rows[i].program));
        posix_spawn_file_actions_t fa;

        posix_spawn_file_actions_init(&fa);
        posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", 1, 0);
        posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", 1, 0);
        if (posix_spawn(&pids[n], path, &fa, NULL, argv, environ) == 0)
            n++;
        posix_spawn_file_actions_destroy(&fa);
    }
    while (n)
        waitpid(pids[--n], NULL, 0);
    return (double)(now_ns() - t0) / 1e6;
}

static struct rig *boots(void)
{
    double ms[BOOTS], base[BOOTS];
    struct rig *g = NULL;

    for (size_t i = 0; i < BOOTS; i++) {
        base[i] = exec_floor();
        if (g)
            rig_shutdown(g);
        if (!g)
            g = rig_new(NULL);
        else if (rig_boot(g, NULL, NULL, 0))
            return NULL;
        ms[i] = g->ready_ms;
    }
    double p99 = quantile(ms, BOOTS, 1.0);

    row_ratio("boot.ready", "ms", median(ms, BOOTS), p99, median(base, BOOTS), 3,
              "against every program exec'd at once (--version); README: < 700 ms");
    return g;
}

static void fifty_calls(void *arg)
{
    for (int i = 0; i < 50; i++)
        wire_call(arg);
}

/* --- fs/read -------------------------------------------------------------------------------------
 */

static void read_routed(struct rig *g)
{
    char *token = rig_token(g, "fs/read", json_make("pid:i", (int64_t)4000)), path[200];
    struct buf req = BUF_INIT(1 << 16), rep = BUF_INIT(1 << 16);
    char hdr[4] = "", text[1025], file[400];
    pid_t memfs = rig_unit_pid(g, "memfs"), router = rig_unit_pid(g, "router");
    struct floor_arg a_svc, a_relay;
    char svc_path[300], relay_path[300];

    memset(text, 'r', 1024);
    text[1024] = '\0';
    snprintf(file, sizeof(file), "%s/data/users/admin/workspace", g->root);
    mkdir_p(file, 0700);
    snprintf(file, sizeof(file), "%s/data/users/admin/workspace/bench.txt", g->root);
    file_write_atomic(file, text, 1024, 0600);
    buf_add(&req, hdr, 4);
    buf_printf(
        &req,
        "{\"jsonrpc\":\"2.0\",\"id\":\"r-1\",\"method\":\"fs/read\",\"params\":{\"_token\":\"");
    buf_adds(&req, token);
    buf_adds(&req, "\",\"path\":\"/users/admin/workspace/bench.txt\"}}");
    frame_put_len(req.data, (uint32_t)(req.len - 4));
    buf_add(&rep, hdr, 4);
    buf_printf(&rep,
               "{\"jsonrpc\":\"2.0\",\"id\":\"r-1\",\"result\":{\"content\":\"%s\",\"path\":"
               "\"/users/admin/workspace/bench.txt\",\"encoding\":\"utf-8\",\"size\":1024,"
               "\"offset\":0,\"length\":1024,\"eof\":true,\"etag\":\"0123456789abcdef\","
               "\"modifiedAt\":\"2026-01-01T00:00:00.000Z\"}}",
               text);
    frame_put_len(rep.data, (uint32_t)(rep.len - 4));
    snprintf(svc_path, sizeof(svc_path), "%s/bench-svc.sock", g->dir);
    snprintf(relay_path, sizeof(relay_path), "%s/bench-relay.sock", g->dir);
    a_svc = (struct floor_arg){ listen_unix(svc_path), NULL, rep.data, rep.len };
    a_relay = (struct floor_arg){ listen_unix(relay_path), svc_path, NULL, 0 };
    pid_t svc = child_start(floor_service, &a_svc, true);
    pid_t relay = child_start(floor_relay, &a_relay, true);

    snprintf(path, sizeof(path), "%s", rig_sock(g, "router.sock"));
    pin_to_last_cpu(router);
    pin_to_last_cpu(memfs);
    struct wire_call base = { relay_path, req.data, req.len, false };
    struct wire_call ours = { path, req.data, req.len, false };
    struct target t[2] = {
        { .name = "floor", .call = wire_call, .arg = &base, .pids = { relay, svc } },
        { .name = "fs/read", .call = wire_call, .arg = &ours, .pids = { router, memfs } },
    };

    if (wire_check(&ours, "rrrrrrrr")) {
        interleave(t, 2, 1, 1.2);
        row_judge("fs.read.1k.routed", "us", &t[1], t[0].p50, t[1].ratio, 1.2,
                  "against a two-hop relay with that reply");
        row_limit("fs.read.1k.inside", "us", t[1].p50 - t[0].p50, NAN, 50,
                  "what router and memfs add to the relay; README: < 50 us");
        long n = count_syscalls(memfs, fifty_calls, &ours);

        if (n > 0)
            row_info("fs.read.1k.syscalls", "calls", (double)n / 50, NAN, "of memfs per read");
    } else {
        row_skip("fs.read.1k.routed", "fs/read was refused");
    }
    unpin(router);
    unpin(memfs);
    child_stop(relay);
    child_stop(svc);
    close(a_svc.listen_fd);
    close(a_relay.listen_fd);
    buf_done(&req);
    buf_done(&rep);
    free(token);
}

/* --- agents --------------------------------------------------------------------------------------
 */

static pid_t host_pid(struct rig *g, int64_t pid)
{
    json_object *o = rig_init_call(g, "init/list", json_new(), NULL);
    json_object *list = json_arr(o, "agents");
    pid_t found = 0;

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *a = json_object_array_get_idx(list, i);

        if (json_int(a, "avixPid", 0) == pid)
            found = (pid_t)json_int(a, "hostPid", 0);
    }
    json_put(o);
    return found;
}

static double private_kb(pid_t pid)
{
    char path[64], line[256];
    double kb = 0, v;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    f = fopen(path, "re");
    if (!f)
        return NAN;
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Private_Clean: %lf", &v) == 1 ||
            sscanf(line, "Private_Dirty: %lf", &v) == 1)
            kb += v;
    fclose(f);
    return kb;
}

static void idle_agent(struct ws *w, int64_t pid)
{
    int64_t end = mono_ms() + 10000;

    while (mono_ms() < end) {
        json_object *r = ws_cmd(w, "proc", "stat", json_make("pid:i", pid));
        bool idle = str_eq(json_str(json_obj(r, "body"), "status", ""), "waiting") ||
                    str_eq(json_str(json_obj(r, "body"), "status", ""), "idle");

        json_put(r);
        if (idle)
            return;
        poll(NULL, 0, 20);
    }
}

static void agents(struct rig *g)
{
    struct ws *w = ws_admin(g);
    double spawn[SPAWNS], reap[SPAWNS], mem[SPAWNS];
    size_t n = 0, m = 0;
    /* One stays alive beside, so that pages that agents share are not counted as private. */
    json_object *beside =
        ws_cmd(w, "proc", "spawn", json_make("agent:s goal:s oneShot:b", "observer", "stay", 0));

    idle_agent(w, json_int(json_obj(beside, "body"), "pid", 0));
    for (size_t i = 0; i < SPAWNS; i++) {
        int64_t t0 = now_ns(), pid;
        json_object *r = ws_cmd(w, "proc", "spawn",
                                json_make("agent:s goal:s oneShot:b", "observer", "say hello", 0));
        double took = (double)(now_ns() - t0) / 1e6;
        pid_t host;

        pid = json_int(json_obj(r, "body"), "pid", 0);
        if (!pid) {
            fprintf(stderr, "spawn: %s\n", json_text(r));
            json_put(r);
            break;
        }
        json_put(r);
        spawn[n] = took;
        idle_agent(w, pid);
        host = host_pid(g, pid);
        if (host > 0 && !isnan(private_kb(host)))
            mem[m++] = private_kb(host);
        int fd = (int)syscall(SYS_pidfd_open, host, 0U);
        struct pollfd p = { .fd = fd, .events = POLLIN };

        t0 = now_ns();
        json_put(ws_cmd(w, "proc", "kill", json_make("pid:i", pid)));
        poll(&p, 1, 10000);
        while (kill(host, 0) == 0 && now_ns() - t0 < INT64_C(10000000000))
            ;
        reap[n++] = (double)(now_ns() - t0) / 1e6;
        close(fd);
    }
    json_put(ws_cmd(w, "proc", "kill",
                    json_make("pid:i", json_int(json_obj(beside, "body"), "pid", 0))));
    json_put(beside);
    ws_close(w);
    if (!n) {
        row_skip("agent.spawn", "no agent could be spawned");
        return;
    }
    double s99 = quantile(spawn, n, 0.99), r99 = quantile(reap, n, 0.99);

    row_limit("agent.spawn", "ms", median(spawn, n), s99, 50,
              "proc.spawn over WebSocket until running (SIGSTART answered); design: < 50 ms");
    row_info("agent.kill", "ms", median(reap, n), r99, "proc.kill over WebSocket until reaped");
    if (m)
        row_limit("agent.memory", "kB", median(mem, m), NAN, 300,
                  "private memory of an idle agent, another one running");
}

/* --- sizes ---------------------------------------------------------------------------------------
 */

static int objects_of(pid_t pid)
{
    char path[64], line[512], last[512] = "";
    int n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        char *so = strstr(line, ".so"), *at = strchr(line, '/');

        if (so && at && !str_eq(at, last)) {
            n++;
            str_copy(last, sizeof(last), at);
        }
    }
    if (f)
        fclose(f);
    return n;
}

static bool loads(pid_t pid, const char *lib)
{
    char path[64], line[512];
    bool hit = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        hit = hit || strstr(line, lib);
    if (f)
        fclose(f);
    return hit;
}

static void sizes(struct rig *g)
{
    for (int i = 0; i < UNIT_COUNT; i++) {
        char name[64], note[160];
        pid_t pid = rig_unit_pid(g, unit_rows[i].name);

        if (pid <= 0)
            continue;
        snprintf(name, sizeof(name), "memory.%s", unit_rows[i].name);
        snprintf(note, sizeof(note), "private; %d shared objects", objects_of(pid));
        row_info(name, "kB", private_kb(pid), NAN, note);
    }
    row_info("memory.init", "kB", private_kb(g->init_pid), NAN, "private");
}

static void agent_libraries(struct rig *g)
{
    struct ws *w = ws_admin(g);
    json_object *r = ws_cmd(w, "proc", "spawn",
                            json_make("agent:s goal:s oneShot:b", "observer", "say hello", 0));
    int64_t pid = json_int(json_obj(r, "body"), "pid", 0);
    pid_t host;

    json_put(r);
    if (pid) {
        idle_agent(w, pid);
        host = host_pid(g, pid);
        row_limit("agent.libraries", "",
                  loads(host, "libcrypto") + loads(host, "libcurl") + loads(host, "libwebsockets"),
                  NAN, 0, "libcrypto, libcurl, libwebsockets in an agent");
        row_info("agent.objects", "", objects_of(host), NAN, "shared objects of an agent");
        json_put(ws_cmd(w, "proc", "kill", json_make("pid:i", pid)));
    }
    ws_close(w);
}

/* --- idleness ------------------------------------------------------------------------------------
 */

static double switches(pid_t pid)
{
    char path[64], line[256];
    double n = 0, v;
    DIR *d;
    struct dirent *e;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        char p[128];
        FILE *f;

        if (e->d_name[0] == '.')
            continue;
        snprintf(p, sizeof(p), "/proc/%d/task/%.20s/status", (int)pid, e->d_name);
        f = fopen(p, "re");
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "voluntary_ctxt_switches: %lf", &v) == 1)
                n += v;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return n;
}

static void idleness(struct rig *g)
{
    pid_t pids[UNIT_COUNT + 1];
    double before[UNIT_COUNT + 1], sum = 0;
    char note[160] = "";
    size_t at = 0;

    poll(NULL, 0, 7000); /* what a start leaves to do */
    for (int i = 0; i <= UNIT_COUNT; i++) {
        pids[i] = i == UNIT_COUNT ? g->init_pid : rig_unit_pid(g, unit_rows[i].name);
        before[i] = 0;
    }
    poll(NULL, 0, 1500); /* the questions just asked */
    for (int i = 0; i <= UNIT_COUNT; i++)
        before[i] = switches(pids[i]);
    poll(NULL, 0, IDLE_MS);
    for (int i = 0; i <= UNIT_COUNT; i++) {
        double n = switches(pids[i]) - before[i];

        sum += n;
        if (n > 0 && at < sizeof(note) - 32)
            at += (size_t)snprintf(note + at, sizeof(note) - at, "%s %.0f ",
                                   i == UNIT_COUNT ? "init" : unit_rows[i].name, n);
    }
    row_limit("idle.wakeups", "1/s", sum / (IDLE_MS / 1000.0), NAN, 0, note);
}

void bench_suite(const char *bin)
{
    struct rig *g;

    (void)bin;
    g = boots();
    if (!g) {
        row_skip("boot.ready", "the suite did not start again");
        return;
    }
    idleness(g);
    sizes(g);
    read_routed(g);
    agents(g);
    agent_libraries(g);
    rig_stop(g);
}
