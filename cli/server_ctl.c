/*
 * avix server start | stop | status | logs: the daemon from the outside, by its control socket.
 * None of them needs the gateway, so they work when it does not.
 */
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/server.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/yaml.h"
#include "common/ipc/client.h"

int program_path(const char *name, char *out, size_t size)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return -errno;
    self[n] = 0;
    char *slash = strrchr(self, '/');
    *slash = 0;
    static const char *const places[] = { "%s/%s", "%s/../libexec/avix/%s" };
    for (size_t i = 0; i < N_ELEMS(places); i++) {
        n = i == 0 ? snprintf(out, size, "%s/%s", self, name)
                   : snprintf(out, size, "%s/../libexec/avix/%s", self, name);
        if (n > 0 && (size_t)n < size && access(out, X_OK) == 0)
            return 0;
    }
    return -ENOENT;
}

const char *root_flag(const struct cli *c)
{
    static char home_root[300];
    const char *root = cli_setting(c, "root", "AVIX_ROOT", NULL, "runtime_root", NULL);
    if (root)
        return root;
    snprintf(home_root, sizeof home_root, "%s/avix-data", getenv("HOME") ? getenv("HOME") : "");
    return home_root;
}

/* Candidates for the run dir of a daemon, in the order in which it chooses. */
static bool init_socket(const char *root, size_t which, char *out, size_t size)
{
    const char *env = getenv("AVIX_RUN_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    if (!str_empty(env))
        return which == 0 && path_fmt(out, size, "%s/init.sock", env) == 0;
    if (which == 0)
        return path_fmt(out, size, "/run/avix/init.sock") == 0;
    if (which == 1)
        return !str_empty(xdg) && path_fmt(out, size, "%s/avix/init.sock", xdg) == 0;
    return path_fmt(out, size, "%s/run/init.sock", root) == 0;
}

int init_call(const struct cli *c, const char *method, json_object *params, int timeout_ms,
              json_object **ret)
{
    char sock[400];
    struct ipc_reply r;
    const char *root = root_flag(c);
    *ret = NULL;
    for (size_t i = 0; i < 3; i++) {
        if (!init_socket(root, i, sock, sizeof sock) || access(sock, F_OK) < 0)
            continue;
        struct ipc_req q = {
            .sock = sock, .method = method, .params = params, .timeout_ms = timeout_ms
        };
        int e = ipc_call(&q, &r);
        if (e == 0)
            *ret = TAKE(r.result);
        bool answered = e == 0 || !(e == ERR_UNAVAIL);
        int exit = e == 0     ? EX_DONE
                   : answered ? cli_fail(c,
                                         e == ERR_NOTFOUND ? EX_NOTFOUND
                                         : e == ERR_PERM   ? EX_PERM
                                                           : EX_LOCAL,
                                         err_name(e), NULL, "%s: %s", method, r.error.message)
                              : EX_CONNECT;
        ipc_reply_done(&r);
        if (answered)
            return exit;
    }
    char hint[400];
    snprintf(hint, sizeof hint, "start it with 'avix server start --root %s'", root);
    return cli_fail(c, EX_CONNECT, "ECONNECT", hint, "no daemon runs for %s", root);
}

/* Names of environment variables that llm.yaml and mcp.yaml refer to, for init to hand to their one
 * reader. */
void pass_env(const char *root)
{
    char path[400];
    struct yaml_err e;
    json_object *doc = NULL;
    struct buf names = BUF_INIT(4096);
    if (path_fmt(path, sizeof path, "%s/etc/llm.yaml", root) == 0 &&
        yaml_load(path, &doc, &e) == 0) {
        json_object *list = json_arr(json_obj(doc, "spec"), "providers");
        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
            json_object *p = json_object_array_get_idx(list, i);
            const char *name = json_str(json_obj(p, "auth"), "secretName", NULL);
            if (!name)
                name = json_str(json_obj(p, "credential"), "key_env", NULL);
            if (name && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == strlen(name) &&
                !str_starts(name, "AVIX_"))
                buf_printf(&names, "%s%s %s_FILE", names.len ? " " : "", name, name);
        }
    }
    if (names.len)
        setenv("AVIX_PASS_ENV", names.data, 1);
    buf_done(&names);
    json_put(doc);
}

int cmd_server_start(struct cli *c)
{
    char path[512], abs[PATH_MAX];
    const char *root = root_flag(c), *argv[24];
    size_t n = 0;
    static const char *const values[] = { "port", "bind", "admin-addr", "log" },
                             *const switches[] = { "log-stdout", "v", "json" };

    int r = program_path("avix-init", path, sizeof path);
    if (r)
        return cli_fail(c, EX_LOCAL, "ELOCAL", "install the whole suite, or build it with make",
                        "avix-init not found: %s", strerror(-r));
    if (!realpath(root, abs))
        str_copy(abs, sizeof abs, root); /* init names the missing file */
    argv[n++] = "avix-init";
    argv[n++] = "--root";
    argv[n++] = abs;
    for (size_t i = 0; i < N_ELEMS(values); i++)
        if (cli_flag(c, values[i])) {
            argv[n++] = xasprintf("--%s", values[i]);
            argv[n++] = cli_flag(c, values[i]);
        }
    for (size_t i = 0; i < N_ELEMS(switches); i++)
        if (cli_has(c, switches[i]))
            argv[n++] = xasprintf("%s%s", strlen(switches[i]) == 1 ? "-" : "--", switches[i]);
    argv[n] = NULL;
    pass_env(abs);
    execv(path, (char *const *)(uintptr_t)argv);
    return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", path, strerror(errno));
}

int cmd_server_stop(struct cli *c)
{
    int64_t grace = 30, pid = 0;
    const char *g = cli_flag(c, "grace");
    json_object *o = NULL, *list = NULL;
    if (g && !parse_i64(g, 1, 3600, &grace))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--grace: '%s' is no number of seconds", g);
    int r = init_call(c, "init/list", NULL, 5000, &list);
    if (r)
        return r;
    pid = json_int(list, "pid", 0);
    json_put(list);
    json_object *p = json_make("reason:s grace_secs:i", "stop", grace);
    r = init_call(c, "init/shutdown", p, 10000, &o);
    json_put(p);
    json_put(o);
    /* done when the process is gone: its pidfd tells */
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/%lld", (long long)pid);
    for (int64_t end = mono_ms() + grace * 1000 + 5000; !r && pid > 0 && access(proc, F_OK) == 0;) {
        if (mono_ms() > end)
            return cli_fail(c, EX_UNAVAIL, "ETIMEOUT", NULL,
                            "the daemon (pid %lld) still runs after %lld s", (long long)pid,
                            (long long)grace);
        usleep(20000);
    }
    if (!r && c->json)
        printf("{\"ok\":true}\n");
    else if (!r)
        printf("Stopped\n");
    return r;
}

static bool all_lack(json_object *units, const char *what)
{
    for (size_t i = 0; i < json_object_array_length(units); i++)
        if (!json_arr_has(json_arr(json_object_array_get_idx(units, i), "missing"), what))
            return false;
    return true;
}

/* One line; shared: what every unit lacks, else what only this one does. */
static void print_lack(const char *who, json_object *missing, json_object *units, bool shared)
{
    const char *sep = ": missing ";

    for (size_t k = 0; missing && k < json_object_array_length(missing); k++) {
        const char *what = json_object_get_string(json_object_array_get_idx(missing, k));

        if (all_lack(units, what) != shared)
            continue;
        printf("%s%s%s", *sep == ':' ? who : "", sep, what);
        sep = ", ";
    }
    if (*sep == ',')
        printf("\n");
}

static void print_missing(json_object *units)
{
    size_t n = units ? json_object_array_length(units) : 0;

    if (n)
        print_lack("every unit", json_arr(json_object_array_get_idx(units, 0), "missing"), units,
                   true);
    for (size_t i = 0; i < n; i++) {
        json_object *u = json_object_array_get_idx(units, i);

        print_lack(json_str(u, "name", ""), json_arr(u, "missing"), units, false);
    }
}

int cmd_server_status(struct cli *c)
{
    static const struct column cols[] = { { "NAME", false },
                                          { "STATE", false },
                                          { "PID", true },
                                          { "SINCE", false },
                                          { "RESTARTS", true } };
    json_object *o = NULL;
    int r = init_call(c, "init/list", NULL, 10000, &o);
    if (r)
        return r;
    if (c->json) {
        print_json(o);
        json_put(o);
        return EX_DONE;
    }
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    json_object *units = json_arr(o, "units"), *agents = json_arr(o, "agents");
    for (size_t i = 0; units && i < json_object_array_length(units); i++) {
        json_object *u = json_object_array_get_idx(units, i);
        char pid[24], restarts[24], since[40];
        snprintf(pid, sizeof pid, "%lld", (long long)json_int(u, "hostPid", 0));
        snprintf(restarts, sizeof restarts, "%lld", (long long)json_int(u, "restarts", 0));
        table_row(&t, (const char *[]){ json_str(u, "name", ""), json_str(u, "state", ""), pid,
                                        when_text(json_str(u, "since", ""), since, sizeof since),
                                        restarts });
    }
    table_print(c, &t, "No units.");
    table_done(&t);
    if (agents && json_object_array_length(agents))
        printf("agents: %zu running\n", json_object_array_length(agents));
    static const char *const lines[] = { "url", "admin_url", "level", "fingerprint" };
    for (size_t i = 0; i < N_ELEMS(lines); i++)
        if (json_str(o, lines[i], NULL))
            printf("%s: %s\n", lines[i], json_str(o, lines[i], ""));
    print_missing(units);
    json_put(o);
    return EX_DONE;
}

int cmd_server_logs(struct cli *c)
{
    int64_t lines = 200;
    const char *n = cli_flag(c, "n"), *unit = c->n_args ? c->args[0] : "init";
    if (n && !parse_i64(n, 1, 100000, &lines))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "--n: '%s' is no number of lines", n);
    json_object *o = NULL, *p = json_make("name:s lines:i", unit, lines);
    int r = init_call(c, "init/logs", p, 10000, &o);
    json_put(p);
    if (r)
        return r;
    json_object *list = json_arr(o, "lines");
    if (c->json)
        print_json(o);
    for (size_t i = 0; !c->json && list && i < json_object_array_length(list); i++) {
        const char *s = json_object_get_string(json_object_array_get_idx(list, i));
        print_safe(stdout, s, strlen(s), false);
        putchar('\n');
    }
    json_put(o);
    return EX_DONE;
}
