/*
 * authsvc in a running suite: logins, lockout, sessions, capability tokens, revocation, reload, and
 * each of them across kill -9. The gateway and the kernel are the only ones who may ask; this
 * process asks in their names, with service tokens made from the root's key.
 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <argon2.h>
#include <errno.h>
#include <openssl/evp.h>
#include <signal.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/ipc/client.h"
#include "common/ipc/peer.h"
#include "common/svc/token.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define LEGACY_KEY  "sk-avix-test-key-123"
#define LEGACY_HASH "9394da9899820693ae998c4686bf3d0ba8b5a96839c9efe5a822b6949f960a69"
#define PASSWORD    "correct horse battery"

static struct rig *g;
static char *gateway, *kernel, *memfs; /* service tokens of this process */
static struct ipc_reply r = { .fd = -1 };

static void add_provider(struct rig *x);

/* More identities, behind the admin that config init made. */
static void add_identities(struct rig *x)
{
    cleanup(freep) char *text = rig_read(x, "etc/auth.conf");
    char hash[160];
    struct buf b = BUF_INIT(1 << 20);

    assert_int_equal(argon2id_hash_encoded(3, 65536, 4, PASSWORD, strlen(PASSWORD),
                                           "0123456789abcdef", 16, 32, hash, sizeof(hash)),
                     0);
    buf_adds(&b, text);
    for (int i = 0; i < 3;
         i++) /* three users of one password, for tests that lock each other out */
        buf_printf(&b,
                   "  - {name: pat%d, uid: %d, role: user, credential: {type: password, "
                   "password_hash: \"argon2id:%s\"}}\n",
                   i, 1100 + i, hash);
    buf_printf(&b,
               "  - {name: gina, uid: 1200, role: guest, credential: {type: api_key, key_hash: "
               "\"hmac-sha256:%s\"}}\n",
               LEGACY_HASH);
    buf_printf(&b,
               "  - {name: far, uid: 1201, role: user, credential: {type: password, "
               "password_hash: \"%s\", ip_allowlist: [10.0.0.0/8]}}\n"
               "  - {name: shut, uid: 1202, role: user, locked: true, credential: {type: password, "
               "hash: \"%s\"}}\n",
               hash, hash);
    rig_write(x, "etc/auth.conf", b.data);
    buf_done(&b);
    rig_write(x, "etc/crews.yaml",
              "apiVersion: avix/v1\nkind: Crews\nspec:\n  crews:\n"
              "    - {name: lab, cid: 1001, members: [\"user:pat0\"], deniedTools: [fs/delete]}\n");
    add_provider(x);
}

/* A secret of llmsvc as the services page says it is written, and a provider that needs it. */
static void add_secret(struct rig *x, const char *owner, const char *name, const char *file)
{
    uint8_t master[32], key[32], sum[32], kid[35] = { 'k', 'i', 'd' }, nonce[12], out[64];
    char hex[65], n64[32], c64[128], aad[128], line[256];
    static const char value[] = "sk-of-the-provider";
    EVP_CIPHER_CTX *e = EVP_CIPHER_CTX_new();
    int n;

    assert_true(hex_decode(RIG_MASTER_KEY, 64, master));
    key_derive(master, 32, "secret", key);
    memcpy(kid + 3, key, 32);
    sha256(kid, sizeof(kid), sum);
    hex_encode(sum, 4, hex);
    rnd_bytes(nonce, sizeof(nonce));
    snprintf(aad, sizeof(aad), "avix-secret-v1|%s|%s|%s", owner, name, hex);
    assert_true(EVP_EncryptInit_ex(e, EVP_aes_256_gcm(), NULL, key, nonce) &&
                EVP_EncryptUpdate(e, NULL, &n, (uint8_t *)aad, (int)strlen(aad)) &&
                EVP_EncryptUpdate(e, out, &n, (const uint8_t *)value, sizeof(value) - 1) &&
                EVP_EncryptFinal_ex(e, out + n, &n) &&
                EVP_CIPHER_CTX_ctrl(e, EVP_CTRL_GCM_GET_TAG, 16, out + sizeof(value) - 1));
    EVP_CIPHER_CTX_free(e);
    b64url_encode(nonce, sizeof(nonce), n64);
    b64url_encode(out, sizeof(value) - 1 + 16, c64);
    snprintf(line, sizeof(line), "v1.%s.%s.%s\n", hex, n64, c64);
    rig_write(x, file, line);
}

static void add_provider(struct rig *x)
{
    add_secret(x, "service:llm", "RIG_KEY", "secrets/service/llm/RIG_KEY.enc");
    add_secret(x, "service:llm", "RIG_KEY", "secrets/service/llm/OTHER.enc"); /* copied */
    rig_write(x, "etc/llm.yaml",
              "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n"
              "  defaultProviders: {text: builtin, embedding: builtin}\n"
              "  providers:\n"
              "    - name: one\n      kind: openai\n      baseUrl: http://127.0.0.1:9/v1\n"
              "      modalities: [text]\n      auth: {type: api_key, secretName: RIG_KEY}\n"
              "    - name: two\n      kind: openai\n      baseUrl: http://127.0.0.1:9/v1\n"
              "      modalities: [text]\n      auth: {type: api_key, secretName: OTHER}\n"
              "    - name: builtin\n      kind: builtin\n      modalities: [text, embedding]\n"
              "      auth: {type: none}\n");
}

static char *svc_token(const char *unit)
{
    char id[UUID_LEN], now[RFC3339_LEN];

    return rig_sign("svc", json_make("kind:s tokenId:s unit:s version:s hostPid:i hostStart:i ns:o "
                                     "grants:o issuedAt:s",
                                     "ServiceToken", uuid4(id), unit, "1.0.0", (int64_t)getpid(),
                                     (int64_t)proc_start_time(getpid()), json_new_arr(),
                                     json_new_arr(), rfc3339(now_ms(), now)));
}

static int setup(void **state)
{
    const struct rig_opts o = { .before = add_identities };

    (void)state;
    g = rig_new(&o);
    gateway = svc_token("gateway");
    kernel = svc_token("kernel");
    memfs = svc_token("memfs");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(gateway);
    free(kernel);
    free(memfs);
    rig_stop(g);
    return 0;
}

static int done(void **state)
{
    (void)state;
    ipc_reply_done(&r);
    r = (struct ipc_reply){ .fd = -1 };
    return 0;
}

/* One call; the reply stays in r. params: a format. */
static int call(const char *token, const char *method, const char *fmt, ...) printf_like(3, 4);
static int call(const char *token, const char *method, const char *fmt, ...)
{
    char params[8192];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(params, sizeof(params), fmt, ap);
    va_end(ap);
    done(NULL);
    return rig_call(g, token, method, params, &r);
}

static int login_from(const char *identity, const char *credential, const char *remote)
{
    return call(gateway, "auth/login",
                "{\"identity\":\"%s\",\"credential\":\"%s\",\"remote\":\"%s\"}", identity,
                credential, remote);
}

/* A token of a login that must succeed; yours. */
static char *token_of(const char *identity, const char *credential)
{
    if (login_from(identity, credential, "127.0.0.1:5"))
        fail_msg("%s: %s", identity, r.error.message);
    return xstrdup(json_str(r.result, "token", ""));
}

static const char *text(const char *key)
{
    return json_str(r.result, key, "");
}

static bool valid(const char *token)
{
    assert_int_equal(call(gateway, "auth/validate", "{\"token\":\"%s\"}", token), 0);
    return json_flag(r.result, "valid", false);
}

/* Right after a unit came back, and until a push arrives, a look is repeated. */
struct refused {
    const char *token, *method;
};
static bool is_refused(void *arg)
{
    struct refused *x = arg;

    return call(x->token, x->method, "{\"path\":\"/tools\"}") == ERR_AUTH;
}

/* --- login
 * ---------------------------------------------------------------------------------------- */

static void right_credentials(void **state)
{
    (void)state;
    assert_int_equal(login_from("admin", g->api_key, "127.0.0.1:1"), 0);
    assert_string_equal(text("identity"), "admin");
    assert_string_equal(text("role"), "admin");
    assert_true(uuid_valid(text("sessionId")));
    int64_t at;
    assert_true(rfc3339_parse(text("expiresAt"), &at));
    assert_true(at > now_ms() + 7 * 3600000 && at < now_ms() + 9 * 3600000);
    assert_int_equal(login_from("", g->api_key, "127.0.0.1:1"), 0); /* the key names its owner */
    assert_string_equal(text("identity"), "admin");
    assert_int_equal(login_from("pat0", PASSWORD, "10.1.1.1"), 0);
    assert_string_equal(json_text(json_arr(r.result, "crews")), "[\"lab\"]");
    assert_int_equal(login_from("far", PASSWORD, "10.9.9.9:77"), 0);
    char *token = NULL;
    assert_int_equal(atp_login(g->port, "admin", g->api_key, &token), 0); /* and through HTTP */
    assert_true(valid(token));
    free(token);
}

static void every_refusal_is_the_same(void **state)
{
    static const struct {
        const char *identity, *credential, *remote;
    } rows[] = {
        { "nobody", "x", "10.2.0.1" },     { "admin", "x", "10.2.0.2" },
        { "pat0", "x", "10.2.0.3" },       { "shut", PASSWORD, "10.2.0.4" },
        { "far", PASSWORD, "127.0.0.1" },  { "", "sk-avix-nobodys-key-nobodys-key-1", "10.2.0.6" },
        { "admin", PASSWORD, "10.2.0.7" }, { "pat0", "", "10.2.0.8" },
    };
    int64_t least = INT64_MAX, most = 0;

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        int64_t t = mono_us();

        assert_int_equal(login_from(rows[i].identity, rows[i].credential, rows[i].remote),
                         ERR_DENIED);
        t = mono_us() - t;
        assert_string_equal(r.error.message, "invalid credential");
        assert_string_equal(rpc_error_reason(&r.error), "invalid credential");
        least = t < least ? t : least;
        most = t > most ? t : most;
    }
#ifndef AVIX_SAN
    /* each cost one argon2id: none is an order faster than another */
    if (most > least * 8)
        fail_msg("%lld to %lld us", (long long)least, (long long)most);
    assert_true(least > 10000);
#endif
    assert_int_equal(call(gateway, "auth/login", "{\"identity\":\"a\"}"), ERR_INVAL);
    assert_int_equal(login_from("admin", g->api_key, "127.0.0.1"), 0);
}

static void only_the_gateway_logs_in(void **state)
{
    (void)state;
    assert_int_equal(call(kernel, "auth/login",
                          "{\"identity\":\"admin\",\"credential\":\"%s\",\"remote\":\"::1\"}",
                          g->api_key),
                     ERR_PERM);
    cleanup(freep) char *agent = rig_token(g, "auth/login auth/mint", NULL);
    assert_int_equal(call(agent, "auth/login", "{}"), ERR_METHOD); /* not visible to agents */
    assert_int_equal(call(agent, "auth/mint", "{}"), ERR_METHOD);
}

static void older_hash_is_rewritten(void **state)
{
    (void)state;
    free(token_of("gina", LEGACY_KEY));
    for (int i = 0; i < 400; i++) {
        cleanup(freep) char *conf = rig_read(g, "etc/auth.conf");

        if (!strstr(conf, LEGACY_HASH))
            break;
        assert_true(i < 399);
        free(token_of("gina", LEGACY_KEY)); /* until the file is written */
    }
    rig_kill_unit(g, "authsvc");
    free(token_of("gina", LEGACY_KEY));
    assert_int_equal(login_from("gina", "sk-avix-test-key-124", "10.3.0.1"), ERR_DENIED);
}

static void five_failures_lock(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(login_from("pat1", "wrong", "10.4.0.1"), ERR_DENIED);
    assert_int_equal(login_from("pat1", PASSWORD, "10.4.0.1"), ERR_LIMIT); /* the right one too */
    int64_t wait = json_int(r.error.data, "retry_after_ms", 0);
    assert_true(wait > 14 * 60000 && wait <= 15 * 60000);
    assert_int_equal(login_from("admin", g->api_key, "10.4.0.1"), ERR_LIMIT); /* the address */
    assert_int_equal(login_from("pat1", PASSWORD, "10.4.0.2"), 0);
    rig_kill_unit(g, "authsvc");
    assert_int_equal(login_from("pat1", PASSWORD, "10.4.0.1"), ERR_LIMIT);
    assert_int_equal(login_from("pat1", PASSWORD, "10.4.0.3"), 0);
}

/* --- sessions
 * ------------------------------------------------------------------------------------- */

static void refresh_and_logout(void **state)
{
    cleanup(freep) char *a = token_of("admin", g->api_key);

    (void)state;
    cleanup(freep) char *sid = xstrdup(text("sessionId"));
    rig_kill_unit(g, "authsvc");
    assert_int_equal(call(gateway, "auth/refresh", "{\"token\":\"%s\"}", a), 0);
    cleanup(freep) char *b = xstrdup(text("token"));
    assert_string_equal(text("sessionId"), sid);
    assert_string_not_equal(a, b);
    assert_true(valid(a) && valid(b));
    assert_string_equal(text("sub"), "admin");
    assert_int_equal(call(gateway, "auth/sessions", "{\"username\":\"admin\"}"), 0);
    assert_non_null(strstr(json_text(r.result), sid));
    rig_kill_unit(g, "authsvc");
    assert_int_equal(call(gateway, "auth/logout", "{\"token\":\"%s\"}", b), 0);
    rig_kill_unit(g, "authsvc");
    assert_false(valid(a)); /* the session is gone, with every token of it */
    assert_string_equal(text("reason"), "revoked");
    assert_int_equal(call(gateway, "auth/refresh", "{\"token\":\"%s\"}", b), ERR_DENIED);
    assert_string_equal(rpc_error_reason(&r.error), "revoked");
    assert_int_equal(call(gateway, "auth/logout", "{\"token\":\"%s\"}", b), ERR_DENIED);
    assert_int_equal(call(gateway, "auth/refresh", "{\"token\":\"garbage\"}"), ERR_DENIED);
    cleanup(freep) char *forged =
        rig_sign("cap", json_make("kind:s sub:s sessionId:s expiresAt:s", "ATPToken", "admin", sid,
                                  "2999-01-01T00:00:00Z"));
    assert_false(valid(forged)); /* another key */
}

/* A call on behalf of a user, as the gateway makes it. more: further members of params, or "". */
static int as_user(const char *token, const char *method, const char *more)
{
    return call(gateway, method, "{\"_user\":{\"token\":\"%s\"}%s%s}", token, *more ? "," : "",
                more);
}

static void sessions_are_ones_own(void **state)
{
    cleanup(freep) char *pat = token_of("pat2", PASSWORD), *sid = xstrdup(text("sessionId"));
    cleanup(freep) char *pat_too = token_of("pat2", PASSWORD),
                        *sid_too = xstrdup(text("sessionId"));
    cleanup(freep) char *admin = token_of("admin", g->api_key), *boss = xstrdup(text("sessionId"));
    char more[128];

    (void)state;
    assert_int_equal(as_user(pat, "auth/sessions", ""), 0);
    assert_int_equal(json_object_array_length(r.result), 2);
    assert_string_equal(json_str(json_object_array_get_idx(r.result, 0), "identity", ""), "pat2");
    assert_int_equal(as_user(pat, "auth/sessions", "\"username\":\"admin\""), ERR_PERM);
    assert_int_equal(as_user(admin, "auth/sessions", "\"username\":\"pat2\""), 0);
    assert_int_equal(json_object_array_length(r.result), 2);
    snprintf(more, sizeof(more), "\"session_id\":\"%s\"", boss);
    assert_int_equal(as_user(pat, "auth/kick", more), ERR_NOTFOUND); /* not even that it exists */
    snprintf(more, sizeof(more), "\"session_id\":\"%s\"", sid_too);
    assert_int_equal(as_user(pat, "auth/kick", more), 0);
    assert_int_equal(json_int(r.result, "kicked", 0), 1);
    assert_false(valid(pat_too));
    snprintf(more, sizeof(more), "\"sessionId\":\"%s\"", sid);
    assert_int_equal(as_user(admin, "auth/kick", more), 0);
    assert_false(valid(pat));
    cleanup(freep) char *a = token_of("pat2", PASSWORD), *b = token_of("pat2", PASSWORD);
    assert_int_equal(call(gateway, "auth/logout", "{\"token\":\"%s\",\"all\":true}", a), 0);
    assert_false(valid(a) || valid(b));
}

static void a_logout_reaches_the_router(void **state)
{
    cleanup(freep) char *pat = token_of("pat2", PASSWORD);

    (void)state;
    assert_int_equal(as_user(pat, "fs/list", "\"path\":\"/users/pat2\""), ERR_NOENT);
    assert_int_equal(call(gateway, "auth/logout", "{\"token\":\"%s\"}", pat), 0);
    for (int i = 0; as_user(pat, "fs/list", "\"path\":\"/users/pat2\"") != ERR_AUTH; i++)
        assert_true(i < 2000);
}

/* --- capability tokens
 * ---------------------------------------------------------------------------- */

static int mint(const char *user, int pid, const char *granted, const char *more)
{
    return call(kernel, "auth/mint",
                "{\"pid\":%d,\"hostPid\":%d,\"hostStart\":%lld,\"agent\":\"test\",\"user\":\"%s\","
                "\"sessionId\":\"s-1\",\"granted\":[%s],"
                "\"constraints\":{},\"budgets\":{}%s}",
                pid, (int)getpid(), (long long)proc_start_time(getpid()), user, granted, more);
}

static int use(const char *token)
{
    return call(token, "fs/exists", "{\"path\":\"/tools\"}");
}

static void minted_tokens_work(void **state)
{
    (void)state;
    assert_int_equal(mint("admin", 701, "\"fs/exists\"", ""), 0);
    cleanup(freep) char *token = xstrdup(text("token")), *id = xstrdup(text("tokenId"));
    int64_t at;
    assert_true(rfc3339_parse(text("expiresAt"), &at) && at > now_ms() + 3500000);
    assert_int_equal(use(token), 0);
    assert_int_equal(call(token, "fs/read", "{\"path\":\"/x\"}"), ERR_PERM);
    assert_int_equal(call(kernel, "auth/validate", "{\"tokenId\":\"%s\"}", id), 0);
    assert_true(json_flag(r.result, "valid", false) && json_int(r.result, "pid", 0) == 701);
    /* an empty grant list grants nothing */
    assert_int_equal(mint("admin", 702, "", ""), 0);
    cleanup(freep) char *empty = xstrdup(text("token"));
    assert_int_equal(use(empty), ERR_PERM);
    assert_int_equal(mint("admin", 703, "\"fs/exists\"", ",\"ttl\":1"), 0);
    cleanup(freep) char *brief = xstrdup(text("token"));
    for (int i = 0; use(brief) == 0; i++)
        assert_true(i < 100000);
    assert_true(r.err == ERR_EXPIRED || r.err == ERR_AUTH);
}

static void nothing_beyond_the_policy(void **state)
{
    static const struct {
        const char *user, *granted;
        int err;
    } rows[] = {
        { "pat0", "\"fs/read\",\"agent/spawn\"", 0 },
        { "pat0", "\"fs/delete\"", ERR_PERM }, /* his crew denies it */
        { "pat0", "\"kernel/proc/list\"", ERR_PERM },
        { "pat0", "\"fs/read\",\"auth/users/list\"", ERR_PERM },
        { "pat1", "\"fs/delete\"", 0 },
        { "gina", "\"fs/read\"", 0 },
        { "gina", "\"fs/write\"", ERR_PERM },
        { "admin", "\"kernel/sys/shutdown\"", 0 },
        { "admin", "\"fs/*\"", ERR_PERM }, /* names, never patterns */
        { "admin", "\"*\"", ERR_PERM },
        { "shut", "\"fs/read\"", ERR_PERM },
        { "nobody", "\"fs/read\"", ERR_NOTFOUND },
        { "admin", "7", ERR_INVAL },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++)
        if (mint(rows[i].user, 710, rows[i].granted, "") != rows[i].err)
            fail_msg("%s %s: %d %s", rows[i].user, rows[i].granted, r.err, r.error.message);
    assert_int_equal(mint("admin", 710, "", ",\"runtime\":[\"llm/models\"]"), 0);
    assert_int_equal(mint("admin", 710, "", ",\"runtime\":[\"fs/write\"]"), ERR_PERM);
    assert_int_equal(call(gateway, "auth/mint", "{}"), ERR_PERM); /* the kernel alone */
    assert_int_equal(call(gateway, "auth/renew", "{}"), ERR_PERM);
    assert_int_equal(call(gateway, "auth/revoke", "{\"pid\":1}"), ERR_PERM);
    assert_int_equal(call(kernel, "auth/mint", "{}"), ERR_INVAL);
    assert_int_equal(call(kernel, "auth/revoke", "{}"), ERR_INVAL);
}

static void renewal_keeps_the_binding(void **state)
{
    (void)state;
    assert_int_equal(mint("pat1", 720, "\"fs/exists\"", ",\"lineage\":\"line-1\",\"ttl\":600"), 0);
    cleanup(freep) char *old = xstrdup(text("token")), *id = xstrdup(text("tokenId"));
    cleanup(freep) char *expires = xstrdup(text("expiresAt"));
    rig_kill_unit(g, "authsvc"); /* it knows the token all the same */
    assert_int_equal(call(kernel, "auth/renew",
                          "{\"tokenId\":\"%s\",\"granted\":[\"fs/exists\",\"fs/stat\"],"
                          "\"extend\":false}",
                          id),
                     0);
    assert_string_equal(text("expiresAt"), expires);
    assert_string_not_equal(text("tokenId"), id);
    cleanup(freep) char *wide = xstrdup(text("token")), *wide_id = xstrdup(text("tokenId"));
    assert_int_equal(use(old), 0); /* lives out its time */
    assert_int_equal(call(wide, "fs/stat", "{\"path\":\"/tools\"}"), 0);
    assert_int_equal(call(kernel, "auth/renew", "{\"tokenId\":\"%s\",\"granted\":[]}", wide_id), 0);
    assert_string_not_equal(text("expiresAt"), expires);
    assert_int_equal(
        call(kernel, "auth/renew", "{\"tokenId\":\"%s\",\"granted\":[\"kernel/proc/list\"]}", id),
        ERR_PERM);
    assert_int_equal(call(kernel, "auth/renew", "{\"tokenId\":\"none\",\"granted\":[]}"),
                     ERR_NOTFOUND);
    /* a new process of this PID: what was minted before is taken back */
    assert_int_equal(mint("pat1", 720, "\"fs/exists\"", ""), 0);
    struct refused x = { old, "fs/exists" };
    assert_true(rig_until(is_refused, &x));
    x.token = wide;
    assert_true(rig_until(is_refused, &x));
}

static void revoked_stays_revoked(void **state)
{
    (void)state;
    assert_int_equal(mint("pat1", 730, "\"fs/exists\"", ""), 0);
    cleanup(freep) char *a = xstrdup(text("token")), *id = xstrdup(text("tokenId"));
    assert_int_equal(mint("pat1", 731, "\"fs/exists\"", ""), 0);
    cleanup(freep) char *b = xstrdup(text("token"));
    assert_int_equal(use(a), 0);
    assert_int_equal(call(kernel, "auth/revoke", "{\"tokenId\":\"%s\"}", id), 0);
    assert_int_equal(json_int(r.result, "revoked", 0), 1);
    assert_int_equal(call(kernel, "auth/revoke", "{\"tokenId\":\"%s\"}", id), 0); /* idempotent */
    assert_int_equal(json_int(r.result, "revoked", 9), 0);
    struct refused x = { a, "fs/exists" };
    assert_true(rig_until(is_refused, &x));
    assert_int_equal(use(b), 0); /* another PID's */
    rig_kill_unit(g, "authsvc");
    rig_kill_unit(g, "router");
    assert_int_equal(use(a), ERR_AUTH); /* never let in before the set was fetched */
    assert_int_equal(use(b), 0);
    assert_int_equal(call(kernel, "auth/revoke", "{\"pid\":731}"), 0);
    assert_int_equal(json_int(r.result, "revoked", 0), 1);
    x.token = b;
    assert_true(rig_until(is_refused, &x));
    assert_int_equal(call(kernel, "auth/revoked", "{}"), 0);
    assert_true(json_arr_has(json_arr(r.result, "tokens"), id));
    int64_t version = json_int(r.result, "version", 0);
    assert_int_equal(call(kernel, "auth/revoked", "{\"since\":%lld}", (long long)version), 0);
    assert_int_equal(json_object_array_length(json_arr(r.result, "tokens")), 0);
    assert_int_equal(call(kernel, "auth/renew", "{\"tokenId\":\"%s\",\"granted\":[]}", id),
                     ERR_NOTFOUND);
}

/* --- policy, users, crews, secrets, metrics
 * --------------------------------------------------------- */

static void policies(void **state)
{
    (void)state;
    assert_int_equal(call(memfs, "auth/policy", "{\"user\":\"pat0\",\"agent\":\"x\"}"), 0);
    assert_int_equal(json_int(r.result, "uid", 0), 1100);
    assert_string_equal(json_text(json_arr(r.result, "crews")), "[\"lab\"]");
    assert_int_equal(call(memfs, "auth/policy", "{\"user\":\"nobody\"}"), ERR_NOTFOUND);
    assert_int_equal(call(memfs, "auth/policy", "{\"user\":\"shut\"}"), ERR_PERM);
    assert_int_equal(call(memfs, "auth/policy", "{}"), ERR_INVAL);
    assert_int_equal(call(memfs, "auth/revoked", "{}"), ERR_PERM); /* not in its grants */
    assert_int_equal(call(gateway, "auth/metrics", "{}"), 0);
    assert_non_null(strstr(text("text"), "\navix_auth_logins_total "));
}

static void users_and_crews(void **state)
{
    cleanup(freep) char *pat = token_of("pat0", PASSWORD), *admin = token_of("admin", g->api_key);

    (void)state;
    assert_int_equal(as_user(pat, "auth/users/get", ""), 0);
    assert_string_equal(text("username"), "pat0");
    assert_string_equal(text("credentialType"), "password");
    assert_null(strstr(json_text(r.result), "argon2"));
    assert_int_equal(as_user(pat, "auth/users/get", "\"username\":\"admin\""), ERR_PERM);
    assert_int_equal(as_user(pat, "auth/users/list", ""), ERR_PERM);
    assert_int_equal(as_user(admin, "auth/users/list", ""), 0);
    assert_int_equal(json_object_array_length(json_arr(r.result, "users")), 7);
    assert_int_equal(as_user(admin, "auth/users/get", "\"username\":\"far\""), 0);
    assert_string_equal(json_text(json_arr(r.result, "ip_allowlist")), "[\"10.0.0.0/8\"]");
    assert_int_equal(as_user(admin, "auth/users/get", "\"username\":\"zz\""), ERR_NOTFOUND);
    assert_int_equal(as_user(pat, "auth/crews/list", ""), 0);
    assert_int_equal(json_object_array_length(json_arr(r.result, "crews")), 1);
    assert_int_equal(as_user(pat, "auth/crews/get", "\"name\":\"lab\""), 0);
    assert_int_equal(json_int(r.result, "cid", 0), 1001);
    assert_int_equal(as_user(pat, "auth/crews/get", "\"name\":\"zz\""), ERR_NOTFOUND);
}

static void secrets_are_for_main_processes(void **state)
{
    struct ipc_req q = { .sock = rig_sock(g, "auth.sock"), .method = "auth/secret/export" };
    cleanup(json_putp) json_object *p = json_make("owner:s", "service:llm");

    (void)state;
    done(NULL);
    q.params = p;
    assert_int_equal(ipc_call(&q, &r), ERR_PERM); /* straight, by a stranger of the same uid */
    assert_int_equal(call(kernel, "auth/secret/export", "{\"owner\":\"service:llm\"}"), ERR_METHOD);
    done(NULL);
    q.method = "auth/mint"; /* and a tool is not served to him at all */
    assert_int_equal(ipc_call(&q, &r), ERR_PERM);
}

static void a_unit_gets_its_own_secrets(void **state)
{
    cleanup(freep) char *log = rig_read(g, "logs/secrets-audit.log");
    cleanup(freep) char *of_auth = rig_read(g, "logs/authsvc.log");
    cleanup(freep) char *of_llm = rig_read(g, "logs/llmsvc.log");

    (void)state;
    assert_non_null(log);
    assert_non_null(strstr(log, " llmsvc service:llm RIG_KEY export ok\n"));
    assert_non_null(strstr(log, " llmsvc service:llm OTHER export failed\n"));
    assert_null(strstr(log, "sk-of-the"));
    assert_null(strstr(of_auth, "sk-of-the"));
    assert_null(strstr(of_llm, "sk-of-the"));
    assert_non_null(strstr(of_auth, "'OTHER' of service:llm could not be opened"));
}

static void operators_are_told(void **state)
{
    cleanup(ws_closep) struct ws *w = ws_admin(g);
    cleanup(freep) char *reply = NULL;
    char body[128];

    (void)state;
    assert_non_null(w);
    json_object *kinds = json_new_arr();
    json_push_str(kinds, "sys.alert");
    ws_send(w, json_make("type:s id:s events:o", "subscribe", "s1", kinds));
    for (bool in = false; !in;) {
        cleanup(json_putp) json_object *f = ws_recv(w, 10000);

        assert_non_null(f);
        in = str_eq(json_str(f, "id", ""), "s1");
    }
    for (int i = 0; i < 5; i++)
        assert_int_equal(login_from("pat1", "wrong", "10.6.0.1"), ERR_DENIED);
    for (bool told = false; !told;) { /* others may raise one too */
        cleanup(json_putp) json_object *e = ws_event(w, "sys.alert", 10000);

        assert_non_null(e);
        told = strstr(json_str(json_obj(e, "body"), "message", ""), "'pat1' from 10.6.0.1") != NULL;
        assert_string_equal(json_str(json_obj(e, "body"), "level", "warn"), "warn");
    }
    /* over HTTP the lock is a 429 with the time to wait */
    snprintf(body, sizeof(body), "{\"identity\":\"ghost\",\"credential\":\"x\"}");
    int status = 0;
    for (int i = 0; i < 6 && status != 429; i++) {
        free(TAKE(reply));
        status = http_request(g->port, "POST", "/atp/auth/login",
                              "Content-Type: application/json\r\n", body, &reply);
        assert_true(status == 401 || status == 429);
    }
    assert_int_equal(status, 429);
    assert_true(strcasestr(reply, "retry-after:") && strstr(reply, "\"retryAfter\""));
}

/* --- reload
 * --------------------------------------------------------------------------------------- */

static void edit(const char *rel, const char *from, const char *to)
{
    cleanup(freep) char *old = rig_read(g, rel);
    char *hit = strstr(old, from);

    assert_non_null(hit);
    cleanup(freep) char *new = xasprintf("%.*s%s%s", (int)(hit - old), old, to, hit + strlen(from));
    rig_write(g, rel, new);
}

static void reload(void)
{
    int err;

    json_put(rig_init_call(g, "init/reload", json_make("name:s", "authsvc"), &err));
    assert_int_equal(err, 0);
}

static bool locked_now(void *arg)
{
    return call(memfs, "auth/policy", "{\"user\":\"%s\"}", (const char *)arg) == ERR_PERM;
}

static void reload_takes_all_or_nothing(void **state)
{
    cleanup(freep) char *pat = token_of("pat2", PASSWORD);

    (void)state;
    assert_int_equal(mint("pat2", 740, "\"fs/exists\"", ""), 0);
    cleanup(freep) char *cap = xstrdup(text("token"));
    /* a bad file is refused: nothing of it counts */
    edit("etc/auth.conf", "{name: pat2, uid: 1102,", "{name: pat2, locked: true, uid: 1102,");
    edit("etc/auth.conf", "name: shut, uid: 1202", "name: shut, uid: 12");
    reload();
    cleanup(freep) char *log = NULL;
    for (int i = 0; !log || !strstr(log, "configuration refused"); i++) {
        free(log);
        log = rig_read(g, "logs/authsvc.log");
        assert_true(i < 100000);
    }
    assert_non_null(strstr(log, "identities[6].uid: must be within 1000.."));
    assert_int_equal(login_from("pat2", PASSWORD, "10.5.0.1"), 0);
    /* a good one takes over: who is locked is out at once, with his agents */
    edit("etc/auth.conf", "name: shut, uid: 12", "name: shut, uid: 1202");
    reload();
    assert_true(rig_until(locked_now, (void *)(uintptr_t) "pat2"));
    assert_false(valid(pat));
    assert_int_equal(login_from("pat2", PASSWORD, "10.5.0.2"), ERR_DENIED);
    assert_int_equal(mint("pat2", 741, "\"fs/exists\"", ""), ERR_PERM);
    struct refused x = { cap, "fs/exists" };
    assert_true(rig_until(is_refused, &x));
    edit("etc/auth.conf", "locked: true, uid: 1102", "uid: 1102");
    reload();
}

static void a_role_change_while_down_counts(void **state)
{
    cleanup(freep) char *pat = token_of("pat0", PASSWORD);

    (void)state;
    edit("etc/auth.conf", "uid: 1100, role: user", "uid: 1100, role: guest");
    rig_kill_unit(g, "authsvc");
    for (int i = 0; valid(pat); i++)
        assert_true(i < 10000);
    free(token_of("pat0", PASSWORD));
    assert_string_equal(text("role"), "guest");
}

static void no_auth_conf_no_start(void **state)
{
    const struct rig_opts o = { .no_start = true };
    char err[512], path[400];

    (void)state;
    struct rig *x = rig_new(&o);
    snprintf(path, sizeof(path), "%s/etc/auth.conf", x->root);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rig_boot(x, NULL, err, sizeof(err)), 78);
    assert_non_null(strstr(err, "etc/auth.conf not found"));
    rig_write(x, "etc/auth.conf", "apiVersion: avix/v1\nkind: AuthConfig\nidentities: []\n");
    assert_int_not_equal(rig_boot(x, NULL, err, sizeof(err)), 0);
    rig_stop(x);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, done)
    const struct CMUnitTest tests[] = {
        T(right_credentials),
        T(every_refusal_is_the_same),
        T(only_the_gateway_logs_in),
        T(older_hash_is_rewritten),
        T(five_failures_lock),
        T(refresh_and_logout),
        T(sessions_are_ones_own),
        T(a_logout_reaches_the_router),
        T(minted_tokens_work),
        T(nothing_beyond_the_policy),
        T(renewal_keeps_the_binding),
        T(revoked_stays_revoked),
        T(policies),
        T(users_and_crews),
        T(secrets_are_for_main_processes),
        T(a_unit_gets_its_own_secrets),
        T(reload_takes_all_or_nothing),
        T(a_role_change_while_down_counts),
        T(operators_are_told), /* its address is locked from here on */
        T(no_auth_conf_no_start),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
