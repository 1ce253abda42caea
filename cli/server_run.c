/*
 * avix server run: one agent and no daemon. A private run dir, init with --one-shot, and this
 * command in the gateway's place: it calls through the router with the gateway's token for one
 * user, and receives what the others publish. Ctrl-C stops the agent, a second one kills it.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/client/cmd.h"
#include "cli/client/follow.h"
#include "cli/server.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/log.h"
#include "common/base/rnd.h"
#include "common/base/yaml.h"
#include "common/ipc/client.h"
#include "common/ipc/frame.h"
#include "common/ipc/server.h"

struct run {
    struct cli *c;
    struct loop *loop;
    struct follow *follow;
    json_object *user; /* the _user of every call */
    char run_dir[96], router[120], *token;
    pid_t init_pid;
    int channel, gateway_fd, exit, interrupts;
    int64_t pid, seq;
    bool done;
    json_object *early; /* events from before the pid was known */
};

static void finish(struct run *r, int exit)
{
    if (!r->done)
        r->exit = exit;
    r->done = true;
    loop_stop(r->loop);
}

/* The user of the run: --user, AVIX_USER, or the only admin of auth.conf. NULL after saying why. */
static char *find_user(struct run *r, const char *root)
{
    const char *given = cli_setting(r->c, "user", "AVIX_USER", NULL, NULL, NULL);
    char path[512], *name = NULL;
    struct yaml_err e;
    json_object *doc = NULL;
    size_t admins = 0;
    if (given)
        return xstrdup(given);
    if (path_fmt(path, sizeof path, "%s/etc/auth.conf", root) == 0 &&
        yaml_load(path, &doc, &e) == 0) {
        json_object *list = json_arr(doc, "identities");
        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
            json_object *o = json_object_array_get_idx(list, i);
            if (str_eq(json_str(o, "role", ""), "admin") && admins++ == 0)
                name = xstrdup(json_str(o, "name", ""));
        }
    }
    json_put(doc);
    if (admins == 1)
        return name;
    free(name);
    r->exit = cli_fail(r->c, EX_USE, "EUSAGE", NULL,
                       admins ? "several admins in %s/etc/auth.conf: pass --user"
                              : "no admin found in %s/etc/auth.conf",
                       root);
    return NULL;
}

static int start_init(struct run *r, const char *root)
{
    char path[512], number[16], abs[PATH_MAX];
    int pair[2], p = program_path("avix-init", path, sizeof path);
    if (p || !realpath(root, abs) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return cli_fail(r->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", p ? "avix-init" : root,
                        p ? strerror(-p) : strerror(errno));
    pass_env(abs);
    r->init_pid = fork();
    if (r->init_pid < 0)
        return cli_fail(r->c, EX_LOCAL, "ELOCAL", NULL, "fork: %s", strerror(errno));
    if (r->init_pid == 0) {
        int fd = dup(pair[1]); /* without close-on-exec */
        snprintf(number, sizeof number, "%d", fd);
        setenv("AVIX_ONE_SHOT_FD", number, 1);
        setenv("AVIX_RUN_DIR", r->run_dir, 1);
        setpgid(0, 0); /* Ctrl-C is ours to handle */
        dup2(2, 1);
        execl(path, "avix-init", "--root", abs, "--one-shot", "--json", (char *)NULL);
        _exit(127);
    }
    close(pair[1]);
    r->channel = pair[0];
    return 0;
}

/* Waits for the token and the socket; init says on stderr why it did not come up. */
static int wait_ready(struct run *r)
{
    struct frame_in in;
    const char *body;
    size_t len, n = 0;
    json_object *o = NULL;
    frame_in_init(&in, 65536);
    enum frame_result fr;
    while ((fr = frame_in_recv(&in, r->channel, &body, &len, &r->gateway_fd, 1, &n)) == FRAME_MORE)
        ;
    bool ok =
        fr == FRAME_READY && n == 1 && json_parse(body, len, &o) == 0 && json_str(o, "token", NULL);
    if (ok)
        r->token = xstrdup(json_str(o, "token", ""));
    json_put(o);
    frame_in_done(&in);
    if (ok)
        return 0;
    int status = 0;
    waitpid(r->init_pid, &status, 0);
    r->init_pid = 0;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    return cli_fail(r->c, code == 75 || code == 0 ? EX_LOCAL : code, "ELOCAL", NULL, "%s",
                    code == 75 ? "a daemon runs on this root; use avix client agent spawn"
                               : "Avix did not start");
}

static int router_call(struct run *r, const char *method, json_object *params,
                       struct ipc_reply *reply)
{
    struct ipc_req q = { .sock = r->router,
                         .method = method,
                         .params = params,
                         .token = r->token,
                         .timeout_ms = 30000 };
    if (r->user)
        json_add(params, "_user", json_object_get(r->user));
    int e = ipc_call(&q, reply);
    json_put(params);
    return e;
}

static int find_identity(struct run *r, const char *name)
{
    struct ipc_reply reply;
    int e = router_call(r, "auth/policy", json_make("user:s", name), &reply);
    if (!e)
        r->user = json_make("name:s uid:i role:s crews:o session_id:s", name,
                            json_int(reply.result, "uid", 0), json_str(reply.result, "role", ""),
                            json_object_get(json_arr(reply.result, "crews")), "");
    int exit =
        e ? cli_fail(r->c, EX_NOTFOUND, err_name(e), NULL, "user %s: %s", name, reply.error.message)
          : 0;
    ipc_reply_done(&reply);
    return exit;
}

static void on_event(struct run *r, json_object *event)
{
    int exit;
    if (!r->pid) {
        json_push(r->early, json_object_get(event));
        return;
    }
    follow_event(r->follow, event);
    if (follow_ended(r->follow, &exit))
        finish(r, exit);
}

/* What a gateway is asked: events, and notices that concern logins, of which there are none here.
 */
static void on_call(struct call *c, void *arg)
{
    struct run *r = arg;
    if (str_eq(c->method, "event.publish"))
        on_event(r, c->params);
    else if (!str_eq(c->method, "auth.revoked") && !c->note) {
        call_fail(c, ERR_METHOD, "not served in a one-shot run: %s", c->method);
        return;
    }
    if (c->note)
        call_end(c);
    else
        call_reply(c, json_make("seq:i", ++r->seq));
}

static void on_interrupt(void *arg)
{
    struct run *r = arg;
    struct ipc_reply reply;
    bool again = r->interrupts++ > 0;
    if (!r->pid) {
        finish(r, EX_INTERRUPT);
        return;
    }
    fprintf(stderr,
            again ? "killing agent %" PRId64 "\n" : "stopping agent %" PRId64 " (again: kill)\n",
            r->pid);
    router_call(r, "kernel/signal/send",
                json_make("pid:i signal:s", r->pid, again ? "SIGKILL" : "SIGSTOP"), &reply);
    ipc_reply_done(&reply);
    r->exit = EX_INTERRUPT;
}

static void on_deadline(void *arg)
{
    struct run *r = arg;
    struct ipc_reply reply;
    router_call(r, "kernel/signal/send", json_make("pid:i signal:s", r->pid, "SIGKILL"), &reply);
    ipc_reply_done(&reply);
    cli_fail(r->c, EX_TIME_LIMIT, "ETIMEOUT", NULL, "the agent took longer than --timeout");
    finish(r, EX_TIME_LIMIT);
}

static void on_channel(int fd, unsigned events, void *arg)
{
    char byte;
    (void)events;
    if (read(fd, &byte, 1) <= 0)
        finish(arg, cli_fail(((struct run *)arg)->c, EX_LOST, "ELOST", NULL,
                             "Avix ended while the agent ran"));
}

static void on_spawned(struct ipc_reply *reply, void *arg)
{
    struct run *r = arg;
    static const struct follow_opts until_exit = { .until_exit = true };
    if (reply->err) {
        static const struct {
            int err, exit;
        } map[] = { { ERR_NOTFOUND, EX_NOTFOUND },
                    { ERR_PERM, EX_PERM },
                    { ERR_LIMIT, EX_LIMIT },
                    { ERR_INVAL, EX_PARSE },
                    { ERR_UNAVAIL, EX_UNAVAIL } };
        int exit = EX_AGENT_FAILED;
        for (size_t i = 0; i < N_ELEMS(map); i++)
            exit = map[i].err == reply->err ? map[i].exit : exit;
        finish(r,
               cli_fail(r->c, exit, err_name(reply->err), NULL, "spawn: %s", reply->error.message));
        return;
    }
    r->pid = json_int(reply->result, "pid", 0);
    r->follow = follow_new(r->c, NULL, r->pid, &until_exit);
    for (size_t i = 0; i < json_object_array_length(r->early) && !r->done; i++)
        on_event(r, json_object_array_get_idx(r->early, i));
}

static void run_agent(struct run *r, const char *goal)
{
    const char *name = cli_flag(r->c, "name") ? cli_flag(r->c, "name") : "executor";
    struct server_opts so = { .many_notes = true };
    struct server *server = server_new(r->loop, r->gateway_fd, &so, on_call, r);
    struct watch end;
    struct timer deadline;
    int64_t limit = 0;
    char key[UUID_LEN];
    json_object *p = json_make("agent:s name:s goal:s oneShot:b idempotency_key:s", name, name,
                               goal, 1, uuid4(key));
    add_flag_str(p, r->c, "model", "model");
    json_add(p, "_user", json_object_get(r->user));
    watch_init(&end, r->loop, r->channel, on_channel, r);
    watch_set(&end, LOOP_READ);
    timer_init(&deadline, r->loop, on_deadline, r);
    if (cli_flag(r->c, "timeout") && parse_i64(cli_flag(r->c, "timeout"), 1, 86400, &limit))
        timer_set(&deadline, limit * 1000);
    loop_signal(r->loop, SIGINT, on_interrupt, r);
    loop_signal(r->loop, SIGTERM, on_interrupt, r);
    struct ipc_req q = { .sock = r->router,
                         .method = "kernel/proc/spawn",
                         .params = p,
                         .token = r->token,
                         .timeout_ms = 60000,
                         .repeatable = true };
    ipc_start(r->loop, &q, NULL, on_spawned, r);
    loop_run(r->loop);
    json_put(p);
    watch_done(&end);
    timer_done(&deadline);
    server_free(server);
    if (r->interrupts)
        r->exit = EX_INTERRUPT;
}

int cmd_server_run(struct cli *c)
{
    const char *root = root_flag(c), *given = cli_flag(c, "goal"), *tmp = getenv("TMPDIR");
    struct run r = { .c = c, .channel = -1, .gateway_fd = -1 };
    char path[512];
    if (!given)
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "server run needs --goal TEXT");
    if (path_fmt(path, sizeof path, "%s/etc/auth.conf", root) || access(path, F_OK) < 0)
        return cli_fail(c, 78, "ELOCAL", "avix server config init --root DIR",
                        "%s/etc/auth.conf not found", root);
    cleanup(freep) char *goal = text_arg(c, given, 65536, &r.exit);
    cleanup(freep) char *user = goal ? find_user(&r, root) : NULL;
    if (!user)
        return r.exit;
    snprintf(r.run_dir, sizeof r.run_dir, "%s/avix-run.XXXXXX",
             str_empty(tmp) || strlen(tmp) > 40 ? "/tmp" : tmp);
    if (!mkdtemp(r.run_dir))
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", r.run_dir, strerror(errno));
    snprintf(r.router, sizeof r.router, "%s/router.sock", r.run_dir);
    r.early = json_new_arr();
    r.exit = start_init(&r, root);
    if (!r.exit)
        r.exit = wait_ready(&r);
    if (!r.exit)
        r.exit = find_identity(&r, user);
    if (!r.exit) {
        r.loop = loop_new();
        run_agent(&r, goal);
        loop_free(r.loop);
    }
    if (r.init_pid > 0) {
        kill(r.init_pid, SIGTERM);
        while (waitpid(r.init_pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    follow_free(r.follow);
    closep(&r.channel);
    closep(&r.gateway_fd);
    json_put(r.user);
    json_put(r.early);
    if (r.token)
        explicit_bzero(r.token, strlen(r.token));
    free(r.token);
    rm_rf(r.run_dir);
    return r.exit;
}
