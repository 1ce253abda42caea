/*
 * What a crash leaves behind. A spawn is stopped after each of its steps by freezing the one
 * process that the next step needs, which shows in the database or in init's list; then the
 * router, the kernel or the agent is killed there. Whatever dies, the spawn ends in exactly one
 * running agent, and nothing of it is left when it has ended.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include <poll.h>

#include "tests/suite/agent_run.h"

static const char script[] = "{'rules':[{'match':{'contains':'hold'},'wait':'go','text':'Held.'}],"
                             "'default':{'text':'Done.'}}";

/* A number from the database, read beside the kernel. */
static int64_t db_number(struct arun *a, const char *sql)
{
    char path[400];
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    int64_t v = -1;
    snprintf(path, sizeof path, "%s/data/avix.db", a->g->root);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK) {
        sqlite3_busy_timeout(db, 2000);
        if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW)
            v = sqlite3_column_int64(q, 0);
        sqlite3_finalize(q);
    }
    sqlite3_close(db);
    return v;
}

/* A spawn that is under way in another process, so that the test can look on. */
struct spawning {
    pid_t child;
    int out;
};

static struct spawning spawn_begin(struct arun *a, const char *key)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct spawning s = { .child = fork(), .out = fds[0] };
    if (s.child == 0) {
        json_object *r = NULL;
        for (int i = 0; i < 100; i++) { /* a client that asks again with the same key */
            struct ws *w = ws_admin(a->g);
            if (w)
                r = ws_cmd(
                    w, "proc", "spawn",
                    json_make("agent:s goal:s idempotency_key:s", "researcher", "hold", key));
            if (r && (json_flag(r, "ok", false) || str_eq(json_str(r, "code", ""), "EINTERNAL")))
                break;
            usleep(50000);
        }
        const char *text = r ? json_text(r) : "null";
        (void)write_all(fds[1], text, strlen(text));
        (void)write_all(fds[1], "\n", 1);
        _exit(0);
    }
    close(fds[1]);
    return s;
}

static void spawn_end(struct arun *a, struct spawning s)
{
    cleanup(freep) char *line = rig_read_line(s.out, 60000);
    json_object *r = NULL;
    close(s.out);
    waitpid(s.child, NULL, 0);
    if (!line || json_parse(line, strlen(line), &r) || !json_flag(r, "ok", false))
        arun_fail(a, line ? line : "no reply");
    a->pid = json_int(json_obj(r, "body"), "pid", 0);
    str_copy(a->inv, sizeof a->inv, json_str(json_obj(r, "body"), "invocation_id", ""));
    str_copy(a->agent, sizeof a->agent, "researcher");
    json_put(r);
}

static bool row_pending(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM processes WHERE state='pending'") == 1;
}

static bool host_there(void *arg)
{
    struct arun *a = arg;
    a->pid = 100;
    return arun_host_pid(a) > 0;
}

static bool identity_there(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM processes WHERE token_id IS NOT NULL") == 1;
}

static bool running(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM processes WHERE state='running'") == 1;
}

static void agent_signal(struct arun *a, int signo)
{
    pid_t pid;
    a->pid = 100;
    pid = arun_host_pid(a);
    if (pid > 0)
        (void)kill(pid, signo);
}

enum victim { V_ROUTER, V_KERNEL, V_AGENT, V_COUNT };
static const char *const victims[] = { "router", "kernel", "agent" };

static void strike(struct arun *a, enum victim v)
{
    if (v == V_AGENT) {
        agent_signal(a, SIGKILL);
        agent_signal(a, SIGCONT);
    } else {
        rig_kill_unit(a->g, victims[v]);
    }
}

/* Runs to the end: one agent, one host process, one answer. */
static void finish(struct arun *a, struct spawning s, const char *what)
{
    spawn_end(a, s);
    if (!rig_until(running, a))
        arun_fail(a, what);
    assert_int_equal(db_number(a, "SELECT count(*) FROM invocations"), 1);
    prov_release(a->p, "go");
    a->session[0] = '\0';
    for (int64_t end = mono_ms() + 30000;
         mono_ms() < end &&
         db_number(a, "SELECT count(*) FROM invocations WHERE status='idle'") != 1;)
        (void)arun_step(a, 50);
    if (db_number(a, "SELECT count(*) FROM invocations WHERE status='idle'") != 1)
        arun_fail(a, what);
    json_put(arun_cmd(a, "proc", "kill", json_make("pid:i", a->pid)));
    for (int64_t end = mono_ms() + 20000;
         mono_ms() < end && db_number(a, "SELECT count(*) FROM processes WHERE cleanup=0") != 0;)
        (void)arun_step(a, 50);
    assert_int_equal(db_number(a, "SELECT count(*) FROM processes WHERE cleanup=0"), 0);
    assert_int_equal(arun_host_pid(a), 0);
    char sock[200];
    snprintf(sock, sizeof sock, "%s/agents/%lld.sock", a->g->run_dir, (long long)a->pid);
    assert_int_equal(access(sock, F_OK), -1);
    arun_free(a);
}

/* Step 1: memfs is frozen, nothing is durable; after the kill nothing is there, and the repeat
 * spawns. */
static void after_step_1(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    rig_signal_unit(a->g, "memfs", SIGSTOP);
    struct spawning s = spawn_begin(a, "k");
    usleep(100000); /* the call is on its way; nothing shows it, and nothing depends on it */
    assert_int_equal(db_number(a, "SELECT count(*) FROM processes"), 0);
    if (v != V_AGENT)
        strike(a, v);
    rig_signal_unit(a->g, "memfs", SIGCONT);
    finish(a, s, "after step 1");
}

/* Steps 2 and 3: init is frozen, so T1 is committed and init/spawn is unanswered. */
static void after_step_3(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    pid_t kernel = rig_unit_pid(a->g, "kernel"), router = rig_unit_pid(a->g, "router");
    kill(a->g->init_pid, SIGSTOP);
    struct spawning s = spawn_begin(a, "k");
    assert_true(rig_until(row_pending, a));
    if (v == V_KERNEL)
        kill(kernel, SIGKILL);
    else if (v == V_ROUTER)
        kill(router, SIGKILL);
    kill(a->g->init_pid, SIGCONT);
    finish(a, s, "after step 3");
}

/* Step 4: authsvc is frozen; the host process is there, without a token. */
static void after_step_4(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    rig_signal_unit(a->g, "memfs", SIGSTOP);
    struct spawning s = spawn_begin(a, "k");
    usleep(200000); /* authsvc has told the policy; if not, the next lines let it */
    rig_signal_unit(a->g, "authsvc", SIGSTOP);
    rig_signal_unit(a->g, "memfs", SIGCONT);
    for (int64_t end = mono_ms() + 3000; !host_there(a) && mono_ms() < end;)
        usleep(1000);
    if (!host_there(a))
        rig_signal_unit(a->g, "authsvc", SIGCONT);
    assert_true(rig_until(host_there, a));
    strike(a, v);
    rig_signal_unit(a->g, "authsvc", SIGCONT);
    finish(a, s, "after step 4");
}

/* Step 5: the agent is frozen before it asks for its token. */
static void after_step_5(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    struct spawning s = spawn_begin(a, "k");
    assert_true(rig_until(host_there, a));
    agent_signal(a, SIGSTOP);
    assert_true(rig_until(identity_there, a));
    strike(a, v);
    agent_signal(a, SIGCONT);
    finish(a, s, "after step 5");
}

/* Steps 6 and 7: the router is frozen when the agent has its token, so its tools are not added. */
static void after_step_6(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    struct spawning s = spawn_begin(a, "k");
    assert_true(rig_until(identity_there, a));
    rig_signal_unit(a->g, "router", SIGSTOP);
    if (v == V_AGENT)
        strike(a, v);
    else
        rig_signal_unit(a->g, victims[v], SIGKILL);
    if (v != V_ROUTER) /* a kernel that starts registers with it */
        rig_signal_unit(a->g, "router", SIGCONT);
    finish(a, s, "after step 6");
}

/* A connection to the router that it has not accepted: state 02 without an inode. */
static bool router_is_asked(void *arg)
{
    struct arun *a = arg;
    char line[512], sock[200], path[256], state[8];
    unsigned long inode;
    bool found = false;
    FILE *f = fopen("/proc/net/unix", "re");
    assert_non_null(f);
    snprintf(sock, sizeof sock, "%s/router.sock", a->g->run_dir);
    while (!found && fgets(line, sizeof line, f))
        found = sscanf(line, "%*s %*s %*s %*s %*s %7s %lu %255s", state, &inode, path) == 3 &&
                str_eq(state, "02") && inode == 0 && str_eq(path, sock);
    (void)fclose(f);
    return found || running(a); /* it was faster than the freeze */
}

/* Step 7: the kernel is frozen while the router takes the tools, so no SIGSTART follows. */
static void after_step_7(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    struct spawning s = spawn_begin(a, "k");
    assert_true(rig_until(host_there, a));
    agent_signal(a, SIGSTOP);
    assert_true(rig_until(identity_there, a));
    rig_signal_unit(a->g, "router", SIGSTOP);
    agent_signal(a, SIGCONT);
    /* at most a second: a router that took the frame just before it was frozen shows nothing */
    for (int n = 0; n < 200 && !router_is_asked(a); n++)
        poll(NULL, 0, 5);
    pid_t kernel = rig_unit_pid(a->g, "kernel");
    kill(kernel, SIGSTOP);
    rig_signal_unit(a->g, "router", SIGCONT);
    if (v == V_ROUTER)
        rig_signal_unit(a->g, "router", SIGKILL);
    else
        strike(a, v);
    kill(kernel, SIGCONT);
    finish(a, s, "after step 7");
}

/* Step 9: the caller has its reply, and asks again with the same key. */
static void after_step_9(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    spawn_end(a, spawn_begin(a, "k"));
    int64_t pid = a->pid;
    strike(a, v);
    struct spawning again = spawn_begin(a, "k");
    finish(a, again, "after step 9");
    assert_int_equal(pid, 100);
}

/* Step 8: the first report is durable. */
static void after_step_8(enum victim v)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    struct spawning s = spawn_begin(a, "k");
    assert_true(rig_until(running, a));
    strike(a, v);
    finish(a, s, "after step 8");
}

#define AT(step)                            \
    static void step##_router(void **state) \
    {                                       \
        (void)state;                        \
        after_##step(V_ROUTER);             \
    }                                       \
    static void step##_kernel(void **state) \
    {                                       \
        (void)state;                        \
        after_##step(V_KERNEL);             \
    }                                       \
    static void step##_agent(void **state)  \
    {                                       \
        (void)state;                        \
        after_##step(V_AGENT);              \
    }
AT(step_1)
AT(step_3)
AT(step_4)
AT(step_5)
AT(step_6)
AT(step_7)
AT(step_8)
AT(step_9)

static void agents_outlive_the_kernel(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    pid_t host = arun_host_pid(a);
    assert_true(host > 0);
    for (int i = 0; i < 3; i++)
        rig_kill_unit(a->g, "kernel");
    assert_int_equal(arun_host_pid(a), host);
    prov_release(a->p, "go");
    arun_wait_idle(a);
    assert_string_equal(arun_output(a), "Held.");
    cleanup(json_putp) json_object *st = arun_cmd(a, "proc", "stat", json_make("pid:i", a->pid));
    assert_int_equal(json_int(json_obj(st, "body"), "restarts", -1), 0);
    assert_int_equal(arun_host_pid(a), host);
    arun_free(a);
}

static void a_reboot_interrupts(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    (void)state;
    arun_spawn(a, "researcher", "quick", false);
    arun_wait_idle(a);
    char idle[64];
    str_copy(idle, sizeof idle, a->inv);
    arun_spawn(a, "researcher", "hold", false);
    ws_close(a->w);
    rig_crash(a->g);
    assert_int_equal(rig_boot(a->g, NULL, NULL, 0), 0);
    a->w = ws_admin(a->g);
    assert_non_null(a->w);
    cleanup(json_putp) json_object *i =
        arun_cmd(a, "proc", "invocation-get", json_make("id:s", a->inv));
    assert_string_equal(json_str(json_obj(i, "body"), "status", ""), "killed");
    assert_string_equal(json_str(json_obj(i, "body"), "exitReason", ""), "interrupted_at_shutdown");
    cleanup(json_putp) json_object *s =
        arun_cmd(a, "proc", "session-get", json_make("session_id:s", a->session));
    assert_string_equal(json_str(json_obj(s, "body"), "status", ""), "idle");
    cleanup(json_putp) json_object *j =
        arun_cmd(a, "proc", "invocation-get", json_make("id:s", idle));
    assert_string_equal(json_str(json_obj(j, "body"), "status", ""), "idle");
    cleanup(json_putp) json_object *n =
        arun_cmd(a, "proc", "session-resume", json_make("session_id:s input:s", a->session, "go"));
    assert_true(json_int(json_obj(n, "body"), "pid", 0) > a->pid);
    arun_free(a);
}

static void a_stop_lets_idle_agents_sleep(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    (void)state;
    arun_spawn(a, "researcher", "quick", false);
    arun_wait_idle(a);
    ws_close(a->w);
    assert_int_equal(rig_shutdown(a->g), 0);
    assert_int_equal(rig_boot(a->g, NULL, NULL, 0), 0);
    a->w = ws_admin(a->g);
    assert_non_null(a->w);
    assert_true(
        ws_send(a->w, json_make("type:s events:o", "subscribe", json_tokener_parse("[\"*\"]"))));
    cleanup(json_putp) json_object *st = arun_cmd(a, "proc", "stat", json_make("pid:i", a->pid));
    assert_true(json_flag(json_obj(st, "body"), "hibernated", false));
    arun_signal(a, "SIGSTART", json_make("goal:s", "more"));
    arun_wait_idle(a);
    assert_string_equal(arun_output(a), "Done.");
    arun_free(a);
}

/* --- what was accepted is done, whatever dies ------------------------------------------------- */

static const char two_goals[] =
    "{'rules':[{'match':{'contains':'hold'},'wait':'go','text':'Held.'}],"
    "'steps':[{'text':'one'},{'text':'two'},{'text':'three'}]}";

static void hibernate_soon(struct rig *g)
{
    cleanup(freep) char *k = rig_read(g, "etc/kernel.yaml");
    const char *at = strstr(k, "spec:\n");
    assert_non_null(at);
    assert_null(strstr(k, "scheduler:"));
    at += strlen("spec:\n");
    cleanup(freep) char *text =
        xasprintf("%.*s  scheduler: {hibernateAfterSec: 1}\n%s", (int)(at - k), k, at);
    rig_write(g, "etc/kernel.yaml", text);
}

static bool going_to_sleep(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM processes WHERE kill_cause LIKE 'hibernate%'") == 1;
}

static bool asleep(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM processes WHERE hibernated=1") == 1;
}

static bool all_taken(void *arg)
{
    return db_number(arg, "SELECT count(*) FROM inputs") == 0;
}

/* The text came into the conversation once, and the model answered it. */
static void answered(struct arun *a, const char *text, const char *answer)
{
    arun_wait(a, "agent.output", 2);
    assert_string_equal(arun_output(a), answer);
    assert_true(rig_until(all_taken, a));
    cleanup(json_putp) json_object *lines = arun_lines(a);
    size_t n = 0;
    for (size_t i = 0; i < json_object_array_length(lines); i++)
        n += str_eq(json_str(json_object_array_get_idx(lines, i), "content", ""), text);
    assert_int_equal(n, 1);
    arun_free(a);
}

static void a_goal_survives_a_dying_agent(void **state)
{
    struct arun *a = arun_new("anthropic", two_goals, NULL);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    pid_t host = arun_host_pid(a);
    kill(host, SIGSTOP); /* it takes no signal any more */
    arun_signal(a, "SIGSTART", json_make("goal:s", "second"));
    kill(host, SIGKILL);
    answered(a, "second", "two");
}

static void a_wait_is_for_what_was_sent_before(void **state)
{
    struct arun *a = arun_new("anthropic", two_goals, NULL);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    pid_t host = arun_host_pid(a);
    kill(host, SIGSTOP);
    arun_signal(a, "SIGSTART", json_make("goal:s", "second"));
    cleanup(json_putp) json_object *early =
        arun_cmd(a, "proc", "wait", json_make("pid:i timeout:i", a->pid, (int64_t)1));
    assert_string_equal(json_str(json_obj(early, "body"), "final_status", ""), "timeout");
    kill(host, SIGCONT);
    cleanup(json_putp) json_object *done =
        arun_cmd(a, "proc", "wait", json_make("pid:i timeout:i", a->pid, (int64_t)20));
    assert_string_equal(json_str(json_obj(done, "body"), "result", ""), "two");
    arun_free(a);
}

static void a_message_survives_going_to_sleep(void **state)
{
    struct arun *a = arun_new("anthropic", two_goals, hibernate_soon);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    pid_t host = arun_host_pid(a);
    kill(host, SIGSTOP);
    assert_true(rig_until(going_to_sleep, a));
    json_put(arun_cmd(a, "proc", "session-resume",
                      json_make("session_id:s input:s", a->session, "second")));
    kill(host, SIGCONT);
    answered(a, "second", "two");
}

static void a_wake_up_survives_the_kernel(void **state)
{
    struct arun *a = arun_new("anthropic", two_goals, hibernate_soon);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    assert_true(rig_until(asleep, a));
    pid_t kernel = rig_unit_pid(a->g, "kernel");
    kill(a->g->init_pid, SIGSTOP); /* its host process is not started */
    arun_signal(a, "SIGSTART", json_make("goal:s", "second"));
    kill(kernel, SIGKILL);
    kill(a->g->init_pid, SIGCONT);
    answered(a, "second", "two");
}

static void a_wake_up_survives_a_reboot(void **state)
{
    struct arun *a = arun_new("anthropic", two_goals, hibernate_soon);
    (void)state;
    arun_spawn(a, "researcher", "first", false);
    arun_wait_idle(a);
    assert_true(rig_until(asleep, a));
    kill(a->g->init_pid, SIGSTOP);
    arun_signal(a, "SIGSTART", json_make("goal:s", "second"));
    ws_close(a->w);
    rig_crash(a->g);
    assert_int_equal(rig_boot(a->g, NULL, NULL, 0), 0);
    a->w = ws_admin(a->g);
    assert_non_null(a->w);
    assert_true(
        ws_send(a->w, json_make("type:s events:o", "subscribe", json_tokener_parse("[\"*\"]"))));
    assert_true(rig_until(all_taken, a));
    assert_true(rig_until(asleep, a)); /* done with it */
    cleanup(json_putp) json_object *lines = arun_lines(a);
    assert_string_equal(json_str(arun_line(lines, "user", 1), "content", ""), "second");
    assert_string_equal(json_str(arun_line(lines, "assistant", 1), "content", ""), "two");
    arun_free(a);
}

static void a_message_survives_a_crash(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    assert_true(prov_wait(a->p, 1));
    arun_signal(a, "SIGPIPE", json_make("text:s", "and this"));
    kill(arun_host_pid(a), SIGKILL); /* it had the frame, but has not written it down */
    prov_release(a->p, "go");
    arun_wait_idle(a);
    assert_true(rig_until(all_taken, a));
    cleanup(json_putp) json_object *lines = arun_lines(a);
    size_t n = 0;
    for (size_t i = 0; i < json_object_array_length(lines); i++)
        n += str_eq(json_str(json_object_array_get_idx(lines, i), "content", ""), "and this");
    assert_int_equal(n, 1);
    arun_free(a);
}

static void db_write(struct arun *a, const char *sql)
{
    char path[400];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/data/avix.db", a->g->root);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 2000);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static int64_t restarts_wanted;
static bool restarted(void *arg)
{
    return db_number(arg, "SELECT restarts FROM invocations") == restarts_wanted && running(arg);
}

static void crash(struct arun *a, int64_t n)
{
    kill(arun_host_pid(a), SIGKILL);
    restarts_wanted = n;
    if (!rig_until(restarted, a))
        arun_fail(a, "not restarted");
}

/* Three in ten minutes, by the clock, over restarts of the kernel too. */
static void restarts_are_counted_by_time(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    (void)state;
    arun_spawn(a, "researcher", "hold", false);
    for (int i = 1; i <= 3; i++)
        crash(a, i);
    assert_int_equal(db_number(a, "SELECT json_array_length(restart_log) FROM processes"), 3);
    db_write(a, "UPDATE processes SET restart_log='[1,2,3]'"); /* long ago */
    rig_kill_unit(a->g, "kernel");
    for (int i = 4; i <= 6; i++)
        crash(a, i);
    rig_kill_unit(a->g, "kernel");
    kill(arun_host_pid(a), SIGKILL);
    arun_wait_exit(a, 30);
    assert_string_equal(a->exit_reason, "crashed: signal 9");
    arun_free(a);
}

static void newer_database(struct rig *g)
{
    char path[400];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/data/avix.db", g->root);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_newer_database_is_refused(void **state)
{
    char err[1024] = "";
    struct rig_opts o = { .before = newer_database, .no_start = true };
    (void)state;
    struct rig *g = rig_new(&o);
    assert_int_not_equal(rig_boot(g, NULL, err, sizeof err), 0);
    assert_non_null(strstr(err, "kernel"));
    cleanup(freep) char *log = rig_read(g, "logs/kernel.log");
    assert_non_null(strstr(log, "newer Avix"));
    rig_stop(g);
}

/* data/ on a tmpfs of a few megabytes. */
static bool small_disk;
static void onto_tmpfs(struct rig *g)
{
    char data[400], copy[400];
    snprintf(data, sizeof data, "%s/data", g->root);
    snprintf(copy, sizeof copy, "%s/data.was", g->root);
    small_disk = false;
    if (rename(data, copy) || mkdir(data, 0700))
        return;
    small_disk = mount("tmpfs", data, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=0700") == 0;
    const char *cp[] = { "/bin/cp", "-a", NULL, NULL, NULL };
    cleanup(freep) char *from = xasprintf("%s/.", copy);
    cp[2] = from;
    cp[3] = data;
    assert_int_equal(rig_run(g, cp, NULL, NULL, NULL), 0);
}

static void a_full_disk_refuses_and_recovers(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* only root may mount */
    struct arun *a = arun_new("anthropic", script, onto_tmpfs);
    if (!small_disk) {
        arun_free(a);
        skip();
    }
    arun_spawn(a, "researcher", "hold", false); /* one lives through it */
    int64_t first = a->pid;
    char path[400], data[400];
    snprintf(data, sizeof data, "%s/data", a->g->root);
    snprintf(path, sizeof path, "%s/data/filler", a->g->root);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    char block[4096] = { 0 };
    while (write(fd, block, sizeof block) > 0)
        ;
    close(fd);
    bool refused = false;
    for (int i = 0; i < 64 && !refused; i++) { /* the log's preallocated pages may take a few */
        json_object *r =
            ws_cmd(a->w, "proc", "spawn", json_make("agent:s goal:s", "researcher", "quick"));
        assert_non_null(r);
        refused = !json_flag(r, "ok", false);
        if (refused)
            assert_true(str_eq(json_str(r, "code", ""), "ELIMIT") ||
                        str_eq(json_str(r, "code", ""), "EINTERNAL"));
        json_put(r);
    }
    assert_true(refused);
    json_object *st = ws_cmd(a->w, "proc", "stat", json_make("pid:i", first));
    assert_true(json_flag(st, "ok", false)); /* reading goes on */
    json_put(st);
    assert_int_equal(unlink(path), 0);
    arun_spawn(a, "researcher", "quick", true);
    arun_wait_exit(a, 30);
    a->pid = first;
    prov_release(a->p, "go");
    arun_wait_idle(a);
    ws_close(a->w);
    assert_int_equal(rig_shutdown(a->g), 0);
    assert_int_equal(umount2(data, MNT_DETACH), 0);
    rig_stop(a->g);
    prov_stop(a->p);
    json_put(a->events);
    free(a);
}

#define STEP(s) \
    cmocka_unit_test(s##_router), cmocka_unit_test(s##_kernel), cmocka_unit_test(s##_agent)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STEP(step_1),
        STEP(step_3),
        STEP(step_4),
        STEP(step_5),
        STEP(step_6),
        STEP(step_7),
        STEP(step_8),
        STEP(step_9),
        cmocka_unit_test(agents_outlive_the_kernel),
        cmocka_unit_test(a_reboot_interrupts),
        cmocka_unit_test(a_stop_lets_idle_agents_sleep),
        cmocka_unit_test(a_goal_survives_a_dying_agent),
        cmocka_unit_test(a_wait_is_for_what_was_sent_before),
        cmocka_unit_test(a_message_survives_going_to_sleep),
        cmocka_unit_test(a_wake_up_survives_the_kernel),
        cmocka_unit_test(a_wake_up_survives_a_reboot),
        cmocka_unit_test(a_message_survives_a_crash),
        cmocka_unit_test(restarts_are_counted_by_time),
        cmocka_unit_test(a_newer_database_is_refused),
        cmocka_unit_test(a_full_disk_refuses_and_recovers),
    };
    const char *only = getenv("CMOCKA_TEST_FILTER");
    if (!str_empty(only))
        cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
