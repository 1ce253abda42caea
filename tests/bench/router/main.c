/*
 * The router's own tables measured inside one process: a token for the first time and again, a tool
 * among ten thousand. Prints "name p50 p99 floor goal note" for the benchmark.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/svc/svc_internal.h"
#include "router/router.h"
#include "tests/bench/bench.h"
#include "tests/rig/rig.h"

#define TOOLS   10000
#define BATCHES 201
#define BATCH   200

static char *token;
static size_t token_len;
static struct peer self;
static struct hmac *key;
static struct ident *who;
static char names[TOOLS][48];
static size_t turn;

static void measure_pair(const char *name, double goal, const char *note, void (*ours)(void),
                         void (*base)(void))
{
    static double a[BATCHES], b[BATCHES];

    for (size_t i = 0; i < BATCHES; i++) {
        int64_t t0 = now_ns(), t1, t2;

        for (int k = 0; k < BATCH; k++)
            ours();
        t1 = now_ns();
        for (int k = 0; k < BATCH; k++)
            base();
        t2 = now_ns();
        a[i] = (double)(t1 - t0) / BATCH / 1000;
        b[i] = (double)(t2 - t1) / BATCH / 1000;
    }
    double p99 = quantile(a, BATCHES, 0.99);

    printf("%s %g %g %g %g %s\n", name, median(a, BATCHES), p99, median(b, BATCHES), goal, note);
}

static void token_warm(void)
{
    const char *why;
    struct ident *id = NULL;

    if (auth_token(token, token_len, &self, &id, &why))
        abort();
    ident_unref(id);
}

static void token_cold(void)
{
    cleanup(json_putp) json_object *claims = NULL;

    if (token_verify(key, token, token_len, &claims))
        abort();
}

static void token_floor(void)
{
    uint8_t sum[32];

    hmac_sum(key, token, token_len - 44, sum);
}

static void lookup_ours(void)
{
    const char *n = names[turn++ % TOOLS];

    if (!registry_find(who, n, strlen(n)))
        abort();
}

/* A bare table: FNV, open addressing, pointers to the same names. */
static const char *slots[32768];

static const char **probe(const char *n, size_t len)
{
    uint64_t h = 14695981039346656037ULL;

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)n[i]) * 1099511628211ULL;
    const char **s = &slots[h & 32767];

    while (*s && (strlen(*s) != len || memcmp(*s, n, len) != 0))
        s = s == &slots[32767] ? slots : s + 1;
    return s;
}

static void lookup_floor(void)
{
    const char *n = names[turn++ % TOOLS];

    if (!*probe(n, strlen(n)))
        abort();
}

/* The place of init: a socket and the keys where a unit expects them. */
static void environment(char *dir, size_t size)
{
    static const enum key_id ids[] = { KEY_CAP, KEY_ATP, KEY_SVC };
    struct key_record rec[N_ELEMS(ids)] = { { "", { 0 } } };
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    uint8_t master[32];
    char path[300];
    static const char yaml[] = "apiVersion: avix/v1\nkind: KernelConfig\nmetadata: {}\nspec: {}\n";
    int sock, keys;

    snprintf(dir, size, "/tmp/avix-bench-room-%d", (int)getpid());
    snprintf(path, sizeof(path), "%s/etc", dir);
    mkdir_p(path, 0700);
    snprintf(path, sizeof(path), "%s/data", dir);
    mkdir_p(path, 0700);
    snprintf(path, sizeof(path), "%s/etc/kernel.yaml", dir);
    file_write_rename(path, yaml, strlen(yaml), 0600);
    setenv("AVIX_ROOT", dir, 1);
    setenv("AVIX_RUN_DIR", dir, 1);
    hex_decode(RIG_MASTER_KEY, 64, master);
    for (size_t i = 0; i < N_ELEMS(ids); i++) {
        memcpy(rec[i].name, key_names[ids[i]], strlen(key_names[ids[i]]));
        key_derive(master, 32, key_names[ids[i]], rec[i].key);
    }
    key = hmac_new(rec[0].key, KEY_LEN);
    sock = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/router.sock", dir);
    if (bind(sock, (struct sockaddr *)&a, sizeof(a)) || listen(sock, 1))
        abort();
    sock = fcntl(sock, F_DUPFD, 20);
    keys = fcntl(memfd_sealed("keys", rec, sizeof(rec)), F_DUPFD, 20);
    dup2(sock, 3);
    dup2(keys, 4);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "router:keys", 1);
    setenv("AVIX_LOG_LEVEL", "error", 1);
}

static void fill(void)
{
    json_object *granted = json_new_arr();
    char now[RFC3339_LEN];
    const char *why;
    struct owner *o = owner_get("kernel");

    for (size_t i = 0; i < TOOLS; i++) {
        struct entry *e = xcalloc(1, sizeof(*e));
        json_object *d;

        snprintf(names[i], sizeof(names[i]), "ns%zu/group-%zu/tool-%zu", i % 17, i % 191, i);
        d = json_make("name:s", names[i]);
        e->refs = 1;
        e->owner = o;
        if (entry_parse(e, d, &why))
            abort();
        json_put(d);
        registry_put(e);
        *probe(names[i], strlen(names[i])) = names[i];
    }
    json_push_str(granted, "fs/read");
    json_push_str(granted, "fs/write");
    self.pid = getpid();
    self.start = proc_start_time(getpid());
    token = rig_sign("cap",
                     json_make("kind:s tokenId:s lineage:s pid:i hostPid:i hostStart:i agent:s "
                               "sub:s uid:i role:s granted:o expiresAt:s",
                               "CapabilityToken", "cap-bench", "lineage-bench", (int64_t)157,
                               (int64_t)self.pid, (int64_t)self.start, "bench", "alice",
                               (int64_t)1001, "user", granted, rfc3339(now_ms() + 3600000, now)));
    token_len = strlen(token);
}

int main(void)
{
    static const struct svc_spec spec = { .unit = UNIT_ROUTER };
    struct yaml_err err;
    const char *why;
    char dir[64];

    environment(dir, sizeof(dir));
    svc_env_read(&spec);
    if (kernel_config_load(svc.root, &svc.config, &err))
        abort();
    svc.loop = loop_new();
    auth_init();
    registry_init();
    fill();
    if (auth_token(token, token_len, &self, &who, &why))
        abort();
    pin_to_last_cpu(0);
    measure_pair("token.warm", 1.5, "seen before, with peer and expiry, against one HMAC",
                 token_warm, token_floor);
    measure_pair("token.cold", 8, "HMAC, base64 and claims, against one HMAC; README: < 50 us",
                 token_cold, token_floor);
    measure_pair("registry.lookup", 4, "10,000 tools, against a bare FNV table; README: < 5 us",
                 lookup_ours, lookup_floor);
    rm_rf(dir);
    return 0;
}
