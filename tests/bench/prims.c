/* Pieces of the hot path in one process, each beside the bare library or loop that it stands on. */
#include <json-c/json.h>
#include <math.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/toolname.h"
#include "common/ipc/frame.h"
#include "common/ipc/rpc.h"
#include "tests/bench/bench.h"

#define BATCHES 201
#define BATCH   500

void time_pair(void (*ours)(void *), void (*floor)(void *), void *arg, struct pair *out)
{
    static double a[BATCHES], b[BATCHES];

    for (size_t i = 0; i < BATCHES; i++) {
        int64_t t0 = now_ns(), t1, t2;

        for (int k = 0; k < BATCH; k++)
            ours(arg);
        t1 = now_ns();
        for (int k = 0; k < BATCH; k++)
            floor(arg);
        t2 = now_ns();
        a[i] = (double)(t1 - t0) / BATCH / 1000;
        b[i] = (double)(t2 - t1) / BATCH / 1000;
    }
    out->p99 = quantile(a, BATCHES, 0.99);
    out->p50 = median(a, BATCHES);
    out->floor = median(b, BATCHES);
}

/* --- frame ---------------------------------------------------------------------------------------
 */

static const char request[] =
    "{\"jsonrpc\":\"2.0\",\"id\":\"r-18f3-22\",\"method\":\"fs/read\",\"params\":{\"_caller\":{\"kind\":"
    "\"agent\",\"pid\":157,\"user\":\"alice\",\"role\":\"user\",\"uid\":1001,\"agent\":\"researcher\"},"
    "\"path\":\"/users/alice/workspace/notes.md\",\"offset\":0,\"length\":65536,\"encoding\":\"auto\","
    "\"text\":\"the quick brown fox jumps over the lazy dog\"}}";

static struct buf out = BUF_INIT(1 << 20);

static void frame_ours(void *arg)
{
    struct rpc_msg m;
    char hdr[FRAME_HDR];

    (void)arg;
    if (rpc_parse(request, sizeof(request) - 1, &m))
        abort();
    buf_clear(&out);
    buf_add(&out, "\0\0\0\0", FRAME_HDR);
    rpc_write_request(&out, m.id, m.method, m.params);
    frame_put_len(hdr, (uint32_t)(out.len - FRAME_HDR));
    memcpy(out.data, hdr, FRAME_HDR);
    rpc_done(&m);
}

static json_tokener *tok;

static void frame_floor(void *arg)
{
    json_object *o;
    size_t n;
    const char *t;

    (void)arg;
    json_tokener_reset(tok);
    o = json_tokener_parse_ex(tok, request, sizeof(request) - 1);
    t = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &n);
    buf_clear(&out);
    buf_add(&out, t, n);
    json_object_put(o);
}

/* --- tool names ----------------------------------------------------------------------------------
 */

static const char tool[] = "mcp/github/list-pull-requests";
static char wire[2 * TOOL_MAX], back[2 * TOOL_MAX];

static void mangle_ours(void *arg)
{
    ssize_t n = tool_mangle(tool, sizeof(tool) - 1, wire, sizeof(wire));

    (void)arg;
    if (tool_unmangle(wire, (size_t)n, back, sizeof(back)) < 0)
        abort();
}

static void mangle_floor(void *arg)
{
    volatile char *w = wire, *b = back;

    (void)arg;
    for (size_t i = 0; i < sizeof(tool) - 1; i++)
        w[i] = tool[i];
    for (size_t i = 0; i < sizeof(tool) - 1; i++)
        b[i] = w[i];
}

/* --- the router's own, in a program that links its room
 * ------------------------------------------- */

static void room_rows(const char *bin)
{
    char path[512], line[256];
    int p[2];
    pid_t pid;
    FILE *f;

    snprintf(path, sizeof(path), "%s/../bench-router", bin);
    if (pipe(p) || !(pid = fork())) {
        if (!access(path, X_OK)) {
            dup2(p[1], 1);
            execl(path, path, (char *)NULL);
        }
        _exit(127);
    }
    close(p[1]);
    f = fdopen(p[0], "r");
    while (f && fgets(line, sizeof(line), f)) {
        char name[64], note[128] = "";
        double p50, p99, base, goal;

        if (sscanf(line, "%63s %lf %lf %lf %lf %127[^\n]", name, &p50, &p99, &base, &goal, note) >=
            5)
            row_ratio(name, "us", p50, p99, base, goal, note);
    }
    if (f)
        fclose(f);
    waitpid(pid, NULL, 0);
}

void bench_prims(const char *bin)
{
    struct pair t;

    pin_to_last_cpu(0);
    tok = json_tokener_new();
    time_pair(frame_ours, frame_floor, NULL, &t);
    row_ratio("frame.encode+decode", "us", t.p50, t.p99, t.floor, 1.25,
              "350 B request, against json-c parse and serialise; README: < 10 us");
    time_pair(mangle_ours, mangle_floor, NULL, &t);
    row_ratio("tool.mangle", "us", t.p50, t.p99, t.floor, 4,
              "there and back, against a byte loop; README: < 1 us");
    json_tokener_free(tok);
    buf_done(&out);
    room_rows(bin);
    unpin(0);
}
