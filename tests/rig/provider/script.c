/*
 * The script decides which answer a request gets: first the rules that match (each at most `times`
 * times), then the ordered steps, then the default. The file is read once; its objects are shared
 * by all connections, so everything here runs under one lock and hands out copies.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/base/map.h"
#include "tests/rig/provider/double.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static json_object *script;
static size_t next_step;
static unsigned used[256]; /* how often each rule has been taken */
static struct map gates;
static int log_fd = -1;
static long n_requests;

bool script_load(const char *path)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;

    map_init(&gates);
    if (!path) {
        script = json_new();
        return true;
    }
    if (file_read(path, 16 * 1024 * 1024, &text, &len)) {
        fprintf(stderr, "test-provider: cannot read %s\n", path);
        return false;
    }
    if (json_parse(text, len, &script) || !json_object_is_type(script, json_type_object)) {
        fprintf(stderr, "test-provider: %s is not a JSON object\n", path);
        return false;
    }
    return true;
}

void script_reset(void)
{
    pthread_mutex_lock(&lock);
    next_step = 0;
    memset(used, 0, sizeof used);
    map_done(&gates);
    map_init(&gates);
    pthread_mutex_unlock(&lock);
}

bool script_log_open(const char *path)
{
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return log_fd >= 0;
}

json_object *script_get(const char *key)
{
    pthread_mutex_lock(&lock);
    json_object *o = json_dup(json_get(script, key));
    pthread_mutex_unlock(&lock);
    return o;
}

/* Text of a message's content: the string, or its text blocks joined. */
static void content_text(json_object *content, struct buf *out, bool *tool_result)
{
    if (json_object_is_type(content, json_type_string)) {
        buf_adds(out, json_object_get_string(content));
    } else if (json_object_is_type(content, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(content); i++) {
            json_object *b = json_object_array_get_idx(content, i);

            if (str_eq(json_str(b, "type", ""), "text"))
                buf_adds(out, json_str(b, "text", ""));
            else if (str_eq(json_str(b, "type", ""), "tool_result"))
                *tool_result = true;
        }
    }
}

/* What rules look at: the last user text, and whether tool results came after it. */
static void last_user(json_object *body, struct buf *out, bool *tool_result)
{
    json_object *messages = json_arr(body, "messages");
    size_t n = messages ? json_object_array_length(messages) : 0;

    *tool_result = false;
    while (n-- > 0 && !out->len) {
        json_object *m = json_object_array_get_idx(messages, n);
        const char *role = json_str(m, "role", "");

        if (str_eq(role, "tool"))
            *tool_result = true;
        else if (str_eq(role, "user"))
            content_text(json_get(m, "content"), out, tool_result);
    }
    if (!out->len)
        buf_adds(out, "");
}

static bool matches(json_object *m, const struct http_req *q)
{
    cleanup(buf_done) struct buf text = BUF_INIT(REQUEST_MAX);
    bool tool_result = false;
    const char *s = NULL;

    last_user(q->json, &text, &tool_result);
    if ((s = json_str(m, "contains", NULL)) && !strstr(text.data, s))
        return false;
    if ((s = json_str(m, "any", NULL)) && !strstr(q->body, s))
        return false;
    if ((s = json_str(m, "model", NULL)) && !str_eq(s, json_str(q->json, "model", "")))
        return false;
    if ((s = json_str(m, "path", NULL)) && !str_eq(s, q->path))
        return false;
    if (json_get(m, "stream") &&
        json_flag(m, "stream", false) != json_flag(q->json, "stream", false))
        return false;
    return !json_get(m, "tool_result") || json_flag(m, "tool_result", false) == tool_result;
}

static json_object *pick_rule(const struct http_req *q, char name[64])
{
    json_object *rules = json_arr(script, "rules");
    size_t n = rules ? json_object_array_length(rules) : 0;

    for (size_t i = 0; i < n && i < N_ELEMS(used); i++) {
        json_object *rule = json_object_array_get_idx(rules, i);
        int64_t times = json_int(rule, "times", INT32_MAX);

        if (used[i] < times && matches(json_obj(rule, "match"), q)) {
            used[i]++;
            snprintf(name, 64, "rules[%zu]", i);
            return rule;
        }
    }
    return NULL;
}

json_object *script_pick(const struct http_req *q, char name[64])
{
    pthread_mutex_lock(&lock);
    json_object *steps = json_arr(script, "steps");
    json_object *step = pick_rule(q, name);

    if (!step && steps && next_step < json_object_array_length(steps)) {
        snprintf(name, 64, "steps[%zu]", next_step);
        step = json_object_array_get_idx(steps, next_step++);
    }
    if (!step && (step = json_obj(script, "default")))
        snprintf(name, 64, "default");
    step = step ? json_dup(step) : NULL;
    pthread_mutex_unlock(&lock);
    return step;
}

static void log_object(json_object *o)
{
    if (log_fd >= 0) {
        cleanup(buf_done) struct buf line = BUF_INIT(REQUEST_MAX * 2);

        buf_adds(&line, json_text(o));
        buf_addc(&line, '\n');
        (void)write_all(log_fd, line.data, line.len);
    }
    json_put(o);
}

long script_log_request(const struct http_req *q, const char *rule)
{
    pthread_mutex_lock(&lock);
    long n = ++n_requests;
    json_object *o = json_make("n:i at_ms:i method:s path:s rule:s headers:o body:o", (int64_t)n,
                               now_ms(), q->method, q->path, rule, json_dup(q->headers),
                               q->json ? json_dup(q->json) : json_object_new_string(q->body));

    log_object(o);
    pthread_mutex_unlock(&lock);
    return n;
}

void script_log_end(const struct reply *r, int status)
{
    pthread_mutex_lock(&lock);
    log_object(json_make("n:i end:s status:i sent:i events:i", (int64_t)r->n, r->result,
                         (int64_t)status, (int64_t)r->sent, (int64_t)r->events));
    pthread_mutex_unlock(&lock);
}

void script_release(const char *name)
{
    static char open_mark;

    pthread_mutex_lock(&lock);
    map_put(&gates, name, &open_mark);
    pthread_cond_broadcast(&opened);
    pthread_mutex_unlock(&lock);
}

bool script_wait(const char *name, int client_fd)
{
    bool gone = false;

    pthread_mutex_lock(&lock);
    while (!gone && !map_get(&gates, name)) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&opened, &lock, &until);
        /* a client that hangs up while it waits must not hold the thread */
        struct pollfd p = { .fd = client_fd, .events = POLLRDHUP };
        char c = 0;
        gone = poll(&p, 1, 0) > 0 && recv(client_fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
    }
    pthread_mutex_unlock(&lock);
    return !gone;
}
