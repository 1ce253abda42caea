/*
 * The start document is the only word of the kernel that an agent gets before it is sealed. All of
 * it is checked here, so that later code can take the values as they are: texts are never NULL
 * unless the header says so, numbers are within their range.
 */
#include "kernel/agent/start.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/args.h"
#include "common/base/err.h"
#include "common/base/rnd.h"

#define START_MAX (8 * 1024 * 1024)
#define TEXT_MAX  (1024 * 1024)
#define PID_TOP   (((int64_t)1 << 53) - 1)

int64_t start_argv(int argc, char **argv)
{
    int64_t pid = -1;

    if (argc != 3 || !str_eq(argv[1], "--pid") || !parse_i64(argv[2], 1, PID_TOP, &pid))
        return -1;
    return pid;
}

char *start_slurp(int fd, size_t max, size_t *ret_len)
{
    struct stat st;
    size_t have = 0;

    if (fstat(fd, &st) || st.st_size < 0 || (size_t)st.st_size > max)
        return NULL;
    size_t size = (size_t)st.st_size;
    cleanup(freep) char *text = xmalloc(size + 1);
    while (have < size) {
        ssize_t n = pread(fd, text + have, size - have, (off_t)have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return NULL;
        have += (size_t)n;
    }
    text[have] = '\0';
    *ret_len = have;
    return TAKE(text);
}

static int bad(char *why, size_t size, const char *fmt, ...) printf_like(3, 4);
static int bad(char *why, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, size, fmt, ap);
    va_end(ap);
    return ERR_INVAL;
}

static void read_identity(struct start *s, struct args *a)
{
    s->pid = args_int(a, "pid", 1, PID_TOP);
    s->invocation = args_str(a, "invocationId", 64);
    s->session = args_str(a, "sessionId", 64);
    s->signal_key = args_str(a, "signalKey", 64);
    s->parent_pid = args_int_or(a, "parentPid", 0, PID_TOP, 0);
    s->depth = args_int_or(a, "depth", 0, 64, 0);
    s->user = args_str_or(a, "user", 256, "");
    s->goal = args_str_or(a, "goal", TEXT_MAX, "");
    s->goal_id = args_str_or(a, "goalId", 128, "");
    s->one_shot = args_bool_or(a, "oneShot", false);
    s->resume = args_bool_or(a, "resume", false);
    s->system_prompt = args_str_or(a, "systemPrompt", TEXT_MAX, "");
    s->memory_context = args_str_or(a, "memoryContext", TEXT_MAX, "");
    s->model = args_str_or(a, "model", 256, "");
    s->context_limit = args_int_or(a, "contextLimit", 1, INT32_MAX, 200000);
    s->denied = args_arr_or(a, "denied");
    s->atp_session = args_str_or(a, "atpSession", 128, "");
    s->last_seq = args_int_or(a, "lastSeq", 0, PID_TOP, 0);
}

static int clamp(int64_t v, int lo, int hi)
{
    return v < lo ? lo : v > hi ? hi : (int)v;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static void read_limits(struct start *s)
{
    json_object *res = json_obj(s->doc, "resolved");
    json_object *entry = json_obj(res, "entrypoint");
    json_object *env = json_obj(res, "environment");
    json_object *lim = json_obj(s->doc, "limits");
    int chain = clamp(json_int(entry, "maxToolChain", 5), 1, 200);

    s->max_tool_chain = min_int(chain, clamp(json_int(lim, "maxToolChainLength", 200), 1, 200));
    s->max_turns = clamp(json_int(entry, "maxTurnsPerGoal", 20), 1, 500);
    s->max_output = clamp(json_int(lim, "maxTokensPerTurn", 8000), 1, 1000000);
    s->stop_grace_sec = clamp(json_int(lim, "stopGraceSec", 10), 0, 3600);
    s->timeout_sec = clamp(json_int(env, "timeoutSec", 300), 1, 600);
    s->temperature = json_num(env, "temperature", 0.7);
    s->top_p = json_num(env, "topP", 0.9);
    s->model_fallback = json_str(lim, "modelFallback", "");
    s->seccomp = json_str(lim, "seccomp", "enforce");
    s->jail = json_str(lim, "jail", "auto");
    s->required_tools = json_arr(json_obj(res, "tools"), "required");
    s->fixed_context = str_eq(json_str(json_obj(res, "memory"), "workingContext", ""), "fixed");
    s->taint_policy = json_str(json_obj(s->doc, "hil"), "taintPolicy", "mark");
}

/* The optional descriptors are numbered without a gap, in the order in which fds names them. */
static int read_fds(struct start *s, char *why, size_t size)
{
    json_object *fds = json_arr(s->doc, "fds");
    int next = FD_OPTIONAL;

    s->fd_history = s->fd_secrets = -1;
    for (size_t i = 0; fds && i < json_object_array_length(fds); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(fds, i));
        int *at = str_eq(name, "history")   ? &s->fd_history
                  : str_eq(name, "secrets") ? &s->fd_secrets
                                            : NULL;
        if (!at || *at >= 0)
            return bad(why, size, "fds: unexpected \"%s\"", name ? name : "null");
        *at = next++;
    }
    return 0;
}

int start_parse(const char *text, size_t len, int64_t pid, struct start *ret, char *why,
                size_t size)
{
    struct start s = { .fd_history = -1, .fd_secrets = -1 };
    cleanup(json_putp) json_object *doc = NULL;

    if (json_parse(text, len, &doc) || !json_object_is_type(doc, json_type_object))
        return bad(why, size, "not a JSON object");
    struct args a = args_open(doc);
    s.doc = doc;
    read_identity(&s, &a);
    if (args_bad(&a))
        return bad(why, size, "%s: %s", a.field, a.why);
    if (s.pid != pid)
        return bad(why, size, "pid: %lld, but started as %lld", (long long)s.pid, (long long)pid);
    if (!uuid_valid(s.invocation))
        return bad(why, size, "invocationId: not a UUID");
    if (!*s.signal_key)
        return bad(why, size, "signalKey: empty");
    json_object *agent = json_obj(doc, "agent");
    s.name = json_str(agent, "name", NULL);
    s.dir = json_str(agent, "dir", "");
    if (str_empty(s.name))
        return bad(why, size, "agent.name: missing");
    read_limits(&s);
    if (read_fds(&s, why, size))
        return ERR_INVAL;
    *ret = s;
    (void)TAKE(doc);
    return 0;
}

int start_read(int fd, int64_t pid, struct start *ret, char *why, size_t size)
{
    size_t len = 0;
    char *text = start_slurp(fd, START_MAX, &len);

    if (!text)
        return bad(why, size, "descriptor %d: %s", fd, strerror(errno));
    int r = start_parse(text, len, pid, ret, why, size);
    explicit_bzero(text, len); /* it holds the signal key */
    free(text);
    return r;
}

void start_done(struct start *s)
{
    json_put(s->doc);
    s->doc = NULL;
}
