/*
 * authsvc hands the secrets of service:llm over on a sealed memfd {name: value}. It is read into
 * locked memory and taken apart there by the scanner, so no copy is left on the heap.
 */
#include "llmsvc/secret.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/json.h"
#include "common/svc/svc.h"
#include "llmsvc/conf.h"
#include "llmsvc/fault.h"

#define VALUE_MAX  65536
#define EXPORT_MAX (1024 * 1024)
#define ASK_MS     2000

struct cred {
    char name[64];
    struct secret *value; /* NULL: not found */
};
struct creds {
    struct cred rows[2 * PROVS_MAX];
    size_t n;
    bool locked, reachable;
};

struct secret *secret_new(size_t size, bool *locked)
{
    struct secret *s = xcalloc(1, sizeof *s);

    s->refs = 1;
    s->size = (size + 4096) & ~(size_t)4095;
    s->text = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->text == MAP_FAILED)
        abort();
    (void)madvise(s->text, s->size, MADV_DONTDUMP);
    if (mlock(s->text, s->size) && locked)
        *locked = false;
    return s;
}

struct secret *secret_ref(struct secret *s)
{
    if (s)
        s->refs++;
    return s;
}

void secret_unref(struct secret *s)
{
    if (!s || --s->refs > 0)
        return;
    explicit_bzero(s->text, s->size);
    munmap(s->text, s->size);
    free(s);
}

static void add_name(struct creds *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq(c->rows[i].name, name))
            return;
    if (*name && c->n < N_ELEMS(c->rows))
        str_copy(c->rows[c->n++].name, sizeof c->rows[0].name, name);
}

static bool env_name(const char *s)
{
    for (const char *p = s; *p; p++)
        if (!(*p >= 'A' && *p <= 'Z') && *p != '_' && !(p > s && *p >= '0' && *p <= '9'))
            return false;
    return *s != '\0';
}

static void keep(struct creds *c, struct cred *r, const char *value, size_t len)
{
    while (len && (value[len - 1] == '\n' || value[len - 1] == '\r' || value[len - 1] == ' '))
        len--;
    if (!len || len > VALUE_MAX || memchr(value, '\n', len) || memchr(value, '\r', len))
        return;
    r->value = secret_new(len + 1, &c->locked);
    memcpy(r->value->text, value, len);
    mask_remember(r->value->text);
}

/* Values out of the export's text, through locked memory only. */
static void take_export(struct creds *c, const char *text, size_t len)
{
    struct secret *tmp = secret_new(VALUE_MAX + 1, NULL);

    for (size_t i = 0; i < c->n; i++) {
        const char *name = c->rows[i].name;
        struct json_slice v;

        if (!json_scan(text, len, &name, &v, 1) && v.len &&
            json_slice_str(v, tmp->text, VALUE_MAX + 1))
            keep(c, &c->rows[i], tmp->text, strlen(tmp->text));
    }
    secret_unref(tmp);
}

static void read_export(struct creds *c, int fd)
{
    struct stat st;

    if (fstat(fd, &st) || st.st_size < 2 || st.st_size > EXPORT_MAX)
        return;
    struct secret *s = secret_new((size_t)st.st_size + 1, NULL);
    if (pread(fd, s->text, (size_t)st.st_size, 0) == st.st_size)
        take_export(c, s->text, (size_t)st.st_size);
    secret_unref(s);
}

static void ask_authsvc(struct creds *c)
{
    cleanup(json_putp) json_object *names = json_new_arr();
    struct ipc_reply r = { .fd = -1 };

    for (size_t i = 0; i < c->n; i++)
        json_push_str(names, c->rows[i].name);
    cleanup(json_putp) json_object *params =
        json_make("owner:s names:o", "service:llm", json_object_get(names));
    struct ipc_req q = { .sock = svc_sock(UNIT_AUTHSVC),
                         .method = "auth/secret/export",
                         .params = params,
                         .timeout_ms = ASK_MS,
                         .listener = svc.init_pid,
                         .repeatable = true,
                         .reply_fd = 1 };
    int err = ipc_call(&q, &r);

    c->reachable = !err || (err != ERR_UNAVAIL && err != ERR_TIMEOUT);
    if (!err && r.fd >= 0)
        read_export(c, r.fd);
    else if (err)
        log_warn("auth/secret/export: %s", r.error.message);
    if (r.fd >= 0)
        close(r.fd);
    r.fd = -1;
    ipc_reply_done(&r);
}

static void from_environment(struct creds *c, struct cred *r)
{
    char name[80];
    const char *v = NULL;

    if (!env_name(r->name))
        return;
    if ((v = getenv(r->name))) {
        keep(c, r, v, strlen(v));
        return;
    }
    snprintf(name, sizeof name, "%s_FILE", r->name);
    if (!(v = getenv(name)))
        return;
    cleanup(closep) int fd = open(v, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        log_warn("%s: cannot open the file it names", name);
        return;
    }
    struct secret *s = secret_new(VALUE_MAX + 1, NULL);
    ssize_t n = read(fd, s->text, VALUE_MAX);
    if (n > 0)
        keep(c, r, s->text, (size_t)n);
    secret_unref(s);
}

struct creds *creds_load(const struct llm_conf *conf)
{
    struct creds *c = xcalloc(1, sizeof *c);

    c->locked = c->reachable = true;
    for (size_t i = 0; i < conf->n_provs; i++) {
        const struct auth_conf *a = &conf->provs[i].auth;

        if (a->type == AUTH_NONE || conf->provs[i].kind >= KIND_BUILTIN)
            continue;
        add_name(c, a->secret);
        add_name(c, a->client_secret);
    }
    if (c->n)
        ask_authsvc(c);
    for (size_t i = 0; i < c->n; i++)
        if (!c->rows[i].value)
            from_environment(c, &c->rows[i]);
    return c;
}

void creds_free(struct creds *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        if (c->rows[i].value)
            mask_forget(c->rows[i].value->text);
        secret_unref(c->rows[i].value);
    }
    free(c);
}

const char *creds_get(const struct creds *c, const char *name)
{
    for (size_t i = 0; c && i < c->n; i++)
        if (str_eq(c->rows[i].name, name))
            return c->rows[i].value ? c->rows[i].value->text : NULL;
    return NULL;
}

bool creds_locked(const struct creds *c)
{
    return c->locked;
}

bool creds_reachable(const struct creds *c)
{
    return c->reachable;
}
