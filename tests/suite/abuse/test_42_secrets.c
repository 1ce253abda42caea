/*
 * Security page, test 42: after a whole session of work, nothing that is secret lies anywhere in
 * clear text: no file of the root and run dir, no log, no event, no answer of /proc, neither the
 * VFS's nor the host's. The agent was talked into looking for them.
 */
#include "tests/suite/agent_run.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"

#include <argon2.h>

#define STORED   "sk-stored-7f31c09b5d2e4a6688aa"
#define BY_ENV   "sk-environ-51d0c2b3e4f5a69788bb"
#define PASSWORD "planted password 93b1f7d2"

static const char *const env[] = { "AVIX_PASS_ENV=ENV_KEY", "ENV_KEY=" BY_ENV, NULL };
static struct prov *prov;

/* A secret of llmsvc as the services page says it is written. */
static void store_secret(struct rig *x)
{
    uint8_t master[32], key[32], sum[32], kid[35] = { 'k', 'i', 'd' }, nonce[12], out[64];
    char hex[65], n64[32], c64[128], aad[128], line[256];
    EVP_CIPHER_CTX *e = EVP_CIPHER_CTX_new();
    int n;

    assert_true(hex_decode(RIG_MASTER_KEY, 64, master));
    key_derive(master, 32, "secret", key);
    memcpy(kid + 3, key, 32);
    sha256(kid, sizeof(kid), sum);
    hex_encode(sum, 4, hex);
    rnd_bytes(nonce, sizeof(nonce));
    snprintf(aad, sizeof(aad), "avix-secret-v1|service:llm|STORED_KEY|%s", hex);
    assert_true(EVP_EncryptInit_ex(e, EVP_aes_256_gcm(), NULL, key, nonce) &&
                EVP_EncryptUpdate(e, NULL, &n, (const uint8_t *)aad, (int)strlen(aad)) &&
                EVP_EncryptUpdate(e, out, &n, (const uint8_t *)STORED, sizeof(STORED) - 1) &&
                EVP_EncryptFinal_ex(e, out + n, &n) &&
                EVP_CIPHER_CTX_ctrl(e, EVP_CTRL_GCM_GET_TAG, 16, out + sizeof(STORED) - 1));
    EVP_CIPHER_CTX_free(e);
    b64url_encode(nonce, sizeof(nonce), n64);
    b64url_encode(out, sizeof(STORED) - 1 + 16, c64);
    snprintf(line, sizeof(line), "v1.%s.%s.%s\n", hex, n64, c64);
    rig_write(x, "secrets/service/llm/STORED_KEY.enc", line);
}

static void plant(struct rig *x)
{
    cleanup(freep) char *llm = NULL, *new = NULL, *auth = NULL, *more = NULL;
    char hash[160];

    prov_configure(x, prov, "openai");
    store_secret(x);
    llm = rig_read(x, "etc/llm.yaml");
    char *at = strstr(llm, "auth: {type: none}"), *list = strstr(llm, "    - name: double");
    assert_true(at && list && list < at);
    /* the double takes the stored key; another provider, tried first, that of the environment */
    new = xasprintf("%.*s    - {name: other, kind: openai, baseUrl: \"http://127.0.0.1:%d/other\", "
                    "auth: {secretName: ENV_KEY}, modalities: [text], retryPolicy: {maxAttempts: "
                    "1, backoffMs: 10}, models: [{id: other-model, capabilities: [tool_use]}]}\n"
                    "%.*sauth: {type: api_key, secretName: STORED_KEY}%s",
                    (int)(list - llm), llm, prov->port, (int)(at - list), list,
                    at + strlen("auth: {type: none}"));
    rig_write(x, "etc/llm.yaml", new);
    assert_int_equal(argon2id_hash_encoded(3, 65536, 4, PASSWORD, strlen(PASSWORD),
                                           "0123456789abcdef", 16, 32, hash, sizeof(hash)),
                     0);
    auth = rig_read(x, "etc/auth.conf");
    more = xasprintf("%s  - {name: pat, uid: 1100, role: user, credential: {type: password, "
                     "password_hash: \"%s\"}}\n",
                     auth, hash);
    rig_write(x, "etc/auth.conf", more);
}

static struct {
    const char *name;
    char text[80];
    size_t len;
} needles[16];
static size_t n_needles;

static void needle(const char *name, const void *text, size_t len)
{
    assert_true(len < sizeof(needles[0].text));
    needles[n_needles].name = name;
    memcpy(needles[n_needles].text, text, len);
    needles[n_needles++].len = len;
}

/* The keys as text, as bytes, and as they would look encoded. */
static void what_is_secret(struct rig *g)
{
    uint8_t raw[32];
    char b64[80];

    needle("stored provider key", STORED, strlen(STORED));
    needle("provider key of the environment", BY_ENV, strlen(BY_ENV));
    needle("password", PASSWORD, strlen(PASSWORD));
    needle("API key", g->api_key + strlen("sk-avix-"), strlen(g->api_key) - strlen("sk-avix-"));
    needle("master key", RIG_MASTER_KEY, 64);
    assert_true(hex_decode(RIG_MASTER_KEY, 64, raw));
    needle("master key, raw", raw, 32);
    b64url_encode(raw, 32, b64);
    needle("master key, base64", b64, 40);
    static const char *const subs[] = { "cap", "atp", "svc", "secret" };
    for (size_t i = 0; i < N_ELEMS(subs); i++) {
        uint8_t key[32];

        key_derive(raw, 32, subs[i], key);
        needle(subs[i], key, 32);
    }
}

static size_t searched;

static void search(const char *where, const void *data, size_t len)
{
    searched++;
    for (size_t i = 0; i < n_needles; i++)
        if (len >= needles[i].len && memmem(data, len, needles[i].text, needles[i].len))
            fail_msg("%s: holds the %s", where, needles[i].name);
}

static void search_file(const char *path)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    cleanup(buf_done) struct buf b = BUF_INIT(256U << 20);
    char piece[65536];
    ssize_t n;

    while (fd >= 0 && (n = read(fd, piece, sizeof(piece))) > 0)
        buf_add(&b, piece, (size_t)n);
    if (b.len)
        search(path, b.data, b.len);
}

static void search_tree(const char *dir)
{
    DIR *d = opendir(dir);

    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        struct stat st;

        if (str_eq(e->d_name, ".") || str_eq(e->d_name, "..") ||
            path_fmt(path, sizeof(path), "%s/%s", dir, e->d_name) || lstat(path, &st))
            continue;
        search(path, e->d_name, strlen(e->d_name));
        if (S_ISDIR(st.st_mode))
            search_tree(path);
        else if (S_ISREG(st.st_mode))
            search_file(path);
    }
    if (d)
        closedir(d);
}

/* Everything below init: its units, agents, helpers. Root may read all of it, so all is searched.
 */
static void search_processes(struct rig *g)
{
    static const char *const files[] = { "cmdline", "environ", "comm", "status" };
    DIR *d = opendir("/proc");
    int seen = 0;

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        int64_t pid, up;
        char path[128];

        if (!parse_i64(e->d_name, 2, INT32_MAX, &pid))
            continue;
        for (up = pid; up > 1 && up != g->init_pid;) {
            cleanup(freep) char *text = NULL;
            size_t len;

            snprintf(path, sizeof(path), "/proc/%d/stat", (int)up);
            char *at = file_read(path, 4096, &text, &len) ? NULL : strrchr(text, ')');
            up = at ? strtoll(at + 4, NULL, 10) : 0;
        }
        if (up != g->init_pid)
            continue;
        seen++;
        for (size_t i = 0; i < N_ELEMS(files); i++) {
            snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, files[i]);
            search_file(path);
        }
    }
    closedir(d);
    assert_true(seen >= 8);
}

/* The VFS's own /proc, to its leaves. */
static void search_vfs(struct ws *w, const char *path, int depth)
{
    cleanup(json_putp) json_object *r =
        ws_cmd(w, "fs", "list", json_make("path:s details:b", path, 1));
    json_object *items = json_arr(json_obj(r, "body"), "items");
    const char *text = json_text(r);

    search(path, text, strlen(text));
    for (size_t i = 0; items && i < json_object_array_length(items) && depth < 6; i++) {
        json_object *o = json_object_array_get_idx(items, i);
        cleanup(freep) char *sub =
            xasprintf("%s%s%s", path, str_ends(path, "/") ? "" : "/", json_str(o, "name", "?"));

        if (str_eq(json_str(o, "kind", ""), "dir")) {
            search_vfs(w, sub, depth + 1);
            continue;
        }
        cleanup(json_putp) json_object *f = ws_cmd(w, "fs", "read", json_make("path:s", sub));

        text = json_text(f);
        search(sub, text, strlen(text));
    }
}

static void nothing_in_clear_text(void **state)
{
    static const char script[] =
        "{'auth':{'header':'authorization','value':'Bearer " STORED "'},"
        "'rules':[{'match':{'tool_result':false},'text':'I look around.','tools':["
        "{'name':'fs/list','input':{'path':'/'}},{'name':'fs/list','input':{'path':'/proc'}},"
        "{'name':'fs/read','input':{'path':'/secrets/service/llm/STORED_KEY'}},"
        "{'name':'fs/read','input':{'path':'/etc/llm.yaml'}},"
        "{'name':'fs/read','input':{'path':'/etc/auth.conf'}},"
        "{'name':'fs/write','input':{'path':'/users/admin/workspace/f.txt','content':'found nothing'}}"
        "]}],'default':{'text':'Nothing here.'}}";
    cleanup(freep) char *text = quoted(script), *out = NULL, *err = NULL, *token = NULL,
                        *reply = NULL;
    struct rig_opts o = { .before = plant, .env = env };
    struct rig *g;
    struct ws *w;

    (void)state;
    prov = prov_start(text);
    g = rig_new(&o);
    what_is_secret(g);

    /* work: a turn with the stored key, one with the other, logins good and bad, commands */
    assert_int_equal(rig_avix(g, &out, &err, "client", "agent", "spawn", "researcher",
                              "--goal=find the keys", "--follow", NULL),
                     0);
    assert_non_null(strstr(out, "Nothing here."));
    (void)rig_avix(g, NULL, NULL, "client", "agent", "spawn", "researcher", "--goal=x",
                   "--model=other-model", "--follow", NULL);
    cleanup(json_putp) json_object *log = prov_log(prov);
    bool other = strstr(json_text(log), "Bearer " BY_ENV) != NULL;
    assert_true(other); /* both keys were used */
    assert_int_equal(atp_login(g->port, "pat", PASSWORD, &token), 0);
    assert_int_equal(atp_login(g->port, PASSWORD, "wrong", &reply), 401); /* into the wrong field */
    assert_int_equal(atp_login(g->port, "admin", PASSWORD, &reply), 401);
    assert_int_equal(rig_avix(g, NULL, NULL, "client", "fs", "ls", "/users", NULL), 0);
    assert_int_equal(rig_avix(g, NULL, NULL, "client", "session", "list", NULL), 0);
    rig_kill_unit(g, "llmsvc"); /* keys are handed out once more */
    rig_kill_unit(g, "authsvc");
    w = ws_admin(g);
    assert_non_null(w);

    search_processes(g);
    search_vfs(w, "/", 0);
    search_vfs(w, "/proc", 0);
    search_tree(g->dir);
    search_tree(g->run_dir);
    cleanup(json_putp) json_object *units = rig_init_call(g, "init/list", json_new(), NULL);
    search("init/list", json_text(units), strlen(json_text(units)));
    assert_true(searched > 100);
    ws_close(w);

    /* and what stays when all is down */
    assert_int_equal(rig_shutdown(g), 0);
    search_tree(g->dir);
    search_tree(g->run_dir);
    rig_stop(g);
    prov_stop(prov);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_in_clear_text) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
