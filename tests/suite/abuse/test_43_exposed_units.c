/*
 * Security page, test 43: an exposed unit that was taken over. With the gateway's own identity
 * nobody acts for a user without that user's valid ATP token, and nobody mints, renews or takes
 * secrets. The processes of gateway and llmsvc, made to try, reach no secret, file, process or
 * program of others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/rnd.h"
#include "common/ipc/peer.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"
#include "tests/suite/abuse/inject.h"

#define GUEST_KEY  "sk-avix-test-key-123"
#define GUEST_HASH "9394da9899820693ae998c4686bf3d0ba8b5a96839c9efe5a822b6949f960a69"

static struct rig *g;
static char *gateway; /* a service token of the gateway, bound to this process */

static void add_guest(struct rig *x)
{
    cleanup(freep) char *text = rig_read(x, "etc/auth.conf");
    cleanup(freep) char *more =
        xasprintf("%s  - {name: gina, uid: 1200, role: guest, credential: {type: api_key, "
                  "key_hash: \"hmac-sha256:%s\"}}\n",
                  text, GUEST_HASH);

    rig_write(x, "etc/auth.conf", more);
}

static int setup(void **state)
{
    const struct rig_opts o = { .before = add_guest };
    char id[UUID_LEN], now[RFC3339_LEN];

    (void)state;
    g = rig_new(&o);
    gateway = rig_sign(
        "svc", json_make("kind:s tokenId:s unit:s version:s hostPid:i hostStart:i ns:o grants:o "
                         "issuedAt:s",
                         "ServiceToken", uuid4(id), "gateway", "1.0.0", (int64_t)getpid(),
                         (int64_t)proc_start_time(getpid()), json_new_arr(), json_new_arr(),
                         rfc3339(now_ms(), now)));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(gateway);
    rig_stop(g);
    return 0;
}

/* An ATP token of an admin that only the key of `key` vouches for. */
static char *atp_token(const char *key, const char *kind, int64_t age_ms, int64_t ttl_ms)
{
    char id[UUID_LEN], sid[UUID_LEN], t1[RFC3339_LEN], t2[RFC3339_LEN];
    int64_t at = now_ms() - age_ms;

    return rig_sign(key, json_make("kind:s tokenId:s sub:s uid:i role:s crews:o sessionId:s "
                                   "loginAt:s issuedAt:s expiresAt:s",
                                   kind, uuid4(id), "admin", (int64_t)1001, "admin", json_new_arr(),
                                   uuid4(sid), rfc3339(at, t1), t1, rfc3339(at + ttl_ms, t2)));
}

/* A call for a user who is said to be an admin; token NULL: without the member. */
static int call_for(const char *token, const char *method, struct ipc_reply *r)
{
    cleanup(json_putp) json_object *user =
        json_make("name:s uid:i role:s crews:o session_id:s", "admin", (int64_t)1001, "admin",
                  json_new_arr(), "x");
    cleanup(json_putp) json_object *p = json_make("path:s", "/users/admin");

    if (token)
        json_add_str(user, "token", token);
    json_add(p, "_user", json_object_get(user));
    return rig_call(g, gateway, method, json_text(p), r);
}

static const char *const acts[] = { "kernel/proc/list", "kernel/proc/spawn", "fs/list",
                                    "auth/users/list" };

static void refused_for(const char *what, const char *token)
{
    for (size_t i = 0; i < N_ELEMS(acts); i++) {
        struct ipc_reply r = { .fd = -1 };
        int err = call_for(token, acts[i], &r);

        if (err != ERR_AUTH && err != ERR_EXPIRED)
            fail_msg("%s with %s: %s", acts[i], what, err ? err_name(err) : "served");
        ipc_reply_done(&r);
    }
}

struct later {
    const char *token;
};
static bool not_served(void *arg)
{
    struct later *l = arg;
    struct ipc_reply r = { .fd = -1 };
    int err = call_for(l->token, "fs/list", &r);

    ipc_reply_done(&r);
    return err == ERR_AUTH || err == ERR_EXPIRED;
}

static void only_for_who_is_logged_in(void **state)
{
    struct ipc_reply r = { .fd = -1 };
    char *real = NULL, *guest = NULL;
    cleanup(freep) char *cap = atp_token("cap", "ATPToken", 0, 3600000),
                        *svc = atp_token("svc", "ATPToken", 0, 3600000),
                        *kind = atp_token("atp", "CapabilityToken", 0, 3600000),
                        *late = atp_token("atp", "ATPToken", 3601000, 3600000),
                        *capability = rig_token(g, "fs/list", NULL), *bent = NULL;

    (void)state;
    refused_for("no token", NULL);
    refused_for("an empty token", "");
    refused_for("nonsense", "a.b");
    refused_for("its own token", gateway);
    refused_for("a token of the wrong key", cap);
    refused_for("a token of its own kind of key", svc);
    refused_for("a token of another kind", kind);
    refused_for("a capability token", capability);
    refused_for("a token that expired a second ago", late);

    assert_int_equal(atp_login(g->port, "admin", g->api_key, &real), 0);
    assert_int_equal(call_for(real, "fs/list", &r), 0);
    ipc_reply_done(&r);
    bent = xstrdup(real);
    bent[strlen(bent) / 2] = bent[strlen(bent) / 2] == 'A' ? 'B' : 'A';
    refused_for("a changed token", bent);
    /* whose token it is decides, not what _user says */
    assert_int_equal(atp_login(g->port, "gina", GUEST_KEY, &guest), 0);
    assert_int_equal(call_for(guest, "auth/users/list", &r), ERR_PERM);
    ipc_reply_done(&r);
    /* gone with the logout */
    cleanup(freep) char *h = xasprintf("Authorization: Bearer %s\r\n", real);
    assert_int_equal(http_request(g->port, "POST", "/atp/auth/logout", h, "", NULL), 204);
    assert_true(rig_until(not_served, &(struct later){ real }));
    refused_for("a revoked token", real);
    free(real);
    free(guest);
}

static void no_tokens_and_no_secrets(void **state)
{
    static const struct {
        const char *method, *params;
    } tries[] = {
        { "auth/mint", "{\"pid\":100,\"agent\":\"researcher\",\"user\":\"admin\",\"hostPid\":1,"
                       "\"hostStart\":1,\"sessionId\":\"x\",\"granted\":[\"fs/read\"]}" },
        { "auth/renew", "{\"token\":\"x\"}" },
        { "auth/revoke", "{\"user\":\"admin\"}" },
        { "auth/secret/export", "{\"owner\":\"service:llm\"}" },
        { "kernel/secret/get", "{\"name\":\"x\"}" },
        { "init/kill", "{\"pid\":1}" },
        { "init/start-agent", "{}" },
        { "fs/read", "{\"path\":\"/users/admin/x\"}" },
        { "exec/run", "{\"code\":\"1\",\"runtime\":\"python\"}" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(tries); i++) {
        struct ipc_reply r = { .fd = -1 };
        int err = rig_call(g, gateway, tries[i].method, tries[i].params, &r);

        if (err != ERR_PERM && err != ERR_METHOD && err != ERR_AUTH && err != ERR_DENIED)
            fail_msg("%s: %s", tries[i].method, err ? err_name(err) : "served");
        ipc_reply_done(&r);
    }
}

#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)

static const char *unit; /* under test */

static void attach(struct inj *j)
{
    pid_t pid = rig_unit_pid(g, unit);

    assert_true(pid > 0);
    if (!inj_attach(j, pid))
        skip();
}

/* The call must not succeed; a unit that its filter killed is started again. */
static void refused_call(const char *what, long nr, long a, long b, long c, long d)
{
    struct inj j;
    pid_t pid = rig_unit_pid(g, unit);

    attach(&j);
    long r = inj_call(&j, nr, a, b, c, d, 0, 0);

    inj_detach(&j);
    if (r >= 0)
        fail_msg("%s: %s gave %ld", unit, what, r);
    if (r <= INJ_DEAD)
        for (int64_t end = mono_ms() + RIG_WAIT_MS; mono_ms() < end;) {
            pid_t now = rig_unit_pid(g, unit);

            if (now && now != pid)
                break;
        }
}

/* Opening for reading, or for writing: not there or not allowed. */
static void refused_open(const char *path, int flags)
{
    struct inj j;

    attach(&j);
    inj_put(&j, 0, path, strlen(path) + 1);
    long r = inj_call(&j, SYS_openat, AT_FDCWD, (long)j.room, flags, 0600, 0, 0);

    if (r >= 0)
        (void)inj_call(&j, SYS_close, r, 0, 0, 0, 0, 0);
    inj_detach(&j);
    if (r >= 0)
        fail_msg("%s opened %s", unit, path);
}

static void refused_exec(void)
{
    static const char prog[] = "/bin/true";
    struct inj j;
    pid_t pid = rig_unit_pid(g, unit);

    attach(&j);
    inj_put(&j, 0, prog, sizeof(prog));
    long r = inj_call(&j, SYS_execve, (long)j.room, 0, 0, 0, 0, 0);

    inj_detach(&j);
    if (r >= 0)
        fail_msg("%s ran a program", unit);
    if (r > INJ_DEAD)
        assert_int_equal(rig_unit_pid(g, unit), pid);
}

static void files_shut(void)
{
    static const char *const files[] = { "etc/auth.conf", "data/sessions.json", "logs/authsvc.log",
                                         "secrets", "data/users/admin" };
    char path[400];

    for (size_t i = 0; i < N_ELEMS(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", g->root, files[i]);
        refused_open(path, O_RDONLY);
    }
    snprintf(path, sizeof(path), "%s/authsvc/planted", g->run_dir);
    refused_open(path, O_WRONLY | O_CREAT);
    refused_open("/etc/avix-planted", O_WRONLY | O_CREAT);
}

static void processes_shut(void)
{
    pid_t authsvc = rig_unit_pid(g, "authsvc");

    refused_call("kill", SYS_kill, authsvc, 0, 0, 0);
    refused_call("kill of init", SYS_kill, g->init_pid, 0, 0, 0);
    refused_call("tgkill", SYS_tgkill, authsvc, authsvc, 0, 0);
    refused_call("pidfd_send_signal", SYS_pidfd_send_signal, 0, 0, 0, 0);
    refused_call("ptrace", SYS_ptrace, PTRACE_SEIZE, authsvc, 0, 0);
    refused_call("prlimit64", SYS_prlimit64, authsvc, 7, 0, 0);
    refused_call("process_vm_readv", SYS_process_vm_readv, authsvc, 0, 0, 0);
    refused_exec();
    assert_int_equal(rig_unit_pid(g, "authsvc"), authsvc);
}

static void taken_over(void **state)
{
    static const struct {
        const char *name;
        bool files; /* it has file rules */
    } units[] = { { "gateway", true }, { "llmsvc", false } };

    (void)state;
    if (!INJECT_POSSIBLE) {
        print_message("SKIPPED: this test needs root\n");
        return;
    }
    for (size_t i = 0; i < N_ELEMS(units); i++) {
        unit = units[i].name;
        if (units[i].files)
            files_shut();
        processes_shut();
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_for_who_is_logged_in),
        cmocka_unit_test(no_tokens_and_no_secrets),
#if defined(__x86_64__) && !defined(AVIX_SAN) && !defined(AVIX_COVERAGE)
        cmocka_unit_test(taken_over),
#endif
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
