/*
 * avix server config init: a new root. Every file goes through a temporary name and a rename, and
 * auth.conf comes last: its presence means that the root is complete. Needs no daemon and no master
 * key.
 */
#include <argon2.h>
#include <errno.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cli/agents.h"
#include "cli/cli.h"
#include "cli/init.h"
#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/rnd.h"
#include "common/svc/token.h"

struct init {
    struct cli *c;
    const char *root, *user, *role, *mode, *bind, *source;
    bool dry;
    char api_key[48], stamp[RFC3339_LEN];
    json_object *files; /* paths written */
};

static int write_file(struct init *in, const char *rel, const void *data, size_t len, mode_t mode,
                      bool replace)
{
    char path[512];
    struct stat st;
    if (path_fmt(path, sizeof path, "%s/%s", in->root, rel))
        return cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s/%s: path too long", in->root, rel);
    if (!replace && lstat(path, &st) == 0)
        return 0;
    json_push_str(in->files, path);
    if (in->dry)
        return 0;
    char *slash = strrchr(path, '/');
    *slash = 0;
    int r = mkdir_p(path, str_starts(rel, "data/bin") ? 0755 : 0700);
    *slash = '/';
    if (!r)
        r = file_write_atomic(path, data, len, mode);
    return r ? cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", path, strerror(-r)) : 0;
}

static int write_text(struct init *in, const char *rel, struct buf *b, mode_t mode)
{
    int r = write_file(in, rel, b->data, b->len, mode, false);
    buf_done(b);
    return r;
}

static void head(struct init *in, struct buf *b, const char *kind)
{
    buf_printf(b, "apiVersion: avix/v1\nkind: %s\nmetadata: {lastUpdated: \"%s\"}\nspec:\n", kind,
               in->stamp);
}

static int write_kernel(struct init *in, const char *model, const char *small)
{
    struct buf b = BUF_INIT(65536);
    head(in, &b, "KernelConfig");
    buf_printf(&b,
               "  models: {default: \"%s\", kernel: \"%s\", fallback: \"%s\", temperature: 0.7}\n",
               model, model, small);
    buf_adds(&b, "  ipc: {maxMessageBytes: 16777216}\n");
    buf_printf(&b, "  gateway:\n    mode: %s\n    bind: \"%s\"\n    port: 9142\n", in->mode,
               in->bind);
    if (strcmp(in->bind, "localhost") != 0 && strcmp(in->bind, "127.0.0.1") != 0 &&
        strcmp(in->bind, "::1") != 0)
        buf_adds(&b, "    tls: {mode: self-signed}\n");
    else
        buf_adds(&b, "    tls: {mode: \"off\"}\n");
    buf_printf(&b, "  secrets:\n    masterKey:\n      source: %s\n", in->source);
    const char *file = cli_flag(in->c, "master-key-file");
    if (file) {
        buf_adds(&b, "      keyFile: ");
        buf_add_json_str(&b, file, strlen(file));
        buf_addc(&b, '\n');
    }
    static const char *const kms[][2] = { { "kms-key-id", "keyId" },
                                          { "vault-addr", "vaultAddr" },
                                          { "vault-key", "vaultKey" } };
    for (size_t i = 0; i < N_ELEMS(kms); i++) {
        const char *v = cli_flag(in->c, kms[i][0]);
        if (v) {
            buf_printf(&b, "      %s: ", kms[i][1]);
            buf_add_json_str(&b, v, strlen(v));
            buf_addc(&b, '\n');
        }
    }
    return write_text(in, "etc/kernel.yaml", &b, 0600);
}

static int write_lists(struct init *in)
{
    struct buf b = BUF_INIT(65536);
    head(in, &b, "Users");
    buf_printf(
        &b,
        "  users:\n    - username: %s\n      uid: 1001\n      workspace: /users/%s/workspace\n      crews: []\n"
        "      additionalTools: []\n      deniedTools: []\n      quota: {tokens: 500000, agents: 5, sessions: 4}\n",
        in->user, in->user);
    int r = write_text(in, "etc/users.yaml", &b, 0600);
    static const char *const lists[][3] = {
        { "etc/crews.yaml", "Crews", "  crews: []\n" },
        { "etc/crontab.yaml", "Crontab", "  timezone: UTC\n  jobs: []\n" },
        { "etc/fstab.yaml", "Fstab", "  mounts: []\n" },
        { "etc/mcp.yaml", "McpConfig", "  servers: {}\n" },
        { "etc/exec.yaml", "ExecConfig", "  sandbox: {unsafe: false}\n" }
    };
    for (size_t i = 0; i < N_ELEMS(lists) && !r; i++) {
        head(in, &b, lists[i][1]);
        buf_adds(&b, lists[i][2]);
        r = write_text(in, lists[i][0], &b, 0600);
    }
    return r;
}

static json_object *receipt_file(const char *path, const char *text)
{
    uint8_t sum[32];
    char hex[65];
    sha256(text, strlen(text), sum);
    hex_encode(sum, sizeof sum, hex);
    return json_make("path:s sha256:s mode:s", path, hex, "0644");
}

static int write_agents(struct init *in)
{
    int r = 0;
    for (size_t i = 0; i < n_builtin_agents && !r; i++) {
        const struct builtin_agent *a = &builtin_agents[i];
        char rel[160], dir[96];
        snprintf(dir, sizeof dir, "data/bin/%s@" BUILTIN_AGENT_VERSION, a->name);
        snprintf(rel, sizeof rel, "%s/manifest.yaml", dir);
        r = write_file(in, rel, a->manifest, strlen(a->manifest), 0644, false);
        snprintf(rel, sizeof rel, "%s/prompt.md", dir);
        if (!r)
            r = write_file(in, rel, a->prompt, strlen(a->prompt), 0644, false);
        json_object *files = json_new_arr();
        json_push(files, receipt_file("manifest.yaml", a->manifest));
        json_push(files, receipt_file("prompt.md", a->prompt));
        json_object *o = json_make(
            "name:s version:s kind:s scope:s source_url:s installed_at:s installed_by:s verified_by:o files:o",
            a->name, BUILTIN_AGENT_VERSION, "Agent", "system", "system", in->stamp, "config-init",
            json_make("kind:s", "official"), files);
        snprintf(rel, sizeof rel, "%s/.install.json", dir);
        if (!r)
            r = write_file(in, rel, json_text(o), strlen(json_text(o)), 0644, false);
        json_put(o);
    }
    return r;
}

static int make_dirs(struct init *in)
{
    static const char *const dirs[] = { "etc",          "data",       "data/bin",
                                        "data/users",   "data/crews", "data/services",
                                        "data/scratch", "secrets",    "logs" };
    char path[512];
    for (size_t i = 0; i < N_ELEMS(dirs) + 1 && !in->dry; i++) {
        int r = i < N_ELEMS(dirs)
                    ? path_fmt(path, sizeof path, "%s/%s", in->root, dirs[i])
                    : path_fmt(path, sizeof path, "%s/data/users/%s/workspace", in->root, in->user);
        if (!r)
            r = mkdir_p(path, i == 2 ? 0755 : 0700);
        if (r)
            return cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", path, strerror(-r));
    }
    return 0;
}

/* Value of a flag that may be "-" (first line of stdin). Yours to free(). */
static char *flag_or_stdin(const char *v)
{
    if (!v)
        return NULL;
    if (strcmp(v, "-") != 0)
        return xstrdup(v);
    char line[1100];
    if (!fgets(line, sizeof line, stdin))
        return xstrdup("");
    line[strcspn(line, "\r\n")] = 0;
    return xstrdup(line);
}

static char *ask_password(void)
{
    struct termios old, quiet;
    char line[1100] = "";
    if (!isatty(0) || tcgetattr(0, &old) < 0)
        return NULL;
    fputs("Password: ", stderr);
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(0, TCSANOW, &quiet);
    bool ok = fgets(line, sizeof line, stdin) != NULL;
    tcsetattr(0, TCSANOW, &old);
    fputc('\n', stderr);
    line[strcspn(line, "\r\n")] = 0;
    char *p = ok ? xstrdup(line) : NULL;
    explicit_bzero(line, sizeof line);
    return p;
}

/* The credential member of the identity, as YAML flow text. */
static int password_credential(struct init *in, struct buf *out)
{
    const char *file = cli_flag(in->c, "password-file");
    char *p = NULL;
    if (file && strcmp(file, "-") != 0) {
        size_t len = 0;
        int r = file_read(file, 1024, &p, &len);
        if (r)
            return cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", file,
                            r < 0 ? strerror(-r) : "longer than 1 KiB");
        p[strcspn(p, "\r\n")] = 0;
    } else {
        p = flag_or_stdin(file ? file : cli_flag(in->c, "password"));
    }
    if (!p && !cli_has(in->c, "non-interactive"))
        p = ask_password();
    if (!p)
        return cli_fail(in->c, EX_USE, "EUSAGE", "pass --password-file FILE",
                        "a password is needed and there is no terminal");
    if (strlen(p) < 12) {
        explicit_bzero(p, strlen(p));
        free(p);
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL,
                        "the password is shorter than 12 characters");
    }
    uint8_t salt[16];
    char encoded[160];
    rnd_bytes(salt, sizeof salt);
    int r = argon2id_hash_encoded(3, 65536, 4, p, strlen(p), salt, sizeof salt, 32, encoded,
                                  sizeof encoded);
    explicit_bzero(p, strlen(p));
    free(p);
    if (r)
        return cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "argon2id: %s", argon2_error_message(r));
    buf_printf(out, "{type: password, password_hash: \"argon2id:%s\"", encoded);
    return 0;
}

static int key_credential(struct init *in, struct buf *out)
{
    cleanup(freep) char *key = flag_or_stdin(cli_flag(in->c, "api-key"));
    if (str_empty(key)) {
        free(key);
        key = xmalloc(48);
        str_copy(key, 48, "sk-avix-");
        rnd_base62(key + 8, 32);
        str_copy(in->api_key, sizeof in->api_key, key);
    } else if (strlen(key) < 32) {
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL, "the API key is shorter than 32 characters");
    }
    uint8_t salt[16], mac[32];
    char salt_text[32], mac_text[64];
    rnd_bytes(salt, sizeof salt);
    struct hmac *h = hmac_new(salt, sizeof salt);
    hmac_sum(h, key, strlen(key), mac);
    hmac_free(h);
    b64url_encode(salt, sizeof salt, salt_text);
    b64url_encode(mac, sizeof mac, mac_text);
    buf_printf(out, "{type: api_key, key_hash: \"hmac-sha256:$s1$%s$%s\"", salt_text, mac_text);
    explicit_bzero(key, strlen(key));
    return 0;
}

static int write_auth(struct init *in)
{
    struct buf b = BUF_INIT(65536), cred = BUF_INIT(4096);
    const char *type = cli_flag(in->c, "credential-type"), *ttl = cli_flag(in->c, "ttl"),
               *allow = cli_flag(in->c, "ip-allowlist");
    int r;
    if (!type || strcmp(type, "api_key") == 0)
        r = key_credential(in, &cred);
    else if (strcmp(type, "password") == 0)
        r = password_credential(in, &cred);
    else
        r = cli_fail(in->c, EX_USE, "EUSAGE", NULL,
                     "--credential-type is api_key or password, not %s", type);
    if (r)
        return r;
    buf_printf(&cred, ", ip_allowlist: [");
    for (const char *p = allow ? allow : ""; *p;) {
        size_t n = strcspn(p, ",");
        if (p != allow)
            buf_adds(&cred, ", ");
        buf_add_json_str(&cred, p, n);
        p += n;
        p += *p == ',';
    }
    buf_adds(&cred, "]}");
    buf_printf(
        &b,
        "apiVersion: avix/v1\nkind: AuthConfig\npolicy: {session_ttl: %s, session_max: 7d, require_tls: %s, failed_auth_lockout_count: 5, "
        "failed_auth_lockout_ttl: 15m, token_refresh_window: 5m, password_min_length: 12, api_key_min_length: 32, bind_api_keys: false, "
        "install_quota_per_hour: 10}\nidentities:\n  - {name: %s, uid: 1001, role: %s, credential: %s}\n",
        ttl ? ttl : "8h", cli_has(in->c, "require-tls") ? "true" : "false", in->user, in->role,
        cred.data);
    buf_done(&cred);
    char path[512], bak[520];
    if (cli_has(in->c, "force") && !in->dry &&
        path_fmt(path, sizeof path, "%s/etc/auth.conf", in->root) == 0) {
        snprintf(bak, sizeof bak, "%s.bak", path);
        if (rename(path, bak) < 0 && errno != ENOENT)
            return cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", path, strerror(errno));
    }
    r = write_file(in, "etc/auth.conf", b.data, b.len, 0600, true);
    buf_done(&b);
    return r;
}

static int write_key_file(struct init *in)
{
    const char *file = cli_flag(in->c, "master-key-file");
    struct stat st;
    if (strcmp(in->source, "key-file") != 0)
        return 0;
    if (!file)
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL,
                        "--master-key-source key-file needs --master-key-file");
    if (str_starts(file, in->root) && !in->c->quiet)
        fprintf(stderr, "avix: the key file lies in the root: who copies the root has both\n");
    if (lstat(file, &st) == 0)
        return 0;
    uint8_t key[32];
    char hex[66];
    rnd_bytes(key, sizeof key);
    hex_encode(key, sizeof key, hex);
    hex[64] = '\n';
    json_push_str(in->files, file);
    int r = in->dry ? 0 : file_write_atomic(file, hex, 65, 0600);
    explicit_bzero(key, sizeof key);
    explicit_bzero(hex, sizeof hex);
    return r ? cli_fail(in->c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", file, strerror(-r)) : 0;
}

/* client.yaml of this user, if there is none: where the daemon is and as whom to log in. */
static void write_client_yaml(struct init *in)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char dir[400], path[440];
    struct stat st;
    if (in->dry || (str_empty(xdg) && str_empty(home)))
        return;
    int r = str_empty(xdg) ? path_fmt(dir, sizeof dir, "%s/.config/avix", home)
                           : path_fmt(dir, sizeof dir, "%s/avix", xdg);
    if (r || path_fmt(path, sizeof path, "%s/client.yaml", dir) || lstat(path, &st) == 0 ||
        mkdir_p(dir, 0700))
        return;
    struct buf b = BUF_INIT(4096);
    buf_printf(&b, "server_url: http://localhost:9142\nidentity: %s\n", in->user);
    if (file_write_atomic(path, b.data, b.len, 0600) == 0)
        json_push_str(in->files, path);
    buf_done(&b);
}

static bool name_ok(const char *s)
{
    size_t n = strlen(s);
    return n && n < 64 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n &&
           s[0] != '.' && s[0] != '-';
}

static int check_flags(struct init *in)
{
    static const char *const roles[] = { "guest", "user", "operator", "admin" },
                             *const modes[] = { "cli", "gui", "headless" },
                             *const sources[] = { "env",        "key-file", "secret-file",
                                                  "passphrase", "kms-aws",  "kms-gcp",
                                                  "kms-azure",  "kms-vault" };
    const struct {
        const char *flag, *value;
        const char *const *names;
        size_t n;
    } sets[] = { { "role", in->role, roles, 4 },
                 { "mode", in->mode, modes, 3 },
                 { "master-key-source", in->source, sources, 8 } };
    for (size_t i = 0; i < N_ELEMS(sets); i++) {
        bool ok = false;
        for (size_t k = 0; k < sets[i].n; k++)
            ok = ok || strcmp(sets[i].value, sets[i].names[k]) == 0;
        if (!ok)
            return cli_fail(in->c, EX_USE, "EUSAGE", NULL, "--%s: unknown value '%s'", sets[i].flag,
                            sets[i].value);
    }
    if (strcmp(in->role, "admin") != 0)
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL,
                        "--role: the first identity must be an admin");
    int64_t ms;
    const char *ttl = cli_flag(in->c, "ttl");
    if (ttl && !parse_duration_ms(ttl, &ms))
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL, "--ttl: '%s' is no duration", ttl);
    if (!name_ok(in->user))
        return cli_fail(in->c, EX_USE, "EUSAGE", NULL, "--user: '%s' is no user name", in->user);
    return 0;
}

static void report(struct init *in)
{
    if (in->c->json) {
        json_object *o = json_make("root:s files:o user:s role:s", in->root,
                                   json_object_get(in->files), in->user, in->role);
        if (*in->api_key && !in->dry)
            json_add_str(o, "api_key", in->api_key);
        print_json(o);
        json_put(o);
        return;
    }
    for (size_t i = 0; i < json_object_array_length(in->files) && !in->c->quiet; i++)
        fprintf(stderr, "%s %s\n", in->dry ? "would write" : "wrote",
                json_object_get_string(json_object_array_get_idx(in->files, i)));
    if (in->dry)
        return;
    if (*in->api_key)
        printf("API key (Avix): %s\n", in->api_key);
    if (!in->c->quiet)
        fprintf(stderr, "hint: %savix server start --root %s\n",
                strcmp(in->source, "env") == 0 ? "set AVIX_MASTER_KEY (openssl rand -hex 32), then "
                                               : "",
                in->root);
}

int cmd_config_init(struct cli *c)
{
    struct init in = { .c = c,
                       .root = cli_flag(c, "root"),
                       .user = cli_flag(c, "user"),
                       .role = cli_flag(c, "role"),
                       .mode = cli_flag(c, "mode"),
                       .bind = cli_flag(c, "bind"),
                       .source = cli_flag(c, "master-key-source"),
                       .dry = cli_has(c, "dry-run") };
    char path[512], model[128], small[128];
    struct stat st;

    if (str_empty(in.root))
        return cli_fail(c, EX_USE, "EUSAGE", NULL, "server config init needs --root DIR");
    in.user = in.user ? in.user : "admin";
    in.role = in.role ? in.role : "admin";
    in.mode = in.mode ? in.mode : "cli";
    in.source = in.source ? in.source : "env";
    in.bind = in.bind ? in.bind : strcmp(in.mode, "headless") == 0 ? "0.0.0.0" : "localhost";
    int r = check_flags(&in);
    if (r)
        return r;
    if (path_fmt(path, sizeof path, "%s/etc/auth.conf", in.root))
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: path too long", in.root);
    if (lstat(path, &st) == 0 && !cli_has(c, "force")) {
        fprintf(stderr, "already initialised: %s exists, nothing changed\n", path);
        return EX_DONE;
    }
    umask(022); /* every mode below is given in full */
    in.files = json_new_arr();
    rfc3339(now_ms(), in.stamp);
    struct buf llm = BUF_INIT(1 << 20);
    detect_llm(!cli_has(c, "no-detect"), &llm, model, small, sizeof model);
    r = make_dirs(&in);
    if (!r)
        r = write_kernel(&in, model, small);
    if (!r)
        r = write_lists(&in);
    if (!r)
        r = write_text(&in, "etc/llm.yaml", &llm, 0600);
    if (!r)
        r = write_agents(&in);
    if (!r)
        r = write_key_file(&in);
    if (!r)
        r = write_auth(&in);
    if (!r) {
        write_client_yaml(&in);
        report(&in);
    }
    explicit_bzero(in.api_key, sizeof in.api_key);
    json_put(in.files);
    return r;
}
