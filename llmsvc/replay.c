/*
 * Cassettes. A file is read when it is first used and indexed by key; what is recorded is appended
 * and indexed too. Playing keeps a place per key, so equal requests get the answers in the order in
 * which they were recorded.
 */
#include "llmsvc/replay.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/fsx.h"
#include "common/svc/token.h"
#include "llmsvc/core.h"

#define TAPES_MAX 8
#define TAPE_MAX  (256 * 1024 * 1024)
#define RULES_MAX 16

struct tape {
    char path[768];
    int fd;             /* for appending, -1 until needed */
    struct map keys;    /* key to an array of lines */
    struct map at;      /* key to how many were played, +1 */
    json_object *lines; /* all, in order */
    bool fresh;         /* no first line yet */
};

static struct tape *tapes[TAPES_MAX];

/* --- keys --- */

static char *replace_all(const char *s, const regex_t *re, const char *with)
{
    struct buf out = BUF_INIT(64 * 1024 * 1024);
    regmatch_t m;

    while (*s && !regexec(re, s, 1, &m, 0) && m.rm_eo > m.rm_so) {
        buf_add(&out, s, (size_t)m.rm_so);
        buf_adds(&out, with);
        s += m.rm_eo;
    }
    buf_adds(&out, s);
    return buf_take(&out);
}

struct rules {
    regex_t re[RULES_MAX];
    const char *with[RULES_MAX];
    size_t n;
};

static void add_rule(struct rules *r, const char *pattern, const char *with)
{
    if (r->n < RULES_MAX && !regcomp(&r->re[r->n], pattern, REG_EXTENDED))
        r->with[r->n++] = with;
}

static void rules_init(struct rules *r, json_object *list)
{
    r->n = 0;
    add_rule(
        r,
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
        "<time>");
    add_rule(r, "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
             "<uuid>");
    add_rule(r, "PID: [0-9]+", "PID: <n>");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        json_object *row = json_object_array_get_idx(list, i);
        add_rule(r, json_str(row, "pattern", "$^"), json_str(row, "with", ""));
    }
}

static void rules_done(struct rules *r)
{
    for (size_t i = 0; i < r->n; i++)
        regfree(&r->re[i]);
}

/* Every string of the value through the rules, and tool ids renumbered; a new value. */
static json_object *normalise(json_object *o, const struct rules *r, json_object *ids,
                              const char *key)
{
    if (json_object_is_type(o, json_type_string)) {
        if (str_eq(key, "id") || str_eq(key, "tool_use_id")) {
            const char *id = json_object_get_string(o);

            if (!json_get(ids, id)) {
                char num[24];
                snprintf(num, sizeof num, "t%d", json_object_object_length(ids) + 1);
                json_add_str(ids, id, num);
            }
            return json_object_new_string(json_str(ids, id, ""));
        }
        char *s = xstrdup(json_object_get_string(o));
        for (size_t i = 0; i < r->n; i++) {
            char *next = replace_all(s, &r->re[i], r->with[i]);
            free(s);
            s = next;
        }
        json_object *out = json_object_new_string(s);
        free(s);
        return out;
    }
    if (json_object_is_type(o, json_type_array)) {
        json_object *out = json_new_arr();
        for (size_t i = 0; i < json_object_array_length(o); i++)
            json_push(out, normalise(json_object_array_get_idx(o, i), r, ids, ""));
        return out;
    }
    if (json_object_is_type(o, json_type_object)) {
        json_object *out = json_new();
        json_object_object_foreach (o, k, v)
            json_add(out, k, v ? normalise(v, r, ids, k) : NULL);
        return out;
    }
    return o ? json_object_get(o) : NULL;
}

static json_object *shape_of(const struct lreq *q, const char *model, const char *tool)
{
    json_object *o = json_make("tool:s model:s", tool, model);

    json_add(o, "system", json_object_get(q->sys));
    json_add(o, "messages", json_object_get(q->messages));
    json_add(o, "tools", json_object_get(q->tools));
    json_add(o, "tool_choice", json_make("kind:i name:s", (int64_t)q->choice, q->choice_name));
    json_add_int(o, "max_tokens", q->max_tokens);
    if (q->has_temperature)
        json_add_num(o, "temperature", q->temperature);
    if (q->has_top_p)
        json_add_num(o, "top_p", q->top_p);
    if (q->has_seed)
        json_add_int(o, "seed", q->seed);
    if (q->stop_sequences)
        json_add(o, "stop_sequences", json_object_get(q->stop_sequences));
    if (q->response_format)
        json_add(o, "response_format", json_object_get(q->response_format));
    if (q->thinking)
        json_add(o, "thinking",
                 json_make("effort:s budget:i", effort_names[q->effort], q->budget_tokens));
    return o;
}

void replay_key(const struct lreq *q, const char *model, const char *tool,
                const struct replay_conf *c, char key[65], json_object **normal)
{
    cleanup(json_putp) json_object *shape = shape_of(q, model, tool), *ids = json_new();
    struct rules r;
    uint8_t sum[32];

    rules_init(&r, c ? c->normalize : NULL);
    json_object *n = normalise(shape, &r, ids, "");
    cleanup(freep) char *text = json_canonical(n);
    sha256(text, strlen(text), sum);
    hex_encode(sum, sizeof sum, key);
    rules_done(&r);
    if (normal)
        *normal = n;
    else
        json_put(n);
}

/* --- cassettes --- */

static void index_line(struct tape *t, json_object *line)
{
    const char *key = json_str(line, "key", "");
    json_object *list = map_get(&t->keys, key);

    if (!*key)
        return;
    if (!list) {
        list = json_new_arr();
        map_put(&t->keys, key, list);
    }
    json_push(list, json_object_get(line));
    json_push(t->lines, json_object_get(line));
}

static bool load(struct tape *t)
{
    cleanup(freep) char *text = NULL;
    size_t len = 0;
    int r = file_read(t->path, TAPE_MAX, &text, &len);

    t->fresh = r == -ENOENT || !len;
    if (r)
        return r == -ENOENT;
    for (char *p = text, *nl; p < text + len && (nl = memchr(p, '\n', (size_t)(text + len - p)));
         p = nl + 1) {
        cleanup(json_putp) json_object *line = NULL;

        if (!json_parse(p, (size_t)(nl - p), &line) && json_object_is_type(line, json_type_object))
            index_line(t, line);
    }
    return true;
}

struct tape *tape_open(const char *root, const struct replay_conf *c, const char **why)
{
    char path[768];

    if (*c->cassette == '/')
        snprintf(path, sizeof path, "%s", c->cassette);
    else
        snprintf(path, sizeof path, "%s/data/cassettes/%s", root, c->cassette);
    for (size_t i = 0; i < TAPES_MAX; i++)
        if (tapes[i] && str_eq(tapes[i]->path, path))
            return tapes[i];
    for (size_t i = 0; i < TAPES_MAX; i++) {
        if (tapes[i])
            continue;
        struct tape *t = xcalloc(1, sizeof *t);

        t->fd = -1;
        t->lines = json_new_arr();
        map_init(&t->keys);
        map_init(&t->at);
        str_copy(t->path, sizeof t->path, path);
        tapes[i] = t;
        if (!load(t)) {
            *why = "the cassette cannot be read";
            return NULL;
        }
        return t;
    }
    *why = "too many cassettes";
    return NULL;
}

void tapes_close(void)
{
    for (size_t i = 0; i < TAPES_MAX; i++) {
        struct tape *t = tapes[i];
        const char *k = NULL;
        void *v = NULL;

        if (!t)
            continue;
        for (size_t p = 0; map_each(&t->keys, &p, &k, &v);)
            json_put(v);
        map_done(&t->keys);
        map_done(&t->at);
        json_put(t->lines);
        if (t->fd >= 0)
            close(t->fd);
        free(t);
        tapes[i] = NULL;
    }
}

json_object *tape_next(struct tape *t, const char *key)
{
    json_object *list = map_get(&t->keys, key);
    size_t at = (size_t)map_get(&t->at, key), n = list ? json_object_array_length(list) : 0;

    if (!n)
        return NULL;
    if (at < n)
        map_put(&t->at, key, (void *)(at + 1));
    return json_object_array_get_idx(list, at < n ? at : n - 1);
}

static void differing(json_object *a, json_object *b, const char *path, json_object *out)
{
    char at[200];

    if (json_object_array_length(out) > 50 || json_object_equal(a, b))
        return;
    if (json_object_is_type(a, json_type_object) && json_object_is_type(b, json_type_object)) {
        json_object_object_foreach (a, k, v) {
            snprintf(at, sizeof at, "%.120s%s%.60s", path, *path ? "." : "", k);
            differing(v, json_get(b, k), at, out);
        }
        json_object_object_foreach (b, k2, v2) {
            (void)v2;
            snprintf(at, sizeof at, "%.120s%s%.60s", path, *path ? "." : "", k2);
            if (!json_object_object_get_ex(a, k2, NULL))
                json_push_str(out, at);
        }
        return;
    }
    if (json_object_is_type(a, json_type_array) && json_object_is_type(b, json_type_array) &&
        json_object_array_length(a) == json_object_array_length(b)) {
        for (size_t i = 0; i < json_object_array_length(a); i++) {
            snprintf(at, sizeof at, "%.150s[%zu]", path, i);
            differing(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i), at, out);
        }
        return;
    }
    json_push_str(out, path);
}

json_object *tape_nearest(struct tape *t, json_object *normal)
{
    json_object *best = NULL;
    int64_t best_n = 0;

    for (size_t i = 0; i < json_object_array_length(t->lines); i++) {
        json_object *line = json_object_array_get_idx(t->lines, i), *diff = json_new_arr();

        differing(normal, json_obj(line, "request"), "", diff);
        if (!best || json_object_array_length(diff) < json_object_array_length(best)) {
            json_put(best);
            best = diff;
            best_n = json_int(line, "n", 0);
        } else {
            json_put(diff);
        }
    }
    return best ? json_make("n:i differs:o", best_n, best) : NULL;
}

static int write_line(struct tape *t, json_object *line)
{
    cleanup(buf_done) struct buf b = BUF_INIT(64 * 1024 * 1024);

    buf_adds(&b, json_text(line));
    buf_addc(&b, '\n');
    int r = b.toobig ? -EFBIG : write_all(t->fd, b.data, b.len);
    return r ? r : fdatasync(t->fd) ? -errno : 0;
}

int tape_append(struct tape *t, const char *key, json_object *line)
{
    int r = 0;

    (void)key;
    if (t->fd < 0) {
        cleanup(freep) char *dir = xstrdup(t->path);
        char *slash = strrchr(dir, '/');

        if (slash)
            *slash = '\0';
        (void)mkdir_p(dir, 0700);
        t->fd = open(t->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
        if (t->fd < 0) {
            r = -errno;
            json_put(line);
            return r;
        }
    }
    if (t->fresh) {
        char at[RFC3339_LEN];
        cleanup(json_putp) json_object *head =
            json_make("v:i cassette:s created:s avix:s", (int64_t)1,
                      strrchr(t->path, '/') ? strrchr(t->path, '/') + 1 : t->path,
                      rfc3339(now_ms(), at), AVIX_VERSION);
        t->fresh = false;
        r = write_line(t, head);
    }
    r = r ? r : write_line(t, line);
    index_line(t, line);
    json_put(line);
    return r;
}
