/*
 * Files are named <pid>-<turn_id>.json and replaced by rename, so a reader sees a whole answer or
 * none. The index is a small list in memory, read back from the folder at start.
 */
#include "llmsvc/answers.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "common/base/fsx.h"
#include "common/base/log.h"

#define KEEP_MS    3600000
#define KEEP_EACH  8
#define ANSWER_TOP (16 * 1024 * 1024)

struct entry {
    int64_t pid, at;
    char turn[64];
};
static struct {
    char dir[128];
    struct entry *e;
    size_t n, cap;
} g;

static bool turn_ok(const char *s)
{
    for (const char *p = s; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '-')
            return false;
    return *s && strlen(s) < sizeof((struct entry *)0)->turn;
}

static int path_of(char out[256], int64_t pid, const char *turn)
{
    return path_fmt(out, 256, "%s/%lld-%s.json", g.dir, (long long)pid, turn);
}

static void remember(int64_t pid, const char *turn, int64_t at)
{
    if (!g.e || g.n == g.cap) {
        g.cap = g.cap ? g.cap * 2 : 64;
        g.e = xrealloc(g.e, g.cap * sizeof *g.e);
    }
    struct entry *e = &g.e[g.n++];
    e->pid = pid;
    e->at = at;
    str_copy(e->turn, sizeof e->turn, turn);
}

static void drop(size_t i)
{
    char path[256];

    if (!path_of(path, g.e[i].pid, g.e[i].turn))
        (void)unlink(path);
    g.e[i] = g.e[--g.n];
}

int answers_init(const char *run_dir)
{
    int r = path_fmt(g.dir, sizeof g.dir, "%s/llm-answers", run_dir);

    if (r || (r = mkdir_p(g.dir, 0700)))
        return r;
    cleanup(dirp_close) DIR *d = opendir(g.dir);
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));) {
        char turn[64] = "", *dash = NULL;
        int64_t pid = strtoll(e->d_name, &dash, 10);
        size_t n = strlen(dash);
        struct stat st;

        if (*dash == '-' && str_ends(dash, ".json") && n < sizeof turn)
            snprintf(turn, sizeof turn, "%.*s", (int)(n - 6), dash + 1);
        if (turn_ok(turn) && !fstatat(dirfd(d), e->d_name, &st, 0))
            remember(pid, turn, (int64_t)st.st_mtim.tv_sec * 1000);
        else if (e->d_name[0] != '.' || strlen(e->d_name) > 2)
            (void)unlinkat(dirfd(d), e->d_name, 0); /* a temporary file left by a crash */
    }
    return 0;
}

void answers_fini(void)
{
    free(g.e);
    memset(&g, 0, sizeof g);
}

void answers_sweep(int64_t now)
{
    for (size_t i = 0; i < g.n;)
        if (now - g.e[i].at > KEEP_MS)
            drop(i);
        else
            i++;
}

static struct entry *find(int64_t pid, const char *turn)
{
    for (size_t i = 0; i < g.n; i++)
        if (g.e[i].pid == pid && str_eq(g.e[i].turn, turn))
            return &g.e[i];
    return NULL;
}

json_object *answers_get(int64_t pid, const char *turn, int64_t now)
{
    cleanup(freep) char *text = NULL;
    json_object *o = NULL;
    char path[256];
    size_t len = 0;
    const struct entry *e = turn_ok(turn) ? find(pid, turn) : NULL;

    if (!e || now - e->at > KEEP_MS || path_of(path, pid, turn) ||
        file_read(path, ANSWER_TOP, &text, &len) || json_parse(text, len, &o))
        return NULL;
    return o;
}

static void trim(int64_t pid)
{
    for (;;) {
        size_t count = 0, oldest = 0;

        for (size_t i = 0; i < g.n; i++)
            if (g.e[i].pid == pid && (count++ == 0 || g.e[i].at < g.e[oldest].at))
                oldest = i;
        if (count <= KEEP_EACH)
            return;
        drop(oldest);
    }
}

void answers_put(int64_t pid, const char *turn, json_object *result, int64_t now)
{
    const char *text = json_text(result);
    char path[256];

    if (!turn_ok(turn) || path_of(path, pid, turn))
        return;
    int r = file_write_rename(path, text, strlen(text), 0600);
    if (r) {
        log_warn("llm-answers: %s", strerror(-r));
        return;
    }
    struct entry *e = find(pid, turn);
    if (e)
        e->at = now;
    else
        remember(pid, turn, now);
    trim(pid);
}
