/* A job owns copies of hash and password, and wipes them. */
#include "authsvc/password.h"

#include <argon2.h>

#include "common/base/err.h"
#include "common/base/map.h"

/* Fits no password anyone knows; its result is thrown away in any case. */
static const char dummy[] = "$argon2id$v=19$m=65536,t=3,p=4$YXZpeC1kdW1teS1zYWx0IQ$"
                            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

struct passwords {
    struct work_pool *pool;
    struct map busy; /* addresses with a job */
};

struct job {
    struct work work; /* first */
    struct passwords *owner;
    char hash[160], password[PASSWORD_MAX + 1], addr[64];
    bool real, ok;
    password_fn fn;
    void *arg;
};

static void run(struct work *w)
{
    struct job *j = (struct job *)w;

    j->ok = argon2id_verify(j->hash, j->password, strlen(j->password)) == ARGON2_OK && j->real;
    explicit_bzero(j->password, sizeof(j->password));
}

static void done(struct work *w)
{
    struct job *j = (struct job *)w;

    map_del(&j->owner->busy, j->addr);
    j->fn(j->ok, j->arg);
    explicit_bzero(j, sizeof(*j));
    free(j);
}

struct passwords *passwords_new(struct loop *l)
{
    struct passwords *p = xcalloc(1, sizeof(*p));

    map_init(&p->busy);
    p->pool = work_pool_new(l, PASSWORD_THREADS, PASSWORD_WAITING);
    return p;
}

int password_check(struct passwords *p, const char *hash, const char *password, const char *addr,
                   password_fn fn, void *arg)
{
    if (map_get(&p->busy, addr))
        return ERR_BUSY;
    struct job *j = xcalloc(1, sizeof(*j));
    j->work = (struct work){ .run = run, .done = done };
    j->owner = p;
    j->real = hash != NULL;
    j->fn = fn;
    j->arg = arg;
    str_copy(j->hash, sizeof(j->hash), hash ? hash : dummy);
    /* one that is too long is wrong, and costs the same */
    if (!str_copy(j->password, sizeof(j->password), password))
        j->real = false;
    str_copy(j->addr, sizeof(j->addr), addr);
    int r = work_submit(p->pool, &j->work);
    if (r) {
        explicit_bzero(j, sizeof(*j));
        free(j);
        return r;
    }
    map_put(&p->busy, j->addr, j);
    return 0;
}

unsigned passwords_waiting(struct passwords *p)
{
    return work_waiting(p->pool);
}

void passwords_free(struct passwords *p)
{
    if (!p)
        return;
    work_pool_free(p->pool);
    map_done(&p->busy);
    free(p);
}
