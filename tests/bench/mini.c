/*
 * The real router with this process in the place of init: it holds the sockets, hands down keys and
 * listeners, writes units.json. Beside it an owner `memfs` that echoes, and one `authsvc` that
 * answers what the router asks at start.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/ipc/client.h"
#include "common/ipc/server.h"
#include "common/svc/token.h"
#include "common/svc/unit.h"
#include "tests/bench/bench.h"
#include "tests/rig/rig.h"

static void serve_call(struct call *c, void *arg)
{
    static const char none[] = "{\"tokens\":[],\"sessions\":[],\"users\":[],\"lineages\":[]}";

    (void)arg;
    if (str_eq(c->method, "auth/revoked"))
        call_reply_text(c, none, sizeof(none) - 1);
    else
        call_reply_text(c, BENCH_RESULT, sizeof(BENCH_RESULT) - 1);
}

/* A service as every unit is one: libavix's server on an inherited socket. */
static void serve(void *arg)
{
    int fd = *(int *)arg;
    struct loop *l = loop_new();

    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    server_new(l, fd, NULL, serve_call, NULL);
    loop_run(l);
}

static int keys_fd(void)
{
    static const enum key_id ids[] = { KEY_CAP, KEY_ATP, KEY_SVC };
    struct key_record rec[N_ELEMS(ids)] = { { "", { 0 } } };
    uint8_t master[32];

    hex_decode(RIG_MASTER_KEY, 64, master);
    for (size_t i = 0; i < N_ELEMS(ids); i++) {
        memcpy(rec[i].name, key_names[ids[i]], strlen(key_names[ids[i]]));
        key_derive(master, 32, key_names[ids[i]], rec[i].key);
    }
    return memfd_sealed("keys", rec, sizeof(rec));
}

static void router_exec(void *arg)
{
    struct mini *m = arg;
    char path[512], root[200], run[200];
    char *argv[] = { path, NULL };
    char *env[] = { root,
                    run,
                    (char[]){ "LISTEN_FDS=2" },
                    (char[]){ "LISTEN_FDNAMES=router:keys" },
                    (char[]){ "AVIX_LOG_LEVEL=warn" },
                    (char[]){ "PATH=/usr/bin" },
                    NULL };

    snprintf(path, sizeof(path), "%s", rig_bin("avix-router"));
    snprintf(root, sizeof(root), "AVIX_ROOT=%s", m->root);
    snprintf(run, sizeof(run), "AVIX_RUN_DIR=%s", m->run);
    int sock = fcntl(m->router_listen, F_DUPFD, 20), keys = fcntl(keys_fd(), F_DUPFD, 20);

    dup2(sock, 3);
    dup2(keys, 4);
    execve(path, argv, env);
    perror(path);
    _exit(127);
}

static void write_units(const struct mini *m)
{
    static const char *const names[] = { "router", "memfs", "authsvc", "init" };
    const pid_t pids[] = { m->router, m->echo, m->auth, getpid() };
    json_object *rows = json_new_arr(), *doc;
    char path[200];

    for (size_t i = 0; i < N_ELEMS(names); i++)
        json_push(rows, json_make("name:s kind:s pid:i start:i", names[i], "builtin",
                                  (int64_t)pids[i], (int64_t)proc_start_time(pids[i])));
    doc = json_make("units:o", rows);
    snprintf(path, sizeof(path), "%s/units.json", m->run);
    file_write_rename(path, json_text(doc), strlen(json_text(doc)), 0600);
    json_put(doc);
}

static void add_tool(const struct mini *m, const char *unit, pid_t pid, const char *tool)
{
    char sock[200];
    char *token =
        rig_sign("svc", json_make("kind:s tokenId:s unit:s hostPid:i hostStart:i", "ServiceToken",
                                  unit, unit, (int64_t)pid, (int64_t)proc_start_time(pid)));
    json_object *tools = json_new_arr(), *p;
    struct ipc_req q = { .method = "ipc.tool-add", .token = token, .sock = sock };
    struct ipc_reply r;

    snprintf(sock, sizeof(sock), "%s/router.sock", m->run);
    json_push(tools, json_make("name:s descriptor:o", tool, json_make("name:s", tool)));
    p = json_make("tools:o", tools);
    q.params = p;
    if (ipc_call(&q, &r)) {
        fprintf(stderr, "%s: %s\n", tool, r.error.message);
        exit(1);
    }
    ipc_reply_done(&r);
    json_put(p);
    free(token);
}

/* The owner registers itself: its token is bound to its process. */
struct owner_arg {
    struct mini *m;
    const char *unit, *tool;
    int fd;
};

static void owner_main(void *arg)
{
    struct owner_arg *o = arg;

    add_tool(o->m, o->unit, getpid(), o->tool);
    serve(&o->fd);
}

static char *cap_token(void)
{
    char id[UUID_LEN], at[RFC3339_LEN];
    json_object *granted = json_new_arr();

    json_push_str(granted, "fs/echo");
    return rig_sign("cap", json_make("kind:s tokenId:s lineage:s pid:i hostPid:i hostStart:i "
                                     "agent:s sub:s uid:i role:s granted:o expiresAt:s",
                                     "CapabilityToken", "cap-bench", uuid4(id), (int64_t)157,
                                     (int64_t)getpid(), (int64_t)proc_start_time(getpid()), "bench",
                                     "alice", (int64_t)1001, "user", granted,
                                     rfc3339(now_ms() + 3600000, at)));
}

struct mini *mini_start(const char *bin)
{
    struct mini *m = xcalloc(1, sizeof(*m));
    char path[300];
    struct owner_arg echo = { m, "memfs", "fs/echo", -1 }, auth = { m, "authsvc", "auth/x", -1 };

    (void)bin;
    snprintf(m->dir, sizeof(m->dir), "%s/avix-bench-%d", "/tmp", (int)getpid());
    snprintf(m->run, sizeof(m->run), "%s/run", m->dir);
    snprintf(m->root, sizeof(m->root), "%s/root", m->dir);
    snprintf(path, sizeof(path), "%s/etc", m->root);
    mkdir_p(path, 0700);
    snprintf(path, sizeof(path), "%s/data", m->root);
    mkdir_p(path, 0700);
    snprintf(path, sizeof(path), "%s/router", m->run);
    mkdir_p(path, 0700);
    snprintf(path, sizeof(path), "%s/etc/kernel.yaml", m->root);
    static const char yaml[] = "apiVersion: avix/v1\nkind: KernelConfig\nmetadata: {}\nspec: {}\n";
    file_write_rename(path, yaml, strlen(yaml), 0600);
    snprintf(path, sizeof(path), "%s/router.sock", m->run);
    m->router_listen = listen_unix(path);
    snprintf(path, sizeof(path), "%s/memfs.sock", m->run);
    echo.fd = m->echo_listen = listen_unix(path);
    snprintf(path, sizeof(path), "%s/auth.sock", m->run);
    auth.fd = m->auth_listen = listen_unix(path);
    m->router = child_start(router_exec, m, true);
    m->echo = child_start(owner_main, &echo, true);
    m->auth = child_start(owner_main, &auth, false);
    write_units(m);
    m->cap = cap_token();
    return m;
}

void mini_stop(struct mini *m)
{
    child_stop(m->echo);
    child_stop(m->auth);
    kill(m->router, SIGTERM);
    waitpid(m->router, NULL, 0);
    close(m->router_listen);
    close(m->echo_listen);
    close(m->auth_listen);
    rm_rf(m->dir);
    free(m->cap);
    free(m);
}
