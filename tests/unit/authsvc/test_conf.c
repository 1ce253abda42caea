/* auth.conf, users.yaml and crews.yaml: every rule, named with its line; and the policies they
 * give. */
#include "tests/unit/common/cm.h"

#include "authsvc/conf.h"
#include "authsvc/policy.h"
#include "authsvc/users.h"
#include "common/base/err.h"
#include "common/svc/toolgroup.h"

#define HEAD "apiVersion: avix/v1\nkind: AuthConfig\n"
#define S1                                      \
    "\"hmac-sha256:$s1$AAAAAAAAAAAAAAAAAAAAAA$" \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""
#define KEY "credential: {type: api_key, key_hash: " S1 "}"
#define HASH                                   \
    "argon2id:$argon2id$v=19$m=65536,t=3,p=4$" \
    "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ROOT "  - {name: root1, uid: 1000, role: admin, " KEY "}\n"

static struct auth_conf *good(const char *text)
{
    struct auth_conf *c = NULL;
    struct yaml_err e;

    if (auth_conf_parse(text, strlen(text), &c, &e))
        fail_msg("line %d: %s", e.line, e.msg);
    return c;
}

static void bad(const char *text, int line, const char *words)
{
    struct auth_conf *c = NULL;
    struct yaml_err e;

    assert_int_equal(auth_conf_parse(text, strlen(text), &c, &e), ERR_CONFIG);
    assert_null(c);
    if (e.line != line || !strstr(e.msg, words))
        fail_msg("%s\n-> line %d: %s", text, e.line, e.msg);
}

static void a_full_file(void **state)
{
    struct auth_conf *c = good(
        HEAD
        "policy: {session_ttl: 1h, session_max: 2d, require_tls: true,\n"
        "  failed_auth_lockout_count: 3, failed_auth_lockout_ttl: 1m, bind_api_keys: true,\n"
        "  token_refresh_window: 30s, password_min_length: 8, api_key_min_length: 40,\n"
        "  install_quota_per_hour: 2}\n"
        "identities:\n"
        "  - {name: alice, uid: 1001, role: admin, " KEY "}\n"
        "  - name: bob\n    uid: 1002\n    role: guest\n    locked: true\n"
        "    credential: {type: password, password_hash: \"" HASH "\",\n"
        "      ip_allowlist: [10.0.0.0/8, \"fd00::/8\", 192.168.1.7]}\n"
        "  - {name: c.d-e_f, uid: 1003, role: operator, credential: {type: password, hash: \"" HASH
        "\"}}\n");
    const struct identity *b = auth_conf_find(c, "bob");
    struct addr a;

    (void)state;
    assert_int_equal(c->n_ids, 3);
    assert_int_equal(c->policy.session_ttl_ms, 3600000);
    assert_int_equal(c->policy.session_max_ms, 172800000);
    assert_true(c->policy.require_tls && c->policy.bind_api_keys);
    assert_int_equal(c->policy.lockout_count, 3);
    assert_int_equal(c->policy.install_quota, 2);
    assert_int_equal(auth_conf_find(c, "alice")->role, ROLE_ADMIN);
    assert_int_equal(auth_conf_find(c, "c.d-e_f")->role, ROLE_OPERATOR);
    assert_null(auth_conf_find(c, "nobody"));
    assert_true(b->locked && b->type == CRED_PASSWORD && str_starts(b->password, "$argon2id$"));
    assert_true(addr_parse("10.1.2.3:999", &a) && identity_admits(b, &a));
    assert_true(addr_parse("[fd12::1]:999", &a) && identity_admits(b, &a));
    assert_true(addr_parse("192.168.1.7", &a) && identity_admits(b, &a));
    assert_true(addr_parse("192.168.1.8", &a) && !identity_admits(b, &a));
    assert_true(addr_parse("fe80::1", &a) && !identity_admits(b, &a));
    assert_false(identity_admits(b, NULL)); /* an unknown address is on no list */
    assert_true(identity_admits(auth_conf_find(c, "alice"), NULL));
    auth_conf_free(c);
    c = good(HEAD "identities:\n" ROOT);
    assert_int_equal(c->policy.session_ttl_ms, 8 * 3600000);
    assert_int_equal(c->policy.lockout_count, 5);
    assert_int_equal(c->policy.lockout_ttl_ms, 900000);
    assert_false(c->policy.require_tls);
    auth_conf_free(c);
}

static void wrong_files(void **state)
{
    (void)state;
    bad("", 0, "empty");
    bad("[]", 1, "object");
    bad("apiVersion: avix/v2\nkind: AuthConfig\nidentities: []\n", 1, "avix/v1");
    bad("apiVersion: avix/v1\nkind: Users\nidentities: []\n", 2, "AuthConfig");
    bad(HEAD, 1, "identities: missing");
    bad(HEAD "identities: []\n", 3, "admin");
    bad(HEAD "identities: []\nidentites: []\n", 4, "unknown key");
    bad(HEAD "policy: {session_tll: 8h}\nidentities:\n" ROOT, 3, "policy.session_tll: unknown key");
    bad(HEAD "policy:\n  session_ttl: soon\nidentities:\n" ROOT, 4, "policy.session_ttl");
    bad(HEAD "policy:\n  failed_auth_lockout_count: 0\nidentities:\n" ROOT, 4, "within");
    bad(HEAD "policy:\n  require_tls: \"yes\"\nidentities:\n" ROOT, 4, "true or false");
#define ID(row) HEAD "identities:\n" ROOT "  - " row "\n"
    bad(ID("{uid: 1001, role: user, " KEY "}"), 5, "identities[1].name: missing");
    bad(ID("{name: ../x, uid: 1001, role: user, " KEY "}"), 5, "identities[1].name");
    bad(ID("{name: .x, uid: 1001, role: user, " KEY "}"), 5, "identities[1].name");
    bad(ID("{name: \"a b\", uid: 1001, role: user, " KEY "}"), 5, "identities[1].name");
    bad(ID("{name: x, uid: 999, role: user, " KEY "}"), 5, "identities[1].uid");
    bad(ID("{name: x, uid: 0, role: user, " KEY "}"), 5, "identities[1].uid");
    bad(ID("{name: x, uid: 1001, role: root, " KEY "}"), 5, "guest user operator admin");
    bad(ID("{name: x, uid: 1001, " KEY "}"), 5, "role: missing");
    bad(ID("{name: x, uid: 1001, role: user}"), 5, "credential: missing");
    bad(ID("{name: x, uid: 1001, role: user, rank: 1, " KEY "}"), 5, "rank: unknown key");
    bad(ID("{name: root1, uid: 1001, role: user, " KEY "}"), 5, "one name");
    bad(ID("{name: x, uid: 1000, role: user, " KEY "}"), 5, "one uid");
#define CRED(c) ID("{name: x, uid: 1001, role: user, credential: {" c "}}")
    bad(CRED("type: none"), 5, "type");
    bad(CRED("type: ed25519"), 5, "api_key password");
    bad(CRED("key_hash: " S1), 5, "api_key or password");
    bad(CRED("type: api_key"), 5, "key_hash: missing");
    bad(CRED("type: api_key, key_hash: \"sha256:00\""), 5, "hmac-sha256");
    bad(CRED("type: api_key, key_hash: \"hmac-sha256:$s1$AAAA$BBBB\""), 5, "hmac-sha256");
    bad(CRED("type: api_key, key_hash: \"hmac-sha256:00ff\""), 5, "hmac-sha256");
    bad(CRED("type: password"), 5, "password_hash");
    bad(CRED("type: password, password_hash: plain"), 5, "argon2id");
    bad(CRED("type: password, password_hash: \"argon2id:$argon2id$v=19$m=4096,t=3,p=1$"
             "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""),
        5, "m=65536");
    bad(CRED("type: api_key, key_hash: " S1 ", ip_allowlist: [10.0.0.0/40]"), 5, "ip_allowlist");
    bad(CRED("type: api_key, key_hash: " S1 ", ip_allowlist: localhost"), 5, "array");
    bad(HEAD "identities:\n  - {name: x, uid: 1001, role: operator, " KEY "}\n", 4, "admin");
}

static void hashes_are_replaced_in_place(void **state)
{
    (void)state;
    cleanup(freep) char *out = auth_conf_replace("# note\na: OLD # x\n", "OLD", "NEW$1");
    assert_string_equal(out, "# note\na: NEW$1 # x\n");
    assert_null(auth_conf_replace("a: OLD\nb: OLD\n", "OLD", "NEW"));
    assert_null(auth_conf_replace("a: 1\n", "OLD", "NEW"));
}

/* --- users and crews -----------------------------------------------------------------------------
 */

#define UHEAD "apiVersion: avix/v1\nkind: Users\nmetadata: {lastUpdated: \"x\"}\nspec:\n  users:\n"
#define CHEAD "apiVersion: avix/v1\nkind: Crews\nspec:\n  crews:\n"

static const char conf_text[] =
    HEAD "identities:\n" ROOT "  - {name: alice, uid: 1001, role: user, " KEY "}\n"
         "  - {name: gina, uid: 1002, role: guest, " KEY "}\n"
         "  - {name: omar, uid: 1003, role: operator, " KEY "}\n";
static struct auth_conf *conf;

static int conf_setup(void **state)
{
    (void)state;
    conf = good(conf_text);
    return 0;
}

static int conf_teardown(void **state)
{
    (void)state;
    auth_conf_free(conf);
    return 0;
}

static struct directory *dir_of(const char *users, const char *crews)
{
    struct directory *d = NULL;
    struct yaml_err e;
    const char *file;

    if (directory_parse(users, crews, conf, &d, &file, &e))
        fail_msg("%s:%d: %s", file, e.line, e.msg);
    return d;
}

static void dir_bad(const char *users, const char *crews, const char *in, int line,
                    const char *words)
{
    struct directory *d = NULL;
    struct yaml_err e;
    const char *file;

    assert_int_equal(directory_parse(users, crews, conf, &d, &file, &e), ERR_CONFIG);
    if (!str_eq(file, in) || e.line != line || !strstr(e.msg, words))
        fail_msg("%s:%d: %s", file, e.line, e.msg);
}

static void wrong_users_and_crews(void **state)
{
    (void)state;
    dir_bad("apiVersion: avix/v1\nkind: Crews\nspec: {users: []}\n", NULL, "users.yaml", 1,
            "Users");
    dir_bad(UHEAD "    - {username: a, uid: 5}\n", NULL, "users.yaml", 6, "reserved");
    dir_bad(UHEAD "    - {username: a, uid: 1100, quota: {gold: 1}}\n", NULL, "users.yaml", 6,
            "quota");
    dir_bad(UHEAD "    - {username: a, uid: 1100, quota: {tokens: -1}}\n", NULL, "users.yaml", 6,
            "quota");
    dir_bad(UHEAD "    - {username: a, uid: 1100, tools: [fs/read]}\n", NULL, "users.yaml", 6,
            "[all]");
    dir_bad(UHEAD "    - {username: a, uid: 1100, nick: b}\n", NULL, "users.yaml", 6,
            "unknown key");
    dir_bad(UHEAD "    - {username: a, uid: 1100}\n    - {username: a, uid: 1101}\n", NULL,
            "users.yaml", 7, "unique");
    dir_bad(UHEAD "    - {username: alice, uid: 1100}\n", NULL, "users.yaml", 6,
            "auth.conf gives 'alice' the uid 1001");
    dir_bad(NULL, CHEAD "    - {name: lab}\n", "crews.yaml", 5, "cid: missing");
    dir_bad(NULL, CHEAD "    - {name: lab, cid: 1, members: [\"group:x\"]}\n", "crews.yaml", 5,
            "members");
    dir_bad(NULL, CHEAD "    - {name: lab, cid: 1, agentInheritance: all}\n", "crews.yaml", 5,
            "spawn explicit none");
    dir_bad(NULL, CHEAD "    - {name: lab, cid: 1}\n    - {name: pub, cid: 1}\n", "crews.yaml", 6,
            "unique");
}

static json_object *policy(const struct directory *d, const char *user, const char *agent)
{
    json_object *p = policy_of(conf, d, user, agent);

    assert_non_null(p);
    return p;
}

static void allows(const struct directory *d, const char *user, const char *agent, const char *yes,
                   const char *no)
{
    cleanup(json_putp) json_object *p = policy(d, user, agent);
    char tool[64];

    for (const char *w = yes; word_next(&w, tool, sizeof(tool));)
        if (!policy_permits(p, tool))
            fail_msg("%s may not %s: %s", user, tool, json_text(p));
    for (const char *w = no; word_next(&w, tool, sizeof(tool));)
        if (policy_permits(p, tool))
            fail_msg("%s may %s: %s", user, tool, json_text(p));
}

static void role_sets(void **state)
{
    struct directory *d = dir_of(NULL, NULL);

    (void)state;
    allows(d, "gina", NULL, "fs/read fs/search llm/complete",
           "fs/write exec/run kernel/proc/list auth/users/get web/search");
    allows(d, "alice", NULL, "fs/write exec/run web/search agent/spawn mcp/x/y",
           "kernel/proc/list auth/users/list secret/get init/list exec/network kernel/ipc/list");
    allows(
        d, "omar", NULL,
        "fs/write kernel/proc/kill kernel/signal/send kernel/ipc/list kernel/ipc/health",
        "kernel/ipc/deregister kernel/sys/shutdown auth/users/list exec/network kernel/cap/issue");
    allows(d, "root1", NULL, "kernel/sys/shutdown auth/users/list exec/network anything/else", "");
    assert_null(policy_of(conf, d, "nobody", NULL));
    directory_free(d);
}

static void additions_and_denials(void **state)
{
    struct directory *d = dir_of(
        UHEAD
        "    - {username: alice, uid: 1001, additionalTools: [kernel/proc/list, \"exec:network\","
        " \"kernel/ipc/*\"], deniedTools: [\"fs/delete\", kernel/ipc/deregister, \"web/*\"]}\n"
        "    - {username: gina, uid: 1002, additionalTools: [web/search], deniedTools: [\"fs/*\"]}\n"
        "    - {username: sys, uid: 0, tools: [all]}\n"
        "    - {username: cron, uid: 1200}\n",
        NULL);

    (void)state;
    allows(d, "alice", NULL, "fs/read kernel/proc/list exec/network kernel/ipc/list",
           "fs/delete kernel/proc/kill kernel/ipc/deregister web/search auth/mint");
    allows(d, "gina", NULL, "llm/complete web/search", "fs/read web/fetch");
    allows(d, "sys", NULL, "kernel/sys/shutdown", "");
    allows(d, "cron", NULL, "fs/write", "kernel/proc/list"); /* a user without a login */
    cleanup(json_putp) json_object *p = policy(d, "sys", NULL);
    assert_true(json_flag(p, "all", false));
    directory_free(d);
}

static void crews_give_and_take(void **state)
{
    struct directory *d = dir_of(
        UHEAD
        "    - {username: alice, uid: 1001, crews: [ops, ghost], additionalTools: [web/fetch]}\n",
        CHEAD "    - {name: lab, cid: 1001, members: [\"user:gina\", \"agent:researcher\"],\n"
              "       allowedTools: [\"fs:write\", \"lab/*\"], deniedTools: [fs/delete]}\n"
              "    - {name: ops, cid: 1002, members: [], agentInheritance: none,"
              " allowedTools: [\"kernel:proc\"]}\n"
              "    - {name: picked, cid: 1003, members: [alice, \"agent:researcher\"],"
              " agentInheritance: explicit, allowedTools: [picked/x]}\n"
              "    - {name: everyone, cid: 1004, members: [\"*\"], deniedTools: [bad/tool]}\n");

    (void)state;
    /* a crew that lists tools replaces the role set */
    allows(d, "gina", NULL, "fs/write lab/one lab/two", "fs/delete llm/complete bad/tool");
    allows(d, "alice", NULL, "kernel/proc/kill picked/x web/fetch",
           "fs/read bad/tool kernel/sys/info");
    cleanup(json_putp) json_object *crews = directory_crews_of(d, "alice", NULL);
    assert_string_equal(json_text(crews), "[\"ops\",\"picked\",\"everyone\"]");
    /* ops is not inherited, picked only by the agent it names, lab names that agent too */
    allows(d, "alice", "researcher", "picked/x lab/one fs/write", "kernel/proc/kill fs/delete");
    allows(d, "alice", "coder", "fs/write exec/run web/fetch", "kernel/proc/kill bad/tool");
    cleanup(json_putp) json_object *p = policy(d, "alice", "coder");
    assert_string_equal(json_text(json_arr(p, "crews")), "[\"everyone\"]");
    directory_free(d);
}

static void policy_rows(void **state)
{
    struct directory *d =
        dir_of(UHEAD "    - {username: alice, uid: 1001, weight: 2.5,"
                     " quota: {tokens: 500000, usd: 1.5, storageMb: unlimited}}\n",
               NULL);
    cleanup(json_putp) json_object *p = policy(d, "alice", NULL), *g = policy(d, "gina", NULL);

    (void)state;
    assert_int_equal(json_int(p, "uid", 0), 1001);
    assert_string_equal(json_str(p, "role", ""), "user");
    assert_true(json_num(p, "weight", 0) == 2.5);
    assert_int_equal(json_int(p, "install_quota_per_hour", 0), 10);
    assert_string_equal(json_text(json_obj(p, "quota")),
                        "{\"tokens\":500000,\"agents\":\"unlimited\",\"sessions\":\"unlimited\","
                        "\"usd\":1.5,\"storageMb\":\"unlimited\",\"files\":1000000}");
    assert_int_equal(json_int(json_obj(g, "quota"), "storageMb", 0), 10240);
    directory_free(d);
}

static void patterns_of_requests(void **state)
{
    static const struct {
        const char *request, *patterns;
    } rows[] = {
        { "a/b/c", "[\"a/b/c\"]" },
        { "a/b/*", "[\"a/b/*\"]" },
        { "a/**", "[\"a/*\"]" },
        { "*", "[\"*\"]" },
        { "exec:python", "[\"exec/python\",\"exec/runtimes\"]" },
        { "github:list", "[\"github/list*\",\"kernel/github/list*\"]" },
        { "web:*", "[\"web/*\"]" },
        { "web", "[\"web/*\"]" },
        { "kernel:sys", "[\"kernel/sys/info\",\"kernel/sys/boot-log\",\"kernel/sys/reload\","
                        "\"kernel/sys/reboot\",\"kernel/sys/shutdown\"]" },
        { "", "[]" },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        cleanup(json_putp) json_object *out = json_new_arr();

        tool_patterns(rows[i].request, out);
        assert_string_equal(json_text(out), rows[i].patterns);
    }
    cleanup(json_putp) json_object *all = json_new_arr();
    tool_patterns("kernel:root", all);
    assert_int_equal(json_object_array_length(all), 32);
    assert_false(policy_permits(NULL, "fs/read"));
    assert_true(tool_glob("a/*", "a/b/c") && tool_glob("a/**", "a/b/c") && tool_glob("*", "x/y"));
    assert_true(tool_glob("a/li*", "a/list") && tool_glob("a/b", "a/b"));
    assert_false(tool_glob("a/*", "a/") || tool_glob("a/b", "a/bc") || tool_glob("", "a/b"));
    cleanup(json_putp) json_object *none = json_make("all:b allowed:o", 0, json_new_arr());
    assert_false(policy_permits(none, "fs/read"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_file),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(hashes_are_replaced_in_place),
        cmocka_unit_test(wrong_users_and_crews),
        cmocka_unit_test(role_sets),
        cmocka_unit_test(additions_and_denials),
        cmocka_unit_test(crews_give_and_take),
        cmocka_unit_test(policy_rows),
        cmocka_unit_test(patterns_of_requests),
    };

    return cmocka_run_group_tests(tests, conf_setup, conf_teardown);
}
