/*
 * Longest value first, so that a value that contains another one goes as a whole. Values that
 * cannot be searched for in a sensible way (empty) do not count. Few and short, so a plain search
 * is enough.
 */
#include "kernel/agent/mask.h"

#include <sys/mman.h>

#include "common/base/err.h"

static int longer_first(const struct secret *a, const struct secret *b)
{
    return a->len != b->len ? (a->len < b->len ? 1 : -1) : strcmp(a->name, b->name);
}

static void sort(struct mask *m)
{
    for (size_t i = 1; i < m->n; i++)
        for (size_t j = i; j && longer_first(&m->s[j - 1], &m->s[j]) > 0; j--) {
            struct secret t = m->s[j];
            m->s[j] = m->s[j - 1];
            m->s[j - 1] = t;
        }
}

static void wipe_tree(json_object *doc)
{
    json_object_object_foreach (doc, key, v) {
        (void)key;
        if (json_object_is_type(v, json_type_string)) {
            /* json-c gives no writable view; overwriting with as many zeros keeps its buffer */
            size_t n = (size_t)json_object_get_string_len(v);
            char *zero = xcalloc(1, n + 1);
            json_object_set_string_len(v, zero, (int)n);
            free(zero);
        }
    }
}

static size_t block_size(json_object *doc)
{
    size_t need = 0;

    json_object_object_foreach (doc, key, v) {
        need += strlen(key) + 2 + (size_t)json_object_get_string_len(v);
    }
    return need;
}

static void fill(struct mask *m, json_object *doc)
{
    char *p = m->block;

    json_object_object_foreach (doc, key, v) {
        size_t kn = strlen(key), vn = (size_t)json_object_get_string_len(v);
        if (!vn || m->n == MASK_MAX)
            continue;
        struct secret *s = &m->s[m->n++];
        s->name = memcpy(p, key, kn + 1);
        s->value = memcpy(p + kn + 1, json_object_get_string(v), vn + 1);
        s->len = vn;
        if (vn > m->longest)
            m->longest = vn;
        p += kn + vn + 2;
    }
}

int mask_load(struct mask *m, const char *text, size_t len)
{
    cleanup(json_putp) json_object *doc = NULL;

    *m = (struct mask){ .n = 0 };
    if (json_parse(text, len, &doc) || !json_object_is_type(doc, json_type_object))
        return ERR_INVAL;
    json_object_object_foreach (doc, key, v) {
        (void)key;
        if (!json_object_is_type(v, json_type_string))
            return ERR_INVAL;
    }
    m->size = block_size(doc);
    m->block = xcalloc(1, m->size + 1);
    (void)mlock(m->block, m->size + 1); /* RLIMIT_MEMLOCK may be 0; the cgroup has no swap then */
    fill(m, doc);
    sort(m);
    wipe_tree(doc);
    return 0;
}

void mask_done(struct mask *m)
{
    if (m->block) {
        explicit_bzero(m->block, m->size);
        free(m->block);
    }
    *m = (struct mask){ .n = 0 };
}

/* The value that starts at s, or NULL. */
static const struct secret *value_at(const struct mask *m, const char *s, size_t len)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->s[i].len <= len && !memcmp(s, m->s[i].value, m->s[i].len))
            return &m->s[i];
    return NULL;
}

bool mask_hit(const struct mask *m, const char *s, size_t len)
{
    for (size_t i = 0; i < m->n; i++)
        if (memmem(s, len, m->s[i].value, m->s[i].len))
            return true;
    return false;
}

void mask_text(const struct mask *m, const char *s, size_t len, struct buf *out)
{
    if (!mask_hit(m, s, len)) {
        buf_add(out, s, len);
        return;
    }
    for (size_t i = 0; i < len;) {
        const struct secret *v = value_at(m, s + i, len - i);
        if (v) {
            buf_printf(out, "[secret:%s]", v->name);
            i += v->len;
        } else {
            buf_addc(out, s[i++]);
        }
    }
}

static json_object *masked_str(const struct mask *m, const char *s, size_t len)
{
    struct buf b = BUF_INIT(SIZE_MAX / 2);

    mask_text(m, s, len, &b);
    json_object *o = json_object_new_string_len(b.data ? b.data : "", (int)b.len);
    buf_done(&b);
    return o;
}

static bool json_hit(const struct mask *m, json_object *v);

static bool object_hit(const struct mask *m, json_object *v)
{
    json_object_object_foreach (v, key, e) {
        if (mask_hit(m, key, strlen(key)) || json_hit(m, e))
            return true;
    }
    return false;
}

static bool json_hit(const struct mask *m, json_object *v)
{
    bool hit = false;

    if (json_object_is_type(v, json_type_string))
        return mask_hit(m, json_object_get_string(v), (size_t)json_object_get_string_len(v));
    if (json_object_is_type(v, json_type_array))
        for (size_t i = 0; !hit && i < json_object_array_length(v); i++)
            hit = json_hit(m, json_object_array_get_idx(v, i));
    return hit || (json_object_is_type(v, json_type_object) && object_hit(m, v));
}

static json_object *masked_object(const struct mask *m, json_object *v)
{
    json_object *o = json_new();

    json_object_object_foreach (v, key, e) {
        struct buf b = BUF_INIT(SIZE_MAX / 2);
        mask_text(m, key, strlen(key), &b);
        json_add(o, b.data ? b.data : "", mask_json(m, e));
        buf_done(&b);
    }
    return o;
}

json_object *mask_json(const struct mask *m, json_object *v)
{
    if (!m->n || !json_hit(m, v))
        return json_object_get(v);
    if (json_object_is_type(v, json_type_string))
        return masked_str(m, json_object_get_string(v), (size_t)json_object_get_string_len(v));
    if (json_object_is_type(v, json_type_array)) {
        json_object *o = json_new_arr();
        for (size_t i = 0; i < json_object_array_length(v); i++)
            json_push(o, mask_json(m, json_object_array_get_idx(v, i)));
        return o;
    }
    return masked_object(m, v);
}

/* s (len bytes) is the beginning of a value, but not a whole one. */
static bool begins_value(const struct mask *m, const char *s, size_t len)
{
    for (size_t i = 0; i < m->n; i++)
        if (len < m->s[i].len && !memcmp(s, m->s[i].value, len))
            return true;
    return false;
}

size_t mask_tail(const struct mask *m, const char *s, size_t len)
{
    if (!m->n)
        return 0;
    for (size_t i = 0; i < len;) {
        const struct secret *v;
        if (len - i < m->longest && begins_value(m, s + i, len - i))
            return len - i;
        v = value_at(m, s + i, len - i);
        i += v ? v->len : 1;
    }
    return 0;
}
